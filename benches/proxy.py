#!/usr/bin/env python3
"""What the server costs behind nginx, beside servers that do nothing: CPU time of the process, through the same nginx.

    cargo build --release --features full && cargo build --release --example bare_echo
    benches/proxy.py [PAIRS]

`GET /likes` is held against an nginx that answers `return 200`, and a round to 1,000 clients against a bare WebSocket
echo to as many. All three are behind one nginx, over Unix sockets, and take turns. Needs python3 and nginx.
"""

import os
import pathlib
import re
import resource
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
RELEASE = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
CLIENTS, CONNECTIONS, PIPELINED, BATCHES, ROUNDS = 1000, 4, 50, 60, 20
MOST = 1.3


def tick(process):
    """CPU time of a process and of those that it has started, in seconds."""
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    # The clock of another process, as clock_getcpuclockid(3) makes its number.
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in [process.pid, *map(int, children)])


def until(what, path):
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{what} does not start"
        time.sleep(0.02)


def nginx(folder, name, http, threads=""):
    temporary = "".join(f"{kind}_temp_path {folder}/{name}-{kind};\n"
                        for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])
    path = folder / f"{name}.conf"
    path.write_text(f"worker_processes 1; pid {folder}/{name}.pid; error_log stderr warn; daemon off;\n"
                    "worker_rlimit_nofile 16384; events { worker_connections 8192; }\n"
                    f"http {{ access_log off; keepalive_requests 1000000000; {temporary} {http} }}\n")
    return subprocess.Popen(["nginx", "-p", folder, "-c", path])


def connect(path):
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(60)
    connection.connect(str(path))
    return connection


def requests(front):
    """Sends as many over each connection as fit a batch, again and again. Returns how many that were."""
    request = b"GET /likes HTTP/1.1\r\nHost: localhost\r\n\r\n"

    def run():
        with connect(front) as connection:
            connection.sendall(request)
            length = len(connection.recv(65536))
            for _ in range(BATCHES):
                connection.sendall(request * PIPELINED)
                left = length * PIPELINED
                while left > 0:
                    left -= len(connection.recv(min(left, 65536)))

    threads = [threading.Thread(target=run) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return CONNECTIONS * (1 + BATCHES * PIPELINED)


class Clients:
    """WebSockets through nginx."""

    def __init__(self, front):
        self.sockets, self.selector = [], selectors.DefaultSelector()
        for _ in range(CLIENTS):
            client = connect(front)
            client.sendall(b"GET /liveLikes HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                           b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(4096)
            assert head.startswith(b"HTTP/1.1 101 "), head
            self.sockets.append(client)
            self.selector.register(client, selectors.EVENT_READ)

    def hear(self):
        """Waits until each has been sent something."""
        left = set(self.sockets)
        while left:
            for key, _ in self.selector.select(60):
                assert key.fileobj.recv(4096), "a connection was closed"
                left.discard(key.fileobj)

    def rounds(self, talkers):
        text = b'{"type":"like"}'
        frame = bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text
        for _ in range(ROUNDS):
            for client in self.sockets[:talkers]:
                client.sendall(frame)
            self.hear()
        return ROUNDS

    def close(self):
        for client in self.sockets:
            client.close()


def cpu(process, work):
    """Of one of the things that it is asked for, in microseconds."""
    start = tick(process)
    number = work()
    return (tick(process) - start) / number * 1e6


def compare(what, pairs, ours, bare):
    ours(), bare()
    measured = [(ours(), bare()) for _ in range(pairs)]
    ratios = [one / other for one, other in measured]
    ratio = statistics.median(ratios)
    one, other = (statistics.median(side) for side in zip(*measured))
    print(f"{what}: {one:.1f} us of CPU beside {other:.1f}: {ratio:.2f} (median of {pairs} pairs, "
          f"{min(ratios):.2f} to {max(ratios):.2f})", flush=True)
    return ratio


def main():
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        folder.chmod(0o755)
        likes, bare, echo = folder / "likes.sock", folder / "bare.sock", folder / "echo.sock"
        (folder / "db.txt").write_text("16")
        server = subprocess.Popen(
            [RELEASE / "live-likes", "--addr", f"unix:{likes}", "--socket-mode", "666", "--trust-proxy", "unix",
             "--db", folder / "db.txt", "--log", "warn"], stdout=subprocess.DEVNULL)
        echoing = subprocess.Popen([RELEASE / "examples/bare_echo", echo], stdout=subprocess.DEVNULL)
        returning = nginx(folder, "bare", f"""server {{ listen unix:{bare};
            location / {{ default_type application/json; return 200 '{{"numLikes":16}}'; }} }}""")
        fronts = {name: folder / f"front-{name}.sock" for name in ["likes", "bare", "echo"]}
        # As deploy/nginx/root.conf has it.
        configuration = (ROOT / "deploy/nginx/root.conf").read_text()
        location = re.search(r"    location / \{.*?\n    \}\n", configuration, re.S)[0]
        text = "map $http_upgrade $live_likes_connection { default upgrade; '' ''; }\n"
        for name, path in [("likes", likes), ("bare", bare), ("echo", echo)]:
            text += f"upstream {name} {{ server unix:{path}; keepalive 32; keepalive_requests 1000000000; }}\n"
            text += f"server {{ listen unix:{fronts[name]} backlog=4096;\n"
            text += location.replace("http://live_likes", f"http://{name}") + "}\n"
        processes = [server, echoing, returning]
        try:
            for path in [likes, bare, echo]:
                until(path.name, path)
            echo.chmod(0o666)
            proxy = nginx(folder, "front", text)
            processes.append(proxy)
            until("nginx", fronts["echo"])
            ratios = [compare("GET /likes beside `return 200`", pairs,
                              lambda: cpu(server, lambda: requests(fronts["likes"])),
                              lambda: cpu(returning, lambda: requests(fronts["bare"])))]
            watching, talking = Clients(fronts["likes"]), Clients(fronts["echo"])
            watching.hear()  # the count as it is
            ratios.append(compare(f"a round to {CLIENTS} clients beside an echo to each", pairs,
                                  lambda: cpu(server, lambda: watching.rounds(1)),
                                  lambda: cpu(echoing, lambda: talking.rounds(CLIENTS))))
            watching.close()
            talking.close()
        finally:
            for process in processes:
                process.terminate()
                process.wait()
    if max(ratios) > MOST:
        sys.exit(f"more than {MOST}")


main()

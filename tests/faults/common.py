"""What the fault harness is made of: the real server as a process, a client of it, and a crowd of them.

Python 3's standard library alone. Everything waits with a deadline, and every process that is started is ended.
"""

import argparse
import atexit
import base64
import http.client
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

PATIENCE = 60  # seconds; nothing here takes that long
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARY = os.environ.get("LIVE_LIKES_BINARY", os.path.join(ROOT, "target/release/live-likes"))
LIKE = b'{"type":"like"}'
SAID = {"capture_output": True, "text": True}


def arguments(description, count=None, default=0):
    """The command line that all parts of the harness share: one count, and flags that the caller adds."""
    parser = argparse.ArgumentParser(description=description.strip().splitlines()[0])
    if count:
        parser.add_argument("count", nargs="?", type=int, default=default, help=f"{count} [{default}]")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="for the random moments")
    return parser


def start(parsed, needs_root=False, tools=(), db="db.txt"):
    """Checks what a run needs; ends it with 77, for skipped, where that is not there."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing or needs_root and os.geteuid() != 0:
        skip("this needs", *(missing or ["root"]))
    if "strace" in tools and not may_trace():
        skip("strace may not attach to a process here")
    if not os.access(BINARY, os.X_OK):
        sys.exit(f"no {BINARY}: cargo build --release --features full")
    if is_sqlite(db) and "no SQLite" in subprocess.run(command_line("/no/likes.db"), **SAID).stderr:
        skip("this build has no SQLite")
    random.seed(parsed.seed)
    # So that what was started is ended also where a run is called off.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def skip(*why):
    print("skipped:", *why)
    sys.exit(77)


def may_trace():
    """Not so in many a container, and for users other than root on many a system."""
    traced = subprocess.Popen(["sleep", "60"])
    tracer = subprocess.Popen(["strace", "-o", "/dev/null", "-p", str(traced.pid)], stderr=subprocess.PIPE, text=True)
    attached = "attached" in tracer.stderr.readline()
    for process in (traced, tracer):
        process.kill()
        process.wait()
    tracer.stderr.close()
    return attached


def folder(within=None):
    """A folder that is removed at the end."""
    path = os.path.realpath(tempfile.mkdtemp(prefix="live-likes-faults-", dir=within))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def run(*command):
    """Runs a tool; what it says is shown only where it fails."""
    done = subprocess.run(command, **SAID)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout.strip()


class Mounted:
    """A mounted file system, unmounted at the end."""

    def __init__(self, path, *options):
        self.path, self.options, self.mounted = path, options, False
        os.makedirs(path, exist_ok=True)
        atexit.register(self.unmount)
        # Also root may not, in many a container.
        tried = subprocess.run(["mount", *self.options, self.path], **SAID)
        if tried.returncode != 0:
            skip("nothing can be mounted here:", *tried.stderr.strip().splitlines()[:1])
        self.mounted = True

    def mount(self):
        run("mount", *self.options, self.path)
        self.mounted = True

    def unmount(self):
        if self.mounted:
            # Whoever opens something in it just then holds it for a moment.
            quietly = {"stderr": subprocess.DEVNULL}
            until("it is unmounted", lambda: subprocess.run(["umount", self.path], **quietly).returncode == 0)
            self.mounted = False


class Failed(Exception):
    """A promise is broken."""


class Lost(Failed):
    """What was answered or shown is not there any more."""


def check(holds, *problem):
    if not holds:
        raise Failed(" ".join(map(str, problem)))


def until(what, holds):
    deadline = time.monotonic() + PATIENCE
    while not holds():
        check(time.monotonic() < deadline, "still not so:", what)
        time.sleep(0.005)


def is_sqlite(db):
    return db.endswith(".db")


def command_line(db, binary=BINARY):
    return [binary, "--addr", "127.0.0.1:0", "--db", db]


class Server:
    """The real binary on a free port, with this database; `under` are words before it, such as a tracer's."""

    def __init__(self, db, *flags, under=(), setup=None, binary=BINARY):
        self.db, self.log = db, tempfile.TemporaryFile("w+")
        command = [*under, *command_line(db, binary), *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True, preexec_fn=setup)
        self.pid = self.process.pid
        atexit.register(self.kill)
        line = self.process.stdout.readline()  # ends with the process too
        check(" at http://" in line, "the server does not start:", self.said())
        self.addr = ("127.0.0.1", int(line.split("http://127.0.0.1:")[1].split("/")[0]))
        self.count = int(line.split(" with ")[1].split()[0])
        # A tracer stands between us and the server.
        self.pid = child_of(self.pid) if under else self.pid

    def signal(self, number):
        if self.process.poll() is None:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass  # under a tracer: it has ended, and the tracer has not

    def kill(self):
        """Ends it, if it has not ended."""
        self.signal(signal.SIGKILL)
        self.ended()

    def stop(self):
        self.signal(signal.SIGTERM)
        return self.ended()

    def ended(self):
        """Its exit code, once it has ended. Its log stays readable."""
        code = self.process.wait(PATIENCE)
        self.process.stdout.close()
        atexit.unregister(self.kill)
        return code

    def said(self):
        self.log.seek(0)
        return self.log.read().strip()

    def request(self, method, path):
        """One request on a connection of its own: status, fields and body."""
        connection = http.client.HTTPConnection(*self.addr, timeout=PATIENCE)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode()
        finally:
            connection.close()

    def put(self):
        return self.request("PUT", "/like")

    def likes(self):
        return number_in(self.request("GET", "/likes")[2])

    def health(self):
        return self.request("GET", "/healthz")[0]

    def saved(self):
        """What the file holds; it must be a number at any time."""
        with open(self.db, encoding="ascii") as file:
            text = file.read()
        check(text.isdecimal(), f"{self.db} holds {text!r}")
        return int(text)


def child_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return int(file.read().split()[0])


def number_in(body):
    return int(body.removeprefix('{"numLikes":').removesuffix("}"))


class Ended(Exception):
    """The connection is over, or there is none; with the close code, if there was one."""


class WebSocket:
    """A client of `/liveLikes`, as much of RFC 6455 as that takes."""

    def __init__(self, addr, subprotocol=None):
        self.buffer, self.last = b"", -1
        self.socket = socket.create_connection(addr, PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        key = base64.b64encode(os.urandom(16)).decode()
        wanted = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
        self.socket.sendall(
            f"GET /liveLikes HTTP/1.1\r\nHost: {addr[0]}:{addr[1]}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{wanted}\r\n".encode()
        )
        while b"\r\n\r\n" not in self.buffer:
            self.receive()
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        self.head = head
        if head.startswith(b"HTTP/1.1 503 "):
            raise Ended  # the server has stopped, before this one came in
        check(head.startswith(b"HTTP/1.1 101 "), "no upgrade:", head)

    def send(self, opcode, payload):
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        length = len(payload)
        length = bytes([0x80 | length]) if length < 126 else b"\xfe" + length.to_bytes(2, "big")
        self.socket.sendall(bytes([0x80 | opcode]) + length + mask + masked)

    def like(self):
        self.send(1, LIKE)

    def receive(self):
        received = self.socket.recv(65536)
        if not received:
            raise Ended
        self.buffer += received

    def bounds(self):
        """Where the payload of the next frame begins, and where it ends, if all of it is there. None that the server
        sends is very long or fragmented."""
        begin = 4 if self.buffer[1:2] == b"\x7e" else 2
        if len(self.buffer) < begin:
            return None
        end = begin + (int.from_bytes(self.buffer[2:4], "big") if begin == 4 else self.buffer[1])
        return (begin, end) if len(self.buffer) >= end else None

    def frame(self):
        """The next frame. Pings are answered."""
        while not (bounds := self.bounds()):
            self.receive()
        opcode, (begin, end) = self.buffer[0] & 15, bounds
        payload, self.buffer = self.buffer[begin:end], self.buffer[end:]
        if opcode == 8:
            raise Ended(int.from_bytes(payload[:2], "big"))
        if opcode == 9:
            self.send(10, payload)
            return self.frame()
        return opcode, payload

    def count(self):
        opcode, payload = self.frame()
        check(opcode == 1, "a frame that is no count:", opcode, payload)
        return int(payload)

    def newest(self):
        """The next count, and those that have come with it: the counts, which must rise."""
        counts = [self.count()]
        while self.bounds() and self.buffer[0] & 15 == 1:  # a close is heard of the next time
            counts.append(self.count())
        check(self.last < counts[0] and counts == sorted(set(counts)), "shown", counts, "after", self.last)
        self.last = counts[-1]
        return self.last

    def is_silent(self):
        """Whether nothing comes before the answer to a ping that is sent now."""
        self.send(9, b"?")
        return self.frame() == (10, b"?")

    def close(self):
        self.socket.close()


class Crowd:
    """Clients, a thread for each role, until the server is gone."""

    def __init__(self, roles):
        self.problem, self.begun = None, threading.Event()
        self.threads = [threading.Thread(target=self.play, args=(role,), daemon=True) for role in roles]
        for thread in self.threads:
            thread.start()

    def play(self, role):
        try:
            role()
        except (OSError, Ended, http.client.HTTPException):
            pass  # the server is gone
        except Exception as problem:  # a broken promise, or a mistake in here
            self.problem = problem
        self.begun.set()

    def breathe(self):
        """All at once: what is not made durable behind a save shows only where no other follows at once."""
        time.sleep(max(0, 0.02 - time.monotonic() % 0.06))

    def leave(self):
        """Waits for the end of all; the server must be gone, or stopping."""
        for thread in self.threads:
            thread.join(PATIENCE)
            check(not thread.is_alive(), "a client hangs")
        if self.problem:
            raise self.problem


class Counted:
    """What is known of the one counter in `db.txt`, over all starts of its server."""

    def __init__(self):
        self.answered = set()

    def crowd(self, server):
        return OneCounter(server)

    def compare(self, crowd, server):
        """Holds what came back against what was sent and shown. Returns how many likes had been acknowledged."""
        check(self.answered.isdisjoint(crowd.answered), "a number was given again after a restart")
        self.answered.update(crowd.answered)
        check(server.saved() == server.count, "started with", server.count, "on", server.saved())
        return crowd.compare(server.count)


class OneCounter(Crowd):
    """Eight who like, six over WebSocket and two over HTTP, and one who watches."""

    def __init__(self, server):
        self.addr, self.base = server.addr, server.count
        self.sent = 0  # likes that went out, answered or not
        self.shown = server.count  # the highest count that anybody was shown, an answer included
        self.answered = []  # the numbers of likes over HTTP
        self.lock = threading.Lock()
        super().__init__([self.like] * 6 + [self.put] * 2 + [self.watch])

    def show(self, count):
        with self.lock:
            self.shown = max(self.shown, count)
        if count > self.base:
            self.begun.set()

    def send(self):
        with self.lock:
            self.sent += 1

    def watch(self):
        socket = WebSocket(self.addr)
        while True:
            self.show(socket.newest())

    def like(self):
        socket = WebSocket(self.addr)
        while True:
            self.show(socket.newest())
            self.breathe()
            for _ in range(random.randint(1, 8)):
                self.send()
                socket.like()

    def put(self):
        connection = http.client.HTTPConnection(*self.addr, timeout=PATIENCE)
        while True:
            self.breathe()
            self.send()
            connection.request("PUT", "/like")
            answer = connection.getresponse()
            body = answer.read().decode()
            if answer.status != 200:
                raise Ended
            count = number_in(body)
            self.answered.append(count)
            self.show(count)

    def leave(self):
        super().leave()
        check(len(set(self.answered)) == len(self.answered), "two likes were given one number")

    def compare(self, found):
        acknowledged = self.shown - self.base
        if found < self.shown:
            raise Lost(f"{self.shown} was shown, {found} came back")
        check(found <= self.base + self.sent, f"INVENTED: {self.base} + {self.sent} sent, {found} came back")
        return acknowledged

"""Restarts while people watch and like: `run` starts this.

    upgrade.py BINARY NGINX.CONF FOLDER RESTARTS PAGES
"""

import asyncio
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter

binary, conf, work = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
restarts, pages = int(sys.argv[4]), int(sys.argv[5])

LIKERS = 100
PATIENCE = 60
# A page is to be live again within this time.
LIVE_AGAIN = 5.0
# What the page waits at most before it connects again, the first time and ever, in seconds (`index.html`).
FIRST_WAIT, LONGEST_WAIT, STEADY = 2.0, 30.0, 10.0
HOST = "likes.example"


class Server:
    """The server, on sockets that are held here and handed over at descriptors 3 and 4."""

    def __init__(self):
        self.path = work / "live-likes.sock"
        unix = socket.socket(socket.AF_UNIX)
        unix.bind(str(self.path))
        self.path.chmod(0o666)
        tcp = socket.create_server(("127.0.0.1", 0), backlog=4096)
        unix.listen(4096)
        self.sockets, self.direct, self.process = [unix, tcp], tcp.getsockname()[1], None

    def start(self):
        script = 'exec 3<&0 4<&1 </dev/null >/dev/null; export LISTEN_PID=$$ LISTEN_FDS=2; exec "$@"'
        self.process = subprocess.Popen(
            ["sh", "-c", script, "sh", binary, "--db", work / "likes.db", "--trust-proxy", "unix", "--allow-host", HOST,
             "--new-posts-per-hour", "1000000", "--log", "warn"],
            stdin=self.sockets[0], stdout=self.sockets[1])

    async def restart(self):
        """Returns for how long nobody was there."""
        start = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(self.process.wait, PATIENCE) == 0
        stopped = time.monotonic() - start
        self.start()
        return stopped


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def start_nginx(server):
    """nginx as `deploy/` has it, but without TLS, which would be most of the work here."""
    port, folder = free_port(), work / "nginx"
    folder.mkdir()
    text = conf.read_text().replace("/run/live-likes/live-likes.sock", str(server.path))
    text = re.sub(r".*ssl_certificate.*\n", "", text).replace("listen 443 ssl", f"listen 127.0.0.1:{port} backlog=4096")
    temporary = "".join(f"{name}_temp_path {folder}/{name};\n"
                        for name in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])
    (folder / "conf").write_text(f"worker_processes 1; pid {folder}/pid; error_log stderr warn; daemon off;\n"
                                 f"worker_rlimit_nofile 16384; events {{ worker_connections 8192; }}\n"
                                 f"http {{ access_log off; {temporary} {text} }}\n")
    return subprocess.Popen(["nginx", "-p", folder, "-c", folder / "conf"]), port


class Socket:
    """As much of a WebSocket as a page needs."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write((f"GET /liveLikes HTTP/1.1\r\nHost: {HOST}\r\nOrigin: http://{HOST}\r\nConnection: Upgrade\r\n"
                      "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: live-likes\r\n"
                      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").encode())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
        return int(head[9:12]), cls(reader, writer)

    def say(self, **message):
        self.frame(0x81, json.dumps(message).encode())

    def frame(self, first, payload):
        assert len(payload) < 126
        self.writer.write(bytes([first, 0x80 | len(payload), 0, 0, 0, 0]) + payload)

    async def hear(self):
        """The next message; the code of a close frame; None at the end."""
        while True:
            try:
                first, length = await self.reader.readexactly(2)
                if length == 126:
                    length = int.from_bytes(await self.reader.readexactly(2))
                payload = await self.reader.readexactly(length)
            except (asyncio.IncompleteReadError, ConnectionError):
                return None
            if first == 0x81:
                return json.loads(payload)
            if first == 0x88:
                self.frame(0x88, payload[:2])
                return int.from_bytes(payload[:2])
            if first == 0x89:
                self.frame(0x8A, payload)

    def close(self):
        self.writer.close()


class Crowd:
    def __init__(self, server, port):
        self.server, self.port = server, port
        self.live, self.live_at, self.opened = 0, [], Counter()
        self.closes, self.wrong = Counter(), Counter()
        self.news = 0
        self.over = False

    async def page(self):
        failures = 0
        while not self.over:
            opened_at, joined = time.monotonic(), False
            self.opened[int(opened_at * 10)] += 1
            try:
                status, socket = await Socket.open(self.port)
                if status == 101:
                    socket.say(type="watch", post="the page's")
                    while not isinstance(message := await socket.hear(), int | None):
                        if not joined:
                            joined = True
                            self.live += 1
                            self.live_at.append(time.monotonic())
                        self.news += message["numLikes"] == self.newest
                    self.closes[message] += 1
                else:
                    self.wrong[f"a page: {status}"] += 1
                socket.close()
            except (OSError, asyncio.IncompleteReadError) as e:
                self.wrong[f"a page: {e!r}"] += 1
            self.live -= joined
            if joined and time.monotonic() - opened_at > STEADY:
                failures = 0
            await asyncio.sleep(random.random() * min(LONGEST_WAIT, FIRST_WAIT * 2**failures))
            failures += 1

    async def ask(self, streams, method, target):
        reader, writer = streams
        writer.write(f"{method} {target} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\n\r\n".encode())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
        length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
        body = await reader.readexactly(length)
        return int(head[9:12]), body, b"connection: close" in head.lower()

    async def liker(self, number):
        """Likes by HTTP as nobody in particular, which counts as often as it is said: through nginx over a connection
        that stays open, and every tenth directly, over a new one each time. Returns how many were answered."""
        answered, streams, direct = 0, None, number % 10 == 0
        method = ["PUT", "POST"][number % 2]
        while not self.over:
            try:
                streams = streams or await asyncio.open_connection(
                    "127.0.0.1", self.server.direct if direct else self.port)
                status, body, closes = await self.ask(streams, method, "/like")
                answered += status == 200
                if status != 200:
                    self.wrong[f"a liker {'directly' if direct else 'through nginx'}: {status} {body[:80]}"] += 1
                if closes or direct:
                    streams[1].close()
                    streams = None
            except (OSError, asyncio.IncompleteReadError) as e:
                self.wrong[f"a liker {'directly' if direct else 'through nginx'}: {e!r}"] += 1
                streams = None
            await asyncio.sleep(random.random() * 0.4)
        return answered

    async def visitor(self, number):
        """Likes one post after the other over a WebSocket, and again what was not answered. Returns how many were."""
        answered = 0
        while not self.over:
            try:
                status, socket = await Socket.open(self.port)
                while status == 101 and not self.over:
                    # A new visitor each time, so that each like counts.
                    name = f"visitor-{number:04}-{answered:06}"
                    socket.say(type="like", post="the visitors'", visitor=name, seq=1, ref=name)
                    message = await asyncio.wait_for(socket.hear(), PATIENCE)
                    if isinstance(message, int | None):
                        break
                    assert message["type"] == "answer" and message["liked"], message
                    answered += 1
                    await asyncio.sleep(random.random() * 0.4)
                if status != 101:
                    self.wrong[f"a visitor: {status}"] += 1
                socket.close()
            except (OSError, asyncio.IncompleteReadError) as e:
                self.wrong[f"a visitor: {e!r}"] += 1
            await asyncio.sleep(random.random() * 0.5)
        return answered

    async def all_live(self, within):
        deadline = time.monotonic() + within
        while self.live < pages:
            assert time.monotonic() < deadline, f"{self.live} of {pages} pages are live; {self.wrong}"
            await asyncio.sleep(0.01)

    async def like_for_the_pages(self):
        """A page is live if it is shown a like that was given since."""
        self.news, self.newest = 0, getattr(self, "newest", 0) + 1
        streams = await asyncio.open_connection("127.0.0.1", self.port)
        status, body, _ = await self.ask(streams, "PUT", "/like?post=the+page%27s")
        streams[1].close()
        assert status == 200 and json.loads(body)["numLikes"] == self.newest, (status, body)
        deadline = time.monotonic() + PATIENCE
        while self.news < pages:
            assert time.monotonic() < deadline, f"{self.news} of {pages} pages were shown it"
            await asyncio.sleep(0.01)


async def main():
    server = Server()
    server.start()
    nginx, port = start_nginx(server)
    try:
        crowd = Crowd(server, port)
        crowd.newest = 0
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                (await asyncio.open_connection("127.0.0.1", port))[1].close()
                break
            except OSError:
                assert time.monotonic() < deadline, "nginx does not start"
                await asyncio.sleep(0.05)
        watching = [asyncio.create_task(crowd.page()) for _ in range(pages)]
        await crowd.all_live(PATIENCE)
        likers = [asyncio.create_task(crowd.liker(number)) for number in range(LIKERS // 2)]
        visitors = [asyncio.create_task(crowd.visitor(number)) for number in range(LIKERS - LIKERS // 2)]
        slowest = 0
        for number in range(1, restarts + 1):
            await crowd.like_for_the_pages()
            # As in life, the line has been steady for a while, so that pages do not wait longer each time.
            await asyncio.sleep(STEADY + 0.5)
            crowd.live_at.clear()
            crowd.opened.clear()
            start = time.monotonic()
            stopped = await server.restart()
            while crowd.live == pages:
                await asyncio.sleep(0.01)
            await crowd.all_live(PATIENCE)
            times = sorted(at - start for at in crowd.live_at)
            slowest = max(slowest, times[-1])
            print(f"restart {number}: nobody there after {stopped:.2f} s; pages live again {times[0]:.2f} to "
                  f"{times[-1]:.2f} s after the signal, half of them in {times[len(times) // 2]:.2f}; at most "
                  f"{max(crowd.opened.values())} connected within 0.1 s; wrong: {dict(crowd.wrong)}", flush=True)
        await crowd.like_for_the_pages()
        crowd.over = True
        of_likers, of_visitors = sum(await asyncio.gather(*likers)), sum(await asyncio.gather(*visitors))
        for task in watching:
            task.cancel()
        streams = await asyncio.open_connection("127.0.0.1", port)
        anonymous = json.loads((await crowd.ask(streams, "GET", "/likes"))[1])["numLikes"]
        by_visitors = json.loads((await crowd.ask(streams, "GET", "/likes?post=the+visitors%27"))[1])["numLikes"]
        print(f"{restarts} restarts, {pages} pages, {LIKERS} likers: answered {of_likers} and {of_visitors} likes, "
              f"saved {anonymous} and {by_visitors}; pages live again within {slowest:.2f} s; close codes "
              f"{dict(crowd.closes)}; wrong: {dict(crowd.wrong)}")
        assert not crowd.wrong and set(crowd.closes) == {1001}, "somebody was refused, or cut off"
        assert (anonymous, by_visitors) == (of_likers, of_visitors), "a like was lost or doubled"
        assert slowest <= LIVE_AGAIN, "a page was away for longer"
    finally:
        nginx.terminate()
        server.process.terminate()
        nginx.wait()
        server.process.wait()


asyncio.run(main())

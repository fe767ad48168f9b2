"""What a browser does, through each proxy: `run` starts this.

    proxies.py BINARY DEPLOY FOLDER
"""

import asyncio
import http.client
import json
import os
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

PATIENCE = 60
# In place of the proxies' own minute: a connection that nothing passes over for so long is closed.
IDLE = 3

binary, deploy, work = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
HOSTS = {"root": "likes.example", "path": "www.example"}


def certificate():
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-keyout", work / "privkey.pem", "-out", work / "fullchain.pem", "-subj", "/CN=likes.example",
         "-addext", "subjectAltName=DNS:likes.example,DNS:www.example"],
        check=True, capture_output=True)
    (work / "all.pem").write_bytes((work / "fullchain.pem").read_bytes() + (work / "privkey.pem").read_bytes())
    (work / "privkey.pem").chmod(0o644)


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def shipped(proxy, name):
    """A configuration as it stands, but for places that are this test's."""
    text = (deploy / proxy / name).read_text()
    for old, new in [("/run/live-likes/live-likes.sock", f"{work}/live-likes.sock"),
                     ("/etc/ssl/likes.example", str(work))]:
        assert old in text or old == "/etc/ssl/likes.example" and proxy == "caddy", (proxy, name, old)
        text = text.replace(old, new)
    return text


def changed(text, pattern, replacement):
    text, times = re.subn(pattern, replacement, text)
    assert times, pattern
    return text


def nginx(place, port, folder):
    text = changed(shipped("nginx", f"{place}.conf"), "listen 443", f"listen 127.0.0.1:{port}")
    text = changed(text, "proxy_read_timeout 60s", f"proxy_read_timeout {IDLE}s")
    temporary = "".join(f"{name}_temp_path {folder}/{name};\n"
                        for name in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])
    (folder / "conf").write_text(f"worker_processes 1; pid {folder}/pid; error_log stderr warn; daemon off;\n"
                                 f"events {{}}\nhttp {{ access_log off; {temporary} {text} }}\n")
    return ["nginx", "-p", folder, "-c", folder / "conf"]


def haproxy(place, port, folder):
    text = changed(shipped("haproxy", f"{place}.cfg"), "bind :443", f"bind 127.0.0.1:{port}")
    (folder / "conf").write_text(changed(text, r"timeout (client|server|tunnel) 60s", rf"timeout \1 {IDLE}s"))
    return ["haproxy", "-db", "-f", folder / "conf"]


def apache2(place, port, folder):
    text = changed(shipped("apache", f"{place}.conf"), r"\*:443", f"127.0.0.1:{port}")
    text = changed(text, "timeout=60", f"timeout={IDLE}")
    modules = ["mpm_event", "authz_core", "alias", "headers", "proxy", "proxy_http", "ssl", "socache_shmcb"]
    built_in = subprocess.run(["apache2", "-l"], capture_output=True, text=True).stdout
    load = "".join(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"
                   for name in modules if f"mod_{name}.c" not in built_in)
    user = "User www-data\nGroup www-data\n" if os.geteuid() == 0 else ""
    (folder / "conf").write_text(f"{user}ServerRoot {folder}\nPidFile {folder}/pid\nErrorLog /dev/stderr\nLogLevel warn\n"
                                 f"DefaultRuntimeDir {folder}\nServerName localhost\n{load}"
                                 f"Listen 127.0.0.1:{port}\n{text}")
    return ["apache2", "-X", "-f", folder / "conf"]


def caddy(place, port, folder):
    text = changed(shipped("caddy", f"{place}.Caddyfile"), rf"(?m)^{re.escape(HOSTS[place])} {{",
                   f"https://{HOSTS[place]}:{port} {{\n\tbind 127.0.0.1\n\ttls {work}/fullchain.pem {work}/privkey.pem")
    (folder / "conf").write_text(f"{{\n\tadmin off\n\tauto_https off\n}}\n{text}")
    return ["caddy", "run", "--adapter", "caddyfile", "--config", folder / "conf"]


class Front:
    """A proxy in front of the server, as a browser at a source address sees it."""

    def __init__(self, proxy, place):
        self.name, self.port = f"{proxy.__name__} at a {place}", free_port()
        self.host = f"{HOSTS[place]}:{self.port}"
        self.base = "/" if place == "root" else "/counter/"
        self.tls = ssl.create_default_context(cafile=work / "fullchain.pem")
        folder = work / f"{proxy.__name__}-{place}"
        folder.mkdir()
        folder.chmod(0o777)
        self.log = open(folder / "log", "w+")
        environment = os.environ | {"XDG_DATA_HOME": str(folder), "HOME": str(folder)}
        self.process = subprocess.Popen(proxy(place, self.port, folder), stderr=self.log, stdout=self.log,
                                        env=environment)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                assert self.ask("GET", "healthz")[0] == 200
                break
            except ConnectionRefusedError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    self.log.seek(0)
                    raise AssertionError(f"{self.name} does not start: {self.log.read()}") from None
                time.sleep(0.05)

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def connection(self, source):
        plain = socket.create_connection(("127.0.0.1", self.port), PATIENCE, (source, 0))
        connection = http.client.HTTPSConnection(self.host, timeout=PATIENCE)
        connection.sock = self.tls.wrap_socket(plain, server_hostname=self.host.split(":")[0])
        return connection

    def ask(self, method, target, source="127.0.0.1", connection=None, **fields):
        """Of a target relative to the page: status, body, fields."""
        connection = connection or self.connection(source)
        path = target if target.startswith("/") else self.base + target
        fields = {name.replace("_", "-"): value for name, value in fields.items()}
        connection.request(method, path, headers={"Host": self.host} | fields)
        response = connection.getresponse()
        return response.status, response.read().decode(), response.headers

    def watch(self, source="127.0.0.1", origin=None, **options):
        return connect(f"wss://{self.host}{self.base}liveLikes", host="127.0.0.1", port=self.port, ssl=self.tls,
                       local_addr=(source, 0), origin=origin or f"https://{self.host}", open_timeout=PATIENCE,
                       ping_interval=None, proxy=None, **options)


async def heard(socket, kind):
    while True:
        message = json.loads(await asyncio.wait_for(socket.recv(), PATIENCE))
        if message["type"] == kind:
            return message


async def refused(connection):
    try:
        async with connection:
            return 101
    except InvalidStatus as answer:
        return answer.response.status_code


def over_http(front, number):
    # The page, and what it asks for by relative addresses.
    status, page, fields = front.ask("GET", front.base)
    assert status == 200 and "text/html" in fields["Content-Type"], status
    etag = fields["ETag"]
    assert front.ask("GET", front.base, If_None_Match=etag)[0] == 304
    relative = re.findall(r'<link [^>]*href="([^":/#][^":]*)"', page)
    assert {"favicon.ico", "live-likes.js"} <= set(relative), relative
    for target in relative:
        assert front.ask("GET", target)[0] == 200, target
    if front.base != "/":
        status, _, fields = front.ask("GET", front.base.rstrip("/"))
        assert status in (301, 302, 308) and fields["Location"].endswith("/counter/"), (status, fields["Location"])
    assert front.ask("GET", "healthz")[:2] == (200, "ok")

    # Likes, over one connection, by whoever is here.
    # Each address may be the first to like two posts, so that this one is nobody else's.
    post, mine = f"post-{number}", front.connection(f"127.0.2.{number}")
    origin = f"https://{front.host}"
    target = f"like?post={post}&visitor=a-reader-of-{front.port:05}"
    for method, likes in [("PUT", 1), ("PUT", 1), ("DELETE", 0), ("POST", 1)]:
        status, body, _ = front.ask(method, target, connection=mine, Origin=origin)
        assert status == 200 and json.loads(body)["numLikes"] == likes, (method, status, body)
    # Whose scheme or host is another is of another origin.
    for other in [f"http://{front.host}", "https://evil.example", "null"]:
        assert front.ask("PUT", target, Origin=other)[0] == 403, other
    assert front.ask("GET", "nothing")[0] == 404

    # Each client has its own address, whatever it says of itself.
    def first_likes(source, **fields):
        return [front.ask("PUT", f"like?post={post}-{source}-{n}", source, **fields)[0] for n in range(3)]

    for source in ["127.0.1.1", "127.0.1.2"]:
        own = f"{source[:-1]}{number}{source[-1]}"
        assert first_likes(own) == [200, 200, 429], own
        forged = {"X_Forwarded_For": f"198.51.100.{number}", "Forwarded": "for=198.51.100.1",
                  "X_Real_IP": "198.51.100.1"}
        assert front.ask("PUT", f"like?post={post}-forged", own, **forged)[0] == 429, own


async def browse(front, number):
    # Elsewhere, lest the others' WebSockets wait for it.
    await asyncio.to_thread(over_http, front, number)
    assert await refused(front.watch(origin="https://evil.example")) == 403
    post = f"post-{number}"
    async with front.watch(subprotocols=["live-likes"]) as page, front.watch() as bare:
        assert page.subprotocol == "live-likes"
        await page.send(json.dumps({"type": "watch", "post": post, "visitor": "a-visitor-0123456"}))
        count = await heard(page, "count")
        assert (count["numLikes"], count["liked"]) == (1, False)
        await page.send(json.dumps({"type": "like", "post": post, "visitor": "a-visitor-0123456", "seq": 1}))
        answer = await heard(page, "answer")
        assert (answer["numLikes"], answer["liked"]) == (2, True)
        before = int(await asyncio.wait_for(bare.recv(), PATIENCE))
        # Far longer idle than the proxy allows: the server's pings keep both.
        await asyncio.sleep(3 * IDLE)
        status, _, _ = await asyncio.to_thread(front.ask, "PUT", f"like?post={post}&visitor=another-reader-1",
                                               Origin=f"https://{front.host}")
        assert status == 200
        while (await heard(page, "count"))["numLikes"] < 3:
            pass
        await bare.send('{"type":"like"}')
        assert int(await asyncio.wait_for(bare.recv(), PATIENCE)) > before
    print(f"{front.name}: page, likes, addresses, origins, WebSockets and idle are as without it", flush=True)


def main():
    certificate()
    os.umask(0o022)
    server = subprocess.Popen([binary, "--addr", f"unix:{work}/live-likes.sock", "--socket-mode", "666",
                               "--trust-proxy", "unix", "--db", work / "likes.db", "--ping-after", "1",
                               "--new-posts-per-hour", "2", "--log", "error"], stdout=subprocess.PIPE, text=True)
    fronts = []
    try:
        assert f"unix:{work}/live-likes.sock" in server.stdout.readline()
        for proxy in [nginx, haproxy, apache2, caddy]:
            if shutil.which(proxy.__name__) is None:
                print(f"{proxy.__name__} is missing: its configurations are not tried")
                continue
            for place in ["root", "path"]:
                fronts.append(Front(proxy, place))
        assert fronts, "no proxy is installed"

        async def all_at_once():
            async with asyncio.TaskGroup() as group:
                for number, front in enumerate(fronts, 1):
                    group.create_task(browse(front, number))

        asyncio.run(all_at_once())
    except BaseException:
        for front in fronts:
            front.log.seek(0)
            print(f"--- {front.name}\n{front.log.read()}", file=sys.stderr)
        raise
    finally:
        for front in fronts:
            front.stop()
        server.terminate()
        assert server.wait() == 0
    assert not (work / "live-likes.sock").exists()


main()

#!/usr/bin/env python3
"""Breaks three servers that share a Redis, that Redis, and what lies between them, while visitors like, unlike and watch.

    tests/cluster/cycles.py                     20 cycles
    tests/cluster/cycles.py 200                 the long form
    tests/cluster/cycles.py 100 --fault NAME    one kind of fault alone
    tests/cluster/cycles.py 20 --plant marks    with a fault planted, which must be found
    tests/cluster/cycles.py 20 --promote        the primary is killed and its replica promoted
    sudo tests/cluster/cycles.py 10 --tail always     the append-only file loses what was not made durable; or everysec

A cycle is one fault at a random moment. 24 visitors like and unlike over WebSocket and HTTP, on any server, and watch on
another one; what is not answered is not said again, so that all that was sent must be told apart. Then the fault ends, and
within 5 s all that watch must show what Redis has. For each visitor and post, the change with the highest number that was
answered must hold, or a later one that was sent; the likes of nobody in particular must be those that were answered, and
at most those of which nothing is known.

That SIGKILL loses nothing does not show that a like is on the disk: the system has it. With --tail, Redis stands on ext4 in a
loop file, which is shut down without its log (power_cut.py): the tail of the append-only file goes that was not flushed.
Then `always` must lose nothing, and `everysec` must be seen to lose what was answered.

Planted are: marks, the number of a batch is forgotten before it can be given again; appendonly, Redis keeps nothing.
"""

import collections
import hashlib
import json
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "faults"))
import common
import power_cut
from common import Ended, Failed, Lost, Server, WebSocket, arguments, check, folder, start

POSTS = ["", "hello", "__proto__", "größe & mehr"]
SERVERS, VISITORS = 3, 24
WITHIN = 5  # seconds in which all must be the same after a fault
FAULTS = ["kill server", "kill redis", "stop server", "stop redis", "cut", "delay", "drop"]


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


class Redis:
    """A Redis on a free port, with this folder."""

    def __init__(self, *flags, durable=True, home=None, fsync="always"):
        self.port, self.home, self.flags = free_port(), home or folder(), list(flags)
        keeps = ["--appendonly", "yes", "--appendfsync", fsync] if durable else ["--appendonly", "no"]
        self.command = ["redis-server", "--bind", "127.0.0.1", "--save", "", *keeps]
        self.run()

    def run(self):
        # Its file may be long: what is in it is checked after each start of it anyway.
        command = [*self.command, "--port", str(self.port), "--dir", self.home, *self.flags]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        common.atexit.register(self.process.kill)
        common.until("Redis answers", lambda: self.try_say("PING") == "PONG")

    def try_say(self, *words):
        said = subprocess.run(["redis-cli", "-p", str(self.port), *words], capture_output=True, text=True)
        return said.stdout.strip() if said.returncode == 0 else None

    def say(self, *words):
        said = self.try_say(*words)
        check(said is not None, "redis-cli", *words)
        return said

    def kill(self):
        self.process.kill()
        self.process.wait()

    def signal(self, number):
        self.process.send_signal(number)

    def rows(self):
        """The likes and visitors of each post."""
        lines = self.say("--json", "HGETALL", "{likes}:posts")
        return {post: [int(field) for field in row.split()] for post, row in json.loads(lines or "{}").items()}

    def all(self):
        """The rows, and the minds of each post, as they were at one moment."""
        while True:
            rows = self.rows()
            minds = {post: self.minds(post, rows.get(post, [0] * 4)[3]) for post in POSTS}
            if rows == self.rows():
                return rows, minds

    def minds(self, post, era):
        """Whether each visitor likes a post, and the highest number, by the hash of the visitor."""
        with socket.create_connection(("127.0.0.1", self.port)) as stream:
            key = f"{{likes}}:visitors:{post}".encode()
            stream.sendall(b"*2\r\n$7\r\nHGETALL\r\n$%d\r\n%s\r\n" % (len(key), key))
            file = stream.makefile("rb")
            fields = []
            for _ in range(int(file.readline()[1:])):
                fields.append(file.read(int(file.readline()[1:]) + 2)[:-2])
        minds = {}
        for key, value in zip(fields[::2], fields[1::2]):
            seq, _, of = value.decode().partition("@")
            minds[key] = (not seq.startswith("-") and int(of or 0) == era, int(seq.lstrip("-")))
        return minds


class Relay:
    """What lies between a server and Redis."""

    def __init__(self, port):
        self.port, self.streams = port, set()
        self.delay, self.drops = 0, False
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.own = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client = self.listener.accept()[0]
            try:
                server = socket.create_connection(("127.0.0.1", self.port), timeout=5)
            except OSError:
                client.close()
                continue
            for stream in (client, server):
                stream.settimeout(None)
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.streams |= {client, server}
            threading.Thread(target=self.pump, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self.pump, args=(server, client, True), daemon=True).start()

    def pump(self, source, sink, answers):
        try:
            while data := source.recv(65536):
                if self.delay:
                    time.sleep(random.uniform(0, self.delay))
                if not (answers and self.drops):
                    sink.sendall(data)
        except OSError:
            pass
        for stream in (source, sink):
            self.streams.discard(stream)
            try:
                stream.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def cut(self):
        for stream in list(self.streams):
            try:
                stream.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Cluster:
    def __init__(self, redis, wait=0):
        self.redis, self.wait = redis, wait
        self.relays = [Relay(redis.port) for _ in range(SERVERS)]
        self.servers = [self.server(number) for number in range(SERVERS)]

    def server(self, number):
        return Server(f"redis://127.0.0.1:{self.relays[number].own}/0?prefix=likes&wait={self.wait}")

    def restart(self, number):
        self.servers[number].kill()
        # Redis may be away just now.
        common.until("the server starts", lambda: self.try_start(number))

    def try_start(self, number):
        try:
            self.servers[number] = self.server(number)
            return True
        except Failed:
            return False


class Visitor:
    """Who likes and unlikes and watches, on one connection after another."""

    def __init__(self, crowd, number):
        self.crowd, self.number, self.name = crowd, number, f"visitor-{number:02}-abcdefgh"
        self.seq = 0
        self.sent = collections.defaultdict(dict)  # of each post, whether it is a like, by its number
        self.answered = collections.defaultdict(int)  # the highest number that was answered
        self.shown = {}  # of each post the last count, version and mind
        self.keys = {hashlib.sha1(bytes([len(self.name)]) + (self.name + post).encode()).digest()[:16]: post for post in POSTS}
        self.lock, self.socket, self.server = threading.Lock(), None, None
        self.answers = queue.Queue()
        threading.Thread(target=self.guarded, args=(self.watch,), daemon=True).start()
        threading.Thread(target=self.guarded, args=(self.change,), daemon=True).start()

    def guarded(self, role):
        try:
            role()
        except Exception as problem:
            self.crowd.problem = self.crowd.problem or problem

    def watch(self):
        while not self.crowd.over:
            self.server = random.choice(self.crowd.cluster.servers)
            try:
                watching = WebSocket(self.server.addr, "live-likes")
                for post in POSTS:
                    watching.send(1, json.dumps({"type": "watch", "visitor": self.name} | ({"post": post} if post else {})).encode())
                versions = {}
                with self.lock:
                    self.shown, self.socket = {}, watching
                while True:
                    opcode, payload = watching.frame()
                    if opcode == 9:
                        watching.send(10, payload)
                    if opcode == 1:
                        self.hear(json.loads(payload), versions)
            except (OSError, Ended):
                pass
            with self.lock:
                self.socket = None
            time.sleep(random.uniform(0, 0.1))

    def hear(self, message, versions):
        if message["type"] != "count":
            return self.answers.put(message)
        post, version = message.get("post", ""), message["version"]
        check(versions.get(post, 0) <= version, self.name, "was shown", post, version, "after", versions.get(post))
        versions[post] = version
        with self.lock:
            liked = message.get("liked", self.shown.get(post, (0, 0, None))[2])
            self.shown[post] = (message["numLikes"], version, liked)

    def change(self):
        while not self.crowd.over:
            self.crowd.may_like.wait()
            with self.crowd.busy(self):
                post = random.choice(POSTS)
                if self.number % 6 == 0:
                    self.like_as_nobody(post)
                else:
                    self.change_mind(post)
            time.sleep(random.uniform(0, 0.02))

    def change_mind(self, post):
        self.seq += 1
        seq, liked = self.seq, random.random() < 0.6
        self.sent[post][seq] = liked
        if random.random() < 0.3:
            status, _ = self.http("PUT" if liked else "DELETE", post, f"&visitor={self.name}&seq={seq}")
            if status == 200:
                self.answered[post] = seq
            return
        with self.lock:
            over = self.socket
        if over is None:
            return time.sleep(0.02)
        said = {"type": "like" if liked else "unlike", "visitor": self.name, "seq": seq, "ref": str(seq)}
        try:
            over.send(1, json.dumps(said | ({"post": post} if post else {})).encode())
            deadline = time.monotonic() + 8
            while True:
                answer = self.answers.get(timeout=max(0.01, min(0.3, deadline - time.monotonic())))
                if answer.get("ref") == str(seq):
                    break
        except (OSError, queue.Empty):
            return
        if answer["type"] == "answer":
            self.answered[post] = seq

    def like_as_nobody(self, post):
        status, body = self.http("PUT", post, "")
        if status == 200:
            self.crowd.count(post, 1, 0)
        elif "try again later" not in body:
            self.crowd.count(post, 0, 1)

    def http(self, method, post, rest):
        """Its status and its body; nothing of either where there was no answer."""
        quoted = urllib.parse.quote(post)
        path = f"/like?{f'post={quoted}' if post else ''}{rest}"
        server = random.choice(self.crowd.cluster.servers)
        connection = common.http.client.HTTPConnection(*server.addr, timeout=8)
        try:
            connection.request(method, path.replace("?&", "?"))
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except ConnectionRefusedError:
            return 0, "try again later"
        except (OSError, common.http.client.HTTPException):
            return 0, ""
        finally:
            connection.close()


class Bare:
    """Who watches the default counter by bare numbers."""

    def __init__(self, crowd):
        self.crowd, self.last = crowd, None
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self):
        while not self.crowd.over:
            try:
                watching = WebSocket(random.choice(self.crowd.cluster.servers).addr)
                while True:
                    opcode, payload = watching.frame()
                    if opcode == 9:
                        watching.send(10, payload)
                    if opcode == 1:
                        self.last = int(payload)
            except (OSError, Ended):
                self.last = None
                time.sleep(random.uniform(0, 0.1))


class Crowd:
    def __init__(self, cluster):
        self.cluster, self.problem, self.over = cluster, None, False
        self.may_like = threading.Event()
        self.lock, self.working = threading.Lock(), set()
        self.nobody = {post: [0, 0] for post in POSTS}  # answered, and not known
        self.visitors = [Visitor(self, number) for number in range(VISITORS)]
        self.bare = [Bare(self) for _ in range(SERVERS)]

    def count(self, post, answered, unknown):
        with self.lock:
            self.nobody[post][0] += answered
            self.nobody[post][1] += unknown

    def busy(self, who):
        crowd = self

        class Busy:
            def __enter__(self):
                with crowd.lock:
                    crowd.working.add(who)

            def __exit__(self, *_):
                with crowd.lock:
                    crowd.working.discard(who)

        return Busy()

    def rest(self):
        """Lets nobody like, and waits until nobody does."""
        self.may_like.clear()
        deadline = time.monotonic() + 20
        while True:
            time.sleep(0.03)
            with self.lock:
                if not self.working:
                    break
            check(time.monotonic() < deadline, "a change is not answered within 20 s")
        if self.problem:
            raise self.problem

    def answered(self):
        likes = sum(answered for answered, _ in self.nobody.values())
        return likes + sum(len(sent) for visitor in self.visitors for sent in visitor.sent.values())

    def converge(self, since):
        """Waits until all show what Redis has. Returns how long that took."""
        problem = None
        while True:
            if self.problem:
                raise self.problem
            problem = self.differs()
            if problem is None:
                return time.monotonic() - since
            if time.monotonic() - since > WITHIN:
                raise Failed(f"not the same within {WITHIN} s: {problem}")
            time.sleep(0.05)

    def differs(self):
        try:
            rows, minds = self.cluster.redis.all()
            # One that has still to save something says so.
            unwell = [number for number, server in enumerate(self.cluster.servers) if server.health() != 200]
        except (Failed, OSError, ValueError) as problem:
            return problem
        if unwell:
            return f"servers {unwell} are not healthy"
        for visitor in self.visitors:
            keys = {post: key for key, post in visitor.keys.items()}
            for post in POSTS:
                with visitor.lock:
                    count, _, liked = visitor.shown.get(post, (None, 0, None))
                likes = rows.get(post, [0])[0]
                mind = minds[post].get(keys[post], (False, 0))[0]
                if count != likes or liked != mind:
                    return f"{visitor.name} is shown {count}, {liked} of {post!r}, and {likes}, {mind} is kept"
        likes = rows.get("", [0])[0]
        for bare in self.bare:
            if bare.last != likes:
                return f"a bare client is shown {bare.last}, and {likes} is kept"
        return None

    def judge(self):
        """Holds what is kept against what was answered."""
        rows, all_minds = self.cluster.redis.all()
        for post in POSTS:
            (likes, fans, _, _), minds = rows.get(post, [0] * 4), all_minds[post]
            for visitor in self.visitors:
                key = next(key for key, of in visitor.keys.items() if of == post)
                liked, seq = minds.get(key, (False, 0))
                if seq < visitor.answered[post]:
                    raise Lost(f"{visitor.name} was answered {visitor.answered[post]} of {post!r}, and {seq} is kept")
                check(liked == visitor.sent[post].get(seq, False), visitor.name, post, seq, "is kept as", liked)
            check(fans == sum(liked for liked, _ in minds.values()), post, "has", fans, "visitors")
            answered, unknown = self.nobody[post]
            if likes - fans < answered:
                raise Lost(f"{answered} likes of {post!r} were answered, and {likes - fans} are kept")
            if likes - fans > answered + unknown:
                raise Failed(f"counted twice: of {post!r} {answered} likes were answered, of {unknown} nothing is known, and {likes - fans} are kept")

    def forgive(self):
        """Takes what is kept for what was answered: a failover may lose the rest."""
        rows, all_minds = self.cluster.redis.all()
        lost = 0
        for post in POSTS:
            (likes, fans, _, _), minds = rows.get(post, [0] * 4), all_minds[post]
            for visitor in self.visitors:
                key = next(key for key, of in visitor.keys.items() if of == post)
                seq = minds.get(key, (False, 0))[1]
                lost += seq < visitor.answered[post]
                visitor.answered[post] = min(visitor.answered[post], seq)
            lost += max(0, self.nobody[post][0] - (likes - fans))
            self.nobody[post][0] = min(self.nobody[post][0], likes - fans)
        return lost


def fail(cluster, fault):
    """Has something fail, for a moment."""
    number = random.randrange(SERVERS)
    relay, server = cluster.relays[number], cluster.servers[number]
    if fault == "kill server":
        cluster.restart(number)
    elif fault == "kill redis":
        cluster.redis.kill()
        time.sleep(random.choice([0, random.uniform(0, 1.5)]))
        cluster.redis.run()
    elif fault == "stop server":
        server.signal(signal.SIGSTOP)
        time.sleep(random.uniform(0.1, 1.5))
        server.signal(signal.SIGCONT)
    elif fault == "stop redis":
        cluster.redis.signal(signal.SIGSTOP)
        time.sleep(random.uniform(0.1, 3))
        cluster.redis.signal(signal.SIGCONT)
    elif fault == "cut":
        for _ in range(random.randint(1, 3)):
            relay.cut()
            time.sleep(random.uniform(0, 0.2))
    elif fault == "delay":
        relay.delay = random.uniform(0.01, 0.4)
        time.sleep(random.uniform(0.2, 1.5))
        relay.delay = 0
    elif fault == "drop":
        relay.drops = True
        time.sleep(random.uniform(0.05, 1.5))
        relay.drops = False
        # Of a stream that lost bytes nothing can be read any more.
        relay.cut()


def cut_power(redis, disk):
    """The machine of Redis loses its power, as the file system sees it, and comes back."""
    power_cut.stop(redis.process.pid)
    power_cut.cut(disk.path)
    redis.kill()
    disk.unmount()
    disk.mount()
    redis.run()


def forget_marks(redis):
    """Planted: the marks by which a batch counts once go at once."""
    script = "for _, key in ipairs(redis.call('KEYS', '{likes}:batch:*')) do redis.call('DEL', key) end"
    while True:
        redis.try_say("EVAL", script, "0")


def promote(cluster, replica):
    """The primary is killed, and its replica takes its address, with what it has."""
    common.until("the replica follows", lambda: "master_link_status:up" in replica.say("INFO", "replication"))
    time.sleep(random.uniform(0, 0.3))
    if random.random() < 0.5:  # what it has then is older than what was answered
        replica.signal(signal.SIGSTOP)
        time.sleep(random.uniform(0, 0.3))
        cluster.redis.kill()
        replica.signal(signal.SIGCONT)
    else:
        cluster.redis.kill()
    replica.say("REPLICAOF", "NO", "ONE")
    kept = replica.say("HGET", "{likes}:meta", "version")
    for relay in cluster.relays:
        relay.port = replica.port
        relay.cut()
    cluster.redis = replica
    common.until("it is taken", lambda: replica.say("HGET", "{likes}:meta", "version") != kept)
    base = replica.say("HGET", "{likes}:meta", "base")
    check(base == kept, f"the replica had version {kept}, and {base} is said to be what is left")
    return Redis("--replicaof", "127.0.0.1", str(replica.port))


def main():
    parser = arguments(__doc__, "cycles", 20)
    parser.add_argument("--fault", choices=FAULTS, help="this kind alone")
    parser.add_argument("--plant", choices=["marks", "appendonly"], help="a fault that must be found")
    parser.add_argument("--tail", choices=["always", "everysec"], help="cut off what was not made durable (root)")
    parser.add_argument("--promote", action="store_true", help="promote a replica in each cycle")
    options = parser.parse_args()
    tools = ["redis-server", "redis-cli"] + ["mkfs.ext4", "mount"] * bool(options.tail)
    start(options, needs_root=bool(options.tail), tools=tools)
    said = subprocess.run(common.command_line("redis://"), **common.SAID).stderr
    if "no Redis" in said:
        common.skip("this build has no Redis")

    begin = time.monotonic()
    disk = None
    if options.tail:
        image = os.path.join(folder(), "disk")
        with open(image, "wb") as file:
            file.truncate(64 << 20)
        common.run("mkfs.ext4", "-q", "-F", image)
        disk = common.Mounted(folder(), "-o", "loop,commit=600", image)
    redis = Redis(durable=options.plant != "appendonly", home=disk and disk.path, fsync=options.tail or "always")
    if disk:
        power_cut.make_durable(disk.path)
        power_cut.make_durable(os.path.join(disk.path, "appendonlydir"))
    cluster = Cluster(redis)
    replica = Redis("--replicaof", "127.0.0.1", str(cluster.redis.port)) if options.promote else None
    if options.plant == "marks":
        threading.Thread(target=forget_marks, args=(cluster.redis,), daemon=True).start()
    crowd = Crowd(cluster)
    times, done, lost, told, cycle, fault = [], collections.Counter(), 0, 0, 0, ""
    try:
        crowd.converge(time.monotonic() + 20)
        for cycle in range(options.count):
            fault = options.fault or random.choice(FAULTS)
            if options.plant == "appendonly":
                fault = "kill redis"
            if options.plant == "marks":
                fault = random.choice(["cut", "drop"])
            crowd.may_like.set()
            time.sleep(random.uniform(0.1, 0.6))
            if options.promote:
                fault, replica = "promote", promote(cluster, replica)
            elif options.tail:
                fault = "power cut"
                cut_power(cluster.redis, disk)
            else:
                fail(cluster, fault)
            ended = time.monotonic()
            crowd.may_like.wait(random.uniform(0, 0.3))
            crowd.rest()
            # What is still to be answered may take its own 5 s.
            times.append(crowd.converge(max(ended, time.monotonic())))
            if options.promote or options.tail == "everysec":
                # How many, or that it is not known how many: what was written at the last start may be lost, too.
                said = sum(server.said().count("has lost") for server in cluster.servers)
                less = crowd.forgive()
                check(not less or said > told, f"{less} answers are lost, and no server says so")
                told, lost = said, lost + less
            crowd.judge()
            done[fault] += 1
    except (Failed, subprocess.SubprocessError) as problem:
        if options.plant:
            print(f"cluster, planted {options.plant}: found in cycle {cycle} ({fault}): {problem}")
            return
        logs = "\n".join(server.said()[-2000:] for server in cluster.servers)
        raise SystemExit(f"cycle {cycle} ({fault}), seed {options.seed}: {problem!r}\n{logs}") from problem
    crowd.over = True
    times.sort()
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(done.items()))
    what = f"{options.count} cycles ({kinds}), {crowd.answered()} changes of {VISITORS} clients on {SERVERS} servers"
    unknown = sum(unknown for _, unknown in crowd.nobody.values())
    loss = f"{lost} answers lost" + " by promoted replicas" * options.promote + f" (appendfsync {options.tail})" * bool(options.tail)
    print(
        f"cluster: {what}, {loss}, 0 counted twice ({unknown} likes of unknown outcome); all the same within "
        f"{times[len(times) // 2]:.2f} s (median), {times[-1]:.2f} s (longest); {time.monotonic() - begin:.0f} s"
    )
    if options.tail == "everysec" and not lost:
        sys.exit("nothing was lost: what is not on the disk was not cut off")
    if options.plant:
        sys.exit(f"the planted fault was not found: {options.plant}")


if __name__ == "__main__":
    main()

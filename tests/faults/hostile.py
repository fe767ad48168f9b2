#!/usr/bin/env python3
"""Hostile peers, and a system that is short of everything: a bad peer harms only itself.

    tests/faults/hostile.py [CYCLES]        connect, like and disconnect so often: 3,000, in the long form 100,000

Slow heads, frames that claim to be huge, no descriptors, no memory maps, no further thread, and clients that come and
go in every way. Each part prints its figures and fails on its bound.
"""

import os
import resource
import select
import shutil
import socket
import struct
import sys
import threading
import time

import common
from common import check, until

KNOWN = 65_530  # memory maps that a process may have on most systems
HANDSHAKE = (
    b"GET /liveLikes HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
FRAMES = {"16 MiB": 16 << 20, "2^63-1": (1 << 63) - 1}


def status(server, field):
    with open(f"/proc/{server.pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(f"{field}:"))


def group_limit(name):
    """What the control group allows of something, if that is limited."""
    try:
        with open(f"/sys/fs/cgroup/{name}.max", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return sys.maxsize


def hard_limit(kind):
    limit = resource.getrlimit(kind)[1]
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit


def memory():
    """What is available, in MiB."""
    with open("/proc/meminfo", encoding="ascii") as file:
        available = next(int(line.split()[1]) for line in file if line.startswith("MemAvailable:"))
    return min(available >> 10, group_limit("memory") >> 20)


# As many as the system has descriptors and threads for.
ROOM = hard_limit(resource.RLIMIT_NOFILE), hard_limit(resource.RLIMIT_NPROC), group_limit("pids")
PEERS = min(1000, min(ROOM) // 3)


def descriptors(server):
    return len(os.listdir(f"/proc/{server.pid}/fd"))


def cpu(server):
    with open(f"/proc/{server.pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def watching(server):
    text = server.request("GET", "/metrics")[2]
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("live_likes_watching "))


def connect(server):
    return socket.create_connection(server.addr, common.PATIENCE)


def read_to_end(peer):
    received = b""
    try:
        while chunk := peer.recv(65536):
            received += chunk
    except ConnectionResetError:
        pass
    return received


def slow_heads(server):
    """Heads that come a byte a second: each is answered 408 in its time, and a normal request does not notice."""
    over, waits = threading.Event(), []

    def ask():
        while not over.wait(0.01):
            start = time.monotonic()
            server.likes()
            waits.append(time.monotonic() - start)

    asker = threading.Thread(target=ask)
    asker.start()
    peers = {}
    for _ in range(PEERS):
        peer = connect(server)
        peer.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
        peers[peer] = time.monotonic()
    longest, trickled = 0, time.monotonic()
    while peers:
        for peer in select_many(peers):
            check(b" 408 " in read_to_end(peer), "a slow head is answered 408")
            longest = max(longest, time.monotonic() - peers.pop(peer))
            peer.close()
        if time.monotonic() - trickled > 1:
            trickled = time.monotonic()
            for peer in peers:
                try:
                    peer.send(b"x")
                except OSError:
                    pass  # it has just been closed
        check(longest < 5 + common.PATIENCE, "a slow head is closed in its time, although bytes come:", longest)
    over.set()
    asker.join()
    slow = sorted(waits)[len(waits) * 99 // 100]
    # Had it to wait for them, that would be 5 s. How much less it is depends on the machine.
    check(slow < 4, "a normal request waits for none of them:", slow)
    return f"{PEERS} closed within {longest:.1f} s; {len(waits)} requests meanwhile, p99 {slow * 1000:.1f} ms"


def select_many(peers):
    poll = select.poll()
    by_number = {peer.fileno(): peer for peer in peers}
    for number in by_number:
        poll.register(number, select.POLLIN)
    return [by_number[number] for number, _ in poll.poll(200)]


def claims(server):
    """Frames that claim to be huge: refused by their length, and nothing is held for them."""
    peers = []
    for _ in range(PEERS):
        peer = connect(server)
        peer.sendall(HANDSHAKE)
        peers.append(peer)
    until("all watch", lambda: watching(server) == PEERS)
    before = status(server, "VmRSS")
    for index, peer in enumerate(peers):
        peer.sendall(b"\x81\xff" + struct.pack(">Q", list(FRAMES.values())[index % len(FRAMES)]) + b"mask" + b"x" * 64)
    for peer in peers:
        check(b"\x03\xf1" in read_to_end(peer), "such a frame is answered 1009")
        peer.close()
    until("all are gone", lambda: watching(server) == 0)
    grown = status(server, "VmRSS") - before
    check(grown <= 4 * PEERS, "resident memory grows by at most a page for each:", grown, "KiB")
    return f"{PEERS} frames of {' and '.join(FRAMES)} answered 1009, resident memory {grown:+} KiB"


def no_descriptors():
    """None is left for a connection, whatever was there at the start: no spinning, and it goes on once there is one."""
    server = common.Server(os.path.join(common.folder(), "db.txt"))
    peers = [common.WebSocket(server.addr) for _ in range(50)]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (descriptors(server), hard))
    waiting = [connect(server) for _ in range(100)]
    start = cpu(server)
    threading.Event().wait(3)
    share = (cpu(server) - start) / 3
    check(share <= 0.05, "waiting for descriptors takes at most 5 % of a core:", share)
    for peer in waiting + peers:
        peer.close()
    until("all are gone", lambda: watching(server) == 0)
    # A save takes two.
    check(server.put()[0] == 200, "likes are taken again")
    said = server.said().count("cannot accept")
    check(said == 1, "it says so once:", server.said())
    check(server.stop() == 0, "it stops as ever")
    return f"{share:.1%} of a core while there are none, and it goes on"


def no_maps():
    """More connections than there are memory maps for their threads: 503 past them, and those that are in are served."""
    with open("/proc/sys/vm/max_map_count", encoding="ascii") as file:
        maps = int(file.read())
    if maps > KNOWN:
        return f"skipped: a process may have {maps} memory maps, which takes more connections than one machine has ports"
    count = maps // 4 + 500
    if count + 500 > hard_limit(resource.RLIMIT_NOFILE):
        return f"skipped: this needs {count + 500} descriptors"
    if memory() < count >> 3:
        return f"skipped: this needs {count >> 3} MiB of memory"
    server = common.Server(os.path.join(common.folder(), "db.txt"), "--connections", str(count), "--request-time", "600")
    peers = []
    for index in range(count):
        # A source address has ports for 28,000.
        peers.append(socket.create_connection(server.addr, common.PATIENCE, (f"127.0.0.{2 + index // 10_000}", 0)))
    # The last one is answered, so all before it have been.
    check(b" 503 " in peers[-1].recv(512), "the last one is refused")
    refused = select_many(peers)
    check(all(b" 503 " in peer.recv(512) for peer in refused if peer is not peers[-1]), "each refusal is a 503")
    peers[0].sendall(b"PUT /like HTTP/1.1\r\nHost: localhost\r\n\r\n")
    check(b" 200 " in peers[0].recv(512), "those that are in are served")
    held = status(server, "Threads")
    for peer in peers:
        peer.close()
    until("there is room again", lambda: server.put()[0] == 200)
    check(server.stop() == 0, "it stops as ever")
    return f"{len(refused)} of {count} answered 503 with {held} threads, and it goes on"


def no_threads():
    """A user who may have 100 threads: 503, and those that are there are served.

    Not too little memory for a stack: then what the threads allocate would fail as well, which ends any Rust program.
    """
    if os.geteuid() != 0:
        return "skipped: this needs root"
    # A user without any other process, for threads are counted by user; root's are not.
    user, folder = 50_000 + os.getpid() % 10_000, common.folder()
    binary = shutil.copy(common.BINARY, folder)
    os.chown(folder, user, user)

    def limit():
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
        resource.setrlimit(resource.RLIMIT_NPROC, (100, 100))

    server = common.Server(os.path.join(folder, "db.txt"), setup=limit, binary=binary)
    watcher = common.WebSocket(server.addr)
    first = watcher.frame()
    peers, refused = [], 0
    for _ in range(3000):
        peer = connect(server)
        peer.sendall(HANDSHAKE)
        peers.append(peer)
        if b" 503 " in peer.recv(512):
            refused += 1
            if refused == 10:
                break
    check(refused == 10, "there is an end to threads")
    watcher.like()
    check(watcher.frame() != first, "those that are there are served")
    for peer in peers:
        peer.close()
    until("there are threads again", lambda: server.put()[0] == 200)
    check(server.said().count("cannot accept") == 1, "it says so once:", server.said())
    check(server.stop() == 0, "it stops as ever")
    return f"503 after {len(peers) - refused} threads, and it goes on"


def cycles(server, count):
    """Clients that come, like and go: closed, reset, half-closed. Nothing of them is left."""

    def come_and_go(index):
        peer = connect(server)
        peer.sendall(HANDSHAKE + b"\x81\x84\0\0\0\0like")
        check(b" 101 " in peer.recv(4096), "an upgrade")
        if index % 3 == 0:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif index % 3 == 1:
            peer.shutdown(socket.SHUT_WR)
            read_to_end(peer)
        peer.close()

    def settle():
        until("all are gone", lambda: watching(server) == 0 and status(server, "Threads") <= threads)

    threads = status(server, "Threads") + 1  # the one that answers us
    for index in range(500):
        come_and_go(index)
    settle()
    before, open_before = status(server, "VmRSS"), descriptors(server)
    for index in range(count):
        come_and_go(index)
    settle()
    grown = status(server, "VmRSS") - before
    # The connection that told us so has one until its own end is seen.
    until("descriptors are back to what they were", lambda: descriptors(server) <= open_before)
    check(grown <= 5120, "resident memory drifts by at most 5 MiB:", grown, "KiB")
    return f"{count} clients came and went, resident memory {grown:+} KiB"


def main():
    parsed = common.arguments(__doc__, "cycles", 3000).parse_args()
    common.start(parsed)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    server = common.Server(os.path.join(common.folder(), "db.txt"))
    for name, part in {
        "slow heads": lambda: slow_heads(server),
        "claims": lambda: claims(server),
        "no descriptors": no_descriptors,
        "no memory maps": no_maps,
        "no threads": no_threads,
        "cycles": lambda: cycles(server, parsed.count),
    }.items():
        start = time.monotonic()
        try:
            print(f"{name}: {part()} ({time.monotonic() - start:.0f} s)", flush=True)
        except common.Failed as problem:
            sys.exit(f"{name}: {problem}")
    check(server.stop() == 0, "it stops as ever")


main()

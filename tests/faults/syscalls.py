#!/usr/bin/env python3
"""Breaks each system call of one save, one at a time, in each way, in the real server.

    sudo python3 tests/faults/syscalls.py          every call with every fault, about 50 cases

The calls are read from a trace of a save as it is, so that a call added later is broken too. strace stands between
the saver's thread and the kernel: it kills the process at the call, or has the call fail. (Root is not needed where
the system lets a user trace its own processes.) What each case must come to:

    killed    the file holds the old number or the new one, and the server starts on it
    saved     interrupted, and made again at once: the like is answered as saved, and is
    refused   503 with Retry-After, nothing shown, the old number in the file; then it recovers by itself, and the
              like that was refused does not count
    stopped   the folder's fsync failed: nobody knows, so nothing is shown and the server ends with 1

More make a write short, as on a disk that becomes full in the middle of it; have no folder know an fsync, which is
said once and else changes nothing; and permit no access list, without which the file is its owner's alone.
"""

import errno
import http.client
import os
import re
import resource
import signal
import struct
import subprocess
import time

from common import PATIENCE, Failed, Server, WebSocket, arguments, check, folder, number_in, start, until

OLD = 16
FAULTS = ["KILL", "EIO", "ENOSPC", "EINTR"]
# What waits, tells the time, cannot fail, allocates memory, or is how the thread that happens to get a signal passes it on.
OTHERS = {"futex", "clock_gettime", "gettimeofday", "clock_nanosleep", "sched_yield", "restart_syscall", "gettid", "getpid"}
OTHERS |= {"geteuid", "getrandom", "brk", "mmap", "mremap", "munmap", "mprotect", "madvise"}
OTHERS |= {"sendto", "rt_sigreturn", "rt_sigprocmask"}
# Those that the standard library makes again when they are interrupted.
MADE_AGAIN = {"openat", "open", "write", "fchmod", "fsync"}


class Tracer:
    """strace on the server's saver thread alone, whose calls therefore have the same numbers each time."""

    def __init__(self, server, log, *words):
        until("there is a saver", lambda: saver_of(server))
        command = ["strace", "-p", saver_of(server), "-o", log, *words]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        line = self.process.stderr.readline()
        check("attached" in line, "strace does not attach:", line)

    def detach(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(PATIENCE)
        self.process.stderr.close()


def saver_of(server):
    """The number of the thread, which gives itself its name."""
    for task in os.listdir(f"/proc/{server.pid}/task"):
        with open(f"/proc/{server.pid}/task/{task}/comm", encoding="ascii") as file:
            if file.read() == "saver\n":
                return task
    return None


def fresh(home, setup=None):
    path = os.path.join(home, "db.txt")
    with open(path, "w", encoding="ascii") as file:
        file.write(str(OLD))
    return Server(path, "--stop-within", "1", setup=setup)


def calls_of_a_save(home):
    """The calls in order, each with its name and how many of that name came up to it."""
    server, log = fresh(home), os.path.join(home, "trace")
    tracer = Tracer(server, log)
    check(server.put()[0] == 200, "the save should work")
    tracer.detach()
    server.stop()
    with open(log, encoding="utf-8") as file:
        names = [match[1] for line in file if (match := re.match(r"(\w+)\(", line))]
    check("fsync" in names and any(name.startswith("rename") for name in names), "no save in the trace:", names)
    # A debug build looks at a descriptor before it closes it (fcntl).
    other = OTHERS | {"fcntl"}
    return [(name, names[: index + 1].count(name)) for index, name in enumerate(names) if name not in other]


def expected(calls, index, fault):
    name = calls[index][0]
    last_sync = max(place for place, (other, _) in enumerate(calls) if other == "fsync")
    if fault == "KILL":
        return "killed"
    if name == "close" or fault == "EINTR" and name in MADE_AGAIN:
        return "saved"
    return "stopped" if index == last_sync else "refused"


def put(server):
    """The answer to a like, or None where the server is gone before it answers."""
    try:
        return server.put()
    except (OSError, http.client.HTTPException):
        return None


def outcome(server, watcher, mend=lambda: None):
    """Sends a like into the fault, and holds what comes of it against the promises."""
    answer = put(server)
    status = answer and answer[0]
    if status == 200:
        check(number_in(answer[2]) == server.saved() == watcher.count() == OLD + 1, "saved otherwise than answered")
        return "saved"
    if status == 503 and server.process.poll() is None and "stopped" not in answer[2]:
        check(answer[1]["Retry-After"], "503 without Retry-After")
        check(server.saved() == OLD, "refused, and yet in the file")
        check(watcher.is_silent(), "refused, and yet shown")
        mend()
        until("it is well again", lambda: server.health() == 200)
        check(number_in(server.put()[2]) == server.saved() == watcher.count() == OLD + 1, "the refused like counts")
        return "refused"
    shown = []
    try:
        while True:
            shown.append(watcher.count())
    except Exception:  # the end, in whatever way
        check(not shown, "shown, and yet not known to be saved:", shown)
    code = server.ended()
    check(code in (1, -signal.SIGKILL), "exit code", code)
    check((code == 1) == (status == 503), "answered", answer, "and ended with", code)
    return "stopped" if code == 1 else "killed"


def case(home, words=(), setup=None, begin=lambda server: None, mend=lambda server: None):
    """One save with one fault. Returns what came of it, once the server has been started again on what is left."""
    server = fresh(home, setup)
    try:
        watcher = WebSocket(server.addr)
        check(watcher.count() == OLD, "the count as it is comes first")
        tracer = Tracer(server, "/dev/null", *words) if words else None
        begin(server)
        came = outcome(server, watcher, lambda: mend(server))
        if tracer:
            tracer.detach()
        watcher.close()
        if came in ("saved", "refused"):
            check(server.stop() == 0, "it should stop well")
        found = server.saved()
        check(found in ((OLD, OLD + 1) if came in ("killed", "stopped") else (OLD + 1,)), came, "and", found, "is left")
        again = Server(server.db)
        check(again.count == found, "started with", again.count, "on", found)
        check(again.stop() == 0 and sorted(os.listdir(home)) == ["db.txt", "db.txt.lock", "trace"], os.listdir(home))
        return came
    except Exception as problem:
        raise Failed(f"{problem!r}\n{server.said()}") from problem
    finally:
        server.kill()


def short_write(home):
    """A file may have one byte: of the two digits the first is written, and then no more."""
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    return case(
        home,
        setup=lambda: signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
        begin=lambda server: resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY)),
        mend=lambda server: resource.prlimit(server.pid, resource.RLIMIT_FSIZE, unlimited),
    )


def two_saves(home, words, setup=lambda path: None):
    """Two likes in a row that must be saved in spite of a fault. Returns what the server has logged."""
    server = fresh(home)
    try:
        setup(server.db)
        tracer = Tracer(server, "/dev/null", *words)
        numbers = [number_in(server.put()[2]) for _ in range(2)]
        tracer.detach()
        check(server.stop() == 0 and numbers == [OLD + 1, OLD + 2] and server.saved() == OLD + 2, "saved", numbers)
        return server.said()
    except Exception as problem:
        raise Failed(f"{problem!r}\n{server.said()}") from problem
    finally:
        server.kill()


def folders_without_fsync(home):
    """Each second fsync of the saver is of the folder."""
    said = two_saves(home, ["-e", "trace=fsync", "-e", "inject=fsync:error=EINVAL:when=2+2"])
    check(said.count("cannot be made durable") == 1, "it should be said once:", said)
    return "saved"


def list_not_permitted(home):
    """Group and another user may read and write; the mask, which is what the mode shows, permits both."""
    entries = [(1, 6, -1), (2, 6, 12345), (4, 6, -1), (16, 6, -1), (32, 4, -1)]
    packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)

    def give(path):
        os.setxattr(path, "system.posix_acl_access", packed)
        check(os.stat(path).st_mode & 0o777 == 0o664, "the mask should be the group's bits")

    two_saves(home, ["-e", "trace=fsetxattr", "-e", "inject=fsetxattr:error=EPERM"], give)
    mode = os.stat(os.path.join(home, "db.txt")).st_mode & 0o777
    check(mode == 0o600, f"open to more than its owner: {mode:o}")
    return "saved"


def main():
    options = arguments(__doc__).parse_args()
    start(options, tools=["strace"])
    home, begin = folder(), time.monotonic()
    calls = calls_of_a_save(home)
    broken = cases = 0

    def judge(name, wanted, run):
        nonlocal broken, cases
        try:
            came = run()
        except Failed as problem:
            came = str(problem)
        cases, broken = cases + 1, broken + (came != wanted)
        print(f"{name:24} {wanted}" if came == wanted else f"{name:24} BROKEN: {came}, {wanted} was expected")

    for index, (name, nth) in enumerate(calls):
        for fault in FAULTS:
            how = "signal=KILL" if fault == "KILL" else f"error={fault}"
            words = ["-e", f"trace={name}", "-e", f"inject={name}:{how}:when={nth}"]
            judge(f"{name} {nth} {fault}", expected(calls, index, fault), lambda words=words: case(home, words))
    words = ["-e", "trace=write", "-e", "inject=write:retval=0:when=1"]
    judge("write 1 takes nothing", "refused", lambda: case(home, words))
    judge("write 1 short", "refused", lambda: short_write(home))
    judge("fsync 2 EINVAL", "saved", lambda: folders_without_fsync(home))
    try:
        os.getxattr(home, "system.posix_acl_access")
    except OSError as problem:
        if problem.errno == errno.ENODATA:  # it has none, but could
            judge("fsetxattr 1 EPERM", "saved", lambda: list_not_permitted(home))
        else:
            print(f"no access lists in {home}: what becomes of one that may not be set is not tried")
    print(f"system calls: {len(calls)} calls, {cases} cases, {broken} broken, {time.monotonic() - begin:.0f} s")
    raise SystemExit(broken > 0)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Breaks each system call of a commit to likes.db, one at a time, in each way, in the real server.

    sudo python3 tests/faults/commits.py             every call with every fault
    sudo python3 tests/faults/commits.py --part 5    each fifth of them

The calls are read from a trace as it is: of a commit like any other, of one that writes the log back into the database,
of the one after that, which begins the log anew; of making a new database, of starting on one whose server was killed,
and of stopping. At each call the process is killed, or the call fails. Then the same change is sent again under its
number, the server is started again, and the change is sent once more. In each case:

    saved      the change is answered, though perhaps only at a further attempt, and it is there
    refused    it is not, and nobody is shown a count that is not there; the server recovers by itself
    unknown    the save took too long: it may count, but not twice
    killed     what was answered is there
    no start   the server ends with an error that names the file; it starts when that works again

More make every call of a kind fail for as long as it takes, and make one hang: meanwhile /healthz says 503, further
changes are refused, and nothing is shown that is not saved.
"""

import concurrent.futures
import itertools
import os
import random
import re
import signal
import time

from common import Ended, Failed, Server, arguments, check, folder, start, until
from posts import Change, JsonSocket, Kept
from syscalls import OTHERS, Tracer

POST, FIRST, SECOND = "hello", "with-numbers-000", "with-numbers-001"
FAULTS = {"KILL": "signal=KILL", "EIO": "error=EIO", "ENOSPC": "error=ENOSPC", "EINTR": "error=EINTR"}
CHANGES = {"pwrite64", "write", "fsync", "fdatasync", "ftruncate", "rename", "unlink", "openat", "fallocate"}
WRITTEN_BACK = 500  # pages that the log has before
PAGES = 4  # of a change
COMMITS = ["commit", "commit that writes back", "commit that begins anew", "stop"]
STARTS = ["new database", "start after a kill"]


class Case:
    """A server, a client that watches a post, and one that has its changes of that saved."""

    def __init__(self, home):
        self.db, self.kept, self.number = os.path.join(home, "likes.db"), Kept(), 0
        self.server = self.tracer = None

    def start(self, under=()):
        self.server = Server(self.db, "--stop-within", "2", under=under)
        self.watcher, self.client = JsonSocket(self.server.addr), JsonSocket(self.server.addr)
        self.kept.count(POST, self.watcher.watch(POST, FIRST))

    def trace(self, words, log="/dev/null"):
        self.tracer = Tracer(self.server, log, *words)

    def detach(self):
        if self.tracer:
            self.tracer.detach()
        self.tracer = None

    def send(self, again=False, visitor=SECOND):
        """Has the visitor change its mind. Returns what became of that."""
        self.number += not again
        change = Change(POST, visitor, self.number, self.number % 2 == 1)
        with self.kept.lock:
            self.kept.sends(change)
        try:
            self.client.say(change.kind, post=POST, visitor=visitor, seq=change.seq, ref="r")
            told = self.client.hear()
        except (Ended, OSError):
            self.kept.no_answer(change)
            return "killed"
        if told["type"] == "answer":
            self.kept.answer(change, told)
            return "saved"
        self.kept.refusal(change, told["status"], told["problem"])
        return "unknown" if "not known" in told["problem"] else "refused"

    def pages_in_log(self):
        return (os.stat(self.db + "-wal").st_size - 32) // (24 + 4096)

    def prepare(self, kind):
        """Brings it to where the next commit is of this kind."""
        check(self.send(visitor=FIRST) == self.send() == "saved", "a like should be saved")
        pages = {COMMITS[1]: WRITTEN_BACK - PAGES, COMMITS[2]: WRITTEN_BACK}.get(kind, 0)
        while self.pages_in_log() < pages:
            check(self.send() == "saved", "a change should be saved")
        self.shown()

    def shown(self):
        """The newest version that the watcher has been shown by now."""
        self.watcher.say("ping")
        while (told := self.watcher.hear())["type"] == "count":
            self.kept.count(POST, told)
        return self.kept.newest[POST]

    def nothing_more_is_shown(self, version):
        """To nobody: not to one who watches, one who comes, or one who asks."""
        check(self.shown() == version, "shown before it is saved, to one who watches")
        late = JsonSocket(self.server.addr)
        check(late.watch(POST, SECOND)["version"] == version, "shown before it is saved, to one who comes")
        late.close()

    def send_again(self):
        """Has the change sent again until it is saved: once, as will be seen. Nobody knows less than what is there."""
        until("it is well", lambda: self.server.health() == 200)
        check(self.send(again=True) == self.send(again=True) == "saved", "it is well, and yet does not save")
        self.shown()
        self.kept.compare(None, self.server)

    def stop(self):
        self.watcher.close()
        self.client.close()
        return self.server.stop()

    def start_again(self):
        """On what is left, after the server has stopped or was killed."""
        self.start()
        self.kept.compare(None, self.server)
        self.send_again()
        check(self.stop() == 0, "it should stop well")


def in_case(home, play):
    for name in os.listdir(home):
        os.remove(os.path.join(home, name))
    case = Case(home)
    try:
        return play(case)
    except Exception as problem:
        raise Failed(f"{problem!r}\n{case.server.said() if case.server else ''}") from problem
    finally:
        if case.server:
            case.server.kill()


def a_commit(case, kind, words, log="/dev/null"):
    """One change while a call fails, or one stop."""
    case.start()
    case.prepare(kind)
    version = case.shown()
    case.trace(words, log)
    if kind == "stop":
        code = case.stop()
        came = {0: "saved", -signal.SIGKILL: "killed"}.get(code, f"exit code {code}")
    else:
        came = case.send()
        if came == "killed":
            code = case.server.ended()
            check(code == -signal.SIGKILL, "exit code", code)
        else:
            case.detach()
            if came == "refused":
                case.nothing_more_is_shown(version)
            case.send_again()
            check(case.stop() == 0, "it should stop well")
    case.detach()
    case.start_again()
    return came


def a_start(case, kind, words, log="/dev/null"):
    """A start while a call fails."""
    if kind != "new database":
        case.start()
        case.prepare(kind)
        case.server.kill()
    paths = [os.path.dirname(case.db), *(case.db + end for end in ("", ".tmp", "-wal", "-shm", ".lock"))]
    under = ["strace", "-o", log, *words, *(word for path in paths for word in ("-P", path))]
    try:
        case.start(under)
        came = "saved"
        case.send()
        case.send_again()
        check(case.stop() == 0, "it should stop well")
    except Failed as problem:
        came = "killed" if str(problem).endswith("start: ") else "no start"
        if came == "no start":
            check("cannot use the database `" + case.db in str(problem), problem)
    case.number = case.number or 1
    case.start_again()
    return came


def calls_of(home, kind, play):
    """The calls in order, each with its name and how many of that name came up to it."""
    log = os.path.join(folder(), "trace")
    in_case(home, lambda case: play(case, kind, [], log))
    with open(log, encoding="utf-8") as file:
        lines = [line for line in file if re.match(r"\w+\(", line)]
    names = [line.partition("(")[0] for line in lines]
    check("pwrite64" in names and "fsync" in names, "nothing is written in the trace:", names)
    return [
        (name, names[: index + 1].count(name))
        for index, name in enumerate(names)
        # The index of the log is mapped. No file system fails to give a lock back.
        if name not in OTHERS - {"mmap", "munmap"} and "F_UNLCK" not in lines[index]
    ]


def expected(kind, calls, index, fault):
    """What may come of it."""
    name = calls[index][0]
    if fault == "KILL":
        # One that stops may end before all is tidied up.
        return ["killed"] if kind in COMMITS[:3] else ["killed", "saved"]
    if kind in STARTS:
        return ["no start", "saved"]
    synced = [place for place, (other, _) in enumerate(calls) if other == "fsync"]
    durable = synced[0] if kind == "commit that writes back" else synced[-1]
    before = kind != "stop" and index < durable
    # Whether the file is still where it was is looked at first. Without room the end of the transaction is not written.
    surely_not = before and (name == "statx" or name == "pwrite64" and fault == "ENOSPC")
    return ["refused"] if surely_not else ["saved"]


def for_long(call, fault, kill):
    """Each such call fails, or one hangs, until the server knows; then that is over, or the server is killed."""
    words = ["-e", f"trace={call}", "-e", f"inject={call}:{fault}"]

    def play(case):
        case.start()
        case.prepare("commit")
        version = case.shown()
        case.trace(words)
        came = case.send()
        check(case.server.health() == 503, "it is not well, and should say so")
        check(case.send(again=True) == "refused", "no change should be taken that cannot be saved")
        case.nothing_more_is_shown(version)
        if kill:
            case.server.kill()
        elif not fault.startswith("delay"):
            case.detach()
        if not kill:
            case.send_again()
            check(case.stop() == 0, "it should stop well")
        case.detach()
        case.start_again()
        return came

    return in_case(folder(), play)


LONG = [
    ("fsync", "error=EIO", "unknown"),
    ("pwrite64", "error=EIO", "unknown"),
    ("pwrite64", "error=ENOSPC", "refused"),
    ("fsync", "delay_enter=10s:when=1", "unknown"),
    ("pwrite64", "delay_enter=10s:when=2", "unknown"),
]


def main():
    parser = arguments(__doc__)
    parser.add_argument("--part", type=int, default=1, help="try each so manieth case only [1]")
    options = parser.parse_args()
    start(options, tools=["strace"], db="likes.db")
    begin, broken, cases = time.monotonic(), 0, 0

    def judge(name, wanted, run):
        nonlocal broken, cases
        try:
            came = run()
        except Failed as problem:
            came = str(problem)
        cases, broken = cases + 1, broken + (came not in wanted)
        wanted = " or ".join(wanted)
        print(f"{name:44} {came}" if came in wanted else f"{name:44} BROKEN: {came}, {wanted} was expected", flush=True)

    with concurrent.futures.ThreadPoolExecutor() as several:
        waiting = []
        for (call, fault, wanted), kill in itertools.product(LONG, (False, True)):
            name = f"each {call} {fault}{', then killed' * kill}"
            waiting.append((name, [wanted], several.submit(for_long, call, fault, kill)))
        home = folder(within="/dev/shm" if os.path.isdir("/dev/shm") else None)  # where an fsync takes no time
        skipped = random.randrange(options.part)
        for kind in COMMITS + STARTS:
            play = a_start if kind in STARTS else a_commit
            calls = calls_of(home, kind, play)
            for index, (name, nth) in enumerate(calls):
                for fault in FAULTS if name in CHANGES else ["EIO", "EINTR"]:
                    skipped = (skipped + 1) % options.part
                    if skipped == 0:
                        words = ["-e", f"trace={name}", "-e", f"inject={name}:{FAULTS[fault]}:when={nth}"]
                        judge(
                            f"{kind}: {name} {nth} {fault}",
                            expected(kind, calls, index, fault),
                            lambda: in_case(home, lambda case: play(case, kind, words)),
                        )
        for name, wanted, future in waiting:
            judge(name, wanted, future.result)
    print(f"commits: {cases} cases, {broken} broken, {time.monotonic() - begin:.0f} s")
    raise SystemExit(broken > 0)


if __name__ == "__main__":
    main()

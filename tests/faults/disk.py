#!/usr/bin/env python3
"""Fills the disk under the real server, or makes it read-only, and mends it again.

    sudo python3 tests/faults/disk.py                  5 rounds of each
    sudo python3 tests/faults/disk.py 100              the long form
    sudo python3 tests/faults/disk.py --db likes.db    changes of visitors, and a start on a full disk

In each round clients like while the disk is broken. A like over WebSocket that was taken before the server knew is
saved once, and shown, when it works again; one that comes later is refused (close code 1013), and so is one over
HTTP (503 with Retry-After), and neither counts. /healthz says 503 meanwhile and 200 again, nothing is shown and the
file holds the old number.

To likes.db changes are made in turn until one is refused; sent again under its number when it works again, it counts
once. On a full disk the server does not start, or starts as ever. (A folder that becomes read-only changes nothing for
a database that is open.)
"""

import os
import time

from commits import Case
from common import Ended, Failed, Mounted, Server, WebSocket, arguments, check, folder, is_sqlite, run, start, until


class Full:
    name = "full disk"

    def __init__(self, path):
        self.filler = os.path.join(path, "filler")

    def break_it(self):
        try:
            with open(self.filler, "wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        except OSError:
            pass  # no space left, as it should be

    def mend(self):
        os.remove(self.filler)


class ReadOnly:
    """A read-only view is laid over the folder: the file system itself cannot become read-only by a remount while the
    server has its lock file open."""

    name = "read-only disk"

    def __init__(self, path):
        self.path = path

    def break_it(self):
        self.view = Mounted(self.path, "--bind", self.path)
        run("mount", "-o", "remount,bind,ro", self.path)

    def mend(self):
        self.view.unmount()


def taken_of(clients):
    """Has each send a like, all at once. Returns how many were taken, and not refused."""
    for client in clients:
        client.like()
    taken = 0
    for client in clients:
        try:
            check(client.is_silent(), "a count is shown while nothing can be saved")
            taken += 1
        except Ended as ended:
            check(ended.args == (1013,), "closed with", ended.args)
    return taken


def one_round(server, disk):
    """Returns how many likes were taken while the disk was broken, and how many refused."""
    old = server.likes()
    clients = [WebSocket(server.addr) for _ in range(9)]
    check({client.count() for client in clients} == {old}, "the count as it is comes first")
    watcher = clients.pop()
    disk.break_it()
    taken = taken_of(clients)
    check(taken > 0, "nobody knows yet when the first like comes")
    until("the server knows", lambda: server.health() == 503)
    status, fields, _ = server.put()
    check(status == 503 and fields["Retry-After"], "a like over HTTP is answered", status)
    late = WebSocket(server.addr)
    check(late.count() == old and taken_of([late]) == 0, "a like is taken while nothing can be saved")
    check(server.likes() == server.saved() == old and watcher.is_silent(), "shown before it is saved")

    disk.mend()
    until("it is well again", lambda: server.health() == 200)
    new = old + taken
    while watcher.newest() < new:
        pass
    check(watcher.last == server.likes() == server.saved() == new, "saved more than once:", watcher.last, "not", new)
    check(watcher.is_silent(), "shown more than there is")
    for client in clients + [watcher, late]:
        client.close()
    return taken, len(clients) - taken + 2


def many_posts(count):
    """The rounds on likes.db."""
    begin, saved = time.monotonic(), 0
    small = Mounted(os.path.join(folder(), "small"), "-t", "tmpfs", "-o", "size=2m", "live-likes")
    case, full = Case(small.path), Full(small.path)
    case.start()
    case.prepare("commit")
    for number in range(count):
        try:
            full.break_it()
            while (came := case.send()) == "saved":
                saved += 1
            check(came == "refused", "on a full disk a change is", came)
            version = case.shown()
            until("the server knows", lambda: case.server.health() == 503)
            status, fields, _ = case.server.put()
            check(status == 503 and fields["Retry-After"], "a like over HTTP is answered", status)
            case.nothing_more_is_shown(version)
            full.mend()
            case.send_again()
            check(case.stop() == 0, "it should stop well")
            full.break_it()
            try:
                case.start()
                case.server.kill()
            except Failed as problem:
                check(f"cannot use the database `{case.db}`" in str(problem), problem)
            full.mend()
            case.start()
            case.kept.compare(None, case.server)
            case.send_again()
        except Exception as problem:
            raise SystemExit(f"full disk, round {number}: {problem!r}\n{case.server.said()}") from problem
    check(case.stop() == 0, "it should stop well")
    print(f"full disk, likes.db: {count} rounds, {saved + count} changes saved once, {time.monotonic() - begin:.0f} s")


def main():
    parser = arguments(__doc__, "rounds", 5)
    parser.add_argument("--db", default="db.txt", help="what it is called says what store it is [db.txt]")
    options = parser.parse_args()
    start(options, needs_root=True, tools=["mount"], db=options.db)
    if is_sqlite(options.db):
        return many_posts(options.count)
    for kind in (Full, ReadOnly):
        begin = time.monotonic()
        small = Mounted(os.path.join(folder(), "small"), "-t", "tmpfs", "-o", "size=64k", "live-likes")
        server, taken, refused = Server(os.path.join(small.path, "db.txt")), 0, 0
        for number in range(options.count):
            try:
                tally = one_round(server, kind(small.path))
            except Exception as problem:
                raise SystemExit(f"{kind.name}, round {number}: {problem!r}\n{server.said()}") from problem
            taken, refused = taken + tally[0], refused + tally[1]
        code = server.stop()
        check(code == 0 and server.saved() == taken, "ended with", code, "and", server.saved(), "likes, not", taken)
        seconds = time.monotonic() - begin
        print(f"{kind.name}: {options.count} rounds, {taken} likes taken and saved once, {refused} refused, {seconds:.0f} s")


if __name__ == "__main__":
    main()

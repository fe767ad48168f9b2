#!/usr/bin/env python3
"""Cuts the power under the real server, as the file system sees it, and compares what comes back with what was shown.

    sudo python3 tests/faults/power_cut.py                     20 cuts, for each change
    sudo python3 tests/faults/power_cut.py 500                 the long form
    sudo python3 tests/faults/power_cut.py 300 --db likes.db   many posts, liked and unliked by visitors
    sudo python3 tests/faults/power_cut.py 5 --plant           with a fault planted: losses must be found
    sudo python3 tests/faults/power_cut.py 200 --plant folder  with one that is less easily seen

The database stands on ext4 in a loop file. While a crowd likes, that is shut down without its log being flushed
(EXT4_IOC_SHUTDOWN), so that what was not made durable is gone, of all files; then it is mounted anew, which replays the
log, and the server is started on what is left. What must be kept is what kill.py says. The fault that is planted: no
`fsync` does anything, and all say that they worked (strace answers for the kernel); then every cut takes back likes,
since the file system writes its log by itself every 10 minutes only. Or only that of the folder: then the last `rename`
before the cut is lost, if no further save has begun, for the `fsync` of a new file takes the renames before it to the
disk too. A harness that finds no loss then finds nothing; neither does one that finds none in a binary with a fault of
its own (--planted). What of the last writes may be there, and what not, torn_writes.py makes up.
"""

import contextlib
import fcntl
import os
import random
import signal
import time

from common import Failed, Lost, Mounted, Server, arguments, check, folder, run, start, until
from posts import known_of

EXT4_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32)
WITHOUT_THE_LOG = (2).to_bytes(4, "little")  # EXT4_GOING_FLAGS_NOLOGFLUSH


def cut(path):
    opened = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(opened, EXT4_IOC_SHUTDOWN, WITHOUT_THE_LOG)
    finally:
        os.close(opened)


def make_durable(path):
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def stop(pid):
    """Stops all threads, but for those that wait for the disk, and will stop before they do anything more.

    Otherwise one is told that its fsync has worked while the power is cut, and what it wrote is gone: Linux looks for
    the shutdown where fsync begins, and then waits for a transaction that is not there any more.
    """
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
        os.kill(pid, signal.SIGSTOP)
        until("it has stopped", lambda: all(state(pid, task) in "TtDZX" for task in os.listdir(f"/proc/{pid}/task")))


def state(pid, task):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/task/{task}/stat") as file:
        return file.read().rpartition(") ")[2][0]
    return "X"


def is_loss(problem):
    """Also where too much is lost for there to be a database."""
    return isinstance(problem, Lost) or any(words in str(problem) for words in ("damaged", "cannot use the database"))


def main():
    parser = arguments(__doc__, "cuts", 20)
    parser.add_argument("--db", default="db.txt", help="what it is called says what store it is [db.txt]")
    plant = parser.add_argument("--plant", nargs="?", const="all", choices=["all", "folder"])
    plant.help = "leave out every fsync, or the folder's, and expect losses"
    parser.add_argument("--planted", action="store_true", help="expect losses")
    options = parser.parse_args()
    start(options, needs_root=True, tools=["mkfs.ext4", "mount"] + ["strace"] * bool(options.plant), db=options.db)
    options.planted |= bool(options.plant)

    home = folder()
    image = os.path.join(home, "disk")
    with open(image, "wb") as file:
        file.truncate(64 << 20)
    run("mkfs.ext4", "-q", "-F", image)
    disk = Mounted(os.path.join(home, "mounted"), "-o", "loop,commit=600", image)

    def begin_anew(number):
        """A database in a folder of its own: server and what is known of it."""
        data = os.path.join(disk.path, f"data-{number}")
        os.mkdir(data)
        make_durable(disk.path)
        db, under = os.path.join(data, options.db), []
        if options.plant:
            under = "strace -f --seccomp-bpf -o /dev/null -e trace=fsync,fdatasync -e inject=fsync,fdatasync:retval=0"
            under = under.split() + ["-P", data] * (options.plant == "folder")
        return Server(db, under=under), under, known_of(db)

    begin, acknowledged, lost = time.monotonic(), 0, 0
    server, under, known = begin_anew("first")
    for number in range(options.count):
        try:
            crowd = known.crowd(server)
            crowd.begun.wait(10)
            time.sleep(random.uniform(0, 0.15))
            if random.random() < 0.1:  # while it stops
                server.signal(signal.SIGTERM)
                time.sleep(random.uniform(0, 0.02))
            stop(server.pid)
            cut(disk.path)
            server.kill()
            crowd.leave()
            disk.unmount()
            disk.mount()
            try:
                server = Server(server.db, under=under)
                acknowledged += known.compare(crowd, server)
            except Failed as problem:
                if not options.planted or not is_loss(problem):
                    raise
                lost += 1
                server.kill()
                server, under, known = begin_anew(number)
        except Exception as problem:
            raise SystemExit(f"cut {number}, seed {options.seed}: {problem!r}\n{server.said()}") from problem
    code = server.stop()
    check(code == 0, "exit code", code)
    seconds = time.monotonic() - begin
    if options.planted:
        found = f"{lost} of {options.count} cuts took back likes"
        print(f"power cut, {options.db}, fault planted: {found}, {seconds:.0f} s")
        check(lost, "the planted fault was not found")
    else:
        found = f"{options.count} cuts, {acknowledged} likes acknowledged, 0 lost"
        print(f"power cut, {options.db}: {found}, {seconds:.0f} s")


if __name__ == "__main__":
    main()

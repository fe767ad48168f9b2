#!/usr/bin/env python3
"""Cuts the power under the real server, as the file system sees it, and compares what comes back with what was shown.

    sudo python3 tests/faults/power_cut.py                   20 cuts, for each change
    sudo python3 tests/faults/power_cut.py 500               the long form
    sudo python3 tests/faults/power_cut.py 200 --plant       with a fault planted: losses must be found

The database stands on ext4 in a loop file. While eight clients like and one watches, that is shut down without its
log being flushed (EXT4_IOC_SHUTDOWN), so that what was not made durable is gone; then it is mounted anew, which
replays the log, and the server is started on what is left. The fault that is planted: the folder's `fsync` does
nothing and says that it worked (strace answers for the kernel). A harness that finds no loss then finds nothing.
"""

import fcntl
import os
import random
import time

from common import Crowd, Mounted, Server, arguments, check, folder, run, start

EXT4_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32)
WITHOUT_THE_LOG = (2).to_bytes(4, "little")  # EXT4_GOING_FLAGS_NOLOGFLUSH


def cut(path):
    opened = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(opened, EXT4_IOC_SHUTDOWN, WITHOUT_THE_LOG)
    finally:
        os.close(opened)


def main():
    parser = arguments(__doc__, "cuts", 20)
    parser.add_argument("--plant", action="store_true", help="leave out the folder's fsync, and expect losses")
    options = parser.parse_args()
    start(options, needs_root=True, tools=["mkfs.ext4", "mount"] + ["strace"] * options.plant)

    home = folder()
    image = os.path.join(home, "disk")
    with open(image, "wb") as file:
        file.truncate(32 << 20)
    run("mkfs.ext4", "-q", "-F", image)
    disk = Mounted(os.path.join(home, "mounted"), "-o", "loop", image)
    data = os.path.join(disk.path, "data")
    os.mkdir(data)
    under = []
    if options.plant:
        tracer = "strace -f --seccomp-bpf -o /dev/null -e trace=fsync -e inject=fsync:retval=0 -P"
        under = [*tracer.split(), data]

    begin, acknowledged, lost = time.monotonic(), 0, []
    server = Server(os.path.join(data, "db.txt"), under=under)
    for number in range(options.count):
        try:
            crowd = Crowd(server)
            crowd.begun.wait(10)
            time.sleep(random.uniform(0, 0.15))
            cut(disk.path)
            server.kill()
            crowd.leave()
            disk.unmount()
            disk.mount()
            server = Server(server.db, under=under)
            if options.plant and server.count < crowd.shown:
                lost.append(crowd.shown - server.count)
            else:
                acknowledged += crowd.compare(server.count)
        except Exception as problem:
            raise SystemExit(f"cut {number}, seed {options.seed}: {problem!r}\n{server.said()}") from problem
    code = server.stop()
    check(code == 0, "exit code", code)
    seconds = time.monotonic() - begin
    if options.plant:
        print(f"power cut, fault planted: {len(lost)} of {options.count} cuts took back likes, {seconds:.0f} s")
        check(lost, "the planted fault was not found")
    else:
        print(f"power cut: {options.count} cuts, {acknowledged} likes acknowledged, 0 lost, {seconds:.0f} s")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Kills the real server at random moments while a crowd likes, starts it again and compares.

    python3 tests/faults/kill.py                     50 cycles, for each change
    python3 tests/faults/kill.py 1000                the long form
    python3 tests/faults/kill.py 500 --db likes.db   many posts, liked and unliked by visitors

A like counts as acknowledged once anybody was shown a count that covers it, over WebSocket or as an answer. After
each restart: no acknowledged like is lost, no count that was shown is taken back, none was invented. db.txt is a
number at all times, and no two likes over HTTP were given one number. In likes.db each visitor's mind of each post is
the one with the highest number that was answered, or a later one that was sent; no number of likes differs from that of
the visitors who like and of the likes from nobody in particular; and each version is one count for ever. Changes that
were not answered are sent again.
"""

import os
import random
import signal
import subprocess
import time

from common import Server, arguments, check, command_line, folder, start
from posts import known_of


def kill_at_start(db):
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command_line(db), **quiet)
    time.sleep(random.uniform(0, 0.03))
    process.kill()
    process.wait()


def main():
    parser = arguments(__doc__, "cycles", 50)
    parser.add_argument("--db", default="db.txt", help="what it is called says what store it is [db.txt]")
    options = parser.parse_args()
    start(options, db=options.db)
    db, known = os.path.join(folder(), options.db), known_of(options.db)
    begin, acknowledged = time.monotonic(), 0
    kill_at_start(db)  # while it makes a new one
    server = Server(db)
    for cycle in range(options.count):
        try:
            crowd = known.crowd(server)
            if random.random() < 0.9:  # else while they come in
                crowd.begun.wait(10)
            time.sleep(random.uniform(0, 0.15))
            if random.random() < 0.1:  # while it stops
                server.signal(signal.SIGTERM)
                time.sleep(random.uniform(0, 0.02))
            server.kill()
            crowd.leave()
            if random.random() < 0.1:
                kill_at_start(db)
            server = Server(db)
            acknowledged += known.compare(crowd, server)
        except Exception as problem:
            raise SystemExit(f"cycle {cycle}, seed {options.seed}: {problem!r}\n{server.said()}") from problem
    code = server.stop()
    check(code == 0, "exit code", code)
    seconds = time.monotonic() - begin
    print(f"kill, {options.db}: {options.count} cycles, {acknowledged} likes acknowledged, 0 lost, {seconds:.0f} s")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Kills the real server at random moments while eight clients like and one watches, starts it again and compares.

    python3 tests/faults/kill.py            50 cycles, for each change
    python3 tests/faults/kill.py 1000       the long form

A like counts as acknowledged once anybody was shown a count that covers it, over WebSocket or as an answer. After
each restart: no acknowledged like is lost, no count that was shown is taken back, none was invented, db.txt is a
number at all times, and no two likes over HTTP were given one number.
"""

import os
import random
import time

from common import Crowd, Server, arguments, check, folder, start


def main():
    options = arguments(__doc__, "cycles", 50).parse_args()
    start(options)
    db = os.path.join(folder(), "db.txt")
    begin, acknowledged, answered = time.monotonic(), 0, set()
    server = Server(db)
    for cycle in range(options.count):
        try:
            crowd = Crowd(server)
            if random.random() < 0.9:  # else while they come in
                crowd.begun.wait(10)
            time.sleep(random.uniform(0, 0.15))
            server.kill()
            crowd.leave()
            server.saved()
            check(answered.isdisjoint(crowd.answered), "a number was given again after a restart")
            answered.update(crowd.answered)
            server = Server(db)
            acknowledged += crowd.compare(server.count)
        except Exception as problem:
            raise SystemExit(f"cycle {cycle}, seed {options.seed}: {problem!r}\n{server.said()}") from problem
    code = server.stop()
    check(code == 0, "exit code", code)
    seconds = time.monotonic() - begin
    print(f"kill: {options.count} cycles, {acknowledged} likes acknowledged, 0 lost, {seconds:.0f} s")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Measures many posts in likes.db: likes beside those of one count in db.txt, all counts shown, memory.

    benches/posts.py            about a minute; the exit code is 1 where a figure is missed
    benches/posts.py --repeat 5

The server is pinned to one core and the load (examples/load), which checks every count, to another. Needs cargo and
taskset.
"""

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RELEASE = ROOT / "target" / "release"
# The load is one address, and makes all posts up.
FLAGS = ["--addr", "127.0.0.1:0", "--connections", "10100", "--new-posts-per-hour", "4294967295", "--log", "warn"]
MANY = ["--posts", "10000"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="repetitions (3)")
    repeat = parser.parse_args().repeat
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    build = ["cargo", "build", "--release", "--features", "full", "--bin", "live-likes", "--example", "load"]
    subprocess.run(build, cwd=ROOT, check=True)
    # Each is measured when its turn comes.
    figures = [
        ("PUT: likes a second of 10,000 posts, of what one count in db.txt takes", puts, 0.4, "at least"),
        ("100,000 likes, until 1,000 clients of 20 posts show every final count (s)", storms, 5, "at most"),
        ("a client of 20 posts, of 10,000, takes more than one of 1 post (KiB)", lambda _: memory(1), 4, "at most"),
        ("a client of 20 posts, of 10,000, takes more than one of one count (KiB)", lambda _: memory(0), None, None),
    ]
    missed = 0
    for what, measure, bound, side in figures:
        values = measure(repeat)
        middle = statistics.median(values)
        fails = bound is not None and (middle < bound if side == "at least" else middle > bound)
        missed += fails
        expected = f"   {'MISSED: ' if fails else ''}{side} {bound}" if side else ""
        print(f"{what}: {middle:.2f} ({', '.join(f'{value:.2f}' for value in sorted(values))}){expected}", flush=True)
    return 1 if missed else 0


def puts(repeat):
    """By turns, so that a slow minute of the machine harms both alike."""
    ratios = []
    with server("db.txt") as one, server("likes.db") as many:
        for _ in range(repeat):
            flags = ["--mode", "put", "--connections", "64", "--likes", "50000", "--warmup", "5000"]
            rates = [load(*one, *flags), load(*many, *flags, *MANY)]
            ratios.append(rates[1]["requests_per_second"] / rates[0]["requests_per_second"])
    return ratios


def storms(repeat):
    flags = ["--mode", "storm", "--clients", "1000", "--likes", "100000", *MANY, "--watch", "20"]
    times = []
    for _ in range(repeat):
        with server("likes.db") as many:
            times.append(load(*many, *flags)["seconds"])
    return times


def memory(fewer):
    """A server each, since memory that was used once is not given back."""

    def each(*watch):
        with server("likes.db") as many:
            report = load(*many, "--mode", "connect", "--clients", "10000", *watch)
        return report["server"]["resident_bytes_per_client"]

    few = [*MANY, "--watch", str(fewer)] if fewer else []
    return [(each(*MANY, "--watch", "20") - each(*few)) / 1024]


@contextlib.contextmanager
def server(db):
    with tempfile.TemporaryDirectory(dir=RELEASE) as folder:
        command = ["taskset", "-c", "0", RELEASE / "live-likes", *FLAGS, "--db", os.path.join(folder, db)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            url = process.stdout.readline().split()[3]
            yield url, str(process.pid)
        finally:
            process.terminate()
            process.wait()


def load(url, pid, *flags):
    command = ["taskset", "-c", "1", RELEASE / "examples" / "load", "--addr", url, "--pid", pid, *flags]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    report = json.loads(run.stdout)
    if not report["ok"]:
        sys.exit(f"{' '.join(flags)}: {report['failure']}")
    return report


if __name__ == "__main__":
    sys.exit(main())

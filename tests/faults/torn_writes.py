#!/usr/bin/env python3
"""Tears the last writes to likes.db apart, as a power cut may, and compares what comes back with what was shown.

    sudo python3 tests/faults/torn_writes.py             100 cuts, for each change
    sudo python3 tests/faults/torn_writes.py 1000        the long form
    sudo python3 tests/faults/torn_writes.py --plant     as if fsync were not called: losses must be found

While a crowd likes, strace writes down what the server's own threads write, to which file, and when they have it made
durable; meanwhile the server is killed, started and stopped. From that the files are made as a disk may have them after
a cut at any of these calls: all that was made durable; of each sector written since then any of its contents; any of
the sizes that a file has had since then; and of the names that were made, changed or removed since the folder's fsync
the first so many. What is in the index of the log, which is only mapped, is anything. A server is started on that, and
what must be kept of what was told before the cut is what kill.py says.
"""

import os
import random
import re
import time

from common import Failed, Server, arguments, check, folder, start
from posts import Kept, Mind
from syscalls import Tracer

SECTOR = 512
TRACED = "openat,rename,unlink,pwrite64,write,ftruncate,fsync,fdatasync"
WORDS = ["-ttt", "-y", "-xx", "-s", "10000", "-e", f"trace={TRACED}"]
STARTS = 4


class File:
    """What a file holds on the disk for sure, and what was written to it since then."""

    def __init__(self):
        self.sure, self.size, self.writes = bytearray(), 0, []

    def write(self, offset, content):
        self.size = max(self.size, offset + len(content))
        self.writes.append((offset, content, self.size))

    def truncate(self, size):
        self.writes.append((size, bytes(max(0, self.size - size)), size))
        self.size = size

    def after(self, places, size):
        """The file where of each sector the first so many writes have come to the disk."""
        content = self.sure + bytes(max([0, *(offset + len(new) - len(self.sure) for offset, new, _ in self.writes)]))
        for index, (offset, new, _) in enumerate(self.writes):
            for sector in range(offset // SECTOR, (offset + len(new) + SECTOR - 1) // SECTOR):
                if index < places(sector):
                    begin, end = max(offset, sector * SECTOR), min(offset + len(new), (sector + 1) * SECTOR)
                    content[begin:end] = new[begin - offset : end - offset]
        return content[:size] + bytes(max(0, size - len(content)))

    def sync(self):
        self.sure = self.after(lambda _: len(self.writes), self.size)
        self.writes = []

    def torn(self):
        """What may be left of it."""
        most, some = len(self.writes), {}
        all_alike = random.choice([None, 0, most, random.randint(0, most)])
        sizes = [len(self.sure), *(size for _, _, size in self.writes)]
        choose = lambda sector: some.setdefault(sector, random.randint(0, most)) if all_alike is None else all_alike
        return self.after(choose, random.choice(sizes) if all_alike is None else sizes[all_alike])


class Disk:
    """The files of a folder, as the calls make them."""

    def __init__(self, path):
        self.path, self.files, self.sure, self.changes = path, {}, {}, []

    def name(self, path):
        """The name in the folder, if it is one whose contents matter."""
        folder, name = os.path.split(path)
        return name if folder == self.path and not name.endswith(("-shm", ".lock")) else None

    def rename(self, old, new):
        """`None` where there is none, before or after."""
        self.changes.append((old, new, self.files.pop(old) if old else self.files.setdefault(new, File())))
        if new:
            self.files[new] = self.changes[-1][2]

    def call(self, name, words, synced):
        if name in ("fsync", "fdatasync"):
            if not synced:
                return
            if words[0] == self.path:
                self.sure, self.changes = dict(self.files), []
            elif file := self.files.get(self.name(words[0])):
                file.sync()
            return
        if name == "rename":
            return self.rename(self.name(words[0]), self.name(words[1]))
        file = self.name(words[0])
        if not file:
            return
        if name == "openat":
            if file not in self.files:
                self.rename(None, file)
        elif name == "unlink":
            self.rename(file, None)
        elif name == "ftruncate":
            self.files[file].truncate(words[1])
        else:
            self.files[file].write(words[2], words[1])

    def torn(self, path):
        """Makes the files as they may be after a cut."""
        names = dict(self.sure)
        for old, new, file in self.changes[: random.randint(0, len(self.changes))]:
            names.pop(old, None)
            if new:
                names[new] = file
        for name in os.listdir(path):
            os.remove(os.path.join(path, name))
        contents = {name: file.torn() for name, file in names.items()}
        if random.random() < 0.5:
            contents["likes.db-shm"] = random.randbytes(random.choice([1, 100, 32768]))
        for name, content in contents.items():
            with open(os.path.join(path, name), "wb") as file:
                file.write(content)


def text(word):
    return bytes.fromhex(word.replace("\\x", ""))


def calls_in(log):
    """The calls that have worked: when, which, and with what."""
    descriptor, quoted = r"\d+<([^>]*)>", r'"([^"]*)"'
    forms = {
        "openat": rf"openat\([^,]*, {quoted}, [^)]*O_CREAT",
        "unlink": rf"unlink\({quoted}\)",
        "rename": rf"rename\({quoted}, {quoted}\)",
        "ftruncate": rf"ftruncate\({descriptor}, (\d+)\)",
        "fsync": rf"f(?:data)?sync\({descriptor}\)",
        "pwrite64": rf"pwrite64\({descriptor}, {quoted}, \d+, (\d+)\)",
    }
    with open(log, encoding="ascii") as file:
        for line in file:
            moment, _, rest = line.partition(" ")
            if " = -1 " in line or " = ?" in line:
                continue
            name = rest.partition("(")[0]
            name = "fsync" if name == "fdatasync" else name
            match = re.match(forms.get(name, "$"), rest)
            if match:
                words = [int(word) if word.isdecimal() else text(word) for word in match.groups()]
                words = [word.decode() if index == 0 or name == "rename" else word for index, word in enumerate(words)]
                yield float(moment), name, words


class Timed(Kept):
    """With the moment at which each thing was answered or shown."""

    def __init__(self):
        super().__init__()
        self.facts = []

    def answer(self, change, told):
        super().answer(change, told)
        self.facts.append((time.time(), change, None))

    def show(self, post, likes, version):
        super().show(post, likes, version)
        self.facts.append((time.time(), post, version))

    def until(self, moment):
        """What had been told by then, and all that was sent."""
        kept = Kept()
        kept.shown = dict(self.shown)
        for key, mind in self.minds.items():
            kept.minds[key] = Mind()
            kept.minds[key].sent = dict(mind.sent)
        for told, what, version in self.facts:
            if told > moment:
                continue
            if version is not None:
                kept.newest[what] = max(kept.newest[what], version)
            elif what.visitor is None:
                kept.anonymous[what.post][0] += 1
            else:
                mind = kept.minds[what.post, what.visitor]
                mind.answered = max(mind.answered, what.number)
        for post, (surely, perhaps) in self.anonymous.items():
            kept.anonymous[post][1] = surely + perhaps - kept.anonymous[post][0]
        return kept


def record(path, seconds):
    """Has a server run several times under strace. Returns what was told, and the calls."""
    kept, logs = Timed(), []
    db, traces = os.path.join(path, "likes.db"), folder()
    for number in range(STARTS):
        logs += [os.path.join(traces, f"{thread}-{number}") for thread in ("main", "saver")]
        server = Server(db, under=["strace", "-o", logs[-2], *WORDS])
        tracer = Tracer(server, logs[-1], *WORDS)
        crowd = kept.crowd(server)
        time.sleep(seconds / STARTS)
        crowd.end()
        # Now nothing is under way of which it would not be known whether it was done.
        if number % 2 == 1:
            check(server.stop() == 0, "it should stop well")
        server.kill()
        tracer.detach()
    return kept, sorted((call for log in logs for call in calls_in(log)), key=lambda call: call[0])


def main():
    parser = arguments(__doc__, "cuts", 100)
    parser.add_argument("--plant", action="store_true", help="leave out fsync, and expect losses")
    parser.add_argument("--planted", action="store_true", help="expect losses")
    options = parser.parse_args()
    start(options, tools=["strace"], db="likes.db")
    begin, answers, lost = time.monotonic(), 0, 0
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    path, left = folder(memory), folder(memory)
    kept, calls = record(path, min(10, 1 + options.count / 50))
    cuts = sorted(random.choices(range(len(calls)), k=options.count))
    disk, done = Disk(path), 0
    for number, cut in enumerate(cuts):
        for moment, name, words in calls[done:cut]:
            disk.call(name, words, not options.plant)
        done = cut
        then, server = kept.until(calls[cut][0]), None
        disk.torn(left)
        try:
            server = Server(os.path.join(left, "likes.db"))
            then.compare(None, server)
        except Failed as problem:
            if not (options.plant or options.planted):
                said = server.said() if server else ""
                raise SystemExit(f"cut {number}, seed {options.seed}, at {calls[cut][:2]}: {problem!r}\n{said}") from problem
            lost += 1
        if server:
            server.kill()
    found = f"{options.count} cuts at {len(calls)} calls, {kept.answers} changes answered, {lost} lost"
    print(f"torn writes: {found}, {time.monotonic() - begin:.0f} s")
    check(bool(lost) == (options.plant or options.planted), "the planted fault was not found")


if __name__ == "__main__":
    main()

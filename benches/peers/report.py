"""Turns the results of `run` into docs/peers.md and docs/peers.svg."""

from html import escape
from statistics import median
from typing import Callable, NamedTuple

OURS = "live-likes"

EACH = "each"
MEMORY = "in memory: gone with the process"

# What each is, which counts a client is shown, and what such a count is worth after a power cut.
PEERS = {
    OURS: (
        "Live Likes",
        "each of up to 64 that were saved since the last; of more, and to a client that is behind, the newest",
        "**safe**: flushed to the disk before it is shown",
    ),
    "ws": ("ws", EACH, "db.txt is read and written at each like, but never flushed: a power cut takes likes back"),
    "ws-durable": ("ws, durable", EACH, "**safe**: as `ws`, but each like is saved as Live Likes saves a batch"),
    "ws-memory": ("ws, memory", EACH, MEMORY),
    "bun": ("Bun", EACH, MEMORY),
    "bun-newest": ("Bun, newest", "the newest, every 10 ms at most", MEMORY),
    "axum": ("axum", "each; a client that is more than 1,024 behind misses some", MEMORY),
}


def memory(result):
    server = result["server"]
    # A thread's stack in the kernel is part of what a thread per client costs, though no process is charged for it.
    kinds = ("resident", "page_table", "kernel_stack")
    return sum(server[f"{kind}_bytes_per_client"] for kind in kinds) / 1024


def sent(result):
    return result["frames_per_client"]["mean"]


class Metric(NamedTuple):
    """One figure of a work."""

    work: str
    title: str  # with fields of the result
    unit: str
    read: Callable  # off a result
    charted: bool = True
    less_is_better: bool = True
    compared: bool = True  # with ours


ROUND = "A like until all of {clients:,} clients show it"
CPU = "The server's CPU time a delivery, {clients:,} clients"
STEADY = "Counts shown to {clients:,} clients, each like following the one before"
STORM = "{likes:,} likes at once from {likers} clients until all of {clients:,} show the last †"
SENT = "Of these {likes:,} counts, so many were sent to each client"
PUT = "`PUT /like` over {connections} connections"
CONNECT = "{clients:,} clients connect until each has its first count"
CONNECT_CPU = "The server's CPU time a client that connects"

METRICS = [
    Metric("round-1000", f"{ROUND}, p50", "ms", lambda result: result["last_us"]["p50"] / 1000),
    Metric("round-1000", f"{ROUND}, p99", "ms", lambda result: result["last_us"]["p99"] / 1000, charted=False),
    Metric("round-1000", CPU, "µs", lambda result: result["server_cpu_us_per_delivery"]),
    Metric("round-10000", f"{ROUND}, p50", "ms", lambda result: result["last_us"]["p50"] / 1000),
    Metric("round-10000", f"{ROUND}, p99", "ms", lambda result: result["last_us"]["p99"] / 1000, charted=False),
    Metric("round-10000", CPU, "µs", lambda result: result["server_cpu_us_per_delivery"]),
    Metric("steady-1000", STEADY, "a second", lambda result: result["deliveries_per_second"], less_is_better=False),
    Metric("steady-10000", STEADY, "a second", lambda result: result["deliveries_per_second"], less_is_better=False),
    Metric("storm", STORM, "s", lambda result: result["seconds"]),
    Metric("storm", SENT, "mean", sent, charted=False, compared=False),
    Metric("storm-long", STORM, "s", lambda result: result["seconds"]),
    Metric("storm-long", SENT, "mean", sent, charted=False, compared=False),
    Metric("put", PUT, "requests/s", lambda result: result["requests_per_second"], less_is_better=False),
    Metric("put", f"{PUT}, p99", "ms", lambda result: result["answer_us"]["p99"] / 1000, charted=False),
    Metric("connect", CONNECT, "s", lambda result: result["connect_seconds"]),
    Metric("connect", CONNECT_CPU, "µs", lambda result: result["server_cpu_us_per_client"], charted=False),
    Metric("connect", "Memory a client, with {clients:,} of them", "KiB", memory),
]


def in_short(work, result):
    """One line about one result."""
    if not result["ok"]:
        return f"{result['failure']['kind']}: {result['failure']['text']}"
    metric = next(metric for metric in METRICS if metric.work == work)
    return f"{number(metric.read(result))} {metric.unit}"


def number(value):
    """Three digits that count."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


class Table:
    """Results by metric and peer."""

    def __init__(self, results):
        self.results = results
        measured = {result["peer"] for result in results}
        self.peers = [peer for peer in PEERS if peer in measured]
        works = {result["work"] for result in results if result["ok"]}
        self.metrics = [metric for metric in METRICS if metric.work in works]

    def of(self, metric, peer):
        return [result for result in self.results if (result["work"], result["peer"]) == (metric.work, peer)]

    def values(self, metric, peer):
        results = self.of(metric, peer)
        return [metric.read(result) for result in results] if all(result["ok"] for result in results) else []

    def title(self, metric):
        result = next(result for result in self.results if result["work"] == metric.work and result["ok"])
        return metric.title.format(**result)

    def failure(self, metric, peer):
        """Why there is no figure, in a word."""
        failed = [result for result in self.of(metric, peer) if not result["ok"]]
        if not failed:
            return "–"
        if limit := self.late(metric, peer):
            return f"> {limit} s" if metric.unit == "s" else f"not within {limit} s"
        return f"failed ({failed[0]['failure']['kind']})"

    def late(self, metric, peer):
        """The seconds that were not enough."""
        late = [result for result in self.of(metric, peer) if not result["ok"] and result["failure"]["kind"] == "late"]
        return late[0]["limit"] if late else None

    def cell(self, metric, peer):
        values = self.values(metric, peer)
        if not metric.compared:
            return number(median(values)) if values else "–"
        if not values:
            return self.failure(metric, peer)
        text = number(median(values))
        ours = self.values(metric, OURS)
        if peer == OURS:
            text = f"**{text}**"
        elif ours and median(ours) > 0:
            text += f" ({number(median(values) / median(ours))}×)"
        # Then the load was the limit, not the server.
        busy = any(result.get("load_cpu_share", 0) > 0.95 for result in self.of(metric, peer))
        return text + (" \\*" if busy else "")

    def spread(self, metric, peer):
        values = self.values(metric, peer)
        return f"{number(min(values))} – {number(max(values))}" if values else "–"

    def rows(self, cell):
        yield ["", *(PEERS[peer][0] for peer in self.peers)]
        yield ["---", *("---:" for _ in self.peers)]
        for metric in self.metrics:
            better = "" if metric.less_is_better or not metric.compared else ", more is better"
            yield [f"{self.title(metric)} ({metric.unit}{better})", *(cell(metric, peer) for peer in self.peers)]


def lines(rows):
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def policies(table):
    """What must be known to read a comparison of servers that do not show the same counts."""
    text = ""
    if any(metric.read is sent for metric in table.metrics):
        text += """
† Not the same work: a server that shows each count sends all of them to each client, one that goes to the newest sends
a few. The row below says how many. Compare those that were sent about as many.
"""
    if "bun-newest" in table.peers:
        text += """
`Bun, newest` shows at most 100 counts a second: where a count reaches all clients in less than 10 ms, the next waits.
"""
    return text


def markdown(machine, results):
    table = Table(results)
    repetitions = machine["repetitions"]
    pinned = "pinned to a core each" if machine["pinned"] else "not pinned to cores, so that the figures say less"
    peers = [["", "version", "the counts a client is shown", "what such a count is worth after a power cut"], ["---"] * 4]
    peers += [[PEERS[peer][0], machine["versions"][peer], *PEERS[peer][1:]] for peer in table.peers]
    failures = [
        f"- {PEERS[result['peer']][0]}, {result['work']}: {in_short(result['work'], result)}"
        for result in results
        if not result["ok"]
    ]
    text = f"""# Live Likes beside others

![The same figures as bars](peers.svg)

{lines(table.rows(table.cell))}

Medians of {repetitions} {"run" if repetitions == 1 else "runs"}; in brackets, how many times ours.
Less is better where nothing else is said.
A \\* marks where the load was as busy as a core can be, so that the server may be faster than it looks.
{policies(table)}
## What is compared

{lines(peers)}

Every one is written for this comparison, in the shape that its own documentation suggests, and speaks the same
protocol. They are not equally careful: only those marked **safe** hold a like back until it would survive a power
cut, and that time is in every figure of theirs.

## How

`{machine["command"]}` on {machine["date"]}: {machine["cpu"]}, {machine["cores"]} cores,
{machine["memory_gib"]} GiB of memory, {machine["kernel"]}.

Server and load ran on the same machine over the loopback interface, {pinned}.
Each run had a fresh server, and the peers took turns.
The load (`examples/load`) checks all it is shown: counts that rise for every client, and an exact sum in the end.
CPU time is user and system time of all the server's threads. Memory is what the server's resident set, page tables
and kernel stacks grew by; the buffers of its sockets are not in it.
"""
    if repetitions > 1:
        text += f"\n## Lowest and highest\n\n{lines(table.rows(table.spread))}\n"
    if failures:
        text += "\n## What failed\n\nWhat failed once was not tried again.\n\n" + "\n".join(failures) + "\n"
    return text


# The chart. A frame of its own colour keeps it legible on a page of any.

WIDTH, LABEL, VALUE, BAR, ROW, TITLE, GAP, EDGE = 860, 110, 150, 13, 19, 26, 16, 20

STYLE = """
  .frame { fill: #ffffff; stroke: #d0d7de }
  text { font: 12px system-ui, sans-serif; fill: #1f2328 }
  .title { font-weight: 600 }
  .head { font-size: 16px; font-weight: 600 }
  .quiet { fill: #59636e }
  .bar { fill: #8c959f }
  .ours { fill: #d6336c }
  .none { fill: none; stroke: #8c959f; stroke-dasharray: 4 3 }
  @media (prefers-color-scheme: dark) {
    .frame { fill: #0d1117; stroke: #3d444d }
    text { fill: #f0f6fc }
    .quiet { fill: #9198a1 }
    .bar { fill: #656c76 }
    .ours { fill: #f06595 }
    .none { stroke: #656c76 }
  }
"""


def chart(machine, results):
    table = Table(results)
    parts, y = [], EDGE + 16
    parts.append(f'<text class="head" x="{EDGE}" y="{y}">Live Likes beside others</text>')
    y += 20
    note = f"{machine['cpu']}, {machine['kernel']}, {machine['date']}; medians of {machine['repetitions']}"
    parts.append(f'<text class="quiet" x="{EDGE}" y="{y}">{escape(note)}</text>')
    y += GAP
    for metric in table.metrics:
        if metric.charted:
            y = group(table, metric, parts, y)
    height = y + EDGE
    body = "\n".join(parts)
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    label = "Bars that compare Live Likes with other like counters; peers.md has the figures"
    return f"""<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{label}">
<style>{STYLE}</style>
<rect class="frame" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>
{body}
</svg>
"""


def group(table, metric, parts, y):
    """The bars of one metric, from y down; returns where they end."""
    better = "less is better" if metric.less_is_better else "more is better"
    title = f"{table.title(metric)} ({metric.unit}; {better})".replace("`", "").replace(" †", "")
    y += TITLE
    parts.append(f'<text class="title" x="{EDGE}" y="{y - 8}">{escape(title)}</text>')
    lengths = {peer: median(values) for peer in table.peers if (values := table.values(metric, peer))}
    late = {peer: limit for peer in table.peers if (limit := table.late(metric, peer)) and metric.unit == "s"}
    longest = max([*lengths.values(), *late.values()])
    room = WIDTH - 2 * EDGE - LABEL - VALUE
    for peer in table.peers:
        middle = y + BAR - 2
        parts.append(f'<text x="{EDGE}" y="{middle}">{escape(PEERS[peer][0])}</text>')
        if peer in lengths:
            width = max(1.5, room * lengths[peer] / longest)
            kind, value = ("ours" if peer == OURS else "bar"), table.cell(metric, peer)
        else:
            width = room * late.get(peer, 0) / longest
            kind, value = "none", table.failure(metric, peer)
        value = value.replace("*", "").replace("\\", "")
        parts.append(f'<rect class="{kind}" x="{EDGE + LABEL}" y="{y}" width="{width:.1f}" height="{BAR}" rx="2"/>')
        parts.append(f'<text x="{EDGE + LABEL + width + 8:.1f}" y="{middle}">{escape(value)}</text>')
        y += ROW
    return y

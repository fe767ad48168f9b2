#!/usr/bin/env python3
"""Runs examples/cluster/run, and holds what a browser would see there against what it promises."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "faults"))
from common import BINARY, ROOT, Ended, WebSocket, arguments, check, start, until
from cycles import free_port


class Line(WebSocket):
    """A page's line through nginx: the server that it is on, by the cookie that nginx sets."""

    def __init__(self, port, visitor):
        super().__init__(("127.0.0.1", port), "live-likes")
        self.server = re.search(rb"Set-Cookie: server=([^;]*)", self.head)[1].decode()
        self.say(type="watch", visitor=visitor)

    def say(self, **message):
        self.send(1, json.dumps(message).encode())

    def hear(self, kind):
        while True:
            opcode, payload = self.frame()
            if opcode == 1 and (message := json.loads(payload))["type"] == kind:
                return message


def main():
    options = arguments(__doc__).parse_args()
    start(options, tools=["redis-server", "redis-cli", "nginx"])
    port = free_port()
    environment = os.environ | {"LIVE_LIKES_BINARY": BINARY}
    command = [os.path.join(ROOT, "examples/cluster/run"), str(port)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        processes = {}
        while "all three" not in (line := running.stdout.readline()):
            check(line, "the example does not start")
            processes[re.search(r"127.0.0.1:\d+", line)[0]] = int(line.split()[-1])
        check(len(processes) == 3, "three servers:", processes)

        def answers():
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port)
                connection.request("GET", "/")
                return "Three servers, one count" in connection.getresponse().read().decode()
            except OSError:
                return False

        until("nginx answers", answers)
        lines = [Line(port, f"visitor-of-line-{number}") for number in range(6)]
        check({line.server for line in lines} == set(processes), "all servers have lines")
        lines[0].say(type="like", visitor="visitor-of-line-0", seq=1)
        for line in lines:
            while line.hear("count")["numLikes"] != 1:
                pass
        # Its server dies, and it goes on with another one.
        os.kill(processes[lines[0].server], signal.SIGKILL)
        try:
            lines[0].hear("pong")
            check(False, "a line outlives its server")
        except (Ended, OSError):
            pass
        again = Line(port, "visitor-of-line-0")
        state = again.hear("count")
        check(state["liked"] and state["numLikes"] == 1 and again.server != lines[0].server, "it goes on:", state)
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(30)
    print("cluster example: 3 servers behind nginx, one killed, its page goes on with another one")


if __name__ == "__main__":
    main()

"""Many posts in `likes.db`: a crowd that likes them as many visitors, and what must be kept of what it was told."""

import hashlib
import http.client
import json
import random
import sqlite3
import threading
import urllib.parse

from common import PATIENCE, Counted, Crowd, Lost, WebSocket, check, is_sqlite

POSTS = ["", "hello", "__proto__", "größe & mehr"]  # the first is the default counter, which is not named
VISITORS = [f"with-numbers-{number:03}" for number in range(12)]
JSON_CLIENTS, HTTP_CLIENTS = 6, 2
SURELY_NOT = ("try again later", "is closed", "shutting down")  # in a refusal: the like does not count


def known_of(db):
    """What is known of a database of this name before it is there."""
    return Kept() if is_sqlite(db) else Counted()


class JsonSocket(WebSocket):
    """A client that has agreed on the subprotocol."""

    def __init__(self, addr):
        super().__init__(addr, "live-likes")

    def say(self, kind, **fields):
        fields = {key: value for key, value in fields.items() if value not in (None, "")}
        self.send(1, json.dumps({"type": kind, **fields}).encode())

    def hear(self):
        opcode, payload = self.frame()
        check(opcode == 1, "no text:", opcode, payload)
        return json.loads(payload)

    def watch(self, post, visitor=None):
        """What a client is told that begins to watch just now, and has nothing else to hear."""
        self.say("watch", post=post, visitor=visitor)
        return self.hear()


class Change:
    """A like or an unlike. That of a visitor has a number, which is sent as `seq` if the visitor has such."""

    def __init__(self, post, visitor=None, number=None, liked=True):
        self.post, self.visitor, self.number, self.liked = post, visitor, number, liked
        self.kind = "like" if liked else "unlike"
        self.seq = number if visitor in VISITORS else None


class Mind:
    """A visitor's mind of one post: all changes of it that may have been applied, and the last that surely was."""

    def __init__(self):
        self.sent = {0: False}  # whether it is a like, by its number
        self.attempts = {0: 1}  # how often it was sent and not surely refused
        self.answered = self.last = 0
        self.unanswered = set()

    def possible(self, least):
        return {liked for number, liked in self.sent.items() if number >= least}


class Kept:
    """What is known of `likes.db`, over all starts of its server: what was sent to it, answered and shown."""

    def __init__(self):
        self.lock = threading.Lock()
        self.minds = {}  # by post and visitor
        self.anonymous = {post: [0, 0] for post in POSTS}  # likes that count surely, and those that may besides
        self.shown = {}  # post and count, by version
        self.newest = dict.fromkeys(POSTS, 0)  # versions that were shown
        self.given = set()  # versions of likes from nobody in particular
        self.answers = 0

    def crowd(self, server):
        return ManyPosts(server, self)

    def mind(self, post, visitor):
        return self.minds.setdefault((post, visitor), Mind())

    # What is sent, and what is said to it.

    def any_change(self, own):
        """One to be sent: a new one, or again one that was sent before. `own` is a visitor without numbers, who has
        no other change on its way, if there is one."""
        post, chance = random.choice(POSTS), random.random()
        with self.lock:
            if chance < 0.15:
                return self.sends(Change(post))
            if own and chance < 0.3:
                mind = self.mind(post, own)
                return self.sends(Change(post, own, mind.last + 1, random.random() < 0.6))
            visitor = random.choice(VISITORS)
            mind = self.mind(post, visitor)
            if mind.unanswered and chance < 0.7:
                number = mind.unanswered.pop()  # an answer was lost: once more
            elif mind.last and chance < 0.8:
                number = random.choice(list(mind.sent)) or 1  # one that comes late, or twice
            else:
                number = mind.last + random.choice([1, 1, 1, 5])
            return self.sends(Change(post, visitor, number, mind.sent.get(number, random.random() < 0.6)))

    def sends(self, change):
        if change.visitor is None:
            self.anonymous[change.post][1] += 1
        else:
            mind = self.mind(change.post, change.visitor)
            mind.sent[change.number] = change.liked
            mind.attempts[change.number] = mind.attempts.get(change.number, 0) + 1
            mind.last = max(mind.last, change.number)
        return change

    def answer(self, change, told):
        with self.lock:
            self.answers += 1
            if change.visitor is None:
                count = self.anonymous[change.post]
                count[0], count[1] = count[0] + 1, count[1] - 1
                if "version" not in told:
                    return  # the tutorial's answer
                check(told["version"] not in self.given, "two likes were given the version", told["version"])
                self.given.add(told["version"])
                check("liked" not in told, "nobody in particular likes:", told)
            else:
                mind = self.mind(change.post, change.visitor)
                mind.unanswered.discard(change.number)
                mind.answered = max(mind.answered, change.number)
                check(told["liked"] in mind.possible(change.number), change.kind, change.number, "and yet", told)
            self.show(change.post, told["numLikes"], told["version"])

    def refusal(self, change, status, problem):
        check(status == 503, "refused with", status, problem)
        surely = any(words in problem for words in SURELY_NOT)
        with self.lock:
            if change.visitor is None:
                self.anonymous[change.post][1] -= surely
                return
            mind = self.mind(change.post, change.visitor)
            mind.unanswered.add(change.number)
            mind.attempts[change.number] -= surely
            if mind.attempts[change.number] == 0 and change.number > mind.answered:
                del mind.sent[change.number], mind.attempts[change.number]

    def no_answer(self, change):
        if change.visitor in VISITORS:
            with self.lock:
                self.mind(change.post, change.visitor).unanswered.add(change.number)

    def count(self, post, told):
        with self.lock:
            self.show(post, told["numLikes"], told["version"])

    def show(self, post, likes, version):
        """One version is one count of one post, whoever is told, and however often the server is started."""
        if version == 0:
            return check(likes == 0, likes, "likes without a version")
        known = self.shown.setdefault(version, (post, likes))
        check(known == (post, likes), "version", version, "was", known, "and is", (post, likes))
        self.newest[post] = max(self.newest[post], version)

    # What is left of that.

    def compare(self, crowd, server):
        """Holds what came back against what was sent, answered and shown. Nobody may be sending. Returns how many
        changes had been answered."""
        database = sqlite3.connect(f"file:{server.db}?mode=ro", uri=True)
        try:
            posts, visitors = self.read(database)
        finally:
            database.close()
        for post in POSTS:
            _, _, anonymous, version = posts.get(post, (None, 0, 0, 0))
            if version < self.newest[post]:
                raise Lost(f"{post!r}: version {self.newest[post]} was shown, {version} came back")
            answered, unanswered = self.anonymous[post]
            if anonymous < answered:
                raise Lost(f"{post!r}: {answered} likes of nobody in particular were answered, {anonymous} came back")
            most = answered + unanswered
            check(anonymous <= most, f"INVENTED: {post!r}: {most} likes of nobody sent, {anonymous} came back")
            self.anonymous[post] = [anonymous, 0]
        for (post, visitor), mind in self.minds.items():
            liked, seq = visitors.pop((post, key_of(visitor, post)), (False, None))
            if visitor in VISITORS:
                seq = seq or 0
                if seq < mind.answered:
                    raise Lost(f"{visitor} of {post!r}: {mind.answered} was answered, {seq} came back")
                check(seq in mind.sent, "INVENTED:", seq, "of", visitor, "of", post)
                check(mind.sent[seq] == liked, visitor, "of", post, seq, "should be", mind.sent[seq], "and is", liked)
            else:
                if liked not in mind.possible(mind.answered):
                    raise Lost(f"{visitor} of {post!r}: it is not {liked} that was answered")
                check(seq is None, "a number that was not sent:", seq)
                seq = mind.last
            # What is there when the server has started can be relied on, answered or not.
            mind.answered, mind.sent, mind.attempts = seq, {seq: liked}, {seq: 1}
        check(not visitors, "INVENTED:", visitors)
        self.ask(server, posts)
        answers, self.answers = self.answers, 0
        return answers

    def read(self, database):
        """The posts by name and the visitors by post and key, once the database is in itself as it should be."""
        try:
            found = database.execute("PRAGMA integrity_check").fetchall()
        except sqlite3.DatabaseError as problem:
            found = problem
        check(found == [("ok",)], "the database is damaged:", found)
        posts = {}
        for name, number, likes, visitors, anonymous, version in database.execute(
            "SELECT name, id, likes, visitors, anonymous, version FROM posts"
        ):
            counted = database.execute("SELECT count(*) FROM visitors WHERE post = ? AND liked", [number]).fetchone()[0]
            check(visitors == counted, f"{name!r}: {counted} visitors like it, and {visitors} are counted")
            check(likes == visitors + anonymous, f"{name!r}: {likes} are not {visitors} and {anonymous}")
            posts[name] = number, likes, anonymous, version
        names = {post[0]: name for name, post in posts.items()}
        visitors = {
            (names[post], bytes(visitor)): (bool(liked), seq)
            for post, visitor, liked, seq in database.execute("SELECT post, visitor, liked, seq FROM visitors")
        }
        meta = database.execute("SELECT version, posts, visitors FROM meta").fetchone()
        newest = max((post[3] for post in posts.values()), default=0)
        check(newest <= meta[0], f"the newest version is {newest}, and {meta[0]} is noted")
        check(meta[1:] == (len(posts) - 1, len(visitors)), f"noted are {meta[1:]} posts and visitors")
        return posts, visitors

    def ask(self, server, posts):
        """The server must say what is in the database."""
        check(server.count == posts[""][1], "started with", server.count, "of", posts[""][1])
        socket = JsonSocket(server.addr)
        for post in POSTS:
            _, likes, _, version = posts.get(post, (None, 0, 0, 0))
            for visitor in [None] + [visitor for other, visitor in self.minds if other == post]:
                told = socket.watch(post, visitor)
                check((told["numLikes"], told["version"]) == (likes, version), told, "of", post, likes, version)
                if visitor:
                    mind = self.minds[post, visitor]
                    check(told["liked"] == mind.sent[mind.answered], told, "to", visitor)
                self.count(post, told)
        socket.close()


def key_of(visitor, post):
    return hashlib.sha1(bytes([len(visitor)]) + visitor.encode() + post.encode()).digest()[:16]


class ManyPosts(Crowd):
    """Those who like and unlike, over WebSocket and over HTTP, and see all posts meanwhile."""

    def __init__(self, server, kept):
        self.addr, self.kept, self.over = server.addr, kept, threading.Event()
        over_http = '"version"' in server.request("GET", "/likes?post=hello")[2]
        over_http = HTTP_CLIENTS if over_http else 0
        owners = [f"without-numbers-{number}" for number in range(JSON_CLIENTS + HTTP_CLIENTS)]
        roles = [lambda own=own: self.over_json(own) for own in owners[over_http:]]
        roles += [lambda own=own: self.over_http(own) for own in owners[:over_http]]
        super().__init__(roles)

    def end(self):
        """Has all leave once they have their answers."""
        self.over.set()
        self.leave()

    def over_json(self, own):
        socket, waiting, sent, seen = JsonSocket(self.addr), {}, 0, {}

        def hear():
            told = socket.hear()
            kind, post, change = told["type"], told.get("post", ""), waiting.pop(told.get("ref"), None)
            if kind == "count":
                check(seen.get(post, -1) < told["version"], "shown", told, "after", seen.get(post))
                seen[post] = told["version"]
                self.kept.count(post, told)
            elif kind == "answer":
                check(change.post == post, "an answer to another post:", told)
                self.kept.answer(change, told)
                self.begun.set()
            elif change:
                check(kind == "refused", told)
                self.kept.refusal(change, told["status"], told["problem"])
            else:
                check("cannot be read" in told.get("problem", ""), told)  # what it asked to watch

        try:
            for post in POSTS:
                socket.say("watch", post=post, visitor=random.choice([None, *VISITORS]))
            while not self.over.is_set():
                for _ in range(random.randint(1, 8)):
                    is_waiting = any(change.visitor == own for change in waiting.values())
                    change = self.kept.any_change(None if is_waiting else own)
                    sent += 1
                    waiting[str(sent)] = change
                    fields = {"post": change.post, "visitor": change.visitor, "seq": change.seq}
                    socket.say(change.kind, ref=str(sent), **fields)
                while waiting:
                    hear()
        finally:
            for change in waiting.values():
                self.kept.no_answer(change)

    def over_http(self, own):
        connection = http.client.HTTPConnection(*self.addr, timeout=PATIENCE)
        while not self.over.is_set():
            change = self.kept.any_change(own)
            method = random.choice(["PUT", "POST"]) if change.liked else "DELETE"
            who = {"visitor": change.visitor, "seq": change.seq}
            who = {key: value for key, value in who.items() if value is not None}
            query, body, fields = {"post": change.post} if change.post else {}, None, {}
            if who and random.random() < 0.5:
                body, fields = json.dumps(who), {"Content-Type": "application/json"}
            else:
                query |= who
            try:
                connection.request(method, f"/like?{urllib.parse.urlencode(query)}", body, fields)
                answer = connection.getresponse()
                text = answer.read().decode()
            except BaseException:
                self.kept.no_answer(change)
                raise
            if answer.status != 200:
                self.kept.refusal(change, answer.status, text)
                continue
            self.kept.answer(change, json.loads(text))
            self.begun.set()

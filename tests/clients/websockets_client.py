"""The server as the `websockets` package for Python sees it.

    websockets_client.py all BASE         every check
    websockets_client.py reconnect BASE   stays through a restart: says where it is, line by line
"""

import asyncio
import json
import sys
import urllib.request
import uuid

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

PATIENCE = 120
LIKE = json.dumps({"type": "like"})

task, base = sys.argv[1:]
url = base.replace("http", "ws", 1) + "/liveLikes"


def served():
    with urllib.request.urlopen(base + "/likes") as answer:
        return json.load(answer)["numLikes"]


async def count(client):
    text = await asyncio.wait_for(client.recv(), PATIENCE)
    assert isinstance(text, str) and text.isascii() and text.isdigit(), text
    return int(text)


async def closed(client):
    """Reads on until the server has closed: the code that it sent, and the reason."""
    try:
        while True:
            await asyncio.wait_for(client.recv(), PATIENCE)
    except ConnectionClosed as end:
        assert end.rcvd is not None, "a close frame was to come"
        return end.rcvd.code, end.rcvd.reason


async def two_clients_in_step():
    before = served()
    async with connect(url) as one, connect(url) as other:
        assert await count(one) == await count(other) == before
        for number, (sender, like) in enumerate([(one, LIKE), (other, "like"), (one, '{ "type":\n"like" }')], 1):
            await sender.send(like)
            assert await count(one) == await count(other) == before + number
        # A message may come in several frames.
        await one.send(["li", "", "ke"])
        assert await count(one) == await count(other) == before + 4


async def a_ping_is_answered():
    async with connect(url) as client:
        for payload in [b"", b"ping", b"x" * 125]:
            answered = await client.ping(payload)
            await asyncio.wait_for(answered, PATIENCE)


async def compression_that_is_offered_is_declined():
    async with connect(url, compression="deflate", subprotocols=["likes"]) as client:
        assert client.protocol.extensions == []
        assert client.subprotocol is None


async def a_client_that_closes_is_answered_with_its_code():
    for code in (1000, 4000):
        client = await connect(url)
        await client.close(code, "bye")
        assert client.close_code == code, client.close_code


async def a_mistake_is_answered_with_its_close_code():
    before = served()
    for message, code in [('{"type":"dislike"}', 1008), (LIKE.encode(), 1003), (" " * 5000, 1009)]:
        client = await connect(url)
        await client.send(message)
        got, reason = await closed(client)
        assert got == code and reason, (got, reason)
    assert served() == before


async def a_client_that_asks_for_the_subprotocol_speaks_json_and_is_answered():
    before = served()
    async with connect(url, subprotocols=["chat", "live-likes"]) as client:
        assert client.subprotocol == "live-likes"

        async def told():
            return json.loads(await asyncio.wait_for(client.recv(), PATIENCE))

        async def asks(message):
            await client.send(json.dumps(message))
            return await told()

        assert await asks({"type": "ping"}) == {"type": "pong"}
        first = await asks({"type": "watch"})
        assert first.pop("boot")
        assert first == {"type": "count", "numLikes": before, "version": before}
        like = {"type": "like", "visitor": uuid.uuid4().hex, "seq": 1, "ref": "é"}
        both = sorted([await asks(like), await told()], key=lambda message: message["type"])
        count = {"numLikes": before + 1, "version": before + 1}
        answer = {"type": "answer", "ref": "é", **count}
        assert both == [answer, {"type": "count", **count}], both
        assert await asks(like) == answer
        refused = await asks({"type": "unlike", "visitor": like["visitor"]})
        assert (refused["type"], refused["status"]) == ("refused", 405), refused
        await client.send(b"{}")
        assert (await closed(client))[0] == 1003
    assert served() == before + 1


async def eight_clients_with_a_thousand_likes_each_lose_none():
    before = served()
    after = before + 8_000

    async def like(form):
        async with connect(url) as client:
            for _ in range(1000):
                await client.send(form)
            last = -1
            while last < after:
                next_one = await count(client)
                assert next_one > last, f"{next_one} came after {last}"
                last = next_one
            assert last == after

    await asyncio.gather(*(like(LIKE if number % 2 else "like") for number in range(8)))
    assert served() == after


async def run_all():
    for check in [
        two_clients_in_step,
        a_ping_is_answered,
        compression_that_is_offered_is_declined,
        a_client_that_closes_is_answered_with_its_code,
        a_mistake_is_answered_with_its_close_code,
        a_client_that_asks_for_the_subprotocol_speaks_json_and_is_answered,
        eight_clients_with_a_thousand_likes_each_lose_none,
    ]:
        await asyncio.wait_for(check(), 2 * PATIENCE)
        print("websockets:", check.__name__.replace("_", " "), flush=True)


async def reconnect():
    last = None
    # The package comes back by itself, with pauses that grow.
    async for client in connect(url):
        if last is None:
            await client.send(LIKE)
            last = await count(client) + 1
            assert await count(client) == last
            print("watching", flush=True)
            assert await closed(client) == (1001, "the server is shutting down")
        else:
            assert await count(client) == last
            await client.close()
            break
    print("websockets: a client finds the same count after a restart", flush=True)


asyncio.run(asyncio.wait_for(run_all() if task == "all" else reconnect(), 6 * PATIENCE))

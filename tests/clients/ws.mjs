// The server as the `ws` package for Node sees it.
//
//   node ws.mjs all BASE         every check
//   node ws.mjs heartbeat BASE   stays for a few pings of the server's
//   node ws.mjs reconnect BASE   stays through a restart: says where it is, line by line

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { on, once } from 'node:events';
import WebSocket from 'ws';

const PATIENCE = 120_000;

const [task, base] = process.argv.slice(2);
const url = `${base.replace(/^http/, 'ws')}/liveLikes`;
const LIKE = JSON.stringify({ type: 'like' });

setTimeout(() => { console.error('ws: took too long'); process.exit(1); }, 3 * PATIENCE).unref();

/** A client that keeps its counts until they are asked for. */
class Client {
  static async open(options) {
    const client = new Client(new WebSocket(url, options));
    await once(client.socket, 'open');
    return client;
  }

  #counts = [];
  #wake = () => {};

  constructor(socket) {
    this.socket = socket;
    this.closed = new Promise((resolve) => {
      socket.on('close', (code, reason) => resolve([code, String(reason)]));
    });
    socket.on('message', (data, isBinary) => {
      assert.equal(isBinary, false, 'a count is text');
      assert.match(String(data), /^\d+$/);
      this.#counts.push(BigInt(String(data)));
      this.#wake();
    });
  }

  async count() {
    while (this.#counts.length === 0) {
      await new Promise((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error('no count came')), PATIENCE);
        this.#wake = () => { clearTimeout(timer); resolve(); };
      });
    }
    return this.#counts.shift();
  }

  async close(code) {
    this.socket.close(code);
    return this.closed;
  }
}

const served = async () => BigInt((await (await fetch(`${base}/likes`)).json()).numLikes);

const checks = {
  async 'two clients in step, with either form of a like and over HTTP'() {
    const before = await served();
    const [one, other] = [await Client.open(), await Client.open()];
    assert.equal(await one.count(), before);
    assert.equal(await other.count(), before);
    const likes = [
      () => one.socket.send(LIKE),
      () => other.socket.send('like'),
      () => one.socket.send(' {"more": [1, 2], "type" : "like"}\n'),
      async () => assert.equal((await fetch(`${base}/like`, { method: 'PUT' })).status, 200),
      async () => assert.equal((await fetch(`${base}/like`, { method: 'POST', body: LIKE })).status, 200),
    ];
    let count = before;
    for (const like of likes) {
      await like();
      count += 1n;
      assert.equal(await one.count(), count);
      assert.equal(await other.count(), count);
    }
    one.socket.terminate();
    other.socket.terminate();
  },

  async 'a ping is answered by a pong with the same bytes'() {
    const client = await Client.open();
    for (const payload of ['', 'ping', 'x'.repeat(125)]) {
      client.socket.ping(payload);
      const [answer] = await once(client.socket, 'pong');
      assert.equal(String(answer), payload);
    }
    client.socket.terminate();
  },

  async 'compression that is offered is declined'() {
    const client = await Client.open({ perMessageDeflate: true });
    assert.equal(client.socket.extensions, '');
    assert.equal(client.socket.protocol, '');
    client.socket.terminate();
  },

  async 'a client that closes is answered with its code'() {
    for (const code of [1000, 4000]) {
      assert.deepEqual(await (await Client.open()).close(code), [code, '']);
    }
    assert.equal((await (await Client.open()).close())[0], 1005);
  },

  async 'a mistake is answered with its close code and changes nothing'() {
    const before = await served();
    for (const [send, code, reason] of [
      [(socket) => socket.send('{"type":"dislike"}'), 1008, /expected \{"type":"like"\}/],
      [(socket) => socket.send(Buffer.from(LIKE)), 1003, /text/],
      [(socket) => socket.send(' '.repeat(5000)), 1009, /./],
    ]) {
      const client = await Client.open();
      send(client.socket);
      const closed = await client.closed;
      assert.equal(closed[0], code);
      assert.match(closed[1], reason);
    }
    assert.equal(await served(), before);
  },

  async 'a client that asks for the subprotocol speaks JSON, and is answered'() {
    const before = Number(await served());
    const socket = new WebSocket(url, ['chat', 'live-likes']);
    const messages = on(socket, 'message', { signal: AbortSignal.timeout(PATIENCE) });
    const told = async () => JSON.parse(String((await messages.next()).value[0]));
    const asks = (message) => { socket.send(JSON.stringify(message)); return told(); };
    await once(socket, 'open');
    assert.equal(socket.protocol, 'live-likes');
    assert.deepEqual(await asks({ type: 'ping' }), { type: 'pong' });
    const { boot, ...first } = await asks({ type: 'watch' });
    assert.match(boot, /./);
    assert.deepEqual(first, { type: 'count', numLikes: before, version: before });
    const like = { type: 'like', visitor: randomUUID(), seq: Date.now(), ref: 'a "ref"' };
    const both = [await asks(like), await told()].sort((one, other) => one.type.localeCompare(other.type));
    const count = { numLikes: before + 1, version: before + 1 };
    assert.deepEqual(both, [{ type: 'answer', ref: 'a "ref"', ...count }, { type: 'count', ...count }]);
    assert.deepEqual(await asks(like), { type: 'answer', ref: 'a "ref"', ...count });
    const { type, status, post } = await asks({ type: 'watch', post: 'hello' });
    assert.deepEqual({ type, status, post }, { type: 'refused', status: 400, post: 'hello' });
    socket.send('like');
    const [code, reason] = await once(socket, 'close');
    assert.equal(code, 1008);
    assert.match(String(reason), /expected a JSON object/);
    assert.equal(await served(), BigInt(before + 1));
  },

  async 'eight clients with a thousand likes each lose none'() {
    const before = await served();
    const after = before + 8_000n;
    const clients = await Promise.all(Array.from({ length: 8 }, () => Client.open()));
    await Promise.all(clients.map(async (client, index) => {
      for (let like = 0; like < 1000; like += 1) client.socket.send(index % 2 ? LIKE : 'like');
      let last = -1n;
      while (last < after) {
        const count = await client.count();
        assert.ok(count > last, `${count} came after ${last}`);
        last = count;
      }
      assert.equal(last, after);
    }));
    assert.equal(await served(), after);
    await Promise.all(clients.map((client) => client.close(1000)));
  },
};

const tasks = {
  async all() {
    for (const [name, check] of Object.entries(checks)) {
      await check();
      console.log(`ws: ${name}`);
    }
  },

  async heartbeat() {
    const client = await Client.open();
    for (let pings = 0; pings < 4; pings += 1) {
      await Promise.race([once(client.socket, 'ping'), client.closed.then((closed) => assert.fail(`closed: ${closed}`))]);
    }
    client.socket.send(LIKE);
    const first = await client.count();
    assert.equal(await client.count(), first + 1n);
    await client.close(1000);
    console.log('ws: the heartbeat keeps a silent connection open');
  },

  async reconnect() {
    const client = await Client.open();
    client.socket.send(LIKE);
    const first = await client.count();
    const last = await client.count();
    assert.equal(last, first + 1n);
    console.log('watching');
    assert.deepEqual(await client.closed, [1001, 'the server is shutting down']);
    for (let tries = 0; ; tries += 1) {
      try {
        const again = await Client.open();
        assert.equal(await again.count(), last);
        await again.close(1000);
        break;
      } catch (error) {
        // Nobody listens yet, or a proxy says so.
        if (error.code === 'ERR_ASSERTION' || tries === 300) throw error;
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    }
    console.log('ws: a client finds the same count after a restart');
  },
};

await tasks[task]();

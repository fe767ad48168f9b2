// A like counter on Socket.IO 4 as its documentation builds one for several servers: the Redis adapter carries what is
// emitted, and the count is INCR in the same Redis.
//
//   node server.js REDIS_PORT              sends each count to each client
//   node server.js REDIS_PORT --coalesce   sends the newest every 10 ms, if there is one
'use strict';

const { createServer } = require('node:http');
const { createAdapter } = require('@socket.io/redis-adapter');
const { createClient } = require('redis');
const { Server } = require('socket.io');

const [redisPort, flag] = process.argv.slice(2);

async function main() {
  const redis = createClient({ url: `redis://127.0.0.1:${redisPort}` });
  const [publisher, subscriber] = [redis.duplicate(), redis.duplicate()];
  await Promise.all([redis, publisher, subscriber].map((client) => client.connect()));
  const http = createServer();
  const io = new Server(http, { adapter: createAdapter(publisher, subscriber), perMessageDeflate: false });

  let newest = 0;
  let shown = 0;
  if (flag === '--coalesce') {
    setInterval(() => {
      if (newest > shown) io.emit('likes', (shown = newest));
    }, 10);
  }
  io.on('connection', async (socket) => {
    socket.on('like', async () => {
      const likes = await redis.incr('likes');
      newest = Math.max(newest, likes);
      if (flag !== '--coalesce') io.emit('likes', likes);
    });
    socket.emit('likes', Number((await redis.get('likes')) ?? 0));
  });
  http.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${http.address().port}/`));
}

main();

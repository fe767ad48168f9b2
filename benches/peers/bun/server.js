// The like counter on Bun's own WebSocket server and its native publish/subscribe. The count lives in memory.
//
//   bun server.js             each count is published
//   bun server.js --newest    the newest count is published, every 10 ms at most, and at once after a quiet time
//
// PORT is the port (3000 if unset, 0 for a free one).

const PAUSE = 10; // milliseconds

const flag = process.argv[2];
if (flag !== undefined && flag !== '--newest') {
  console.error(`unknown flag ${flag}; there is --newest`);
  process.exit(2);
}
const changed = flag ? showNewest : show;

let likes = 0;
let shown = 0; // the count that all clients have, or are about to get
let pausing = false;

const server = Bun.serve({
  hostname: '127.0.0.1',
  port: Number(process.env.PORT ?? 3000),

  fetch(request, server) {
    const path = new URL(request.url).pathname;
    if (path === '/liveLikes') {
      if (server.upgrade(request)) return undefined;
      return new Response('expected a WebSocket upgrade\n', { status: 426 });
    }
    if (path === '/likes' && request.method === 'GET') return Response.json({ numLikes: shown });
    if (path === '/like' && request.method === 'PUT') return Response.json({ numLikes: like() });
    return new Response('not found\n', { status: 404 });
  },

  websocket: {
    open(ws) {
      ws.subscribe('likes');
      ws.send(String(shown));
    },
    message(ws, message) {
      if (JSON.parse(message).type === 'like') like();
    },
  },
});

function like() {
  likes += 1;
  changed();
  return likes;
}

function show() {
  shown = likes;
  server.publish('likes', String(shown));
}

function showNewest() {
  if (pausing || shown === likes) return;
  show();
  pausing = true;
  setTimeout(() => {
    pausing = false;
    showNewest();
  }, PAUSE);
}

console.log(`http://127.0.0.1:${server.port}/`);

// The like counter on Bun's own WebSocket server and its native publish/subscribe: one publish a like.
// The count lives in memory. PORT is the port (3000 if unset, 0 for a free one).

let likes = 0;

const server = Bun.serve({
  hostname: '127.0.0.1',
  port: Number(process.env.PORT ?? 3000),

  fetch(request, server) {
    const path = new URL(request.url).pathname;
    if (path === '/liveLikes') {
      if (server.upgrade(request)) return undefined;
      return new Response('expected a WebSocket upgrade\n', { status: 426 });
    }
    if (path === '/likes' && request.method === 'GET') return Response.json({ numLikes: likes });
    if (path === '/like' && request.method === 'PUT') return Response.json({ numLikes: like() });
    return new Response('not found\n', { status: 404 });
  },

  websocket: {
    open(ws) {
      ws.subscribe('likes');
      ws.send(String(likes));
    },
    message(ws, message) {
      if (JSON.parse(message).type === 'like') like();
    },
  },
});

function like() {
  likes += 1;
  server.publish('likes', String(likes));
  return likes;
}

console.log(`http://127.0.0.1:${server.port}/`);

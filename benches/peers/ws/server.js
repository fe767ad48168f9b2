// The like counter as the tutorials build it with Express and ws: the count lives in db.txt, which is read and
// written anew at each like, and each like is sent to each client in turn. What it answers is what Live Likes answers.
//
//   node server.js             the recipe: db.txt, written but never flushed to the disk
//   node server.js --durable   the same, saved as safely as Live Likes saves: new file, fsync, rename, fsync
//   node server.js --memory    no file at all, for the cost of the fan-out alone
//
// PORT is the port (3000 if unset, 0 for a free one), DB the file (db.txt).
'use strict';

const express = require('express');
const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');
const { WebSocket, WebSocketServer } = require('ws');

const db = path.resolve(process.env.DB || 'db.txt');

const file = {
  read: () => parseInt(fs.readFileSync(db, 'utf8'), 10),
  write: (likes) => fs.writeFileSync(db, String(likes)),
};

const durable = {
  read: file.read,
  write(likes) {
    fs.writeFileSync(`${db}.tmp`, String(likes), { flush: true });
    fs.renameSync(`${db}.tmp`, db);
    const directory = fs.openSync(path.dirname(db));
    fs.fsyncSync(directory);
    fs.closeSync(directory);
  },
};

let kept = 0;
const memory = {
  read: () => kept,
  write: (likes) => {
    kept = likes;
  },
};

const flags = { '--memory': memory, '--durable': durable };
const store = process.argv[2] === undefined ? file : flags[process.argv[2]];
if (!store) {
  console.error(`unknown flag ${process.argv[2]}; there are --memory and --durable`);
  process.exit(2);
}
if (store !== memory && !fs.existsSync(db)) store.write(0);

const app = express();
const server = http.createServer(app);
const wss = new WebSocketServer({ server, path: '/liveLikes' });

function like() {
  const likes = store.read() + 1;
  store.write(likes);
  wss.clients.forEach((client) => {
    if (client.readyState === WebSocket.OPEN) client.send(String(likes));
  });
  return likes;
}

app.get('/likes', (request, response) => {
  response.json({ numLikes: store.read() });
});

app.put('/like', (request, response) => {
  response.json({ numLikes: like() });
});

wss.on('connection', (ws) => {
  ws.on('error', () => {});
  ws.on('message', (message) => {
    if (JSON.parse(message).type === 'like') like();
  });
  ws.send(String(store.read()));
});

server.listen(Number(process.env.PORT || 3000), '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${server.address().port}/`);
});

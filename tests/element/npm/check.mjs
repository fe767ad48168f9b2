// What the browser makes of the bundles, and what axe-core and Lighthouse make of the demonstration.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import lighthouse from 'lighthouse';
import puppeteer from 'puppeteer-core';

const [serverProgram, blogProgram] = process.argv.slice(2);
const children = [];
const PATIENCE = 60_000;

// Starts a program and waits for the line in which it says where it listens.
async function start(program, ...args) {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  children.push(child);
  const [line] = await once(createInterface(child.stdout), 'line');
  return line.match(/http:\/\/[^/ ;]*/g).map((origin) => origin.replace('127.0.0.1', 'localhost'));
}

async function until(what, holds) {
  const late = Date.now() + PATIENCE;
  while (!(await holds())) {
    assert(Date.now() < late, `still not so: ${what}`);
    await new Promise((done) => setTimeout(done, 20));
  }
}

const pages = createServer(async ({ url }, response) => {
  const name = url.slice(1);
  const isScript = name.endsWith('.js');
  response.setHeader('Content-Type', isScript ? 'text/javascript' : 'text/html; charset=utf-8');
  const page = `<!doctype html><html lang="en"><title>${name}</title><link rel="icon" href="data:,"><main></main><script src="${name}.js"></script>`;
  response.end(isScript ? await readFile(name) : page);
});
await once(pages.listen(0, '127.0.0.1'), 'listening');
const origin = `http://localhost:${pages.address().port}`;
const [server] = await start(serverProgram, '--db', 'likes.db', '--addr', '127.0.0.1:0', '--allow-origin', origin);
const [blog] = await start(blogProgram, '127.0.0.1:0', '127.0.0.1:0');
const browser = await puppeteer.launch({ executablePath: process.env.CHROMIUM, args: ['--no-sandbox'] });

// Whoever is shown counts, in whatever way.
async function clients() {
  const metrics = await (await fetch(`${server}/metrics`)).text();
  return [...metrics.matchAll(/^live_likes_watchers\{.*\} (\d+)$/gm)].reduce((sum, [, number]) => sum + Number(number), 0);
}

async function open(address) {
  const page = await browser.newPage();
  page.complaints = [];
  page.on('pageerror', (error) => page.complaints.push(String(error)));
  page.on('console', (message) => /error|warn/.test(message.type()) && page.complaints.push(message.text()));
  await page.goto(address);
  return page;
}

const waitFor = (page, condition, ...values) => page.waitForFunction(condition, { timeout: PATIENCE, polling: 20 }, ...values);

async function plainBundle() {
  const page = await open(`${origin}/plain`);
  await page.evaluate((server) => {
    document.querySelector('main').innerHTML = `<live-likes post="plain" server="${server}"></live-likes>`;
  }, server);
  await waitFor(page, () => document.querySelector('live-likes').count === 0);
  await page.click('live-likes');
  await waitFor(page, () => document.querySelector('live-likes').liked);
  // The same from the server: the first definition stays.
  await page.evaluate((address) => import(address), `${server}/live-likes.js`);
  await page.evaluate(() => document.querySelector('main').append(document.querySelector('live-likes').cloneNode()));
  await waitFor(page, () => document.querySelectorAll('live-likes')[1].count === 1);
  assert.equal(await clients(), 1);
  await page.evaluate(() => document.querySelector('main').replaceChildren());
  await until('the connection is closed', async () => (await clients()) === 0);
  assert.deepEqual(page.complaints, []);

  // A bundle of this kind does not know where it came from.
  await page.evaluate(() => { document.querySelector('main').innerHTML = '<live-likes></live-likes>'; });
  await until('the page is told what to do', () => page.complaints.some((text) => text.includes('the attribute `server`')));
  await page.close();
  console.log('a plain bundle likes, and lets go of its connection');
}

async function withinReact() {
  const page = await open(`${origin}/react`);
  const show = (posts, readonly = false) => page.evaluate((properties) => {
    show({ ...properties, onLike: ({ detail }) => { document.title = `liked ${detail.post}`; } });
  }, { server, posts, readonly });
  await show(['a', 'b', 'c']);
  await waitFor(page, () => [...document.querySelectorAll('live-likes')].map((it) => it.count).join() === '0,0,0');
  assert.equal(await clients(), 1);
  await page.click('live-likes');
  await waitFor(page, () => document.querySelector('live-likes').liked);
  assert.equal(await page.title(), 'liked a');
  await show(['c', 'a'], true); // moved, removed, and an attribute changed
  await waitFor(page, () => [...document.querySelectorAll('live-likes')].map((it) => it.count).join() === '0,1');
  assert.equal(await page.$eval('live-likes', (it) => it.shadowRoot.querySelector('button').disabled), true);
  assert.equal(await clients(), 1);
  for (let round = 0; round < 20; round += 1) {
    await show([]);
    await show(['a', `${round}`]);
  }
  await waitFor(page, () => [...document.querySelectorAll('live-likes')].map((it) => it.count).join() === '1,0');
  assert.equal(await clients(), 1);
  await page.evaluate(() => unmount());
  await until('the connection is closed', async () => (await clients()) === 0);
  assert.deepEqual(page.complaints, []);
  await page.close();
  console.log('React mounts, moves and unmounts it');
}

const AXE = await readFile('node_modules/axe-core/axe.min.js', 'utf8');

async function axe() {
  const states = ['', 'liked', 'pending', 'refused', 'offline'];
  let looked = 0;
  for (const path of ['/', '/2026/hello/']) {
    const page = await open(`${blog}${path}`);
    await waitFor(page, () => document.querySelector('live-likes').count !== null);
    await page.evaluate(AXE);
    for (const scheme of ['light', 'dark']) {
      await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }]);
      for (const state of states) {
        const violations = await page.evaluate(async (attribute) => {
          const it = document.querySelector('live-likes');
          if (attribute) it.setAttribute(attribute, '');
          if (attribute === 'refused') it.shadowRoot.querySelector('[role=status]').textContent = 'Your like was not confirmed';
          const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
          const { violations, passes } = await axe.run(document, { runOnly: tags });
          if (attribute) it.removeAttribute(attribute);
          if (!passes.some(({ id }) => id === 'button-name')) return ['the button was not looked at'];
          return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html)}`);
        }, state);
        assert.deepEqual(violations, [], `${path}, ${scheme}, ${state}`);
        looked += 1;
      }
    }
    await page.close();
  }
  console.log(`axe-core has nothing against ${looked} states of the demonstration`);
}

async function figures() {
  for (const path of ['/', '/2026/hello/']) {
    const page = await browser.newPage();
    const { lhr } = await lighthouse(`${blog}${path}`, { logLevel: 'error' }, undefined, page);
    const score = (name) => Math.round(lhr.categories[name].score * 100);
    const shift = lhr.audits['cumulative-layout-shift'].numericValue;
    const failed = Object.values(lhr.audits).filter(({ score, scoreDisplayMode }) => score === 0 && scoreDisplayMode === 'binary');
    const why = failed.map(({ id }) => id).join();
    console.log(`Lighthouse of ${path}: accessibility ${score('accessibility')}, best practices ${score('best-practices')}, ` +
      `performance ${score('performance')}, layout shift ${shift}`);
    assert.deepEqual([score('accessibility'), score('best-practices'), shift], [100, 100, 0], why);
    await page.close();
  }
}

try {
  await plainBundle();
  await withinReact();
  await axe();
  await figures();
} finally {
  await browser.close();
  for (const child of children) child.kill();
  pages.close();
}

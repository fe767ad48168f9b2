// Live counts of a Live Likes server, and likes that are certain. The import of this module touches no document.
//
//   import { connect } from './live-likes.js';
//   const post = connect('https://likes.example/').watch('/hello/', (what) => show(post));
//   button.onclick = () => post.like();
//
// connect(server, { eager })  the connection to a server: one for each address, shared by all of the page. It is open
//     while something is watched. The visitor's name is made at the first click; with `eager` before it, so that
//     `toggle` is known at once, and how many watch the default counter is asked for.
// .watch(name, changed)  the post of that name ('' is the default counter), shared by all who watch it. `changed(what)`
//     is called after each change of 'count', 'liked', 'pending', 'watching' or 'state', and when a like is 'answered' or
//     'refused'.
//
// post.count    the likes, a BigInt; undefined until they are known
// post.liked    whether this visitor likes it, by the server's word
// post.pending  true while a like has no answer, false while an unlike has none, otherwise undefined
// post.toggle   whether the server can take a like back; undefined until that is known
// post.watching how many watch it, as of the last 25 s or so; undefined where that is not known
// post.refused  why the last change does not count: { status, problem } with HTTP's status, or with 0 where it is not
//               known whether it counts
// post.state    'connecting', 'live', 'reconnecting' or 'offline'; live is what the server has proved within 45 s
// post.trouble  why the post is not shown live over a WebSocket, as far as that is known: { status, problem }
// post.like(), post.unlike(), post.unwatch(changed)

// All pages lose a restarted server at one moment, so each comes back at a moment of its own: a random part of a
// longest wait that doubles (RFC 6455 section 7.2.3).
const FIRST_WAIT = 2_000;
const LONGEST_WAIT = 30_000;
// A connection that lasted so long was a good one: the next wait is short again.
const STEADY = 10_000;
// How long the server may owe an answer before the connection counts as dead.
const PATIENCE = 10_000;
// After so much silence it is pinged. A page does not see the pings that WebSocket has of its own. So old may be what is
// known of how many watch, too.
const QUIET = 25_000;
// After so much silence the connection is not called live until the server has answered.
const STALE = 45_000;
// A page that shows others next has the connection at hand.
const LINGER = 1_000;
// A server without a database forgets after an hour who has liked: an older like is not said again to it.
const FORGETS = 50 * 60_000;

const LOST = 'the connection was lost before the server answered; it is not known whether your like counts';
const BLOCKED = 'no WebSocket to the server could be made';

// Where a browser keeps the visitor's name, and the number of its last change of mind.
const KEPT = 'live-likes';

// A clock that was set must not make a connection look alive: time that went backwards is silence too. It is the
// clock's time because no other passes while a computer sleeps.
const since = (then) => Math.abs(Date.now() - then);

const connections = new Map();

export function connect(server, options = {}) {
  const address = new URL(server.replace(/\/?$/, '/'), document.baseURI).href;
  if (!connections.has(address)) connections.set(address, new Connection(address, options));
  return connections.get(address);
}

class Post {
  liked = false;
  watchers = new Set();
  version = -1n;
  likedVersion = -1n;
  fresh = false; // its count has come since the connection was made

  constructor(connection, name) {
    Object.assign(this, { connection, name });
  }

  get pending() { return this.wish?.like; }
  get toggle() { return this.connection.remembers ?? (this.name ? true : undefined); } // a named post is in a database
  get trouble() { return this.barred ?? this.connection.trouble; }
  get state() { return this.connection.state(this.fresh); }

  like() { this.change(true); }
  unlike() { this.change(false); }

  change(like) {
    const { connection, toggle } = this;
    if (!toggle && (!like || this.wish || this.liked)) return;
    this.refused = undefined;
    connection.meet(true);
    this.wish = { like, seq: connection.nextSeq() };
    connection.tell(this);
    this.changed('pending');
  }

  unwatch(changed) {
    this.watchers.delete(changed);
    setTimeout(() => this.connection.leave(this)); // an element that is only moved comes back at once
  }

  changed(what) {
    for (const watcher of this.watchers) watcher(what);
  }

  // Of two messages the one with the higher version is newer, whichever comes first.
  take({ numLikes, version, liked }) {
    const at = version === undefined ? this.version + 1n : BigInt(version);
    const isNewer = at > this.version;
    const isChanged = liked !== undefined && liked !== this.liked && at >= this.likedVersion;
    if (liked !== undefined && at > this.likedVersion) this.likedVersion = at;
    if (isNewer) [this.version, this.count] = [at, BigInt(numLikes)];
    if (isChanged) [this.liked, this.refused] = [liked];
    if (isNewer) this.changed('count');
    if (isChanged) this.changed('liked');
  }

  settle(refused) {
    this.wish = undefined;
    this.refused = refused;
    this.changed(refused ? 'refused' : 'answered');
    this.connection.leave(this);
  }
}

class Connection {
  #ticking;
  #waiting;
  #openedAt;
  #askedAt;
  #heardAt;
  #toldAt; // how many watch
  #stream;
  #socket;
  #plain;
  #eager;
  #visitor;
  #made;
  #wasLive;
  #boot;
  posts = new Map();
  #live = false; // the server has proved that it is there
  #joined = false; // over this very socket
  #failures = 0; // sockets that ended since the last steady one: how long to wait
  #fruitless = 0; // sockets in a row that brought nothing
  #seq = 0;

  constructor(address, { eager }) {
    this.address = address;
    this.#eager = eager;
    addEventListener('offline', () => this.#doubt());
    addEventListener('online', () => { this.#plain = false; this.#openedAt = 0; this.#comeBack(); });
    addEventListener('pageshow', ({ persisted }) => persisted && this.#comeBack());
    document.addEventListener('visibilitychange', () => document.hidden || this.#comeBack());
    addEventListener('pagehide', () => this.#close()); // a page that is kept for the way back holds no connection
    addEventListener('storage', () => this.meet()); // another window of this visitor's may have been first
  }

  watch(name, changed) {
    let post = this.posts.get(name);
    if (!post) {
      this.posts.set(name, (post = new Post(this, name)));
      if (!this.#ticking) this.#begin();
      else if (this.#isOpen) this.#sendWatch(post);
      else if (this.#fruitless > 1) this.#listen();
    }
    post.watchers.add(changed);
    return post;
  }

  leave(post) {
    if (post.watchers.size || post.wish || !this.posts.delete(post.name)) return;
    if (this.#isOpen) this.#send('unwatch', post);
    setTimeout(() => {
      if (this.posts.size) return;
      this.#ticking = clearInterval(this.#ticking);
      this.#close();
    }, LINGER);
  }

  #begin() {
    this.meet();
    this.#ticking = setInterval(() => this.#tick(), 500);
    this.#open();
  }

  #close() {
    clearTimeout(this.#waiting);
    this.#dropSocket();
    this.#dropStream();
  }

  state(fresh) {
    if (this.#live && fresh) return 'live';
    if (!this.#live && !navigator.onLine) return 'offline';
    return this.#wasLive || this.#failures ? 'reconnecting' : 'connecting';
  }

  changed() {
    for (const post of this.posts.values()) post.changed('state');
  }

  // --- whether the server is there ---

  #revive() {
    this.#heardAt = Date.now();
    if (this.#live) return;
    this.#live = this.#wasLive = true;
    this.changed();
  }

  #doubt() {
    this.#live = false;
    this.#dropStream();
    this.changed();
  }

  // Asks for a sign of life.
  #prove() {
    if (since(this.#heardAt) > STALE) this.#doubt();
    for (const post of this.posts.values()) if (!post.fresh) this.#sendWatch(post);
    if (this.#askedAt) return;
    this.#askedAt = Date.now();
    this.#send('ping', undefined, { watching: this.#toldAt && true });
  }

  #tick() {
    const owes = ({ wish }) => since(wish?.saidAt) > PATIENCE;
    const silence = since(this.#heardAt);
    if (since(this.#askedAt) > PATIENCE || [...this.posts.values()].some(owes)) this.#lost();
    else if (this.#joined && (silence > QUIET || since(this.#toldAt) > QUIET)) this.#prove();
    else if (!this.#joined && this.#live && silence > QUIET + PATIENCE) this.#dropStream();
  }

  // Seen again, or back on a network: the connection may have died, and the reader should not wait out a delay.
  #comeBack() {
    if (!this.posts.size) return;
    if (this.#joined) return this.#prove();
    if (since(this.#heardAt) > STALE) this.#dropStream();
    if (this.#fruitless > 1 && !this.#stream) this.#listen();
    // A page that comes back from the browser's cache hears of it twice.
    if (!this.#socket || since(this.#openedAt) > 1_000) this.#open();
  }

  // --- the socket ---

  get #isOpen() { return this.#socket?.readyState === 1; }

  #open() {
    clearTimeout(this.#waiting);
    this.#dropSocket();
    this.#openedAt = this.#askedAt = Date.now();
    try {
      const socket = new WebSocket(this.#url('liveLikes').replace('http', 'ws'), 'live-likes');
      this.#socket = socket;
      // One that was given up may still speak or close: it has no say any more.
      socket.onopen = () => socket === this.#socket && this.posts.forEach((post) => this.#sendWatch(post));
      socket.onmessage = ({ data }) => socket === this.#socket && this.#hear(parse(data));
      socket.onclose = () => socket === this.#socket && this.#lost();
    } catch {
      this.#lost(); // a policy allows none, or the address cannot be one's
    }
  }

  #dropSocket() {
    const socket = this.#socket;
    const joined = this.#joined;
    this.#socket = this.#askedAt = undefined;
    this.#joined = false;
    if (joined) this.#end();
    socket?.close();
  }

  // From now on what is shown may be old.
  #end() {
    this.#live = false;
    for (const post of this.posts.values()) {
      post.fresh = post.watching = undefined;
      if (post.wish) post.wish.saidAt = undefined;
    }
    this.changed();
  }

  #lost() {
    if (this.#joined && since(this.#openedAt) > STEADY) this.#failures = 0;
    this.#fruitless = this.#joined ? 0 : this.#fruitless + 1;
    this.#dropSocket();
    this.#waiting = setTimeout(() => this.#open(), Math.random() * Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** this.#failures));
    this.#failures += 1;
    if (this.#fruitless > 1 && !this.#stream) this.#listen();
    this.changed();
  }

  #send(type, post, more) {
    this.#socket.send(JSON.stringify({ type, post: post?.name || undefined, ...more }));
  }

  #sendWatch(post) {
    this.#send('watch', post, this.#named(post));
  }

  #hear(message) {
    if (!this.#joined) {
      this.#joined = true;
      this.#fruitless = 0;
      this.trouble = this.#askedAt = undefined;
      this.#dropStream();
      this.#revive();
      this.changed();
    } else if (message.type === 'pong') {
      this.#askedAt = undefined;
      this.#revive();
    } else if (this.#live) {
      this.#revive(); // what came before a doubt and was held up proves nothing
    }
    this.#receive(message);
  }

  #receive(message) {
    this.reached = true;
    const post = this.posts.get(message.post ?? '');
    if (message.boot && message.boot !== this.#boot) {
      // Another start of the server: its store may have been put back to an older state.
      this.#boot = message.boot;
      for (const other of this.posts.values()) other.version = other.likedVersion = -1n;
    }
    if (!post) return;
    const isAnswer = post.wish && message.ref === String(post.wish.seq);
    if (message.type === 'refused') {
      if (isAnswer) post.settle(message);
      else if (!message.ref && !post.fresh) this.#bar(post, message);
    } else if (typeof message.numLikes !== 'string') {
      post.watching = message.watching; // with a pong, for example
      this.#toldAt = post.watching && Date.now();
      post.changed('watching');
    } else if (isAnswer) {
      this.#answer(post, message);
    } else {
      post.take(message);
      if (message.type !== 'answer' && !post.fresh) this.#join(post, message);
    }
  }

  #bar(post, refusal) {
    post.barred = refusal;
    if (post.wish) post.settle(refusal);
    post.changed('state');
  }

  #join(post, message) {
    post.fresh = true;
    post.barred = undefined;
    if (post.hasName) this.remembers = 'liked' in message;
    if (post.wish) this.#tellAgain(post);
    post.changed('state');
  }

  // --- likes ---

  tell(post) {
    const { wish } = post;
    if (!post.fresh) return;
    if (!wish.visitor) {
      const remembers = Boolean(post.toggle);
      const visitor = this.remembers === false ? this.#own : this.#visitor;
      Object.assign(wish, { visitor, remembers, boot: this.#boot, at: Date.now(), began: performance.now() });
      if (remembers) this.#keep();
    }
    const { like, visitor, seq } = wish;
    if (!this.#joined) return this.#put(post);
    wish.saidAt = Date.now();
    this.#send(like ? 'like' : 'unlike', post, { visitor, seq, ref: String(seq) });
  }

  // The answer was lost with its connection. Said again a like counts once, as long as the server knows who gave it.
  #tellAgain(post) {
    const { visitor, at, began, boot, remembers } = post.wish;
    // By the clock, which a computer's sleep does not stop, and by the time that nobody sets back.
    const age = Math.max(since(at), performance.now() - began);
    if (!visitor || (remembers && this.remembers) || (boot && boot === this.#boot && age < FORGETS)) this.tell(post);
    else post.settle({ status: 0, problem: LOST });
  }

  #answer(post, message) {
    const { like, visitor } = post.wish;
    post.wish = undefined;
    if ('liked' in message) {
      this.remembers = true;
      this.#keep();
      if (visitor !== this.#visitor) delete message.liked; // another window has made the name meanwhile
    } else {
      post.liked = like;
    }
    post.take(message);
    post.settle();
  }

  // --- the visitor ---

  // Of a server without a database each page load is a visitor of its own.
  get #own() { return (this.#made ??= random()); }

  // The name that the browser keeps, for all windows; or this page's, if there is one or one is needed.
  meet(needed = this.#eager) {
    const visitor = this.#kept().visitor ?? this.#visitor ?? (needed ? this.#own : undefined);
    if (visitor === this.#visitor) return;
    this.#visitor = visitor;
    if (this.#isOpen) this.posts.forEach((post) => this.#sendWatch(post));
    else if (this.#stream) this.#listen();
  }

  #named(post) {
    if (!post.fresh) post.hasName = Boolean(this.#visitor);
    post.likedVersion = -1n;
    // A server that tells how many watch is asked again with each ping.
    return { visitor: this.#visitor, watching: (this.#eager && !post.name) || undefined };
  }

  // It rises with every change of mind, in all windows of this visitor's.
  nextSeq() {
    return (this.#seq = Math.max(Date.now(), this.#seq + 1, (this.#kept().seq ?? 0) + 1));
  }

  // What the browser keeps of earlier visits; nothing where it refuses to.
  #kept() {
    try {
      const { visitor, seq } = JSON.parse(localStorage.getItem(KEPT));
      return /^[\w-]{16,64}$/.test(visitor) && seq >= 0 && seq < 2 ** 52 ? { visitor, seq } : {};
    } catch {
      return {};
    }
  }

  // From the first like on: nobody who only reads is given a name.
  #keep() {
    try {
      localStorage.setItem(KEPT, JSON.stringify({ visitor: this.#visitor, seq: Math.max(this.#seq, this.#kept().seq ?? 0) }));
    } catch { /* then it lives as long as this page */ }
  }

  // --- where WebSockets do not get through ---

  #url(path, parameters = []) {
    const query = new URLSearchParams(parameters.filter(([, value]) => value));
    return `${this.address}${path}${query.size ? `?${query}` : ''}`;
  }

  #dropStream() {
    this.#stream?.abort();
    this.#stream = undefined;
    if (this.#live && !this.#joined) this.#end();
  }

  // Takes the counts from an event stream; or once, where that does not get through either.
  async #listen() {
    if (!this.posts.size) return;
    this.#stream?.abort();
    const stream = (this.#stream = new AbortController());
    const { signal } = stream;
    const plain = this.#plain;
    const late = setTimeout(() => stream.abort(), PATIENCE);
    let brought = false;
    try {
      // A page's GET to its own server does not say its origin. Whether likes of that are refused, this finds out.
      const isOwn = this.address.startsWith(`${location.origin}/`);
      const barred = isOwn && (await refusal(await fetch(this.#url('like'), { method: 'OPTIONS', signal })));
      const names = [...this.posts.keys()].slice(0, 100);
      this.posts.forEach((post) => this.#named(post));
      const url = this.#url('likes', [...names.map((name) => ['post', name]), ['visitor', this.#visitor]]);
      const Accept = plain || barred ? 'application/json' : 'text/event-stream';
      const response = await fetch(url, { headers: { Accept }, cache: 'no-store', signal });
      const trouble = barred || (await refusal(response)) || { status: 0, problem: BLOCKED };
      if (stream === this.#stream) this.trouble = trouble;
      this.changed();
      if (response.ok && response.headers.get('Content-Type')?.startsWith('text/event-stream')) {
        await this.#read(response.body, () => { clearTimeout(late); brought = true; return stream === this.#stream; });
      } else if (response.ok) {
        const message = parse(await response.text());
        brought = true;
        if (stream === this.#stream) for (const count of message.posts ?? [{ post: names[0], ...message }]) this.#receive(count);
      }
    } catch { /* the next failure of a socket leads here again */ }
    clearTimeout(late);
    if (stream !== this.#stream) return;
    this.#dropStream();
    // Where streams do not get through, single requests may. If those fail too, that says nothing against streams.
    this.#plain = plain === brought;
    if (!brought && !plain) return this.#listen();
    if (!brought) this.reached = false;
    this.changed();
  }

  async #read(body, isWanted) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = '';
    for (;;) {
      const { done, value } = await reader.read();
      if (done || !isWanted()) return;
      this.#revive();
      const lines = (rest + value).split('\n');
      rest = lines.pop();
      for (const line of lines) if (line.startsWith('data:')) this.#receive(parse(line.slice(5)));
    }
  }

  async #put(post) {
    const { wish } = post;
    const { like, visitor, seq } = wish;
    const url = this.#url('like', [['post', post.name], ['visitor', visitor], ['seq', seq]]);
    try {
      const response = await fetch(url, { method: like ? 'POST' : 'DELETE', signal: AbortSignal.timeout(PATIENCE) });
      const refused = await refusal(response);
      const message = !refused && parse(await response.text());
      if (wish !== post.wish) return;
      if (refused) post.settle(refused);
      else this.#answer(post, message);
    } catch {
      if (wish !== post.wish) return;
      if (this.#joined) return this.#tellAgain(post);
      post.fresh = false;
      this.#dropStream();
    }
  }
}

const random = () => Array.from(crypto.getRandomValues(new Uint8Array(32)), (byte) => (byte % 16).toString(16)).join('');

// Numbers as text: as a Number a large count would lose its last digits.
function parse(data) {
  try {
    return JSON.parse(data.replace(/"(numLikes|version)":(\d+)/g, '"$1":"$2"')) ?? {};
  } catch {
    return {};
  }
}

// Why a request is not granted, in the server's words if there are any.
async function refusal(response) {
  const { ok, status, headers } = response;
  if (ok) return undefined;
  const isText = headers.get('Content-Type')?.startsWith('text/plain');
  return { status, problem: (isText && (await response.text()).trim()) || `the server answered ${status}` };
}

// --- the element ---

// Each is set by the attribute of its name after `text-`; # is the number. A language with more plural forms than English
// has `text-few` and so on.
const WORDS = {
  like: 'Like', one: '# like', other: '# likes', liked: 'Liked', unliked: 'Like taken back',
  refused: 'Your like was not confirmed', offline: 'Likes cannot be reached',
};

// Constructed, so that the strictest content policy allows it.
const STYLE = `
:host { position: relative; display: inline-block; vertical-align: middle; line-height: 1.25 }
:host([hidden]) { display: none }
button { display: inline-flex; align-items: center; gap: .4em; min-block-size: 2.75em; min-inline-size: 2.75em; margin: 0;
  padding: 0 .75em; border: 1px solid transparent; border-radius: 9em; background: var(--live-likes-background, none);
  color: var(--live-likes-color, inherit); font: inherit; cursor: pointer }
button:focus-visible { outline: 2px solid; outline-offset: 2px }
button:disabled { cursor: inherit }
svg { display: block; inline-size: var(--live-likes-size, 1.25em); fill: none; stroke: currentcolor; stroke-width: 2;
  stroke-linejoin: round }
[part=count] { inline-size: var(--live-likes-count-size, 5ch); text-align: start; white-space: nowrap;
  font-variant-numeric: tabular-nums }
:host([liked]) [part=icon] { color: var(--live-likes-liked-color, inherit) }
:host([liked]) svg { fill: currentcolor }
:host([pending]) [part=icon] { animation: wait .6s infinite alternate }
:host([offline]) button { border: 1px dashed }
[part=note] { position: absolute; z-index: 1; inset-block-start: 100%; inset-inline-start: 0; inline-size: max-content;
  max-inline-size: 16em; padding: .25em .5em; border: 1px solid; background: Canvas; color: CanvasText; font-size: .875em }
:host(:not([refused], [offline][pending])) [part=note] { inline-size: 1px; block-size: 1px; overflow: hidden; clip-path: inset(50%) }
@keyframes wait { to { opacity: .35 } }
@media (prefers-reduced-motion) { * { animation: none !important } }
@media print { [part=note] { display: none } }`;

// So many posts of a page are watched wherever they are on it.
const MANY = 50;

let sheet;
let nearness;
const formats = new Map();
const logged = new Set();

function make(name, attributes, ...children) {
  const space = /svg|path/.test(name) ? '2000/svg' : '1999/xhtml';
  const node = document.createElementNS(`http://www.w3.org/${space}`, name);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  node.append(...children);
  return node;
}

function formatsOf(language) {
  if (!formats.has(language)) {
    try {
      formats.set(language, {
        exact: new Intl.NumberFormat(language),
        short: new Intl.NumberFormat(language, { notation: 'compact', maximumSignificantDigits: 3, roundingMode: 'trunc' }),
        plural: new Intl.PluralRules(language),
      });
    } catch { // no language, but what an author wrote
      formats.set(language, formatsOf('en'));
    }
  }
  return formats.get(language);
}

// Each of them once: a page may hold many elements.
function log(problem) {
  if (!logged.has(problem)) console.error(`live-likes: ${problem}`);
  logged.add(problem);
}

export class LiveLikes extends (globalThis.HTMLElement ?? Object) {
  static observedAttributes = ['post', 'server', 'readonly',
    ...Object.keys(WORDS).concat('zero', 'two', 'few', 'many').map((word) => `text-${word}`)];

  #states = this.attachInternals().states;
  #count = make('span', { part: 'count' });
  #note = make('span', { part: 'note', role: 'status' });
  #button = make('button', { part: 'button', type: 'button' },
    make('span', { part: 'icon' },
      make('slot', { name: 'icon' },
        make('svg', { viewBox: '0 0 24 24', 'aria-hidden': true },
          make('path', { d: 'M12 21C7 17 2 13 2 8.5A5.3 5.3 0 0 1 12 6a5.3 5.3 0 0 1 10 2.5C22 13 17 17 12 21z' })))),
    this.#count);
  #post; // of the connection
  #stop; // ends the watch of it
  #asked = []; // who waits for an answer
  #refused = false; // the last like of this element
  #told; // the trouble that was told last

  constructor() {
    super();
    if (!sheet) {
      sheet = new CSSStyleSheet();
      sheet.replaceSync(STYLE);
      nearness = new IntersectionObserver((entries) => {
        for (const { target, isIntersecting } of entries) target.getRootNode().host.#near(isIntersecting);
      }, { rootMargin: '50%' });
    }
    const root = this.attachShadow({ mode: 'open', delegatesFocus: true });
    root.adoptedStyleSheets = [sheet];
    root.append(this.#button, this.#note);
    this.#button.onclick = () => this.#change(!(this.#post?.pending ?? this.liked));
  }

  connectedCallback() {
    nearness.observe(this.#button);
    this.#render();
  }

  disconnectedCallback() {
    nearness.unobserve(this.#button);
    setTimeout(() => this.isConnected || this.#asked.length || this.#leave()); // if it is not only moved
  }

  connectedMoveCallback() {} // moved by moveBefore(), it stays as it is

  attributeChangedCallback(name, before, now) {
    if (/^(post|server)$/.test(name) && before !== now && this.#post) {
      this.#leave();
      this.#post = undefined;
      this.#refused = false;
      this.#count.textContent = this.#note.textContent = '';
      this.#watch();
    }
    this.#render();
  }

  get count() {
    return this.#post?.count === undefined ? null : Number(this.#post.count);
  }

  get liked() {
    return this.#post?.liked === true;
  }

  like() {
    return this.#change(true);
  }

  unlike() {
    return this.#change(false);
  }

  #near(isNear) {
    if (isNear) this.#watch();
    // A client watches a hundred posts at most: of many, those far away are let go.
    else if (this.#post?.connection.posts.size > MANY && !this.#asked.length) this.#leave();
  }

  #watch() {
    if (this.#stop) return;
    try {
      const server = this.getAttribute('server') ?? new URL('.', import.meta.url).href;
      if (!/^http/.test(new URL(server, document.baseURI).protocol)) throw 0;
      const hear = (what) => this.#hear(what);
      const post = connect(server).watch(this.getAttribute('post') || path(), hear);
      this.#post = post;
      this.#stop = () => post.unwatch(hear);
      this.#hear(post.count === undefined ? 'state' : 'count');
    } catch {
      this.#fail({ status: 0, problem: 'the attribute `server` has to name the Live Likes server: https://likes.example' });
    }
  }

  #leave() {
    this.#stop?.();
    this.#stop = undefined;
  }

  #change(like) {
    this.#watch();
    return new Promise((done) => {
      if (!this.#post) return done(false);
      this.#asked.push(done);
      this.#refused = false;
      this.#note.textContent = '';
      if (like) this.#post.like();
      else this.#post.unlike();
      this.#render();
    });
  }

  #hear(what) {
    const { refused, trouble, barred, connection } = this.#post;
    const isEnd = /answered|refused/.test(what);
    const asked = isEnd ? this.#asked.splice(0) : [];
    if (what === 'refused') {
      this.#refused = asked.length > 0;
      this.#fail(refused);
    } else if (barred || connection.reached === false) {
      const told = trouble?.status ? trouble : { status: 0, problem: `${connection.address} cannot be reached` };
      if (told.problem !== this.#told?.problem) this.#fail((this.#told = told));
    }
    this.#render();
    if (what === 'count') this.#emit('count');
    if (what === 'answered' && asked.length) {
      this.#say(`${this.#word(this.liked ? 'liked' : 'unliked')}, ${this.#counted}`);
      this.#emit('like');
    }
    for (const done of asked) done(this.liked);
    if (isEnd && !this.isConnected) this.#leave();
  }

  #fail(detail) {
    log(detail.problem);
    this.#emit('error', detail);
  }

  #emit(name, detail = { count: this.count, liked: this.liked }) {
    detail = { post: this.#post?.name, ...detail };
    this.dispatchEvent(new CustomEvent(`live-likes:${name}`, { bubbles: true, composed: true, detail }));
  }

  #word(name) {
    return this.getAttribute(`text-${name}`) ?? WORDS[name] ?? this.#word('other');
  }

  #say(words) {
    if (this.#note.textContent !== words) this.#note.textContent = words;
  }

  #counted = '';

  #render() {
    const { count, liked, pending, state, toggle, connection } = this.#post ?? {};
    const offline = state === 'offline' || connection?.reached === false;
    const states = { liked, pending: pending !== undefined, refused: this.#refused, offline };
    for (const name in states) {
      this.toggleAttribute(name, states[name] === true);
      this.#states?.[states[name] ? 'add' : 'delete'](name);
    }
    const button = this.#button;
    const readonly = button.disabled = this.hasAttribute('readonly');
    button.title = '';
    if (count !== undefined) {
      const { exact, short, plural } = formatsOf(this.closest('[lang]')?.lang || 'en');
      const number = exact.format(count);
      const text = count < 10_000n ? number : short.format(count);
      if (text !== number) button.title = number;
      if (text !== this.#count.textContent) this.#count.textContent = text;
      this.#counted = this.#word(plural.select(Number(count))).replace('#', number);
    }
    if (offline) button.title = this.#word('offline');
    if (states.refused) this.#say(this.#word('refused'));
    else if (offline && states.pending) this.#say(button.title);
    button.setAttribute('aria-label', (readonly ? [] : [this.#word('like')]).concat(this.#counted || []).join(', '));
    if (readonly || toggle === false) button.removeAttribute('aria-pressed');
    else button.setAttribute('aria-pressed', liked === true);
  }
}

// The default post. Decoded, so that it is what an author would write.
function path() {
  try {
    return decodeURI(location.pathname);
  } catch {
    return location.pathname;
  }
}

const { customElements } = globalThis;
if (customElements && !customElements.get('live-likes')) customElements.define('live-likes', LiveLikes);

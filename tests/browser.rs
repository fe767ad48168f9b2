//! The page in real browsers, Chromium and Firefox, against the real server.
//!
//! Where the server behaves too well to bring about what a page must bear, a [`Puppet`] stands in.

#[macro_use]
#[path = "support/each_browser.rs"]
mod each_browser;

#[path = "support/browser.rs"]
mod browser;
#[path = "browser/events.rs"]
mod events;
#[path = "browser/likes.rs"]
mod likes;
#[path = "browser/line.rs"]
mod line;
#[path = "browser/look.rs"]
mod look;
#[cfg(feature = "cli")]
#[path = "support/process.rs"]
mod process;
#[path = "support/puppet.rs"]
mod puppet;
#[path = "support/relay.rs"]
mod relay;
#[path = "support/reserved.rs"]
mod reserved;
#[path = "support/running.rs"]
mod running;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;
use std::{env, fs, thread};

use browser::{Browser, DEADLINE, Window};
use live_likes::{Likes, Limits, Page, Server, StoreLimits};
use reserved::Reserved;

const BUTTON: &str = ".tweet__footer__actions__like";
const COUNT: &str = "#numLikes";
const LIKES: &str = ".tweet__footer__likes";
const STATUS: &str = ".tweet__footer__status";
const NOTE: &str = ".tweet__footer__note";
const WATCHING: &str = ".tweet__footer__watching";

const LIVE: &str = "document.querySelector('.tweet__footer__status').dataset.state === 'live'";
const RECONNECTING: &str = "document.querySelector('.tweet__footer__status').dataset.state === 'reconnecting'";

/// A clock that the test moves: `pass(seconds)` runs the timers that end meanwhile, `sleep(seconds)` none, as of a
/// computer that sleeps. The waits between connections, which `NO_WAITS` makes 0, and between announcements stay real.
const CLOCK: &str = "{
  const later = setTimeout, never = clearTimeout, now = Date.now, waiting = new Map();
  let ahead = 0, given = 0;
  Date.now = () => now() + ahead;
  const wait = (run, wait, every) => {
    given -= 1;
    waiting.set(given, { run, at: Date.now() + wait, every });
    return given;
  };
  globalThis.setTimeout = (run, ms) => (ms > 0 && ms !== 4_000 ? wait(run, ms) : later(run, ms));
  globalThis.setInterval = (run, ms) => wait(run, ms, ms);
  globalThis.clearTimeout = globalThis.clearInterval = (timer) => waiting.delete(timer) || never(timer);
  globalThis.sleep = (seconds) => { ahead += seconds * 1_000; };
  globalThis.pass = (seconds) => {
    const end = Date.now() + seconds * 1_000;
    for (;;) {
      const [timer, next] = [...waiting].sort(([, a], [, b]) => a.at - b.at)[0] ?? [];
      if (!next || next.at > end) break;
      ahead += Math.max(0, next.at - Date.now());
      if (next.every) next.at += next.every;
      else waiting.delete(timer);
      next.run();
    }
    ahead += Math.max(0, end - Date.now());
  };
}";

/// Each connection comes back at once: what is tested is that it comes back.
const NO_WAITS: &str = "Math.random = () => 0";

fn a_click_in_one_window_shows_the_count_in_both(browser: &Browser) {
    let counter = Counter::start("16");
    let (one, other) = (browser.window(), browser.window());
    one.open(&counter.url());
    other.open(&counter.url());
    one.wait_until(LIVE);
    other.wait_until(LIVE);

    one.click(BUTTON);

    one.wait_until(&shows("17"));
    other.wait_until(&shows("17"));
    assert_eq!(counter.likes().count(), 17);
    assert_eq!(one.text(BUTTON), "Liked");
    assert_eq!(other.text(BUTTON), "Like");
}

fn the_page_reconnects_after_the_server_restarts_and_shows_the_right_count(browser: &Browser) {
    let mut counter = Counter::start("16");
    let window = browser.window();
    window.open(&counter.url()); // with the waits that a reader has
    window.wait_until(LIVE);

    for count in ["1016", "3"] {
        counter.stop();
        window.wait_until(RECONNECTING);
        fs::write(counter.folder.join("db.txt"), count).expect("db.txt");
        counter.restart();
        window.wait_until(LIVE);
        window.wait_until(&shows(if count == "3" { "3" } else { "1,016" }));
    }
    assert_eq!(window.text(STATUS), "Live");
}

fn the_tutorial_s_page_works_unmodified(browser: &Browser) {
    let counter = Counter::with_page("16", TUTORIAL);
    let url = counter.url().replace("127.0.0.1", "localhost");
    let (one, other) = (browser.window(), browser.window());
    // The page shows the answers to its requests whenever they come, also after a newer count.
    let answered = |window: &Window, answers: u32| window.wait_until(&format!("answered === {answers}"));
    for window in [&one, &other] {
        window.before_each_page(
            "globalThis.answered = 0;
             const { json } = Response.prototype;
             Response.prototype.json = function () {
               const body = json.call(this);
               body.then(() => { answered += 1; });
               return body;
             };",
        );
        window.open(&url);
        window.wait_until(&shows("16"));
        answered(window, 1);
        window.evaluate("opened");
    }

    one.click("#http");
    one.wait_until(&shows("17"));
    other.wait_until(&shows("17"));
    answered(&one, 2);

    other.click("#ws");
    one.wait_until(&shows("18"));
    other.wait_until(&shows("18"));

    assert_eq!(counter.likes().count(), 18);
    assert_eq!(one.complaints(), [""; 0]);
}

fn without_javascript_it_shows_the_count_and_likes_by_a_form(browser: &Browser) {
    let counter = Counter::start("1041");
    counter.likes().like().expect("a like");
    let window = browser.window();
    window.allow_scripts(false);
    window.open(&counter.url());

    assert_eq!(window.text(COUNT), "1,042");
    assert_eq!(window.text(STATUS), "", "nothing will ever connect");
    assert!(window.text("noscript").contains("reload the page"), "{}", window.text("noscript"));
    window.click_and_load(BUTTON);
    assert_eq!((window.text(COUNT).as_str(), counter.likes().count()), ("1,043", 1043));
    assert_eq!(window.evaluate("location.pathname"), "/");
}

fn the_page_breaks_no_content_policy_and_has_nothing_to_complain_of(browser: &Browser) {
    let counter = Counter::start("16");
    let window = browser.window();
    window.open(&counter.url());
    let policy = "fetch('/').then((answer) => answer.headers.get('Content-Security-Policy'))";
    assert!(window.evaluate(policy).as_str().is_some_and(|policy| policy.contains("default-src 'none'")));
    window.wait_until(LIVE);
    window.prefer(&[("prefers-color-scheme", "dark")]);
    window.click(BUTTON);
    window.wait_until(&shows("17"));

    assert_eq!(window.complaints(), [""; 0]);
    // The browser notes a fetch once its body has come, which may be after its head was read.
    window.evaluate(
        "new Promise((done) => new PerformanceObserver(() => done(1)).observe({ type: 'resource', buffered: true }))",
    );
    let fetched = "performance.getEntriesByType('resource').map((entry) => entry.name).join(' ')";
    let fetched = window.evaluate(fetched);
    let own = ["", "favicon.ico", "live-likes.js"].map(|name| counter.url() + name);
    for address in fetched.as_str().expect("addresses").split(' ') {
        assert!(own.iter().any(|own| own == address), "{address}");
    }
}

fn a_storm_is_announced_politely_and_ends_at_the_exact_count(browser: &Browser) {
    const LIKES: u64 = 2_000;
    let counter = Counter::start("16");
    let window = browser.window();
    window.open(&counter.url());
    window.wait_until(LIVE);
    let region = "document.querySelector('[aria-live=polite]')";
    assert_eq!(window.evaluate(&format!("{region}.textContent")), "", "the reader reads the page as it is");
    window.evaluate(&format!(
        "let said = 0;
         const counting = new MutationObserver((changes) => {{ said += changes.length; }});
         counting.observe({region}, {{ childList: true }});"
    ));

    let began = Instant::now();
    let likes = counter.likes();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..LIKES / 4 {
                    likes.like().expect("a like");
                }
            });
        }
    });
    window.wait_until(&shows("2,016"));
    window.wait_until(&format!("{region}.textContent === '2,016 likes'"));

    let took = began.elapsed().as_secs();
    let said = window.evaluate("said").as_u64().expect("a number");
    assert!(said <= 2 + took / 4, "{said} announcements in {took} s");
}

in_each_browser! {
    a_click_in_one_window_shows_the_count_in_both
    the_page_reconnects_after_the_server_restarts_and_shows_the_right_count
    the_tutorial_s_page_works_unmodified
    a_storm_is_announced_politely_and_ends_at_the_exact_count
}

in_chromium! {
    without_javascript_it_shows_the_count_and_likes_by_a_form
    the_page_breaks_no_content_policy_and_has_nothing_to_complain_of
}

/// The condition that the page shows this count.
fn shows(count: &str) -> String {
    format!("document.querySelector('#numLikes').innerText === '{count}'")
}

/// The condition that the page says so of how many are watching.
fn says_watching(words: &str) -> String {
    format!("document.querySelector('{WATCHING}').innerText === '{words}'")
}

/// The real server on a free port of its own, with a `db.txt` of its own.
struct Counter {
    folder: PathBuf,
    page: Option<PathBuf>,
    in_database: bool,
    limits: Limits,
    reserved: Reserved,
    likes: Option<Likes>,
    stop: Box<dyn Fn()>,
    running: Option<JoinHandle<()>>,
}

impl Counter {
    fn start(count: &str) -> Counter {
        Counter::open(count, None)
    }

    /// Serves a page of the user's own, in which the tutorial's port 3000 becomes the test's.
    fn with_page(count: &str, page: &str) -> Counter {
        Counter::open(count, Some(page))
    }

    fn open(count: &str, page: Option<&str>) -> Counter {
        static OPENED: AtomicU32 = AtomicU32::new(0);
        let number = OPENED.fetch_add(1, Ordering::Relaxed);
        let folder = env::temp_dir().join(format!("live-likes-browser-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("db.txt"), count).expect("db.txt");

        let reserved = Reserved::new();
        let page = page.map(|page| {
            let file = folder.join("page.html");
            fs::write(&file, page.replace("localhost:3000", &format!("localhost:{}", reserved.addr.port())))
                .expect("the page");
            file
        });
        let (in_database, limits, stop) = (false, Limits::default(), Box::new(|| ()));
        let mut counter = Counter { folder, page, in_database, limits, reserved, likes: None, stop, running: None };
        counter.restart();
        counter
    }

    /// The same, with a database in place of `db.txt`.
    #[cfg(feature = "sqlite")]
    fn start_database() -> Counter {
        let mut counter = Counter::start("0");
        counter.stop();
        counter.in_database = true;
        counter.restart();
        counter
    }

    fn addr(&self) -> SocketAddr {
        self.reserved.addr
    }

    fn url(&self) -> String {
        format!("http://{}/", self.reserved.addr)
    }

    fn likes(&self) -> &Likes {
        self.likes.as_ref().expect("the server runs")
    }

    /// Stops the server and lets go of its `db.txt`.
    fn stop(&mut self) {
        (self.stop)();
        if let Some(running) = self.running.take() {
            running.join().expect("the server ends well");
        }
        // A connection's thread may have the counter for a moment longer.
        self.likes.take().expect("the server runs").close(DEADLINE).expect("the counter closes");
    }

    /// Starts the server, on its port.
    fn restart(&mut self) {
        let file = self.folder.join(if self.in_database { "likes.db" } else { "db.txt" });
        let store = live_likes::open_store(file, StoreLimits::default()).expect("the store opens");
        let likes = Likes::with_store(store).expect("the store opens");
        let mut server = Server::new(likes.clone()).limits(self.limits.clone());
        if let Some(page) = &self.page {
            server = server.page(Page::open(page).expect("the page opens"));
        }
        let listening = server.bind(self.reserved.addr).expect("the port is free");
        self.likes = Some(likes);
        let handle = listening.handle();
        self.stop = Box::new(move || handle.stop());
        self.running = Some(thread::spawn(move || listening.run().expect("the server runs")));
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        (self.stop)();
        if let Some(running) = self.running.take() {
            let _ = running.join();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A page in the shape of the tutorial's: fixed address, inline handlers, both ways to like.
const TUTORIAL: &str = include_str!("support/tutorial.html");

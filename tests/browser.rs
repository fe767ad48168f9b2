//! The page in a real browser, against the real server: Chromium, driven over its DevTools protocol.
//!
//! Where the server behaves too well to bring about what a page must bear, a [`Puppet`] stands in.

#[path = "support/browser.rs"]
mod browser;
#[path = "support/puppet.rs"]
mod puppet;
#[path = "support/reserved.rs"]
mod reserved;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;
use std::{env, fs, process, thread};

use browser::{Browser, DEADLINE, Window};
use live_likes::{Likes, Page, Server};
use puppet::Puppet;
use reserved::Reserved;
use serde_json::json;

const BUTTON: &str = ".tweet__footer__actions__like";
const COUNT: &str = "#numLikes";
const LIKES: &str = ".tweet__footer__likes";
const STATUS: &str = ".tweet__footer__status";
const NOTE: &str = ".tweet__footer__note";

const LIVE: &str = "document.querySelector('.tweet__footer__status').dataset.state === 'live'";
const RECONNECTING: &str = "document.querySelector('.tweet__footer__status').dataset.state === 'reconnecting'";
const ENABLED: &str = "!document.querySelector('.tweet__footer__actions__like').disabled";

/// Each connection comes back at once: what is tested is that it comes back.
const NO_WAITS: &str = "Math.random = () => 0";

#[test]
#[ignore = "needs Chromium: .ci/run installs it"]
fn a_click_in_one_window_shows_the_count_in_both() {
    let counter = Counter::start("16");
    let browser = Browser::start();
    let (one, other) = (browser.window(), browser.window());
    one.open(&counter.url());
    other.open(&counter.url());
    one.wait_until(ENABLED);
    other.wait_until(ENABLED);

    one.click(BUTTON);

    one.wait_until(&shows("17"));
    other.wait_until(&shows("17"));
    assert_eq!(counter.likes().count(), 17);
    assert_eq!(one.text(BUTTON), "Liked");
    assert_eq!(other.text(BUTTON), "Like");
}

#[test]
#[ignore = "needs Chromium: .ci/run installs it"]
fn the_page_works_under_a_prefix() {
    let counter = Counter::start("16");
    let server = Server::new(counter.likes().clone()).prefix("/counter").bind("127.0.0.1:0").expect("a port");
    let (addr, handle) = (server.local_addr(), server.handle());
    let running = thread::spawn(|| server.run());
    let browser = Browser::start();
    let window = browser.window();
    window.open(&format!("http://{addr}/counter")); // which leads to /counter/
    window.wait_until(ENABLED);
    window.click(BUTTON);
    window.wait_until(&shows("17"));
    handle.stop();
    running.join().expect("no panic").expect("a good end");
}

#[test]
#[ignore = "needs Chromium: .ci/run installs it"]
fn the_button_is_disabled_once_used_and_while_there_is_no_connection() {
    let mut counter = Counter::start("16");
    let browser = Browser::start();
    let (one, other) = (browser.window(), browser.window());
    for window in [&one, &other] {
        window.before_each_page(NO_WAITS);
        window.open(&counter.url());
        window.wait_until(ENABLED);
    }

    one.click(BUTTON);
    one.wait_until(&shows("17"));
    one.click(BUTTON);
    one.evaluate("likeTweetWs()");
    other.wait_until(&shows("17"));
    other.press("Tab", 9);
    assert_eq!(other.evaluate("document.activeElement.className"), BUTTON[1..]);

    counter.stop();
    other.wait_until(RECONNECTING);
    assert_eq!(other.evaluate(ENABLED), false);
    assert_eq!(other.text(STATUS), "Reconnecting…");

    counter.restart();
    other.wait_until(ENABLED);
    one.wait_until(LIVE);
    assert_eq!(one.evaluate(ENABLED), false, "one like a page view, over every connection of it");
    assert_eq!(counter.likes().count(), 17);

    other.press(" ", 32); // whoever was on the button still is
    other.wait_until(&shows("18"));
}

#[test]
#[ignore = "needs Chromium: .ci/run installs it"]
fn the_page_reconnects_after_the_server_restarts_and_shows_the_right_count() {
    let mut counter = Counter::start("16");
    let browser = Browser::start();
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

#[test]
#[ignore = "needs Chromium: .ci/run installs it"]
fn the_waits_between_attempts_double_up_to_thirty_seconds() {
    let puppet = Puppet::start();
    let browser = Browser::start();
    let window = browser.window();
    // Two fifths of each longest wait, written down and cut short. The page's other timers (10 s of
    // patience, 4 s of hush) stay as they are.
    window.before_each_page(
        "Math.random = () => 0.4;
         const real = setTimeout, waits = [];
         setTimeout = (run, wait) => {
           if (wait === 10_000 || wait === 4_000) return real(run, wait);
           waits.push(wait);
           return waits.length < 8 ? real(run, 0) : 0;
         };",
    );
    window.open(&puppet.url());
    for _ in 0..8 {
        puppet.next(); // and dropped, before it has said anything
    }
    window.wait_until("waits.length === 8");
    assert_eq!(window.evaluate("waits.join()"), "800,1600,3200,6400,12000,12000,12000,12000");
    assert_eq!(window.evaluate(RECONNECTING), true);

    window.evaluate("dispatchEvent(new Event('online'))");
    let mut connection = puppet.next();
    connection.say("17");
    window.wait_until(&shows("17"));
}

#[test]
#[ignore = "needs Chromium: .ci/run installs it"]
fn back_online_it_reconnects_at_once_and_only_its_newest_connection_counts() {
    let puppet = Puppet::start();
    let browser = Browser::start();
    let window = browser.window();
    window.open(&puppet.url());
    let mut first = puppet.next();
    first.say("16");
    window.wait_until(LIVE);

    window.evaluate("const replaced = socket; dispatchEvent(new Event('online'))");
    let mut second = puppet.next();
    let _ = first.socket.send("900".into()); // perhaps the page has let go of it already
    first.wait_for_its_end();
    second.say("17");
    window.wait_until(LIVE);
    window.wait_until(&shows("17"));
    window.evaluate("replaced.readyState === 3 || new Promise((done) => replaced.addEventListener('close', done))");
    assert_eq!(window.evaluate(LIVE), true, "its end is no loss");

    // Hidden, it lost its connection and is to wait; shown, it does not.
    window.evaluate("Math.random = () => 1_000_000");
    second.shut(1001);
    window.wait_until(RECONNECTING);
    window.evaluate("document.dispatchEvent(new Event('visibilitychange'))");
    let mut third = puppet.next();
    third.say("18");
    window.wait_until(&shows("18"));
    assert!(puppet.connections.try_recv().is_err(), "one connection at a time");
}

#[test]
#[ignore = "needs Chromium: .ci/run installs it"]
fn a_connection_that_leaves_the_page_waiting_is_given_up() {
    let puppet = Puppet::start();
    let browser = Browser::start();
    let window = browser.window();
    window.before_each_page(NO_WAITS);
    // The page's patience ends when the test says so.
    window.before_each_page(
        "const later = setTimeout, never = clearTimeout, patience = new Map();
         let given = 0;
         setTimeout = (run, wait) => {
           if (wait !== 10_000) return later(run, wait);
           given -= 1;
           patience.set(given, run);
           return given;
         };
         clearTimeout = (timer) => patience.delete(timer) || never(timer);
         const tenSecondsPass = () => {
           const over = [...patience.values()];
           patience.clear();
           over.forEach((run) => run());
           return over.length;
         };",
    );
    window.open(&puppet.url());
    let mut mute = puppet.next(); // never says a count
    assert_eq!(window.evaluate("tenSecondsPass()"), 1);
    let mut deaf = puppet.next();
    mute.wait_for_its_end();
    deaf.say("16");
    window.wait_until(ENABLED);
    assert_eq!(window.evaluate("tenSecondsPass()"), 0, "it was answered");
    window.click(BUTTON); // never answered
    assert_eq!(deaf.hear(), r#"{"type":"like"}"#);
    assert_eq!(window.evaluate("tenSecondsPass()"), 1);

    let mut connection = puppet.next();
    deaf.wait_for_its_end();
    connection.say("16");
    window.wait_until(ENABLED);
    assert!(window.text(NOTE).contains("Please like again."));
    assert_eq!(window.evaluate("tenSecondsPass()"), 0, "all is well: no timer is left");
    assert_eq!(window.evaluate(LIVE), true);
    assert!(puppet.connections.try_recv().is_err(), "one connection at a time");
}

#[test]
#[ignore = "needs Chromium: .ci/run installs it"]
fn a_like_that_may_be_lost_with_its_connection_is_told_and_can_be_given_again() {
    let puppet = Puppet::start();
    let browser = Browser::start();
    let window = browser.window();
    window.before_each_page(NO_WAITS);
    window.open(&puppet.url());

    let mut connection = puppet.next();
    connection.say("16");
    window.wait_until(ENABLED);
    window.click(BUTTON);
    assert_eq!(connection.hear(), r#"{"type":"like"}"#);
    assert_eq!(window.evaluate(ENABLED), false);
    drop(connection);

    let mut connection = puppet.next();
    connection.say("16");
    window.wait_until(ENABLED);
    assert_eq!(window.text(NOTE), "The connection dropped before your like was confirmed. Please like again.");
    assert_eq!(window.text(COUNT), "16");
    window.click(BUTTON);
    assert_eq!(connection.hear(), r#"{"type":"like"}"#);
    assert_eq!(window.text(NOTE), "");
    drop(connection);

    let mut connection = puppet.next();
    connection.say("17"); // it did arrive
    window.wait_until(&shows("17"));
    window.wait_until(LIVE);
    assert_eq!((window.text(BUTTON), window.text(NOTE)), ("Liked".into(), "".into()));
    assert_eq!(window.evaluate(ENABLED), false);
}

#[test]
#[ignore = "needs Chromium: .ci/run installs it"]
fn a_like_that_the_server_refuses_is_told_and_can_be_given_again() {
    let puppet = Puppet::start();
    let browser = Browser::start();
    let window = browser.window();
    window.before_each_page(NO_WAITS);
    window.open(&puppet.url());
    let mut connection = puppet.next();
    connection.say("16");

    for (code, note) in [
        (1013, "Likes cannot be saved just now. Please try again in a while."),
        (1008, "The server did not take that like. Please try again in a moment."),
    ] {
        window.wait_until(ENABLED);
        window.click(BUTTON);
        connection.hear();
        connection.shut(code);
        connection = puppet.next();
        connection.say("17"); // somebody else's like: it does not confirm the one refused
        window.wait_until(ENABLED);
        assert_eq!((window.text(NOTE), window.text(BUTTON)), (note.into(), "Like".into()), "{code}");
    }
}

#[test]
#[ignore = "needs Chromium: .ci/run installs it"]
fn the_tutorial_s_page_works_unmodified() {
    let counter = Counter::with_page("16", TUTORIAL);
    let url = counter.url().replace("127.0.0.1", "localhost");
    let browser = Browser::start();
    let (one, other) = (browser.window(), browser.window());
    // The page shows the answers to its requests whenever they come, also after a newer count.
    let answered = |window: &Window, answers: u32| window.wait_until(&format!("answered === {answers}"));
    for window in [&one, &other] {
        window.before_each_page(
            "let answered = 0;
             const json = Response.prototype.json;
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
    let complaints = one.complaints();
    assert!(complaints.iter().all(|complaint| complaint.contains("/favicon.ico")), "{complaints:?}");
}

#[test]
#[ignore = "needs Chromium: .ci/run installs it"]
fn without_javascript_it_still_shows_the_count() {
    let counter = Counter::start("41");
    counter.likes().like().expect("a like");
    let browser = Browser::start();
    let window = browser.window();
    window.call("Emulation.setScriptExecutionDisabled", json!({ "value": true }));
    window.open(&counter.url());

    assert_eq!(window.text(COUNT), "42");
    assert_eq!(window.text(STATUS), "", "nothing will ever connect");
    assert_eq!(window.evaluate(ENABLED), false);
    assert!(window.text("noscript").contains("reload the page"), "{}", window.text("noscript"));
}

#[test]
#[ignore = "needs Chromium: .ci/run installs it"]
fn the_page_breaks_no_content_policy_and_has_nothing_to_complain_of() {
    let counter = Counter::start("16");
    let browser = Browser::start();
    let window = browser.window();
    window.open(&counter.url());
    let policy = "fetch('/').then((answer) => answer.headers.get('Content-Security-Policy'))";
    assert!(window.evaluate(policy).as_str().is_some_and(|policy| policy.contains("default-src 'none'")));
    window.wait_until(ENABLED);
    window.prefer(&[("prefers-color-scheme", "dark")]);
    window.click(BUTTON);
    window.wait_until(&shows("17"));

    assert_eq!(window.complaints(), [""; 0]);
    // The browser notes a fetch once its body has come, which may be after its head was read.
    window.evaluate(
        "new Promise((done) => new PerformanceObserver(() => done(1)).observe({ type: 'resource', buffered: true }))",
    );
    let fetched = "performance.getEntriesByType('resource').map((entry) => entry.name).join(' ')";
    assert_eq!(window.evaluate(fetched), counter.url(), "only what this test fetched");
}

#[test]
#[ignore = "needs Chromium: .ci/run installs it"]
fn a_storm_is_announced_politely_and_ends_at_the_exact_count() {
    const LIKES: u64 = 2_000;
    let counter = Counter::start("16");
    let browser = Browser::start();
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

#[test]
#[ignore = "needs Chromium: .ci/run installs it"]
fn counts_that_come_faster_than_frames_are_written_once_a_frame() {
    let counter = Counter::start("16");
    let browser = Browser::start();
    let window = browser.window();
    window.open(&counter.url());
    window.wait_until(LIVE);
    let written = window.evaluate(&format!(
        "let writes = 0;
         const watcher = new MutationObserver((changes) => {{ writes += changes.length; }});
         watcher.observe(document.querySelector('{COUNT}'), {{ childList: true }});
         for (let count = 17; count <= 1_016; count++) updateLikeCount(`${{count}}`);
         new Promise(requestAnimationFrame).then(() => writes)"
    ));
    assert_eq!(written, 1);
    assert_eq!(window.text(COUNT), "1,016");
}

#[test]
#[ignore = "needs Chromium: .ci/run installs it"]
fn every_digit_of_the_largest_count_is_shown() {
    let counter = Counter::start("18446744073709551614");
    let browser = Browser::start();
    let window = browser.window();
    window.open(&counter.url());
    window.wait_until(ENABLED);
    assert_eq!(window.text(LIKES), "18,446,744,073,709,551,614 likes");
    window.click(BUTTON);
    window.wait_until(&shows("18,446,744,073,709,551,615"));

    let counter = Counter::start("0");
    window.open(&counter.url());
    window.wait_until(ENABLED);
    assert_eq!(window.text(LIKES), "0 likes");
    window.click(BUTTON);
    window.wait_until(&shows("1"));
    assert_eq!(window.text(LIKES), "1 like");
}

#[test]
#[ignore = "needs Chromium: .ci/run installs it"]
fn what_is_not_a_bare_decimal_is_not_shown() {
    let counter = Counter::start("16");
    let browser = Browser::start();
    let window = browser.window();
    window.open(&counter.url());
    window.wait_until(LIVE);
    let after_a_frame = "new Promise(requestAnimationFrame).then(() => document.querySelector('#numLikes').innerText)";
    for junk in [
        "''",
        "'NaN'",
        "'-1'",
        "'1e3'",
        "'1.5'",
        "' 17'",
        "'17\\n'",
        "'0x11'",
        "'<b>17</b>'",
        "'9'.repeat(21)",
        "null",
        "{}",
        "[]",
    ] {
        window.evaluate(&format!("updateLikeCount({junk})"));
        assert_eq!(window.evaluate(after_a_frame), "16", "{junk}");
    }
    window.evaluate("updateLikeCount('17')");
    assert_eq!(window.evaluate(after_a_frame), "17");
}

#[test]
#[ignore = "needs Chromium: .ci/run installs it"]
fn a_phone_of_320_pixels_never_scrolls_sideways() {
    let mut counter = Counter::start("18446744073709551615");
    let browser = Browser::start();
    let window = browser.window();
    window.resize(320, 568, 2.0);
    window.open(&counter.url());
    window.wait_until(LIVE);
    let fits = |when: &str| {
        let widest =
            "Math.max(...[...document.querySelectorAll('main *')].map((part) => part.getBoundingClientRect().right))";
        assert_eq!(window.evaluate("document.documentElement.scrollWidth"), 320, "{when}");
        assert!(window.evaluate(widest).as_f64().is_some_and(|right| right <= 320.0), "{when}");
    };
    fits("with the largest count");
    counter.stop();
    window.wait_until(RECONNECTING);
    fits("reconnecting");
    window.evaluate(&format!(
        "document.querySelector('{NOTE}').textContent = 'Likes cannot be saved just now. '.repeat(4)"
    ));
    fits("with a note");
}

#[test]
#[ignore = "needs Chromium: .ci/run installs it"]
fn text_can_be_read_in_both_colour_schemes_and_nothing_moves_for_who_wants_it_still() {
    let mut counter = Counter::start("16");
    let browser = Browser::start();
    let (liked, other) = (browser.window(), browser.window());
    for window in [&liked, &other] {
        window.prefer(&[("prefers-reduced-motion", "reduce")]); // no colour is on its way to another
        window.open(&counter.url());
        window.wait_until(ENABLED);
    }
    let look = |window: &Window, when: &str| {
        for scheme in ["light", "dark"] {
            window.prefer(&[("prefers-color-scheme", scheme), ("prefers-reduced-motion", "reduce")]);
            let faint = window.evaluate(FAINT_TEXTS);
            assert_eq!(faint.as_str(), Some(""), "{when}, {scheme}");
            assert_eq!(window.evaluate("document.getAnimations().length"), 0, "{when}, {scheme}");
        }
    };

    look(&other, "to be liked");
    liked.click(BUTTON);
    liked.wait_until(&shows("17"));
    look(&liked, "liked");
    counter.stop();
    for (window, when) in [(&liked, "liked, reconnecting"), (&other, "reconnecting")] {
        window.wait_until(RECONNECTING);
        window.evaluate(&format!("document.querySelector('{NOTE}').textContent = 'Please try again.'"));
        look(window, when);
    }
}

/// Two readers of the page, one of whom has just liked it. The picture is written to the file that
/// `$SCREENSHOT` names, if it is set:
/// `SCREENSHOT=docs/screenshot.png cargo test --test browser -- --ignored picture`.
#[test]
#[ignore = "needs Chromium: .ci/run installs it"]
fn the_picture_for_the_readme_can_be_taken() {
    let counter = Counter::start("1233");
    let browser = Browser::start();
    let window = browser.window();
    window.resize(960, 412, 1.5);
    window.prefer(&[("prefers-color-scheme", "light"), ("prefers-reduced-motion", "reduce")]);
    window.call("Page.setBypassCSP", json!({ "enabled": true })); // for the style of TWO_WINDOWS
    let clear = json!({ "color": { "r": 0, "g": 0, "b": 0, "a": 0 } });
    window.call("Emulation.setDefaultBackgroundColorOverride", clear);
    window.open(&format!("{}likes", counter.url()));
    window.evaluate(&format!("document.documentElement.innerHTML = `{TWO_WINDOWS}`"));
    let both = |condition: &str| {
        window.evaluate(&format!(
            "Promise.all([frames[0], frames[1]].map((frame) => new Promise((done) => {{
               const holds = (document) => document.URL !== 'about:blank'
                 && document.readyState === 'complete' && {condition};
               const look = () => (holds(frame.document) ? done() : requestAnimationFrame(look));
               look();
             }})))"
        ));
    };
    both(ENABLED);
    window.evaluate(&format!("frames[0].document.querySelector('{BUTTON}').click()"));
    both(&shows("1,234"));
    window.evaluate("new Promise(requestAnimationFrame)");
    let picture = window.picture();
    assert!(picture.len() * 3 / 4 < 150 * 1024, "{} bytes are too many for a README", picture.len() * 3 / 4);
    if let Some(file) = env::var_os("SCREENSHOT") {
        use base64::Engine;
        let bytes = base64::engine::general_purpose::STANDARD.decode(picture).expect("base64");
        fs::write(file, bytes).expect("the picture is written");
    }
}

/// The condition that the page shows this count.
fn shows(count: &str) -> String {
    format!("document.querySelector('#numLikes').innerText === '{count}'")
}

/// The real server on a free port of its own, with a `db.txt` of its own.
struct Counter {
    folder: PathBuf,
    page: Option<PathBuf>,
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
        let folder = env::temp_dir().join(format!("live-likes-browser-{}-{number}", process::id()));
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
        let mut counter = Counter { folder, page, reserved, likes: None, stop: Box::new(|| ()), running: None };
        counter.restart();
        counter
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
        let likes = Likes::open(self.folder.join("db.txt")).expect("db.txt opens");
        let mut server = Server::new(likes.clone());
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

/// The texts whose contrast with what is behind them is below 4.5 (WCAG 2.2, 1.4.3).
const FAINT_TEXTS: &str = r"(() => {
  const channels = (colour) => colour.match(/[\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => {
    const linear = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  };
  const behind = (part) => {
    const colour = channels(getComputedStyle(part).backgroundColor);
    if (colour.length === 3) return colour;
    if (colour[3] !== 0) throw new Error('a translucent background: this check knows only opaque ones');
    return behind(part.parentElement);
  };
  const faint = [];
  const texts = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const part = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !part.checkVisibility() || part.closest('[aria-live=polite]')) continue;
    const [a, b] = [channels(getComputedStyle(part).color), behind(part)].map(luminance);
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) faint.push(`${texts.currentNode.data.trim()}: ${contrast.toFixed(2)}`);
  }
  return faint.join();
})()";

/// Two frames of the real page, drawn as two windows of a browser.
const TWO_WINDOWS: &str = "
<head>
<style>
  body { display: flex; gap: 20px; margin: 0; padding: 10px 20px 30px; background: none; }
  div { flex: 1; overflow: hidden; border-radius: 12px; background: #dfe2ea; }
  div { box-shadow: 0 0 0 1px #c9cdd8, 0 6px 16px #171a2330; }
  p { margin: 0; padding: 0 16px; font: 26px/32px sans-serif; color: #aab0bf; }
  iframe { display: block; width: 100%; height: 340px; border: 0; }
</style>
</head>
<body>
  <div><p>● ● ●</p><iframe src='/'></iframe></div>
  <div><p>● ● ●</p><iframe src='/'></iframe></div>
</body>";

/// A page in the shape of the tutorial's: fixed address, inline handlers, both ways to like.
const TUTORIAL: &str = include_str!("support/tutorial.html");

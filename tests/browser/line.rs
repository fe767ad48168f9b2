//! The line to the server: "Live" is said of one that answers, and a page goes on trying where there is none.

use crate::puppet::{Answers, Puppet};
use crate::{
    BUTTON, Browser, CLOCK, Counter, LIVE, NO_WAITS, NOTE, RECONNECTING, STATUS, WATCHING, Window, likes::says,
    relay::Relay, says_watching, shows,
};
use live_likes::Server;
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

const OFFLINE: &str = "document.querySelector('.tweet__footer__status').dataset.state === 'offline'";

in_each_browser! {
    a_silent_line_is_pinged_after_25_seconds_and_given_up_after_ten_more
    pages_say_how_many_are_watching_while_they_are_live
    a_server_that_tells_how_many_are_watching_is_asked_again_after_25_seconds
    a_connection_that_never_brings_a_count_is_given_up
    a_page_that_is_seen_again_or_back_online_asks_at_once
    a_page_without_a_network_says_so_at_once
    a_full_server_is_told_of_until_it_has_room
    a_page_that_the_browser_kept_is_live_again
    a_page_that_was_kept_without_a_connection_makes_one_at_once
    #[cfg(feature = "cli")] a_frozen_server_is_not_called_live
    the_waits_between_attempts_double_up_to_thirty_seconds
    without_a_websocket_the_count_comes_over_http_with_the_reason
    the_page_works_at_a_path_of_a_proxy
    a_proxy_that_changes_the_host_is_told_of
    without_websockets_the_page_is_live_by_events_and_likes_by_http
    the_page_works_under_a_prefix
    a_page_from_a_file_says_where_it_works
}

in_chromium! {
    the_form_works_at_a_path_of_a_proxy
}

fn a_silent_line_is_pinged_after_25_seconds_and_given_up_after_ten_more(browser: &Browser) {
    let puppet = Puppet::start();
    let window = browser.window();
    window.before_each_page(CLOCK);
    window.before_each_page(NO_WAITS);
    window.before_each_page(
        "{
           const { send } = WebSocket.prototype;
           globalThis.said = [];
           WebSocket.prototype.send = function (text) { said.push(JSON.parse(text).type); send.call(this, text); };
         }",
    );
    window.open(&puppet.url());
    let mut connection = puppet.next_joined("a", 16, None);
    window.wait_until(LIVE);

    window.evaluate("pass(20)");
    connection.say(&json!({ "type": "count", "numLikes": 17, "version": 17 }));
    window.wait_until(&shows("17"));
    window.evaluate("pass(24)"); // no silence of 25 s as yet
    connection.say(&json!({ "type": "count", "numLikes": 18, "version": 18 }));
    window.wait_until(&shows("18"));
    assert_eq!(window.evaluate("said.join()"), "watch", "nothing was asked");
    window.evaluate("pass(26)");
    connection.answer_ping();
    connection.say(&json!({ "type": "count", "numLikes": 19, "version": 19 }));
    window.wait_until(&shows("19"));
    window.evaluate("pass(20)");
    assert_eq!(window.evaluate(LIVE), true, "it was answered");
    window.evaluate("pass(6)");
    assert_eq!(connection.hear(), json!({ "type": "ping" }));
    assert_eq!(window.evaluate(LIVE), true);
    connection.say(&json!({ "type": "count", "numLikes": 20, "version": 20 })); // which is no answer
    window.wait_until(&shows("20"));
    window.evaluate("pass(11)");
    assert_eq!(window.evaluate(RECONNECTING), true);
    connection.wait_for_its_end();
    let _held = puppet.next_joined("a", 19, None);
    window.wait_until(LIVE);
}

fn pages_say_how_many_are_watching_while_they_are_live(browser: &Browser) {
    let mut counter = Counter::start("16");
    let (one, other) = (browser.window(), browser.window());
    for window in [&one, &other] {
        window.before_each_page(CLOCK);
        window.before_each_page(NO_WAITS);
    }
    one.open(&counter.url());
    one.wait_until(&says_watching("1 watching"));
    other.open(&counter.url());
    other.wait_until(&says_watching("2 watching"));
    one.evaluate("pass(26)");
    one.wait_until(&says_watching("2 watching"));
    other.open(&format!("{}likes", counter.url()));
    one.evaluate(&pass_until(&says_watching("1 watching")));
    assert_eq!(
        one.evaluate(&format!("document.querySelector('{WATCHING}').closest('[role], [aria-live]')")),
        json!(null)
    );

    counter.stop();
    one.wait_until(RECONNECTING);
    assert_eq!(one.text(WATCHING), "");
    counter.restart();
    one.wait_until(LIVE);
    one.evaluate(&pass_until(&says_watching("1 watching"))); // an attempt that was given up may count for a moment
    one.evaluate("sleep(46); document.dispatchEvent(new Event('visibilitychange'))");
    one.wait_until(&says_watching("1 watching"));
}

fn a_server_that_tells_how_many_are_watching_is_asked_again_after_25_seconds(browser: &Browser) {
    let puppet = Puppet::start();
    let window = browser.window();
    window.before_each_page(CLOCK);
    window.before_each_page(NO_WAITS);
    window.open(&puppet.url());
    let mut connection = puppet.next();
    assert_eq!(connection.hear()["watching"], true);
    connection.say(&json!({ "type": "count", "numLikes": 16, "version": 16, "boot": "a" }));
    window.wait_until(LIVE);
    assert_eq!(window.text(WATCHING), "");
    connection.say(&json!({ "type": "watching", "watching": 1234 }));
    window.wait_until(&says_watching("1,234 watching"));
    window.evaluate("pass(20)");
    connection.say(&json!({ "type": "count", "numLikes": 17, "version": 17 }));
    window.wait_until(&shows("17"));
    window.evaluate("pass(6)"); // of how many watch nothing was heard for 25 s
    let ask = json!({ "type": "ping", "watching": true });
    assert_eq!(connection.hear(), ask);
    connection.say(&json!({ "type": "pong", "watching": 1234567 }));
    window.wait_until(&says_watching("1.234M watching"));

    // Of a line that may be dead nothing is said.
    window.evaluate("sleep(46); document.dispatchEvent(new Event('visibilitychange'))");
    assert_eq!(window.evaluate(RECONNECTING), true);
    assert_eq!(window.text(WATCHING), "");
    assert_eq!(connection.hear(), ask);
    connection.say(&json!({ "type": "pong" }));
    window.wait_until(LIVE);
    assert_eq!(window.text(WATCHING), "", "the server does not tell any more");
    window.evaluate("pass(26)");
    connection.answer_ping();
    connection.say(&json!({ "type": "count", "numLikes": 18, "version": 18 }));
    window.wait_until(&shows("18"));
    window.evaluate("pass(26)");
    assert_eq!(connection.hear(), json!({ "type": "ping" }));
    window.evaluate("pass(11)");
    assert_eq!(window.evaluate(RECONNECTING), true, "no answer");
}

fn a_connection_that_never_brings_a_count_is_given_up(browser: &Browser) {
    let puppet = Puppet::start();
    let window = browser.window();
    window.before_each_page(CLOCK);
    window.before_each_page(NO_WAITS);
    window.open(&puppet.url());
    let mut mute = puppet.next_watching();
    window.evaluate("pass(11)");
    let mut refusing = puppet.next_watching();
    mute.wait_for_its_end();
    refusing.say(&json!({ "type": "refused", "status": 503, "problem": "likes cannot be read just now" }));
    window.wait_until("document.querySelector('.tweet__footer__note').textContent !== ''");
    assert_eq!(window.text(NOTE), "Likes cannot be read just now.");
    assert_eq!(window.evaluate(LIVE), false);
    window.evaluate("pass(26)");
    assert_eq!(refusing.hear()["type"], "watch", "once more");
    refusing.answer_ping();
    refusing.say(&json!({ "type": "count", "numLikes": 17, "version": 17, "boot": "a" }));
    window.wait_until(LIVE);
    assert_eq!(window.text(NOTE), "");
    window.evaluate("pass(11)");
    assert_eq!(window.evaluate(LIVE), true, "nothing is waited for any more");
    assert!(puppet.connections.try_recv().is_err(), "one connection at a time");
}

fn a_page_that_is_seen_again_or_back_online_asks_at_once(browser: &Browser) {
    let puppet = Puppet::start();
    let window = browser.window();
    window.before_each_page(CLOCK);
    window.before_each_page(NO_WAITS);
    window.open(&puppet.url());
    let mut connection = puppet.next_joined("a", 16, None);
    window.wait_until(LIVE);
    let mut count = 16;
    for event in [
        "document.dispatchEvent(new Event('visibilitychange'))",
        "dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))",
        "dispatchEvent(new Event('online'))",
    ] {
        window.evaluate(event);
        assert_eq!(window.evaluate(LIVE), true, "{event}, without a silence");
        connection.answer_ping();
        count += 1;
        connection.say(&json!({ "type": "count", "numLikes": count, "version": count }));
        window.wait_until(&shows(&count.to_string())); // and so the pong has been heard

        window.evaluate("sleep(46)");
        window.evaluate(event);
        assert_eq!(window.evaluate(RECONNECTING), true, "{event}, after a silence");
        count += 1;
        connection.say(&json!({ "type": "count", "numLikes": count, "version": count })); // held up meanwhile
        window.wait_until(&shows(&count.to_string()));
        assert_eq!(window.evaluate(RECONNECTING), true, "{event}, before the pong");
        connection.answer_ping();
        window.wait_until(LIVE);

        window.evaluate("sleep(46)");
        window.evaluate(event);
        window.evaluate("pass(11)");
        connection.wait_for_its_end();
        connection = puppet.next_joined("a", count, None);
        window.wait_until(LIVE);
    }

    // Without a connection the wait is cut short.
    window.evaluate("Math.random = () => 1_000");
    connection.shut(1001);
    window.wait_until(RECONNECTING);
    window.evaluate("document.dispatchEvent(new Event('visibilitychange'))");
    let mut opening = puppet.next();
    // What was being opened on the last network has no say any more.
    window.evaluate("dispatchEvent(new Event('online'))");
    let mut newest = puppet.next_joined("a", 30, None);
    opening.wait_for_its_end();
    window.wait_until(LIVE);
    window.wait_until(&shows("30"));
    newest.say(&json!({ "type": "count", "numLikes": 31, "version": 31 }));
    window.wait_until(&shows("31"));
    assert!(puppet.connections.try_recv().is_err(), "one connection at a time");
}

fn a_page_without_a_network_says_so_at_once(browser: &Browser) {
    let counter = Counter::start("16");
    let window = browser.window();
    window.before_each_page(NO_WAITS);
    window.open(&counter.url());
    window.wait_until(LIVE);
    window.go_offline(true);
    window.wait_until(OFFLINE);
    assert_eq!(window.text(STATUS), "Offline");
    window.go_offline(false);
    window.wait_until(LIVE);
}

fn a_page_that_the_browser_kept_is_live_again(browser: &Browser) {
    let counter = Counter::start("16");
    let window = browser.window();
    window.open(&counter.url());
    window.wait_until(LIVE);
    window.evaluate(NOTE_THE_WAY_BACK);
    window.open(&format!("{}likes", counter.url()));
    counter.likes().like().expect("a like");
    window.go_back();
    window.wait_until(&shows("17"));
    window.wait_until(LIVE);
    // Firefox keeps none that had a connection.
    assert_eq!(window.evaluate("document.title === 'true'"), browser.is_chromium());
}

fn a_full_server_is_told_of_until_it_has_room(browser: &Browser) {
    let mut counter = Counter::start("16");
    let window = browser.window();
    window.open(&counter.url());
    window.wait_until(LIVE);
    window.evaluate("Math.random = () => 1_000"); // it waits for very long
    counter.stop();
    window.wait_until(RECONNECTING);
    counter.limits.connections = 10; // a browser keeps some of its own
    counter.restart();
    let others = [(); 10].map(|()| {
        let mut other = TcpStream::connect(counter.addr()).expect("the server listens");
        other.write_all(b"GET /likes HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it reads");
        other.read_exact(&mut [0; 12]).expect("it has let the other in");
        other
    });
    window.evaluate("Math.random = () => 0.001; dispatchEvent(new Event('online'))");
    window.wait_until(&format!("document.querySelector('{NOTE}').textContent.startsWith('The server is full')"));
    assert_eq!(window.evaluate(RECONNECTING), true);
    drop(others);
    window.wait_until(&format!("{LIVE} && document.querySelector('{NOTE}').textContent === ''"));
}

fn a_page_that_was_kept_without_a_connection_makes_one_at_once(browser: &Browser) {
    let (puppet, other) = (Puppet::start(), Counter::start("1"));
    let window = browser.window();
    window.open(&puppet.url());
    let mut connection = puppet.next_joined("a", 16, None);
    window.wait_until(LIVE);
    window.evaluate(NOTE_THE_WAY_BACK);
    window.evaluate("Math.random = () => 1_000"); // it waits for very long
    connection.shut(1001);
    window.wait_until(RECONNECTING);
    window.open(&format!("{}healthz", other.url()));
    window.go_back();
    let _held = puppet.next_joined("a", 17, None);
    window.wait_until(LIVE);
    assert_eq!(window.evaluate("document.title"), "true", "it was kept");
}

const NOTE_THE_WAY_BACK: &str = "addEventListener('pageshow', ({ persisted }) => { document.title = persisted; })";

#[cfg(feature = "cli")]
fn a_frozen_server_is_not_called_live(browser: &Browser) {
    use rustix::process::Signal;
    let server = crate::process::Process::start(16, &[]);
    let window = browser.window();
    window.before_each_page(CLOCK);
    window.before_each_page(NO_WAITS);
    window.open(&format!("http://{}/", server.addr));
    window.wait_until(LIVE);
    server.signal(Signal::STOP);
    window.click(BUTTON);
    assert_eq!(window.text(BUTTON), "Liking…");
    window.evaluate("pass(11)");
    assert_eq!(window.evaluate(RECONNECTING), true);
    assert_eq!(window.text(BUTTON), "Liking…");
    server.signal(Signal::CONT);
    window.wait_until(LIVE);
    window.wait_until(&says("Liked"));
    window.wait_until(&shows("17")); // said twice, counted once
    window.wait_until(&says_watching("1 watching"));
    server.signal(Signal::STOP);
    window.evaluate("pass(26)");
    window.evaluate("pass(10)");
    assert_eq!(window.evaluate(RECONNECTING), true);
    assert_eq!(window.text(WATCHING), "");
    server.signal(Signal::CONT);
    window.wait_until(LIVE);
}

fn the_waits_between_attempts_double_up_to_thirty_seconds(browser: &Browser) {
    let puppet = Puppet::start();
    let window = browser.window();
    // Two fifths of each longest wait, written down and cut short. The page's other timers stay as they are.
    window.before_each_page(
        "{
           const later = setTimeout;
           globalThis.waits = [];
           Math.random = () => 0.4;
           globalThis.setTimeout = (run, wait) => {
             if (!wait || wait === 4_000 || wait === 10_000) return later(run, wait);
             waits.push(wait);
             return waits.length < 8 ? later(run, 0) : 0;
           };
         }",
    );
    window.open(&puppet.url());
    for _ in 0..8 {
        puppet.next(); // and dropped, before it has said anything
    }
    window.wait_until("waits.length === 8");
    assert_eq!(window.evaluate("waits.join()"), "800,1600,3200,6400,12000,12000,12000,12000");
    assert_eq!(window.evaluate(RECONNECTING), true);

    window.evaluate("dispatchEvent(new Event('online'))");
    let _held = puppet.next_joined("a", 17, None);
    window.wait_until(&shows("17"));
}

fn without_a_websocket_the_count_comes_over_http_with_the_reason(browser: &Browser) {
    let window = browser.window();
    window.before_each_page("Math.random = () => 0.001");
    for (count, (likes, like), reason) in [
        ("17", (200, 204), "No WebSocket to the server could be made."),
        ("18", (200, 403), "The server refuses pages from this address. Its log says how to allow it."),
        ("16", (403, 403), "The server refuses pages from this address. Its log says how to allow it."),
        ("16", (503, 503), "The server answered 503."),
        ("16", (502, 502), "The server answered 502."),
    ] {
        let answers = Answers { likes: (likes, count.parse().expect("a number")), like, websocket: Some(403) };
        let puppet = Puppet::start();
        puppet.answer(answers);
        window.open(&puppet.url());
        window.wait_until(&shows(count));
        window.wait_until(&format!("document.querySelector('.tweet__footer__note').textContent === '{reason}'"));
        assert_eq!(window.evaluate(LIVE), false);
        puppet.answer(Answers { websocket: None, ..answers });
        let _held = puppet.next_joined("a", 30, None);
        window.wait_until(LIVE);
        window.wait_until(&shows("30"));
        assert_eq!(window.text(NOTE), "");
    }
}

/// Where WebSockets do not get through, the counts come as an event stream and likes go by HTTP; where that does not
/// either, the count comes now and then.
fn without_websockets_the_page_is_live_by_events_and_likes_by_http(browser: &Browser) {
    let counter = Counter::start("16");
    let relay = Relay::start(counter.addr(), "", None);
    let window = browser.window();
    window.before_each_page(CLOCK);
    window.before_each_page("Math.random = () => 0.001");
    relay.block(true, false);
    window.open(&format!("http://{}/", relay.addr));
    window.evaluate(&pass_until(LIVE));
    assert_eq!(window.text(NOTE), "No WebSocket to the server could be made.");
    counter.likes().like().expect("a like");
    window.wait_until(&shows("17"));
    window.click(BUTTON);
    window.wait_until(&says("Liked"));
    window.wait_until(&shows("18"));

    relay.block(true, true);
    window.open(&format!("http://{}/", relay.addr));
    counter.likes().like().expect("a like");
    window.click(BUTTON);
    window.evaluate(&pass_until("document.querySelector('.tweet__footer__actions__like').dataset.like === 'liked'"));
    window.wait_until(&shows("20"));
    assert_eq!(window.evaluate(LIVE), false);
    relay.block(false, false);
    window.evaluate(&pass_until(LIVE));
    // Events may come through before there is a WebSocket again.
    window.evaluate("dispatchEvent(new Event('online'))");
    window.wait_until(&format!("document.querySelector('{NOTE}').textContent === ''"));
    assert_eq!(counter.likes().count(), 20);
}

/// Has the page's clock run, ten times as fast as it is, until a condition holds.
fn pass_until(condition: &str) -> String {
    format!(
        "new Promise((done) => {{
           let passed = performance.now();
           const look = () => {{
             if ({condition}) return done(true);
             if (performance.now() - passed > 100) {{
               pass(1);
               passed = performance.now();
             }}
             requestAnimationFrame(look);
           }};
           look();
         }})"
    )
}

fn the_page_works_at_a_path_of_a_proxy(browser: &Browser) {
    let counter = Counter::start("16");
    let relay = Relay::start(counter.addr(), "/counter", None);
    let window = browser.window();
    window.open(&format!("http://{}/counter/", relay.addr));
    window.wait_until(LIVE);
    window.click(BUTTON);
    window.wait_until(&shows("17"));
    window.wait_until(&says("Liked"));
    assert_eq!(window.complaints(), [""; 0]);
}

fn the_form_works_at_a_path_of_a_proxy(browser: &Browser) {
    let counter = Counter::start("16");
    let relay = Relay::start(counter.addr(), "/counter", None);
    let window = browser.window();
    let page = format!("http://{}/counter/", relay.addr);
    window.allow_scripts(false);
    window.open(&page);
    window.click_and_load(BUTTON);
    assert_eq!(window.evaluate("location.href"), page);
    assert_eq!(window.text("#numLikes"), "17");
}

fn a_proxy_that_changes_the_host_is_told_of(browser: &Browser) {
    let counter = Counter::start("1016");
    let relay = Relay::start(counter.addr(), "", Some(counter.addr().to_string()));
    let window = browser.window();
    window.before_each_page("Math.random = () => 0.001");
    window.open(&format!("http://{}/", relay.addr));
    window.wait_until("document.querySelector('.tweet__footer__note').textContent.includes('refuses pages from')");
    counter.likes().like().expect("a like");
    window.wait_until(&shows("1,017"));
    assert_eq!(window.evaluate(RECONNECTING), true);
}

fn a_page_from_a_file_says_where_it_works(browser: &Browser) {
    let window = browser.window();
    window.open(&format!("file://{}/index.html", env!("CARGO_MANIFEST_DIR")));
    window.wait_until(&format!("document.querySelector('{NOTE}').textContent.includes('http://localhost:3000/')"));
    assert_eq!(window.evaluate("document.querySelector('.tweet__footer__status')"), serde_json::Value::Null);
}

fn the_page_works_under_a_prefix(browser: &Browser) {
    let counter = Counter::start("16");
    let server = Server::new(counter.likes().clone()).prefix("/counter").bind("127.0.0.1:0").expect("a port");
    let (addr, handle) = (server.local_addr(), server.handle());
    let running = thread::spawn(|| server.run());
    let window: Window = browser.window();
    window.open(&format!("http://{addr}/counter")); // which leads to /counter/
    window.wait_until(LIVE);
    window.click(BUTTON);
    window.wait_until(&shows("17"));
    handle.stop();
    running.join().expect("no panic").expect("a good end");
}

//! Where WebSockets do not get through: event streams, then single requests.

use crate::{
    Browser, Site,
    gate::{ALL, Kind},
    running::eventually,
    wait,
};

in_each_browser! {
    without_websockets_all_posts_share_an_event_stream_and_likes_are_requests
    without_event_streams_counts_are_asked_for_when_the_page_is_seen
    a_like_whose_answer_is_lost_is_said_again_and_counts_once
}

const SHORT_WAITS: &str = "Math.random = () => 0.01";
const SEEN_AGAIN: &str = "document.dispatchEvent(new Event('visibilitychange'))";

fn without_websockets_all_posts_share_an_event_stream_and_likes_are_requests(browser: &Browser) {
    let site = Site::start();
    site.gate.block(&[Kind::WebSocket]);
    let page =
        site.page("/", &["a", "b", "c"].map(|post| format!("<live-likes post=\"{post}\"></live-likes>")).concat());
    let (window, other) = (browser.window(), browser.window());
    for window in [&window, &other] {
        window.before_each_page(SHORT_WAITS);
        window.open(&page);
        wait(window, "[...document.querySelectorAll('live-likes')].every((it) => it.count === 0)");
        assert_eq!(window.evaluate("document.querySelectorAll('[offline]').length"), 0);
    }
    eventually("each page has one stream", || site.gate.open(Kind::Events) == 2);
    assert!(site.gate.requests("/liveLikes").len() >= 4, "two attempts of each page");

    window.click("live-likes");
    wait(&window, "it.liked && it.count === 1 && !it.matches('[pending], [offline]')");
    wait(&other, "it.liked && it.count === 1"); // the same visitor, who had no name when the page came
    other.click("live-likes");
    for window in [&window, &other] {
        wait(window, "!it.liked && it.count === 0");
    }
    site.posts.post("c").expect("a post").like().expect("a like");
    wait(&other, "document.querySelectorAll('live-likes')[2].count === 1");

    // A network that lets them through again.
    site.gate.block(&[]);
    window.evaluate("dispatchEvent(new Event('online'))");
    eventually("a WebSocket takes over", || site.gate.open(Kind::WebSocket) == 1);
    eventually("the stream is closed", || site.gate.open(Kind::Events) == 1);
    window.click("live-likes");
    wait(&window, "it.liked && it.count === 1");
}

fn without_event_streams_counts_are_asked_for_when_the_page_is_seen(browser: &Browser) {
    let site = Site::start();
    site.gate.block(&[Kind::WebSocket, Kind::Events]);
    let page = site.page("/", "<live-likes post=\"a\"></live-likes><live-likes post=\"b\"></live-likes>");
    let window = browser.window();
    window.before_each_page(SHORT_WAITS);
    window.open(&page);
    wait(&window, "it.count === 0 && !it.matches('[offline]')");
    window.click("live-likes");
    wait(&window, "it.liked && it.count === 1 && !it.matches('[offline]')");
    site.posts.post("b").expect("a post").like().expect("a like");
    window.evaluate(SEEN_AGAIN);
    wait(&window, "document.querySelectorAll('live-likes')[1].count === 1");

    site.gate.block(&ALL);
    window.evaluate(SEEN_AGAIN);
    wait(&window, "it.matches('[offline]:state(offline)')");
    window.click("live-likes");
    assert_eq!(window.evaluate("document.querySelector('live-likes').matches('[liked][pending]')"), true);
    site.gate.block(&[Kind::WebSocket, Kind::Events]);
    window.evaluate(SEEN_AGAIN);
    wait(&window, "!it.liked && it.count === 0 && !it.matches('[offline], [pending]')"); // said again
    assert_eq!(site.count("a"), 0);

    site.gate.block(&[]);
    window.evaluate(SEEN_AGAIN);
    eventually("a WebSocket takes over", || site.gate.open(Kind::WebSocket) == 1);
    site.posts.post("a").expect("a post").like().expect("a like");
    wait(&window, "it.count === 1");
}

fn a_like_whose_answer_is_lost_is_said_again_and_counts_once(browser: &Browser) {
    let site = Site::start();
    let page = site.page("/", "<live-likes post=\"a\"></live-likes>");
    let window = browser.window();
    window.before_each_page(SHORT_WAITS);
    // The answer is not heard, and then the line is cut.
    window.before_each_page(
        "globalThis.deaf = false;
         const real = WebSocket;
         WebSocket = class extends real {
           set onmessage(hear) { super.onmessage = (event) => { if (!deaf) hear(event) } }
         };",
    );
    window.open(&page);
    wait(&window, "it.count === 0");
    window.evaluate("deaf = true");
    window.click("live-likes");
    eventually("the server has counted it", || site.count("a") == 1);
    assert_eq!(window.evaluate("document.querySelector('live-likes').matches('[pending]:not([liked])')"), true);
    site.gate.block(&[Kind::WebSocket]);
    window.evaluate("deaf = false");
    wait(&window, "it.liked && it.count === 1 && !it.matches('[pending]')"); // over HTTP
    assert_eq!(site.count("a"), 1);
}

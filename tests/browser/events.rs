//! What pages of other sites are given, as a browser sees it: counts by its own `EventSource`, refusals with their
//! reasons, the picture, the module, the page in a frame.

use crate::running::Running;
use crate::{Browser, Counter};
use live_likes::Page;
use std::fs;

/// Keeps what an `EventSource` brings.
const LISTENS: &str = "
  let events = [], states = [];
  const listen = (url) => {
    const source = new EventSource(url);
    source.onmessage = ({ data }) => { events.push(JSON.parse(data)); document.title = events.length; };
    source.onopen = () => states.push('open');
    source.onerror = () => { states.push(source.readyState); document.body.append('!'); };
  };";

#[test]
#[ignore = "needs Chromium: .ci/run installs it"]
fn an_event_source_shows_each_count_and_comes_back_by_itself_after_a_restart() {
    let mut counter = Counter::with_page("16", "a page");
    let browser = Browser::chromium();
    let window = browser.window();
    window.before_each_page(LISTENS);
    window.open(&counter.url());
    window.evaluate("listen('/likes')");
    window.wait_until("events.length === 1");
    counter.likes().like().expect("a like");
    window.wait_until("events.length === 2");
    assert_eq!(window.evaluate("events.map(({ numLikes }) => numLikes).join()"), "16,17");
    assert_eq!(window.evaluate("events[1].version - events[0].version"), 1);

    counter.stop();
    window.wait_until("states.length === 2");
    fs::write(counter.folder.join("db.txt"), "99").expect("db.txt");
    counter.restart();
    window.wait_until("events.at(-1).numLikes === 99"); // the newest first, whatever it has seen
    assert_eq!(window.evaluate("events.at(-1).boot !== events[0].boot"), true);
    counter.likes().like().expect("a like");
    window.wait_until("events.at(-1).numLikes === 100");
    assert_eq!(window.evaluate("[states[0], states[1], states.at(-1)].join()"), "open,0,open");
}

#[test]
#[ignore = "needs Chromium: .ci/run installs it"]
fn a_page_of_another_origin_reads_counts_and_likes_where_it_may_and_why_not_where_it_may_not() {
    let site = Running::with(0, |server| server.page(Page::new("<!doctype html><title>a blog</title><body>")));
    let origin = format!("http://{}", site.addr);
    let ours = Running::with(16, |server| server.allow_origin(&origin));
    let others = Running::with(16, |server| server);
    let browser = Browser::chromium();
    let window = browser.window();
    window.before_each_page(LISTENS);
    window.open(&format!("{origin}/"));

    window.evaluate(&format!("listen('http://{}/likes')", ours.addr));
    window.wait_until("events.length === 1");
    // With a field that tools add which trace requests, a browser asks beforehand.
    let like = format!(
        "fetch('http://{}/like', {{ method: 'PUT', headers: {{ traceparent: '00-1-1-00', baggage: 'a=b' }} }})
           .then((answer) => answer.json()).then(({{ numLikes }}) => numLikes)",
        ours.addr
    );
    assert_eq!(window.evaluate(&like), 17);
    window.wait_until("events.at(-1).numLikes === 17");
    let problem = format!("fetch('http://{}/likes?post=').then((answer) => answer.text())", ours.addr);
    assert!(window.evaluate(&problem).as_str().expect("words").contains("`post`"));

    let foreign = format!("http://{}/likes", others.addr);
    window.evaluate(&format!("(events = [], states = [], listen('{foreign}'))"));
    window.wait_until("states.length === 1");
    assert_eq!(window.evaluate("states[0] === EventSource.CLOSED && events.length === 0"), true);
    let words =
        format!("fetch('{foreign}', {{ headers: {{ Accept: 'text/event-stream' }} }}).then((answer) => answer.text())");
    let words = window.evaluate(&words);
    assert!(words.as_str().expect("words").contains(&format!("--allow-origin {origin} allows")), "{words}");
    let refused = |what: &str| {
        let outcome = window.evaluate(&format!("fetch({what}).then(() => 'an answer', () => 'refused')"));
        assert_eq!(outcome, "refused", "{what}");
    };
    refused(&format!("'{foreign}'"));
    refused(&format!("'http://{}/like', {{ method: 'POST' }}", others.addr));
    assert_eq!(others.likes.count(), 16);
    // What names nobody is held no longer than it takes to refuse it.
    let opaque = format!(
        "fetch('{foreign}', {{ mode: 'no-cors', headers: {{ Accept: 'text/event-stream' }} }}).then(({{ type }}) => type)"
    );
    assert_eq!(window.evaluate(&opaque), "opaque");
    assert_eq!(others.likes.watching(), 0);
}

#[test]
#[ignore = "needs Chromium: .ci/run installs it"]
fn a_page_of_another_origin_shows_the_picture_loads_the_module_and_frames_the_page_where_it_may() {
    let site = Running::with(0, |server| server.page(Page::new("<!doctype html><title>a blog</title><body>")));
    let framed = || Page::new("<script>parent.postMessage('here', '*')</script>");
    let open = Running::with(1234, |server| server.allow_frame(format!("http://{}", site.addr)).page(framed()));
    let closed = Running::with(16, |server| server.page(framed()));
    let browser = Browser::chromium();
    let window = browser.window();
    window.open(&format!("http://{}/", site.addr));

    let picture = format!(
        "new Promise((done, fail) => {{
           const image = Object.assign(new Image(), {{ onload: () => done(image.naturalHeight), onerror: fail }});
           image.src = 'http://{}/likes.svg';
         }})",
        closed.addr
    );
    assert_eq!(window.evaluate(&picture), 20);
    let module = format!("import('http://{}/live-likes.js').then((module) => typeof module)", closed.addr);
    assert_eq!(window.evaluate(&module), "object");
    for (server, told) in [(&closed, false), (&open, true)] {
        let frame = format!(
            "new Promise((done) => {{
               let told = false;
               addEventListener('message', () => {{ told = true; }});
               const frame = document.createElement('iframe');
               frame.onload = () => setTimeout(() => done(told));
               frame.src = 'http://{}/';
               document.body.append(frame);
             }})",
            server.addr
        );
        assert_eq!(window.evaluate(&frame), told);
    }
}

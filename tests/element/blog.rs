//! The demonstration: a blog on one port, its likes on another.

use crate::{Browser, Running, shown, site, wait};
use live_likes::http;

in_each_browser! {
    a_like_of_a_post_shows_on_the_post_and_on_the_index_for_every_visitor
}

in_chromium! {
    without_a_script_a_form_likes_and_leads_back
    nothing_moves_while_the_buttons_come
}

fn start() -> (String, String, [Running; 2]) {
    let (blog, likes) = site::start("127.0.0.1:0", "127.0.0.1:0").expect("both listen");
    let (blog_at, likes_at) = (site::origin(&blog), site::origin(&likes));
    (blog_at, likes_at, [Running::start(blog), Running::start(likes)])
}

fn a_like_of_a_post_shows_on_the_post_and_on_the_index_for_every_visitor(browser: &Browser) {
    let (blog, _, _running) = start();
    let other_browser = browser.another();
    let (post, index, other) = (browser.window(), browser.window(), other_browser.window());
    post.open(&format!("{blog}/2026/hello/"));
    index.open(&blog);
    other.open(&format!("{blog}/2026/hello/"));
    for window in [&post, &index, &other] {
        wait(window, "it.count === 0");
        assert_eq!(window.evaluate("localStorage.length"), 0, "who only reads is given no name");
    }
    post.click("live-likes");
    for window in [&post, &index] {
        wait(window, "it.count === 1 && it.liked && it.matches('[liked]:state(liked):not([pending])')");
        assert_eq!(shown(window), "1");
    }
    wait(&other, "it.count === 1 && !it.liked");
    other.click("live-likes");
    for window in [&post, &index, &other] {
        wait(window, "it.count === 2 && it.liked");
    }
    index.click("live-likes"); // the same visitor
    for window in [&post, &index] {
        wait(window, "it.count === 1 && !it.liked");
    }
    wait(&other, "it.count === 1 && it.liked");
    post.open(&format!("{blog}/2026/hello/"));
    wait(&post, "it.count === 1 && !it.liked");
    other.open(&format!("{blog}/2026/hello/"));
    wait(&other, "it.count === 1 && it.liked");
    for window in [&post, &index, &other] {
        assert_eq!(window.complaints(), [""; 0], "the content policy allows all of it");
    }
}

fn without_a_script_a_form_likes_and_leads_back(browser: &Browser) {
    let (blog, likes, _running) = start();
    let window = browser.window();
    window.allow_scripts(false);
    for (count, path) in ["/2026/bread/", "/"].iter().enumerate() {
        let page = format!("{blog}{path}");
        window.open(&page);
        window.click_and_load("live-likes button");
        assert_eq!(window.evaluate("location.href"), page);
        window.open(&format!("{likes}/likes?post=/2026/{}/", ["bread", "hello"][count]));
        assert!(window.text("body").starts_with("{\"numLikes\":1,"), "{}", window.text("body"));
    }
}

fn nothing_moves_while_the_buttons_come(browser: &Browser) {
    let (blog, _, _running) = start();
    let window = browser.window();
    window.before_each_page(
        "globalThis.shift = 0;
         new PerformanceObserver((list) => {
           for (const entry of list.getEntries()) shift += entry.value;
         }).observe({ type: 'layout-shift', buffered: true });",
    );
    for width in [320, 1280] {
        window.resize(width, 800, 1.0);
        for path in ["/", "/2026/rain/"] {
            window.open(&format!("{blog}{path}"));
            wait(&window, "it.count === 0 || it.count === 1");
            window.evaluate(&format!("{}.like()", crate::FIRST));
            wait(&window, "it.liked && it.count === 1");
            window.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)))");
            assert_eq!(window.evaluate("shift"), 0, "{path} at {width}");
        }
    }
}

#[test]
fn pages_that_are_not_there_are_not_found() {
    let (blog, _, _running) = start();
    let addr = blog.trim_start_matches("http://localhost:");
    let mut stream = std::net::TcpStream::connect(format!("127.0.0.1:{addr}")).expect("it listens");
    use std::io::{Read, Write};
    write!(stream, "GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with(&format!("HTTP/1.1 {}", http::StatusCode::NOT_FOUND)), "{answer}");
}

//! Pages that make it hard: strict policies, files, frames without an origin, storage that is refused.

use crate::{Browser, Server, Site, shown, wait};
use serde_json::json;
use std::fs;

in_each_browser! {
    the_strictest_policy_needs_the_address_of_the_server_alone
    an_origin_that_is_refused_is_told_in_the_console_what_allows_it
    a_file_and_a_frame_without_an_origin_like_where_any_origin_may
    where_storage_is_refused_a_visitor_lives_as_long_as_the_page
    the_visitor_is_made_at_the_first_like_and_kept_in_the_page_s_own_storage
}

fn the_strictest_policy_needs_the_address_of_the_server_alone(browser: &Browser) {
    let site = Site::start();
    let server = site.gate.origin();
    let policy = format!(
        "default-src 'none'; script-src {server}; connect-src {server} {}; require-trusted-types-for 'script'; \
         trusted-types; img-src data:",
        server.replace("http", "ws")
    );
    let body = format!("{}<live-likes post=\"a\"></live-likes>", site.script());
    let page = site.page_with("/", Some(&policy), &body);
    let window = browser.window();
    window.open(&page);
    wait(&window, "it.count === 0");
    let style = "getComputedStyle(document.querySelector('live-likes').shadowRoot.querySelector('button')).display";
    assert_eq!(window.evaluate(style), "inline-flex", "its style is there");
    window.click("live-likes");
    wait(&window, "it.liked");
    assert_eq!(window.complaints(), [""; 0]);
}

fn an_origin_that_is_refused_is_told_in_the_console_what_allows_it(browser: &Browser) {
    let site = Site::with(|server, _| server);
    let page = site.page("/", "<live-likes post=\"a\"></live-likes>");
    let window = browser.window();
    window.before_each_page("Math.random = () => 0.001; globalThis.errors = []; addEventListener('live-likes:error', ({ detail }) => errors.push(detail))");
    window.open(&page);
    wait(&window, "it.matches('[offline]:state(offline)') && errors.length");
    let words = format!("pages of the origin {0} are not allowed; --allow-origin {0} allows them", site.origin);
    assert_eq!(window.evaluate("errors[0].problem"), words);
    let logged = window.complaints().iter().filter(|it| it.contains(&format!("live-likes: {words}"))).count();
    assert_eq!(logged, 1, "in the console, once");
    assert_eq!(window.evaluate("errors[0].status"), 403);
    assert_eq!(window.evaluate("errors[0].post"), "a");
    assert_eq!(window.evaluate("document.querySelector('live-likes').count"), json!(null));
}

fn a_file_and_a_frame_without_an_origin_like_where_any_origin_may(browser: &Browser) {
    let site = Site::with(|server, _: String| Server::allow_origin(server, "*"));
    let inner = site.page(
        "/inner",
        "<style>body { margin: 0 }</style><live-likes post=\"a\"></live-likes>
         <script>addEventListener('live-likes:count', ({ detail }) => parent.postMessage(detail, '*'))</script>",
    );
    let outer = site.page_with(
        "/",
        None,
        &format!(
            "<script>addEventListener('message', ({{ data }}) => {{ document.title = data.count }})</script>
             <iframe sandbox=\"allow-scripts\" width=\"100\" height=\"44\" src=\"{inner}\"></iframe>"
        ),
    );
    let window = browser.window();
    for (before, after) in [("0", "1"), ("1", "2")] {
        window.open(&outer); // it keeps nothing: somebody else each time
        window.wait_until(&format!("document.title === '{before}'"));
        window.click("iframe");
        window.wait_until(&format!("document.title === '{after}'"));
    }

    let file = std::env::temp_dir().join(format!("live-likes-element-{}.html", std::process::id()));
    fs::write(&file, format!("<!doctype html>{}<live-likes post=\"a\"></live-likes>", site.script())).expect("a file");
    window.open(&format!("file://{}", file.display()));
    wait(&window, "it.count === 2");
    window.click("live-likes");
    wait(&window, "it.liked && it.count === 3");
    assert_eq!(site.count("a"), 3);
    fs::remove_file(file).expect("the file is there");
}

fn where_storage_is_refused_a_visitor_lives_as_long_as_the_page(browser: &Browser) {
    let site = Site::start();
    let page = site.page("/", "<live-likes post=\"a\"></live-likes><live-likes post=\"b\"></live-likes>");
    let window = browser.window();
    window.before_each_page("Object.defineProperty(window, 'localStorage', { get() { throw new Error('no') } })");
    window.open(&page);
    wait(&window, "it.count === 0");
    for liked in ["it.liked && it.count === 1", "!it.liked && it.count === 0", "it.liked && it.count === 1"] {
        window.click("live-likes");
        wait(&window, liked);
    }
    window.open(&page);
    wait(&window, "it.count === 1 && !it.liked");
    window.click("live-likes");
    wait(&window, "it.count === 2 && it.liked");
    assert_eq!(shown(&window), "2");
}

fn the_visitor_is_made_at_the_first_like_and_kept_in_the_page_s_own_storage(browser: &Browser) {
    let site = Site::start();
    let page = site.page("/", "<live-likes post=\"a\"></live-likes>");
    let window = browser.window();
    window.before_each_page(
        "globalThis.drawn = 0;
         const draw = Crypto.prototype.getRandomValues;
         Crypto.prototype.getRandomValues = function (to) { drawn += 1; return draw.call(this, to) };
         globalThis.said = [];
         const { send } = WebSocket.prototype;
         WebSocket.prototype.send = function (text) { said.push(JSON.parse(text)); send.call(this, text) };",
    );
    window.open(&page);
    wait(&window, "it.count === 0");
    assert_eq!(
        window.evaluate("JSON.stringify([drawn, localStorage.length, said])"),
        r#"[0,0,[{"type":"watch","post":"a"}]]"#
    );
    window.click("live-likes");
    wait(&window, "it.liked");
    let visitor = window.evaluate("JSON.parse(localStorage.getItem('live-likes')).visitor");
    let visitor = visitor.as_str().expect("a visitor");
    assert!((16..=64).contains(&visitor.len()), "{visitor}");
    assert_eq!(window.evaluate("said.find(({ type }) => type === 'like').visitor"), visitor);
    assert_eq!(window.evaluate("document.cookie"), "");
    window.open(&page);
    wait(&window, "it.liked");
    assert_eq!(window.evaluate("drawn"), 0, "the same visitor");
    assert_eq!(window.evaluate("said[0].visitor"), visitor);
}

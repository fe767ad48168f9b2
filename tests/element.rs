//! The button for other sites in real browsers, on pages of an origin that is not the server's.

#[macro_use]
#[path = "support/each_browser.rs"]
mod each_browser;

#[path = "element/blog.rs"]
mod blog;
#[path = "support/browser.rs"]
mod browser;
#[path = "element/fallback.rs"]
mod fallback;
#[path = "element/gate.rs"]
mod gate;
#[path = "element/hosts.rs"]
mod hosts;
#[path = "../examples/blog/memory.rs"]
mod memory;
#[path = "support/running.rs"]
mod running;
#[path = "element/shape.rs"]
mod shape;
#[path = "../examples/blog/site.rs"]
mod site;

use browser::{Browser, Window};
use gate::Gate;
use live_likes::{Handle, Listening, Posts, Server, http::Response};
use memory::Memory;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

/// Of each path the content policy of the page there, if it has one, and its HTML.
type Pages = HashMap<String, (Option<String>, String)>;

/// Pages on one port, the server of the likes on another, and a [`Gate`] before it.
struct Site {
    posts: Posts,
    gate: Gate,
    pages: Arc<Mutex<Pages>>,
    origin: String,
    _running: [Running; 2],
}

impl Site {
    fn start() -> Self {
        Self::with(|server, origin| server.allow_origin(origin))
    }

    /// A server that `set` has the last word on, which it tells the origin of the pages.
    fn with(set: impl FnOnce(Server, String) -> Server) -> Self {
        let posts = Posts::with_store(Memory::default()).expect("a store");
        let pages = Arc::<Mutex<Pages>>::default();
        let given = pages.clone();
        let blog = Server::new(posts.clone()).prefix("/unused").fallback(move |request| {
            let pages = given.lock().expect("no panic");
            let path = request.uri().path();
            let Some((policy, html)) = pages.get(path) else {
                return Response::builder().status(404).body(Vec::new()).expect("a response");
            };
            let mut response = Response::builder().header("Content-Type", "text/html; charset=utf-8");
            if let Some(policy) = policy {
                response = response.header("Content-Security-Policy", policy);
            }
            response.body(html.clone().into()).expect("a response")
        });
        let blog = blog.bind("127.0.0.1:0").expect("a free port");
        let origin = site::origin(&blog);
        let server = set(Server::new(posts.clone()), origin.clone()).bind("127.0.0.1:0").expect("a free port");
        let gate = Gate::start(server.local_addr());
        Self { posts, gate, pages, origin, _running: [Running::start(blog), Running::start(server)] }
    }

    /// Puts a page there, with the script in its head, and returns its address.
    fn page(&self, path: &str, body: &str) -> String {
        self.page_with(path, None, &format!("{}{body}", self.script()))
    }

    fn page_with(&self, path: &str, policy: Option<&str>, body: &str) -> String {
        let html =
            format!("<!doctype html><html lang=\"en\"><title>A page</title><link rel=icon href=\"data:,\">{body}");
        self.pages.lock().expect("no panic").insert(path.to_owned(), (policy.map(str::to_owned), html));
        format!("{}{path}", self.origin)
    }

    fn script(&self) -> String {
        format!("<script type=\"module\" src=\"{}/live-likes.js\"></script>", self.gate.origin())
    }

    fn count(&self, post: &str) -> u64 {
        self.posts.post(post).expect("a post").count()
    }
}

/// A server that runs until this is dropped.
struct Running {
    handle: Handle,
    thread: Option<JoinHandle<live_likes::Result<()>>>,
}

impl Running {
    fn start(server: Listening) -> Self {
        let handle = server.handle();
        Self { handle, thread: Some(thread::spawn(|| server.run())) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.stop();
        let ended = self.thread.take().expect("it runs").join();
        if !thread::panicking() {
            ended.expect("the server does not panic").expect("the server stops well");
        }
    }
}

/// The first button of the page.
const FIRST: &str = "document.querySelector('live-likes')";

/// Waits until a condition holds, in which `it` is the first button. What changes in it is in no tree of the document.
fn wait(window: &Window, condition: &str) {
    let end = window.evaluate(&format!(
        "new Promise((done) => {{
           const late = Date.now() + 60_000;
           const look = () => {{
             const it = {FIRST};
             if ({condition}) return done('');
             if (Date.now() > late) return done(document.body.innerHTML);
             setTimeout(look, 5);
           }};
           look();
         }})"
    ));
    assert_eq!(end, "", "waiting until {condition}");
}

/// What stands where the count is, in the first button.
fn shown(window: &Window) -> String {
    let text = window.evaluate(&format!("{FIRST}.shadowRoot.querySelector('[part=count]').innerText"));
    text.as_str().expect("a text").to_owned()
}

//! The subprotocol `live-likes`: many posts on one socket, in JSON, with an answer to each change.

#[path = "support/client.rs"]
mod client;
#[path = "support/running.rs"]
mod running;
#[path = "support/scripted.rs"]
mod scripted;

use client::{Client, connect, connect_narrow, get, read_head, reset};
use live_likes::{Likes, Limits, Outcome, Posts, Refused, Server};
use running::{Folder, PATIENCE, Running, eventually, patient};
use scripted::{Ending, Script, memory_of_many, scripted_posts};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    io::Write,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};
use tungstenite::Message;

const ANNA: &str = "anna-0123456789abcdef";
const BERT: &str = "bert-0123456789abcdef";

/// Changes of a connection that may be without an answer.
const MOST_UNANSWERED: u64 = 64;

/// What a client that speaks JSON says and is told.
impl Client {
    fn says(&mut self, message: Value) {
        self.say(&message.to_string());
    }

    /// The next message.
    #[track_caller]
    fn told(&mut self) -> Value {
        let text = self.hear();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{text:?} should be JSON: {e}"))
    }

    /// Says something, and returns what it is told then.
    #[track_caller]
    fn asks(&mut self, message: Value) -> Value {
        self.says(message);
        self.told()
    }

    /// Watches a post, and returns what it is told of it.
    #[track_caller]
    fn watches(&mut self, post: &str) -> Value {
        self.asks(json!({"type": "watch", "post": post}))
    }

    /// Has the server take all that was said before. Returns what was told meanwhile.
    #[track_caller]
    fn told_before_pong(&mut self) -> Vec<Value> {
        self.says(json!({"type": "ping"}));
        let mut told = self.told_until(|message| *message == json!({"type": "pong"}));
        told.pop();
        told
    }

    /// The messages up to the one that is so.
    #[track_caller]
    fn told_until(&mut self, mut is_so: impl FnMut(&Value) -> bool) -> Vec<Value> {
        let mut told = Vec::new();
        loop {
            told.push(self.told());
            if is_so(&told[told.len() - 1]) {
                return told;
            }
        }
    }
}

/// A server on a store in memory whose saves all work, and its posts.
fn in_memory(set: impl FnOnce(&mut Limits)) -> (Running, Posts) {
    let posts = Posts::with_store(memory_of_many(|_| Ending::Saved)).unwrap();
    (serve(&posts, set), posts)
}

/// A server on a store whose saves hang until the test ends them.
fn on_script() -> (Running, Posts, Script) {
    let (posts, script) = scripted_posts();
    (serve(&posts, |_| ()), posts, script)
}

fn serve(posts: &Posts, set: impl FnOnce(&mut Limits)) -> Running {
    let mut limits = patient();
    set(&mut limits);
    Running::serve(Folder::new(), posts.default_counter().unwrap(), |server: Server| server.limits(limits))
}

fn sample(server: &Running, name: &str) -> f64 {
    get(server.addr, "/metrics").sample(name)
}

// --- the subprotocol ---

/// The subprotocol that the server agrees on, of those in so many lines.
fn agreed(addr: SocketAddr, offers: &[&str]) -> Option<String> {
    let mut stream = connect(addr);
    let offers: String = offers.iter().map(|offer| format!("Sec-WebSocket-Protocol: {offer}\r\n")).collect();
    stream.write_all(handshake(addr, &offers).as_bytes()).unwrap();
    let head = read_head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    let mut agreed = fields.filter(|field| field.0.eq_ignore_ascii_case("Sec-WebSocket-Protocol"));
    let first = agreed.next().map(|field| field.1.to_owned());
    assert_eq!(agreed.next(), None, "{head}");
    first
}

fn handshake(addr: SocketAddr, fields: &str) -> String {
    format!(
        "GET /liveLikes HTTP/1.1\r\nHost: {addr}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n"
    )
}

#[test]
fn the_subprotocol_is_agreed_on_where_it_is_offered_and_only_there() {
    let server = Running::with_count(16);
    for offers in [
        &["live-likes"][..],
        &["chat, live-likes"],
        &["live-likes,chat"],
        &["chat", "live-likes"],
        &["chat,,\tlive-likes ,", "superchat"],
    ] {
        assert_eq!(agreed(server.addr, offers).as_deref(), Some("live-likes"), "{offers:?}");
    }
    for offers in [&[][..], &["chat"], &["live-likes2, live"], &["Live-Likes"], &["chat; live-likes"], &[""]] {
        assert_eq!(agreed(server.addr, offers), None, "{offers:?}");
    }
}

#[test]
fn without_the_subprotocol_a_client_is_shown_bare_numbers_and_may_not_speak_json() {
    let server = Running::with_count(16);
    let mut client = Client::new(server.addr);
    assert_eq!(client.hear(), "16");
    client.say(r#"{"type":"watch"}"#);
    assert_eq!(client.closed(), (1008, r#"expected {"type":"like"}"#.to_owned()));
}

#[test]
fn nothing_is_watched_before_a_client_says_so() {
    let server = Running::with_count(16);
    let mut client = Client::of_json(server.addr);
    server.likes.like().unwrap();
    client.says(json!({"type": "ping"}));
    assert_eq!(client.hear(), r#"{"type":"pong"}"#);
    assert_eq!(server.likes.watching(), 0);
}

#[test]
fn what_comes_with_the_handshake_is_a_message() {
    let server = Running::with_count(16);
    let mut stream = connect(server.addr);
    let mut bytes = handshake(server.addr, "Sec-WebSocket-Protocol: live-likes\r\n").into_bytes();
    bytes.extend(b"\x81\x90\0\0\0\0{\"type\":\"watch\"}");
    stream.write_all(&bytes).unwrap();
    read_head(&mut stream);
    let mut client = Client::after_handshake(stream);
    assert_eq!(client.told()["numLikes"], 16);
}

// --- watching ---

#[test]
fn without_a_post_the_default_counter_is_meant_and_what_is_said_of_it_names_none() {
    let server = Running::with_count(16);
    let mut client = Client::of_json(server.addr);
    client.say(r#"{"type":"watch"}"#);
    let first = client.hear();
    let boot = first.strip_prefix(r#"{"type":"count","numLikes":16,"version":16,"boot":""#);
    let boot = boot.and_then(|rest| rest.strip_suffix(r#""}"#)).unwrap_or_else(|| panic!("{first}"));
    assert!(boot.len() >= 16 && boot.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{boot}");
    client.say(r#"{"type":"like"}"#);
    let mut told = [client.hear(), client.hear()];
    told.sort();
    let [answer, count] = told;
    assert_eq!(answer, r#"{"type":"answer","numLikes":17,"version":17}"#);
    assert_eq!(count, r#"{"type":"count","numLikes":17,"version":17}"#);
    assert_eq!(server.folder.saved(), 17);
}

#[test]
fn the_first_count_of_a_connection_names_this_start_of_the_server() {
    let (server, posts) = in_memory(|_| ());
    let boot = |client: &mut Client, post: &str| client.watches(post).get("boot").cloned();
    let (mut one, mut other) = (Client::of_json(server.addr), Client::of_json(server.addr));
    one.says(json!({"type": "like", "post": "p"}));
    assert_eq!(one.told()["type"], "answer", "which is no count");
    let first = boot(&mut one, "p");
    assert!(first.is_some());
    assert_eq!((boot(&mut one, "q"), boot(&mut one, "p")), (None, None));
    assert_eq!(boot(&mut other, "q"), first);
    // Of the same start is another server on the same counters, too.
    assert_eq!(boot(&mut Client::of_json(serve(&posts, |_| ()).addr), "p"), first);
    let (another, _) = in_memory(|_| ());
    let next = boot(&mut Client::of_json(another.addr), "p");
    assert!(next.is_some() && next != first);
}

#[test]
fn a_post_is_watched_until_it_is_unwatched() {
    let (server, posts) = in_memory(|_| ());
    let (p, q) = (posts.post("p").unwrap(), posts.post("q").unwrap());
    let mut client = Client::of_json(server.addr);
    client.watches("p");
    client.watches("q");
    p.like().unwrap();
    assert_eq!(client.told(), json!({"type": "count", "post": "p", "numLikes": 1, "version": 1}));
    client.says(json!({"type": "unwatch", "post": "p"}));
    client.says(json!({"type": "unwatch", "post": "that nobody watches"}));
    assert_eq!(client.told_before_pong(), [Value::Null; 0]);
    assert_eq!((p.watching(), q.watching()), (0, 1));
    p.like().unwrap();
    q.like().unwrap();
    assert_eq!(client.told(), json!({"type": "count", "post": "q", "numLikes": 1, "version": 3}));
}

#[test]
fn whether_a_visitor_likes_a_post_is_told_with_its_count_to_who_watches_for_that_visitor() {
    let (server, posts) = in_memory(|_| ());
    let p = posts.post("p").unwrap();
    p.set_liked(ANNA, true, None).unwrap();
    let mut client = Client::of_json(server.addr);
    let watch = |visitor: &str| json!({"type": "watch", "post": "p", "visitor": visitor});
    let mut first = client.asks(watch(ANNA));
    first.as_object_mut().unwrap().remove("boot");
    assert_eq!(first, json!({"type": "count", "post": "p", "numLikes": 1, "version": 1, "liked": true}));
    // A second watch replaces the first, and shows the state again.
    let again = json!({"type": "count", "post": "p", "numLikes": 1, "version": 1, "liked": false});
    assert_eq!(client.asks(watch(BERT)), again);
    assert_eq!(p.watching(), 1);
    p.set_liked(ANNA, false, None).unwrap();
    assert_eq!(client.told(), json!({"type": "count", "post": "p", "numLikes": 0, "version": 2, "liked": false}));
    p.set_liked(ANNA, true, None).unwrap();
    assert_eq!(client.told(), json!({"type": "count", "post": "p", "numLikes": 1, "version": 3}));
    p.set_liked(BERT, true, None).unwrap();
    assert_eq!(client.told(), json!({"type": "count", "post": "p", "numLikes": 2, "version": 4, "liked": true}));
    assert_eq!(client.watches("p"), json!({"type": "count", "post": "p", "numLikes": 2, "version": 4}));
    p.set_liked(BERT, false, None).unwrap();
    assert_eq!(client.told(), json!({"type": "count", "post": "p", "numLikes": 1, "version": 5}));
}

#[test]
fn a_text_file_remembers_no_visitors_so_nothing_is_said_of_them() {
    let server = Running::with_count(16);
    let mut client = Client::of_json(server.addr);
    assert_eq!(client.asks(json!({"type": "watch", "visitor": ANNA})).get("liked"), None);
    for (visitor, likes) in [(ANNA, 17), (BERT, 18)] {
        let like = json!({"type": "like", "visitor": visitor, "seq": 1});
        let told = [client.asks(like.clone()), client.told()];
        for kind in ["answer", "count"] {
            assert!(told.contains(&json!({"type": kind, "numLikes": likes, "version": likes})), "{told:?}");
        }
        // It counts once while the server lives.
        assert_eq!(client.asks(like), json!({"type": "answer", "numLikes": likes, "version": likes}));
    }
    assert_eq!(server.folder.saved(), 18);
}

#[test]
fn posts_are_told_apart_by_each_byte_of_their_names() {
    let (server, posts) = in_memory(|_| ());
    let names = ["a", "A", "a ", "é", "e\u{301}", "__proto__", "\"\\", "\u{202e}", "\u{2028}", "💙", &"ö".repeat(100)];
    let mut client = Client::of_json(server.addr);
    for (likes, name) in names.iter().enumerate() {
        posts.post(name).unwrap();
        (0..likes).for_each(|_| _ = posts.post(name).unwrap().like().unwrap());
    }
    for (likes, name) in names.iter().enumerate() {
        let count = client.watches(name);
        assert_eq!((&count["post"], &count["numLikes"]), (&json!(name), &json!(likes)));
        client.says(json!({"type": "like", "post": name}));
        assert_eq!([client.told(), client.told()].map(|told| told["post"] == *name), [true, true]);
    }
}

#[test]
fn a_client_may_watch_100_posts_and_no_more() {
    let (server, posts) = in_memory(|_| ());
    let mut client = Client::of_json(server.addr);
    for post in 0..100 {
        assert_eq!(client.watches(&post.to_string())["numLikes"], 0);
    }
    let refused = json!({
        "type": "refused", "ref": "a", "post": "p", "status": 429,
        "problem": "too many posts: a client may watch 100",
    });
    assert_eq!(client.asks(json!({"type": "watch", "post": "p", "ref": "a"})), refused);
    assert_eq!(client.asks(json!({"type": "watch"}))["status"], 429, "the default counter is one like any other");
    // Of the same post it is no further one.
    assert_eq!(client.watches("50")["numLikes"], 0);
    assert_eq!(posts.watching(), 100);
    for post in 0..100 {
        posts.post(&post.to_string()).unwrap().like().unwrap();
        assert_eq!(
            client.told(),
            json!({
                "type": "count", "post": post.to_string(), "numLikes": 1, "version": post + 1,
            })
        );
    }
    client.says(json!({"type": "unwatch", "post": "50"}));
    assert_eq!(client.watches("p")["numLikes"], 0);
    assert_eq!(client.watches("50")["status"], 429);
}

#[test]
fn who_watches_while_a_count_is_read_that_is_not_shown_yet_is_shown_it_all_the_same() {
    let (server, _posts, script) = on_script();
    let (mut first, mut second) = (Client::of_json(server.addr), Client::of_json(server.addr));
    // The first to watch reads the count, which takes a while.
    let read = script.hold_read();
    first.says(json!({"type": "watch", "post": "p"}));
    read.has_begun();
    assert_eq!(second.watches("p")["numLikes"], 0);
    // A like is saved, and so can be read, before it is shown.
    second.says(json!({"type": "like", "post": "p"}));
    script.save();
    script.end(Ending::Written);
    script.save();
    read.see_now();
    first.told_before_pong();
    script.end(Ending::Saved);
    let told = [second.told(), second.told()];
    assert!(told.contains(&json!({"type": "count", "post": "p", "numLikes": 1, "version": 1})), "{told:?}");
}

#[test]
fn who_watches_for_a_visitor_who_likes_just_then_is_told_the_newer_mind() {
    let liked = json!({"type": "count", "post": "p", "numLikes": 1, "version": 1, "liked": true});
    for reads_before_it_is_saved in [true, false] {
        let (server, posts, script) = on_script();
        let p = posts.post("p").unwrap();
        let (mut client, mut other) = (Client::of_json(server.addr), Client::of_json(server.addr));
        client.watches("q");
        let read = script.hold_read();
        client.says(json!({"type": "watch", "post": "p", "visitor": ANNA}));
        read.has_begun();
        other.watches("p");
        thread::scope(|scope| {
            let saved = scope.spawn(|| p.set_liked(ANNA, true, None));
            script.save();
            if reads_before_it_is_saved {
                // Its round has come, to the other one too, when what was read before is to be shown.
                script.end(Ending::Saved);
                other.told();
                read.see_before();
                assert_eq!(client.told(), liked);
            } else {
                // What is read is shown before its round, which brings nothing new then.
                script.end(Ending::Written);
                script.save();
                read.see_now();
                assert_eq!(client.told(), liked);
                script.end(Ending::Saved);
                other.told();
            }
            saved.join().unwrap().unwrap();
        });
        assert_eq!(client.told_before_pong(), [Value::Null; 0]);
    }
}

#[test]
fn a_watch_whose_count_cannot_be_read_is_refused_without_the_reason_and_may_be_asked_for_again() {
    let (server, posts, script) = on_script();
    let mut client = Client::of_json(server.addr);
    for watch in [json!({"type": "watch", "post": "p"}), json!({"type": "watch", "post": "p", "visitor": ANNA})] {
        let read = script.hold_read();
        client.says(watch);
        read.has_begun();
        read.fail();
        let problem = "likes cannot be read just now; try again later";
        assert_eq!(client.told(), json!({"type": "refused", "post": "p", "status": 503, "problem": problem}));
        assert_eq!(posts.watching(), 0);
    }
    assert_eq!(client.watches("p")["numLikes"], 0);
}

#[test]
fn a_visitor_whose_like_is_taken_back_with_all_others_is_told_so() {
    let (server, posts) = in_memory(|_| ());
    posts.post("p").unwrap().set_liked(ANNA, true, None).unwrap();
    let mut client = Client::of_json(server.addr);
    assert_eq!(client.asks(json!({"type": "watch", "post": "p", "visitor": ANNA}))["liked"], true);
    posts.delete("p").unwrap();
    assert_eq!(client.told(), json!({"type": "count", "post": "p", "numLikes": 0, "version": 2, "liked": false}));
}

//! The subprotocol `live-likes`: many posts on one socket, in JSON, with an answer to each change.

#[path = "support/client.rs"]
mod client;
#[path = "support/running.rs"]
mod running;
#[path = "support/scripted.rs"]
mod scripted;

use client::{Client, ask, connect, connect_narrow, get, read_head, reset};
use live_likes::{AllowedPosts, Likes, Limits, Outcome, Posts, Refused, Server};
use running::{Folder, PATIENCE, Running, eventually, patient};
use scripted::{Ending, Script, fed, memory_of_many, scripted_posts};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    io::Write,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
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
    on_script_with(|_| ())
}

/// The script goes first, also where a test fails, so that no save hangs when the server stops.
fn on_script_with(set: impl FnOnce(&mut Limits)) -> (Running, Posts, Script) {
    let (posts, script) = scripted_posts();
    (serve(&posts, set), posts, script)
}

fn serve(posts: &Posts, set: impl FnOnce(&mut Limits)) -> Running {
    let mut limits = patient();
    limits.new_posts_per_hour_and_address = 1_000;
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

#[test]
fn a_ping_that_asks_is_told_how_many_watch_that_post() {
    let (server, posts) = in_memory(|_| ());
    let (mut one, mut other) = (Client::of_json(server.addr), Client::of_json(server.addr));
    let ping = json!({"type": "ping", "watching": true});
    let ping_of = |post: &str| json!({"type": "ping", "post": post, "watching": true});
    assert_eq!(one.asks(ping.clone()), json!({"type": "pong", "watching": 0}));
    for client in [&mut one, &mut other] {
        client.asks(json!({"type": "watch"}));
    }
    one.watches("p");
    one.says(ping.clone());
    assert_eq!(one.hear(), r#"{"type":"pong","watching":2}"#);
    one.says(ping_of("p"));
    assert_eq!(one.hear(), r#"{"type":"pong","post":"p","watching":1}"#);
    assert_eq!(other.asks(ping_of("q")), json!({"type": "pong", "post": "q", "watching": 0}));
    // All who are shown it: of whatever dialect, and in the process.
    let mut bare = Client::new(server.addr);
    bare.hear();
    let subscriber = server.likes.subscribe();
    assert_eq!(other.asks(ping.clone())["watching"], 4);
    assert_eq!(server.likes.watching(), 4);
    drop((bare, subscriber));
    eventually("two have left", || other.asks(ping.clone())["watching"] == 2);
    one.says(json!({"type": "unwatch"}));
    assert_eq!(one.asks(ping.clone())["watching"], 1);
    drop(one);
    eventually("nobody watches it", || other.asks(ping_of("p"))["watching"] == 0);
    assert_eq!(posts.watching(), 1);

    for plain in [
        json!({"type": "ping"}),
        json!({"type": "ping", "post": "p"}),
        json!({"type": "ping", "watching": false, "other": 1}),
    ] {
        other.says(plain);
        assert_eq!(other.hear(), r#"{"type":"pong"}"#);
    }
}

#[test]
fn a_watch_that_asks_is_told_how_many_watch_after_the_count() {
    let (server, _posts) = in_memory(|_| ());
    let mut other = Client::of_json(server.addr);
    other.watches("p");
    let mut client = Client::of_json(server.addr);
    for _ in 0..2 {
        assert_eq!(client.asks(json!({"type": "watch", "post": "p", "watching": true}))["type"], "count");
        assert_eq!(client.told(), json!({"type": "watching", "post": "p", "watching": 2}));
    }
    assert_eq!(client.asks(json!({"type": "watch", "watching": true}))["numLikes"], 0);
    assert_eq!(client.hear(), r#"{"type":"watching","watching":1}"#);
    let (status, _) = refused(&mut client, json!({"type": "watch", "post": "p", "visitor": "a", "watching": true}));
    assert_eq!((status, client.told_before_pong().len()), (400, 0));
}

#[test]
fn how_many_watch_is_not_told_where_other_servers_may_have_more_of_them() {
    let (likes, _feed) = fed(16);
    let server = Running::serve(Folder::new(), likes, |server| server);
    let mut client = Client::of_json(server.addr);
    assert_eq!(client.asks(json!({"type": "watch", "watching": true}))["numLikes"], 16);
    assert_eq!(client.hear(), r#"{"type":"watching"}"#);
    client.says(json!({"type": "ping", "watching": true}));
    assert_eq!(client.hear(), r#"{"type":"pong"}"#);
}

#[test]
fn how_many_watch_a_post_that_may_not_exist_is_refused() {
    let posts = Posts::with_store(memory_of_many(|_| Ending::Saved)).unwrap();
    let counter = posts.default_counter().unwrap();
    let allowed = AllowedPosts::new(["p"]).unwrap();
    let server = Running::serve(Folder::new(), counter, |server| server.limits(patient()).allow_posts(allowed));
    let mut client = Client::of_json(server.addr);
    let ping = |post: &str| json!({"type": "ping", "post": post, "watching": true, "ref": "a"});
    assert_eq!(refused(&mut client, ping("q")).0, 404);
    assert_eq!(refused(&mut client, ping("")).0, 400);
    assert_eq!(client.asks(ping("p")), json!({"type": "pong", "post": "p", "watching": 0}));
    let file = Running::with_count(16);
    let mut client = Client::of_json(file.addr);
    assert_eq!(refused(&mut client, ping("p")).0, 400);
    assert_eq!(client.asks(json!({"type": "ping", "watching": true})), json!({"type": "pong", "watching": 0}));
}

// --- answers ---

#[test]
fn each_change_is_answered_to_the_client_that_made_it_alone() {
    let (server, _posts) = in_memory(|_| ());
    let (mut client, mut other) = (Client::of_json(server.addr), Client::of_json(server.addr));
    other.watches("p");
    for (change, answer) in [
        (r#"{"type":"like","post":"p"}"#, r#"{"type":"answer","post":"p","numLikes":1,"version":1}"#),
        (
            r#"{"type":"like","post":"p","ref":"é\"\u0000"}"#,
            r#"{"type":"answer","ref":"é\"\u0000","post":"p","numLikes":2,"version":2}"#,
        ),
        (
            r#"{"type":"like","post":"p","visitor":"anna-0123456789abcdef","seq":7,"ref":"a"}"#,
            r#"{"type":"answer","ref":"a","post":"p","liked":true,"numLikes":3,"version":3}"#,
        ),
        (
            r#"{"type":"unlike","post":"p","visitor":"anna-0123456789abcdef","seq":8,"ref":""}"#,
            r#"{"type":"answer","ref":"","post":"p","liked":false,"numLikes":2,"version":4}"#,
        ),
        (r#"{"type":"like","other":[{}]}"#, r#"{"type":"answer","numLikes":1,"version":5}"#),
        (
            r#"{"type":"like","visitor":"anna-0123456789abcdef"}"#,
            r#"{"type":"answer","liked":true,"numLikes":2,"version":6}"#,
        ),
    ] {
        client.say(change);
        assert_eq!(client.hear(), answer);
    }
    let count = |likes, version| json!({"type": "count", "post": "p", "numLikes": likes, "version": version});
    assert_eq!(other.told_before_pong(), [count(1, 1), count(2, 2), count(3, 3), count(2, 4)]);
}

#[test]
fn a_change_is_answered_and_shown_only_once_it_is_durable() {
    let (server, _posts, script) = on_script();
    let (mut client, mut other) = (Client::of_json(server.addr), Client::of_json(server.addr));
    other.watches("p");
    client.says(json!({"type": "like", "post": "p", "visitor": ANNA, "ref": "a"}));
    assert_eq!(script.save(), 1);
    script.end(Ending::Written);
    script.save();
    assert_eq!((client.told_before_pong(), other.told_before_pong()), (vec![], vec![]));
    script.end(Ending::Saved);
    let answer = json!({"type": "answer", "ref": "a", "post": "p", "liked": true, "numLikes": 1, "version": 1});
    assert_eq!(client.told(), answer);
    assert_eq!(other.told(), json!({"type": "count", "post": "p", "numLikes": 1, "version": 1}));
}

#[test]
fn changes_that_are_saved_together_are_each_answered_with_their_own_count() {
    let (server, _posts, script) = on_script();
    let mut client = Client::of_json(server.addr);
    client.says(json!({"type": "like", "post": "p"}));
    script.save();
    for reference in 0..5 {
        client.says(json!({"type": "like", "post": "p", "ref": reference.to_string()}));
        client.says(json!({"type": "like", "post": "q", "visitor": ANNA, "seq": 9 - reference}));
    }
    client.told_before_pong();
    script.end(Ending::Saved);
    assert_eq!(client.told()["numLikes"], 1);
    assert_eq!(script.save(), 10);
    script.end(Ending::Saved);
    for reference in 0..5_u64 {
        let (reference, count) = (reference.to_string(), reference + 2);
        let answer = json!({"type": "answer", "ref": reference, "post": "p", "numLikes": count, "version": count});
        assert_eq!(client.told(), answer);
        let answer = json!({"type": "answer", "post": "q", "liked": true, "numLikes": 1, "version": 7});
        assert_eq!(client.told(), answer);
    }
}

/// What is refused, with its status; the connection stays.
#[track_caller]
fn refused(client: &mut Client, message: Value) -> (u64, String) {
    let refused = client.asks(message.clone());
    let (status, problem) = (refused["status"].as_u64(), refused["problem"].as_str());
    let (Some(status), Some(problem)) = (status, problem) else { panic!("{message} was to be refused: {refused}") };
    let mut expected = json!({"type": "refused", "status": status, "problem": problem});
    for key in ["ref", "post"] {
        if let Some(value) = message.get(key) {
            expected[key] = value.clone();
        }
    }
    assert_eq!(refused, expected);
    assert_eq!(client.told_before_pong(), [Value::Null; 0], "nothing more of {message}");
    (status, problem.to_owned())
}

#[test]
fn what_is_understood_and_not_granted_is_refused_with_the_status_of_http_and_the_connection_stays() {
    let (server, posts) = in_memory(|_| ());
    let mut client = Client::of_json(server.addr);
    for kind in ["watch", "unwatch", "like", "unlike"] {
        for (post, problem) in [
            ("", "must not be empty"),
            (&"x".repeat(201), "at most 200 bytes, and this one has 201"),
            (&"ö".repeat(101), "at most 200 bytes, and this one has 202"),
            ("a\nb", "no control characters, and this one holds U+000A"),
            ("\u{0}", "U+0000"),
            ("\u{9f}", "U+009F"),
        ] {
            let told = refused(&mut client, json!({"type": kind, "post": post, "ref": "a", "visitor": ANNA}));
            assert!(told.0 == 400 && told.1.contains(problem), "{kind} {post:?}: {told:?}");
        }
        if kind == "unwatch" {
            continue;
        }
        for visitor in ["", "0123456789abcde", &"z".repeat(65), "0123456789abcde ", "0123456789abcdé", "__proto__"] {
            let told = refused(&mut client, json!({"type": kind, "post": "p", "visitor": visitor}));
            assert_eq!(told, (400, "a visitor is named by 16 to 64 characters of A-Z a-z 0-9 - _".to_owned()));
        }
    }
    let problem = "a visitor is expected, whose like is taken back or whose change `seq` numbers";
    for message in [
        json!({"type": "unlike", "post": "p", "ref": "a"}),
        json!({"type": "unlike", "seq": 1}),
        json!({"type": "like", "post": "p", "seq": 1}),
    ] {
        assert_eq!(refused(&mut client, message), (400, problem.to_owned()));
    }
    assert_eq!((posts.watching(), posts.top(10).unwrap().len()), (0, 0));
}

#[test]
fn a_store_of_one_counter_refuses_posts_and_unlikes_with_the_flag_that_gives_them() {
    let server = Running::with_count(16);
    let mut client = Client::of_json(server.addr);
    for kind in ["watch", "like"] {
        let (status, problem) = refused(&mut client, json!({"type": kind, "post": "p", "visitor": ANNA, "ref": "a"}));
        assert!(status == 400 && problem.contains("--db likes.db"), "{status} {problem}");
    }
    let (status, problem) = refused(&mut client, json!({"type": "unlike", "visitor": ANNA, "ref": "a"}));
    assert!(status == 405 && problem.contains("--db likes.db"), "{status} {problem}");
    // As over HTTP, whatever else may be wrong with it.
    assert_eq!(refused(&mut client, json!({"type": "unlike"})).0, 405);
    assert_eq!(refused(&mut client, json!({"type": "unlike", "post": "p"})).0, 405);
    assert_eq!(sample(&server, r#"refused_total{reason="bad_request"}"#), 5.0);
    assert_eq!(client.asks(json!({"type": "like"}))["numLikes"], 17);
}

#[test]
fn a_post_that_may_not_exist_is_refused_with_404_also_once_it_may_no_longer() {
    let posts = Posts::with_store(memory_of_many(|_| Ending::Saved)).unwrap();
    let allowed = AllowedPosts::new(["p", "blog/*"]).unwrap();
    let counter = posts.default_counter().unwrap();
    let server = Running::serve(Folder::new(), counter, |server| server.limits(patient()).allow_posts(allowed.clone()));
    let mut client = Client::of_json(server.addr);
    for post in ["p", "blog/1"] {
        assert_eq!(client.watches(post)["numLikes"], 0);
        client.says(like(post, ANNA, 1));
        assert_eq!([client.told(), client.told()].map(|told| told["numLikes"] == 1), [true; 2]);
    }
    let problem = "there is no such post: it is not among those that may exist".to_owned();
    for kind in ["watch", "like", "unlike"] {
        let message = json!({"type": kind, "post": "q", "visitor": ANNA, "ref": "a"});
        assert_eq!(refused(&mut client, message), (404, problem.clone()));
    }
    allowed.replace(&AllowedPosts::new(["blog/*"]).unwrap());
    assert_eq!(refused(&mut client, unlike("p", ANNA, 2)), (404, problem.clone()));
    assert_eq!(refused(&mut client, json!({"type": "watch", "post": "p"})), (404, problem));
    assert_eq!(client.asks(json!({"type": "watch"}))["numLikes"], 0, "the default counter always may");
    assert_eq!(posts.counts(&["p", "q", "blog/1"]).unwrap().iter().map(|count| count.likes).sum::<u64>(), 2);
}

#[test]
fn a_change_that_the_store_does_not_take_is_refused_and_the_connection_stays() {
    let mut endings = [
        Ending::Each(Outcome::Refused(Refused::Likes)),
        Ending::Each(Outcome::Refused(Refused::Posts)),
        Ending::Each(Outcome::Refused(Refused::Visitors)),
        Ending::NotSaved,
    ]
    .into_iter();
    let save = move |likes| if likes == 0 { Ending::Saved } else { endings.next().unwrap_or(Ending::Saved) };
    let server = serve(&Posts::with_store(memory_of_many(save)).unwrap(), |_| ());
    let mut client = Client::of_json(server.addr);
    let like = json!({"type": "like", "post": "p", "visitor": ANNA, "seq": 1, "ref": "a"});
    for (status, problem) in [
        (409, "the count is as large as it can be"),
        (507, "there is no room for a further post"),
        (507, "there is no room for a further visitor"),
        (503, "likes cannot be saved just now; try again later"),
    ] {
        assert_eq!(refused(&mut client, like.clone()), (status, problem.to_owned()));
    }
    // Until then it is known before the store is asked.
    eventually("likes can be saved again", || get(server.addr, "/healthz").status == 200);
    assert_eq!(client.asks(like)["numLikes"], 1);
    assert_eq!(sample(&server, r#"refused_total{reason="unavailable"}"#), 4.0);
}

#[test]
fn a_change_whose_outcome_the_store_does_not_know_is_answered_once_it_does_and_counts_once() {
    for written in [true, false] {
        let (server, posts, script) = on_script();
        let (mut client, mut other) = (Client::of_json(server.addr), Client::of_json(server.addr));
        other.watches("p");
        client.says(like("p", ANNA, 1));
        script.save();
        if written {
            script.end(Ending::Written);
            script.save();
        }
        script.end(Ending::Unknown);
        script.save(); // it is given again
        assert_eq!((client.told_before_pong(), other.told_before_pong()), (vec![], vec![]));
        script.end(Ending::Saved);
        assert_eq!(client.told(), answer("p", true, 1, 1));
        assert_eq!(other.told(), json!({"type": "count", "post": "p", "numLikes": 1, "version": 1}));
        assert_eq!(posts.counts(&["p"]).unwrap()[0].likes, 1);
    }
}

#[test]
fn a_change_whose_save_fails_is_refused_at_once() {
    let (server, _posts, script) = on_script();
    let mut client = Client::of_json(server.addr);
    client.says(like("p", ANNA, 1));
    script.save();
    assert_eq!(client.told_before_pong(), Vec::<Value>::new());
    let start = Instant::now();
    script.end(Ending::NotSaved);
    assert_eq!(client.told()["status"], 503);
    assert!(start.elapsed() < Duration::from_secs(2), "not only when a save would take too long");
}

#[test]
fn changes_that_are_refused_at_once_are_not_without_an_answer() {
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = broken.clone();
    let save = move |_| if is_broken.load(Ordering::SeqCst) { Ending::NotSaved } else { Ending::Saved };
    let server = serve(&Posts::with_store(memory_of_many(save)).unwrap(), |_| ());
    let mut client = Client::of_json(server.addr);
    for _ in 0..2 * MOST_UNANSWERED {
        assert_eq!(client.asks(json!({"type": "like"}))["status"], 503);
    }
    broken.store(false, Ordering::SeqCst);
    eventually("likes can be saved again", || get(server.addr, "/healthz").status == 200);
    assert_eq!(client.asks(like("p", ANNA, 1)), answer("p", true, 1, 1));
}

#[test]
fn a_change_whose_save_hangs_is_refused_after_5_s_and_counts_once_when_it_is_said_again() {
    let (server, _posts, script) = on_script();
    let (mut client, mut other) = (Client::of_json(server.addr), Client::of_json(server.addr));
    other.asks(json!({"type": "watch", "post": "p", "visitor": ANNA}));
    let like = json!({"type": "like", "post": "p", "visitor": ANNA, "seq": 1, "ref": "a"});
    let start = Instant::now();
    client.says(like.clone());
    script.save();
    let problem = "saving takes too long: it is not known whether the like will count";
    let refused_late = json!({"type": "refused", "ref": "a", "post": "p", "status": 503, "problem": problem});
    assert_eq!(client.told(), refused_late);
    assert!(start.elapsed() >= Duration::from_secs(5));
    let problem = "likes cannot be saved just now; try again later";
    assert_eq!(refused(&mut client, like.clone()), (503, problem.to_owned()));
    script.end(Ending::Saved);
    let count = json!({"type": "count", "post": "p", "numLikes": 1, "version": 1, "liked": true});
    assert_eq!(other.told(), count);
    drop(script);
    let answer = json!({"type": "answer", "ref": "a", "post": "p", "liked": true, "numLikes": 1, "version": 1});
    assert_eq!(client.asks(like), answer);
}

#[test]
fn the_limits_on_likes_hold_and_past_them_a_like_is_refused_with_429() {
    let (server, posts) = in_memory(|limits| limits.likes_per_connection = Some(2));
    let (mut client, mut other) = (Client::of_json(server.addr), Client::of_json(server.addr));
    let like = |kind: &str| json!({"type": kind, "post": "p", "visitor": ANNA, "ref": "a"});
    // One that is not understood to be anybody's is not counted among them.
    assert_eq!(refused(&mut client, json!({"type": "unlike"})).0, 400);
    client.asks(like("like"));
    client.asks(like("unlike"));
    let told = refused(&mut client, like("like"));
    assert_eq!(told, (429, "too many likes: at most 2 per connection are allowed".to_owned()));
    assert_eq!(client.watches("p")["numLikes"], 0, "it may watch");
    assert_eq!(other.asks(like("like"))["numLikes"], 1, "another may like");
    assert_eq!(posts.counts(&["p"]).unwrap()[0].likes, 1);

    let (server, _posts) = in_memory(|limits| limits.likes_per_second_and_address = Some(1));
    let (mut client, mut other) = (Client::of_json(server.addr), Client::of_json(server.addr));
    let told = [client.asks(like("like")), other.asks(like("like")), client.asks(like("like"))];
    let refused: Vec<_> = told.iter().filter(|told| told["status"] == 429).collect();
    assert!(!refused.is_empty(), "{told:?}");
    let problem = "too many likes: at most 1 per second and address are allowed";
    assert!(refused.iter().all(|told| told["problem"] == problem), "{told:?}");
    assert_eq!(sample(&server, r#"refused_total{reason="rate"}"#), refused.len() as f64);
    client.told_before_pong();
}

#[test]
fn a_post_that_is_liked_again_is_not_read_again() {
    let (server, posts, mut script) = on_script_with(|limits| limits.new_posts_per_hour_and_address = 1);
    script.end_all();
    let mut client = Client::of_json(server.addr);
    client.asks(json!({"type": "like", "post": "p"}));
    for likes in 2..10 {
        // As it is not in use, whoever wants its count reads it.
        eventually("it is not in use", || {
            let before = script.reads();
            assert_eq!(posts.post("p").unwrap().count(), likes - 1);
            script.reads() > before
        });
        let before = script.reads();
        assert_eq!(client.asks(json!({"type": "like", "post": "p"}))["numLikes"], likes);
        assert_eq!(script.reads(), before);
    }
}

#[test]
fn likes_of_a_new_post_that_come_before_the_first_is_saved_are_of_one_new_post() {
    let (server, _posts, script) = on_script_with(|limits| limits.new_posts_per_hour_and_address = 2);
    let mut clients = [Client::of_json(server.addr), Client::of_json(server.addr)];
    for client in &mut clients {
        (0..10).for_each(|_| client.says(json!({"type": "like", "post": "p"})));
        assert_eq!(client.told_before_pong(), [Value::Null; 0]);
    }
    let client = &mut clients[0];
    client.says(json!({"type": "like", "post": "q"}));
    let (status, problem) = refused(client, json!({"type": "like", "post": "r"}));
    assert!(status == 429 && problem.contains("new posts"), "{status} {problem}");
    drop(script);
    let told = client.told_until(|told| told["post"] == "q");
    assert!(told.iter().all(|told| told["type"] == "answer"), "{told:?}");
    assert_eq!(client.asks(json!({"type": "like", "post": "q"}))["numLikes"], 2, "it is no new one any more");
    assert_eq!(refused(client, json!({"type": "like", "post": "r"})).0, 429);
    assert_eq!(client.watches("r")["numLikes"], 0);
}

// --- what is no message ---

#[test]
fn what_is_no_message_closes_the_connection_with_1008_and_what_was_expected() {
    let (server, posts) = in_memory(|_| ());
    let kinds = r#"expected a "type": watch, unwatch, like, unlike or ping"#;
    let long_ref = format!(r#"{{"type":"like","ref":"{}"}}"#, "é".repeat(33));
    let cases = [
        ("like", "expected a JSON object"),
        ("", "expected a JSON object"),
        ("null", "expected a JSON object"),
        (r#"[{"type":"like"}]"#, "expected a JSON object"),
        (r#"{"type":"like"}{"type":"like"}"#, "expected a JSON object"),
        (r#"{"type":"like""#, "expected a JSON object"),
        (r#"{"type":"like","post":"\ud83d"}"#, r#"expected a string as "post""#),
        ("{}", kinds),
        (r#"{"type":"dislike"}"#, kinds),
        (r#"{"type":null}"#, kinds),
        (r#"{"type":["like"]}"#, kinds),
        (r#"{"type":"count","numLikes":3}"#, kinds),
        (r#"{"type":"watch","post":null}"#, r#"expected a string as "post""#),
        (r#"{"type":"unwatch","post":1}"#, r#"expected a string as "post""#),
        (r#"{"type":"watch","visitor":["anna-0123456789abcdef"]}"#, r#"expected a string as "visitor""#),
        (r#"{"type":"like","seq":"1"}"#, r#"expected a whole number below 2^53 as "seq""#),
        (r#"{"type":"like","seq":9007199254740992}"#, r#"expected a whole number below 2^53 as "seq""#),
        (r#"{"type":"like","seq":-1}"#, r#"expected a whole number below 2^53 as "seq""#),
        (r#"{"type":"like","seq":null}"#, r#"expected a whole number below 2^53 as "seq""#),
        (r#"{"type":"like","ref":1}"#, r#"expected a string as "ref""#),
        (r#"{"type":"ping","watching":1}"#, r#"expected true or false as "watching""#),
        (&long_ref, r#"expected at most 64 bytes as "ref""#),
    ];
    for (text, expected) in cases {
        let mut client = Client::of_json(server.addr);
        client.watches("p");
        client.say(text);
        // What comes after a mistake is not read.
        let _ = client.socket.send(Message::text(r#"{"type":"like","post":"p"}"#));
        assert_eq!(client.closed(), (1008, expected.to_owned()), "{text}");
    }
    assert_eq!(sample(&server, r#"refused_total{reason="bad_message"}"#), cases.len() as f64);
    assert_eq!(posts.counts(&["p"]).unwrap()[0].version, 0);
    eventually("nobody watches", || posts.watching() == 0);
}

#[test]
fn a_binary_message_is_closed_with_1003_and_one_that_is_too_long_with_1009() {
    let (server, _posts) = in_memory(|_| ());
    for (message, code) in [
        (Message::binary(&br#"{"type":"ping"}"#[..]), 1003),
        (Message::text(json!({"type": "ping", "other": "x".repeat(4096)}).to_string()), 1009),
    ] {
        let mut client = Client::of_json(server.addr);
        client.socket.send(message).unwrap();
        assert_eq!(client.closed().0, code);
    }
}

// --- certain likes ---

fn like(post: &str, visitor: &str, seq: u64) -> Value {
    json!({"type": "like", "post": post, "visitor": visitor, "seq": seq})
}

fn unlike(post: &str, visitor: &str, seq: u64) -> Value {
    json!({"type": "unlike", "post": post, "visitor": visitor, "seq": seq})
}

fn answer(post: &str, liked: bool, likes: u64, version: u64) -> Value {
    json!({"type": "answer", "post": post, "liked": liked, "numLikes": likes, "version": version})
}

#[test]
fn a_visitor_s_like_counts_once_however_often_and_from_wherever_it_is_said() {
    let (server, posts) = in_memory(|_| ());
    let first = answer("p", true, 1, 1);
    for _ in 0..3 {
        let (mut one, mut other) = (Client::of_json(server.addr), Client::of_json(server.addr));
        for client in [&mut one, &mut other] {
            assert_eq!(client.asks(like("p", ANNA, 1)), first);
            let mut without_seq = like("p", ANNA, 1);
            without_seq.as_object_mut().unwrap().remove("seq");
            assert_eq!(client.asks(without_seq), first);
        }
        assert_eq!(posts.post("p").unwrap().set_liked(ANNA, true, Some(1)).unwrap().count.likes, 1);
        let told = ask(server.addr, "PUT", &format!("/like?post=p&visitor={ANNA}&seq=1"), &[]);
        assert_eq!(told.body, r#"{"numLikes":1,"liked":true,"version":1}"#);
    }
    let mut client = Client::of_json(server.addr);
    assert_eq!(client.asks(like("q", ANNA, 1)), answer("q", true, 1, 2), "another post");
    assert_eq!(client.asks(like("p", BERT, 1)), answer("p", true, 2, 3), "another visitor");
    assert_eq!(client.asks(json!({"type": "like", "post": "p"}))["numLikes"], 3);
    assert_eq!(client.asks(json!({"type": "like", "post": "p"}))["numLikes"], 4, "nobody in particular");
}

#[test]
fn a_like_that_comes_after_the_unlike_that_followed_it_changes_nothing() {
    let (server, _posts) = in_memory(|_| ());
    let (mut client, mut late) = (Client::of_json(server.addr), Client::of_json(server.addr));
    client.asks(like("p", ANNA, 1));
    assert_eq!(client.asks(unlike("p", ANNA, 4)), answer("p", false, 0, 2));
    for seq in [1, 3, 4] {
        assert_eq!(late.asks(like("p", ANNA, seq)), answer("p", false, 0, 2), "it is told the present state");
    }
    assert_eq!(late.asks(like("p", ANNA, 5)), answer("p", true, 1, 3));
    assert_eq!(client.asks(unlike("p", ANNA, 4)), answer("p", true, 1, 3));
    assert_eq!(client.asks(unlike("p", ANNA, (1 << 53) - 1)), answer("p", false, 0, 4));
    assert_eq!(client.asks(like("p", ANNA, (1 << 53) - 1)), answer("p", false, 0, 4));
    // An unlike of what was never liked has a number too.
    assert_eq!(client.asks(unlike("p", BERT, 2)), answer("p", false, 0, 4));
    assert_eq!(client.asks(like("p", BERT, 1)), answer("p", false, 0, 4));
}

/// Numbers that look like chance, the same each time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        // Knuth's linear congruential generator; its high bits are the better ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// What is to be kept: the highest number of each visitor and post, and its mind; and likes from nobody.
#[derive(Default)]
struct Model {
    minds: BTreeMap<(String, String), (u64, bool)>,
    likes: BTreeMap<String, u64>,
}

impl Model {
    fn change(&mut self, post: &str, visitor: &str, seq: u64, liked: bool) {
        let mind = self.minds.entry((post.to_owned(), visitor.to_owned())).or_default();
        if seq > mind.0 {
            *mind = (seq, liked);
        }
    }

    fn likes(&self, post: &str) -> u64 {
        let liked = self.minds.iter().filter(|((of, _), (_, liked))| of == post && *liked).count();
        self.likes.get(post).copied().unwrap_or_default() + liked as u64
    }
}

#[test]
fn of_changes_in_any_order_over_any_connections_the_last_of_each_visitor_holds() {
    for seed in 0..20 {
        let (server, posts) = in_memory(|_| ());
        let mut clients: Vec<_> = (0..3).map(|_| Client::of_json(server.addr)).collect();
        let (mut chance, mut model) = (Chance(seed), Model::default());
        for _ in 0..200 {
            let post = ["p", "q", "r"][chance.below(3) as usize];
            let visitor = [ANNA, BERT][chance.below(2) as usize];
            // The same number may come with either mind; what comes first holds.
            let (seq, liked) = (1 + chance.below(30), chance.below(2) == 0);
            let client = &mut clients[chance.below(3) as usize];
            let told = match chance.below(10) {
                0 => {
                    *model.likes.entry(post.to_owned()).or_default() += 1;
                    client.asks(json!({"type": "like", "post": post}))
                }
                1 => {
                    posts.post(post).unwrap().set_liked(visitor, liked, Some(seq)).unwrap();
                    model.change(post, visitor, seq, liked);
                    continue;
                }
                2 => {
                    *client = Client::of_json(server.addr);
                    continue;
                }
                _ => {
                    model.change(post, visitor, seq, liked);
                    let told = client.asks(if liked { like(post, visitor, seq) } else { unlike(post, visitor, seq) });
                    assert_eq!(told["liked"], model.minds[&(post.to_owned(), visitor.to_owned())].1, "{seed}");
                    told
                }
            };
            assert_eq!(told["numLikes"], model.likes(post), "{seed}");
        }
        for post in ["p", "q", "r"] {
            assert_eq!(posts.counts(&[post]).unwrap()[0].likes, model.likes(post), "{seed}");
        }
    }
}

#[test]
fn a_change_of_mind_is_told_with_the_last_of_the_counts_that_are_shown_at_once() {
    let (server, posts, script) = on_script();
    let (mut tab, mut client) = (Client::of_json(server.addr), Client::of_json(server.addr));
    tab.asks(json!({"type": "watch", "post": "p", "visitor": ANNA}));
    client.says(json!({"type": "like", "post": "q"}));
    script.save();
    for change in [like("p", BERT, 1), like("p", ANNA, 1), unlike("p", BERT, 2)] {
        client.says(change);
    }
    client.told_before_pong();
    script.end(Ending::Saved);
    script.save();
    script.end(Ending::Saved);
    let count = |likes, version| json!({"type": "count", "post": "p", "numLikes": likes, "version": version});
    let mut last = count(1, 4);
    last["liked"] = true.into();
    assert_eq!([tab.told(), tab.told(), tab.told()], [count(1, 2), count(2, 3), last]);
    assert_eq!(posts.watching(), 1);
}

#[test]
fn a_change_of_mind_is_told_to_all_tabs_of_the_visitor_wherever_it_is_made() {
    let (server, posts) = in_memory(|_| ());
    posts.post("p").unwrap().like().unwrap();
    let mut tabs: Vec<_> = (0..4).map(|_| Client::of_json(server.addr)).collect();
    for (tab, visitor) in tabs.iter_mut().zip([Some(ANNA), Some(ANNA), Some(BERT), None]) {
        let mut watch = json!({"type": "watch", "post": "p"});
        if let Some(visitor) = visitor {
            watch["visitor"] = visitor.into();
        }
        tab.asks(watch);
    }
    for version in 2..=13 {
        let liked = version % 2 == 0;
        let likes = if liked { 2 } else { 1 };
        let change = if liked { like("p", ANNA, version) } else { unlike("p", ANNA, version) };
        match version % 4 {
            // Each of the tabs, a client that watches nothing, and other ways.
            0 | 1 => tabs[version as usize % 2].says(change),
            2 if version > 4 => _ = Client::of_json(server.addr).asks(change),
            2 => _ = posts.post("p").unwrap().set_liked(ANNA, liked, Some(version)).unwrap(),
            _ => {
                let (method, target) = (if liked { "PUT" } else { "DELETE" }, "/like?post=p&visitor=");
                let told = ask(server.addr, method, &format!("{target}{ANNA}&seq={version}"), &[]);
                assert_eq!(told.body, format!(r#"{{"numLikes":{likes},"liked":{liked},"version":{version}}}"#));
            }
        }
        let count = json!({"type": "count", "post": "p", "numLikes": likes, "version": version});
        let mut with_mind = count.clone();
        with_mind["liked"] = liked.into();
        for (index, tab) in tabs.iter_mut().enumerate() {
            let told = tab.told_until(|told| told["type"] == "count");
            assert_eq!(told.last(), Some(if index < 2 { &with_mind } else { &count }), "tab {index}");
        }
    }
}

// --- clients that are behind ---

/// A client of a post with a long name that has been shown so much that it is behind; and what it was shown first.
fn behind(server: &Running, likes: &Likes, watch: &Value) -> (Client, Value) {
    let mut client = Client::of_json_over(connect_narrow(server.addr));
    let first = client.asks(watch.clone());
    while sample(server, "behind") == 0.0 {
        (0..50).for_each(|_| _ = likes.like().unwrap());
    }
    (client, first)
}

#[test]
fn a_tab_that_was_behind_ends_at_the_newest_count_and_whether_its_visitor_likes_the_post() {
    let (server, posts) = in_memory(|_| ());
    let post = "p".repeat(200);
    let likes = posts.post(&post).unwrap();
    for (seq, changes) in [(1, &[true][..]), (11, &[false]), (21, &[true, false, true, false]), (31, &[false, true])] {
        let watch = json!({"type": "watch", "post": post, "visitor": ANNA});
        let (mut tab, first) = behind(&server, &likes, &watch);
        for (liked, seq) in changes.iter().zip(seq..) {
            likes.set_liked(ANNA, *liked, Some(seq)).unwrap();
            likes.set_liked(BERT, !liked, Some(seq)).unwrap();
            (0..10).for_each(|_| _ = likes.like().unwrap());
        }
        let newest = posts.counts(&[&post]).unwrap()[0];
        let (mut liked, mut last) = (first["liked"].as_bool(), 0);
        while last < newest.version {
            let told = tab.told();
            liked = told["liked"].as_bool().or(liked);
            assert!(told["version"].as_u64().unwrap() > last, "{told} came after version {last}");
            last = told["version"].as_u64().unwrap();
            assert!(last < newest.version || told["numLikes"] == newest.likes, "{told}");
        }
        assert_eq!(liked.as_ref(), changes.last(), "{changes:?}");
        // It hears of the next change at once.
        likes.set_liked(ANNA, !liked.unwrap(), None).unwrap();
        assert_eq!(tab.told()["liked"], !liked.unwrap());
    }
}

#[test]
fn no_more_than_64_changes_of_a_client_are_without_an_answer_and_all_are_answered_in_the_end() {
    let (server, posts, script) = on_script();
    let (mut client, mut other) = (Client::of_json(server.addr), Client::of_json(server.addr));
    for reference in 0..200 {
        client.says(json!({"type": "like", "post": "p", "ref": reference.to_string()}));
    }
    client.says(json!({"type": "ping"}));
    // Others are not held up, and what they say is saved with the next batch.
    let mut saved = script.save();
    assert!(saved <= MOST_UNANSWERED);
    other.says(json!({"type": "like", "post": "q"}));
    other.told_before_pong();
    script.end(Ending::Saved);
    let mut largest = 0;
    while saved < 201 {
        let likes = script.save();
        largest = largest.max(likes);
        saved += likes;
        script.end(Ending::Saved);
    }
    assert!(largest <= MOST_UNANSWERED + 1, "{largest} at once");
    let mut told: Vec<_> = (0..201).map(|_| client.told()).collect();
    told.retain(|told| *told != json!({"type": "pong"}));
    for (reference, told) in told.iter().enumerate() {
        assert_eq!((&told["type"], &told["numLikes"]), (&json!("answer"), &json!(reference + 1)));
        assert_eq!(told["ref"], reference.to_string());
    }
    assert_eq!(told.len(), 200);
    assert_eq!(other.told()["type"], "answer");
    assert_eq!(posts.counts(&["p", "q"]).unwrap().iter().map(|count| count.likes).collect::<Vec<_>>(), [200, 1]);
}

#[test]
fn a_client_that_reads_no_answers_is_read_no_further_dropped_at_the_write_deadline_and_delays_nobody() {
    let (server, posts) = in_memory(|limits| limits.write_deadline = Duration::from_secs(1));
    let (mut client, mut other) = (Client::of_json_over(connect_narrow(server.addr)), Client::of_json(server.addr));
    other.watches("q");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let like = json!({"type": "like", "post": "p", "ref": "r".repeat(64)}).to_string();
            while client.socket.send(Message::text(like.as_str())).is_ok() {}
            over.store(true, Ordering::Relaxed);
        });
        for likes in 1.. {
            other.says(json!({"type": "like", "post": "q", "ref": "a"}));
            let told = [other.told(), other.told()];
            assert!(told.iter().all(|told| told["numLikes"] == likes), "{told:?}");
            if over.load(Ordering::Relaxed) {
                break;
            }
        }
    });
    eventually("it is dropped", || sample(&server, "dropped_total") == 1.0);
    // No more than there is room for the answers of, in the kernel and here.
    let likes = posts.counts(&["p"]).unwrap()[0].likes;
    assert!(likes < 5_000, "{likes} likes were taken whose answers are not read");
}

// --- many at once ---

#[test]
fn a_post_that_is_unwatched_and_watched_again_a_thousand_times_while_likes_come_is_shown_by_rising_versions_alone() {
    let (server, posts) = in_memory(|_| ());
    let names = ["p", "q", "r"];
    let likes = names.map(|name| posts.post(name).unwrap());
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for mine in &likes {
            let (over, likes) = (&over, &likes);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    likes.iter().for_each(|likes| likes.like_without_waiting().unwrap());
                    mine.like().unwrap();
                }
            });
        }
        let watcher = scope.spawn(|| {
            let mut client = Client::of_json(server.addr);
            let mut last = HashMap::new();
            for turn in 0..1_000 {
                let name = names[turn % 3];
                let watch = json!({"type": "watch", "post": name});
                client.says(watch.clone());
                if turn % 2 == 0 {
                    // At once, without waiting for what is said of it.
                    client.says(json!({"type": "unwatch", "post": name}));
                    client.says(watch);
                }
                let mut told = client.told_before_pong();
                client.says(json!({"type": "unwatch", "post": name}));
                told.extend(client.told_before_pong());
                assert!(!told.is_empty());
                for told in told {
                    assert_eq!((&told["type"], &told["post"]), (&json!("count"), &json!(name)));
                    let version = told["version"].as_u64().unwrap();
                    let last = last.insert(name, version).unwrap_or_default();
                    assert!(version >= last, "{told} came after version {last}");
                }
            }
        });
        let watched = watcher.join();
        over.store(true, Ordering::Relaxed);
        watched.unwrap();
    });
    assert_eq!(posts.watching(), 0);
}

/// Clients that watch and like many posts at random, each with a visitor of its own: all end at the exact counts.
fn many_clients_of_many_posts(server: &Running, posts: &Posts, changes: usize) {
    const CLIENTS: usize = 12;
    const WATCHED: usize = 10;
    let names: Vec<_> = (0..30).map(|post| format!("post {post}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let run = |index: usize| {
        let mut client = Client::of_json(server.addr);
        let (mut chance, mut model) = (Chance(index as u64), Model::default());
        let visitor = format!("visitor-of-client-{index}");
        let watched: Vec<_> = (0..WATCHED).map(|post| names[(post * 7 + index) % names.len()]).collect();
        for post in &watched {
            client.says(json!({"type": "watch", "post": post, "visitor": visitor}));
        }
        for seq in 1..=changes as u64 {
            let post = names[chance.below(names.len() as u64) as usize];
            let liked = chance.below(3) > 0;
            if chance.below(4) == 0 {
                *model.likes.entry(post.to_owned()).or_default() += 1;
                client.says(json!({"type": "like", "post": post}));
            } else {
                model.change(post, &visitor, seq, liked);
                client.says(if liked { like(post, &visitor, seq) } else { unlike(post, &visitor, seq) });
            }
        }
        // What it is shown of each post: the last version, with its count, and the last mind.
        let mut shown = HashMap::<String, (u64, u64)>::new();
        let mut minds = HashMap::new();
        let mut answers = 0;
        let mut take = |told: Value| {
            let post = told["post"].as_str().unwrap().to_owned();
            let (version, likes) = (told["version"].as_u64().unwrap(), told["numLikes"].as_u64().unwrap());
            if told["type"] == "answer" {
                return true;
            }
            assert_eq!(told["type"], "count");
            if let Some(liked) = told.get("liked") {
                minds.insert(post.clone(), *liked == true);
            }
            let before = shown.insert(post, (version, likes));
            assert!(before.is_none_or(|(before, _)| before < version), "{told} came after {before:?}");
            false
        };
        while answers < changes {
            answers += usize::from(take(client.told()));
        }
        (client, model, watched, shown, minds)
    };
    let ended = thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = (0..CLIENTS).map(|index| scope.spawn(move || run(index))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let newest = posts.counts(&names).unwrap();
    for (name, count) in names.iter().zip(&newest) {
        assert_eq!(count.likes, ended.iter().map(|(_, model, ..)| model.likes(name)).sum::<u64>(), "{name}");
    }
    for (index, (mut client, model, watched, mut shown, mut minds)) in ended.into_iter().enumerate() {
        for post in watched {
            let newest = newest[names.iter().position(|name| *name == post).unwrap()];
            while shown.get(post).is_none_or(|shown| shown.0 < newest.version) {
                let told = client.told();
                assert_eq!(told["type"], "count");
                let told_of = told["post"].as_str().unwrap().to_owned();
                if let Some(liked) = told.get("liked") {
                    minds.insert(told_of.clone(), *liked == true);
                }
                shown.insert(told_of, (told["version"].as_u64().unwrap(), told["numLikes"].as_u64().unwrap()));
            }
            assert_eq!(shown[post], (newest.version, newest.likes), "{post}");
            let mind = model.minds.get(&(post.to_owned(), format!("visitor-of-client-{index}")));
            assert_eq!(minds[post], mind.is_some_and(|mind| mind.1), "{post}");
        }
        assert_eq!(client.told_before_pong(), [Value::Null; 0]);
    }
    eventually("nobody watches", || posts.watching() == 0);
}

#[test]
fn many_clients_of_many_posts_all_end_at_the_exact_counts() {
    let (server, posts) = in_memory(|_| ());
    many_clients_of_many_posts(&server, &posts, 300);
}

#[test]
fn clients_of_either_dialect_and_of_two_servers_are_shown_the_same_and_each_is_closed_by_its_own_server() {
    let (mut server, posts) = in_memory(|_| ());
    let second = serve(&posts, |_| ());
    let (mut bare, mut json) = (Client::new(server.addr), Client::of_json(server.addr));
    let mut other = Client::of_json(second.addr);
    assert_eq!(bare.count(), 0);
    for client in [&mut json, &mut other] {
        assert_eq!(client.asks(json!({"type": "watch"}))["numLikes"], 0);
    }
    bare.like();
    assert_eq!(bare.count(), 1);
    let count = json!({"type": "count", "numLikes": 1, "version": 1});
    assert_eq!((json.told(), other.told()), (count.clone(), count));
    json.says(json!({"type": "like", "visitor": ANNA}));
    assert_eq!(bare.count(), 2);
    server.begin_stop();
    assert_eq!((json.closed().0, bare.closed().0), (1001, 1001));
    drop((json, bare));
    server.wait().unwrap();
    assert_eq!(other.told()["numLikes"], 2);
    other.says(json!({"type": "like"}));
    let told = [other.told(), other.told()];
    assert!(told.contains(&json!({"type": "count", "numLikes": 3, "version": 3})), "{told:?}");
    assert_eq!(posts.watching(), 1);
}

// --- leaving, and the end ---

#[test]
fn clients_that_leave_in_the_middle_of_everything_leave_nothing_behind() {
    let ways: [fn(Client); 3] = [
        drop,
        |client| reset(client.socket.get_ref().try_clone().unwrap()),
        |mut client| client.socket.close(None).unwrap(),
    ];
    for leave in ways {
        let (server, posts, mut script) = on_script();
        let read = script.hold_read();
        let mut reads = Client::of_json(server.addr);
        reads.says(json!({"type": "watch", "post": "r", "visitor": ANNA}));
        read.has_begun();
        let mut likes = Client::of_json(server.addr);
        likes.watches("p");
        likes.watches("q");
        (0..MOST_UNANSWERED + 6).for_each(|seq| likes.says(like("q", ANNA, seq)));
        let mut listens = Client::of_json(server.addr);
        listens.asks(json!({"type": "watch", "post": "q", "visitor": ANNA}));
        script.save();
        [reads, likes, listens].into_iter().for_each(leave);
        script.end_all();
        read.see_now();
        eventually("nobody watches", || posts.watching() == 0);
        eventually("no connection is left", || sample(&server, "connections") == 1.0);
        let p = posts.default_counter().unwrap();
        p.flush(PATIENCE).unwrap();
        for post in ["p", "q", "r"] {
            eventually("nothing of it is in memory", || {
                let before = script.reads();
                posts.post(post).unwrap();
                script.reads() > before
            });
        }
        assert_eq!(posts.counts(&["q"]).unwrap()[0].likes, 1);
    }
}

#[test]
fn a_stop_closes_all_with_1001_and_what_was_taken_is_saved() {
    let (mut server, posts, mut script) = on_script();
    let mut clients: Vec<_> = (0..5).map(|_| Client::of_json(server.addr)).collect();
    clients[1].watches("p");
    clients[2].asks(json!({"type": "watch", "post": "q", "visitor": ANNA}));
    clients[3].says(like("p", ANNA, 1));
    script.save();
    clients[4].says(like("q", ANNA, 1));
    clients[4].told_before_pong();
    server.begin_stop();
    for mut client in clients {
        assert_eq!(client.closed(), (1001, "the server is shutting down".to_owned()));
    }
    script.end_all();
    server.wait().unwrap();
    assert_eq!(posts.counts(&["p", "q"]).unwrap().iter().map(|count| count.likes).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn who_waits_for_an_answer_when_the_counter_stops_for_good_is_refused_before_the_close() {
    for _ in 0..20 {
        let (mut server, _posts, script) = on_script();
        let (mut client, mut other) = (Client::of_json(server.addr), Client::of_json(server.addr));
        other.watches("p");
        client.says(json!({"type": "like", "post": "p", "ref": "a"}));
        script.save();
        client.says(json!({"type": "like", "post": "q", "ref": "b"}));
        client.told_before_pong();
        script.end(Ending::Stopped);
        for (reference, post) in [("a", "p"), ("b", "q")] {
            let problem = "the counter has stopped";
            let refused = json!({"type": "refused", "ref": reference, "post": post, "status": 503, "problem": problem});
            assert_eq!(client.told(), refused);
        }
        for mut client in [client, other] {
            assert_eq!(client.closed(), (1001, "the server is shutting down".to_owned()));
        }
        server.wait().unwrap_err();
    }
}

// --- on a store that outlives the server ---

#[cfg(feature = "sqlite")]
mod on_sqlite {
    use super::*;
    use live_likes::{Change, ChangeKind, Post, SqliteStore, StoreLimits, open_admin};

    /// A server on the database of this folder.
    fn start(folder: &Folder, limits: StoreLimits) -> (Running, Posts) {
        let posts = Posts::with_store(SqliteStore::open(folder.join("likes.db"), limits).unwrap()).unwrap();
        (serve(&posts, |_| ()), posts)
    }

    #[test]
    fn many_clients_of_many_posts_all_end_at_the_exact_counts() {
        let folder = Folder::new();
        let (server, posts) = start(&folder, StoreLimits::default());
        many_clients_of_many_posts(&server, &posts, 100);
    }

    #[test]
    fn a_visitor_s_likes_hold_over_a_restart_and_so_does_their_order() {
        let folder = Folder::new();
        let (server, posts) = start(&folder, StoreLimits::default());
        let mut client = Client::of_json(server.addr);
        let boot = client.watches("p")["boot"].clone();
        client.says(like("p", ANNA, 7));
        assert!(client.told_until(|told| told["type"] == "answer").contains(&answer("p", true, 1, 1)));
        client.told_before_pong();
        client.says(json!({"type": "unwatch", "post": "p"}));
        assert_eq!(client.asks(unlike("q", ANNA, 3)), answer("q", false, 0, 0));
        assert_eq!(client.asks(json!({"type": "like", "post": "q"}))["version"], 2);
        drop((client, server, posts));

        let (server, _posts) = start(&folder, StoreLimits::default());
        let mut client = Client::of_json(server.addr);
        let first = client.asks(json!({"type": "watch", "post": "p", "visitor": ANNA}));
        assert_ne!(first["boot"], boot);
        assert_eq!((&first["liked"], &first["numLikes"], &first["version"]), (&json!(true), &json!(1), &json!(1)));
        assert_eq!(client.asks(like("p", ANNA, 7)), answer("p", true, 1, 1), "said again");
        assert_eq!(client.asks(like("q", ANNA, 2)), answer("q", false, 1, 2), "late");
        assert_eq!(client.asks(like("q", ANNA, 4)), answer("q", true, 2, 3));
    }

    #[test]
    fn to_watch_a_post_does_not_store_it() {
        let folder = Folder::new();
        let mut limits = StoreLimits::default();
        limits.posts = 2;
        let (server, posts) = start(&folder, limits);
        let mut client = Client::of_json(server.addr);
        for post in 0..10 {
            client.asks(json!({"type": "watch", "post": post.to_string(), "visitor": ANNA}));
            client.says(json!({"type": "unwatch", "post": post.to_string()}));
        }
        let told: Vec<_> = (0..10).map(|post| client.asks(like(&post.to_string(), ANNA, 1))).collect();
        let taken = told.iter().filter(|told| told["type"] == "answer").count();
        assert!((1..=2).contains(&taken), "{told:?}");
        assert!(told[taken..].iter().all(|told| told["status"] == 507), "{told:?}");
        assert_eq!(posts.top(10).unwrap().len(), taken);
    }

    #[test]
    fn what_an_operator_deletes_is_shown_as_gone_to_those_who_like_it() {
        let folder = Folder::new();
        let (server, _posts) = start(&folder, StoreLimits::default());
        let mut client = Client::of_json(server.addr);
        client.asks(like("p", ANNA, 1));
        assert_eq!(client.asks(json!({"type": "watch", "post": "p", "visitor": ANNA}))["liked"], true);
        let mut operator = open_admin(folder.join("likes.db"), StoreLimits::default()).unwrap();
        let post = Post::new("p").unwrap();
        operator.apply(&[Change { post, kind: ChangeKind::Delete }]).unwrap();
        let told = client.told();
        assert_eq!((&told["numLikes"], &told["liked"]), (&json!(0), &json!(false)), "{told}");
    }
}

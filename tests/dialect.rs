//! The subprotocol `live-likes`: many posts on one socket, in JSON, with an answer to each change.

#[path = "support/client.rs"]
mod client;
#[path = "support/running.rs"]
mod running;
#[path = "support/scripted.rs"]
mod scripted;

use client::{Client, connect, connect_narrow, get, handshake, read_head, reset};
use live_likes::{Likes, Limits, Outcome, Posts, Refused, Server};
use running::{Folder, PATIENCE, Running, eventually, patient};
use scripted::{Ending, Script, memory_of_many, scripted, scripted_posts};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};
use tungstenite::Message;

const ANNA: &str = "anna-0123456789abcdef";
const BERT: &str = "bert-0123456789abcdef";

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

    /// Watches a post, and returns what it is told of it.
    #[track_caller]
    fn watches(&mut self, post: &str) -> Value {
        self.says(json!({"type": "watch", "post": post}));
        self.told()
    }

    /// Has the server take all that was said before; returns what it said meanwhile.
    #[track_caller]
    fn told_before_pong(&mut self) -> Vec<Value> {
        self.says(json!({"type": "ping"}));
        let mut told = Vec::new();
        loop {
            match self.told() {
                pong if pong == json!({"type": "pong"}) => return told,
                other => told.push(other),
            }
        }
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

/// A server on a store in memory whose saves all work.
fn in_memory(set: impl FnOnce(Server) -> Server) -> Running {
    let likes = Likes::with_store(memory_of_many(|_| Ending::Saved)).unwrap();
    Running::serve(Folder::new(), likes, set)
}

/// A server on a store whose saves hang until the test ends them.
fn on_script() -> (Running, Posts, Script) {
    let (posts, script) = scripted_posts();
    (Running::serve(Folder::new(), posts.default_counter().unwrap(), |server| server), posts, script)
}

#[test]
fn who_watches_while_a_count_is_read_that_is_not_shown_yet_is_shown_it_all_the_same() {
    let (server, _, script) = on_script();
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
    read.go_on();
    first.told_before_pong();
    script.end(Ending::Saved);
    let told = [second.told(), second.told()];
    assert!(told.contains(&json!({"type": "count", "post": "p", "numLikes": 1, "version": 1})), "{told:?}");
}

#[test]
fn a_visitor_whose_like_is_taken_back_with_all_others_is_told_so() {
    let server = in_memory(|server| server);
    let posts = Posts::from(server.likes.clone());
    let mut client = Client::of_json(server.addr);
    client.says(json!({"type": "like", "post": "p", "visitor": ANNA}));
    client.told();
    client.says(json!({"type": "watch", "post": "p", "visitor": ANNA}));
    assert_eq!(client.told()["liked"], true);
    posts.delete("p").unwrap();
    assert_eq!(client.told(), json!({"type": "count", "post": "p", "numLikes": 0, "version": 2, "liked": false}));
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

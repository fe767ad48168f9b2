//! A client that has agreed on the subprotocol: the posts it watches, and what it says in JSON.

use crate::{
    error::Error,
    likes::{
        Answer, Registration,
        dialect::text_frame,
        outbox::Outbox,
        sync::{Arc, Condvar, Mutex, lock, wait},
    },
    metrics::Refusals,
    server::peer::{LikeRefusal, Peer},
    server::state::State,
    store::change::{self, ChangeKind, Count, Post, VisitorKey},
    websocket::{ClientMessage, Handler, Kind, Message, Refusal, code},
};

/// Changes of one connection that may be without an answer. Past it the connection is not read until one is given.
const MOST_UNANSWERED: usize = 64;

/// A client that speaks JSON.
pub(crate) struct Watcher<'s, 'p> {
    state: &'s State,
    peer: &'p mut Peer<'s>,
    outbox: Arc<Outbox>,
    /// Few enough to be looked through, as their slots are.
    watched: Vec<Registration>,
    unanswered: Arc<Unanswered>,
}

impl<'s, 'p> Watcher<'s, 'p> {
    pub(crate) fn new(state: &'s State, peer: &'p mut Peer<'s>, outbox: &Arc<Outbox>) -> Self {
        Self { state, peer, outbox: outbox.clone(), watched: Vec::new(), unanswered: Arc::default() }
    }

    fn watch(&mut self, post: Post, visitor: Option<&str>) -> Result<(), LikeRefusal> {
        let visitor = self.visitor(visitor, &post)?;
        // The second time it is shown the state again, so the first registration goes before. Where the post cannot be
        // watched now, it is not watched any more.
        self.unwatch(&post);
        let most = self.state.limits.posts_per_client;
        if self.watched.len() >= most {
            return Err(LikeRefusal::Watches(most));
        }
        let likes = self.state.counter(post)?;
        let visitor = visitor.filter(|_| self.state.posts.remembers_visitors());
        self.watched.push(likes.join(&self.outbox, visitor).map_err(LikeRefusal::Counter)?);
        Ok(())
    }

    fn unwatch(&mut self, post: &Post) {
        self.watched.retain(|registration| registration.post() != post);
    }

    fn change(&mut self, post: Post, message: ClientMessage) -> Result<(), LikeRefusal> {
        let liked = message.kind == Kind::Like;
        let kind = match self.visitor(message.visitor.as_deref(), &post)? {
            Some(visitor) => ChangeKind::Visitor { visitor, liked, seq: message.seq },
            None if liked && message.seq.is_none() => ChangeKind::Likes(1),
            None => return Err(LikeRefusal::NoVisitor),
        };
        let tells_liked = message.visitor.is_some() && self.state.posts.remembers_visitors();
        let (unanswered, refusals) = (self.unanswered.clone(), self.state.refusals.clone());
        let encode = move |answer: Result<Answer, Error>| {
            unanswered.remove();
            let text = match answer {
                Ok(Answer { count: Count { likes, version }, liked }) => {
                    let (reference, post) = (member("ref", &message.reference), member("post", &message.post));
                    let liked = if tells_liked { format!(",\"liked\":{liked}") } else { String::new() };
                    let count = format!(",\"numLikes\":{likes},\"version\":{version}");
                    format!("{{\"type\":\"answer\"{reference}{post}{liked}{count}}}")
                }
                Err(e) => refused(&message.reference, &message.post, &LikeRefusal::Counter(e), &refusals),
            };
            let mut frame = Vec::with_capacity(text.len() + 10);
            text_frame(&text, &mut frame);
            frame
        };
        let likes = self.state.counter_to_change(post)?;
        let (outbox, unanswered) = (&self.outbox, &self.unanswered);
        self.peer.submit(&likes, kind, |kind| {
            unanswered.add();
            likes.submit(kind, outbox, encode).inspect_err(|_| unanswered.remove())
        })?;
        self.unanswered.wait();
        Ok(())
    }

    /// The reply to a client that asks how many watch a post: with the number, where it is known.
    fn watching(&self, kind: &str, post: &Post, message: &ClientMessage) -> Message {
        let watching = self.state.posts.watching_one(post);
        let watching = watching.map_or_else(String::new, |watching| format!(",\"watching\":{watching}"));
        Message::text(format!("{{\"type\":\"{kind}\"{}{watching}}}", member("post", &message.post)))
    }

    fn visitor(&self, visitor: Option<&str>, post: &Post) -> Result<Option<VisitorKey>, LikeRefusal> {
        let key = visitor.map(|visitor| VisitorKey::of(visitor, post)).transpose();
        key.map_err(|e| LikeRefusal::Counter(Error::BadName(e)))
    }
}

/// The post that a message is about.
fn post_of(name: Option<&str>) -> Result<Post, LikeRefusal> {
    match name {
        None => Ok(Post::default()),
        Some(name) => Post::new(name).map_err(|e| LikeRefusal::Counter(Error::BadName(e))),
    }
}

/// A member of an object, with a comma before it, if it has a value.
fn member(key: &str, value: &Option<String>) -> String {
    value.as_ref().map_or_else(String::new, |value| format!(",\"{key}\":{}", serde_json::Value::from(value.as_str())))
}

/// What is said of a message that is not granted.
fn refused(reference: &Option<String>, post: &Option<String>, refusal: &LikeRefusal, refusals: &Refusals) -> String {
    refusals.add(refusal.reason());
    let (reference, post, problem) = (member("ref", reference), member("post", post), Some(refusal.to_string()));
    let (status, problem) = (refusal.status(), member("problem", &problem));
    format!("{{\"type\":\"refused\"{reference}{post},\"status\":{status}{problem}}}")
}

impl Handler for Watcher<'_, '_> {
    fn text(&mut self, text: &str) -> Result<Option<Message>, Refusal> {
        let message = ClientMessage::parse(text).map_err(|refusal| self.peer.bad_message(refusal))?;
        let (reference, name) = (message.reference.clone(), message.post.clone());
        let post = match message.kind {
            Kind::Unlike if !self.state.posts.remembers_visitors() => {
                Err(LikeRefusal::Counter(Error::Refused(change::Refused::Unlikes)))
            }
            _ => post_of(name.as_deref()),
        };
        let granted = post.and_then(|post| match message.kind {
            Kind::Ping if message.watching => {
                self.state.check(&post).map(|()| Some(self.watching("pong", &post, &message)))
            }
            Kind::Ping => Ok(Some(Message::text("{\"type\":\"pong\"}"))),
            Kind::Watch => {
                let watched = self.watch(post.clone(), message.visitor.as_deref());
                watched.map(|()| message.watching.then(|| self.watching("watching", &post, &message)))
            }
            Kind::Unwatch => {
                self.unwatch(&post);
                Ok(None)
            }
            Kind::Like | Kind::Unlike => self.change(post, message).map(|()| None),
        });
        Ok(granted
            .unwrap_or_else(|refusal| Some(Message::text(refused(&reference, &name, &refusal, &self.state.refusals)))))
    }

    fn binary(&mut self, _: &[u8]) -> Result<Option<Message>, Refusal> {
        Err(self.peer.bad_message(Refusal::new(code::UNSUPPORTED_DATA, "expected a text message")))
    }
}

/// How many changes of a connection are without an answer.
#[derive(Default)]
struct Unanswered {
    count: Mutex<usize>,
    given: Condvar,
}

impl Unanswered {
    fn add(&self) {
        *lock(&self.count) += 1;
    }

    fn remove(&self) {
        *lock(&self.count) -= 1;
        self.given.notify_one();
    }

    /// Waits until there are few enough. A save that hangs is answered too, so that this ends.
    fn wait(&self) {
        let mut count = lock(&self.count);
        while *count >= MOST_UNANSWERED {
            count = wait(&self.given, count);
        }
    }
}

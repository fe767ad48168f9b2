//! The state of a server.

use crate::{
    error::Error,
    likes::{Likes, Posts, outbox::Outbox},
    limits::Limits,
    metrics::Gauges,
    server::acceptor::{FALLBACK_STACK, STACK},
    server::access::Access,
    server::allowed::AllowedPosts,
    server::fallback::Fallback,
    server::page::Page,
    server::peer::LikeRefusal,
    server::rate::Rate,
    server::routes::SHUTTING_DOWN,
    store::change::{Count, Post},
    websocket::code,
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

/// What all connections of a server share.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) posts: Posts,
    /// The default counter.
    pub(crate) likes: Likes,
    pub(crate) page: Page,
    /// What stands before each path of ours: nothing, or as `/counter`.
    pub(crate) prefix: String,
    pub(crate) fallback: Option<Fallback>,
    pub(crate) limits: Limits,
    pub(crate) access: Access,
    /// Whether the server listens on a loopback address; not known where it does not listen itself.
    pub(crate) loopback: Option<bool>,
    /// Which posts may exist; all, where there is no list.
    pub(crate) allowed: Option<AllowedPosts>,
    pub(crate) rate: Option<Rate>,
    pub(crate) new_posts: Rate,
    /// `/metrics` is answered on an address of its own, and only there.
    pub(crate) metrics_apart: bool,
    pub(crate) stopping: AtomicBool,
    pub(crate) connections: AtomicUsize,
    /// Clients dropped because they did not read.
    pub(crate) dropped: AtomicUsize,
}

impl State {
    /// Stack of a connection's thread.
    pub(crate) fn stack(&self) -> usize {
        if self.fallback.is_some() { FALLBACK_STACK } else { STACK }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// The counter of a post, if it may exist.
    pub(crate) fn counter(&self, post: Post) -> Result<Likes, LikeRefusal> {
        if post.is_default() {
            // A handle that is made anew takes the lock of all a few times more.
            return Ok(self.likes.clone());
        }
        self.check(&post)?;
        self.posts.counter(post).map_err(LikeRefusal::Counter)
    }

    /// Whether a post may exist. The default counter always does.
    pub(crate) fn check(&self, post: &Post) -> Result<(), LikeRefusal> {
        match &self.allowed {
            _ if post.is_default() => Ok(()),
            _ if !self.posts.has_many() => Err(LikeRefusal::Counter(Error::OneCounter)),
            Some(allowed) if !allowed.has(post) => Err(LikeRefusal::Unlisted),
            _ => Ok(()),
        }
    }

    /// Leaves out the posts that may not exist.
    pub(crate) fn keep_allowed(&self, posts: &mut Vec<(Post, Count)>) {
        if let Some(allowed) = &self.allowed {
            allowed.filter(posts);
        }
    }

    /// Whether a like would be the first of a post that a stranger may have made up.
    pub(crate) fn is_new(&self, likes: &Likes) -> bool {
        let is_listed = || self.allowed.as_ref().is_some_and(|allowed| allowed.names(likes.post()));
        !likes.post().is_default() && likes.is_unliked() && !is_listed()
    }

    /// Tells a client that is shown counts that the server stops.
    pub(crate) fn close(&self, client: &Arc<Outbox>) {
        if client.close(Some(code::GOING_AWAY), SHUTTING_DOWN).fell_behind {
            self.likes.look_after(client.clone());
        }
    }

    /// What `/metrics` shows.
    pub(crate) fn metrics(&self) -> String {
        self.likes.metrics().render(Gauges {
            likes: self.likes.count(),
            connections: self.connections.load(Ordering::Relaxed),
            watching: self.posts.watching(),
            behind: self.likes.behind(),
            dropped: self.dropped.load(Ordering::Relaxed),
        })
    }
}

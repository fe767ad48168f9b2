//! The state of a server.

use crate::{
    likes::{Likes, Posts, outbox::Outbox},
    limits::Limits,
    metrics::Gauges,
    server::acceptor::{FALLBACK_STACK, STACK},
    server::access::Access,
    server::fallback::Fallback,
    server::page::Page,
    server::rate::Rate,
    server::routes::SHUTTING_DOWN,
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
    pub(crate) rate: Option<Rate>,
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

    /// Tells a WebSocket client that the server stops.
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

//! What all connections of one server share.

use crate::likes::{
    outbox::Outbox,
    sync::{Mutex, lock},
};
use crate::{
    likes::Likes, limits::Limits, metrics::Gauges, server::access::Access, server::page::Page, server::rate::Rate,
};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::{collections::HashMap, sync::Arc};

/// One served counter: the likes, the page they are shown on, and the rules for who may like.
pub(crate) struct State {
    pub(crate) likes: Likes,
    pub(crate) page: Page,
    pub(crate) limits: Limits,
    pub(crate) access: Access,
    /// Whether the server listens on a loopback address; not known where it does not listen itself.
    pub(crate) loopback: Option<bool>,
    pub(crate) rate: Option<Rate>,
    pub(crate) stopping: AtomicBool,
    pub(crate) connections: AtomicUsize,
    pub(crate) clients: Mutex<HashMap<usize, Arc<Outbox>>>,
    pub(crate) dropped: AtomicUsize,
}

impl State {
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// What `/metrics` shows.
    pub(crate) fn metrics(&self) -> String {
        self.likes.metrics().render(Gauges {
            likes: self.likes.count(),
            connections: self.connections.load(Ordering::Relaxed),
            watching: self.likes.watching(),
            behind: self.likes.behind(),
            dropped: self.dropped.load(Ordering::Relaxed),
        })
    }
}

pub(crate) struct Entered<'s> {
    state: &'s State,
    outbox: Arc<Outbox>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        lock(&self.state.clients).remove(&(Arc::as_ptr(&self.outbox) as usize));
        self.outbox.abandon();
        self.state.dropped.fetch_add(usize::from(self.outbox.was_dropped()), Ordering::Relaxed);
    }
}

impl State {
    pub(crate) fn enter(&self, outbox: Arc<Outbox>) -> Entered<'_> {
        lock(&self.clients).insert(Arc::as_ptr(&outbox) as usize, outbox.clone());
        Entered { state: self, outbox }
    }
    pub(crate) fn clients(&self) -> Vec<Arc<Outbox>> {
        lock(&self.clients).values().cloned().collect()
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("likes", &self.likes).finish_non_exhaustive()
    }
}

//! The state of a server.

use crate::{
    error::Error,
    http::Refusal,
    likes::{
        Likes, Posts,
        dialect::{DIALECTS, Dialect},
        outbox::Outbox,
    },
    limits::{Limits, due_in},
    metrics::{self, Gauges, Refusals},
    server::acceptor::{FALLBACK_STACK, STACK},
    server::access::Access,
    server::allowed::AllowedPosts,
    server::fallback::Fallback,
    server::page::Page,
    server::peer::LikeRefusal,
    server::places::{Place, Places},
    server::process::process,
    server::proxies::Proxies,
    server::rate::Rate,
    server::routes::SHUTTING_DOWN,
    store::change::{Count, Post},
    stream::Source,
    websocket::code,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

/// Posts that are looked through for the most liked ones of those that may exist.
const MOST_READ: usize = 10_000;

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
    pub(crate) proxies: Proxies,
    /// The pages that may show ours in a frame, besides our own; only our own, where none are named.
    pub(crate) ancestors: Option<String>,
    /// Which posts may exist; all, where there is no list.
    pub(crate) allowed: Option<AllowedPosts>,
    pub(crate) rate: Option<Rate>,
    pub(crate) new_posts: Rate,
    pub(crate) places: Option<Arc<Places>>,
    /// `/metrics` is answered on an address of its own, and only there.
    pub(crate) metrics_apart: bool,
    pub(crate) stopping: AtomicBool,
    /// Connections that this process has room for.
    pub(crate) capacity: usize,
    pub(crate) connections: AtomicUsize,
    /// Connected clients that are shown counts, by dialect.
    pub(crate) watchers: [AtomicUsize; DIALECTS],
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) started: SystemTime,
    /// Clients dropped because they did not read.
    pub(crate) dropped: AtomicUsize,
}

impl State {
    /// Stack of a connection's thread.
    pub(crate) fn stack(&self) -> usize {
        if self.fallback.is_some() { FALLBACK_STACK } else { STACK }
    }

    /// A place for a connection of somebody's, if the limit allows one more; `None` where there is no limit.
    pub(crate) fn place(&self, source: Source) -> Result<Option<Place>, Refusal> {
        let Some(places) = &self.places else { return Ok(None) };
        let most = self.limits.connections_per_address.unwrap_or_default();
        let problem = || format!("too many connections: at most {most} per address are allowed");
        places.take(source.address()).map(Some).ok_or_else(|| Refusal::new(429, problem()))
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// The counter of a post, if it may exist.
    pub(crate) fn counter(&self, post: Post) -> Result<Likes, LikeRefusal> {
        self.handle(post, Posts::counter)
    }

    /// The same for changes alone, whose count may not be known.
    pub(crate) fn counter_to_change(&self, post: Post) -> Result<Likes, LikeRefusal> {
        self.handle(post, Posts::to_change)
    }

    fn handle(&self, post: Post, of: impl FnOnce(&Posts, Post) -> Result<Likes, Error>) -> Result<Likes, LikeRefusal> {
        if post.is_default() {
            // A handle that is made anew takes the lock of all a few times more.
            return Ok(self.likes.clone());
        }
        self.check(&post)?;
        of(&self.posts, post).map_err(LikeRefusal::Counter)
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

    /// The most liked posts of those that may exist.
    pub(crate) fn top(&self, most: usize) -> Result<Vec<(Post, Count)>, Error> {
        let Some(allowed) = &self.allowed else { return self.posts.top(most) };
        // Others may be kept from before there was such a list, and be liked more.
        let mut read = most;
        loop {
            let mut top = self.posts.top(read)?;
            let is_all = top.len() < read || read >= MOST_READ;
            allowed.filter(&mut top);
            if top.len() >= most || is_all {
                top.truncate(most);
                return Ok(top);
            }
            read *= 10;
        }
    }

    /// Whether a post is allowed by its own name, so that no stranger has made it up.
    pub(crate) fn is_listed(&self, post: &Post) -> bool {
        self.allowed.as_ref().is_some_and(|allowed| allowed.names(post))
    }

    /// Tells a client that is shown counts that the server stops.
    pub(crate) fn close(&self, client: &Arc<Outbox>) {
        if client.close(Some(code::GOING_AWAY), SHUTTING_DOWN).fell_behind {
            self.likes.look_after(client.clone());
        }
    }

    /// The same for one that came in when the stop may have told everyone already; as they are, it is shown first what
    /// is saved.
    pub(crate) fn close_if_stopping(&self, client: &Arc<Outbox>) {
        if self.is_stopping() {
            self.likes.wait_until_shown(due_in(self.limits.close_within));
            self.close(client);
        }
    }

    /// Counts a client that is shown counts, until this is dropped.
    pub(crate) fn count_watcher(&self, dialect: Dialect) -> Watching<'_> {
        let watchers = &self.watchers[dialect as usize];
        watchers.fetch_add(1, Ordering::Relaxed);
        Watching(watchers)
    }

    /// What `/metrics` shows.
    pub(crate) fn metrics(&self) -> String {
        let load = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        let gauges = Gauges {
            likes: self.likes.count(),
            healthy: !self.is_stopping() && self.likes.health().is_ok(),
            connections: load(&self.connections),
            max_connections: self.limits.connections.min(self.capacity),
            watching: self.posts.watching(),
            watchers: Dialect::ALL.map(|dialect| (dialect.transport(), load(&self.watchers[dialect as usize]))).into(),
            behind: self.likes.behind(),
            dropped: load(&self.dropped),
            queues: self.likes.queues(),
            started: self.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as f64 / 1000.0,
            process: process(),
        };
        metrics::render(self.likes.metrics(), &self.refusals, &gauges)
    }
}

/// A client that is counted.
pub(crate) struct Watching<'s>(&'s AtomicUsize);

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

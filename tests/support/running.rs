//! A server to test: on a free port, with a counter in a folder of its own that goes with it.

#![allow(dead_code, reason = "each test file uses a part")]

#[path = "folder.rs"]
mod folder;

pub use folder::Folder;
use live_likes::{Handle, Likes, Limits, Result, Server};
use std::{
    net::SocketAddr,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Longer than anything takes that is to happen at all, also on a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Limits under which no test peer is late or slow, however busy the machine.
pub fn patient() -> Limits {
    let mut limits = Limits::default();
    (limits.request_time, limits.keep_alive, limits.write_deadline) = (10 * PATIENCE, 10 * PATIENCE, 10 * PATIENCE);
    (limits.ping_after, limits.pong_within, limits.stop_within) = (10 * PATIENCE, 10 * PATIENCE, 10 * PATIENCE);
    limits
}

/// A server that runs until this is dropped.
pub struct Running {
    pub likes: Likes,
    pub addr: SocketAddr,
    handle: Handle,
    thread: Option<JoinHandle<Result<()>>>,
    pub folder: Folder,
}

impl Running {
    /// A counter of so many likes.
    pub fn with_count(count: u64) -> Self {
        Self::with_limits(count, &patient())
    }

    pub fn with_limits(count: u64, limits: &Limits) -> Self {
        Self::with(count, |server| server.limits(limits.clone()))
    }

    /// A counter of so many likes, on a server that `set` has the last word on.
    pub fn with(count: u64, set: impl FnOnce(Server) -> Server) -> Self {
        let folder = Folder::new();
        let likes = folder.counter(count);
        Self::serve(folder, likes, set)
    }

    pub fn serve(folder: Folder, likes: Likes, set: impl FnOnce(Server) -> Server) -> Self {
        let listening = set(Server::new(likes.clone()).limits(patient())).bind("127.0.0.1:0").unwrap();
        let (addr, handle) = (listening.local_addr(), listening.handle());
        let thread = Some(thread::spawn(|| listening.run()));
        Self { likes, addr, handle, thread, folder }
    }

    /// Has the server stop, and does not wait for it.
    pub fn begin_stop(&self) {
        self.handle.stop();
    }

    /// Waits until the server has stopped.
    pub fn wait(&mut self) -> Result<()> {
        self.thread.take().expect("waited for once").join().expect("the server does not panic")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !thread::panicking() {
                ended.expect("the server does not panic").expect("the server stops well");
            }
        }
    }
}

/// Looks until `what` holds, for what tells nobody that it has come about.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "still not so: {what}");
        thread::park_timeout(Duration::from_millis(2));
    }
}

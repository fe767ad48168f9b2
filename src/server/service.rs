//! The connections of a server: the table of them, and the end of them all.

use crate::{
    error::Result,
    http::reader::close_in_stages,
    http::response::Response,
    likes::outbox::Wire,
    likes::sync::{Condvar, Mutex, lock, wait_for},
    limits::{Limits, due_in},
    metrics::Refused,
    server::connection,
    server::routes::SHUTTING_DOWN,
    server::state::State,
    websocket::code,
};
use std::{
    collections::HashMap,
    fmt,
    net::{Shutdown, TcpStream},
    sync::{Arc, atomic::Ordering},
    time::{Instant, SystemTime},
};

/// A server without a listener: it serves the connections that it is handed. Cloned freely.
#[derive(Clone, Debug)]
pub struct Service {
    shared: Arc<Shared>,
}

impl Service {
    pub(crate) fn new(state: State) -> Self {
        Self { shared: Arc::new(Shared { state, table: Mutex::default(), left: Condvar::new() }) }
    }

    /// Serves an accepted connection on the calling thread, until it ends.
    ///
    /// A host program that has a route of its own beside the likes looks at the first bytes
    /// ([`TcpStream::peek`]) and keeps what is its own.
    pub fn serve(&self, stream: TcpStream) {
        self.serve_after(stream, Vec::new());
    }

    /// Serves a connection from which the caller has read these bytes already.
    pub fn serve_after(&self, stream: TcpStream, read: Vec<u8>) {
        let _ = stream.set_nonblocking(false);
        let stream = Arc::new(stream);
        match self.enter(&stream) {
            Some(place) => place.serve(read),
            None => {
                self.refuse(&stream, "too many connections");
                close_in_stages(&stream, due_in(self.limits().close_within));
            }
        }
    }

    /// Stops gracefully: tells every client, ends every connection and saves what came, within the time for a stop.
    ///
    /// # Errors
    ///
    /// As [`Listening::run`](crate::Listening::run).
    pub fn stop(&self) -> Result<()> {
        let deadline = due_in(self.limits().stop_within);
        self.begin_stop();
        let cut_off = self.cut_off(deadline);
        let mut table = lock(&self.shared.table);
        while table.held > table.late {
            let left = cut_off.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            table = wait_for(&self.shared.left, &self.shared.table, table, left);
        }
        drop(table);
        self.end_stop(deadline)
    }
}

/// What the connections of a server share, and the table of them.
struct Shared {
    state: State,
    table: Mutex<Table>,
    /// A connection has ended.
    left: Condvar,
}

#[derive(Default)]
struct Table {
    /// Those that are no WebSocket, by number. The others have a seat in the audience.
    plain: HashMap<u64, Arc<TcpStream>>,
    next: u64,
    held: usize,
    /// How many of those held came after the stop began; it does not wait for them.
    late: usize,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Service {
    /// Takes a connection in, unless there are too many.
    pub(crate) fn enter(&self, stream: &Arc<TcpStream>) -> Option<Place> {
        let mut table = lock(&self.shared.table);
        if table.held >= self.shared.state.limits.connections {
            return None;
        }
        let (number, late) = (table.next, self.shared.state.is_stopping());
        table.next += 1;
        table.held += 1;
        table.late += usize::from(late);
        table.plain.insert(number, stream.clone());
        self.shared.state.connections.store(table.held, Ordering::Relaxed);
        Some(Place { shared: self.shared.clone(), number, late, stream: stream.clone() })
    }

    /// Answers 503 without waiting. A new socket's buffer has room for it.
    pub(crate) fn refuse(&self, stream: &TcpStream, problem: &str) {
        self.shared.state.likes.metrics().refused(Refused::Connections);
        let answer = Response::error(503, problem).field("Retry-After", "10").encode(false, false, SystemTime::now());
        let _ = stream.send_now(&answer);
        let _ = stream.shutdown(Shutdown::Write);
    }

    /// Tells every client that it is over.
    pub(crate) fn begin_stop(&self) {
        {
            // Under the lock, so that who enters is either in the table by now or counted as late.
            let table = lock(&self.shared.table);
            self.shared.state.stopping.store(true, Ordering::SeqCst);
            // A connection that waits for a request sees its end; one that is being answered ends after the answer.
            for stream in table.plain.values() {
                let _ = stream.shutdown(Shutdown::Read);
            }
        }
        self.shared.state.likes.close_clients(code::GOING_AWAY, SHUTTING_DOWN);
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.shared.state.limits
    }

    /// Whether connections are left that came before the stop began.
    pub(crate) fn is_busy(&self) -> bool {
        let table = lock(&self.shared.table);
        table.held > table.late
    }

    /// Until when connections may end by themselves. The rest of the time for a stop is for saving.
    pub(crate) fn cut_off(&self, deadline: Instant) -> Instant {
        let limits = &self.shared.state.limits;
        deadline
            .checked_sub(limits.stop_within.saturating_sub(limits.close_within.min(limits.stop_within / 2)))
            .unwrap_or(deadline)
    }

    /// Cuts off what is left, and waits for the last save.
    pub(crate) fn end_stop(&self, deadline: Instant) -> Result<()> {
        for stream in lock(&self.shared.table).plain.values() {
            stream.shut_down();
        }
        self.shared.state.likes.audience().abandon_all();
        self.shared.state.likes.flush(deadline.saturating_duration_since(Instant::now())).map(drop)
    }
}

/// A connection's place in the table, left when this is dropped, by a panic too.
pub(crate) struct Place {
    shared: Arc<Shared>,
    number: u64,
    late: bool,
    stream: Arc<TcpStream>,
}

impl Place {
    pub(crate) fn serve(self, early: Vec<u8>) {
        let upgraded = || _ = lock(&self.shared.table).plain.remove(&self.number);
        if let Err(e) = connection::serve(&self.shared.state, &self.stream, early, upgraded) {
            log::debug!("a connection broke: {e}");
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = lock(&self.shared.table);
        table.plain.remove(&self.number);
        table.held -= 1;
        table.late -= usize::from(self.late);
        self.shared.state.connections.store(table.held, Ordering::Relaxed);
        self.shared.left.notify_all();
    }
}

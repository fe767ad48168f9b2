//! The connections of a server: the table of them, and the end of them all.

use crate::{
    error::Result,
    http::Refusal,
    http::reader::close_in_stages,
    http::response::Response,
    likes::outbox::Outbox,
    likes::sync::{Mutex, lock},
    limits::{Limits, due_in},
    metrics::Refused,
    server::capacity::capacity,
    server::connection,
    server::listener::Address,
    server::places::Place,
    server::state::State,
    stream::Stream,
};
use rustix::net::{Shutdown, getsockname};
use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

/// Connections of all servers of this process, which share what the system allows it.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// Between two looks at what is left, while the server stops.
pub(crate) const STOP_STEP: Duration = Duration::from_millis(20);

/// While the server stops, time that a connection between two requests has to bring one more. A proxy may be sending it
/// at that moment, and could not tell whether it was read before the end.
const LAST_REQUEST: Duration = Duration::from_millis(500);

/// Connections to the address of the metrics that are held at once, whatever else is held.
const METRICS_CONNECTIONS: usize = 16;

/// A server without a listener: it serves the connections that it is handed. Cloned freely.
#[derive(Clone, Debug)]
pub struct Service {
    shared: Arc<Shared>,
}

impl Service {
    pub(crate) fn new(mut state: State) -> Self {
        state.capacity = capacity(&state.limits, state.stack(), HELD.load(Ordering::Relaxed));
        Self { shared: Arc::new(Shared { state, table: Mutex::default() }) }
    }

    /// Serves an accepted connection, a [`TcpStream`](std::net::TcpStream) or a
    /// [`UnixStream`](std::os::unix::net::UnixStream), on the calling thread until it ends.
    ///
    /// A connection past [`Limits::connections`] is answered 503, which takes the calling thread for up to
    /// [`Limits::close_within`]. The caller bounds the number of its threads: the standard library aborts the process
    /// where a thread that has been started finds no memory map for its signal stack.
    /// ([`Server::bind`](crate::Server::bind) refuses a connection before it gets a thread.) Under a limit of address
    /// space, 128 KiB of stack are reckoned for each.
    ///
    /// Routes of the host program's own are answered by [`Server::fallback`](crate::Server::fallback).
    pub fn serve(&self, stream: impl Into<OwnedFd>) {
        self.serve_after(stream, Vec::new());
    }

    /// Serves a connection from which the caller has read these bytes already.
    pub fn serve_after(&self, stream: impl Into<OwnedFd>, read: Vec<u8>) {
        let stream = match Stream::new(stream) {
            Ok(stream) => Arc::new(stream),
            Err(e) => return log::debug!("a connection broke: {e}"),
        };
        let own = getsockname(&*stream).ok().and_then(|own| SocketAddr::try_from(own).ok());
        let loopback = own.is_some_and(|own| Address::Internet(own).is_loopback());
        match self.enter(&stream, Kind::Public { loopback }) {
            Ok(entry) => entry.serve(read),
            Err(refusal) => {
                self.refuse(&stream, &refusal);
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
        self.stop_while(|| thread::sleep(STOP_STEP))
    }
}

/// What the connections of a server share, and the table of them.
struct Shared {
    state: State,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// The connections, by number.
    open: HashMap<u64, Open>,
    next: u64,
    /// How many of them came after the stop began; it does not wait for those.
    late: usize,
    /// How many of them are to the address of the metrics.
    metrics: usize,
}

/// What a connection is let in for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `loopback`: only this machine can reach the server's address.
    Public { loopback: bool },
    /// For `/metrics` and `/healthz` alone.
    Metrics,
}

enum Open {
    Http(Arc<Stream>),
    /// One that is shown counts.
    Client(Arc<Outbox>),
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Service {
    /// Takes a connection in, unless there are too many.
    pub(crate) fn enter(&self, stream: &Arc<Stream>, kind: Kind) -> Result<Entry, Refusal> {
        let state = &self.shared.state;
        // Whose connection a proxy passes on is known only from its requests.
        let place = match kind {
            Kind::Public { .. } if !state.proxies.trusts(stream.peer()) => state.place(stream.peer())?,
            _ => None,
        };
        let mut table = lock(&self.shared.table);
        let full = match kind {
            Kind::Public { .. } => {
                table.open.len() - table.metrics >= state.limits.connections
                    || HELD.load(Ordering::Relaxed) >= state.capacity
            }
            Kind::Metrics => table.metrics >= METRICS_CONNECTIONS,
        };
        if full {
            return Err(Refusal::new(503, "too many connections"));
        }
        HELD.fetch_add(1, Ordering::Relaxed);
        let (number, late) = (table.next, state.is_stopping());
        table.next += 1;
        table.late += usize::from(late);
        table.metrics += usize::from(kind == Kind::Metrics);
        table.open.insert(number, Open::Http(stream.clone()));
        state.connections.store(table.open.len(), Ordering::Relaxed);
        Ok(Entry { shared: self.shared.clone(), number, late, kind, stream: stream.clone(), _place: place })
    }

    /// Whether connections are left that came before the stop began.
    pub(crate) fn is_busy(&self) -> bool {
        let table = lock(&self.shared.table);
        table.open.len() > table.late
    }

    fn limits(&self) -> &Limits {
        &self.shared.state.limits
    }

    /// Connections that this process has room for.
    pub(crate) fn capacity(&self) -> usize {
        self.shared.state.capacity
    }

    /// Stack of a connection's thread.
    pub(crate) fn stack(&self) -> usize {
        self.shared.state.stack()
    }

    /// Answers without waiting. A new socket's buffer has room for it.
    pub(crate) fn refuse(&self, stream: &Stream, refusal: &Refusal) {
        self.shared.state.refusals.add(Refused::Connections);
        let answer = Response::from(refusal).field("Retry-After", "10").encode(false, false, SystemTime::now());
        let _ = stream.send_now(&answer);
        let _ = stream.shutdown(Shutdown::Write);
    }

    /// Stops, and calls `wait` until no connection is left that came before, or their time is over.
    pub(crate) fn stop_while(&self, mut wait: impl FnMut()) -> Result<()> {
        let Shared { state, table, .. } = &*self.shared;
        let deadline = due_in(state.limits.stop_within);
        // Until then connections may end by themselves. The rest of the time is for saving.
        let cut_off = due_in(state.limits.close_within.min(state.limits.stop_within / 2));
        let last_request = due_in(LAST_REQUEST);
        let mut clients = Vec::new();
        {
            // Under the lock, so that who enters is either in the table by now or counted as late.
            let table = lock(table);
            state.stopping.store(true, Ordering::SeqCst);
            // Any other connection ends after its next response.
            clients.extend(table.open.values().filter_map(|connection| match connection {
                Open::Client(outbox) => Some(outbox.clone()),
                Open::Http(_) => None,
            }));
        }
        state.likes.wait_until_shown(cut_off);
        for client in clients {
            state.close(&client);
        }
        let mut awaited = true;
        while self.is_busy() && Instant::now() < cut_off {
            if awaited && Instant::now() >= last_request {
                awaited = false;
                for connection in lock(table).open.values() {
                    // One that waits for a request sees its end; one that is being answered ends after the answer.
                    if let Open::Http(stream) = connection {
                        let _ = stream.shutdown(Shutdown::Read);
                    }
                }
            }
            wait();
        }
        drop(wait);
        for connection in lock(table).open.values() {
            match connection {
                Open::Http(stream) => stream.shut_down(),
                Open::Client(outbox) => outbox.abandon(),
            }
        }
        state.likes.flush(deadline.saturating_duration_since(Instant::now())).map(drop)
    }
}

/// A connection's entry in the table, removed when this is dropped, by a panic too.
pub(crate) struct Entry {
    shared: Arc<Shared>,
    number: u64,
    late: bool,
    kind: Kind,
    stream: Arc<Stream>,
    /// That of its address.
    _place: Option<Place>,
}

impl Entry {
    pub(crate) fn serve(self, early: Vec<u8>) {
        let watching = |outbox: &Arc<Outbox>| {
            lock(&self.shared.table).open.insert(self.number, Open::Client(outbox.clone()));
        };
        if let Err(e) = connection::serve(&self.shared.state, &self.stream, self.kind, self.late, early, watching) {
            log::debug!("a connection broke: {e}");
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut table = lock(&self.shared.table);
        let left = table.open.remove(&self.number);
        table.late -= usize::from(self.late);
        table.metrics -= usize::from(self.kind == Kind::Metrics);
        HELD.fetch_sub(1, Ordering::Relaxed);
        self.shared.state.connections.store(table.open.len(), Ordering::Relaxed);
        drop(table);
        if let Some(Open::Client(outbox)) = left {
            // A fan-out may hold it a moment longer; it must not hold the connection open.
            outbox.abandon();
            self.shared.state.dropped.fetch_add(usize::from(outbox.was_dropped()), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        likes::{dialect::Dialect, outbox::tests::Pipe, tests::Memory},
        server::Server,
    };

    #[test]
    fn a_client_that_cannot_take_its_close_frame_at_once_is_sent_it_later() {
        let likes = crate::Likes::with_store(Memory::default()).unwrap();
        let service = Server::new(likes).into_service().unwrap();
        let pipe = Pipe::new(0);
        service.shared.state.close(&Arc::new(Outbox::new(pipe.clone(), Duration::MAX, Dialect::Bare, None)));
        assert!(pipe.frames().is_empty());
        pipe.make_room(1000);
        let deadline = Instant::now() + Duration::from_secs(60);
        while pipe.frames().is_empty() {
            assert!(Instant::now() < deadline, "it was to be tried again");
            std::thread::yield_now();
        }
        assert!(pipe.frames()[0].ends_with("the server is shutting down"), "{:?}", pipe.frames());
    }
}

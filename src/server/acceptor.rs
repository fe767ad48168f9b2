//! Accepts connections and gives each a thread, whatever the system is short of.

use crate::{
    error::{Error, Result},
    http::Refusal,
    limits::due_in,
    server::listener::Listener,
    server::service::{Kind, STOP_STEP, Service},
    stream::Stream,
};
use rustix::event::{PollFd, PollFlags, poll};
use std::{
    collections::VecDeque,
    fmt::Display,
    io,
    os::unix::net::UnixStream,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// Stack of a connection's thread. Only the pages that are touched are held, three of them.
pub(crate) const STACK: usize = 128 * 1024;

/// The same where a handler of a host program's runs on it: as much as the standard library gives.
pub(crate) const FALLBACK_STACK: usize = 2 * 1024 * 1024;

/// Connections of a listener that are accepted between two looks at whether the server is to stop.
const TURN: usize = 64;

/// Before connections are accepted again after the system had no descriptor or memory for one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Refused connections that are held for a moment, so that their answer arrives before they are closed.
const REFUSED_HELD: usize = 64;
const REFUSED_FOR: Duration = Duration::from_secs(1);

/// Without a refusal for so long, a shortage is over.
const SHORTAGE_OVER: Duration = Duration::from_secs(10);

/// What is called now and then by the thread that accepts, as long as it does.
pub(crate) struct Heartbeat {
    pub(crate) every: Duration,
    pub(crate) next: Instant,
    pub(crate) call: Box<dyn FnMut() + Send>,
}

impl Heartbeat {
    fn due(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }

    fn beat(&mut self) {
        if self.due().is_zero() {
            self.next = due_in(self.every);
            (self.call)();
        }
    }
}

/// Accepts the connections of a server.
pub(crate) struct Acceptor<'s> {
    listeners: Vec<(Listener, Kind)>,
    woken: UnixStream,
    service: &'s Service,
    heartbeat: Option<Heartbeat>,
    /// Those that were answered 503 and are soon to be closed.
    refused: VecDeque<(Instant, Arc<Stream>)>,
    /// The system had no descriptor for a connection, and some have been waiting since.
    starved: bool,
    /// When a connection could last not be served, in a shortage that has been logged.
    short: Option<Instant>,
}

impl<'s> Acceptor<'s> {
    pub(crate) fn new(
        listeners: Vec<(Listener, Kind)>,
        woken: UnixStream,
        service: &'s Service,
        heartbeat: Option<Heartbeat>,
    ) -> Self {
        Self { listeners, woken, service, heartbeat, refused: VecDeque::new(), starved: false, short: None }
    }

    /// Accepts until the other end of `woken` is written to.
    pub(crate) fn accept_until_stopped(&mut self) -> Result<()> {
        loop {
            let refused = self.refused.front().map(|(until, _)| until.saturating_duration_since(Instant::now()));
            let mut fds = vec![PollFd::new(&self.woken, PollFlags::IN)];
            fds.extend(self.listening());
            let pause = if self.starved { Some(ACCEPT_PAUSE) } else { refused };
            let beat = self.heartbeat.as_ref().map(Heartbeat::due);
            wait(&mut fds, pause.into_iter().chain(beat).min());
            if !fds[0].revents().is_empty() {
                return Ok(());
            }
            self.accept_turn()?;
            self.heartbeat.iter_mut().for_each(Heartbeat::beat);
            let now = Instant::now();
            while self.refused.front().is_some_and(|(until, _)| *until <= now) {
                self.refused.pop_front();
            }
        }
    }

    /// Leaves what comes to listeners that another process goes on with to that process.
    pub(crate) fn leave_shared(&mut self) {
        self.listeners.retain(|(listener, _)| !listener.is_shared());
    }

    /// Accepts what has come, and waits a moment for more.
    pub(crate) fn accept_briefly(&mut self) {
        let result = self.accept_turn();
        let mut fds: Vec<_> = self.listening().filter(|_| result.is_ok()).collect();
        wait(&mut fds, Some(STOP_STEP));
    }

    /// What tells that a connection has come. While the system is short of descriptors that would be true all the time.
    fn listening(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.listeners.iter().filter(|_| !self.starved).map(|(listener, _)| PollFd::new(listener, PollFlags::IN))
    }

    /// Accepts connections that wait, so few that whoever waits for this waits for a moment only.
    fn accept_turn(&mut self) -> Result<()> {
        for index in 0..self.listeners.len() {
            for _ in 0..TURN {
                match self.listeners[index].0.accept() {
                    Ok(stream) => self.serve(Arc::new(stream), self.listeners[index].1),
                    Err(e) => match e.kind() {
                        io::ErrorKind::WouldBlock => break,
                        // Of the connection that was to be accepted, not of the listener (accept(2)).
                        io::ErrorKind::Interrupted
                        | io::ErrorKind::ConnectionAborted
                        | io::ErrorKind::ConnectionReset => {}
                        io::ErrorKind::InvalidInput => return Err(Error::Listen(e)),
                        _ => {
                            self.starved = true;
                            self.is_short(e);
                            return Ok(());
                        }
                    },
                }
            }
        }
        self.starved = false;
        Ok(())
    }

    fn serve(&mut self, stream: Arc<Stream>, kind: Kind) {
        let entry = match self.service.enter(&stream, kind) {
            Ok(entry) => entry,
            Err(refusal) => {
                if refusal.status == 503 {
                    self.is_short("there are as many as the limit allows");
                }
                return self.refuse(stream, &refusal);
            }
        };
        // Boxed, so that all that starting a thread takes is compiled once.
        let work: Box<dyn FnOnce() + Send> = Box::new(move || entry.serve(Vec::new()));
        match thread::Builder::new().stack_size(self.service.stack()).spawn(work) {
            Ok(_) if self.short.is_some_and(|last| last.elapsed() >= SHORTAGE_OVER) => {
                self.short = None;
                log::info!("connections are accepted again");
            }
            Ok(_) => {}
            Err(e) => {
                self.is_short(format_args!("there is no thread for one more: {e}"));
                self.refuse(stream, &Refusal::new(503, "no thread for a further connection"));
            }
        }
    }

    fn refuse(&mut self, stream: Arc<Stream>, refusal: &Refusal) {
        self.service.refuse(&stream, refusal);
        if self.refused.len() >= REFUSED_HELD.min(1 + self.service.capacity() / 4) {
            self.refused.pop_front();
        }
        self.refused.push_back((Instant::now() + REFUSED_FOR, stream));
    }

    /// Logs that a connection cannot be served: the first time alone, since whoever connects can cause it.
    fn is_short(&mut self, problem: impl Display) {
        if self.short.replace(Instant::now()).is_none() {
            log::warn!("cannot accept connections for now: {problem}");
        }
    }
}

fn wait(fds: &mut [PollFd<'_>], time: Option<Duration>) {
    let timeout = time.and_then(|time| time.try_into().ok());
    let _ = poll(fds, timeout.as_ref());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        likes::{Likes, tests::Memory},
        server::Server,
    };
    use std::net::{TcpListener, TcpStream};

    /// With as many connections waiting.
    fn with_acceptor(waiting: usize, test: impl FnOnce(&mut Acceptor<'_>)) {
        let service = Server::new(Likes::with_store(Memory::default()).unwrap()).into_service().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let (_wake, woken) = UnixStream::pair().unwrap();
        let _peers: Vec<_> = (0..waiting).map(|_| TcpStream::connect(addr).unwrap()).collect();
        test(&mut Acceptor::new(vec![(listener.into(), Kind::Public { loopback: true })], woken, &service, None));
    }

    #[test]
    fn a_turn_ends_although_more_connections_wait() {
        with_acceptor(TURN + 1, |acceptor| {
            acceptor.accept_turn().unwrap();
            assert!(acceptor.listeners[0].0.accept().is_ok(), "one is left for the next turn");
            assert!(acceptor.listeners[0].0.accept().is_err(), "and no other");
        });
    }

    #[test]
    fn a_shortage_is_over_when_a_connection_is_served_a_while_after_the_last_that_was_not() {
        for (last, over) in [(Some(Instant::now()), false), (Instant::now().checked_sub(SHORTAGE_OVER), true)] {
            with_acceptor(1, |acceptor| {
                acceptor.short = last;
                acceptor.accept_turn().unwrap();
                assert_eq!(acceptor.short.is_none(), over);
            });
        }
    }
}

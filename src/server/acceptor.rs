//! Where connections come in: accepting them, one thread for each, whatever the system is short of.

use crate::{
    error::{Error, Result},
    server::service::Service,
};
use rustix::event::{PollFd, PollFlags, poll};
use std::{
    collections::VecDeque,
    io,
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// Stack of a connection's thread. Only the pages that are touched are held, three of them.
const STACK: usize = 128 * 1024;

/// Before connections are accepted again after the system had no descriptor or memory for one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Between two looks at what is left, while the server stops.
const STOP_STEP: Duration = Duration::from_millis(20);

/// Connections past the limit that are held for a moment, so that their answer arrives before they are closed.
const REFUSED_HELD: usize = 64;
const REFUSED_FOR: Duration = Duration::from_secs(1);

/// Where connections come in.
pub(crate) struct Acceptor<'s> {
    listener: TcpListener,
    woken: UnixStream,
    service: &'s Service,
    /// Those past the limit, answered and soon to be closed.
    refused: VecDeque<(Instant, Arc<TcpStream>)>,
    /// The system had no descriptor for one, and some have been waiting since.
    starved: bool,
}

impl<'s> Acceptor<'s> {
    pub(crate) fn new(listener: TcpListener, woken: UnixStream, service: &'s Service) -> Self {
        Self { listener, woken, service, refused: VecDeque::new(), starved: false }
    }

    /// Accepts until the waking end of `woken` is written to.
    pub(crate) fn accept_until_stopped(&mut self) -> Result<()> {
        loop {
            let refused = self.refused.front().map(|(until, _)| until.saturating_duration_since(Instant::now()));
            // While the system is short of descriptors the listener stays readable, so it is not asked: that would spin.
            let stopped = if self.starved { self.wait(Some(ACCEPT_PAUSE), false) } else { self.wait(refused, true) };
            if stopped {
                return Ok(());
            }
            self.accept_waiting()?;
            let now = Instant::now();
            while self.refused.front().is_some_and(|(until, _)| *until <= now) {
                self.refused.pop_front();
            }
        }
    }

    /// Accepts what has come, and waits a moment for more.
    pub(crate) fn accept_briefly(&mut self) {
        let listens = self.accept_waiting().is_ok() && !self.starved;
        let timeout = STOP_STEP.try_into().ok();
        let _ = poll(&mut [PollFd::new(&self.listener, PollFlags::IN)][..usize::from(listens)], timeout.as_ref());
    }

    /// Waits for a connection, if it `listens`, for `time` at most; says whether the server is to stop.
    fn wait(&self, time: Option<Duration>, listens: bool) -> bool {
        let timeout = time.and_then(|time| time.try_into().ok());
        let mut fds = [PollFd::new(&self.woken, PollFlags::IN), PollFd::new(&self.listener, PollFlags::IN)];
        let _ = poll(&mut fds[..1 + usize::from(listens)], timeout.as_ref());
        !fds[0].revents().is_empty()
    }

    /// Takes in all connections that wait.
    fn accept_waiting(&mut self) -> Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => self.take_in(Arc::new(stream)),
                Err(e) => match e.kind() {
                    io::ErrorKind::WouldBlock => {
                        self.starved = false;
                        return Ok(());
                    }
                    // Of the connection that was to be accepted, not of the listener (accept(2)).
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset => {}
                    io::ErrorKind::InvalidInput => return Err(Error::Listen(e)),
                    _ => {
                        if !std::mem::replace(&mut self.starved, true) {
                            log::error!("cannot accept connections for now: {e}");
                        }
                        return Ok(());
                    }
                },
            }
        }
    }

    fn take_in(&mut self, stream: Arc<TcpStream>) {
        // Linux does not hand down the listener's mode; others do.
        if cfg!(not(target_os = "linux")) && stream.set_nonblocking(false).is_err() {
            return;
        }
        let Some(place) = self.service.enter(&stream) else {
            return self.turn_away(stream, "too many connections");
        };
        if let Err(e) = thread::Builder::new().stack_size(STACK).spawn(move || place.serve(Vec::new())) {
            log::error!("no thread for a connection: {e}");
            self.turn_away(stream, "no thread for a further connection");
        }
    }

    fn turn_away(&mut self, stream: Arc<TcpStream>, problem: &str) {
        self.service.refuse(&stream, problem);
        if self.refused.len() >= REFUSED_HELD {
            self.refused.pop_front();
        }
        self.refused.push_back((Instant::now() + REFUSED_FOR, stream));
    }
}

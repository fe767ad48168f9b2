//! One connection of the load: its socket and the little that must be remembered about it.

use std::io::{self, ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

use crate::frame::LIKE;
use crate::posts::Watched;

/// At most so many likes are handed to the kernel at once, so that likers take turns.
const LIKES_A_WRITE: usize = 64;

/// As small as the kernel allows: it raises this to its own least.
const STUCK_RECEIVE_BUFFER: usize = 4096;

static LIKES: [[u8; LIKE.len()]; LIKES_A_WRITE] = [LIKE; LIKES_A_WRITE];

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// Watches over a WebSocket, and likes when told to.
    Watcher,
    /// Watches by server-sent events.
    Events,
    /// Connects as a watcher does, but reads nothing after its first count.
    Stuck,
    /// Likes over HTTP.
    Put,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    Connecting,
    Upgrading,
    Open,
    /// A stuck client that has its first count.
    Still,
    Gone,
}

pub struct Client {
    pub stream: TcpStream,
    pub role: Role,
    pub phase: Phase,
    /// When it began to connect or sent its last request.
    pub began: Instant,
    /// The newest count it was shown.
    pub newest: Option<u64>,
    /// What it was shown of each of many posts; the post whose like it waits for, over HTTP.
    pub watched: Vec<Watched>,
    /// Counts it was shown.
    pub frames: u64,
    /// The front of a frame or head whose rest has not come yet.
    pub carry: Vec<u8>,
    /// The kernel takes no more for now.
    pub blocked: bool,
    out: Vec<u8>,
    /// Bytes of likes that are still to be sent.
    likes_left: usize,
}

impl Client {
    /// Begins to connect, from `source` if one is given.
    ///
    /// # Errors
    ///
    /// When descriptors or ports have run out.
    pub fn connect(addr: SocketAddr, source: Option<Ipv4Addr>, role: Role) -> io::Result<Self> {
        let began = Instant::now();
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        if role == Role::Stuck {
            socket.set_recv_buffer_size(STUCK_RECEIVE_BUFFER)?;
        }
        if let Some(source) = source {
            // Else a port that an earlier run has just left could not be used.
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddr::from((source, 0)).into())?;
        }
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&addr.into()) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                return Err(error);
            }
            _ => {}
        }
        Ok(Self {
            stream: TcpStream::from_std(socket.into()),
            role,
            phase: Phase::Connecting,
            began,
            newest: None,
            watched: Vec::new(),
            frames: 0,
            carry: Vec::new(),
            blocked: true,
            out: Vec::new(),
            likes_left: 0,
        })
    }

    /// Queues bytes that go out before any further of the queued likes.
    pub fn queue(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Queues likes.
    pub fn queue_likes(&mut self, likes: usize) {
        self.likes_left += likes * LIKE.len();
    }

    /// Whether there are likes left that the kernel would take.
    pub fn can_like(&self) -> bool {
        !self.is_flushed() && !self.blocked && self.phase == Phase::Open
    }

    /// Whether every queued byte has gone to the kernel.
    pub fn is_flushed(&self) -> bool {
        self.likes_left == 0 && self.out.is_empty()
    }

    /// Writes what the kernel takes of the queue, but one load of likes at most. A like once begun is finished before
    /// anything else is sent.
    ///
    /// # Errors
    ///
    /// When the connection is broken.
    pub fn flush(&mut self) -> io::Result<()> {
        let mut budget = LIKES.len() * LIKE.len();
        while !self.blocked {
            let begun = self.likes_left % LIKE.len();
            let likes = if begun > 0 { begun } else { budget.min(self.likes_left) };
            let out_first = begun == 0 && !self.out.is_empty();
            let bytes = if out_first {
                &self.out
            } else if likes > 0 {
                let from = (LIKE.len() - begun) % LIKE.len();
                &LIKES.as_flattened()[from..from + likes]
            } else {
                return Ok(());
            };
            match self.stream.write(bytes) {
                Ok(written) if out_first => drop(self.out.drain(..written)),
                Ok(written) => {
                    self.likes_left -= written;
                    budget = budget.saturating_sub(written);
                    budget -= budget % LIKE.len();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.blocked = true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

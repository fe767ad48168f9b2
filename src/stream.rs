//! A connection's socket, of the internet's or of this machine's: what is read from and written to.

use rustix::net::{
    Shutdown, getpeername, shutdown,
    sockopt::{Timeout, set_socket_timeout, set_tcp_nodelay},
};
use std::{
    io::{self, Read},
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

/// A connected stream socket.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: OwnedFd,
    peer: Option<IpAddr>,
}

impl Stream {
    /// Takes a socket, which blocks.
    ///
    /// # Errors
    ///
    /// What the system says of a socket that is not connected any more.
    pub(crate) fn new(socket: impl Into<OwnedFd>) -> io::Result<Self> {
        let socket = socket.into();
        let peer = getpeername(&socket)?.and_then(|peer| SocketAddr::try_from(peer).ok());
        rustix::io::ioctl_fionbio(&socket, false)?;
        if peer.is_some() {
            set_tcp_nodelay(&socket, true)?;
        }
        Ok(Self { socket, peer: peer.map(|peer| peer.ip().to_canonical()) })
    }

    /// Where the peer is; `None` on a Unix socket.
    pub(crate) fn peer(&self) -> Option<IpAddr> {
        self.peer
    }

    pub(crate) fn set_read_timeout(&self, time: Duration) -> io::Result<()> {
        Ok(set_socket_timeout(&self.socket, Timeout::Recv, Some(time))?)
    }

    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        Ok(shutdown(&self.socket, how)?)
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Read for &Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.socket, bytes)?)
    }
}

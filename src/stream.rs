//! A connection's socket, of the internet's or of this machine's: what is read from and written to.

use rustix::{
    io::retry_on_intr,
    net::{
        RecvFlags, SendFlags, Shutdown, getpeername, recv, send, shutdown,
        sockopt::{Timeout, set_socket_timeout, set_tcp_nodelay},
    },
};
use std::{
    fmt,
    io::{self, Read},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

/// Where a peer is: at an address, or at the other end of a Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Source(pub(crate) Option<IpAddr>);

impl Source {
    /// The address that limits go by. All who come by a Unix socket have one.
    pub(crate) fn address(self) -> IpAddr {
        self.0.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => write!(f, "{address}"),
            None => f.write_str("unix:"),
        }
    }
}

/// A connected stream socket.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: OwnedFd,
    peer: Source,
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
        Ok(Self { socket, peer: Source(peer.map(|peer| peer.ip().to_canonical())) })
    }

    /// Hands over as many bytes as the kernel takes at once, without waiting; `WouldBlock` where that is none.
    #[inline(always)]
    pub(crate) fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        // Not `O_NONBLOCK`, which would also change the reads of the connection's own thread.
        Ok(retry_on_intr(|| send(self, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL))?)
    }

    /// Ends the connection, so that whoever reads from it sees the end.
    pub(crate) fn shut_down(&self) {
        let _ = self.shutdown(Shutdown::Both);
    }

    pub(crate) fn peer(&self) -> Source {
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
        // Not `read`, which takes a longer way to the socket.
        Ok(recv(&self.socket, bytes, RecvFlags::empty())?.0)
    }
}

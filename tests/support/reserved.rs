//! A port for a server that cannot be asked which one it took, or that is to come back to it.

use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket, sockopt::set_socket_reuseaddr};
use std::{
    net::{Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
};

/// A port that the system gives to nobody else while this lives, neither to listen on nor to connect from.
///
/// It is bound and not listened on, so that a server may still take it. A listener that is closed again would not do: a
/// process that is being started just then has a copy of it, which listens on.
pub struct Reserved {
    _socket: OwnedFd,
    pub addr: SocketAddr,
}

impl Reserved {
    pub fn new() -> Self {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        // As the server's own is; then both may have it.
        set_socket_reuseaddr(&socket, true).unwrap();
        bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let addr = getsockname(&socket).unwrap().try_into().unwrap();
        Self { _socket: socket, addr }
    }
}

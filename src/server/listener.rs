//! Where a server listens: at an address of the internet's, at a file, or on what another process listens on already.

use crate::{
    error::{Error, Result},
    stream::Stream,
};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketType, bind, connect, listen, socket},
};
use std::{
    fmt, fs,
    io::{self, ErrorKind},
    net::{TcpListener, ToSocketAddrs},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
};

/// A socket that listens, on the internet or on this machine alone.
///
/// ```no_run
/// use live_likes::{Likes, Listener, Server};
///
/// let server = Server::new(Likes::open("db.txt")?);
/// server.listen_on(Listener::bind_unix("/run/live-likes.sock", 0o660)?)?.run()?;
/// # Ok::<(), live_likes::Error>(())
/// ```
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    _file: Option<SocketFile>,
    is_shared: bool,
}

#[derive(Debug)]
enum Socket {
    Internet(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Listens on an address; port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// [`Error::Bind`] where the address cannot be had.
    pub fn bind(addr: impl ToSocketAddrs + fmt::Debug) -> Result<Self> {
        TcpListener::bind(&addr).map(Self::from).map_err(|source| {
            let addr = format!("{addr:?}").trim_matches('"').to_owned();
            Error::Bind { addr, source }
        })
    }

    /// Listens on a Unix socket, which is a file that those may connect to whom its mode allows to write: `0o660` for
    /// its owner and its group.
    ///
    /// A socket that a server has left is replaced, and no other file. The file is removed when this is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Bind`] where another server listens there, where there is a file that is no socket, or where the system
    /// refuses.
    pub fn bind_unix(path: impl AsRef<Path>, mode: u32) -> Result<Self> {
        let path = path.as_ref();
        let (socket, file) = SocketFile::bind(path, mode)
            .map_err(|source| Error::Bind { addr: format!("unix:{}", path.display()), source })?;
        Ok(Self { _file: Some(file), ..UnixListener::from(socket).into() })
    }

    /// Says that another process holds this socket too, and goes on with it: when the server stops, it accepts nothing
    /// more, and what waits is left to the next one. So nobody who connects during a restart is refused.
    ///
    /// From other sockets, connections are accepted until the stop is done, and answered 503.
    #[must_use]
    pub fn shared(self) -> Self {
        Self { is_shared: true, ..self }
    }

    pub(crate) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Makes it non-blocking and its backlog long, and tells its address.
    pub(crate) fn prepare(&self) -> io::Result<Address> {
        // A restart brings every client back at once; the kernel cuts this down to what it allows.
        listen(self, i32::MAX)?;
        rustix::io::ioctl_fionbio(self, true)?;
        self.address()
    }

    pub(crate) fn address(&self) -> io::Result<Address> {
        match &self.socket {
            Socket::Internet(listener) => listener.local_addr().map(Address::Internet),
            Socket::Unix(listener) => {
                let bound = listener.local_addr()?;
                Ok(Address::Unix(bound.as_pathname().unwrap_or(Path::new("")).to_owned()))
            }
        }
    }

    pub(crate) fn accept(&self) -> io::Result<Stream> {
        let socket = match &self.socket {
            Socket::Internet(listener) => OwnedFd::from(listener.accept()?.0),
            Socket::Unix(listener) => listener.accept()?.0.into(),
        };
        // What fails from here on is the connection, which its peer has broken already.
        Stream::new(socket).map_err(|_| ErrorKind::ConnectionAborted.into())
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self { socket: Socket::Internet(listener), _file: None, is_shared: false }
    }
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self { socket: Socket::Unix(listener), _file: None, is_shared: false }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Internet(listener) => listener.as_fd(),
            Socket::Unix(listener) => listener.as_fd(),
        }
    }
}

/// Where a server listens, as [`Listener`] has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Address {
    /// On the internet, with the port that was taken. Shown as a URL.
    Internet(std::net::SocketAddr),
    /// At a file. Shown as `unix:/run/live-likes.sock`.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Internet(addr) => write!(f, "http://{addr}/"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Address {
    /// Whether a browser on this machine can reach it, and nobody else.
    pub(crate) fn is_loopback(&self) -> bool {
        matches!(self, Self::Internet(addr) if addr.ip().to_canonical().is_loopback())
    }
}

/// The file of a Unix socket, removed when this is dropped.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// By which it is told from one that another server has put in its place.
    id: (u64, u64),
}

impl SocketFile {
    fn bind(path: &Path, mode: u32) -> io::Result<(OwnedFd, Self)> {
        let addr = SocketAddrUnix::new(path)
            .map_err(|_| io::Error::new(ErrorKind::InvalidInput, "a path of 1 to 107 bytes is expected"))?;
        let listener = socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
        rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::CLOEXEC)?;
        if let Err(e) = bind(&listener, &addr) {
            if e != Errno::ADDRINUSE {
                return Err(e.into());
            }
            remove_stale(path, &addr)?;
            bind(&listener, &addr)?;
        }
        // By its whole path, lest the process change its folder.
        let file = Self { path: std::path::absolute(path)?, id: id(path)? };
        // Nobody can connect before it listens, so that it is never open to more than those who are meant.
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        listen(&listener, i32::MAX)?;
        Ok((listener, file))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if id(&self.path).is_ok_and(|id| id == self.id) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn id(path: &Path) -> io::Result<(u64, u64)> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

/// Removes a socket that nobody listens on.
fn remove_stale(path: &Path, addr: &SocketAddrUnix) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::new(ErrorKind::AlreadyExists, "a file that is no socket is in the way"));
    }
    let client = socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    rustix::io::ioctl_fionbio(&client, true)?;
    match connect(&client, addr) {
        Err(Errno::CONNREFUSED) => fs::remove_file(path),
        // `AGAIN`: so many wait for it that one more cannot.
        Ok(()) | Err(Errno::AGAIN) => Err(io::Error::new(ErrorKind::AddrInUse, "another server listens there")),
        Err(e) => Err(e.into()),
    }
}

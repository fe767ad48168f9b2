//! The one error type of the library. What a *peer* does wrong is no error of ours: it is answered on the wire.

use crate::store::change::{NameError, Refused};
use std::{fmt, io, path::PathBuf};

/// What can go wrong for the program that runs a counter or a server.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// When a server starts: the address cannot be bound (taken, not ours, not permitted, not an address).
    Bind {
        /// The address as it was asked for.
        addr: String,
        /// What the system said.
        source: io::Error,
    },
    /// When a server starts: a name that was to be allowed is none.
    Name {
        /// The name as it was given.
        name: String,
        /// What is expected.
        expected: &'static str,
    },
    /// When a server starts: what was named as a trusted proxy, or as the header field of proxies, is none.
    Proxy {
        /// The name as it was given.
        name: String,
        /// What is expected.
        expected: &'static str,
    },
    /// When a server starts: a limit is outside its range.
    Limit {
        /// The field of [`Limits`](crate::Limits).
        name: &'static str,
        /// Its value.
        value: String,
        /// The range that is expected.
        expected: String,
    },
    /// When a server starts or accepts: the listener cannot be used.
    Listen(io::Error),
    /// When a counter opens or the program starts: the system has no thread to give.
    Thread(io::Error),
    /// When a counter opens: the database is not usable, and has been left as it was.
    Database {
        /// The database as it was named.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// When a page is loaded: its file cannot be read.
    Page {
        /// The file as it was named.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// When a list of posts is read: it is not usable.
    PostList {
        /// The file as it was named.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// When a like is saved: it was not, and nothing has changed. It may work later.
    NotSaved(String),
    /// When a like is saved: its outcome is not known, because the store takes too long or has failed halfway. It is
    /// tried again, and counts once.
    Unknown(String),
    /// When a like is saved: the store has failed halfway, or broken its contract, so that nobody knows what it holds.
    /// The counter has stopped for good; opening it anew finds out.
    Stopped(String),
    /// When a count is read: the store cannot be read just now. It may work later.
    NotRead(String),
    /// When a post or a visitor is named: that can be no name.
    BadName(NameError),
    /// When a post is named: the store keeps one counter alone.
    OneCounter,
    /// When a like is saved: the store does not take it, and nothing has changed.
    Refused(Refused),
    /// When a like arrives: the count is the largest that the store can keep.
    Full,
    /// When a like arrives: the counter has been closed.
    Closed,
}

/// What the fallible functions of the library return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { addr, source } => write!(f, "cannot listen on {addr}: {source}"),
            Self::Name { name, expected } => write!(f, "cannot allow `{name}`: {expected} is expected"),
            Self::Proxy { name, expected } => write!(f, "cannot trust `{name}`: {expected} is expected"),
            Self::Limit { name, value, expected } => {
                write!(f, "the limit `{name}` cannot be {value}: {expected} is expected")
            }
            Self::Listen(source) => write!(f, "cannot accept connections: {source}"),
            Self::Database { path, problem } => {
                write!(f, "cannot use the database `{}`: {problem}", path.display())
            }
            Self::Page { path, source } => write!(f, "cannot read the page `{}`: {source}", path.display()),
            Self::PostList { path, problem } => {
                write!(f, "cannot use the list of posts `{}`: {problem}", path.display())
            }
            Self::Thread(source) => write!(f, "cannot start a thread: {source}"),
            Self::NotSaved(reason) => write!(f, "the like was not saved: {reason}"),
            Self::Unknown(reason) => write!(f, "it is not known whether the like is saved: {reason}"),
            Self::Stopped(reason) => {
                write!(f, "the counter has stopped, because it is not known what is saved: {reason}")
            }
            Self::NotRead(reason) => write!(f, "the count cannot be read: {reason}"),
            Self::BadName(problem) => write!(f, "{problem}"),
            Self::OneCounter => write!(f, "this store keeps one counter; --db likes.db keeps one for each post"),
            Self::Refused(refused) => write!(f, "{refused}"),
            Self::Full => write!(f, "{}", Refused::Likes),
            Self::Closed => write!(f, "the counter is closed"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Bind { source, .. } | Self::Listen(source) | Self::Thread(source) | Self::Page { source, .. } => {
                Some(source)
            }
            _ => None,
        }
    }
}

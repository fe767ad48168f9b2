//! A like counter for any page: one small blocking server that keeps the count safe in `db.txt` and shows every like
//! on every open page at once, over WebSocket.
//!
//! It blocks because nothing more is needed: a connection is a thread that waits for its own peer and for nobody
//! else's, and a like goes out to all clients by sends that do not wait at all.
//!
//! ```no_run
//! use live_likes::{Likes, Server};
//!
//! let likes = Likes::open("db.txt")?;
//! let server = Server::new(likes.clone()).bind("127.0.0.1:3000")?;
//! println!("{} likes at http://{}/", likes.count(), server.local_addr());
//! server.run()?;
//! # Ok::<(), live_likes::Error>(())
//! ```
//!
//! Many posts, each with a count of its own and one like a visitor, are kept in SQLite, with the feature `sqlite`:
//!
//! ```no_run
//! use live_likes::{Posts, Server};
//!
//! let posts = Posts::open("likes.db")?;
//! let hello = posts.post("hello")?; // a `Likes`, like the one above
//! hello.set_liked("a-visitor-at-random", true, None)?;
//! Server::new(posts).bind("127.0.0.1:3000")?.run()?;
//! # Ok::<(), live_likes::Error>(())
//! ```
//!
//! [`Server`] has what a server can be told: a [`Page`], [`Limits`], who may ask, a prefix, and a fallback for the routes
//! of a program of one's own; a [`Service`] serves connections that the program accepts itself. [`Likes`] and
//! [`Subscription`] are enough for a program that speaks to its clients by other means. Another place for counts is a
//! [`Store`]. What can go wrong is an [`Error`]; each function says when.
//!
//! Features: `cli` (default), what only the binary needs; `sqlite`; `redis`; `full`, all stores.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod error;
pub mod http;
mod likes;
mod limits;
mod metrics;
mod server;
mod store;
mod stream;
mod websocket;

pub use error::{Error, Result};
pub use likes::{Answer, Likes, Posts, subscription::Subscription};
pub use limits::Limits;
pub use server::{
    Handle, Listening, Server,
    allowed::AllowedPosts,
    listener::{Address, Listener},
    page::Page,
    service::Service,
};
pub use store::{
    Feed, Reader, Store, StoreLimits,
    admin::{Admin, NotApplied, open_admin},
    change::{BatchId, Change, ChangeKind, Count, NameError, Outcome, Post, Refused, VisitorKey},
    open_store,
    text::FileStore,
};

#[cfg(feature = "redis")]
pub use store::redis::RedisStore;
#[cfg(feature = "sqlite")]
pub use store::sqlite::SqliteStore;

/// The README's program, compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

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
//! # Layout
//!
//! A file imports only files further down this list. A request goes down it, and the count comes out at the bottom.
//!
//! - `main.rs`: the binary: signals, exit code
//! - `cli.rs`: its flags and their environment twins
//! - `lib.rs`: this page
//! - `fuzz_session.rs`: what must hold of whatever a peer sends on a connection
//! - `fuzz.rs`: what must hold of any request, message and database
//! - `server.rs`: the builder, and the server that listens until it is stopped
//! - `door.rs`: accepting connections, one thread for each
//! - `service.rs`: the table of connections, and the end of them all
//! - `connection.rs`: one connection: requests, or the way into a session
//! - `routes.rs`: the whole API on one screen; a new route goes here
//! - `liker.rs`: what one connection may send, and what its messages mean
//! - `site.rs`: what all connections share
//! - `session.rs`: one WebSocket: handshake, reading, heartbeat, close codes
//! - `fragments.rs`: how many frames a message comes in, and the code of a close
//! - `request.rs`: reading requests from a socket, and closing one in stages
//! - `model.rs`: the next few files under a model scheduler
//! - `bench.rs`: what `cargo bench` measures of the next few files
//! - `likes.rs`: the counter: saver and broadcaster; how a like is saved
//! - `subscription.rs`: a subscriber within the process
//! - `audience.rs`: the registry of clients, and the fan-out
//! - `mailbox.rs`: what waits for one subscriber
//! - `outbox.rs`: one client's send side; the rule for a slow client
//! - `store.rs`: where the count is kept: `db.txt`
//! - `page.rs`: the page and its validators
//! - `rate.rs`: likes a second and address
//! - `access.rs`: the rules for `Host` and `Origin`
//! - `message.rs`: which messages are likes
//! - `scanner.rs`: where a request head ends
//! - `drain.rs`: where a request body ends
//! - `response.rs`: responses
//! - `http.rs`: requests
//! - `date.rs`: the `Date` field
//! - `metrics.rs`: what the server counts about itself
//! - `limits.rs`: every limit and deadline
//! - `error.rs`: the error type
//! - `sync.rs`: locks and threads

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod access;
mod audience;
#[doc(hidden)]
pub mod bench;
mod connection;
mod date;
mod door;
mod drain;
mod error;
mod fragments;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz_session;
mod http;
mod liker;
mod likes;
mod limits;
mod mailbox;
mod message;
mod metrics;
#[cfg(all(test, shuttle))]
mod model;
mod outbox;
mod page;
mod rate;
mod request;
mod response;
mod routes;
mod scanner;
mod server;
mod service;
pub mod session;
mod site;
mod store;
mod subscription;
mod sync;

pub use error::{Error, Result};
pub use likes::Likes;
pub use limits::Limits;
pub use page::Page;
pub use server::{Handle, Listening, Server};
pub use service::Service;
pub use store::{FileStore, Store};
pub use subscription::Subscription;

/// The README's program, compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

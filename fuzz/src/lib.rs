//! What must hold of any request, message, database or connection whatever, as functions that panic where it does not.
//!
//! `.ci/fuzz` looks for bytes that break one, and `cargo test` replays all that was found or made by hand, in
//! `fuzz/corpus`. A file there is what comes from outside, byte for byte. What a function needs beyond that (where to
//! split it, how many likes to add) it draws from the same bytes, so that a file always asks the same.
//!
//! Most of what is checked here is no part of the library's interface, so this is a crate that holds the rooms of `src`.

#![allow(dead_code, unused_imports, reason = "the rooms are included whole, and used in part")]

#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/http/mod.rs"]
mod http;
#[path = "../../src/likes/mod.rs"]
mod likes;
#[path = "../../src/limits.rs"]
mod limits;
#[path = "../../src/metrics.rs"]
mod metrics;
#[path = "../../src/server/mod.rs"]
mod server;
#[path = "../../src/store/mod.rs"]
mod store;
#[path = "../../src/stream.rs"]
mod stream;
#[path = "../../src/websocket/mod.rs"]
mod websocket;

mod database;
mod dialect;
mod draw;
mod message;
mod parameters;
mod request;
mod session;

pub use self::{
    database::database, dialect::dialect, message::message, parameters::parameters, request::request, session::session,
};

/// Holds each against its folder of `fuzz/corpus`: `cargo test --test corpus`, with a part of a name or without.
#[cfg(test)]
fn main() {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let replay = |target: &str, hold: fn(&[u8])| {
        if !target.contains(&filter) {
            return;
        }
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let mut files: Vec<_> = corpus.read_dir().unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        assert!(files.len() >= 10, "{} holds {} files", corpus.display(), files.len());
        for file in &files {
            let bytes = std::fs::read(file).unwrap();
            std::panic::catch_unwind(|| hold(&bytes)).unwrap_or_else(|_| panic!("{} does not hold", file.display()));
        }
        println!("{target}: {} files of the corpus hold", files.len());
    };
    replay("request", request);
    replay("message", message);
    replay("dialect", dialect);
    replay("parameters", parameters);
    replay("database", database);
    replay("session", session);
}

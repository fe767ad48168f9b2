//! A WebSocket echo server on the session that serves the counts, for a conformance suite to judge (`.ci/autobahn`).
//!
//! The session is no part of the library's API, so this compiles the rooms of the source that it needs, and the
//! handshake is tungstenite's.

#![allow(dead_code, unused_imports, reason = "rooms of the source, of which this needs a part")]

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
#[path = "../../src/store/mod.rs"]
mod store;
#[path = "../../src/stream.rs"]
mod stream;
#[path = "../../src/websocket/mod.rs"]
mod websocket;

use likes::{dialect::Dialect, outbox::Outbox};
use limits::Limits;
use metrics::{Metrics, Refusals};
use std::{net::TcpListener, sync::Arc, thread};
use stream::Stream;
use websocket::{Handler, Message, Refusal, Session};

/// Replies to each message with the same.
struct Echo;

impl Handler for Echo {
    fn text(&mut self, text: &str) -> Result<Option<Message>, Refusal> {
        Ok(Some(Message::text(text)))
    }

    fn binary(&mut self, bytes: &[u8]) -> Result<Option<Message>, Refusal> {
        Ok(Some(Message::binary(bytes.to_vec())))
    }
}

fn main() -> std::io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9002".to_owned());
    let listener = TcpListener::bind(&addr)?;
    println!("echoing at ws://{}/", listener.local_addr()?);

    // A like takes 21 bytes in one frame; a conformance suite sends 16 MiB, and one message in 65,536 frames and more.
    let limits = Limits { message_bytes: 16 << 20, fragments: 1 << 20, ..Limits::default() };

    for stream in listener.incoming() {
        let (stream, limits) = (stream?, limits.clone());
        thread::spawn(move || {
            if tungstenite::accept(&stream).is_ok() {
                let stream = Arc::new(Stream::new(stream)?);
                let outbox = Outbox::new(stream.clone(), limits.write_deadline, Dialect::Bare, None);
                let (metrics, refusals) = (&Metrics::default(), &Refusals::default());
                let session = Session { stream: &stream, outbox: &outbox, limits: &limits, metrics, refusals };
                session.run(Vec::new(), &mut Echo);
            }
            std::io::Result::Ok(())
        });
    }
    Ok(())
}

//! A WebSocket echo server out of the very session that serves the counts, so that a conformance suite can judge it.
//!
//! ```sh
//! cargo run --release --example echo -- 127.0.0.1:9002
//! ```

use live_likes::{
    Limits,
    websocket::{Handler, Reply, serve},
};
use std::{net::TcpListener, thread};

/// Says back whatever comes.
struct Echo;

impl Handler for Echo {
    fn text(&mut self, text: &str) -> Reply {
        Reply::Text(text.to_owned())
    }

    fn binary(&mut self, bytes: &[u8]) -> Reply {
        Reply::Binary(bytes.to_vec())
    }
}

fn main() -> std::io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9002".to_owned());
    let listener = TcpListener::bind(&addr)?;
    println!("echoing at ws://{}/", listener.local_addr()?);

    // A like takes 21 bytes in one frame; a conformance suite sends 16 MiB, and one message in 65,536 frames and more.
    let mut limits = Limits::default();
    limits.message_bytes = 16 << 20;
    limits.fragments = 1 << 20;

    for stream in listener.incoming() {
        let (stream, limits) = (stream?, limits.clone());
        thread::spawn(move || serve(stream, &limits, &mut Echo));
    }
    Ok(())
}

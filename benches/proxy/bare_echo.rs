//! A bare WebSocket echo on a Unix socket, for `benches/proxy/run`: tungstenite, a thread each, and nothing else.

use std::{os::unix::net::UnixListener, thread};

fn main() -> std::io::Result<()> {
    let path = std::env::args().nth(1).expect("the path of a socket is expected");
    let listener = UnixListener::bind(path)?;
    println!("listening");
    for stream in listener.incoming() {
        let stream = stream?;
        thread::Builder::new().stack_size(128 * 1024).spawn(move || {
            let Ok(mut socket) = tungstenite::accept(stream) else { return };
            while let Ok(message) = socket.read() {
                if message.is_text() && socket.send(message).is_err() {
                    return;
                }
            }
        })?;
    }
    Ok(())
}

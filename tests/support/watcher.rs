//! A client of the server: a WebSocket of tungstenite's, and plain requests.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};
use tungstenite::{Message, WebSocket};

/// Nobody should ever wait this long.
const LONG: Duration = Duration::from_secs(60);

pub struct Peer {
    socket: WebSocket<TcpStream>,
}

impl Peer {
    pub fn connect(addr: SocketAddr) -> Self {
        let (socket, _) = tungstenite::client(format!("ws://{addr}/liveLikes"), stream(addr)).unwrap();
        Self { socket }
    }

    pub fn like(&mut self) {
        self.socket.send(Message::text(r#"{"type":"like"}"#)).unwrap();
    }

    /// The next count.
    pub fn count(&mut self) -> u64 {
        match self.socket.read().unwrap() {
            Message::Text(text) => text.parse().unwrap(),
            other => panic!("a count was expected, not {other:?}"),
        }
    }

    /// Whether nothing comes before the answer to a ping that is sent now.
    #[allow(dead_code, reason = "not every test file asks")]
    pub fn has_been_sent_nothing(&mut self) -> bool {
        self.socket.send(Message::Ping("?".into())).unwrap();
        matches!(self.socket.read().unwrap(), Message::Pong(_))
    }

    /// The code of the close frame, past all counts.
    #[allow(dead_code, reason = "not every test file asks")]
    pub fn closed(&mut self) -> u16 {
        self.last_count_and_close_code().1
    }

    /// The last count before the close frame, if one comes, and the code of that.
    pub fn last_count_and_close_code(&mut self) -> (Option<u64>, u16) {
        let mut last = None;
        loop {
            match self.socket.read().unwrap() {
                Message::Text(text) => last = Some(text.parse().unwrap()),
                Message::Close(frame) => return (last, frame.unwrap().code.into()),
                other => panic!("a count or a close frame was expected, not {other:?}"),
            }
        }
    }
}

pub fn get(addr: SocketAddr, path: &str) -> String {
    request(addr, "GET", path)
}

#[allow(dead_code, reason = "not every test file likes")]
pub fn put(addr: SocketAddr) -> String {
    request(addr, "PUT", "/like")
}

#[allow(dead_code, reason = "not every test file likes posts")]
pub fn put_at(addr: SocketAddr, path: &str) -> String {
    request(addr, "PUT", path)
}

/// Sends one request on a connection of its own and returns the whole answer.
fn request(addr: SocketAddr, method: &str, path: &str) -> String {
    let mut stream = stream(addr);
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn stream(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.set_write_timeout(Some(LONG)).unwrap();
    stream
}

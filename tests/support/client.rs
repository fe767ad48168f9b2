//! The other end of the wire: HTTP by hand, WebSocket by tungstenite's client.

#![allow(dead_code, reason = "each test file uses a part")]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};
use tungstenite::{
    Error, Message, WebSocket, client::IntoClientRequest, error::ProtocolError, http::HeaderValue, protocol::Role,
};

/// Longer than anything takes that is to happen at all, also on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// An answer, as it came.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    fn read(bytes: &[u8]) -> Self {
        let text = std::str::from_utf8(bytes).expect("answers here are UTF-8");
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no whole head: {text:?}"));
        let mut lines = head.split("\r\n");
        let line = lines.next().unwrap();
        let status = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.split(' ').next()).unwrap().parse().unwrap();
        let fields = lines.map(|line| line.split_once(": ").unwrap()).map(|(name, value)| (name.into(), value.into()));
        Self { status, fields: fields.collect(), body: body.to_owned() }
    }

    /// The value of a field that stands once at most.
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} stands twice: {self:?}");
        value
    }

    /// The head, without the clock's part of it.
    pub fn head(&self) -> (u16, Vec<(String, String)>) {
        let fields = self.fields.iter().filter(|(name, _)| name != "Date").cloned();
        (self.status, fields.collect())
    }

    /// The value of a sample of `/metrics`.
    #[track_caller]
    pub fn sample(&self, name: &str) -> f64 {
        let mut values = self.body.lines().filter_map(|line| line.strip_prefix("live_likes_")?.strip_prefix(name));
        let value = values.find_map(|rest| rest.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in {}", self.body)).parse().unwrap()
    }
}

/// Sends a request and reads all that comes until the server ends the connection.
///
/// `Host` is the server's address, unless it is among the fields.
pub fn ask(addr: SocketAddr, method: &str, target: &str, fields: &[(&str, &str)]) -> Answer {
    let mut request = format!("{method} {target} HTTP/1.1\r\n");
    if !fields.iter().any(|(name, _)| *name == "Host") {
        request += &format!("Host: {addr}\r\n");
    }
    for (name, value) in fields {
        request += &format!("{name}: {value}\r\n");
    }
    if !fields.iter().any(|(name, _)| *name == "Connection") {
        request += "Connection: close\r\n";
    }
    Answer::read(&exchange(addr, format!("{request}\r\n").as_bytes()))
}

pub fn get(addr: SocketAddr, target: &str) -> Answer {
    ask(addr, "GET", target, &[])
}

pub fn put(addr: SocketAddr, target: &str) -> Answer {
    ask(addr, "PUT", target, &[])
}

/// A handshake that is right in all it is not told otherwise, and the answer to it, where that is no 101.
pub fn handshake(addr: SocketAddr, target: &str, fields: &[(&str, &str)]) -> Answer {
    let right = [
        ("Connection", "Upgrade, close"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let told = |name: &str| fields.iter().any(|(other, _)| *other == name);
    let fields: Vec<_> = right.into_iter().filter(|(name, _)| !told(name)).chain(fields.iter().copied()).collect();
    ask(addr, "GET", target, &fields)
}

/// Sends bytes and reads all that comes until the server ends the connection.
pub fn exchange(addr: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(addr);
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

/// Reads the head of an answer, and no byte more.
pub fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

pub fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A connection whose end holds few bytes that are not read.
pub fn connect_narrow(addr: SocketAddr) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, connect, socket, sockopt};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    // Much less, and the kernel drops what does not fit, and takes seconds to send it again.
    sockopt::set_socket_recv_buffer_size(&socket, 32 * 1024).unwrap();
    connect(&socket, &addr).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Ends a connection with a reset instead of an end.
pub fn reset(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
}

/// A WebSocket client that likes and watches.
pub struct Client {
    pub socket: WebSocket<TcpStream>,
}

impl Client {
    pub fn new(addr: SocketAddr) -> Self {
        Self::over(connect(addr), None)
    }

    pub fn over(stream: TcpStream, origin: Option<&'static str>) -> Self {
        let addr = stream.peer_addr().unwrap();
        let mut request = format!("ws://{addr}/liveLikes").into_client_request().unwrap();
        if let Some(origin) = origin {
            request.headers_mut().insert("Origin", HeaderValue::from_static(origin));
        }
        let (socket, _) = tungstenite::client::client(request, stream).unwrap();
        Self { socket }
    }

    /// One that speaks JSON: it asks for the subprotocol.
    pub fn of_json(addr: SocketAddr) -> Self {
        Self::of_json_over(connect(addr))
    }

    pub fn of_json_over(stream: TcpStream) -> Self {
        let mut request = format!("ws://{}/liveLikes", stream.peer_addr().unwrap()).into_client_request().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("live-likes"));
        // Fails where the server does not agree on it.
        let (socket, _) = tungstenite::client::client(request, stream).unwrap();
        Self { socket }
    }

    /// One whose handshake is done.
    pub fn after_handshake(stream: TcpStream) -> Self {
        Self { socket: WebSocket::from_raw_socket(stream, Role::Client, None) }
    }

    /// The next text message.
    #[track_caller]
    pub fn hear(&mut self) -> String {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => return text.to_string(),
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                other => panic!("a text message was to come, not {other:?}"),
            }
        }
    }

    pub fn say(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    pub fn like(&mut self) {
        self.say(r#"{"type":"like"}"#);
    }

    /// Sends likes as fast as the wire takes them.
    pub fn like_times(&mut self, likes: usize) {
        for _ in 0..likes {
            self.socket.write(Message::text(r#"{"type":"like"}"#)).unwrap();
        }
        self.socket.flush().unwrap();
    }

    /// The next count.
    #[track_caller]
    pub fn count(&mut self) -> u64 {
        self.hear().parse().expect("a count is a bare number")
    }

    /// All counts up to this one, which must be the highest.
    #[track_caller]
    pub fn counts_until(&mut self, last: u64) -> Vec<u64> {
        let mut counts = Vec::new();
        while counts.last() != Some(&last) {
            counts.push(self.count());
            assert!(counts.last() <= Some(&last), "{last} was to be the last of {counts:?}");
        }
        counts
    }

    /// Waits until the server has taken all that was sent before: it answers in order.
    #[track_caller]
    pub fn settle(&mut self) {
        self.socket.send(Message::Ping("settled".into())).unwrap();
        loop {
            match self.socket.read().expect("a pong was to come") {
                Message::Pong(payload) if payload == "settled" => return,
                Message::Close(frame) => panic!("a pong was to come, not a close: {frame:?}"),
                _ => {}
            }
        }
    }

    /// Whether nothing comes before the answer to a ping that is sent now.
    pub fn has_been_sent_nothing(&mut self) -> bool {
        self.socket.send(Message::Ping("?".into())).unwrap();
        matches!(self.socket.read().unwrap(), Message::Pong(_))
    }

    /// Reads on until the server closes: the last count before that, if one comes, and the code.
    #[track_caller]
    pub fn last_count_and_close_code(&mut self) -> (Option<u64>, u16) {
        let mut last = None;
        loop {
            match self.socket.read().unwrap() {
                Message::Text(text) => last = Some(text.parse().unwrap()),
                Message::Close(frame) => return (last, frame.unwrap().code.into()),
                other => panic!("a count or a close frame was to come, not {other:?}"),
            }
        }
    }

    /// Reads on until the server closes: the code, and the reason.
    #[track_caller]
    pub fn closed(&mut self) -> (u16, String) {
        loop {
            match self.socket.read() {
                Ok(Message::Close(Some(frame))) => {
                    let closed = (frame.code.into(), frame.reason.to_string());
                    self.ended();
                    return closed;
                }
                Ok(Message::Close(None)) => panic!("closed without a code"),
                Ok(_) => {}
                Err(e) => panic!("a close frame was to come, not {e}"),
            }
        }
    }

    /// Reads on until the connection ends, in whatever way.
    #[track_caller]
    pub fn ended(&mut self) {
        loop {
            match self.socket.read() {
                Ok(_) => {}
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => return,
                Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => return,
                Err(Error::Io(e)) if e.kind() == std::io::ErrorKind::ConnectionReset => return,
                Err(e) => panic!("an end was to come, not {e}"),
            }
        }
    }
}

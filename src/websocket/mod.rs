//! One WebSocket, from its handshake to its close: what [RFC 6455](https://www.rfc-editor.org/rfc/rfc6455) asks of a
//! server, whatever the messages mean.
//!
//! tungstenite reads frames, checks them and answers pings; it never touches the socket to write, since its `Write`
//! is the client's outbox, through which others show counts at the same time. What tungstenite leaves open is done
//! here: an HTTP answer to a bad handshake, a close frame for each error, deadlines, and the closing itself.
//!
//! What must never happen here: a wait without a deadline, a byte to the socket past the outbox.

mod fragments;
pub(crate) mod message;

use crate::{
    http::body::Framing,
    http::reader::{RequestError, RequestReader, close_in_stages},
    http::request::{Request, only},
    http::response::Response,
    likes::outbox::{Outbox, Standing},
    limits::Limits,
    websocket::fragments::Fragments,
};
use ::http::{
    Method, Version,
    header::{SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION},
};
use rustix::event::{PollFd, PollFlags, poll};
use std::{
    borrow::Cow,
    io::{self, Read, Write},
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tungstenite::{
    Message, WebSocket,
    error::{Error, ProtocolError},
    handshake::server::create_response,
    protocol::{Role, WebSocketConfig},
};

/// Bytes that tungstenite reads at a time. It allocates them for each connection at once, and a like takes 21.
const READ_BUFFER: usize = 1024;

/// Bytes that the kernel holds for a client that does not read. With the default, that would be megabytes.
const SEND_BUFFER: usize = 16 * 1024;

/// A ping with no content.
const PING: [u8; 2] = [0x89, 0];

/// Close codes of RFC 6455 section 7.4.1 and its registry, as far as this server sends them.
#[allow(missing_docs, reason = "the names are the registry's own")]
pub mod code {
    pub const GOING_AWAY: u16 = 1001;
    pub const PROTOCOL_ERROR: u16 = 1002;
    pub const UNSUPPORTED_DATA: u16 = 1003;
    pub const INVALID_PAYLOAD: u16 = 1007;
    pub const POLICY_VIOLATION: u16 = 1008;
    pub const MESSAGE_TOO_BIG: u16 = 1009;
    pub const INTERNAL_ERROR: u16 = 1011;
    pub const TRY_AGAIN_LATER: u16 = 1013;
    pub const BAD_GATEWAY: u16 = 1014;
}

/// What the messages of a client mean.
pub trait Handler {
    /// A text message has come.
    fn text(&mut self, text: &str) -> Reply;
    /// A binary message has come.
    fn binary(&mut self, bytes: &[u8]) -> Reply;
}

/// What is done about a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply {
    /// Nothing is sent.
    Nothing,
    /// A text message is sent.
    Text(String),
    /// A binary message is sent.
    Binary(Vec<u8>),
    /// The connection is closed, with a code of [`mod@code`] and a reason of at most 123 bytes.
    Close(u16, Cow<'static, str>),
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The peer closed it, or has gone.
    Peer,
    /// The peer was closed, with this code.
    Closed(u16),
}

/// Serves one accepted connection as a WebSocket, on any path and for any origin, until it ends.
///
/// This is the very session that a [`Server`](crate::Server) runs at `/liveLikes`, with another handler of a message.
pub fn serve(stream: TcpStream, limits: &Limits, handler: &mut impl Handler) {
    let _ = stream.set_nodelay(true);
    let _ = stream.set_write_timeout(Some(limits.write_deadline));
    let mut reader = RequestReader::new(&stream, Vec::new());
    let answer = match reader.request(limits) {
        Ok(request) if request.method != Method::GET => Err(not_get()),
        Ok(request) => handshake(&request),
        Err(RequestError::Refused(refusal)) => Err(Response::from(&refusal)),
        Err(RequestError::Ended) => return,
    };
    let early = reader.into_rest();
    let bytes = match &answer {
        Ok(upgraded) => upgraded,
        Err(response) => &response.encode(false, false, SystemTime::now()),
    };
    if (&stream).write_all(bytes).is_err() || answer.is_err() {
        return close_in_stages(&stream, limits);
    }
    let stream = Arc::new(stream);
    let outbox = Outbox::new(stream.clone(), limits.write_deadline, crate::likes::round::Dialect::Bare);
    run(&stream, &outbox, early, limits, handler);
}

/// The answer to a handshake by another method.
pub(crate) fn not_get() -> Response {
    Response::error(405, "a WebSocket handshake is a GET").field("Allow", "GET")
}

/// Judges a handshake (RFC 6455 section 4.2): the bytes of the 101, or the answer that says what is wrong.
pub(crate) fn handshake(request: &Request) -> Result<Vec<u8>, Response> {
    let bad = |problem| Response::error(400, problem);
    let asked = request.asks_for_websocket();
    if request.version == Version::HTTP_10 && asked {
        return Err(bad("a WebSocket handshake is an HTTP/1.1 request"));
    }
    if !asked {
        return Err(Response::error(426, "a WebSocket is served here: Upgrade: websocket, Connection: Upgrade")
            .field("Upgrade", "websocket")
            .field("Connection", "Upgrade"));
    }
    if request.framing != Framing::Length(0) {
        return Err(bad("a WebSocket handshake has no body"));
    }
    if !matches!(only(&request.fields, SEC_WEBSOCKET_VERSION), Ok(Some(version)) if version == "13") {
        return Err(Response::error(426, "only version 13 of the WebSocket protocol is supported")
            .field("Upgrade", "websocket")
            .field("Connection", "Upgrade")
            .field("Sec-WebSocket-Version", "13"));
    }
    // tungstenite takes one line of each, in their plainest form, which is what was found in them.
    let Ok(Some(key)) = only(&request.fields, SEC_WEBSOCKET_KEY) else {
        return Err(bad("one Sec-WebSocket-Key is expected"));
    };
    let response = ::http::Request::builder()
        .version(Version::HTTP_11)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", key)
        .body(())
        .ok()
        .and_then(|request| create_response(&request).ok())
        .ok_or_else(|| bad("the Sec-WebSocket-Key is not 16 bytes in base64"))?;
    let mut bytes = Vec::with_capacity(160);
    match tungstenite::handshake::server::write_response(&mut bytes, &response) {
        Ok(()) => Ok(bytes),
        Err(_) => Err(Response::error(500, "the handshake could not be answered")),
    }
}

/// Runs an upgraded connection until it ends. `early` are bytes that came after the handshake's request.
pub(crate) fn run(
    stream: &TcpStream,
    outbox: &Outbox,
    early: Vec<u8>,
    limits: &Limits,
    handler: &mut impl Handler,
) -> Ending {
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(stream, SEND_BUFFER);
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(usize::MAX)
        .max_message_size(Some(limits.message_bytes))
        .max_frame_size(Some(limits.message_bytes));
    let socket = Socket { stream, outbox, early, fragments: Fragments::default(), limits };
    let mut session = WebSocket::from_raw_socket(socket, Role::Server, Some(config));

    let (ending, code, reason) = match talk(&mut session, stream, outbox, limits, handler) {
        End::Gone => return Ending::Peer,
        // RFC 6455 section 5.5.1: a close frame is answered with one, which commonly repeats its code.
        End::Asked(code) => (Ending::Peer, code, Cow::Borrowed("")),
        End::Close(code, reason) => (Ending::Closed(code), Some(code), reason),
    };
    drop(session);
    log::debug!("closing a WebSocket: {code:?} {reason}");
    outbox.close(code, &reason);
    // Sections 5.5.1 and 7.1.1: having sent and received a close frame, the server closes first; a peer whose close
    // frame is still to come sends it into the last stage.
    if flushed(stream, outbox, limits.close_within, limits.write_deadline) {
        close_in_stages(stream, limits);
    }
    ending
}

/// Why a talk is over.
enum End {
    /// There is nobody to tell.
    Gone,
    /// The peer asks for it, with this code.
    Asked(Option<u16>),
    Close(u16, Cow<'static, str>),
}

fn talk(
    session: &mut WebSocket<Socket<'_>>,
    stream: &TcpStream,
    outbox: &Outbox,
    limits: &Limits,
    handler: &mut impl Handler,
) -> End {
    let mut pinged = false;
    let wait = |time: Duration| stream.set_read_timeout(Some(time)).is_ok();
    if !wait(limits.ping_after) {
        return End::Gone;
    }
    loop {
        let reply = match session.read() {
            Ok(Message::Text(text)) => handler.text(&text),
            Ok(Message::Binary(bytes)) => handler.binary(&bytes),
            Ok(Message::Close(frame)) => {
                let code = frame.map(|frame| match session.get_ref().fragments.close_code() {
                    // tungstenite does not know it.
                    Some(code::BAD_GATEWAY) => code::BAD_GATEWAY,
                    _ => frame.code.into(),
                });
                return End::Asked(code);
            }
            Ok(_) => Reply::Nothing,
            Err(Error::Io(e)) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                // RFC 6455 section 5.5.2: a ping finds out whether the peer is still there.
                if pinged || outbox.push(&PING) == Standing::Gone || !wait(limits.pong_within) {
                    return End::Gone;
                }
                pinged = true;
                continue;
            }
            Err(Error::Io(e)) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return end_of(e),
        };
        let sent = match reply {
            Reply::Nothing => Ok(()),
            Reply::Text(text) => session.send(Message::text(text)),
            Reply::Binary(bytes) => session.send(Message::binary(bytes)),
            Reply::Close(code, reason) => return End::Close(code, reason),
        };
        if sent.is_err() || std::mem::take(&mut pinged) && !wait(limits.ping_after) {
            return End::Gone;
        }
    }
}

/// The close code for each way in which a peer can break the protocol.
fn end_of(error: Error) -> End {
    let reason = error.to_string();
    match error {
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) | Error::ConnectionClosed => End::Gone,
        Error::Io(e) if e.get_ref().is_some_and(|e| e.is::<TooManyFragments>()) => {
            End::Close(code::MESSAGE_TOO_BIG, e.to_string().into())
        }
        Error::Io(_) | Error::AlreadyClosed => End::Gone,
        Error::Capacity(_) => End::Close(code::MESSAGE_TOO_BIG, reason.into()),
        Error::Utf8(_) => End::Close(code::INVALID_PAYLOAD, reason.into()),
        Error::Protocol(_) => End::Close(code::PROTOCOL_ERROR, reason.into()),
        _ => End::Close(code::INTERNAL_ERROR, reason.into()),
    }
}

/// What tungstenite reads from and writes to.
struct Socket<'s> {
    stream: &'s TcpStream,
    outbox: &'s Outbox,
    /// Bytes that came with the handshake's request, still to be read.
    early: Vec<u8>,
    fragments: Fragments,
    limits: &'s Limits,
}

impl Read for Socket<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let too_many = || Err(io::Error::other(TooManyFragments(self.limits.fragments)));
        if self.fragments.exceeded() {
            return too_many();
        }
        let read = if self.early.is_empty() {
            self.stream.read(bytes)?
        } else {
            let read = bytes.len().min(self.early.len());
            bytes[..read].copy_from_slice(&self.early[..read]);
            self.early.drain(..read);
            if self.early.is_empty() {
                self.early = Vec::new();
            }
            read
        };
        match self.fragments.within(&bytes[..read], self.limits.fragments) {
            0 if read > 0 => too_many(),
            within => Ok(within),
        }
    }
}

impl Write for Socket<'_> {
    /// Takes whole frames, as tungstenite writes them. What the kernel does not take at once is waited for, which
    /// is this connection's own time.
    fn write(&mut self, frames: &[u8]) -> io::Result<usize> {
        let level = match self.outbox.push(frames) {
            Standing::Level => true,
            Standing::Behind => flushed(self.stream, self.outbox, Duration::MAX, self.limits.write_deadline),
            Standing::Gone => self.outbox.is_closing(),
        };
        if level { Ok(frames.len()) } else { Err(io::ErrorKind::TimedOut.into()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits until all that an outbox holds has gone out: for `within` at most, and no longer than `stuck` without any
/// progress. Says whether it has, or nothing more is to go out.
fn flushed(stream: &TcpStream, outbox: &Outbox, within: Duration, stuck: Duration) -> bool {
    let start = Instant::now();
    loop {
        let now = Instant::now();
        match outbox.flush(now).standing {
            Standing::Level => return true,
            Standing::Gone => return outbox.is_closing(),
            Standing::Behind => {}
        }
        let left = within.saturating_sub(now - start).min(stuck);
        if left.is_zero() {
            return false;
        }
        let timeout = left.try_into().ok();
        let _ = poll(&mut [PollFd::new(stream, PollFlags::OUT)], timeout.as_ref());
    }
}

/// A message of more frames than allowed.
#[derive(Debug)]
struct TooManyFragments(usize);

impl std::fmt::Display for TooManyFragments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a message may come in {} frames", self.0)
    }
}

impl std::error::Error for TooManyFragments {}

//! A WebSocket after its handshake: reading, pinging, replying, closing.
//!
//! tungstenite reads frames, checks them and answers pings. It never touches the socket to write: its `Write` is the
//! client's outbox, on which others send counts at the same time. What tungstenite leaves open is done here: a close
//! code for each error, deadlines, and the closing itself.
//!
//! What must never happen here: a wait without a deadline, a byte to the socket past the outbox.

use crate::{
    http::reader::close_in_stages,
    likes::outbox::{Outbox, Standing},
    limits::{Limits, due_in},
    metrics::{Metrics, Refused},
    websocket::frames::Frames,
    websocket::refusal::{Refusal, code},
};
use rustix::event::{PollFd, PollFlags, poll};
use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};
use tungstenite::{
    Message, WebSocket,
    error::{Error, ProtocolError},
    protocol::{Role, WebSocketConfig},
};

/// Bytes that tungstenite reads at a time. It allocates them for each connection at once, and a like takes 21.
const READ_BUFFER: usize = 1024;

/// Bytes that the kernel holds for a client that does not read. With the default, that would be megabytes.
const SEND_BUFFER: usize = 16 * 1024;

/// Handles the messages of a client.
pub(crate) trait Handler {
    /// Handles a text message. Returns the reply, if there is one.
    ///
    /// # Errors
    ///
    /// Why the connection is closed.
    fn text(&mut self, text: &str) -> Result<Option<Message>, Refusal>;

    /// The same for a binary message.
    fn binary(&mut self, bytes: &[u8]) -> Result<Option<Message>, Refusal>;
}

/// A connection that has become a WebSocket.
pub(crate) struct Session<'s> {
    pub(crate) stream: &'s TcpStream,
    pub(crate) outbox: &'s Outbox,
    pub(crate) limits: &'s Limits,
    pub(crate) metrics: &'s Metrics,
}

/// Why no more messages are read.
enum End {
    /// The peer has gone, or is dropped: nobody is there to read a close frame.
    Gone,
    /// The peer has sent a close frame, with this code.
    ClosedByPeer(Option<u16>),
    Refused(Refusal),
}

impl Session<'_> {
    /// Runs the connection until it ends. `early` are bytes that came after the handshake's request.
    pub(crate) fn run(&self, early: Vec<u8>, handler: &mut impl Handler) {
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(self.stream, SEND_BUFFER);
        let (code, reason) = match self.handle_messages(early, handler) {
            End::Gone => return,
            // RFC 6455 section 5.5.1: a close frame is answered with one, which commonly repeats its code.
            End::ClosedByPeer(code) => (code, "".into()),
            End::Refused(refusal) => (Some(refusal.code), refusal.reason),
        };
        log::debug!("closing a WebSocket: {code:?} {reason}");
        self.close(code, &reason);
    }

    /// Reads messages and hands them to the handler, until there are no more.
    fn handle_messages(&self, mut early: Vec<u8>, handler: &mut impl Handler) -> End {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_write_buffer_size(usize::MAX)
            .max_message_size(Some(self.limits.message_bytes))
            .max_frame_size(Some(self.limits.message_bytes));
        let mut socket = Socket { session: self, frames: Frames::default(), pinged: false };
        early.truncate(socket.frames.follow(&early, self.limits.fragments));
        let mut websocket = WebSocket::from_partially_read(socket, early, Role::Server, Some(config));
        if self.stream.set_read_timeout(Some(self.limits.ping_after)).is_err() {
            return End::Gone;
        }
        loop {
            let reply = match websocket.read() {
                Ok(Message::Text(text)) => handler.text(&text),
                Ok(Message::Binary(bytes)) => handler.binary(&bytes),
                Ok(Message::Close(frame)) => {
                    let code = frame.map(|frame| match websocket.get_ref().frames.close_code() {
                        // tungstenite takes it for a mistake.
                        Some(code::BAD_GATEWAY) => code::BAD_GATEWAY,
                        _ => frame.code.into(),
                    });
                    return End::ClosedByPeer(code);
                }
                Ok(_) => Ok(None),
                Err(Error::Io(e)) if e.kind() == io::ErrorKind::Interrupted => Ok(None),
                Err(Error::Io(e)) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    match websocket.get_mut().ping() {
                        Some(ping) => match websocket.send(ping) {
                            Ok(()) => continue,
                            Err(_) => return End::Gone,
                        },
                        None => return End::Gone,
                    }
                }
                Err(e) => {
                    let Some(refusal) = refusal(e, &websocket.get_ref().frames) else { return End::Gone };
                    self.metrics.refused(Refused::BadMessage);
                    return End::Refused(refusal);
                }
            };
            if std::mem::take(&mut websocket.get_mut().pinged)
                && self.stream.set_read_timeout(Some(self.limits.ping_after)).is_err()
            {
                return End::Gone;
            }
            match reply {
                Ok(None) => {}
                Ok(Some(message)) => {
                    if websocket.send(message).is_err() {
                        return End::Gone;
                    }
                }
                Err(refusal) => return End::Refused(refusal),
            }
        }
    }

    /// Closes the connection (RFC 6455 sections 5.5.1 and 7.1.1): having sent a close frame, and received one, the server
    /// closes first. A peer whose close frame is still to come sends it into the last stage.
    fn close(&self, code: Option<u16>, reason: &str) {
        let deadline = due_in(self.limits.close_within);
        self.outbox.close(code, reason);
        if self.flush(deadline) {
            close_in_stages(self.stream, self.limits);
        }
    }

    /// Waits until all that the outbox holds has gone out, until `deadline` at most. Says whether it has.
    fn flush(&self, deadline: Instant) -> bool {
        loop {
            let now = Instant::now();
            let sent = self.outbox.retry(now);
            match sent.standing {
                Standing::Level => return true,
                Standing::Gone => return self.outbox.is_closing(),
                Standing::Behind if now >= deadline => return false,
                Standing::Behind => {}
            }
            let wait = deadline.saturating_duration_since(now).min(self.limits.write_deadline);
            let _ = poll(&mut [PollFd::new(self.stream, PollFlags::OUT)], wait.try_into().ok().as_ref());
        }
    }
}

/// The close code for each way in which a peer can break the protocol; `None` where it has gone.
fn refusal(error: Error, frames: &Frames) -> Option<Refusal> {
    let code = match error {
        Error::Io(e) if e.kind() == io::ErrorKind::InvalidData => return frames.refusal().cloned(),
        Error::Io(_) | Error::AlreadyClosed | Error::ConnectionClosed => return None,
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return None,
        Error::Capacity(_) => code::MESSAGE_TOO_BIG,
        Error::Utf8(_) => code::INVALID_PAYLOAD,
        Error::Protocol(_) => code::PROTOCOL_ERROR,
        _ => code::INTERNAL_ERROR,
    };
    Some(Refusal::new(code, error.to_string()))
}

/// What tungstenite reads from and writes to.
struct Socket<'s> {
    session: &'s Session<'s>,
    frames: Frames,
    /// The peer has been sent a ping since it was last heard of.
    pinged: bool,
}

impl Socket<'_> {
    /// The ping that finds out whether a silent peer is still there (RFC 6455 section 5.5.2), unless there has been
    /// one.
    fn ping(&mut self) -> Option<Message> {
        let session = self.session;
        let first = !std::mem::replace(&mut self.pinged, true);
        let waits = first && session.stream.set_read_timeout(Some(session.limits.pong_within)).is_ok();
        waits.then(|| Message::Ping(Default::default()))
    }
}

impl Read for Socket<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let &Session { mut stream, limits, .. } = self.session;
        if self.frames.refusal().is_none() {
            let read = stream.read(bytes)?;
            let passed = self.frames.follow(&bytes[..read], limits.fragments);
            if passed > 0 || read == 0 {
                return Ok(passed);
            }
        }
        Err(io::ErrorKind::InvalidData.into())
    }
}

impl Write for Socket<'_> {
    /// Takes whole frames, as tungstenite writes them.
    fn write(&mut self, frames: &[u8]) -> io::Result<usize> {
        self.session.outbox.push(frames);
        Ok(frames.len())
    }

    /// Waits until they have gone out, so that a peer that does not read its replies is not read either. The wait is
    /// this connection's own time.
    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.session.flush(due_in(Duration::MAX));
        if flushed { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }
}

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
    metrics::{Metrics, Refusals, Refused},
    stream::Stream,
    websocket::frames::Frames,
    websocket::refusal::{Refusal, code},
};
use rustix::event::{PollFd, PollFlags, poll};
use std::{
    io::{self, Read, Write},
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

/// Between two looks whether the kernel has room again. It says so by itself only when a third of the buffer is free.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

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
    pub(crate) stream: &'s Stream,
    pub(crate) outbox: &'s Outbox,
    pub(crate) limits: &'s Limits,
    pub(crate) metrics: &'s Metrics,
    pub(crate) refusals: &'s Refusals,
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
        if self.stream.set_read_timeout(self.limits.ping_after).is_err() {
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
                        Some(ping) => Ok(Some(ping)),
                        None => return End::Gone,
                    }
                }
                Err(e) => {
                    let Some(refusal) = refusal(e, &websocket.get_ref().frames) else { return End::Gone };
                    self.refusals.add(Refused::BadMessage);
                    return End::Refused(refusal);
                }
            };
            match reply {
                // A client that does not read what it is told is not read either.
                Ok(None) if self.outbox.holds_much() => {
                    if !self.flush(due_in(self.limits.write_deadline)) {
                        return End::Gone;
                    }
                }
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

    /// Closes the connection, all in all within its deadline (RFC 6455 sections 5.5.1 and 7.1.1): having sent a close
    /// frame, and received one, the server closes first. A peer whose close frame is still to come sends it into the
    /// last stage.
    fn close(&self, code: Option<u16>, reason: &str) {
        let deadline = due_in(self.limits.close_within);
        self.outbox.close(code, reason);
        if self.flush(deadline) {
            close_in_stages(self.stream, deadline);
        }
    }

    /// Waits until all that the outbox holds has gone out, until `deadline` at most. Says whether it has.
    fn flush(&self, deadline: Instant) -> bool {
        loop {
            let now = Instant::now();
            let sent = self.outbox.flush(now);
            self.metrics.frames(sent.frames);
            match sent.standing {
                Standing::Level => return true,
                Standing::Gone => return self.outbox.is_closing(),
                Standing::Behind if now >= deadline => return false,
                Standing::Behind => {}
            }
            let wait = deadline.saturating_duration_since(now).min(LOOK_AGAIN);
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
        let waits = first && session.stream.set_read_timeout(session.limits.pong_within).is_ok();
        waits.then(|| Message::Ping(Default::default()))
    }
}

impl Read for Socket<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let &Session { mut stream, limits, .. } = self.session;
        if self.frames.refusal().is_none() {
            let read = stream.read(bytes)?;
            if std::mem::take(&mut self.pinged) {
                stream.set_read_timeout(limits.ping_after)?;
            }
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
        let flushed = self.session.flush(due_in(self.session.limits.write_deadline));
        if flushed { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::likes::dialect::Dialect;
    use std::{
        net::{TcpListener, TcpStream},
        sync::Arc,
        thread,
    };

    /// Long enough for a busy machine.
    const SECOND: Duration = Duration::from_secs(1);
    const SOON: Duration = Duration::from_secs(60);

    struct Echo;

    impl Handler for Echo {
        fn text(&mut self, text: &str) -> Result<Option<Message>, Refusal> {
            Ok(Some(Message::text(text)))
        }

        fn binary(&mut self, bytes: &[u8]) -> Result<Option<Message>, Refusal> {
            Ok(Some(Message::binary(bytes.to_vec())))
        }
    }

    /// A masked frame, whose mask changes nothing.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let length = payload.len();
        let header = match length {
            0..126 => vec![first, 0x80 | length as u8],
            126..65536 => [&[first, 0xfe][..], &(length as u16).to_be_bytes()].concat(),
            _ => [&[first, 0xff][..], &(length as u64).to_be_bytes()].concat(),
        };
        [&header[..], &[0; 4], payload].concat()
    }

    fn with(set: impl FnOnce(&mut Limits)) -> Limits {
        let mut limits = Limits::default();
        (limits.ping_after, limits.pong_within, limits.write_deadline) = (10 * SOON, 10 * SOON, 10 * SOON);
        set(&mut limits);
        limits
    }

    /// The peer of a session that echoes, for which the kernel holds as much as it takes already.
    struct Peer {
        stream: TcpStream,
        /// Bytes to be read before what the session sends.
        before: usize,
        outbox: Arc<Outbox>,
        session: thread::JoinHandle<Duration>,
    }

    impl Peer {
        fn new(limits: &Limits, sent: &[u8]) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            // The peer is the side that accepts, since it has its small buffer from the listener.
            rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 2048).unwrap();
            let (server, limits) = (TcpStream::connect(listener.local_addr().unwrap()).unwrap(), limits.clone());
            let (server, mut stream) = (Arc::new(Stream::new(server).unwrap()), listener.accept().unwrap().0);
            stream.set_read_timeout(Some(SOON)).unwrap();
            rustix::net::sockopt::set_socket_send_buffer_size(&*server, SEND_BUFFER).unwrap();
            // What is taken again after a while is little: the kernel has sent a part of what it holds.
            let (mut before, mut full) = (0, 0);
            while full < 3 {
                match server.send_now(&[0; 1000]) {
                    Ok(taken) => (before, full) = (before + taken, 0),
                    Err(_) => {
                        full += 1;
                        thread::park_timeout(Duration::from_millis(100));
                    }
                }
            }
            stream.write_all(sent).unwrap();
            let outbox = Arc::new(Outbox::new(server.clone(), limits.write_deadline, Dialect::Bare, None));
            let session = thread::spawn({
                let outbox = outbox.clone();
                move || {
                    let start = Instant::now();
                    Session {
                        stream: &server,
                        outbox: &outbox,
                        limits: &limits,
                        metrics: &Metrics::default(),
                        refusals: &Refusals::default(),
                    }
                    .run(Vec::new(), &mut Echo);
                    outbox.abandon();
                    start.elapsed()
                }
            });
            Self { stream, before, outbox, session }
        }

        fn waits_behind(&self) {
            let deadline = Instant::now() + SOON;
            while self.outbox.push(&[]) != Standing::Behind {
                assert!(Instant::now() < deadline);
                thread::park_timeout(Duration::from_millis(1));
            }
        }

        fn read(&mut self, length: usize) -> Vec<u8> {
            let mut bytes = vec![0; length];
            self.stream.read_exact(&mut bytes).unwrap();
            bytes
        }
    }

    /// Measures until it takes from `least` to `most`. A busy machine may make it longer, but not three times.
    fn takes(least: Duration, most: Duration, measure: impl Fn() -> Duration) {
        let mut times = Vec::new();
        while times.len() < 3 {
            times.push(measure());
            assert!(times.iter().all(|time| *time >= least), "{times:?}");
            if times.iter().any(|time| *time <= most) {
                return;
            }
        }
        panic!("{times:?}, and not {most:?} at most");
    }

    #[test]
    fn a_peer_that_does_not_read_its_pongs_is_dropped_at_the_write_deadline() {
        let limits = with(|limits| limits.write_deadline = SECOND);
        takes(SECOND, SECOND * 3 / 2, || {
            let mut peer = Peer::new(&limits, &frame(0x89, &[b'x'; 125]).repeat(400));
            peer.waits_behind();
            // Room for a few pongs: fewer than there are, and less than the kernel tells of.
            peer.read(2048);
            peer.session.join().unwrap()
        });
    }

    #[test]
    fn a_peer_that_takes_a_part_of_its_reply_now_and_then_is_dropped_at_the_write_deadline() {
        let limits = with(|limits| (limits.write_deadline, limits.message_bytes) = (SECOND, 1 << 20));
        takes(SECOND, SECOND * 3 / 2, || {
            let mut peer = Peer::new(&limits, &[]);
            peer.stream.write_all(&frame(0x82, &vec![b'x'; 1 << 20])).unwrap();
            while !peer.session.is_finished() {
                let _ = peer.stream.read(&mut [0; 1000]);
                thread::park_timeout(Duration::from_millis(10));
            }
            peer.session.join().unwrap()
        });
    }

    #[test]
    fn what_is_left_to_send_and_the_peer_s_close_share_one_deadline() {
        let limits = with(|limits| limits.close_within = SECOND);
        takes(SECOND, SECOND * 3 / 2, || {
            let mut peer = Peer::new(&limits, &frame(0x81, b"\xff"));
            peer.waits_behind();
            thread::park_timeout(SECOND * 3 / 4);
            peer.read(peer.before);
            assert_eq!(peer.read(4)[2..], 1007_u16.to_be_bytes());
            peer.session.join().unwrap()
        });
    }

    #[test]
    fn a_ping_goes_out_when_a_silent_peer_reads_again() {
        let mut peer = Peer::new(&with(|limits| limits.ping_after = SECOND / 20), &[]);
        peer.waits_behind();
        peer.read(peer.before);
        assert_eq!(peer.read(2), [0x89, 0]);
        peer.stream.write_all(&frame(0x88, &[])).unwrap();
        assert_eq!(peer.read(2), [0x88, 0]);
        drop(peer.stream);
        peer.session.join().unwrap();
    }
}

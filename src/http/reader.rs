//! Reading requests from a socket and writing responses to it: every read with a size limit and a deadline, every write
//! with a deadline, every close in stages. A deadline is for the whole: a byte now and then does not renew it.

use crate::{
    http::Refusal,
    http::body::BodyReader,
    http::head::HeadReader,
    http::request::Request,
    limits::{Limits, due_in},
    stream::Stream,
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    net::{SendFlags, Shutdown, send},
};
use std::{
    io::{self, Read},
    time::{Duration, Instant},
};

/// What tells a client to go on that waits for that.
pub(crate) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Bytes asked of a socket at a time. Most heads fit.
const STEP: usize = 1024;

/// Bytes that a peer may still send while its connection closes.
const LINGER_BYTES: usize = 1 << 20;

/// A connection's incoming bytes, request by request.
pub(crate) struct RequestReader<'s> {
    stream: &'s Stream,
    /// Read, and not yet taken by a request.
    buffer: Vec<u8>,
    served: bool,
    /// The socket's read timeout, if it is known.
    timeout: Option<Duration>,
}

/// Why there is no request.
#[derive(Debug)]
pub(crate) enum RequestError {
    /// The peer has gone, or has been silent between two requests: nobody waits for a response.
    Ended,
    /// What came is answered with an error, and the connection closes. With the request, if its head is whole.
    Refused(Refusal, Option<Box<Request>>),
}

impl From<Refusal> for RequestError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal, None)
    }
}

impl<'s> RequestReader<'s> {
    /// `early` are bytes that were read from the stream before.
    pub(crate) fn new(stream: &'s Stream, early: Vec<u8>) -> Self {
        Self { stream, buffer: early, served: false, timeout: None }
    }

    /// Waits for a request and reads it, its body too; which is kept if it is wanted.
    pub(crate) fn request(
        &mut self,
        limits: &Limits,
        is_body_wanted: impl FnOnce(&Request) -> bool,
    ) -> Result<Request, RequestError> {
        let mut request = self.head(limits)?;
        let is_wanted = is_body_wanted(&request);
        match self.body(&mut request, limits, is_wanted) {
            Ok(()) => Ok(request),
            Err(RequestError::Refused(refusal, _)) => Err(RequestError::Refused(refusal, Some(Box::new(request)))),
            Err(ended) => Err(ended),
        }
    }

    fn body(&mut self, request: &mut Request, limits: &Limits, is_wanted: bool) -> Result<(), RequestError> {
        let mut body = BodyReader::new(request.framing, limits)?;
        if body.is_done() {
            return Ok(());
        }
        if !is_wanted && (request.expects_continue || request.asks_for_websocket()) {
            // The client may hold its body back until it is answered (RFC 9110 section 10.1.1), or takes what follows
            // for a WebSocket's already. So the response comes first, and the connection closes after it.
            request.keep_alive = false;
            return Ok(());
        }
        if is_wanted && request.expects_continue && self.buffer.is_empty() {
            write_within(self.stream, CONTINUE, limits.write_deadline).map_err(|_| RequestError::Ended)?;
        }
        let deadline = due_in(limits.request_time);
        loop {
            let taken = body.take(&self.buffer, |bytes| {
                if is_wanted {
                    request.body.extend(bytes);
                }
            })?;
            self.buffer.drain(..taken);
            if body.is_done() {
                return Ok(());
            }
            self.read(STEP, deadline)?;
        }
    }

    fn head(&mut self, limits: &Limits) -> Result<Request, RequestError> {
        let mut head = HeadReader::default();
        // A first request is due at once; a further one may take its time to begin.
        let mut deadline = due_in(if self.served { limits.keep_alive } else { limits.request_time });
        let mut begun = !self.served;
        loop {
            if let Some((request, length)) = head.read(&self.buffer, limits)? {
                self.buffer.drain(..length);
                self.served = true;
                return Ok(request);
            }
            if !begun && head.begun() {
                begun = true;
                deadline = due_in(limits.request_time);
            }
            let room = limits.head_bytes.saturating_sub(self.buffer.len());
            if let Err(e) = self.read(STEP.max(self.buffer.len()).min(room), deadline) {
                return Err(if head.begun() { e } else { RequestError::Ended });
            }
        }
    }

    /// Whether what was refused as a request is one for HEAD, whose response has no content.
    pub(crate) fn refused_head(&self) -> bool {
        self.buffer.trim_ascii_start().starts_with(b"HEAD ")
    }

    /// What came after the last request: the first frames of a client that did not wait for the handshake's answer.
    pub(crate) fn into_rest(self) -> Vec<u8> {
        // Commonly nothing, for which a session would hold the buffer as long as it lives.
        if self.buffer.is_empty() { Vec::new() } else { self.buffer }
    }

    /// Reads at most `most` bytes more.
    fn read(&mut self, most: usize, deadline: Instant) -> Result<(), RequestError> {
        let start = self.buffer.len();
        self.buffer.resize(start + most, 0);
        let result = read_by(self.stream, &mut self.buffer[start..], deadline, &mut self.timeout);
        self.buffer.truncate(start + result.as_ref().copied().unwrap_or(0));
        match result {
            Ok(1..) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::TimedOut => {
                Err(Refusal::new(408, "the request did not arrive in time").into())
            }
            Ok(0) | Err(_) => Err(RequestError::Ended),
        }
    }
}

/// Reads what comes until `deadline`; `TimedOut` after it. What is left of it is worked out before each read, in whole
/// milliseconds, so that the same wait as before costs no system call.
fn read_by(
    mut stream: &Stream,
    bytes: &mut [u8],
    deadline: Instant,
    timeout: &mut Option<Duration>,
) -> io::Result<usize> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let left = Duration::from_millis(left.as_millis() as u64 + 1);
        if *timeout != Some(left) {
            stream.set_read_timeout(left)?;
            *timeout = Some(left);
        }
        match stream.read(bytes) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock || e.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Writes all bytes within a time; `TimedOut` after it.
pub(crate) fn write_within(stream: &Stream, mut bytes: &[u8], within: Duration) -> io::Result<()> {
    let mut deadline = None; // from the first time that the peer takes no more
    while !bytes.is_empty() {
        match send(stream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(taken) => bytes = &bytes[taken..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let due = *deadline.get_or_insert_with(|| due_in(within));
                let left = due.saturating_duration_since(Instant::now());
                let out = &mut [PollFd::new(stream, PollFlags::OUT)];
                // Long before the kernel says that it has room it takes a little more, also of who reads nothing: after
                // the deadline no more is offered.
                if left.is_zero() || poll(out, left.try_into().ok().as_ref()) == Ok(0) {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Closes a connection in stages (RFC 9112 section 9.6): what was written is followed by an end, and what the peer
/// still sends is read and thrown away, until `deadline`. Closing at once would answer those bytes with a reset, which
/// can overtake the response and destroy it.
pub(crate) fn close_in_stages(stream: &Stream, deadline: Instant) {
    if stream.shutdown(Shutdown::Write).is_err() {
        return;
    }
    let mut bytes = [0; 1024];
    let (mut left, mut timeout) = (LINGER_BYTES, None);
    while let Ok(read @ 1..) = read_by(stream, &mut bytes, deadline, &mut timeout) {
        left = left.saturating_sub(read);
        if left == 0 {
            break;
        }
    }
}

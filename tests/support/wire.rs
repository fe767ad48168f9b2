//! A server on a free port and clients of bare sockets: bytes out, bytes in, every wait with a deadline.

#![allow(dead_code, reason = "each test file takes what it needs")]

use live_likes::{Handle, Likes, Limits, Server};
use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    path::PathBuf,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// After which a test gives up on what should come soon.
pub const SOON: Duration = Duration::from_secs(60);

/// A server and its counter, in a folder of its own; stopped when it is dropped.
pub struct Site {
    pub addr: SocketAddr,
    pub likes: Likes,
    pub handle: Handle,
    ended: mpsc::Receiver<live_likes::Result<()>>,
    folder: Option<PathBuf>,
}

impl Site {
    /// With default limits, but for deadlines that no peer misses, however busy the machine, and for what `set` changes.
    pub fn new(set: impl FnOnce(&mut Limits)) -> Self {
        static FOLDERS: AtomicUsize = AtomicUsize::new(0);
        let name = format!("live-likes-wire-{}-{}", std::process::id(), FOLDERS.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&folder); // left by a process that was killed, and had the same number
        std::fs::create_dir(&folder).unwrap();
        let mut limits = Limits::default();
        (limits.request_time, limits.keep_alive) = (10 * SOON, 10 * SOON);
        (limits.ping_after, limits.pong_within, limits.write_deadline) = (10 * SOON, 10 * SOON, 10 * SOON);
        set(&mut limits);
        let mut site = Self::of(Likes::open(folder.join("db.txt")).unwrap(), limits);
        site.folder = Some(folder);
        site
    }

    /// With a counter of the test's own.
    pub fn of(likes: Likes, limits: Limits) -> Self {
        raise_descriptor_limit();
        let server = Server::new(likes.clone()).limits(limits).bind("127.0.0.1:0").unwrap();
        let (addr, handle) = (server.local_addr(), server.handle());
        let (tell, ended) = mpsc::channel();
        thread::spawn(move || _ = tell.send(server.run()));
        Self { addr, likes, handle, ended, folder: None }
    }

    pub fn connect(&self) -> Peer {
        Peer::connect(self.addr)
    }

    /// A client whose handshake has succeeded and who has been shown the count.
    pub fn watch(&self) -> Peer {
        let mut peer = self.connect();
        peer.send(HANDSHAKE);
        assert_eq!(peer.answer().status, 101);
        assert_eq!(peer.frame(), Frame::text(&self.likes.count().to_string()));
        peer
    }

    /// A client whose handshake has succeeded, and who reads the counts itself.
    pub fn connect_to_watch(&self) -> Peer {
        let mut peer = self.connect();
        peer.send(HANDSHAKE);
        assert_eq!(peer.answer().status, 101);
        peer
    }

    /// Waits until the server has read all that has been sent to it. Where the system does not tell, it need not have.
    pub fn has_read_all(&self) {
        let port = format!(":{:04X}", self.addr.port());
        until(|| {
            let Ok(table) = std::fs::read_to_string("/proc/net/tcp") else { return true };
            table.lines().skip(1).all(|line| {
                // Columns: number, local address, remote address, state, queues as `tx:rx`.
                let mut columns = line.split_ascii_whitespace().skip(1);
                let local = columns.next().unwrap_or_default();
                let queues = columns.nth(2).unwrap_or_default();
                !local.ends_with(&port) || queues.ends_with(":00000000")
            })
        });
    }

    /// Waits until the server has returned from `run`, and says what it returned.
    pub fn ended(&self, within: Duration) -> live_likes::Result<()> {
        self.ended.recv_timeout(within).expect("the server did not stop in time")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.handle.stop();
        let _ = self.ended.recv_timeout(SOON);
        let _ = self.likes.close(SOON);
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// Tests here hold hundreds of connections, both ends of each, and run side by side: the usual soft limit is soon reached.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Asks again and again, until it is so.
pub fn until(mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !so() {
        assert!(Instant::now() < deadline, "it did not come to that in time");
        thread::park_timeout(Duration::from_millis(1));
    }
}

/// A request for a WebSocket, with the key and so the answer of the example in RFC 6455 section 1.3.
pub const HANDSHAKE: &[u8] =
    b"GET /liveLikes HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

pub const LIKE: &str = r#"{"type":"like"}"#;

/// A masked frame, as a client sends it.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = header(first, payload.len() as u64);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The header of a masked frame that claims this many bytes, with the mask of [`frame`].
pub fn header(first: u8, length: u64) -> Vec<u8> {
    let mut bytes = match length {
        0..126 => vec![first, 0x80 | length as u8],
        126..65536 => [&[first, 0xfe][..], &(length as u16).to_be_bytes()].concat(),
        _ => [&[first, 0xff][..], &length.to_be_bytes()].concat(),
    };
    bytes.extend([0x37, 0xfa, 0x21, 0x3d]);
    bytes
}

pub fn text(payload: &str) -> Vec<u8> {
    frame(0x81, payload.as_bytes())
}

/// A close frame with this code and reason.
pub fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(0x88, &[&code.to_be_bytes(), reason].concat())
}

/// A frame as the server sent it: the whole first byte, and the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub first: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn text(payload: &str) -> Self {
        Self { first: 0x81, payload: payload.into() }
    }

    /// The code of a close frame, 1005 for one without (RFC 6455 section 7.1.5); checks its reason.
    pub fn close_code(&self) -> u16 {
        assert_eq!(self.first, 0x88, "a close frame is expected: {self:?}");
        match self.payload.as_slice() {
            [] => 1005,
            [a, b, reason @ ..] => {
                assert!(std::str::from_utf8(reason).is_ok(), "{self:?}");
                u16::from_be_bytes([*a, *b])
            }
            _ => panic!("{self:?}"),
        }
    }

    pub fn reason(&self) -> &str {
        std::str::from_utf8(self.payload.get(2..).unwrap_or_default()).unwrap()
    }
}

/// An HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// The value of a field that stands once.
    pub fn field(&self, name: &str) -> Option<&str> {
        let values = self.fields(name);
        assert!(values.len() <= 1, "{name} more than once: {self:?}");
        values.first().copied()
    }

    pub fn fields(&self, name: &str) -> Vec<&str> {
        self.head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "))
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    }

    /// Whether the connection closes after it.
    pub fn closes(&self) -> bool {
        self.fields("Connection").iter().any(|value| value.split(", ").any(|token| token == "close"))
    }
}

/// A client's end of a connection.
pub struct Peer {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

impl Peer {
    pub fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    /// Connects and sends at once; says when that was begun. Whoever is held up between the two by a busy machine may find
    /// that the server's time for a request, which is this, is over: then it is done anew.
    pub fn prompt(addr: SocketAddr, bytes: &[u8], time: Duration) -> (Instant, Self) {
        let deadline = Instant::now() + SOON;
        loop {
            let start = Instant::now();
            let mut peer = Self::connect(addr);
            peer.send(bytes);
            if start.elapsed() < time / 2 {
                return (start, peer);
            }
            assert!(Instant::now() < deadline, "this machine is too busy");
        }
    }

    /// Sends bytes that a server may have answered already, so that it no longer takes them.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Tells the server that nothing more is sent.
    pub fn finish(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Reads more; false at the end of the stream, or where the server broke it off.
    fn more(&mut self) -> bool {
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes) {
            Ok(0) => false,
            Ok(read) => {
                self.buffer.extend(&bytes[..read]);
                true
            }
            // Whoever is stopped and continued while it waits, is told this (signal(7)).
            Err(e) if e.kind() == ErrorKind::Interrupted => true,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("nothing came in time, after {:?}", String::from_utf8_lossy(&self.buffer))
            }
            Err(_) => false,
        }
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length {
            assert!(self.more(), "the stream ended within {:?}", String::from_utf8_lossy(&self.buffer));
        }
        self.buffer.drain(..length).collect()
    }

    /// Reads an answer to any request but HEAD.
    pub fn answer(&mut self) -> Answer {
        self.try_answer(false).expect("an answer is expected, but the stream ended")
    }

    /// Reads an answer to HEAD.
    pub fn answer_to_head(&mut self) -> Answer {
        self.try_answer(true).expect("an answer is expected, but the stream ended")
    }

    /// Reads an answer, unless the stream ends instead.
    pub fn try_answer(&mut self, to_head: bool) -> Option<Answer> {
        let length = loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if !self.more() {
                assert!(self.buffer.is_empty(), "half an answer: {:?}", String::from_utf8_lossy(&self.buffer));
                return None;
            }
        };
        let head = String::from_utf8(self.take(length)).unwrap();
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).expect(&head);
        let mut answer = Answer { status, head, body: String::new() };
        let length = answer.field("Content-Length").map(|length| length.parse().unwrap());
        // Every answer ends by itself (RFC 9112 section 6.3), and names no length where there is no content.
        assert_eq!(length.is_none(), matches!(status, 100 | 101 | 204 | 304), "{answer:?}");
        assert!(matches!(status, 100 | 101) || answer.field("Date").is_some(), "{answer:?}");
        if !to_head {
            answer.body = String::from_utf8(self.take(length.unwrap_or(0))).unwrap();
        }
        Some(answer)
    }

    /// Sends a request and reads its answer.
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Answer {
        self.send(request);
        self.answer()
    }

    /// Reads a frame. The server's are whole, and never masked (RFC 6455 section 5.1).
    pub fn frame(&mut self) -> Frame {
        let head = self.take(2);
        let length = match head[1] {
            length @ 0..126 => length.into(),
            126 => u16::from_be_bytes(self.take(2).try_into().unwrap()).into(),
            127 => u64::from_be_bytes(self.take(8).try_into().unwrap()) as usize,
            _ => panic!("a masked frame from the server: {head:?}"),
        };
        assert_eq!(head[0] & 0xf0, 0x80, "a fragment or a reserved bit from the server: {head:?}");
        Frame { first: head[0], payload: self.take(length) }
    }

    /// Reads counts until the close frame, then the end of the stream, with nothing in between.
    pub fn closed(&mut self) -> Frame {
        let frame = loop {
            let frame = self.frame();
            match frame.first {
                0x81 => assert!(frame.payload.iter().all(u8::is_ascii_digit), "{frame:?}"),
                _ => break frame,
            }
        };
        frame.close_code();
        self.ends();
        frame
    }

    /// Checks that the stream ends here.
    pub fn ends(&mut self) {
        while self.buffer.is_empty() && self.more() {}
        assert!(self.buffer.is_empty(), "more than expected: {:?}", String::from_utf8_lossy(&self.buffer));
    }
}

/// A plain request that is answered 200.
pub const COUNT: &[u8] = b"GET /likes HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A plain like.
pub const PUT: &[u8] = b"PUT /like HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Names the bytes that a check was about, should it fail.
struct About<'b>(&'b [u8], &'b str);

impl Drop for About<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("this was about `{}`, sent {}", self.0[..self.0.len().min(300)].escape_ascii(), self.1);
        }
    }
}

/// A few places to split bytes at.
pub fn some(length: usize) -> Vec<usize> {
    let mut offsets = vec![1, length / 3, length / 2, length.saturating_sub(2), length.saturating_sub(1)];
    offsets.retain(|offset| (1..length).contains(offset));
    offsets.dedup();
    offsets
}

/// Every place to split bytes at.
pub fn every(length: usize) -> Vec<usize> {
    (1..length).collect()
}

/// Sends the bytes of each case over connections of their own: at once, byte by byte, and in two parts for each of the
/// offsets, of which the server has read the first before the second is sent. The answer has to be the same each time.
pub fn however_split(
    site: &Site,
    open: impl Fn() -> Peer,
    cases: &[Vec<u8>],
    offsets: impl Fn(usize) -> Vec<usize>,
    check: impl Fn(usize, &mut Peer),
) {
    for (index, case) in cases.iter().enumerate() {
        for (size, how) in [(case.len().max(1), "at once"), (1, "byte by byte")] {
            let _about = About(case, how);
            let mut peer = open();
            case.chunks(size).for_each(|part| peer.send(part));
            check(index, &mut peer);
        }
    }
    let splits: Vec<_> = cases
        .iter()
        .enumerate()
        .flat_map(|(index, case)| offsets(case.len()).into_iter().map(move |at| (index, at)))
        .collect();
    for batch in splits.chunks(50) {
        let mut peers: Vec<_> = batch
            .iter()
            .map(|&(index, at)| {
                let mut peer = open();
                peer.send(&cases[index][..at]);
                peer
            })
            .collect();
        site.has_read_all();
        for (&(index, at), peer) in batch.iter().zip(&mut peers) {
            peer.send(&cases[index][at..]);
        }
        for (&(index, at), peer) in batch.iter().zip(&mut peers) {
            let how = format!("in two parts, split at {at}");
            let _about = About(&cases[index], &how);
            check(index, peer);
        }
    }
}

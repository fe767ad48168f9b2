//! Clients of several servers that share a count: 10,000 likes from all of them, until every one shows the last.
//!
//! `cluster_load PROTOCOL CLIENTS LIKES ADDR...`, with so many clients for each address; PROTOCOL is `live-likes` or
//! `socket.io`. Prints one line: the seconds from the first like to the last client, and how many counts were shown. A
//! client has reached the last count when it has been shown it; that it is the exact sum is what all wait for.

use mio::{Events, Interest, Poll, Token, net::TcpStream};
use std::{
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
    process::exit,
    time::{Duration, Instant},
};

const TOO_LONG: Duration = Duration::from_secs(120);

/// What a client of a protocol says.
struct Protocol {
    path: &'static str,
    /// After the upgrade.
    hello: &'static str,
    like: &'static str,
    /// What a count's message begins with.
    count: &'static str,
}

const LIVE_LIKES: Protocol = Protocol { path: "/liveLikes", hello: "", like: "like", count: "" };
const SOCKET_IO: Protocol = Protocol {
    path: "/socket.io/?EIO=4&transport=websocket",
    hello: "40",
    like: "42[\"like\"]",
    count: "42[\"likes\",",
};

struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
    unsent: Vec<u8>,
    upgraded: bool,
    /// The highest count that was shown.
    shown: Option<u64>,
}

/// A text frame of at most 125 bytes, under a mask that changes nothing.
fn frame(text: &str, into: &mut Vec<u8>) {
    into.extend([0x81, 0x80 | text.len() as u8, 0, 0, 0, 0]);
    into.extend(text.as_bytes());
}

impl Client {
    fn flush(&mut self) {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(sent) => _ = self.unsent.drain(..sent),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) => panic!("a client is cut off: {e}"),
            }
        }
    }

    /// Reads all there is; returns how many counts that were.
    fn read(&mut self, protocol: &Protocol, buffer: &mut [u8]) -> u64 {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => panic!("a client is cut off"),
                Ok(length) => self.unread.extend(&buffer[..length]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => panic!("a client is cut off: {e}"),
            }
        }
        if !self.upgraded {
            let Some(end) = self.unread.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return 0 };
            assert!(self.unread.starts_with(b"HTTP/1.1 101 "), "{}", self.unread.escape_ascii());
            self.unread.drain(..end + 4);
            self.upgraded = true;
            if !protocol.hello.is_empty() {
                frame(protocol.hello, &mut self.unsent);
            }
        }
        let (mut at, mut counts) = (0, 0);
        while let [kind, length, rest @ ..] = &self.unread[at..] {
            let (length, header) = match (length, rest) {
                (126, [high, low, ..]) => (usize::from(u16::from_be_bytes([*high, *low])), 4),
                (126.., _) => break,
                (length, _) => (usize::from(*length), 2),
            };
            let Some(payload) = self.unread.get(at + header..at + header + length) else { break };
            let text = std::str::from_utf8(payload).unwrap_or_default();
            if kind & 15 == 9 {
                self.unsent.extend([0x8a, 0x80, 0, 0, 0, 0]);
            } else if text == "2" && !protocol.hello.is_empty() {
                frame("3", &mut self.unsent);
            } else if let Some(Ok(count)) =
                text.strip_prefix(protocol.count).map(|text| text.trim_end_matches(']').parse())
            {
                self.shown = self.shown.max(Some(count));
                counts += 1;
            }
            at += header + length;
        }
        self.unread.drain(..at);
        self.flush();
        counts
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [protocol, clients, likes, addresses @ ..] = &arguments[..] else {
        eprintln!("cluster_load live-likes|socket.io CLIENTS LIKES ADDR...");
        exit(2);
    };
    let protocol = if protocol == "socket.io" { &SOCKET_IO } else { &LIVE_LIKES };
    let (clients, likes): (usize, u64) = (clients.parse().expect("a number"), likes.parse().expect("a number"));
    let addresses: Vec<SocketAddr> = addresses.iter().map(|addr| addr.parse().expect("an address")).collect();
    let (mut poll, mut events) = (Poll::new().unwrap(), Events::with_capacity(1024));
    let mut all = Vec::new();
    for (index, addr) in (0..clients).flat_map(|_| &addresses).enumerate() {
        // Connected before it is polled, so that no backlog overflows.
        let stream = std::net::TcpStream::connect(addr).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut stream = TcpStream::from_std(stream);
        poll.registry().register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE).unwrap();
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {addr}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            protocol.path
        );
        all.push(Client { stream, unread: Vec::new(), unsent: request.into_bytes(), upgraded: false, shown: None });
    }

    let mut buffer = vec![0; 1 << 18];
    let mut turn = |all: &mut Vec<Client>, until: &dyn Fn(&Client) -> bool| {
        let start = Instant::now();
        let (mut counts, mut left) = (0, all.iter().filter(|client| !until(client)).count());
        while left > 0 {
            if start.elapsed() > TOO_LONG {
                println!("{{\"failed\": \"{left} clients were not shown the last count within {TOO_LONG:?}\"}}");
                exit(1);
            }
            poll.poll(&mut events, Some(Duration::from_secs(1))).unwrap();
            for event in &events {
                let client = &mut all[event.token().0];
                let was = until(client);
                client.flush();
                counts += client.read(protocol, &mut buffer);
                left -= usize::from(!was && until(client));
            }
        }
        (start.elapsed(), counts)
    };
    turn(&mut all, &|client| client.shown.is_some());
    let base = all.iter().filter_map(|client| client.shown).max().unwrap_or(0);
    let number = all.len();
    for (index, client) in all.iter_mut().enumerate() {
        let own = likes as usize / number + usize::from(index < likes as usize % number);
        (0..own).for_each(|_| frame(protocol.like, &mut client.unsent));
        client.flush();
    }
    let (took, counts) = turn(&mut all, &|client| client.shown == Some(base + likes));
    println!(
        "{{\"seconds\": {:.4}, \"counts\": {counts}, \"clients\": {number}, \"likes\": {likes}}}",
        took.as_secs_f64()
    );
}

//! The session by itself, with another handler of a message: what a program gets that serves one on its own listener.

#[path = "support/wire.rs"]
mod wire;

use live_likes::{
    Likes, Limits, Server,
    websocket::{Handler, Reply, code, serve},
};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    thread,
    time::Duration,
};
use wire::{COUNT, Frame, HANDSHAKE, LIKE, PUT, Peer, close, frame, text, until};

/// Says back what comes; closes when it is told to.
struct Echo;

impl Handler for Echo {
    fn text(&mut self, text: &str) -> Reply {
        match text {
            "quiet" => Reply::Nothing,
            "close" => Reply::Close(code::GOING_AWAY, "\u{20ac}".repeat(100).into()),
            _ => Reply::Text(text.to_owned()),
        }
    }

    fn binary(&mut self, bytes: &[u8]) -> Reply {
        Reply::Binary(bytes.to_vec())
    }
}

/// Serves one session for each connection, and for good.
fn echo(limits: Limits) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, limits) = (stream.unwrap(), limits.clone());
            thread::spawn(move || serve(stream, &limits, &mut Echo));
        }
    });
    addr
}

fn open(addr: SocketAddr) -> Peer {
    let mut peer = Peer::connect(addr);
    assert_eq!(peer.ask(HANDSHAKE).status, 101);
    peer
}

fn with(set: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    set(&mut limits);
    limits
}

#[test]
fn messages_of_every_length_come_back_as_they_were() {
    let addr = echo(with(|limits| limits.message_bytes = 1 << 20));
    let mut peer = open(addr);
    peer.send(text("quiet"));
    for length in [0, 1, 125, 126, 127, 65535, 65536, 1 << 20] {
        let payload: Vec<_> = (0..length).map(|index| b'a' + (index % 26) as u8).collect();
        for first in [0x81, 0x82] {
            peer.send(frame(first, &payload));
            assert_eq!(peer.frame(), Frame { first, payload: payload.clone() });
        }
        let (a, b) = payload.split_at(length / 2);
        peer.send([frame(0x02, a), frame(0x89, b"between"), frame(0x80, b)].concat());
        assert_eq!(peer.frame(), Frame { first: 0x8a, payload: b"between".to_vec() });
        assert_eq!(peer.frame(), Frame { first: 0x82, payload });
    }
}

#[test]
fn a_reason_that_is_too_long_is_cut_between_two_characters() {
    let mut peer = open(echo(Limits::default()));
    peer.send(text("close"));
    let frame = peer.closed();
    assert_eq!((frame.close_code(), frame.reason()), (1001, "\u{20ac}".repeat(41).as_str()));
}

#[test]
fn a_request_that_is_no_handshake_is_answered_and_closed() {
    let addr = echo(Limits::default());
    for (request, status) in
        [(PUT, 405), (COUNT, 426), (&b"GET / HTTP/1.1\r\n\r\n"[..], 400), (b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 405)]
    {
        let mut peer = Peer::connect(addr);
        let answer = peer.ask(request);
        assert!(answer.status == status && answer.closes(), "{answer:?}");
        peer.ends();
    }
    let mut peer = Peer::connect(addr);
    peer.finish();
    peer.ends();

    let time = Duration::from_secs(1);
    let addr = echo(with(|limits| limits.request_time = time));
    let (_, mut peer) = Peer::prompt(addr, &HANDSHAKE[..HANDSHAKE.len() - 2], time);
    let answer = peer.answer();
    assert!(answer.status == 408 && answer.closes(), "{answer:?}");
    peer.ends();
}

#[test]
fn any_path_and_origin_will_do() {
    let addr = echo(Limits::default());
    let request = String::from_utf8(HANDSHAKE.to_vec()).unwrap();
    let request =
        request.replace("/liveLikes", "/any?path").replace("Host: localhost", "Host: a.example\r\nOrigin: null");
    let mut peer = Peer::connect(addr);
    peer.send([request.as_bytes(), &text("early"), &close(4321, b"bye")].concat());
    assert_eq!(peer.answer().status, 101);
    assert_eq!(peer.frame(), Frame::text("early"));
    assert_eq!(peer.frame(), Frame { first: 0x88, payload: 4321_u16.to_be_bytes().to_vec() });
    peer.ends();
}

#[test]
fn a_peer_that_reads_nothing_is_dropped_in_the_middle_of_a_message() {
    let addr = echo(with(|limits| {
        limits.message_bytes = 1 << 20;
        limits.write_deadline = Duration::from_millis(300);
    }));
    let mut peer = open(addr);
    let message = frame(0x82, &vec![b'x'; 1 << 20]);
    let sent = (0..200).find(|_| peer.stream.write_all(&message).is_err());
    assert!(sent.is_some(), "it was never dropped");
    // What had gone out before is whole frames and the beginning of one.
    let mut said = Vec::new();
    let _ = peer.stream.read_to_end(&mut said);
    assert_eq!(said.get(..2), Some(&[0x82, 127][..]));
}

#[test]
fn a_connection_of_a_host_program_s_own_is_served_with_the_bytes_that_it_has_read() {
    let folder = std::env::temp_dir().join(format!("live-likes-service-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let likes = Likes::open(folder.join("db.txt")).unwrap();
    let service = Server::new(likes.clone()).into_service().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let bytes = [PUT, HANDSHAKE, &text(LIKE)].concat();
    let length = bytes.len();
    thread::scope(|scope| {
        scope.spawn(|| {
            for read in 0..=length {
                let (mut stream, _) = listener.accept().unwrap();
                let mut early = vec![0; read];
                stream.read_exact(&mut early).unwrap();
                let service = service.clone();
                thread::spawn(move || service.serve_after(stream, early));
            }
        });
        for _ in 0..=length {
            let before = likes.count();
            let mut peer = Peer::connect(addr);
            peer.send(&bytes);
            assert_eq!(peer.answer().body, format!("{{\"numLikes\":{}}}", before + 1));
            assert_eq!(peer.answer().status, 101);
            assert_eq!(peer.frame(), Frame::text(&(before + 1).to_string()));
            assert_eq!(peer.frame(), Frame::text(&(before + 2).to_string()));
        }
    });
    until(|| likes.watching() == 0);
    service.stop().unwrap();
    assert_eq!(likes.count(), 2 * (length as u64 + 1));
    drop((service, likes));
    std::fs::remove_dir_all(&folder).unwrap();
}

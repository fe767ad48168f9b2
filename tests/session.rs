//! A session as a client sees it: its heartbeat, the frames that are tallied, the bytes that came before it.

#[path = "support/scripted.rs"]
mod scripted;
#[path = "support/wire.rs"]
mod wire;

use live_likes::{Likes, Limits, Server};
use scripted::{Ending, memory};
use std::{io::Read, net::TcpListener, thread, time::Duration};
use wire::{COUNT, Frame, HANDSHAKE, LIKE, PUT, Peer, SOON, Site, frame, text, until};

/// The value of a metric.
fn metric(site: &Site, name: &str) -> u64 {
    let text = site.connect().ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").body;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).expect(name);
    value.parse().unwrap()
}

/// Likes until the client's buffers are full.
fn fill(site: &Site) {
    until(|| {
        (0..100).for_each(|_| _ = site.likes.like().unwrap());
        metric(site, "live_likes_behind") > 0
    });
}

#[test]
fn a_client_that_is_sent_pongs_while_it_is_behind_is_sent_as_many_counts_as_are_tallied() {
    let mut limits = Limits::default();
    (limits.ping_after, limits.write_deadline) = (10 * SOON, 10 * SOON);
    let site = Site::of(Likes::with_store(memory(0, |_| Ending::Saved)).unwrap(), limits);
    let mut peer = site.connect();
    assert_eq!(peer.ask(HANDSHAKE).status, 101);
    let (mut counts, mut newest) = (0, 0);
    for round in 0..5_u8 {
        fill(&site);
        peer.send(frame(0x89, &[round]));
        site.has_read_all();
        let saved = site.likes.count();
        let mut pong = false;
        while newest < saved || !pong {
            let frame = peer.frame();
            if frame.first == 0x8a {
                assert_eq!(frame.payload, [round]);
                pong = true;
            } else {
                let count = String::from_utf8(frame.payload).unwrap().parse().unwrap();
                assert!(count > newest || counts == 0, "{count} after {newest}");
                (newest, counts) = (count, counts + 1);
            }
        }
    }
    until(|| metric(&site, "live_likes_frames_total") == counts);
}

#[test]
fn a_client_that_answers_a_ping_with_part_of_a_message_is_pinged_again() {
    let site = Site::new(|limits| limits.ping_after = Duration::from_millis(20));
    let mut peer = site.watch();
    for byte in text(LIKE) {
        assert_eq!(peer.frame(), Frame { first: 0x89, payload: Vec::new() });
        peer.send([byte]);
    }
    until(|| site.likes.count() == 1);
}

#[test]
fn a_connection_that_a_host_program_hands_over_is_served_with_the_bytes_that_it_has_read() {
    let likes = Likes::with_store(memory(0, |_| Ending::Saved)).unwrap();
    let service = Server::new(likes.clone()).into_service().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let bytes = [PUT, COUNT, HANDSHAKE, &text(LIKE)].concat();
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
            let body = format!("{{\"numLikes\":{}}}", before + 1);
            assert_eq!((peer.answer().body, peer.answer().body), (body.clone(), body));
            assert_eq!(peer.answer().status, 101);
            assert_eq!(peer.frame(), Frame::text(&(before + 1).to_string()));
            assert_eq!(peer.frame(), Frame::text(&(before + 2).to_string()));
        }
    });
    until(|| likes.watching() == 0);
    service.stop().unwrap();
    assert_eq!(likes.count(), 2 * (length as u64 + 1));
}

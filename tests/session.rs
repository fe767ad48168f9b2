//! A connection that a host program has accepted.

#[path = "support/wire.rs"]
mod wire;

use live_likes::{Likes, Server, Store};
use std::{io::Read, net::TcpListener, thread};
use wire::{COUNT, Frame, HANDSHAKE, LIKE, PUT, Peer, text, until};

/// A store that saves at once, in memory.
struct Memory(u64);

impl Store for Memory {
    fn total(&mut self) -> u64 {
        self.0
    }

    fn add(&mut self, likes: u64) -> live_likes::Result<u64> {
        self.0 += likes;
        Ok(self.0)
    }
}

#[test]
fn a_connection_that_a_host_program_hands_over_is_served_with_the_bytes_that_it_has_read() {
    let likes = Likes::with_store(Memory(0)).unwrap();
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

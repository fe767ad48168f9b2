//! Several servers in one process, on one counter: each has its own clients, and leaves nothing behind.

#[path = "support/scripted.rs"]
mod scripted;
#[path = "support/wire.rs"]
mod wire;

use live_likes::{Error, Likes, Limits, Server};
use scripted::{Ending, memory};
use std::{
    fs,
    net::{TcpListener, TcpStream},
    thread,
};
use wire::{COUNT, Frame, HANDSHAKE, LIKE, Peer, SOON, Site, text, until};

fn counter() -> Likes {
    Likes::with_store(memory(16, |_| Ending::Saved)).unwrap()
}

/// Limits under which no peer is late.
fn patient() -> Limits {
    let mut limits = Limits::default();
    (limits.request_time, limits.keep_alive, limits.write_deadline) = (10 * SOON, 10 * SOON, 10 * SOON);
    (limits.ping_after, limits.pong_within) = (10 * SOON, 10 * SOON);
    (limits.stop_within, limits.close_within) = (10 * SOON, 10 * SOON);
    limits
}

/// The descriptors of this process.
fn descriptors() -> usize {
    fs::read_dir("/dev/fd").unwrap().count()
}

#[test]
fn a_server_that_stops_leaves_the_clients_of_another_alone() {
    let likes = counter();
    let (stays, stops) = (Site::of(likes.clone(), patient()), Site::of(likes.clone(), patient()));
    let (mut one, mut other) = (stays.watch(), stops.watch());
    let mut kept_alive = stays.connect();
    assert_eq!(kept_alive.ask(COUNT).status, 200);
    assert_eq!(likes.watching(), 2);

    stops.handle.stop();
    let last = other.frame();
    assert_eq!((last.close_code(), last.reason()), (1001, "the server is shutting down"));
    drop(other);
    stops.ended(SOON).unwrap();
    TcpStream::connect(stops.addr).expect_err("nobody listens any more");

    one.send(text(LIKE));
    assert_eq!(one.frame(), Frame::text("17"));
    assert_eq!(kept_alive.ask(COUNT).body, r#"{"numLikes":17}"#);
    assert_eq!(likes.watching(), 1);
}

#[test]
fn a_service_that_stops_leaves_the_clients_of_a_server_alone() {
    let likes = counter();
    let site = Site::of(likes.clone(), patient());
    let mut stays = site.watch();
    let service = Server::new(likes.clone()).limits(patient()).into_service().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut peer = Peer::connect(listener.local_addr().unwrap());
    let (stream, _) = listener.accept().unwrap();
    let served = service.clone();
    let served = thread::spawn(move || served.serve(stream));
    assert_eq!(peer.ask(HANDSHAKE).status, 101);
    assert_eq!(peer.frame(), Frame::text("16"));

    let stopped = thread::spawn(move || service.stop());
    assert_eq!(peer.frame().close_code(), 1001);
    drop(peer);
    stopped.join().unwrap().unwrap();
    served.join().unwrap();
    stays.send(text(LIKE));
    assert_eq!(stays.frame(), Frame::text("17"));
}

#[test]
fn servers_that_are_refused_or_stopped_leave_no_descriptor_while_their_counter_lives() {
    let likes = counter();
    let before = descriptors();
    for _ in 0..100 {
        let refused = Server::new(likes.clone()).allow_host("no name").bind("127.0.0.1:0");
        assert!(matches!(refused, Err(Error::Name { .. })), "{refused:?}");
        let server = Server::new(likes.clone()).bind("127.0.0.1:0").unwrap();
        server.handle().stop();
        server.run().unwrap();
    }
    // Other tests of this file, which run at the same time, hold some.
    until(|| descriptors() < before + 50);
    assert_eq!(likes.watching(), 0);
}

#[test]
fn each_server_counts_its_own_clients_and_whom_it_has_refused() {
    let likes = counter();
    let (one, other) = (Site::of(likes.clone(), patient()), Site::of(likes.clone(), patient()));
    let metrics = |site: &Site| {
        let body = site.connect().ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").body;
        move |name: &str| {
            let value = body.lines().find_map(|line| line.strip_prefix("live_likes_")?.strip_prefix(name));
            value.unwrap_or_else(|| panic!("no {name} in {body}")).trim().parse::<u64>().unwrap()
        }
    };
    let (refused, bare) = ("refused_total{reason=\"bad_request\"}", "watchers{transport=\"websocket\"}");
    assert_eq!(one.connect().ask("GET /likes?nonsense=1 HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 400);
    let mut watcher = one.watch();
    for (site, count) in [(&one, 1), (&other, 0)] {
        let sample = metrics(site);
        assert_eq!((sample(refused), sample(bare)), (count, count));
        assert_eq!(sample("watchers{transport=\"websocket_json\"}"), 0);
        assert_eq!(sample("watching"), 1, "of the counter, which they share");
    }
    watcher.send(text(LIKE));
    assert_eq!(watcher.frame(), Frame::text("17"));
    assert_eq!(metrics(&other)("changes_total{outcome=\"counted\"}"), 1);
    drop(watcher);
    until(|| metrics(&one)(bare) == 0);
}

//! Every limit and deadline, each set low and then passed.

#[path = "support/scripted.rs"]
mod scripted;
#[path = "support/wire.rs"]
mod wire;

use live_likes::{Error, Likes, Limits, Server};
use scripted::{Ending, memory};
use std::{
    io::{ErrorKind, Read, Write},
    sync::mpsc,
    time::{Duration, Instant},
};
use wire::{COUNT, Frame, HANDSHAKE, LIKE, PUT, Peer, SOON, Site, frame, header, text, until};

/// Short enough to wait for, long enough for a busy machine to answer within.
const SHORT: Duration = Duration::from_millis(500);

/// Longer than any test waits.
const NEVER: Duration = Duration::from_secs(600);

/// Sends a byte now and then, until the server answers or ends the connection.
fn trickle(peer: &mut Peer, bytes: &[u8]) {
    peer.stream.set_read_timeout(Some(SHORT / 10)).unwrap();
    for byte in bytes {
        peer.send([*byte]);
        match peer.stream.peek(&mut [0]) {
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            _ => break,
        }
    }
    peer.stream.set_read_timeout(Some(SOON)).unwrap();
}

#[test]
fn a_connection_past_the_limit_is_told_so_at_once_although_it_has_sent_its_request() {
    let site = Site::new(|limits| limits.connections = 2);
    let (watching, mut waiting) = (site.watch(), site.connect());
    assert_eq!(waiting.ask(COUNT).status, 200);
    let large =
        [&b"PUT /like HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n"[..], &[b'x'; 60_000]].concat();
    for request in [PUT, COUNT, HANDSHAKE, b"", &large] {
        let mut peers: Vec<_> = (0..50).map(|_| site.connect()).collect();
        peers.iter_mut().for_each(|peer| peer.send(request));
        for peer in &mut peers {
            let answer = peer.answer();
            assert_eq!((answer.status, answer.field("Retry-After")), (503, Some("10")), "{answer:?}");
            assert!(answer.closes() && !answer.body.is_empty(), "{answer:?}");
            peer.ends();
        }
    }
    // Those that are in are served as before, and who leaves makes room.
    assert_eq!(waiting.ask(PUT).body, r#"{"numLikes":1}"#);
    drop(watching);
    until(|| site.connect().ask(COUNT).status == 200);
}

#[test]
fn a_request_head_may_have_as_many_bytes_as_the_limit_says() {
    let site = Site::new(|limits| limits.head_bytes = 256);
    let request = |length: usize| {
        let start = "PUT /like HTTP/1.1\r\nHost: localhost\r\nX: ";
        format!("{start}{}\r\n\r\n", "x".repeat(length - start.len() - 4))
    };
    let mut peer = site.connect();
    assert_eq!(peer.ask(request(256)).body, r#"{"numLikes":1}"#);
    // The limit is one request's, not the connection's.
    assert_eq!(peer.ask([request(256), request(256)].concat()).body, r#"{"numLikes":2}"#);
    assert_eq!(peer.answer().body, r#"{"numLikes":3}"#);
    assert_eq!(peer.ask(request(257)).status, 431);
    peer.ends();
    assert_eq!(site.likes.count(), 3);
}

#[test]
fn a_target_may_have_as_many_bytes_as_the_limit_says() {
    let site = Site::new(|limits| limits.target_bytes = 16);
    let mut peer = site.connect();
    assert_eq!(peer.ask("PUT /like?_=34567890 HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 200);
    assert_eq!(peer.ask("PUT /like?_=345678901 HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 414);
    peer.ends();
    // It is judged as it comes, not when the head is whole.
    assert_eq!(site.connect().ask("PUT /like?_=345678901").status, 414);
    assert_eq!(site.likes.count(), 1);
}

#[test]
fn a_request_may_have_as_many_fields_as_the_limit_says() {
    let site = Site::new(|limits| limits.headers = 8);
    let request =
        |fields: usize| format!("PUT /like HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: y\r\n".repeat(fields - 1));
    let mut peer = site.connect();
    assert_eq!(peer.ask(request(8)).status, 200);
    assert_eq!(peer.ask(request(9)).status, 431);
    peer.ends();
    // It is judged as they come, too.
    assert_eq!(site.connect().ask(request(9).strip_suffix("\r\n").unwrap()).status, 431);
    assert_eq!(site.likes.count(), 1);
}

#[test]
fn a_request_has_so_much_time_in_all_also_if_a_byte_comes_now_and_then() {
    let site = Site::new(|limits| (limits.request_time, limits.keep_alive) = (SHORT, NEVER));
    let body = [&b"PUT /like HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"[..], &[b'x'; 1000]].concat();
    let chunks =
        [&b"PUT /like HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"[..], &[b'0'; 16]].concat();
    let head = [PUT.strip_suffix(b"\r\n").unwrap(), b"X: ", &[b'x'; 1000]].concat();
    for (request, at_once) in [(&head, 1), (&head, 20), (&body, body.len() - 990), (&chunks, chunks.len() - 15)] {
        for earlier in [false, true] {
            let first = if earlier { COUNT } else { &request[..at_once] };
            let (mut start, mut peer) = Peer::prompt(site.addr, first, SHORT);
            if earlier {
                assert_eq!(peer.answer().status, 200);
                start = Instant::now();
                peer.send(&request[..at_once]);
            }
            trickle(&mut peer, &request[at_once..]);
            let answer = peer.answer();
            assert!(answer.status == 408 && answer.closes(), "{answer:?}");
            assert!(start.elapsed() >= SHORT, "{:?}", start.elapsed());
            peer.ends();
        }
    }
    // Who says nothing at all is not answered.
    site.connect().ends();
    let mut peer = site.connect();
    peer.send("\r\n");
    peer.ends();
    assert_eq!(site.likes.count(), 0);
}

#[test]
fn a_body_may_have_as_many_bytes_as_the_limit_says() {
    let site = Site::new(|limits| limits.body_bytes = 10);
    let with = |rest: &str| format!("PUT /like HTTP/1.1\r\nHost: localhost\r\n{rest}");
    let mut peer = site.connect();
    assert_eq!(peer.ask(with("Content-Length: 10\r\n\r\n0123456789")).status, 200);
    assert_eq!(peer.ask(with("Transfer-Encoding: chunked\r\n\r\n4\r\n0123\r\n6\r\n456789\r\n0\r\n\r\n")).status, 200);
    assert_eq!(peer.ask(with("Content-Length: 11\r\n\r\n")).status, 413);
    peer.ends();
    let mut peer = site.connect();
    assert_eq!(peer.ask(with("Transfer-Encoding: chunked\r\n\r\n4\r\n0123\r\n7\r\n")).status, 413);
    peer.ends();
    assert_eq!(site.likes.count(), 2);
}

#[test]
fn a_connection_that_asks_nothing_more_is_closed_without_a_word() {
    let site = Site::new(|limits| limits.keep_alive = SHORT);
    let mut peer = site.connect();
    let start = Instant::now();
    peer.send(COUNT.repeat(3));
    for _ in 0..3 {
        assert_eq!(peer.answer().status, 200);
    }
    peer.ends();
    assert!(start.elapsed() >= SHORT, "{:?}", start.elapsed());
}

#[test]
fn a_message_may_have_as_many_bytes_as_the_limit_says() {
    let site = Site::new(|limits| limits.message_bytes = 20);
    let like = format!("{LIKE}     ");
    assert_eq!(like.len(), 20);
    let mut peer = site.watch();
    peer.send(text(&like));
    assert_eq!(peer.frame(), Frame::text("1"));
    let (a, b) = like.as_bytes().split_at(12);
    peer.send([frame(0x01, a), frame(0x80, b)].concat());
    assert_eq!(peer.frame(), Frame::text("2"));
    peer.send(header(0x81, 21));
    assert_eq!(peer.closed().close_code(), 1009);
    let mut peer = site.watch();
    peer.send([frame(0x01, a), frame(0x00, b), frame(0x80, b" ")].concat());
    assert_eq!(peer.closed().close_code(), 1009);
    assert_eq!(site.likes.count(), 2);
}

#[test]
fn a_message_may_come_in_as_many_frames_as_the_limit_says() {
    let site = Site::new(|limits| limits.fragments = 3);
    let mut peer = site.watch();
    for count in 1..10 {
        peer.send([frame(0x01, b"li"), frame(0x00, b""), frame(0x89, b""), frame(0x80, b"ke")].concat());
        assert_eq!(peer.frame(), Frame { first: 0x8a, payload: Vec::new() });
        assert_eq!(peer.frame(), Frame::text(&count.to_string()));
    }
    let message = [frame(0x01, b"li"), frame(0x00, b"k"), frame(0x00, b""), frame(0x80, b"e")].concat();
    for split in 1..message.len() {
        let mut peer = site.watch();
        peer.send(&message[..split]);
        site.has_read_all();
        peer.send(&message[split..]);
        let last = peer.closed();
        assert_eq!(
            (last.close_code(), last.reason()),
            (1009, "a message may come in at most 3 frames"),
            "split at {split}"
        );
    }
    assert_eq!(site.likes.count(), 9);
}

#[test]
fn a_silent_client_is_pinged_and_kept_if_it_answers_with_anything() {
    let site = Site::new(|limits| (limits.ping_after, limits.pong_within) = (SHORT / 5, SOON));
    let mut peer = site.watch();
    let ping = Frame { first: 0x89, payload: Vec::new() };
    for answer in [frame(0x8a, b""), frame(0x8a, b"other"), frame(0x89, b"")] {
        assert_eq!(peer.frame(), ping);
        peer.send(&answer);
        if answer[0] == 0x89 {
            assert_eq!(peer.frame().first, 0x8a);
        }
    }
    assert_eq!(peer.frame(), ping);
    peer.send(text(LIKE));
    // The next ping may be due before the like is saved.
    let next = [peer.frame(), peer.frame()];
    assert!(next.contains(&Frame::text("1")) && next.contains(&ping), "{next:?}");
}

#[test]
fn a_client_that_does_not_answer_a_ping_is_dropped() {
    let site = Site::new(|limits| (limits.ping_after, limits.pong_within) = (SHORT / 5, SHORT));
    let start = Instant::now();
    let mut peer = site.watch();
    assert_eq!(peer.frame(), Frame { first: 0x89, payload: Vec::new() });
    peer.ends();
    assert!(start.elapsed() >= SHORT, "{:?}", start.elapsed());
    until(|| site.likes.watching() == 0);
}

/// Sends until the server no longer takes it, and reads nothing; says whether it broke the connection off.
fn is_broken_off(peer: &mut Peer, bytes: &[u8]) -> bool {
    let deadline = Instant::now() + SOON;
    while Instant::now() < deadline {
        if let Err(e) = peer.stream.write_all(bytes) {
            return !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        }
    }
    false
}

#[test]
fn a_client_that_reads_no_answers_is_dropped() {
    let site = Site::new(|limits| limits.write_deadline = SHORT);
    let pages = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
    assert!(is_broken_off(&mut site.connect(), &pages));
    let pings = frame(0x89, &[b'x'; 125]).repeat(100);
    let mut peer = site.watch();
    assert!(is_broken_off(&mut peer, &pings));
    until(|| site.likes.watching() == 0);
}

#[test]
fn a_client_that_reads_no_answers_is_dropped_at_the_deadline_of_the_first() {
    let deadline = Duration::from_secs(3);
    let site = Site::new(|limits| limits.write_deadline = deadline);
    let pages = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
    let start = Instant::now();
    assert!(is_broken_off(&mut site.connect(), &pages));
    let took = start.elapsed();
    assert!(deadline <= took && took < 2 * deadline, "{took:?}");
}

#[test]
fn a_client_that_reads_no_counts_is_dropped_and_delays_nobody() {
    let mut limits = Limits::default();
    limits.write_deadline = SHORT;
    let likes = Likes::with_store(memory(0, |_| Ending::Saved)).unwrap();
    let site = Site::of(likes.clone(), limits);
    // What the kernel holds for a client would take many likes to fill; so this one asks for less.
    let silent = site.connect();
    rustix::net::sockopt::set_socket_recv_buffer_size(&silent.stream, 2048).unwrap();
    (&silent.stream).write_all(HANDSHAKE).unwrap();
    until(|| site.likes.watching() == 1);
    let mut reader = site.watch();
    let mut newest = 0;
    until(|| {
        let expected = likes.like().unwrap();
        while newest < expected {
            newest = String::from_utf8(reader.frame().payload).unwrap().parse().unwrap();
        }
        site.likes.watching() == 1
    });
}

#[test]
fn a_client_that_does_not_finish_a_close_is_dropped() {
    let site = Site::new(|limits| limits.close_within = SHORT);
    let mut peer = site.watch();
    let start = Instant::now();
    peer.send(text("hello"));
    assert_eq!(peer.closed().close_code(), 1008);
    until(|| site.likes.watching() == 0);
    assert!(start.elapsed() >= SHORT, "{:?}", start.elapsed());

    let site = Site::new(|limits| (limits.close_within, limits.connections) = (SHORT, 1));
    let mut peer = site.connect();
    assert_eq!(peer.ask("PUT /like HTTP/1.1\r\n\r\n").status, 400);
    peer.ends();
    until(|| site.connect().ask(COUNT).status == 200);
}

#[test]
fn a_client_that_finishes_a_close_is_let_go_at_once() {
    let site = Site::new(|limits| limits.close_within = NEVER);
    let mut peer = site.watch();
    peer.send(text("hello"));
    assert_eq!(peer.closed().close_code(), 1008);
    peer.send(wire::close(1008, b""));
    peer.finish();
    until(|| site.likes.watching() == 0);
}

#[test]
fn a_connection_may_send_as_many_likes_as_the_limit_says_in_whatever_way() {
    let site = Site::new(|limits| limits.likes_per_connection = Some(2));
    let mut peer = site.connect();
    assert_eq!(peer.ask(PUT).status, 200);
    assert_eq!(peer.ask(PUT).status, 200);
    let answer = peer.ask(PUT);
    assert_eq!((answer.status, answer.body.as_str()), (429, "too many likes: at most 2 per connection are allowed\n"));
    assert_eq!(peer.ask(COUNT).body, r#"{"numLikes":2}"#);

    let mut peer = site.connect();
    assert_eq!(peer.ask(PUT).status, 200);
    assert_eq!(peer.ask(HANDSHAKE).status, 101);
    peer.send(text(LIKE).repeat(3));
    let frame = peer.closed();
    assert_eq!((frame.close_code(), frame.reason()), (1008, "too many likes: at most 2 per connection are allowed"));
    assert_eq!(site.likes.flush(SOON).unwrap(), 4);
}

#[test]
fn an_address_may_send_as_many_likes_a_second_as_the_limit_says() {
    let site = Site::new(|limits| limits.likes_per_second_and_address = Some(1));
    assert_eq!(site.connect().ask(PUT).status, 200);
    // A busy machine may take so long that a second passes; then the next is in its right, and one after it is not.
    let mut taken = 1;
    until(|| {
        let answer = site.connect().ask(PUT);
        taken += u64::from(answer.status == 200);
        answer.status == 429 && answer.field("Retry-After") == Some("1")
    });
    until(|| {
        let mut peer = site.watch();
        peer.send(text(LIKE).repeat(20));
        let frame = peer.closed();
        taken = site.likes.flush(SOON).unwrap();
        (frame.close_code(), frame.reason()) == (1008, "too many likes: at most 1 per second and address are allowed")
    });
    // And after a second it may again.
    until(|| site.connect().ask(PUT).status == 200);
    assert_eq!(site.likes.count(), taken + 1);
}

#[test]
fn a_stop_takes_no_longer_than_the_limit_says() {
    let site = Site::new(|limits| {
        (limits.stop_within, limits.close_within, limits.write_deadline) = (SHORT, NEVER, NEVER);
        (limits.request_time, limits.keep_alive) = (NEVER, NEVER);
    });
    // One watches and does not finish the close, one has sent half a request, one reads no answers.
    let mut watching = site.watch();
    let mut half = site.connect();
    half.send("PUT /like HTTP/1.1\r\n");
    let mut deaf = site.connect();
    deaf.stream.set_write_timeout(Some(SHORT)).unwrap();
    let pages = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
    while deaf.stream.write_all(&pages).is_ok() {}
    let start = Instant::now();
    site.handle.stop();
    site.ended(SOON).unwrap();
    assert!(start.elapsed() < SOON / 2, "{:?}", start.elapsed());
    assert_eq!(watching.closed().close_code(), 1001);
    half.ends();
    let _ = deaf.stream.read_to_end(&mut Vec::new());
}

#[test]
fn a_stop_with_nobody_left_takes_no_time() {
    let site = Site::new(|limits| limits.stop_within = NEVER);
    drop(site.watch());
    until(|| site.likes.watching() == 0);
    site.connect().ask(PUT);
    site.handle.stop();
    site.ended(SOON).unwrap();
}

#[test]
fn a_stop_that_cannot_save_says_so_in_time() {
    let mut limits = Limits::default();
    limits.stop_within = SHORT;
    let (let_it, stuck) = mpsc::channel();
    let likes = Likes::with_store(memory(0, move |_| {
        let _ = stuck.recv();
        Ending::Saved
    }))
    .unwrap();
    let site = Site::of(likes.clone(), limits);
    let mut peer = site.watch();
    peer.send(text(LIKE));
    // The ping is behind the like, so the pong tells that it has been taken.
    peer.send(frame(0x89, b""));
    assert_eq!(peer.frame().first, 0x8a);
    site.handle.stop();
    assert!(matches!(site.ended(SOON), Err(Error::NotSaved(_))));
    let_it.send(()).unwrap();
    assert_eq!(likes.flush(SOON).unwrap(), 1);
}

/// A change of one limit.
type Change = fn(&mut Limits);

/// Each limit that has a range: at its lowest, at its highest, below that and above it. (Where there is nothing below or
/// above, both are on the same side.)
const RANGES: [(&str, Change, Change, Change, Change); 18] = {
    const MS: Duration = Duration::from_millis(1);
    const DAY: Duration = Duration::from_secs(24 * 3600);
    const SHORTER: Duration = Duration::from_micros(999);
    macro_rules! range {
        ($field:ident, $below:expr, $lowest:expr, $highest:expr, $above:expr) => {
            (
                stringify!($field),
                |limits| limits.$field = $lowest,
                |limits| limits.$field = $highest,
                |limits| limits.$field = $below,
                |limits| limits.$field = $above,
            )
        };
    }
    [
        range!(connections, 0, 1, 1_000_000, usize::MAX),
        range!(connections_per_address, Some(0), Some(1), Some(usize::MAX), Some(0)),
        range!(head_bytes, 255, 256, 1 << 20, usize::MAX),
        range!(target_bytes, 15, 16, 1 << 20, usize::MAX),
        range!(headers, 7, 8, 1000, usize::MAX),
        range!(request_time, Duration::ZERO, MS, DAY, Duration::MAX),
        range!(body_bytes, (16 << 20) + 1, 0, 16 << 20, u64::MAX),
        range!(keep_alive, SHORTER, MS, DAY, Duration::MAX),
        range!(message_bytes, 15, 16, 16 << 20, usize::MAX),
        range!(fragments, 0, 1, 1 << 20, usize::MAX),
        range!(ping_after, SHORTER, MS, DAY, Duration::MAX),
        range!(pong_within, SHORTER, MS, DAY, Duration::MAX),
        range!(write_deadline, Duration::ZERO, MS, DAY, Duration::MAX),
        range!(close_within, Duration::ZERO, MS, DAY, Duration::MAX),
        range!(posts_per_client, 0, 1, 100_000, usize::MAX),
        range!(likes_per_second_and_address, Some(0), Some(1), Some(u32::MAX), Some(0)),
        range!(new_posts_per_hour_and_address, 0, 1, u32::MAX, 0),
        range!(stop_within, Duration::ZERO, MS, DAY, DAY + MS),
    ]
};

#[test]
fn a_limit_outside_its_range_is_refused_by_name_and_value_when_the_server_is_built() {
    let likes = Likes::with_store(memory(0, |_| Ending::Saved)).unwrap();
    let build = |change: Change| {
        let mut limits = Limits::default();
        change(&mut limits);
        let server = Server::new(likes.clone()).limits(limits.clone());
        let (listening, service) = (server.clone().bind("127.0.0.1:0"), server.into_service());
        assert_eq!(listening.is_ok(), service.is_ok());
        (limits, service)
    };
    for (field, lowest, highest, below, above) in RANGES {
        for change in [lowest, highest] {
            let (limits, built) = build(change);
            assert!(built.is_ok(), "{field}: {built:?} with {limits:?}");
        }
        for change in [below, above] {
            let (limits, built) = build(change);
            let Err(Error::Limit { name, value, .. }) = &built else { panic!("{field}: {built:?} with {limits:?}") };
            assert_eq!(*name, field);
            assert!(format!("{limits:?}").replace("Some(0)", "0").contains(&format!("{field}: {value}")), "{value}");
        }
    }
    let mut limits = Limits::default();
    limits.headers = 7;
    let problem = limits.check().unwrap_err().to_string();
    assert_eq!(problem, "the limit `headers` cannot be 7: 8 to 1000 is expected");
}

#[test]
fn every_limit_but_likes_per_connection_has_a_range() {
    let limits = format!("{:#?}", Limits::default());
    let fields = limits.lines().filter_map(|line| line.strip_prefix("    ")?.split_once(": ").map(|(name, _)| name));
    let fields: Vec<_> = fields.filter(|name| *name != "likes_per_connection").collect();
    assert_eq!(fields, RANGES.map(|(field, ..)| field));
}

fn likes_in_every_way(site: &Site) {
    let mut watching = site.watch();
    watching.send(text(LIKE));
    assert_eq!(watching.frame(), Frame::text("1"));
    drop(watching);
    until(|| site.connect().ask(PUT).body == r#"{"numLikes":2}"#);
    assert_eq!(site.likes.flush(Duration::MAX).unwrap(), 2);
    site.handle.stop();
    site.ended(SOON).unwrap();
    assert_eq!(site.likes.close(Duration::MAX).unwrap(), 2);
}

#[test]
fn a_server_with_every_size_at_its_lowest_serves() {
    likes_in_every_way(&Site::new(|limits| {
        let kept = limits.clone();
        RANGES.iter().for_each(|(_, lowest, ..)| lowest(limits));
        (limits.request_time, limits.keep_alive) = (kept.request_time, kept.keep_alive);
        (limits.ping_after, limits.pong_within) = (kept.ping_after, kept.pong_within);
        (limits.write_deadline, limits.close_within) = (kept.write_deadline, kept.close_within);
        (limits.stop_within, limits.likes_per_second_and_address) = (kept.stop_within, None);
    }));
}

#[test]
fn a_server_with_every_limit_at_its_highest_serves() {
    likes_in_every_way(&Site::new(|limits| RANGES.iter().for_each(|(_, _, highest, ..)| highest(limits))));
}

//! Peers that mean harm: what public advisories about programs of this kind were about, replayed. Each harms itself
//! alone: it is told so and closed, nothing of it is counted, and others are served meanwhile.

#[path = "support/wire.rs"]
mod wire;

use std::{
    io::{Read, Write},
    net::Shutdown,
    thread,
    time::{Duration, Instant},
};
use wire::{COUNT, Frame, HANDSHAKE, LIKE, PUT, Peer, SOON, Site, frame, header, text, until};

/// Whoever asks now is answered, and the count is this.
fn still_serves(site: &Site, count: u64) {
    assert_eq!(site.connect().ask(COUNT).body, format!("{{\"numLikes\":{count}}}"));
}

/// Sends a start, and then the same bytes over and over while another thread reads; returns how many bytes of them the
/// server took before it ended the connection, and all that it said.
fn flood(mut peer: Peer, start: &[u8], again: &[u8], most: usize) -> (usize, Vec<u8>) {
    peer.send(start);
    let mut reader = peer.stream.try_clone().unwrap();
    let said = thread::spawn(move || {
        let mut said = Vec::new();
        let _ = reader.read_to_end(&mut said);
        said
    });
    let mut taken = 0;
    while taken < most && peer.stream.write_all(again).is_ok() {
        taken += again.len();
    }
    let _ = peer.stream.shutdown(Shutdown::Write);
    (taken, said.join().unwrap())
}

// CVE-2023-43669: a head that is parsed from its beginning at each read costs the square of its length.
#[test]
fn a_head_of_20_megabytes_is_cut_short() {
    let site = Site::new(|_| {});
    let most = 20_000_000;
    let starts: [(&[u8], &[u8], &[u8]); 6] = [
        (b"GET /likes HTTP/1.1\r\nHost: localhost\r\nX: ", b"HTTP/1.1 431 ", &[b'x'; 1000]),
        (b"GET /likes HTTP/1.1\r\nHost: localhost\r\n", b"HTTP/1.1 431 ", b"X: y\r\n"),
        (b"GET /liveLikes HTTP/1.1\r\nHost: localhost\r\nSec-WebSocket-Protocol: ", b"HTTP/1.1 431 ", &[b' '; 1000]),
        (b"GET /", b"HTTP/1.1 414 ", &[b'x'; 1000]),
        (b"", b"HTTP/1.1 501 ", &[b'X'; 1000]),
        (b"", b"HTTP/1.1 400 ", b"\r\n"),
    ];
    for (start, status, again) in starts {
        let (taken, said) = flood(site.connect(), start, &again.repeat(4000 / again.len()), most);
        assert!(said.starts_with(status), "{:?}", String::from_utf8_lossy(&said));
        // Some megabytes fit into the kernel's own buffers.
        assert!(taken < most, "{taken}");
    }
    still_serves(&site, 0);
}

#[test]
fn a_long_head_costs_no_more_byte_by_byte() {
    let site = Site::new(|_| {});
    let started = Instant::now();
    let mut peer = site.connect();
    peer.send("GET /likes HTTP/1.1\r\nHost: localhost\r\nX: ");
    (0..16 * 1024).for_each(|_| peer.send("x"));
    assert_eq!(peer.answer().status, 431);
    let mut peer = site.connect();
    peer.send("GET /likes HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    (0..3 * 1024).for_each(|_| peer.send("1\r\nx\r\n"));
    (0..64 * 1024).for_each(|_| peer.send("0"));
    assert_eq!(peer.answer().status, 431);
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    still_serves(&site, 0);
}

// CVE-2024-37890: more fields than the limit, with an upgrade among them.
#[test]
fn a_handshake_with_too_many_fields_is_refused() {
    let site = Site::new(|_| {});
    let handshake = String::from_utf8(HANDSHAKE.to_vec()).unwrap();
    for count in [60, 2000] {
        let fields = format!("Host: localhost\r\n{}", "X: y\r\n".repeat(count));
        assert_eq!(site.connect().ask(handshake.replace("Host: localhost\r\n", &fields)).status, 431);
    }
    still_serves(&site, 0);
}

// CVE-2026-48779: fragments of one byte, or none, without end.
#[test]
fn endless_fragments_end() {
    let site = Site::new(|_| {});
    for fragment in [frame(0x00, b""), frame(0x00, b" "), [frame(0x00, b""), frame(0x89, b"")].concat()] {
        let (taken, said) = flood(site.watch(), &frame(0x01, b" "), &fragment.repeat(500), 20_000_000);
        assert!(taken < 20_000_000, "{taken}");
        // Pongs may come first.
        let end = said.iter().position(|byte| *byte == 0x88).unwrap();
        assert_eq!(said[end + 2..end + 4], 1009_u16.to_be_bytes());
    }
    until(|| site.likes.watching() == 0);
    still_serves(&site, 0);
}

// CVE-2020-27813: a length that overflows when it is added to another.
#[test]
fn a_length_that_overflows_reserves_nothing() {
    let site = Site::new(|_| {});
    let claims = [16 << 20, u64::from(u32::MAX), 1 << 62, (1 << 63) - 1, 1 << 63, u64::MAX - 1, u64::MAX];
    for claim in claims {
        for start in [&[][..], &frame(0x01, b"x"), &frame(0x01, &[b' '; 4096])] {
            for first in [0x00, 0x80, 0x81, 0x82, 0x89] {
                let mut peer = site.watch();
                peer.send([start, &header(first, claim)].concat());
                assert_eq!(peer.closed().close_code(), 1009);
            }
        }
    }
    still_serves(&site, 0);
}

#[test]
fn a_flood_of_pings_is_answered_or_ended_but_delays_nobody() {
    let site = Site::new(|limits| limits.write_deadline = Duration::from_millis(500));
    let mut other = site.watch();
    let flooder = site.watch();
    let flooded = thread::scope(|scope| {
        let flood = scope.spawn(|| flood(flooder, b"", &frame(0x89, b"flood").repeat(500), 2_000_000));
        for count in 1..20 {
            other.send(text(LIKE));
            assert_eq!(other.frame(), Frame::text(&count.to_string()));
        }
        flood.join().unwrap()
    });
    assert!(flooded.1.starts_with(&[0x8a, 5]) || flooded.1.starts_with(&[0x81, 1]), "{:?}", flooded.1.get(..20));
    still_serves(&site, 19);
}

#[test]
fn many_slow_clients_do_not_keep_another_waiting() {
    let site = Site::new(|limits| limits.request_time = 10 * SOON);
    let starts: [&[u8]; 5] = [b"", b"G", b"GET / HTTP/1.1\r\nHost:", &HANDSHAKE[..50], &PUT[..PUT.len() - 1]];
    let mut peers: Vec<_> = (0..300)
        .map(|number| {
            let mut peer = site.connect();
            peer.send(starts[number % starts.len()]);
            peer
        })
        .collect();
    peers.extend((0..100).map(|_| {
        let mut peer = site.watch();
        peer.send(&text(LIKE)[..10]);
        peer
    }));
    assert_eq!(site.connect().ask(PUT).body, r#"{"numLikes":1}"#);
    let mut other = site.watch();
    other.send(text(LIKE));
    assert_eq!(other.frame(), Frame::text("2"));
}

#[test]
fn frames_where_http_is_expected_and_http_where_frames_are_count_for_nothing() {
    let site = Site::new(|_| {});
    let mut peer = site.connect();
    peer.send(text(LIKE));
    peer.finish();
    peer.ends();
    let mut peer = site.connect();
    peer.send([text(LIKE), PUT.to_vec()].concat());
    assert_eq!(peer.answer().status, 400);
    // `PU` is a frame with a reserved bit, and no mask.
    let mut peer = site.watch();
    peer.send([PUT; 10].concat());
    assert_eq!(peer.closed().close_code(), 1002);
    // A handshake that fails ends the connection, and nothing behind it is read.
    let mut peer = site.connect();
    let other = String::from_utf8(HANDSHAKE.to_vec()).unwrap().replace("Version: 13", "Version: 14");
    peer.send([other.as_bytes(), &text(LIKE), b"\r\n", PUT].concat());
    assert_eq!(peer.answer().status, 426);
    peer.ends();
    still_serves(&site, 0);
}

#[test]
fn one_wrong_byte_anywhere_in_a_handshake_is_answered_or_harmless() {
    let site = Site::new(|_| {});
    let known = [101, 200, 400, 403, 404, 405, 417, 426, 431, 501, 505];
    for at in 0..HANDSHAKE.len() {
        let mut peers: Vec<_> = [0, b'\n', b'\r', b' ', b':', b'a', b'1', 0x80, 0xff]
            .into_iter()
            .map(|byte| {
                let mut peer = site.connect();
                let mut request = HANDSHAKE.to_vec();
                request[at] = byte;
                peer.send(request);
                peer.finish();
                peer
            })
            .collect();
        for peer in &mut peers {
            // Without an answer if the end of the head was hit.
            let status = peer.try_answer(false).map(|answer| answer.status);
            assert!(status.is_none_or(|status| known.contains(&status)), "{status:?} for byte {at}");
            assert!(status.is_some() || at + 4 >= HANDSHAKE.len(), "no answer for byte {at}");
        }
    }
    until(|| site.likes.watching() == 0);
    still_serves(&site, 0);
}

#[test]
fn bytes_at_random_are_closed_with_a_code_and_count_for_nothing() {
    let site = Site::new(|_| {});
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..300 {
        let bytes: Vec<_> = (0..40).flat_map(|_| random().to_le_bytes()).collect();
        let mut peer = site.watch();
        // The first frame is whole, so that there is something to judge.
        peer.send([&[bytes[0], 0x80, 0, 0, 0, 0][..], &bytes].concat());
        peer.finish();
        let mut said = Vec::new();
        let _ = peer.stream.read_to_end(&mut said);
        // A close frame, perhaps after a pong; or nothing, if the stream broke off within a frame.
        assert!(matches!(said.first(), None | Some(0x88 | 0x8a)), "{said:?} for {bytes:?}");
    }
    for _ in 0..300 {
        let bytes: Vec<_> = (0..40).flat_map(|_| random().to_le_bytes()).collect();
        let mut peer = site.connect();
        peer.send(&bytes);
        peer.send("\r\n\r\n");
        peer.finish();
        let answer = peer.answer();
        assert!(matches!(answer.status, 400 | 501), "{answer:?} for {bytes:?}");
    }
    until(|| site.likes.watching() == 0);
    still_serves(&site, 0);
}

#[test]
fn a_client_that_breaks_off_at_any_moment_harms_nobody() {
    let site = Site::new(|_| {});
    let bytes = [HANDSHAKE, &text(LIKE)].concat();
    for at in 0..bytes.len() {
        let mut peer = site.connect();
        peer.send(&bytes[..at]);
        // With answers unread, or soon to be, this ends in a reset.
        drop(peer);
    }
    let mut peer = site.connect();
    let _ = peer.stream.write_all(&PUT.repeat(100));
    drop(peer);
    until(|| site.likes.watching() == 0);
    let count = site.likes.flush(SOON).unwrap();
    assert!(count <= 100, "{count}");
    assert_eq!(site.connect().ask(COUNT).status, 200);
}

//! What a client may send over a WebSocket, and how it is closed if it sends anything else (RFC 6455 sections 5 to 8).

#[path = "support/scripted.rs"]
mod scripted;
#[path = "support/wire.rs"]
mod wire;

use live_likes::{Error, Likes, Limits};
use scripted::{Ending, memory};
use std::time::Duration;
use wire::{Frame, HANDSHAKE, LIKE, Peer, Site, close, every, frame, header, however_split, some, text};

/// Whatever stands in these cases, the client is closed with this code, and no like is counted: neither over an open
/// WebSocket nor in one segment with the handshake, and however the bytes are split.
fn closed_with(code: u16, cases: &[Vec<u8>]) {
    let site = Site::new(|_| {});
    let offsets = |length| if length < 64 { every(length) } else { some(length) };
    let check = |_: usize, peer: &mut Peer| {
        let frame = peer.closed();
        assert_eq!(frame.close_code(), code, "{}", frame.reason());
        assert!(frame.payload.len() <= 125);
    };
    however_split(&site, || site.watch(), cases, offsets, check);
    let early: Vec<_> = cases.iter().map(|case| [HANDSHAKE, case].concat()).collect();
    however_split(
        &site,
        || site.connect(),
        &early,
        some,
        |index, peer| {
            assert_eq!(peer.answer().status, 101);
            check(index, peer);
        },
    );
    assert_eq!(site.likes.count(), 0);
    wire::until(|| site.likes.watching() == 0);
}

/// What comes after the frame that is wrong is not looked at.
fn and_a_like(bytes: &[u8]) -> Vec<u8> {
    [bytes, &text(LIKE)].concat()
}

#[test]
fn a_like_is_shown_to_its_sender_and_to_others() {
    let site = Site::new(|_| {});
    let (mut liker, mut other) = (site.watch(), site.watch());
    liker.send(text(LIKE));
    assert_eq!(liker.frame(), Frame::text("1"));
    assert_eq!(other.frame(), Frame::text("1"));
    other.send(text("like"));
    assert_eq!(liker.frame(), Frame::text("2"));
    assert_eq!(other.frame(), Frame::text("2"));
}

#[test]
fn a_like_counts_once_however_its_bytes_and_fragments_are_split() {
    let site = Site::new(|_| {});
    let (a, b) = LIKE.split_at(7);
    let fragments =
        [frame(0x01, a.as_bytes()), frame(0x89, b"x"), frame(0x00, b""), frame(0x80, b.as_bytes())].concat();
    let padded = text(&format!("{LIKE}{}", " ".repeat(200)));
    // Command-line clients send a line with its end.
    let lines = [text("like\n"), text(&format!(" {LIKE}\r\n"))];
    let cases = [text(LIKE), text("like"), fragments, padded].into_iter().chain(lines);
    // The end tells that all before it has been read.
    let cases: Vec<_> = cases.map(|case| [case, close(1000, b"")].concat()).collect();
    however_split(
        &site,
        || site.connect_to_watch(),
        &cases,
        every,
        |_, peer| {
            let last = loop {
                let frame = peer.frame();
                if frame.first == 0x88 {
                    break frame;
                }
            };
            assert_eq!(last.close_code(), 1000);
        },
    );
    let sent: usize = cases.iter().map(|case| case.len() + 1).sum();
    wire::until(|| site.likes.count() == sent as u64);
}

// Section 5.1.
#[test]
fn a_frame_without_a_mask_is_a_protocol_error() {
    let mut like = vec![0x81, LIKE.len() as u8];
    like.extend(LIKE.as_bytes());
    closed_with(1002, &[and_a_like(&like), and_a_like(&[0x81, 0]), and_a_like(&[0x89, 0]), vec![0x88, 2, 3, 0xe8]]);
}

// Section 5.2.
#[test]
fn reserved_bits_and_opcodes_are_a_protocol_error() {
    let bits = [0x10, 0x20, 0x40, 0x70].into_iter().flat_map(|bit| [0x81, 0x80, 0x88, 0x89].map(|first| first | bit));
    let opcodes = (3..=7).chain(11..=15).map(|opcode| 0x80 | opcode);
    let cases: Vec<_> = bits.chain(opcodes).map(|first| and_a_like(&frame(first, b"ok"))).collect();
    closed_with(1002, &cases);
}

// Section 5.2: the minimal number of bytes must be used.
#[test]
fn a_length_that_is_not_in_its_shortest_form_is_a_protocol_error() {
    let lengthened = |frame: &[u8], bytes: usize| {
        let second = if bytes == 2 { 0xfe } else { 0xff };
        let length = u64::from(frame[1] & 0x7f).to_be_bytes();
        [&[frame[0], second], &length[8 - bytes..], &frame[2..]].concat()
    };
    let frames = [text("like"), text(""), frame(0x89, b""), frame(0x8a, b"x"), close(1000, b""), frame(0x01, b"{")];
    let mut cases: Vec<_> = frames.iter().flat_map(|frame| [2, 8].map(|bytes| lengthened(frame, bytes))).collect();
    cases.push([frame(0x01, b"li"), lengthened(&frame(0x80, b"ke"), 2)].concat());
    // Both bytes of a length that needs two, in eight.
    let longer = text(&format!("{LIKE:200}"));
    cases.push([&[0x81, 0xff, 0, 0, 0, 0, 0, 0], &longer[2..]].concat());
    let cases: Vec<_> = cases.iter().map(|case| and_a_like(case)).collect();
    closed_with(1002, &cases);
    let site = Site::new(|_| {});
    let mut peer = site.watch();
    peer.send(lengthened(&text("like"), 2));
    assert_eq!(peer.closed().reason(), "the length of a frame is not in its shortest form");
}

// Section 5.5.
#[test]
fn a_control_frame_that_is_long_or_fragmented_is_a_protocol_error() {
    closed_with(
        1002,
        &[
            and_a_like(&frame(0x89, &[0; 126])),
            and_a_like(&frame(0x8a, &[0; 126])),
            and_a_like(&frame(0x88, &[&[3, 0xe8][..], &[b'x'; 124]].concat())),
            and_a_like(&frame(0x09, b"x")),
            and_a_like(&frame(0x0a, b"x")),
            and_a_like(&frame(0x08, &[3, 0xe8])),
        ],
    );
}

// Section 5.4.
#[test]
fn fragments_out_of_order_are_a_protocol_error() {
    let (a, b) = LIKE.split_at(7);
    closed_with(
        1002,
        &[
            and_a_like(&frame(0x80, LIKE.as_bytes())),
            and_a_like(&frame(0x00, LIKE.as_bytes())),
            [frame(0x01, a.as_bytes()), text(LIKE)].concat(),
            [frame(0x01, a.as_bytes()), frame(0x01, b.as_bytes())].concat(),
            [frame(0x01, a.as_bytes()), frame(0x82, b.as_bytes())].concat(),
            [frame(0x01, a.as_bytes()), frame(0x8a, b""), frame(0x81, b.as_bytes())].concat(),
        ],
    );
}

#[test]
fn a_message_that_is_too_long_is_closed_1009_from_the_length_that_it_claims() {
    let whole = frame(0x81, &vec![b' '; 4097]);
    let summed = [frame(0x01, &[b' '; 4000]), frame(0x00, &[b' '; 96]), frame(0x80, b" ")].concat();
    let control_between = [frame(0x01, &[b' '; 4096]), frame(0x89, b"x"), frame(0x00, b" ")].concat();
    // The pong that is due comes before the end.
    let site = Site::new(|_| {});
    let mut peer = site.watch();
    peer.send(control_between);
    assert_eq!(peer.frame(), Frame { first: 0x8a, payload: b"x".to_vec() });
    assert_eq!(peer.closed().close_code(), 1009);

    closed_with(
        1009,
        &[
            and_a_like(&whole),
            and_a_like(&summed),
            header(0x81, 4097),
            header(0x82, 65535),
            header(0x81, 65536),
            header(0x81, 16 << 20),
            header(0x81, (1 << 32) + 1),
            header(0x81, (1 << 63) - 1),
            header(0x81, 1 << 63),
            header(0x81, u64::MAX),
            header(0x82, u64::MAX - 13),
            [frame(0x01, b"x"), header(0x80, u64::MAX)].concat(),
            [frame(0x01, &[b' '; 4000]), header(0x80, 4097)].concat(),
        ],
    );
    // As long as it may be, it is judged for what it says.
    let mut like = LIKE.to_owned();
    like.push_str(&" ".repeat(4096 - LIKE.len()));
    let mut peer = site.watch();
    peer.send(text(&like));
    assert_eq!(peer.frame(), Frame::text("1"));
}

// Section 8.1.
#[test]
fn text_that_is_not_utf_8_is_closed_1007() {
    let bad: [&[u8]; 10] = [
        b"\xff",
        b"\x80",
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xe2\x82",
        b"{\"type\":\"like\",\"a\":\"\xff\"}",
        b"like\xc3",
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
    ];
    let mut cases: Vec<_> = bad.iter().map(|text| and_a_like(&frame(0x81, text))).collect();
    cases.extend([
        and_a_like(&[frame(0x01, b"\xe2"), frame(0x80, b"\x28\xa1")].concat()),
        and_a_like(&[frame(0x01, b"\xe2\x82"), frame(0x80, b"")].concat()),
        // At once, not when the message is whole.
        [frame(0x01, b"ok"), frame(0x00, b"\xff")].concat(),
        // The reason of a close frame is text too.
        close(1000, b"\xff"),
        close(1000, b"\xc3"),
    ]);
    closed_with(1007, &cases);
    // A character may stand across two fragments.
    let site = Site::new(|_| {});
    let mut peer = site.watch();
    let message = "{\"type\":\"like\",\"a\":\"\u{20ac}\"}".as_bytes();
    for split in 1..message.len() {
        peer.send([frame(0x01, &message[..split]), frame(0x80, &message[split..])].concat());
    }
    wire::until(|| site.likes.count() == message.len() as u64 - 1);
}

// Sections 5.5.1 and 7.4.
#[test]
fn a_close_frame_that_is_malformed_is_a_protocol_error() {
    let codes = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535];
    let mut cases: Vec<_> = codes.into_iter().map(|code| and_a_like(&close(code, b""))).collect();
    cases.push(and_a_like(&frame(0x88, b"\x03")));
    cases.push(and_a_like(&close(1006, b"a reason")));
    closed_with(1002, &cases);
}

// Section 5.5.1: commonly the same code. Section 7.1.1: the server ends the TCP connection first.
#[test]
fn a_close_frame_is_answered_once_with_its_code_and_nothing_follows() {
    let codes = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999];
    for code in codes {
        closed_with(code, &[and_a_like(&close(code, b"")), and_a_like(&close(code, "bye \u{20ac}".as_bytes()))]);
    }
    closed_with(1000, &[and_a_like(&close(1000, &[b'x'; 123])), [close(1000, b""), close(1001, b"")].concat()]);
    closed_with(1005, &[and_a_like(&frame(0x88, b""))]);
    // In the middle of a message too.
    closed_with(1000, &[[frame(0x01, b"{"), close(1000, b""), frame(0x80, b"}")].concat()]);
}

// Sections 5.5.2 and 5.5.3.
#[test]
fn a_ping_is_answered_with_its_own_bytes_and_a_pong_with_nothing() {
    let site = Site::new(|_| {});
    let longest = [0xfe; 125];
    let pings: [&[u8]; 4] = [b"", b"hello", &[0, 0xff, 0xfe], &longest];
    let cases = pings.map(|payload| {
        [
            frame(0x8a, b"unasked"),
            frame(0x89, payload),
            frame(0x8a, b""),
            frame(0x01, b"li"),
            frame(0x89, payload),
            frame(0x80, b"ke"),
            close(1000, b""),
        ]
        .concat()
    });
    however_split(
        &site,
        || site.connect_to_watch(),
        &cases,
        some,
        |index, peer| {
            let mut pongs = Vec::new();
            let last = loop {
                let frame = peer.frame();
                match frame.first {
                    0x81 => {}
                    0x8a => pongs.push(frame.payload),
                    _ => break frame,
                }
            };
            assert_eq!(pongs, [pings[index], pings[index]]);
            assert_eq!(last.close_code(), 1000);
            peer.ends();
        },
    );
}

#[test]
fn many_pings_at_once_are_each_answered_in_order() {
    let site = Site::new(|_| {});
    let mut peer = site.watch();
    peer.send((0..100_u8).flat_map(|number| frame(0x89, &[number])).collect::<Vec<_>>());
    for number in 0..100 {
        assert_eq!(peer.frame(), Frame { first: 0x8a, payload: vec![number] });
    }
}

#[test]
fn a_message_that_is_no_like_is_closed_1008_and_told_what_is() {
    let messages = [
        "",
        " ",
        "likes",
        "LIKE",
        "{}",
        "[]",
        "\"like\"",
        "{\"type\":\"dislike\"}",
        "{\"type\":\"like\"",
        "{\"type\":\"like\"}{\"type\":\"like\"}",
        "[{\"type\":\"like\"}]",
        "{'type':'like'}",
        "\u{20ac}",
    ];
    closed_with(1008, &messages.map(|message| and_a_like(&text(message))));
    let site = Site::new(|_| {});
    let mut peer = site.watch();
    peer.send(text("hello"));
    assert_eq!(peer.closed().reason(), r#"expected {"type":"like"}"#);
}

#[test]
fn a_binary_message_is_closed_1003() {
    closed_with(
        1003,
        &[
            and_a_like(&frame(0x82, LIKE.as_bytes())),
            and_a_like(&frame(0x82, b"")),
            and_a_like(&[frame(0x02, b"\xff"), frame(0x80, b"\xff")].concat()),
        ],
    );
}

#[test]
fn likes_before_a_mistake_are_counted_and_those_after_it_are_not() {
    let site = Site::new(|_| {});
    let likes = text(LIKE).repeat(3);
    let cases = [
        [&likes[..], &text("hello"), &likes].concat(),
        [&likes[..], &[0x81, 0], &likes].concat(),
        [&likes[..], &header(0x81, u64::MAX), &likes].concat(),
        [&likes[..], &frame(0x01, b"").repeat(1), &frame(0x00, b"").repeat(64), &likes].concat(),
        [&likes[..], &close(1000, b""), &likes].concat(),
    ];
    let rounds = std::cell::Cell::new(0);
    however_split(
        &site,
        || site.connect_to_watch(),
        &cases,
        some,
        |_, peer| {
            peer.closed();
            rounds.set(rounds.get() + 1);
        },
    );
    wire::until(|| site.likes.count() == 3 * rounds.get());
    assert_eq!(site.likes.flush(wire::SOON).unwrap(), 3 * rounds.get());
}

#[test]
fn a_client_that_goes_without_a_word_leaves_nothing_behind() {
    let site = Site::new(|_| {});
    let like = text(LIKE);
    let peers: Vec<_> = (0..like.len())
        .map(|at| {
            let mut peer = site.watch();
            peer.send(&like[..at]);
            peer
        })
        .collect();
    assert_eq!(site.likes.watching(), like.len());
    drop(peers);
    wire::until(|| site.likes.watching() == 0);
    assert_eq!(site.likes.count(), 0);
}

#[test]
fn a_like_counts_although_its_sender_has_gone_on() {
    let site = Site::new(|_| {});
    let mut peer = site.watch();
    peer.send(text(LIKE));
    peer.finish();
    wire::until(|| site.likes.count() == 1 && site.likes.watching() == 0);
}

// Section 7.4.1: 1001.
#[test]
fn everyone_is_told_when_the_server_stops() {
    let site = Site::new(|_| {});
    let mut peers = [site.watch(), site.watch()];
    peers[0].send(frame(0x01, b"{\"type\""));
    site.handle.stop();
    for peer in &mut peers {
        let frame = peer.closed();
        assert_eq!((frame.close_code(), frame.reason()), (1001, "the server is shutting down"));
    }
    drop(peers);
    site.ended(wire::SOON).unwrap();
}

#[test]
fn a_like_that_cannot_be_saved_is_closed_1013_and_one_that_never_can_1011() {
    let mut limits = Limits::default();
    limits.stop_within = Duration::from_millis(100);
    let site = Site::of(Likes::with_store(memory(5, |_| Ending::NotSaved)).unwrap(), limits.clone());
    let mut peer = site.watch();
    // The first is taken in good faith.
    peer.send(text(LIKE));
    wire::until(|| site.likes.health().is_err());
    peer.send(text(LIKE));
    let frame = peer.closed();
    assert_eq!(frame.close_code(), 1013);
    assert!(!frame.reason().contains("disk"), "{}", frame.reason());
    assert_eq!(site.likes.count(), 5);
    let _ = site.likes.close(Duration::ZERO);
    drop((peer, site));

    let likes = Likes::with_store(memory(5, |_| Ending::Stopped)).unwrap();
    let site = Site::of(likes, limits);
    let mut peer = site.watch();
    peer.send(text(LIKE));
    // The counter has stopped for good, and with it the server.
    assert!(matches!(peer.closed().close_code(), 1001 | 1011));
    assert!(matches!(site.ended(wire::SOON), Err(Error::Stopped(_))));
    assert_eq!(site.likes.count(), 5);
}

//! The opening handshake of a WebSocket (RFC 6455 section 4.2): bytes in, answer out, however the bytes are split.

#[path = "support/wire.rs"]
mod wire;

use base64::{Engine, prelude::BASE64_STANDARD};
use sha1::{Digest, Sha1};
use wire::{Answer, COUNT, Frame, HANDSHAKE, LIKE, Site, every, however_split, some, text};

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";
const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\n";

fn get(fields: &str) -> String {
    format!("GET /liveLikes HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")
}

/// Each request gets this status, is checked, and leaves a connection that still speaks HTTP, unless it says that it
/// closes. No like is counted, and nobody is watching.
fn refused(cases: &[(String, u16)], check: impl Fn(&Answer)) {
    let site = Site::new(|_| {});
    let bytes: Vec<_> = cases.iter().map(|(request, _)| request.clone().into_bytes()).collect();
    however_split(
        &site,
        || site.connect(),
        &bytes,
        some,
        |index, peer| {
            let answer = peer.answer();
            assert_eq!(answer.status, cases[index].1, "{answer:?}");
            assert_eq!(answer.field("Content-Type"), Some("text/plain; charset=utf-8"), "{answer:?}");
            assert!(answer.field("Sec-WebSocket-Accept").is_none(), "{answer:?}");
            check(&answer);
            if answer.closes() {
                peer.ends();
            } else {
                assert_eq!(peer.ask(COUNT).body, r#"{"numLikes":0}"#);
            }
        },
    );
    assert_eq!((site.likes.count(), site.likes.watching()), (0, 0));
}

fn all(status: u16, cases: impl IntoIterator<Item = String>) -> Vec<(String, u16)> {
    cases.into_iter().map(|case| (case, status)).collect()
}

// RFC 9110 section 7.8.
#[test]
fn a_client_that_waits_to_be_told_to_go_on_is_told_so_before_the_switch() {
    let site = Site::new(|_| {});
    let mut peer = site.connect();
    let key = format!("{UPGRADE}{VERSION}{KEY}Expect: 100-continue\r\n");
    assert_eq!(peer.ask(get(&key)).status, 100);
    assert_eq!(peer.answer().status, 101);
    assert_eq!(peer.frame(), Frame::text("0"));
}

// RFC 6455 section 1.3.
#[test]
fn a_handshake_is_answered_with_the_accept_of_its_key_and_nothing_that_was_not_agreed() {
    let site = Site::new(|_| {});
    let keys = (0..20_u8).map(|first| std::array::from_fn::<_, 16, _>(|index| first.wrapping_mul(13) ^ index as u8));
    for key in keys.map(|key| BASE64_STANDARD.encode(key)).chain(["dGhlIHNhbXBsZSBub25jZQ==".to_owned()]) {
        let mut peer = site.connect();
        let offers = "Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Extensions: permessage-deflate\r\n";
        let answer = peer.ask(get(&format!("{UPGRADE}{VERSION}{offers}Sec-WebSocket-Key: {key}\r\n")));
        let accept = BASE64_STANDARD.encode(Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11")));
        assert_eq!(answer.status, 101, "{answer:?}");
        assert!(answer.field("Upgrade").unwrap().eq_ignore_ascii_case("websocket"), "{answer:?}");
        assert!(answer.field("Connection").unwrap().eq_ignore_ascii_case("upgrade"), "{answer:?}");
        assert_eq!(answer.field("Sec-WebSocket-Accept"), Some(accept.as_str()), "{answer:?}");
        for unasked in ["Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions", "Content-Length", "Transfer-Encoding"] {
            assert_eq!(answer.field(unasked), None, "{answer:?}");
        }
        assert_eq!(peer.frame(), Frame::text("0"));
        if key == "dGhlIHNhbXBsZSBub25jZQ==" {
            assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        }
    }
}

#[test]
fn a_handshake_succeeds_wherever_it_is_split() {
    let site = Site::new(|_| {});
    however_split(
        &site,
        || site.connect(),
        &[HANDSHAKE.to_vec()],
        every,
        |_, peer| {
            assert_eq!(peer.answer().status, 101);
            assert_eq!(peer.frame(), Frame::text("0"));
        },
    );
}

// RFC 6455 section 4.2.1: tokens in any case, in lists, over several lines; RFC 9110 section 5.6.1.
#[test]
fn the_fields_of_a_handshake_may_be_written_in_every_way_that_lists_may() {
    let site = Site::new(|_| {});
    let cases = [
        "Upgrade: WebSocket\r\nConnection: upgrade\r\n",
        "UPGRADE: WEBSOCKET\r\nCONNECTION: UPGRADE\r\n",
        "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n",
        "Upgrade: websocket\r\nConnection: keep-alive ,\tUpgrade , x\r\n",
        "Upgrade: websocket\r\nConnection: keep-alive\r\nConnection: Upgrade\r\n",
        "Upgrade: h2c, websocket\r\nConnection: Upgrade\r\n",
        "Upgrade: h2c\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
        "Upgrade:websocket\t \r\nConnection:,Upgrade,\r\n",
        "Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 0\r\n",
        "Upgrade: websocket\r\nConnection: Upgrade\r\nOrigin: http://localhost\r\n",
        "Upgrade: websocket\r\nConnection: Upgrade\r\nOrigin: http://127.0.0.1\r\n",
    ];
    let cases = cases.map(|fields| get(&format!("{fields}{KEY}{VERSION}")).into_bytes());
    however_split(
        &site,
        || site.connect(),
        &cases,
        some,
        |_, peer| {
            let answer = peer.answer();
            assert_eq!(answer.field("Sec-WebSocket-Accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer:?}");
            assert_eq!(peer.frame(), Frame::text("0"));
        },
    );
    let mut peer = site.connect();
    let query = String::from_utf8(HANDSHAKE.to_vec()).unwrap().replace("/liveLikes", "http://localhost/liveLikes?_=y");
    assert_eq!(peer.ask(query).status, 101);
}

#[test]
fn a_handshake_is_a_get() {
    let with = |method: &str| format!("{method} /liveLikes HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}{KEY}{VERSION}\r\n");
    refused(&all(405, ["POST", "PUT", "DELETE"].map(with)), |answer| {
        assert_eq!(answer.field("Allow"), Some("GET, OPTIONS"), "{answer:?}");
    });
    refused(&all(501, ["BREW", "CONNECT", "get"].map(with)), |_| {});
    let site = Site::new(|_| {});
    // The method is judged before the rest.
    for head in [with("HEAD"), with("HEAD").replace(VERSION, ""), with("HEAD").replace(KEY, "")] {
        let mut peer = site.connect();
        peer.send(head);
        let answer = peer.answer_to_head();
        assert_eq!((answer.status, answer.field("Allow")), (405, Some("GET, OPTIONS")));
    }
}

#[test]
fn a_handshake_is_not_of_http_1_0() {
    let old = format!("GET /liveLikes HTTP/1.0\r\nHost: localhost\r\n{UPGRADE}{KEY}{VERSION}\r\n");
    refused(&all(400, [old]), |answer| assert!(answer.closes()));
    refused(&all(426, ["GET /liveLikes HTTP/1.0\r\n\r\n".to_owned()]), |answer| assert!(answer.closes()));
}

// RFC 9110 section 15.5.22.
#[test]
fn a_request_for_no_websocket_is_told_to_upgrade() {
    let fields = [
        "",
        "Upgrade: websocket\r\n",
        "Connection: Upgrade\r\n",
        "Upgrade: websocket\r\nConnection: keep-alive\r\n",
        "Upgrade: h2c\r\nConnection: Upgrade\r\n",
        "Upgrade: websockets\r\nConnection: Upgrade\r\n",
        "Upgrade: websocket/13\r\nConnection: Upgrade\r\n",
        "Upgrade: web socket\r\nConnection: Upgrade\r\n",
        "Upgrade: websocket\r\nConnection: Upgrade keep-alive\r\n",
        "Upgrade: websocket\r\nConnection: xUpgrade\r\n",
        "Upgrade: websocket; Connection: Upgrade\r\n",
    ];
    let cases = fields.map(|fields| get(&format!("{fields}{KEY}{VERSION}")));
    refused(&all(426, cases.into_iter().chain([get("")])), |answer| {
        assert_eq!(answer.field("Upgrade"), Some("websocket"), "{answer:?}");
        assert_eq!(answer.fields("Connection").first(), Some(&"Upgrade"), "{answer:?}");
    });
}

// RFC 6455 section 4.4.
#[test]
fn another_version_of_the_protocol_is_told_which_one_is_spoken() {
    let versions = ["", "12", "14", "8", "0", "013", "+13", "13.0", "13, 8", "13,13", "-13", "256", "thirteen"];
    let lines = versions.map(|version| format!("Sec-WebSocket-Version: {version}\r\n"));
    let twice = [VERSION.repeat(2), format!("{VERSION}Sec-WebSocket-Version: 8\r\n")];
    let cases = lines.into_iter().chain(twice).chain([String::new()]).map(|line| get(&format!("{UPGRADE}{KEY}{line}")));
    refused(&all(426, cases), |answer| {
        assert_eq!(answer.field("Sec-WebSocket-Version"), Some("13"), "{answer:?}");
        assert_eq!(answer.field("Upgrade"), Some("websocket"), "{answer:?}");
    });
}

#[test]
fn a_key_that_is_not_sixteen_bytes_in_base64_is_a_bad_request() {
    let keys = [
        "",
        "x",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZQ=",
        "dGhlIHNhbXBsZSBub25jZQ===",
        "dGhlIHNhbXBsZSBub25jZ===",
        "dGhlIHNhbXBsZSBub25jZSE=",
        "dGhlIHNhbXBsZSBub25j",
        "dGhlIHNhbXBsZSBub25jZSEh",
        "dGhlIHNhbXBsZSBub25jZ!==",
        "dGhlIHNhbXBsZSBub25_ZQ==",
        "dGhlIHNhbXBs ZSBub25jZQ==",
        "dGhlIHNhbXBsZSBub25jZQ==, dGhlIHNhbXBsZSBub25jZQ==",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    ];
    let lines = keys.map(|key| format!("Sec-WebSocket-Key: {key}\r\n"));
    let cases = lines.into_iter().chain([String::new(), KEY.repeat(2)]);
    refused(&all(400, cases.map(|line| get(&format!("{UPGRADE}{VERSION}{line}")))), |_| {});
}

// RFC 6455 section 10.2.
#[test]
fn a_page_of_another_origin_may_not_watch() {
    let origins = [
        "http://evil.example",
        "https://evil.example:3000",
        "null",
        "",
        "http://localhost:1",
        "http://localhost.evil.example",
        "http://user@localhost",
        "http://localhost/",
        "localhost",
        "file://",
    ];
    let cases = origins.map(|origin| get(&format!("{UPGRADE}{KEY}{VERSION}Origin: {origin}\r\n")));
    refused(&all(403, cases), |_| {});
    let twice = get(&format!("{UPGRADE}{KEY}{VERSION}Origin: http://localhost\r\nOrigin: http://evil.example\r\n"));
    refused(&all(400, [twice]), |answer| assert!(answer.closes()));
    // DNS rebinding: the page's own host, by a name that was made to point here.
    let rebound = format!(
        "GET /liveLikes HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://evil.example\r\n{UPGRADE}{KEY}{VERSION}\r\n"
    );
    refused(&all(403, [rebound]), |answer| assert!(answer.body.contains("--allow-host"), "{answer:?}"));
}

#[test]
fn a_handshake_elsewhere_is_answered_as_if_it_were_none() {
    let site = Site::new(|_| {});
    for (path, status) in [("/", 200), ("/likes", 200), ("/livelikes", 404), ("/liveLikes/", 404), ("/like", 405)] {
        let mut peer = site.connect();
        let request = String::from_utf8(HANDSHAKE.to_vec()).unwrap().replace("/liveLikes", path);
        let answer = peer.ask(request);
        assert_eq!((answer.status, answer.closes()), (status, true), "{path}");
        peer.ends();
    }
}

// A proxy may take the connection for a tunnel as soon as an upgrade is asked for, and pass on what follows unseen: past
// its own rules of who may like.
#[test]
fn nothing_behind_a_request_for_an_upgrade_that_gets_none_is_read_as_a_request() {
    let site = Site::new(|_| {});
    let right = format!("{UPGRADE}{KEY}{VERSION}");
    let (key, version) = (KEY.to_owned(), VERSION.to_owned());
    let mut cases: Vec<String> = [
        format!("{UPGRADE}{key}Sec-WebSocket-Version: 12\r\n"),
        format!("{UPGRADE}{key}Sec-WebSocket-Version: 1\r\n{version}"),
        format!("{UPGRADE}{key}"),
        format!("{UPGRADE}{version}"),
        format!("{UPGRADE}{version}Sec-WebSocket-Key: short\r\n"),
        format!("{UPGRADE}{version}{key}{key}"),
        format!("{right}Origin: http://evil.example\r\n"),
        format!("{right}Origin: null\r\n"),
        format!("{right}Content-Length: 5\r\n"),
        format!("{right}Transfer-Encoding: chunked\r\n"),
        format!("Upgrade: websocket\r\n{key}{version}"),
        format!("UPGRADE: WEBSOCKET\r\nConnection: keep-alive\r\n{key}{version}"),
        format!("upgrade: websocketx\r\nconnection: upgrade\r\n{key}{version}"),
        format!("Upgrade: websocket/13\r\nConnection: UPGRADE\r\n{key}{version}"),
        format!("Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n{key}{version}"),
        format!("Upgrade: h2c\r\nUpgrade: websocket\r\nConnection: xUpgrade\r\n{key}{version}"),
        format!("Upgrade:\r\nConnection: Upgrade\r\n{key}{version}"),
    ]
    .iter()
    .map(|fields| get(fields))
    .collect();
    let whole = get(&right);
    for start in [
        "GET / HTTP/1.1",
        "GET /likes HTTP/1.1",
        "GET /like HTTP/1.1",
        "GET /nothing HTTP/1.1",
        "GET http://localhost/nothing HTTP/1.1",
        "GET http://evil.example/liveLikes HTTP/1.1",
        "HEAD /liveLikes HTTP/1.1",
        "HEAD /likes HTTP/1.1",
        "POST /liveLikes HTTP/1.1",
        "PUT /liveLikes HTTP/1.1",
        "OPTIONS /liveLikes HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "DELETE /like HTTP/1.1",
        "BREW /liveLikes HTTP/1.1",
        "CONNECT localhost:80 HTTP/1.1",
        "GET /liveLikes HTTP/1.0",
        "GET /likes HTTP/1.0",
        "GET /healthz HTTP/1.1",
        "GET /metrics HTTP/1.1",
    ] {
        cases.push(whole.replacen("GET /liveLikes HTTP/1.1", start, 1));
    }
    cases.push(whole.replace("Host: localhost", "Host: evil.example"));
    for case in cases {
        let mut peer = site.connect();
        peer.send([case.as_bytes(), wire::PUT, HANDSHAKE].concat());
        let answer = peer.try_answer(case.starts_with("HEAD")).expect(&case);
        assert!(answer.status != 101 && answer.closes(), "{case} {answer:?}");
        peer.ends();
    }
    assert_eq!((site.likes.count(), site.likes.watching()), (0, 0));
}

#[test]
fn a_request_that_asks_for_no_upgrade_keeps_its_connection() {
    let site = Site::new(|_| {});
    let mut peer = site.connect();
    for fields in ["", "Connection: Upgrade\r\n", "Connection: keep-alive, upgrade\r\n"] {
        let answer = peer.ask(get(fields));
        assert_eq!((answer.status, answer.closes()), (426, false), "{fields}");
    }
    assert_eq!(peer.ask(wire::PUT).body, r#"{"numLikes":1}"#);
}

// A body that one reader takes for frames and another does not.
#[test]
fn a_handshake_with_a_body_is_a_bad_request_and_closes() {
    let body = String::from_utf8_lossy(wire::PUT).into_owned();
    let length = body.len();
    let cases = [
        format!("{}{body}", get(&format!("{UPGRADE}{KEY}{VERSION}Content-Length: {length}\r\n"))),
        format!("{}0\r\n\r\n", get(&format!("{UPGRADE}{KEY}{VERSION}Transfer-Encoding: chunked\r\n"))),
        format!(
            "{}{length:x}\r\n{body}\r\n0\r\n\r\n",
            get(&format!("{UPGRADE}{KEY}{VERSION}Transfer-Encoding: chunked\r\n"))
        ),
        get(&format!("{UPGRADE}{KEY}{VERSION}Content-Length: 1\r\n")),
    ];
    refused(&all(400, cases), |answer| assert!(answer.closes(), "{answer:?}"));
}

// Browsers wait for the answer; others need not.
#[test]
fn frames_that_come_with_the_handshake_are_not_lost() {
    let site = Site::new(|_| {});
    let bytes = [HANDSHAKE, &text(LIKE), &wire::frame(0x89, b"early"), &wire::close(1000, b"")].concat();
    let sent = bytes.len() as u64 + 1;
    however_split(
        &site,
        || site.connect(),
        &[bytes],
        every,
        |_, peer| {
            assert_eq!(peer.answer().status, 101);
            let mut pongs = 0;
            let last = loop {
                let frame = peer.frame();
                match frame.first {
                    0x81 => {}
                    0x8a => {
                        assert_eq!(frame.payload, b"early");
                        pongs += 1;
                    }
                    _ => break frame,
                }
            };
            assert_eq!((pongs, last.close_code()), (1, 1000));
            peer.ends();
        },
    );
    wire::until(|| site.likes.count() == sent);
}

#[test]
fn a_handshake_may_follow_other_requests_in_the_same_segment() {
    let site = Site::new(|_| {});
    let bytes = [wire::PUT, COUNT, HANDSHAKE, &text(LIKE)].concat();
    let mut peer = site.connect();
    peer.send(bytes);
    assert_eq!(peer.answer().body, r#"{"numLikes":1}"#);
    assert_eq!(peer.answer().body, r#"{"numLikes":1}"#);
    assert_eq!(peer.answer().status, 101);
    assert_eq!(peer.frame(), Frame::text("1"));
    assert_eq!(peer.frame(), Frame::text("2"));
}

#[test]
fn a_very_long_offer_of_protocols_costs_no_more_than_its_bytes() {
    let site = Site::new(|_| {});
    let fits = 15_000;
    for (list, status) in [
        ("a".repeat(fits), 101),
        (" ".repeat(fits) + "a", 101),
        (format!("a{}b", " ".repeat(fits)), 101),
        (",".repeat(fits), 101),
        ("a".repeat(1_000_000), 431),
        (" ,".repeat(500_000), 431),
    ] {
        let mut peer = site.connect();
        let started = std::time::Instant::now();
        peer.send(get(&format!("{UPGRADE}{KEY}{VERSION}Sec-WebSocket-Protocol: {list}\r\n")));
        assert_eq!(peer.answer().status, status);
        assert!(started.elapsed() < wire::SOON / 2);
    }
}

//! The rules of HTTP/1.1 (RFC 9110, RFC 9112): bytes in, answer out, however the bytes are split.

#[path = "support/wire.rs"]
mod wire;

use std::time::Duration;
use wire::{Answer, COUNT, PUT, Peer, Site, every, however_split, some};

/// Each request gets this status, a line of text that says what was wrong, and the end of the connection; and no like
/// is counted.
fn refused(cases: &[(&str, u16)]) {
    let site = Site::new(|_| {});
    let bytes: Vec<_> = cases.iter().map(|(request, _)| raw(request)).collect();
    however_split(
        &site,
        || site.connect(),
        &bytes,
        some,
        |index, peer| {
            let answer = peer.answer();
            assert_eq!(answer.status, cases[index].1, "{answer:?}");
            says_why(&answer);
            assert!(answer.closes(), "{answer:?}");
            peer.ends();
        },
    );
    assert_eq!(site.likes.count(), 0);
}

/// Each request gets this status, and the connection goes on to a further request.
fn answered(cases: &[(&str, u16)]) {
    let site = Site::new(|_| {});
    let bytes: Vec<_> = cases.iter().map(|(request, _)| raw(request)).collect();
    however_split(
        &site,
        || site.connect(),
        &bytes,
        some,
        |index, peer| {
            let answer = peer.answer();
            assert_eq!(answer.status, cases[index].1, "{answer:?}");
            assert!(!answer.closes(), "{answer:?}");
            if answer.status >= 400 {
                says_why(&answer);
            }
            assert_eq!(peer.ask(COUNT).body, r#"{"numLikes":0}"#);
        },
    );
    assert_eq!(site.likes.count(), 0);
}

/// Bytes above 0x7f are written as the characters of the same number.
fn raw(request: &str) -> Vec<u8> {
    request.chars().map(|char| u8::try_from(char).unwrap()).collect()
}

fn says_why(answer: &Answer) {
    assert_eq!(answer.field("Content-Type"), Some("text/plain; charset=utf-8"), "{answer:?}");
    assert!(answer.body.ends_with('\n') && answer.body.lines().count() == 1, "{answer:?}");
}

/// A like with these fields and this rest, which must not be counted.
fn put(fields_and_body: &str) -> String {
    format!("PUT /like HTTP/1.1\r\nHost: localhost\r\n{fields_and_body}")
}

fn refused_likes(cases: &[(&str, u16)]) {
    let cases: Vec<_> = cases.iter().map(|(rest, status)| (put(rest), *status)).collect();
    refused(&cases.iter().map(|(request, status)| (request.as_str(), *status)).collect::<Vec<_>>());
}

#[test]
fn a_page_is_loaded_and_liked_over_one_connection() {
    let site = Site::new(|_| {});
    let mut peer = site.connect();
    let page = peer.ask("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!((page.status, page.field("Content-Type")), (200, Some("text/html; charset=utf-8")));
    assert_eq!(peer.ask(PUT).body, r#"{"numLikes":1}"#);
    assert_eq!(peer.ask(COUNT).body, r#"{"numLikes":1}"#);
    assert_eq!(site.likes.count(), 1);
}

#[test]
fn a_like_counts_once_wherever_its_bytes_are_split() {
    let site = Site::new(|_| {});
    let body = put("Content-Length: 15\r\n\r\n{\"type\":\"like\"}");
    let chunks = put("Transfer-Encoding: chunked\r\n\r\n1;a=b\r\n{\r\n00e\r\n\"type\":\"like\"}\r\n0\r\nX: y\r\n\r\n");
    let cases = [PUT.to_vec(), raw(&body), raw(&chunks)];
    however_split(
        &site,
        || site.connect(),
        &cases,
        every,
        |_, peer| {
            let before = site.likes.count();
            let answer = peer.answer();
            assert_eq!(answer.status, 200, "{answer:?}");
            assert!(before <= site.likes.count());
            assert_eq!(peer.ask(COUNT).status, 200);
        },
    );
    let sent: usize = cases.iter().map(|case| case.len() + 1).sum();
    assert_eq!(site.likes.count(), sent as u64);
}

// RFC 9112 section 3.
#[test]
fn a_malformed_request_line_is_a_bad_request() {
    let lines = [
        "GET",
        "GET /likes",
        "/likes HTTP/1.1",
        "GET HTTP/1.1",
        " GET /likes HTTP/1.1",
        "GET  /likes HTTP/1.1",
        "GET /likes  HTTP/1.1",
        "GET /likes HTTP/1.1 ",
        "GET /likes HTTP/1.1 x",
        "GET /li kes HTTP/1.1",
        "GET\t/likes HTTP/1.1",
        "GET /likes\tHTTP/1.1",
        "GET /likes\u{b}HTTP/1.1",
        "GET /\u{1}likes HTTP/1.1",
        "GET /\0likes HTTP/1.1",
        "GET /\u{7f} HTTP/1.1",
        "GET /\u{e9} HTTP/1.1",
        "GET /likes#top HTTP/1.1",
        "G@T /likes HTTP/1.1",
        "G\u{e9}T /likes HTTP/1.1",
        "\0GET /likes HTTP/1.1",
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}",
        "GET likes HTTP/1.1",
        "GET ftp://localhost/likes HTTP/1.1",
        "GET http:/likes HTTP/1.1",
        "GET http:///likes HTTP/1.1",
        "GET http://user@localhost/likes HTTP/1.1",
        "GET http://local host/likes HTTP/1.1",
        "GET ?x HTTP/1.1",
    ];
    let requests: Vec<_> = lines.iter().map(|line| format!("{line}\r\nHost: localhost\r\n\r\n")).collect();
    refused(&requests.iter().map(|request| (request.as_str(), 400)).collect::<Vec<_>>());
}

// RFC 9112 section 2.2.
#[test]
fn two_empty_lines_before_a_request_are_skipped_and_a_third_is_not() {
    answered(&[
        ("\r\nGET /likes HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        ("\r\n\r\nGET /likes HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
    ]);
    refused(&[("\r\n\r\n\r\nPUT /like HTTP/1.1\r\nHost: localhost\r\n\r\n", 400)]);
}

// RFC 9112 section 2.2.
#[test]
fn a_bare_cr_is_a_bad_request() {
    refused(&[
        ("\rPUT /like HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        ("PUT\r/like HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        ("PUT /like\r HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        ("PUT /like HTTP/1.1\rHost: localhost\r\n\r\n", 400),
        ("PUT /like HTTP/1.1\r\r\nHost: localhost\r\n\r\n", 400),
        ("PUT /like HTTP/1.1\r\nHost: local\rhost\r\n\r\n", 400),
        ("PUT /like HTTP/1.1\r\nHost:\r localhost\r\n\r\n", 400),
        ("PUT /like HTTP/1.1\r\nHo\rst: localhost\r\n\r\n", 400),
        ("PUT /like HTTP/1.1\r\nHost: localhost\r\r\n\r\n", 400),
        ("PUT /like HTTP/1.1\r\nHost: localhost\r\n\r\r\n", 400),
        ("PUT /like HTTP/1.1\r\nHost: localhost\r\n\rX: y\r\n\r\n", 400),
    ]);
}

// RFC 9112 section 2.2 lets a server take it for a line's end; this one does not.
#[test]
fn a_bare_lf_is_a_bad_request() {
    refused(&[
        ("PUT /like HTTP/1.1\nHost: localhost\n\n", 400),
        ("\nPUT /like HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        ("\r\n\nPUT /like HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        ("PUT /like HTTP/1.1\nHost: localhost\r\n\r\n", 400),
        ("PUT /like HTTP/1.1\r\nHost: localhost\n\r\n", 400),
        ("PUT /like HTTP/1.1\r\nHost: localhost\r\n\n", 400),
        ("PUT /like HTTP/1.1\r\nHost: localhost\nX: y\r\n\r\n", 400),
        ("PUT /like HTTP/1.1\r\nHost: local\nhost\r\n\r\n", 400),
    ]);
}

// RFC 9112 sections 2.2, 5.1 and 5.2.
#[test]
fn white_space_before_a_field_or_in_its_name_is_a_bad_request() {
    refused(&[
        ("PUT /like HTTP/1.1\r\n Host: localhost\r\n\r\n", 400),
        ("PUT /like HTTP/1.1\r\n\tHost: localhost\r\n\r\n", 400),
        ("PUT /like HTTP/1.1\r\n \r\nHost: localhost\r\n\r\n", 400),
        ("PUT /like HTTP/1.1\r\nHost : localhost\r\n\r\n", 400),
        ("PUT /like HTTP/1.1\r\nHost\t: localhost\r\n\r\n", 400),
        ("PUT /like HTTP/1.1\r\nHost: localhost\r\nContent-Length : 5\r\n\r\nhello", 400),
        ("PUT /like HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n", 400),
        ("PUT /like HTTP/1.1\r\nHost: localhost\r\nX: a\r\n\tb\r\n\r\n", 400),
        ("PUT /like HTTP/1.1\r\nHost: localhost\r\nX:\r\n b\r\n\r\n", 400),
        ("PUT /like HTTP/1.1\r\nHost: localhost\r\n \r\n\r\n", 400),
        ("PUT /like HTTP/1.1\r\nHost:\r\n localhost\r\n\r\n", 400),
        ("PUT /like HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
    ]);
}

// RFC 9112 section 5.1.
#[test]
fn a_field_name_that_is_no_token_is_a_bad_request() {
    refused_likes(&[
        (": a\r\n\r\n", 400),
        ("X y: a\r\n\r\n", 400),
        ("X(y): a\r\n\r\n", 400),
        ("X\"y\": a\r\n\r\n", 400),
        ("X@y: a\r\n\r\n", 400),
        ("X\u{e9}: a\r\n\r\n", 400),
        ("X\0: a\r\n\r\n", 400),
        ("X\u{7f}: a\r\n\r\n", 400),
        ("X\r\n\r\n", 400),
        ("X=y\r\n\r\n", 400),
    ]);
}

// RFC 9110 section 5.5.
#[test]
fn a_control_character_in_a_field_is_a_bad_request_and_a_tab_or_a_high_byte_is_not() {
    let cases: Vec<_> = (0..=0x1f_u8)
        .chain([0x7f])
        .filter(|byte| !b"\t\r\n".contains(byte))
        .map(|byte| format!("GET /likes HTTP/1.1\r\nHost: localhost\r\nX: a{}b\r\n\r\n", char::from(byte)))
        .collect();
    refused(&cases.iter().map(|request| (request.as_str(), 400)).collect::<Vec<_>>());
    answered(&[
        ("GET /likes HTTP/1.1\r\nHost: localhost\r\nX: a\tb\r\n\r\n", 200),
        ("GET /likes HTTP/1.1\r\nHost: localhost\r\nX: a\u{80}\u{e9}\u{ff}b\r\n\r\n", 200),
        ("GET /likes HTTP/1.1\r\nHost: localhost\r\nX:\r\nY:\t \r\nZ:a\r\n\r\n", 200),
        ("GET /likes HTTP/1.1\r\nHost:\t localhost \t\r\n\r\n", 200),
        ("GET /likes HTTP/1.1\r\nhOST: localhost\r\n\r\n", 200),
    ]);
}

// RFC 9112 section 3.2.
#[test]
fn one_valid_host_is_asked_for() {
    let with = |fields: &str| format!("PUT /like HTTP/1.1\r\n{fields}\r\n");
    let bad: Vec<_> = [
        "",
        "X: y\r\n",
        "Host: localhost\r\nHost: localhost\r\n",
        "Host: localhost\r\nX: y\r\nhost: other.example\r\n",
        "Host:\r\n",
        "Host: \r\n",
        "Host: localhost, localhost\r\n",
        "Host: localhost,localhost\r\n",
        "Host: user@localhost\r\n",
        "Host: localhost/likes\r\n",
        "Host: http://localhost\r\n",
        "Host: local host\r\n",
        "Host: localhost:port\r\n",
        "Host: localhost:65536\r\n",
        "Host: localhost:+80\r\n",
        "Host: localhost:80:80\r\n",
        "Host: :80\r\n",
        "Host: [::1\r\n",
        "Host: [localhost]\r\n",
        "Host: ::1\r\n",
        "Host: [::1]x\r\n",
        "Host: x[::1]\r\n",
        "Host: local%68ost\r\n",
        "Host: localhost@localhost\r\n",
        "Host: localhost:80@localhost:80\r\n",
        "Host: localhost?\r\n",
        "Host: localhost#\r\n",
        "Host: local\\host\r\n",
        "Host: l\u{f6}calhost\r\n",
    ]
    .into_iter()
    .map(with)
    .collect();
    refused(&bad.iter().map(|request| (request.as_str(), 400)).collect::<Vec<_>>());
    answered(&[
        ("GET /likes HTTP/1.1\r\nHost: localhost:3000\r\n\r\n", 200),
        ("GET /likes HTTP/1.1\r\nHost: localhost:\r\n\r\n", 200),
        ("GET /likes HTTP/1.1\r\nHost: [::1]:3000\r\n\r\n", 200),
        ("GET /likes HTTP/1.1\r\nHost: LOCALHOST\r\n\r\n", 200),
    ]);
}

#[test]
fn a_server_on_a_loopback_address_answers_to_loopback_names_alone() {
    answered(&[
        ("PUT /like HTTP/1.1\r\nHost: rebound.example\r\n\r\n", 403),
        ("PUT /like HTTP/1.1\r\nHost: rebound.example:3000\r\nOrigin: http://rebound.example:3000\r\n\r\n", 403),
        ("GET /likes HTTP/1.1\r\nHost: localhost.rebound.example\r\n\r\n", 403),
        ("GET / HTTP/1.1\r\nHost: rebound.example\r\n\r\n", 403),
        ("GET /likes HTTP/1.1\r\nHost: likes.localhost\r\n\r\n", 200),
        ("GET /likes HTTP/1.1\r\nHost: 127.0.0.2\r\n\r\n", 200),
    ]);
}

#[test]
fn a_like_from_a_page_of_another_origin_is_refused() {
    let with = |origin: &str| put(&format!("Origin: {origin}\r\n\r\n"));
    let cases =
        ["http://evil.example", "null", "http://localhost:1", "https://localhost.evil.example", "localhost", ""];
    let cases: Vec<_> = cases.into_iter().map(with).collect();
    answered(&cases.iter().map(|request| (request.as_str(), 403)).collect::<Vec<_>>());
    refused_likes(&[("Origin: http://localhost\r\nOrigin: http://evil.example\r\n\r\n", 400)]);

    let site = Site::new(|_| {});
    let like = format!("PUT /like HTTP/1.1\r\nHost: {0}\r\nOrigin: http://{0}\r\n\r\n", site.addr);
    assert_eq!(site.connect().ask(like).body, r#"{"numLikes":1}"#);
}

// RFC 9112 section 3.2.2.
#[test]
fn an_absolute_target_is_accepted_and_its_host_counts() {
    answered(&[
        ("GET http://localhost/likes HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        ("GET http://localhost/likes HTTP/1.1\r\nHost: rebound.example\r\n\r\n", 200),
        ("GET HTTP://LOCALHOST:3000/likes?_=/y HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        ("GET https://localhost/likes HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        ("GET http://localhost HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        ("GET http://localhost?x HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        ("PUT http://rebound.example/like HTTP/1.1\r\nHost: localhost\r\n\r\n", 403),
        ("GET http://localhost/nothing HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    ]);
    refused(&[("PUT http://localhost/like HTTP/1.1\r\n\r\n", 400)]);
}

// RFC 9112 sections 3.2.3 and 3.2.4.
#[test]
fn an_asterisk_goes_with_options_and_an_authority_with_nothing() {
    let site = Site::new(|_| {});
    let mut peer = site.connect();
    let answer = peer.ask("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!((answer.status, answer.field("Allow")), (204, Some("GET, HEAD, PUT, POST, OPTIONS")));
    assert_eq!(peer.ask(COUNT).status, 200);
    refused(&[
        ("GET * HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        ("PUT * HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        ("OPTIONS ** HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        ("PUT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    ]);
    // What follows a request for a tunnel is not read as a request.
    refused(&[("CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\nPUT /like HTTP/1.1\r\nHost: a\r\n\r\n", 501)]);
    answered(&[("OPTIONS /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n", 404)]);
}

// RFC 9112 section 3; RFC 6585 section 5.
#[test]
fn a_head_that_is_too_long_is_answered_by_the_part_that_is() {
    let target = |length: usize| format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(length - 1));
    let fields =
        |count: usize| format!("GET /likes HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
    let field = |length: usize| format!("GET /likes HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "a".repeat(length));
    let head = 16 * 1024;
    let rest = field(0).len();
    answered(&[(&target(8000), 404), (&target(8192), 404), (&fields(64), 200), (&field(head - rest), 200)]);
    answered(&[(&format!("{} / HTTP/1.1\r\nHost: localhost\r\n\r\n", "A".repeat(1000)), 501)]);
    let site = Site::new(|_| {});
    for (request, status) in [
        (target(8193), 414),
        (target(100_000), 414),
        (format!("GET /{}", "a".repeat(100_000)), 414),
        (fields(65), 431),
        (fields(5000), 431),
        (field(head - rest + 1), 431),
        (field(100_000), 431),
        (format!("GET /likes HTTP/1.1\r\n{}: y\r\n\r\n", "X".repeat(100_000)), 431),
        ("A".repeat(100_000), 501),
        ("@".repeat(100_000), 400),
        (format!("GET /likes {}", "a".repeat(100_000)), 431),
        (format!("GET /{}\r\n", "a".repeat(8191)), 400), // as long as may be; what is missing is a version
    ] {
        for parts in [request.len(), 1000] {
            let mut peer = site.connect();
            request.as_bytes().chunks(parts).for_each(|part| peer.send(part));
            let answer = peer.answer();
            assert_eq!(answer.status, status, "{answer:?}");
            assert!(answer.closes());
            peer.ends();
        }
    }
}

// RFC 9110 sections 2.5 and 15.6.6.
#[test]
fn another_major_version_is_not_supported_and_a_higher_minor_one_is_spoken_to_as_1_1() {
    let with = |version: &str| format!("PUT /like {version}\r\nHost: localhost\r\n\r\n");
    let all = |versions: &[&str], status: u16| {
        let requests: Vec<_> = versions.iter().map(|version| with(version)).collect();
        refused(&requests.iter().map(|request| (request.as_str(), status)).collect::<Vec<_>>());
    };
    all(&["HTTP/2.0", "HTTP/0.9", "HTTP/3.1"], 505);
    all(
        &["HTTP/1", "HTTP/1.", "HTTP/.1", "HTTP/1.10", "HTTP/11.1", "HTTP/a.b", "http/1.1", "HTTPS/1.1", "HTTP-1.1"],
        400,
    );
    refused(&[("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505)]);
    answered(&[
        ("GET /likes HTTP/1.2\r\nHost: localhost\r\n\r\n", 200),
        ("GET /likes HTTP/1.9\r\nHost: localhost\r\n\r\n", 200),
    ]);
}

// RFC 9110 sections 9.1 and 15.5.6.
#[test]
fn an_unknown_method_is_501_and_one_that_is_not_allowed_is_405_and_says_what_is() {
    let site = Site::new(|_| {});
    let mut peer = site.connect();
    for (method, path, status, allow) in [
        ("BREW", "/likes", 501, None),
        ("get", "/likes", 501, None),
        ("PROPFIND", "/nothing", 501, None),
        ("DELETE", "/likes", 405, Some("GET, HEAD, OPTIONS")),
        ("PUT", "/likes", 405, Some("GET, HEAD, OPTIONS")),
        ("GET", "/like", 405, Some("PUT, POST, OPTIONS")),
        ("HEAD", "/like", 405, Some("PUT, POST, OPTIONS")),
        ("PATCH", "/like", 405, Some("PUT, POST, OPTIONS")),
        ("TRACE", "/", 405, Some("GET, HEAD, OPTIONS")),
        ("POST", "/index.html", 405, Some("GET, HEAD, OPTIONS")),
        ("POST", "/healthz", 405, Some("GET, HEAD, OPTIONS")),
        ("DELETE", "/metrics", 405, Some("GET, HEAD, OPTIONS")),
        ("PUT", "/liveLikes", 405, Some("GET, OPTIONS")),
        ("DELETE", "/nothing", 404, None),
    ] {
        peer.send(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let answer = if method == "HEAD" { peer.answer_to_head() } else { peer.answer() };
        assert_eq!((answer.status, answer.field("Allow")), (status, allow), "{method} {path}");
    }
    assert_eq!(site.likes.count(), 0);
}

#[test]
fn an_unknown_path_is_not_found() {
    answered(&[
        ("GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        ("PUT /likes/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        ("PUT /LIKE HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        ("PUT //like HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        ("PUT /%6cike HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        ("GET /../likes HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        ("GET /db.txt HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        ("GET /likes?_=%00 HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
    ]);
}

// RFC 9110 section 9.3.2.
#[test]
fn head_has_the_head_of_get_and_no_body() {
    let site = Site::new(|_| {});
    let mut peer = site.connect();
    for path in ["/", "/index.html", "/likes", "/healthz", "/liveLikes", "/nothing", "/like"] {
        let get = peer.ask(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        peer.send(format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let head = peer.answer_to_head();
        let without_date = |answer: &Answer| {
            answer.head.lines().filter(|line| !line.starts_with("Date: ")).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(without_date(&head), without_date(&get), "{path}");
        assert!(!get.body.is_empty());
    }
    for (fields, status) in [
        ("Host: a b\r\n\r\n", 400),
        ("Host: localhost\r\nExpect: more\r\n\r\n", 417),
        ("Host: localhost\r\nContent-Length: 99999999\r\n\r\n", 413),
        ("Host: localhost\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400),
        ("Host: localhost\n", 400),
    ] {
        let mut peer = site.connect();
        peer.send(format!("\r\nHEAD /likes HTTP/1.1\r\n{fields}"));
        let refused = peer.answer_to_head();
        assert_eq!(refused.status, status, "{fields:?}");
        peer.ends();
    }
}

// RFC 9112 section 6.3.
#[test]
fn a_content_length_that_is_not_one_number_is_a_bad_request() {
    refused_likes(&[
        ("Content-Length: \r\n\r\n", 400),
        ("Content-Length: +1\r\n\r\nx", 400),
        ("Content-Length: -1\r\n\r\n", 400),
        ("Content-Length: 0x1\r\n\r\nx", 400),
        ("Content-Length: 1a\r\n\r\nx", 400),
        ("Content-Length: 1.0\r\n\r\nx", 400),
        ("Content-Length: 1 1\r\n\r\nx", 400),
        ("Content-Length: 1_0\r\n\r\nx", 400),
        ("Content-Length: \u{b2}\r\n\r\nx", 400),
        ("Content-Length: 18446744073709551616\r\n\r\n", 400),
        ("Content-Length: 99999999999999999999999999999999999999\r\n\r\n", 400),
        ("Content-Length: 5, 5\r\n\r\nhello", 400),
        ("Content-Length: 5,6\r\n\r\nhello", 400),
        ("Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
        ("Content-Length: 0\r\nContent-Length: 44\r\n\r\nPUT /like HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        ("Content-Length: 5\r\ncontent-length: 6\r\n\r\nhello", 400),
    ]);
}

// RFC 9112 sections 6.1 and 6.3.
#[test]
fn a_transfer_encoding_that_could_be_read_in_two_ways_ends_the_connection() {
    refused_likes(&[
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked, identity\r\nContent-Length: 0\r\n\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: \r\n\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: identity\r\n\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: 'chunked\r\n\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked \u{b}\r\n\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501),
    ]);
    refused(&[("PUT /like HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400)]);
}

// RFC 9112 section 7.1.
#[test]
fn a_malformed_chunk_ends_the_connection() {
    let chunks = |body: &str| put(&format!("Transfer-Encoding: chunked\r\n\r\n{body}"));
    let bad: Vec<_> = [
        "\r\n\r\n",
        "x\r\n\r\n",
        "-1\r\nx\r\n0\r\n\r\n",
        "+1\r\nx\r\n0\r\n\r\n",
        "0x1\r\nx\r\n0\r\n\r\n",
        " 1\r\nx\r\n0\r\n\r\n",
        "1 \r\nx\r\n0\r\n\r\n",
        "1 x\r\nx\r\n0\r\n\r\n",
        "1\u{e9}\r\nx\r\n0\r\n\r\n",
        "00000000000000001\r\nx\r\n0\r\n\r\n",
        "1\nx\r\n0\r\n\r\n",
        "1\r\nx\n0\r\n\r\n",
        "1\r\nx0\r\n\r\n",
        "1\r\nxy\r\n0\r\n\r\n",
        "1\rx\r\n0\r\n\r\n",
        "1;a\rb\r\nx\r\n0\r\n\r\n",
        "1;a\nb\r\nx\r\n0\r\n\r\n",
        "1;a\0b\r\nx\r\n0\r\n\r\n",
        "1\u{c};a\r\nx\r\n0\r\n\r\n",
        // Extensions, section 7.1.1.
        "1;\r\nx\r\n0\r\n\r\n",
        "1; \r\nx\r\n0\r\n\r\n",
        "1;;a\r\nx\r\n0\r\n\r\n",
        "1;a;\r\nx\r\n0\r\n\r\n",
        "1;a \r\nx\r\n0\r\n\r\n",
        "1;a b\r\nx\r\n0\r\n\r\n",
        "1;=b\r\nx\r\n0\r\n\r\n",
        "1;a=\r\nx\r\n0\r\n\r\n",
        "1;a=b=c\r\nx\r\n0\r\n\r\n",
        "1;bad[=x\r\nx\r\n0\r\n\r\n",
        "1;a=b]\r\nx\r\n0\r\n\r\n",
        "1;a=\"b\r\nx\r\n0\r\n\r\n",
        "1;a=\"b\\\"\r\nx\r\n0\r\n\r\n",
        "1;a=\"b\"c\r\nx\r\n0\r\n\r\n",
        "1;a=\"\u{7f}\"\r\nx\r\n0\r\n\r\n",
        "1;\"a\"\r\nx\r\n0\r\n\r\n",
        "1;a\u{e9}\r\nx\r\n0\r\n\r\n",
        "0;\r\n\r\n",
        "1\r\nx\r\n0\r\n\n",
        "0\r\n folded: x\r\n\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\nno colon\r\n\r\n",
        "0\r\nX: a\0b\r\n\r\n",
        "0\r\nX: y\n\r\n",
    ]
    .into_iter()
    .map(chunks)
    .collect();
    refused(&bad.iter().map(|request| (request.as_str(), 400)).collect::<Vec<_>>());
    let site = Site::new(|_| {});
    for extensions in
        [";a", " ;\ta", ";a=b", ";a = b ; c", ";a=\"\"", ";a=\"b;c=\\\" \u{e9}\t\" ;d", ";!#$%&'*+-.^_`|~=1;a"]
    {
        let like = raw(&chunks(&format!("1{extensions}\r\nx\r\n0{extensions}\r\n\r\n")));
        assert_eq!(site.connect().ask(like).status, 200, "{extensions}");
    }
    let long: Vec<_> = ["10001\r\n", "FFFFFFFFFFFFFFFF\r\n", "ffff\r\n"].into_iter().map(chunks).collect();
    let (fits, long) = long.split_last().unwrap();
    refused(&long.iter().map(|request| (request.as_str(), 413)).collect::<Vec<_>>());
    refused(&[(&format!("{fits}{}\r\n2\r\n", "x".repeat(0xffff)), 413)]);
    refused(&[(&chunks(&format!("1;{}", "x".repeat(20_000))), 431)]);
    refused(&[(&chunks(&format!("0\r\n{}", "X: y\r\n".repeat(3_000))), 431)]);
}

// RFC 9110 section 15.5.14.
#[test]
fn a_body_that_is_too_long_is_refused_before_it_comes() {
    refused_likes(&[
        ("Content-Length: 65537\r\n\r\n", 413),
        ("Content-Length: 18446744073709551615\r\n\r\n", 413),
        ("Content-Length: 65537\r\n\r\nPUT /like HTTP/1.1\r\nHost: localhost\r\n\r\n", 413),
    ]);
    let site = Site::new(|_| {});
    let mut peer = site.connect();
    let body = "x".repeat(65536);
    assert_eq!(peer.ask(put(&format!("Content-Length: 65536\r\n\r\n{body}"))).body, r#"{"numLikes":1}"#);
    assert_eq!(peer.ask(put(&format!("Transfer-Encoding: chunked\r\n\r\n10000\r\n{body}\r\n0\r\n\r\n"))).status, 200);
    assert_eq!(site.likes.count(), 2);
}

#[test]
fn a_body_is_never_read_as_a_request() {
    let site = Site::new(|_| {});
    let hidden = String::from_utf8(PUT.to_vec()).unwrap();
    let length = hidden.len();
    let cases = [
        format!("GET /likes HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{hidden}"),
        format!(
            "GET /likes HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: Chunked\r\n\r\n{length:x}\r\n{hidden}\r\n0\r\n\r\n"
        ),
        format!("POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 000{length}\r\n\r\n{hidden}"),
        format!("DELETE /likes HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{hidden}"),
        format!("BREW / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{hidden}"),
        format!("GET /likes HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: {length}\r\n\r\n{hidden}"),
    ];
    however_split(
        &site,
        || site.connect(),
        &cases.map(String::into_bytes),
        some,
        |_, peer| {
            let answer = peer.answer();
            assert_ne!(answer.status, 400, "{answer:?}");
            peer.finish();
            peer.ends();
        },
    );
    assert_eq!(site.likes.count(), 0);
}

// RFC 9110 section 10.1.1.
#[test]
fn a_client_that_holds_its_body_back_is_answered_at_once() {
    let site = Site::new(|_| {});
    let expecting = |length: usize| put(&format!("Expect: 100-Continue\r\nContent-Length: {length}\r\n\r\n"));
    let mut peer = site.connect();
    let answer = peer.ask(expecting(15));
    assert_eq!((answer.status, answer.body.as_str(), answer.closes()), (200, r#"{"numLikes":1}"#, true));
    // The body that was on its way does not become a request, nor does it destroy the answer.
    peer.send(PUT);
    peer.ends();

    let answer = site.connect().ask(expecting(0));
    assert_eq!((answer.status, answer.closes()), (200, false));
    let answer = site.connect().ask(expecting(65537));
    assert_eq!((answer.status, answer.closes()), (413, true));
    assert_eq!(site.likes.count(), 2);
    refused_likes(&[("Expect: 200-maybe\r\n\r\n", 417), ("Expect: \r\n\r\n", 417)]);
    answered(&[("GET /likes HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\r\n", 200)]);
    // HTTP/1.0 knows no such field.
    for expected in ["100-continue", "200-maybe"] {
        let answer = site.connect().ask(format!("GET /likes HTTP/1.0\r\nExpect: {expected}\r\n\r\n"));
        assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"numLikes":2}"#));
    }
}

// RFC 9112 section 9.3.
#[test]
fn a_connection_is_kept_unless_a_request_says_otherwise() {
    answered(&[
        ("GET /likes HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        ("GET /likes HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, closed\r\n\r\n", 200),
    ]);
    let site = Site::new(|_| {});
    for request in [
        "GET /likes HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        "GET /likes HTTP/1.1\r\nHost: localhost\r\nConnection: x ,\tCLOSE\r\n\r\n",
        "GET /likes HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n",
        "GET /likes HTTP/1.0\r\n\r\n",
        "GET /likes HTTP/1.0\r\nHost: localhost\r\n\r\n",
        "GET /likes HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n",
    ] {
        let mut peer = site.connect();
        // What follows is not answered any more.
        peer.send([request.as_bytes(), PUT].concat());
        let answer = peer.answer();
        assert!(answer.status == 200 && answer.closes(), "{request:?} {answer:?}");
        peer.ends();
    }
    assert_eq!(site.likes.count(), 0);
}

// RFC 9112 section 9.3.2.
#[test]
fn pipelined_requests_are_answered_in_order() {
    let site = Site::new(|_| {});
    let requests = [
        PUT,
        COUNT,
        b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PUT /like HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc",
        b"DELETE /like HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\r\nPUT /like HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        COUNT,
    ]
    .concat();
    for size in [requests.len(), 100, 7, 1] {
        let before = site.likes.count();
        let mut peer = site.connect();
        requests.chunks(size).for_each(|part| peer.send(part));
        let answers: Vec<_> = (0..7).map(|_| peer.answer()).collect();
        let count = |likes: u64| format!("{{\"numLikes\":{}}}", before + likes);
        assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 200, 404, 200, 405, 200, 200]);
        assert_eq!(
            [0, 1, 3, 5, 6].map(|index| answers[index].body.clone()),
            [count(1), count(1), count(2), count(3), count(3)]
        );
    }
}

#[test]
fn a_bad_request_does_not_take_back_the_answers_before_it() {
    let site = Site::new(|_| {});
    let requests = [PUT, b"GET / HTTP/1.1\r\n\r\n", PUT].concat();
    however_split(
        &site,
        || site.connect(),
        &[requests],
        every,
        |_, peer| {
            assert_eq!(peer.answer().status, 200);
            let answer = peer.answer();
            assert!(answer.status == 400 && answer.closes(), "{answer:?}");
            peer.ends();
        },
    );
}

// RFC 9112 section 9.6.
#[test]
fn a_client_that_has_finished_sending_still_gets_its_answers() {
    let site = Site::new(|_| {});
    let mut peer = site.connect();
    peer.send([PUT, COUNT, PUT].concat());
    peer.finish();
    let bodies = [peer.answer().body, peer.answer().body, peer.answer().body];
    assert_eq!(bodies, [r#"{"numLikes":1}"#, r#"{"numLikes":1}"#, r#"{"numLikes":2}"#]);
    peer.ends();
}

#[test]
fn a_request_that_breaks_off_is_neither_counted_nor_answered() {
    let site = Site::new(|_| {});
    let body = raw(&put("Content-Length: 15\r\n\r\n{\"type\":\"like\"}"));
    let chunks = raw(&put("Transfer-Encoding: chunked\r\n\r\nf\r\n{\"type\":\"like\"}\r\n0\r\n\r\n"));
    for request in [PUT.to_vec(), body, chunks] {
        let mut peers: Vec<_> = (0..request.len())
            .map(|at| {
                let mut peer = site.connect();
                peer.send(&request[..at]);
                peer.finish();
                peer
            })
            .collect();
        peers.iter_mut().for_each(Peer::ends);
    }
    assert_eq!(site.likes.count(), 0);
}

// RFC 9112 section 9.6.
#[test]
fn the_answer_to_a_bad_request_arrives_although_the_client_goes_on_sending() {
    let site = Site::new(|_| {});
    for request in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"PUT /like HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\n",
        b"PUT /like HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    ] {
        let mut peer = site.connect();
        peer.send(request);
        for _ in 0..50 {
            peer.send([b'x'; 4000]);
        }
        assert!(peer.answer().closes());
        peer.ends();
    }
}

// RFC 9110 sections 6.6.1 and 8.6.
#[test]
fn every_answer_has_a_date_a_type_and_an_end() {
    let site = Site::new(|_| {});
    let mut peer = site.connect();
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/likes", "application/json"),
        ("/healthz", "text/plain; charset=utf-8"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
        ("/liveLikes", "text/plain; charset=utf-8"),
        ("/nothing", "text/plain; charset=utf-8"),
    ] {
        let answer = peer.ask(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(answer.field("Content-Type"), Some(kind), "{path}");
        assert_eq!(answer.field("X-Content-Type-Options"), Some("nosniff"), "{path}");
        let date = answer.field("Date").unwrap();
        assert!(date.len() == 29 && date.ends_with(" GMT"), "{date}");
    }
    let tag = peer.ask("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").field("ETag").unwrap().to_owned();
    let answer = peer.ask(format!("GET / HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: {tag}\r\n\r\n"));
    assert_eq!((answer.status, answer.field("Content-Length"), answer.field("Content-Type")), (304, None, None));
    let answer = peer.ask("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!((answer.status, answer.field("Content-Length")), (204, None));
    assert_eq!(peer.ask(COUNT).field("Cache-Control"), Some("no-store"));
}

// RFC 9110 section 7.8.
#[test]
fn an_upgrade_that_is_not_offered_is_ignored_but_for_the_end_of_the_connection() {
    let site = Site::new(|_| {});
    for (method, path, version, status) in [
        ("GET", "/likes", "HTTP/1.1", 200),
        ("GET", "/likes", "HTTP/1.0", 200),
        ("GET", "/", "HTTP/1.1", 200),
        ("GET", "/liveLikes", "HTTP/1.1", 426),
        ("GET", "http://localhost/nothing", "HTTP/1.1", 404),
    ] {
        let mut peer = site.connect();
        let start = format!("{method} {path} {version}\r\nHost: localhost\r\n");
        peer.send([format!("{start}Upgrade: h2c\r\nConnection: Upgrade\r\n\r\n").as_bytes(), PUT].concat());
        let answer = peer.answer();
        assert_eq!((answer.status, answer.closes()), (status, true), "{answer:?}");
        peer.ends();
    }
    assert_eq!(site.likes.count(), 0);
}

// RFC 9110 section 14.2.
#[test]
fn a_range_and_other_conditions_are_ignored() {
    answered(&[
        ("GET / HTTP/1.1\r\nHost: localhost\r\nRange: bytes=0-1\r\n\r\n", 200),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nRange: bytes=9999999-\r\n\r\n", 200),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n", 200),
        ("GET /likes HTTP/1.1\r\nHost: localhost\r\nIf-Match: \"x\"\r\n\r\n", 200),
    ]);
}

// RFC 9110 section 15.5.9.
#[test]
fn a_request_that_is_not_complete_in_time_is_answered_408() {
    let time = Duration::from_secs(1);
    let site = Site::new(|limits| limits.request_time = time);
    let whole = put("Content-Length: 15\r\n\r\n{\"type\":\"like\"}");
    let mut peers: Vec<_> =
        (1..whole.len()).map(|at| Peer::prompt(site.addr, &whole.as_bytes()[..at], time).1).collect();
    for peer in &mut peers {
        let answer = peer.answer();
        assert!(answer.status == 408 && answer.closes(), "{answer:?}");
        says_why(&answer);
        peer.ends();
    }
    assert_eq!(site.likes.count(), 0);
}

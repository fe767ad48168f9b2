//! What goes over the wire, row by row: the contract that pages are written against.

#[path = "support/client.rs"]
mod client;
#[path = "support/running.rs"]
mod running;
#[path = "support/scripted.rs"]
mod scripted;

use base64::{Engine, engine::general_purpose::STANDARD};
use client::{Answer, Client, ask, connect, get, handshake, reset};
use live_likes::{Page, Server};
use running::{Folder, Running, eventually};
use scripted::{Ending, scripted};
use sha1::{Digest, Sha1};
use std::{
    io::{Read, Write},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};
use tungstenite::Message;

#[track_caller]
fn assert_error(answer: &Answer, status: u16, told: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.field("Content-Type"), Some("text/plain; charset=utf-8"));
    assert!(answer.body.contains(told), "{:?} should contain {told:?}", answer.body);
    assert!(answer.body.ends_with('\n') && answer.body.lines().count() == 1, "one line: {:?}", answer.body);
}

// --- the page ---

#[test]
fn the_page_is_served_at_both_of_its_paths_with_the_count_in_it() {
    let server = Running::with_count(16);
    let page = get(server.addr, "/");
    assert_eq!(page.status, 200);
    assert_eq!(page.field("Content-Type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.field("Content-Length"), Some(page.body.len().to_string().as_str()));
    assert_eq!(page.field("Cache-Control"), Some("no-cache"));
    assert!(page.body.contains("<!--likes-->16<!--/likes-->"));
    let other = get(server.addr, "/index.html");
    assert_eq!((other.head(), other.body), (page.head(), page.body));
}

#[test]
fn the_page_s_entity_tag_is_the_sha1_of_its_bytes_and_changes_with_the_count() {
    let server = Running::with_count(16);
    let page = get(server.addr, "/");
    let tag = page.field("ETag").unwrap();
    assert_eq!(tag, format!("\"{}\"", STANDARD.encode(Sha1::digest(&page.body))));

    let known = ask(server.addr, "GET", "/", &[("If-None-Match", tag)]);
    assert_eq!((known.status, known.body.as_str()), (304, ""));
    assert_eq!((known.field("ETag"), known.field("Cache-Control")), (Some(tag), Some("no-cache")));
    assert_eq!(known.field("Content-Length"), None);
    assert_eq!(ask(server.addr, "HEAD", "/index.html", &[("If-None-Match", tag)]).status, 304);
    assert_eq!(ask(server.addr, "GET", "/", &[("If-None-Match", "\"other\"")]).status, 200);

    server.likes.like().unwrap();
    let changed = ask(server.addr, "GET", "/", &[("If-None-Match", tag)]);
    assert_eq!(changed.status, 200);
    assert!(changed.body.contains("<!--likes-->17<!--/likes-->"));
}

#[test]
fn the_built_in_page_lets_in_no_script_but_its_own() {
    let server = Running::with_count(16);
    let page = get(server.addr, "/");
    let policy = page.field("Content-Security-Policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
    assert!(policy.contains("connect-src 'self'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.field("X-Content-Type-Options"), Some("nosniff"));
    assert_eq!(page.field("X-Frame-Options"), Some("SAMEORIGIN"));
    assert_eq!(page.field("Referrer-Policy"), Some("same-origin"));
}

#[test]
fn the_module_is_a_script_that_pages_of_any_origin_may_load() {
    let server = Running::with_count(16);
    let module = get(server.addr, "/live-likes.js");
    assert_eq!((module.status, module.field("Content-Type")), (200, Some("text/javascript; charset=utf-8")));
    assert_eq!(module.field("Cross-Origin-Resource-Policy"), Some("cross-origin"));
    assert_eq!(module.field("Access-Control-Allow-Origin"), Some("*"), "a module script is fetched by CORS");
    assert_eq!(module.field("Cache-Control"), Some("no-cache"));
    let exports = module.body.rsplit_once("export{").unwrap().1;
    assert!(exports.contains(" as connect") && exports.contains(" as LiveLikes"), "{exports}");
    let tag = module.field("ETag").unwrap();
    assert_eq!(tag, format!("\"{}\"", STANDARD.encode(Sha1::digest(&module.body))));
    let known = ask(server.addr, "GET", "/live-likes.js", &[("If-None-Match", tag)]);
    assert_eq!((known.status, known.body.as_str(), known.field("ETag")), (304, "", Some(tag)));
}

#[test]
fn a_page_of_the_user_s_is_served_byte_for_byte_and_without_a_policy() {
    let html = "\u{feff}<!doctype html>\r\n<p onclick=like()>Zwitter \u{2764}\n\n<script>like = () => 0</script>";
    let server = Running::with(16, |server| server.page(Page::new(html)));
    let page = get(server.addr, "/");
    assert_eq!((page.status, page.body.as_str()), (200, html));
    assert_eq!(page.field("Content-Security-Policy"), None);
    assert_eq!(page.field("ETag").unwrap(), format!("\"{}\"", STANDARD.encode(Sha1::digest(html))));
    server.likes.like().unwrap();
    assert_eq!(get(server.addr, "/").body, html);
}

// --- the count and the likes over HTTP ---

#[test]
fn the_count_is_json() {
    let server = Running::with_count(16);
    let likes = get(server.addr, "/likes");
    assert_eq!((likes.status, likes.body.as_str()), (200, r#"{"numLikes":16}"#));
    assert_eq!(likes.field("Content-Type"), Some("application/json"));
    assert_eq!(likes.field("Cache-Control"), Some("no-store"));
    assert_eq!(get(server.addr, "/likes?_=1764078512385").body, likes.body);
}

#[test]
fn a_like_over_http_is_answered_once_it_is_saved_and_shown_to_clients() {
    let server = Running::with_count(16);
    let mut client = Client::new(server.addr);
    assert_eq!(client.count(), 16);
    for (method, count) in [("PUT", 17), ("POST", 18)] {
        let liked = ask(server.addr, method, "/like", &[]);
        assert_eq!(server.folder.saved(), count);
        assert_eq!((liked.status, liked.body.clone()), (200, format!("{{\"numLikes\":{count}}}")));
        assert_eq!(liked.field("Content-Type"), Some("application/json"));
        assert_eq!(liked.field("Cache-Control"), Some("no-store"));
        assert_eq!(client.count(), count);
    }
}

#[test]
fn the_body_of_a_like_does_not_matter() {
    let server = Running::with_count(16);
    for (fields, body) in [
        ("Content-Length: 0", ""),
        ("Content-Length: 15\r\nContent-Type: application/json", r#"{"type":"like"}"#),
        ("Transfer-Encoding: chunked", "3\r\nabc\r\n0\r\n\r\n"),
    ] {
        let before = server.likes.count();
        let request =
            format!("PUT /like HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{fields}\r\n\r\n{body}", server.addr);
        let answer = String::from_utf8(client::exchange(server.addr, request.as_bytes())).unwrap();
        assert!(answer.ends_with(&format!("\r\n\r\n{{\"numLikes\":{}}}", before + 1)), "{answer}");
    }
}

#[test]
fn nobody_is_told_of_a_like_before_it_is_saved() {
    let (likes, script) = scripted(0);
    let server = Running::serve(Folder::new(), likes, |server| server);
    let addr = server.addr;
    let mut client = Client::new(addr);
    assert_eq!(client.count(), 0);

    let liker = thread::spawn(move || ask(addr, "PUT", "/like", &[]));
    assert_eq!(script.save(), 1);
    // The save is under way. Whatever would be sent before it is done would come before the pong.
    client.socket.send(Message::Ping("anything?".into())).unwrap();
    assert_eq!(client.socket.read().unwrap(), Message::Pong("anything?".into()));
    assert_eq!(get(addr, "/likes").body, r#"{"numLikes":0}"#);
    assert!(!liker.is_finished());

    script.end(Ending::Saved);
    assert_eq!(liker.join().unwrap().body, r#"{"numLikes":1}"#);
    assert_eq!(client.count(), 1);
}

#[test]
fn while_likes_cannot_be_saved_everyone_is_told_so_and_none_is_lost_or_counted_twice() {
    let (likes, script) = scripted(0);
    let server = Running::serve(Folder::new(), likes, |server| server);
    let addr = server.addr;
    let (mut early, mut late) = (Client::new(addr), Client::new(addr));
    assert_eq!((early.count(), late.count()), (0, 0));
    assert_eq!(get(addr, "/healthz").status, 200);

    // One like is taken, then one over HTTP while the first is being saved. Both saves fail as one.
    early.like();
    assert_eq!(script.save(), 1);
    let liker = thread::spawn(move || ask(addr, "PUT", "/like", &[]));
    eventually("the second like waits for its save", || get(addr, "/metrics").sample("connections") >= 4.0);
    script.end(Ending::NotSaved);
    let refused = liker.join().unwrap();
    assert_error(&refused, 503, "saved");
    assert!(refused.field("Retry-After").is_some());

    let sick = get(addr, "/healthz");
    // The reason may name files of the server's, which are nobody's business.
    assert_eq!((sick.status, sick.body.as_str()), (503, "likes cannot be saved just now; try again later\n"));
    assert!(sick.field("Retry-After").is_some());
    assert_error(&ask(addr, "POST", "/like", &[]), 503, "cannot be saved just now");
    late.like();
    let (code, reason) = late.closed();
    assert_eq!(code, 1013);
    assert!(reason.contains("cannot be saved"), "{reason}");

    // The like that was taken is tried again until it is saved, and then shown; the refused ones never count.
    assert_eq!(script.save(), 1);
    script.end(Ending::NotSaved);
    assert_eq!(script.save(), 1);
    assert_eq!(get(addr, "/likes").body, r#"{"numLikes":0}"#);
    script.end(Ending::Saved);
    assert_eq!(early.count(), 1);
    eventually("it is well again", || get(addr, "/healthz").status == 200);
    let metrics = get(addr, "/metrics");
    assert_eq!(metrics.sample("saves_failed_total"), 2.0);
    assert_eq!(metrics.sample("refused_total{reason=\"unavailable\"}"), 3.0);
    drop(script);
    assert_eq!(ask(addr, "PUT", "/like", &[]).body, r#"{"numLikes":2}"#);
}

// --- the WebSocket ---

#[test]
fn the_first_message_is_the_count_and_the_count_follows_each_like_as_bare_digits() {
    let server = Running::with_count(16);
    let mut stream = connect(server.addr);
    let request = format!(
        "GET /liveLikes HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        server.addr
    );
    stream.write_all(request.as_bytes()).unwrap();
    let head = client::read_head(&mut stream).to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    // The answer that RFC 6455 section 1.3 works out for this key.
    assert!(head.contains("\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
    assert!(!head.contains("sec-websocket-extensions") && !head.contains("sec-websocket-protocol"), "{head}");

    let mut frame = [0; 4];
    stream.read_exact(&mut frame).unwrap();
    assert_eq!(&frame, b"\x81\x0216", "one final text frame, not masked");
    // `{"type":"like"}`, under a mask of zeros.
    stream.write_all(b"\x81\x8f\0\0\0\0{\"type\":\"like\"}").unwrap();
    stream.read_exact(&mut frame).unwrap();
    assert_eq!(&frame, b"\x81\x0217");
}

#[test]
fn a_like_is_shown_to_the_one_who_sent_it_and_to_everyone_else() {
    let server = Running::with_count(16);
    let (mut one, mut other) = (Client::new(server.addr), Client::new(server.addr));
    assert_eq!((one.count(), other.count()), (16, 16));
    one.like();
    assert_eq!((one.count(), other.count()), (17, 17));
    other.like();
    assert_eq!((one.count(), other.count()), (18, 18));
    assert_eq!(server.folder.saved(), 18);
    assert_eq!(Client::new(server.addr).count(), 18);
}

#[test]
fn every_form_of_a_like_is_one_like() {
    let server = Running::with_count(16);
    let mut client = Client::new(server.addr);
    assert_eq!(client.count(), 16);
    for (likes, form) in [
        r#"{"type":"like"}"#,
        "like",
        " \t\r\n{ \"type\" :\n\"like\" } ",
        r#"{"id":7,"type":"like","more":[{"type":"dislike"},null,1.5e3]}"#,
        r#"{"type":"like","type":"like"}"#,
        r#"{"\u0074ype":"\u006cike"}"#,
    ]
    .into_iter()
    .enumerate()
    {
        client.say(form);
        assert_eq!(client.count(), 17 + likes as u64, "{form}");
    }
}

#[test]
fn a_like_in_several_frames_is_one_like() {
    let server = Running::with_count(16);
    let mut stream = connect(server.addr);
    let mut client = Client::over(stream.try_clone().unwrap(), None);
    assert_eq!(client.count(), 16);
    stream.write_all(b"\x01\x82\0\0\0\0li\x89\x80\0\0\0\0\x80\x82\0\0\0\0ke").unwrap();
    assert_eq!(client.count(), 17);
}

#[test]
fn anything_else_is_answered_by_1008_and_a_reason_and_counts_nothing() {
    let server = Running::with_count(16);
    let long = format!(r#"{{"type":"{}"}}"#, "like".repeat(500));
    for text in [
        "",
        "16",
        "Like",
        "like!",
        "\"like\"",
        "[\"like\"]",
        "{}",
        r#"{"type":"dislike"}"#,
        r#"{"type":"like"}}"#,
        r#"{"type":"like""#,
        r#"{"type":["like"]}"#,
        r#"{"kind":{"type":"like"}}"#,
        r#"{'type':'like'}"#,
        long.as_str(),
    ] {
        let mut client = Client::new(server.addr);
        assert_eq!(client.count(), 16);
        client.say(text);
        assert_eq!(client.closed(), (1008, r#"expected {"type":"like"}"#.to_owned()), "{text}");
    }
    assert_eq!(get(server.addr, "/metrics").sample("refused_total{reason=\"bad_message\"}"), 14.0);
    assert_eq!((server.likes.count(), server.folder.saved()), (16, 16));
}

#[test]
fn a_binary_message_is_answered_by_1003_and_counts_nothing() {
    let server = Running::with_count(16);
    for bytes in [&b""[..], b"like", br#"{"type":"like"}"#] {
        let mut client = Client::new(server.addr);
        assert_eq!(client.count(), 16);
        client.socket.send(Message::binary(bytes)).unwrap();
        assert_eq!(client.closed(), (1003, r#"expected the text {"type":"like"}"#.to_owned()));
    }
    assert_eq!((server.likes.count(), server.folder.saved()), (16, 16));
}

#[test]
fn what_comes_after_a_mistake_is_no_like() {
    let server = Running::with_count(16);
    let mut client = Client::new(server.addr);
    client.socket.write(Message::text("dislike")).unwrap();
    client.like_times(10);
    assert_eq!(client.closed().0, 1008);
    assert_eq!(server.likes.count(), 16);
}

#[test]
fn a_client_that_closes_is_answered_with_its_own_code() {
    let server = Running::with_count(16);
    for code in [1000, 1001, 4321] {
        let mut client = Client::new(server.addr);
        let frame = tungstenite::protocol::CloseFrame { code: code.into(), reason: "bye".into() };
        client.socket.close(Some(frame)).unwrap();
        assert_eq!(client.closed(), (code, String::new()));
    }
}

#[test]
fn a_plain_request_for_the_websocket_is_told_to_upgrade() {
    let server = Running::with_count(16);
    let answer = get(server.addr, "/liveLikes");
    assert_error(&answer, 426, "Upgrade: websocket");
    assert_eq!(answer.field("Upgrade"), Some("websocket"));
    assert!(answer.fields.iter().any(|field| *field == ("Connection".to_owned(), "Upgrade".to_owned())));
}

#[test]
fn a_handshake_of_another_version_is_told_the_one_that_is_spoken() {
    let server = Running::with_count(16);
    let answer = handshake(server.addr, "/liveLikes", &[("Sec-WebSocket-Version", "8")]);
    assert_error(&answer, 426, "version 13");
    assert_eq!(answer.field("Sec-WebSocket-Version"), Some("13"));
}

// --- time ---

#[test]
fn a_client_that_takes_a_little_of_a_response_now_and_then_is_dropped_at_the_write_deadline() {
    const LENGTH: usize = 16 << 20; // more than the kernel holds for a connection
    let deadline = Duration::from_millis(300);
    let server = Running::with(16, |server| {
        let mut limits = running::patient();
        limits.write_deadline = deadline;
        server.limits(limits).page(Page::new(vec![b'x'; LENGTH]))
    });
    let mut slow = client::connect_narrow(server.addr);
    let start = Instant::now();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut taken = 0;
    while let Ok(length @ 1..) = slow.read(&mut [0; 32 * 1024]) {
        taken += length;
        thread::park_timeout(Duration::from_millis(1));
    }
    assert!(taken < LENGTH, "it had all the time that it wanted");
    assert!(start.elapsed() >= deadline, "{:?}", start.elapsed());
}

// --- methods and paths ---

#[test]
fn head_is_get_without_the_body() {
    let server = Running::with_count(16);
    for path in ["/", "/index.html", "/likes", "/healthz", "/metrics", "/liveLikes", "/nothing"] {
        let (got, head) = (get(server.addr, path), ask(server.addr, "HEAD", path, &[]));
        assert_eq!(head.head(), got.head(), "{path}");
        assert_eq!(head.body, "", "{path}");
        assert_eq!(head.field("Content-Length"), Some(got.body.len().to_string().as_str()), "{path}");
    }
}

#[test]
fn another_method_on_a_known_path_is_told_the_ones_allowed() {
    let server = Running::with_count(16);
    for (path, allowed, others) in [
        ("/", "GET, HEAD, OPTIONS", &["PUT", "POST", "DELETE", "PATCH"][..]),
        ("/index.html", "GET, HEAD, OPTIONS", &["PUT", "DELETE"]),
        ("/live-likes.js", "GET, HEAD, OPTIONS", &["PUT", "DELETE"]),
        ("/favicon.ico", "GET, HEAD, OPTIONS", &["PUT", "DELETE"]),
        ("/likes", "GET, HEAD, OPTIONS", &["PUT", "POST", "DELETE"]),
        ("/healthz", "GET, HEAD, OPTIONS", &["PUT", "DELETE"]),
        ("/metrics", "GET, HEAD, OPTIONS", &["POST"]),
        ("/like", "PUT, POST, OPTIONS", &["GET", "HEAD", "DELETE"]),
        ("/liveLikes", "GET, OPTIONS", &["PUT", "POST", "DELETE"]),
    ] {
        for method in others {
            let answer = ask(server.addr, method, path, &[]);
            assert_eq!((answer.status, answer.field("Allow")), (405, Some(allowed)), "{method} {path}");
            if *method != "HEAD" {
                assert_error(&answer, 405, "");
            }
        }
        // As a load balancer asks whether the server is there: HAProxy's `OPTIONS / HTTP/1.0` names no host.
        let answer = ask(server.addr, "OPTIONS", path, &[]);
        assert_eq!((answer.status, answer.field("Allow"), answer.body.as_str()), (204, Some(allowed), ""), "{path}");
        let old = client::exchange(server.addr, format!("OPTIONS {path} HTTP/1.0\r\n\r\n").as_bytes());
        assert!(old.starts_with(b"HTTP/1.1 204 "), "{path}: {}", old.escape_ascii());
    }
    assert_eq!(server.likes.count(), 16);
}

#[test]
fn an_unknown_path_is_not_found_whatever_the_method() {
    let server = Running::with_count(16);
    for path in ["/nothing", "/like/", "/likes/16", "/livelikes", "/index.htm", "//", "/%6Cike"] {
        for method in ["GET", "PUT", "POST", "DELETE", "OPTIONS"] {
            assert_error(&ask(server.addr, method, path, &[]), 404, "nothing here");
        }
    }
    assert_error(&handshake(server.addr, "/nothing", &[]), 404, "nothing here");
    assert_error(&ask(server.addr, "LIKE", "/like", &[]), 501, "method");
}

#[test]
fn options_of_the_whole_server_name_its_methods() {
    let server = Running::with_count(16);
    let answer = ask(server.addr, "OPTIONS", "*", &[]);
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    assert_eq!(answer.field("Allow"), Some("GET, HEAD, PUT, POST, OPTIONS"));
    assert_eq!(answer.field("Content-Length"), None);
}

#[test]
fn an_absolute_target_is_the_same_as_its_path() {
    let server = Running::with_count(16);
    let answer = get(server.addr, &format!("http://{}/likes", server.addr));
    assert_eq!(answer.body, r#"{"numLikes":16}"#);
}

// --- health and metrics ---

#[test]
fn the_server_says_that_it_is_well() {
    let server = Running::with_count(16);
    let health = get(server.addr, "/healthz");
    assert_eq!((health.status, health.body.as_str()), (200, "ok"));
    assert_eq!(health.field("Content-Type"), Some("text/plain; charset=utf-8"));
    assert_eq!(health.field("Cache-Control"), Some("no-store"));
}

#[test]
fn the_metrics_follow_what_happens() {
    let server = Running::with(16, |server| server.allow_host("likes.example"));
    let metrics = || get(server.addr, "/metrics");
    let fresh = metrics();
    assert_eq!(fresh.status, 200);
    assert_eq!(fresh.field("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for (name, value) in [("likes", 16.0), ("watching", 0.0), ("save_seconds_count", 0.0), ("frames_total", 0.0)] {
        assert_eq!(fresh.sample(name), value, "{name}");
    }
    assert!(fresh.sample("connections") >= 1.0, "the one that asks");

    let (mut one, mut other) = (Client::new(server.addr), Client::new(server.addr));
    assert_eq!((one.count(), other.count()), (16, 16));
    assert_eq!(metrics().sample("watching"), 2.0);
    for count in 17..=19 {
        one.like();
        assert_eq!((one.count(), other.count()), (count, count));
    }
    eventually("two first counts and three rounds for two have been counted", || {
        metrics().sample("frames_total") == 8.0
    });
    let after = metrics();
    for (name, value) in [
        ("likes", 19.0),
        ("watching", 2.0),
        ("behind", 0.0),
        ("dropped_total", 0.0),
        ("save_seconds_count", 3.0),
        ("saves_failed_total", 0.0),
        ("rounds_total", 3.0),
    ] {
        assert_eq!(after.sample(name), value, "{name}");
    }
    assert!(after.sample("save_seconds_sum") > 0.0);

    ask(server.addr, "GET", "/likes", &[("Host", "evil.example")]);
    ask(server.addr, "PUT", "/like", &[("Origin", "http://evil.example")]);
    ask(server.addr, "GET", "/likes", &[("Content-Length", "many")]);
    handshake(server.addr, "/liveLikes", &[("Sec-WebSocket-Key", "short")]);
    one.say("dislike");
    assert_eq!(one.closed().0, 1008);
    drop(one);
    // Who goes without a word is not refused, for nobody waits for an answer.
    let mut gone = connect(server.addr);
    gone.write_all(b"GET /likes HTTP/1.1\r\nHost: localhost\r\n\r\nGET /likes HT").unwrap();
    client::read_head(&mut gone);
    reset(gone);
    let mut gone = Client::new(server.addr);
    assert_eq!(gone.count(), 19);
    reset(gone.socket.get_ref().try_clone().unwrap());
    drop(gone);
    eventually("there is the other one, and the one that asks", || metrics().sample("connections") == 2.0);
    for (reason, times) in [
        ("host", 1.0),
        ("origin", 1.0),
        ("bad_request", 2.0),
        ("bad_message", 1.0),
        ("rate", 0.0),
        ("timeout", 0.0),
        ("connections", 0.0),
        ("unavailable", 0.0),
    ] {
        assert_eq!(metrics().sample(&format!("refused_total{{reason=\"{reason}\"}}")), times, "{reason}");
    }
    eventually("the one that was closed has gone", || metrics().sample("watching") == 1.0);
}

#[test]
fn the_metrics_are_in_the_text_format() {
    let server = Running::with_count(16);
    let metrics = get(server.addr, "/metrics").body;
    assert!(metrics.ends_with('\n'));
    let mut described = "";
    for line in metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            described = rest.split_once(' ').expect("a name and a text").0;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, described);
            assert!(["gauge", "counter", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with(described), "{line}");
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
}

// --- who may ask ---

fn with_names() -> Running {
    let set = |server: Server| {
        server.allow_host("likes.example").allow_origin("https://blog.example").allow_origin("friend.example")
    };
    Running::with(16, set)
}

#[test]
fn pages_of_the_server_s_own_and_of_allowed_origins_may_like_and_others_may_not() {
    let server = with_names();
    let port = server.addr.port();
    let own = format!("http://{}", server.addr);
    let localhost = format!("http://localhost:{port}");
    let elsewhere = format!("http://localhost:{}", port ^ 1);
    for (origin, allowed) in [
        (own.as_str(), true),
        (&localhost, true),
        ("https://blog.example", true),
        ("https://BLOG.example:443", true),
        ("http://friend.example:8080", true),
        ("http://blog.example", false),
        ("https://blog.example:8443", false),
        ("https://blog.example.evil.example", false),
        (&elsewhere, false),
        ("null", false),
        ("evil.example", false),
    ] {
        let before = server.likes.count();
        for method in ["PUT", "POST"] {
            let answer = ask(server.addr, method, "/like", &[("Origin", origin)]);
            if allowed {
                assert_eq!(answer.status, 200, "{origin}");
                assert_eq!(answer.field("Access-Control-Allow-Origin"), Some(origin));
            } else {
                assert_error(&answer, 403, "--allow-origin");
                assert_eq!(answer.field("Access-Control-Allow-Origin"), None, "{origin}");
            }
            assert_eq!(answer.field("Vary"), Some("Origin"));
        }
        assert_eq!(server.likes.count() - before, if allowed { 2 } else { 0 }, "{origin}");
        if !allowed {
            assert_error(&handshake(server.addr, "/liveLikes", &[("Origin", origin)]), 403, "--allow-origin");
        }
    }
    let mut client = Client::over(connect(server.addr), Some("https://blog.example"));
    assert_eq!(client.count(), server.likes.count());
}

#[test]
fn the_count_is_for_everyone_but_only_allowed_pages_may_read_it_across_origins() {
    let server = with_names();
    let allowed = ask(server.addr, "GET", "/likes", &[("Origin", "https://blog.example")]);
    assert_eq!(allowed.field("Access-Control-Allow-Origin"), Some("https://blog.example"));
    for fields in [&[("Origin", "https://evil.example")][..], &[]] {
        let other = ask(server.addr, "GET", "/likes", fields);
        assert_eq!(other.body, r#"{"numLikes":16}"#);
        assert_eq!(other.field("Access-Control-Allow-Origin"), None);
        assert_eq!(other.field("Vary"), Some("Accept, Origin"));
    }
}

#[test]
fn the_icon_is_an_image_that_browsers_may_keep() {
    let server = Running::with_count(16);
    let icon = ask(server.addr, "GET", "/favicon.ico", &[]);
    assert_eq!((icon.status, icon.field("Content-Type")), (200, Some("image/svg+xml")));
    assert_eq!(icon.field("Cache-Control"), Some("public, max-age=86400"));
    assert!(icon.body.starts_with("<svg ") && icon.body.len() < 300);
}

#[test]
fn a_browser_that_asks_beforehand_is_told_who_may_send_a_put() {
    let server = with_names();
    let asks = |path: &str, origin: &str| {
        let fields = [("Origin", origin), ("Access-Control-Request-Method", "PUT")];
        ask(server.addr, "OPTIONS", path, &fields)
    };
    for (path, allowed) in [("/like", "PUT, POST, OPTIONS"), ("/likes", "GET, HEAD, OPTIONS")] {
        let answer = asks(path, "https://blog.example");
        assert_eq!((answer.status, answer.field("Allow"), answer.body.as_str()), (204, Some(allowed), ""));
        assert_eq!(answer.field("Access-Control-Allow-Origin"), Some("https://blog.example"));
        let methods = answer.field("Access-Control-Allow-Methods").unwrap();
        assert!(methods.split(", ").any(|method| method == "PUT"), "{methods}");
        assert_eq!(answer.field("Access-Control-Allow-Headers"), Some("Content-Type"));
        assert!(answer.field("Access-Control-Max-Age").is_some());
        assert_eq!(answer.field("Vary"), Some("Origin"));

        let refused = asks(path, "https://evil.example");
        assert_error(&refused, 403, "--allow-origin");
        assert_eq!(refused.field("Access-Control-Allow-Origin"), None);
        // As a page asks for itself, whose WebSocket has failed.
        for (origin, status) in [("https://blog.example", 204), ("https://evil.example", 403)] {
            assert_eq!(ask(server.addr, "OPTIONS", path, &[("Origin", origin)]).status, status, "{origin}");
        }
    }
    assert_eq!(server.likes.count(), 16);
}

#[test]
fn on_a_loopback_address_a_name_that_was_not_told_is_refused_on_every_path_but_the_health_check() {
    let server = with_names();
    let port = server.addr.port();
    for host in
        [format!("localhost:{port}"), format!("[::1]:{port}"), "likes.example".into(), "likes.example:81".into()]
    {
        assert_eq!(ask(server.addr, "GET", "/likes", &[("Host", &host)]).status, 200, "{host}");
    }
    for path in ["/", "/likes", "/metrics", "/liveLikes", "/nothing"] {
        assert_error(&ask(server.addr, "GET", path, &[("Host", "evil.example")]), 403, "--allow-host");
    }
    // An address is a name like any other here, whosever it is.
    assert_error(&ask(server.addr, "GET", "/likes", &[("Host", "192.0.2.1")]), 403, "--allow-host");
    assert_error(&ask(server.addr, "PUT", "/like", &[("Host", "evil.example")]), 403, "--allow-host");
    assert_error(&handshake(server.addr, "/liveLikes", &[("Host", "evil.example")]), 403, "--allow-host");
    assert_eq!(server.likes.count(), 16);
}

#[test]
fn health_checks_work_under_any_host_and_without_one() {
    let server = with_names();
    for host in ["10.0.0.7:3000", "10.0.0.7", "[2001:db8::1]:3000", "evil.example", "localhost"] {
        for method in ["GET", "HEAD", "OPTIONS"] {
            let answer = ask(server.addr, method, "/healthz", &[("Host", host), ("User-Agent", "kube-probe/1.35")]);
            assert_eq!(answer.status, if method == "OPTIONS" { 204 } else { 200 }, "{method} {host}");
        }
    }
    for (request, status) in [
        ("GET /healthz HTTP/1.0\r\n\r\n", "200"),
        ("HEAD /healthz HTTP/1.0\r\n\r\n", "200"),
        ("OPTIONS / HTTP/1.0\r\n\r\n", "204"), // HAProxy
        ("GET /healthz HTTP/1.1\r\nHost: 10.0.0.7:3000\r\nConnection: close\r\n\r\n", "200"), // busybox wget
        ("HEAD / HTTP/1.1\r\nHost: likes.example\r\nConnection: close\r\n\r\n", "200"), // uptime monitors
    ] {
        let answer = String::from_utf8(client::exchange(server.addr, request.as_bytes())).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?} {answer}");
    }
}

#[test]
fn metrics_are_for_those_who_come_by_address_or_by_a_name_that_was_told() {
    let server = with_names();
    for (host, status) in [
        ("10.0.0.7:3000", 200),
        ("192.0.2.1", 200),
        ("[2001:db8::1]:9090", 200),
        ("likes.example", 200),
        ("localhost:3000", 200),
        // A name that was made to point here, by which a page could read them.
        ("evil.example", 403),
        ("1.2.3.4.evil.example", 403),
        ("[2001:db8::1].evil.example", 400),
    ] {
        assert_eq!(ask(server.addr, "GET", "/metrics", &[("Host", host)]).status, status, "{host}");
    }
}

#[test]
fn any_origin_may_be_allowed() {
    let server = Running::with(16, |server| server.allow_origin("*"));
    for (likes, origin) in ["https://blog.example", "http://localhost:1", "null"].into_iter().enumerate() {
        let answer = ask(server.addr, "PUT", "/like", &[("Origin", origin)]);
        assert_eq!(answer.body, format!("{{\"numLikes\":{}}}", 17 + likes));
        assert_eq!(answer.field("Access-Control-Allow-Origin"), Some("*"));
    }
    let mut client = Client::over(connect(server.addr), Some("https://blog.example"));
    assert_eq!(client.count(), 19);
}

#[test]
fn a_root_dot_makes_no_other_name() {
    let server = Running::with(16, |server| server.allow_host("likes.example.").allow_origin("https://blog.example."));
    for host in ["likes.example", "likes.example.", "likes.example.:81", "localhost.:3000"] {
        assert_eq!(ask(server.addr, "GET", "/likes", &[("Host", host)]).status, 200, "{host}");
    }
    for (host, origin) in [
        ("likes.example", "https://blog.example"),
        ("likes.example", "https://blog.example."),
        ("likes.example", "https://blog.example.:443"),
        ("likes.example.", "https://likes.example"),
        ("likes.example:81", "http://likes.example.:81"),
    ] {
        let answer = ask(server.addr, "PUT", "/like", &[("Host", host), ("Origin", origin)]);
        assert_eq!((answer.status, answer.field("Access-Control-Allow-Origin")), (200, Some(origin)), "{host}");
    }
}

#[test]
fn what_is_no_origin_of_a_page_is_refused_and_not_echoed() {
    let server = with_names();
    let port = server.addr.port();
    for origin in [
        format!("ws://localhost:{port}"),
        format!("wss://localhost:{port}"),
        format!("ftp://localhost:{port}"),
        format!("x://localhost:{port}"),
        format!("://localhost:{port}"),
        format!("http://localhost:{port}/"),
        format!("http://localhost:{port}, http://localhost:{port}"),
        format!("http://x@localhost:{port}"),
        "app://friend.example".to_owned(),
    ] {
        for (method, path, status) in [("PUT", "/like", 403), ("GET", "/likes", 200), ("GET", "/like", 405)] {
            let answer = ask(server.addr, method, path, &[("Origin", &origin)]);
            assert_eq!((answer.status, answer.field("Access-Control-Allow-Origin")), (status, None), "{origin}");
        }
        assert_eq!(handshake(server.addr, "/liveLikes", &[("Origin", &origin)]).status, 403, "{origin}");
    }
    let odd = ask(server.addr, "GET", "/likes", &[("Host", "localhost"), ("Origin", "http://a;b")]);
    assert_eq!(odd.field("Access-Control-Allow-Origin"), None);
    assert_eq!(server.likes.count(), 16);
}

/// What the library has logged in this process.
struct Heard(Mutex<Vec<String>>);

impl log::Log for Heard {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.lock().unwrap().push(format!("{}: {}", record.level(), record.args()));
    }

    fn flush(&self) {}
}

#[test]
fn a_refused_name_is_logged_once_with_the_flag_that_allows_it() {
    static HEARD: Heard = Heard(Mutex::new(Vec::new()));
    log::set_logger(&HEARD).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    let heard = |part: &str| -> Vec<String> {
        HEARD.0.lock().unwrap().iter().filter(|line| line.contains(part)).cloned().collect()
    };
    let server = with_names();
    let host = |host: &str| assert_eq!(ask(server.addr, "GET", "/likes", &[("Host", host)]).status, 403, "{host}");
    let origin = |origin: &str| {
        assert_eq!(ask(server.addr, "PUT", "/like", &[("Origin", origin)]).status, 403, "{origin}");
        assert_eq!(handshake(server.addr, "/liveLikes", &[("Origin", origin)]).status, 403, "{origin}");
    };
    for _ in 0..3 {
        for name in ["Once.example:81", "once.example.:81", "$(once)"] {
            host(name);
        }
        for name in ["http://once.example:5173", "scheme.once", "file://once", "http://once.example/<\"\u{fc}"] {
            origin(name);
        }
    }
    for (part, line) in [
        ("host once", "WARN: refused a request for the host once.example:81; --allow-host once.example:81 allows it"),
        ("host `$", "WARN: refused a request for the host `$(once)`, which is no name"),
        (
            "once.example:5173",
            "WARN: refused a page of the origin http://once.example:5173; --allow-origin http://once.example:5173 allows it",
        ),
        (
            "file://once",
            "WARN: refused a page of the origin `file://once`; only --allow-origin '*', for any origin, allows it",
        ),
        (
            "once.example/<",
            "WARN: refused a page of the origin `http://once.example/<\\\"\\xc3\\xbc`; only --allow-origin '*', for any \
             origin, allows it",
        ),
    ] {
        assert_eq!(heard(part), [line]);
    }
    // Whoever asks can make up names: the first hundred are logged, and of a long one the start.
    host(&format!("long{}.example", "x".repeat(10_000)));
    assert!(heard("host `longxxx")[0].len() < 1000);
    for number in 0..200 {
        host(&format!("{number}.made-up.example"));
    }
    assert_eq!(heard(".made-up.example").len(), 100 - 7);
}

//! Posts and visitors over HTTP, and over WebSocket as the tutorial speaks it: bytes in, exact bytes out.

#[path = "support/running.rs"]
mod running;
#[path = "support/scripted.rs"]
mod scripted;
#[path = "support/wire.rs"]
mod wire;

use live_likes::{AllowedPosts, BatchId, Change, Count, Likes, Outcome, Post, Reader, Refused, Result, Server, Store};
use running::{Folder, Running, patient};
use scripted::{Ending, memory_of_many};
use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering},
        mpsc::channel,
    },
    thread,
};
use wire::{Answer, Frame, HANDSHAKE, LIKE, Peer, text};

const ANN: &str = "ann-0123456789abcdef";
const BOB: &str = "bob_0123456789ABCDEF";

/// A server of many posts in memory.
fn serve(set: impl FnOnce(Server) -> Server) -> Running {
    serve_store(memory_of_many(|_| Ending::Saved), set)
}

fn serve_store(store: impl Store, set: impl FnOnce(Server) -> Server) -> Running {
    Running::serve(Folder::new(), Likes::with_store(store).unwrap(), set)
}

/// A request with these further fields, and this body.
fn request(method: &str, target: &str, fields: &str, body: &str) -> String {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{fields}{length}\r\n{body}")
}

fn ask(addr: SocketAddr, method: &str, target: &str) -> Answer {
    Peer::connect(addr).ask(request(method, target, "", ""))
}

/// The body of the answer to a request that is granted.
#[track_caller]
fn told(addr: SocketAddr, method: &str, target: &str) -> String {
    let answer = ask(addr, method, target);
    assert_eq!(answer.status, 200, "{method} {target}: {answer:?}");
    assert_eq!(answer.field("Content-Type"), Some("application/json"), "{answer:?}");
    assert_eq!(answer.field("Cache-Control"), Some("no-store"), "{answer:?}");
    answer.body
}

/// A request is refused with this status, and a line that says this.
#[track_caller]
fn refused(addr: SocketAddr, method: &str, target: &str, status: u16, says: &str) -> Answer {
    let answer = ask(addr, method, target);
    refused_as(&answer, status, says);
    answer
}

#[track_caller]
fn refused_as(answer: &Answer, status: u16, says: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.body.contains(says), "{answer:?} should say {says}");
    assert!(answer.body.ends_with('\n') && answer.body.lines().count() == 1, "{answer:?}");
    assert_eq!(answer.field("Content-Type"), Some("text/plain; charset=utf-8"), "{answer:?}");
    assert_eq!(answer.field("Cache-Control"), Some("no-store"), "{answer:?}");
}

/// A request for the WebSocket of this target.
fn handshake(target: &str) -> String {
    String::from_utf8(HANDSHAKE.to_vec()).unwrap().replace("/liveLikes", target)
}

fn watch(addr: SocketAddr, target: &str) -> Peer {
    let mut peer = Peer::connect(addr);
    assert_eq!(peer.ask(handshake(target)).status, 101);
    peer
}

/// What each row of the contract says.
fn every_row(addr: SocketAddr) {
    let says =
        |method: &str, target: &str, body: &str| assert_eq!(told(addr, method, target), body, "{method} {target}");
    says("GET", "/likes", r#"{"numLikes":0}"#);
    says("GET", "/likes?post=a", r#"{"numLikes":0,"version":0}"#);
    says("PUT", "/like?post=a", r#"{"numLikes":1,"version":1}"#);
    says("POST", "/like?post=a", r#"{"numLikes":2,"version":2}"#);
    says("GET", "/likes?post=a", r#"{"numLikes":2,"version":2}"#);
    let ann = format!("visitor={ann}", ann = ANN);
    says("GET", &format!("/likes?post=a&{ann}"), r#"{"numLikes":2,"liked":false,"version":2}"#);
    for method in ["PUT", "POST", "PUT"] {
        says(method, &format!("/like?post=a&{ann}"), r#"{"numLikes":3,"liked":true,"version":3}"#);
    }
    says("GET", &format!("/likes?{ann}&post=a&_=1"), r#"{"numLikes":3,"liked":true,"version":3}"#);
    says("PUT", &format!("/like?post=a&visitor={BOB}"), r#"{"numLikes":4,"liked":true,"version":4}"#);
    for _ in 0..2 {
        says("DELETE", &format!("/like?post=a&{ann}"), r#"{"numLikes":3,"liked":false,"version":5}"#);
    }
    says("GET", &format!("/likes?post=a&{ann}"), r#"{"numLikes":3,"liked":false,"version":5}"#);
    says("GET", &format!("/likes?post=a&visitor={BOB}"), r#"{"numLikes":3,"liked":true,"version":5}"#);
    says("PUT", "/like?post=b%22", r#"{"numLikes":1,"version":6}"#);
    says(
        "GET",
        "/likes?post=b%22&post=none&post=a&post=none",
        r#"{"posts":[{"post":"b\"","numLikes":1,"version":6},{"post":"none","numLikes":0,"version":0},{"post":"a","numLikes":3,"version":5}]}"#,
    );
    says("GET", "/likes?post=a&post=a", r#"{"posts":[{"post":"a","numLikes":3,"version":5}]}"#);
    says(
        "GET",
        &format!("/likes?post=a&post=b%22&visitor={BOB}"),
        r#"{"posts":[{"post":"a","numLikes":3,"liked":true,"version":5},{"post":"b\"","numLikes":1,"liked":false,"version":6}]}"#,
    );
    // The default counter is a counter like the others, but for its name.
    says("PUT", "/like", r#"{"numLikes":1}"#);
    says("POST", "/like?_=1", r#"{"numLikes":2}"#);
    says("PUT", &format!("/like?{ann}"), r#"{"numLikes":3,"liked":true,"version":9}"#);
    says("GET", &format!("/likes?{ann}"), r#"{"numLikes":3,"liked":true,"version":9}"#);
    says("DELETE", &format!("/like?{ann}"), r#"{"numLikes":2,"liked":false,"version":10}"#);
    says("GET", "/likes", r#"{"numLikes":2}"#);
    says("GET", "/likes?top=1", r#"{"posts":[{"post":"a","numLikes":3,"version":5}]}"#);
    says(
        "GET",
        "/likes?top=100",
        r#"{"posts":[{"post":"a","numLikes":3,"version":5},{"post":"b\"","numLikes":1,"version":6}]}"#,
    );
}

#[test]
fn every_row_of_the_contract_is_answered_to_the_byte() {
    let server = serve(|server| server);
    every_row(server.addr);
}

#[test]
#[cfg(feature = "sqlite")]
fn every_row_of_the_contract_is_answered_so_by_a_store_in_sqlite() {
    let folder = Folder::new();
    let posts = live_likes::Posts::open(folder.join("likes.db")).unwrap();
    let server = Running::serve(folder, posts.default_counter().unwrap(), |server| server);
    every_row(server.addr);
}

#[test]
fn several_posts_are_at_most_100() {
    let server = serve(|server| server);
    let target = |posts: usize| {
        let names: Vec<_> = (0..posts).map(|number| format!("post={number}")).collect();
        format!("/likes?{}", names.join("&"))
    };
    let body = told(server.addr, "GET", &(target(100) + "&post=7"));
    assert_eq!(body.matches("numLikes").count(), 100);
    refused(server.addr, "GET", &target(101), 400, "more than 100 posts");
    let long = format!("/likes?post={}", "x".repeat(8192));
    refused(server.addr, "GET", &long, 414, "8192");
}

#[test]
fn head_is_answered_by_the_same_head() {
    let server = serve(|server| server);
    for target in ["/likes?post=a", "/likes?post=a&post=b", "/likes?top=3", "/likes?post="] {
        let without_date = |answer: &Answer| {
            answer.head.lines().filter(|line| !line.starts_with("Date")).map(str::to_owned).collect::<Vec<_>>()
        };
        let get = ask(server.addr, "GET", target);
        let mut peer = Peer::connect(server.addr);
        peer.send(request("HEAD", target, "", ""));
        assert_eq!(without_date(&peer.answer_to_head()), without_date(&get), "{target}");
    }
}

#[test]
fn what_a_path_allows_depends_on_what_the_store_remembers() {
    let many = serve(|server| server);
    let one = Running::with_count(0);
    for (server, methods) in [(&many, "PUT, POST, DELETE, OPTIONS"), (&one, "PUT, POST, OPTIONS")] {
        let options = ask(server.addr, "OPTIONS", "/like?post=a");
        assert_eq!((options.status, options.field("Allow")), (204, Some(methods)));
        let patch = refused(server.addr, "PATCH", "/like?post=a", 405, methods);
        assert_eq!(patch.field("Allow"), Some(methods));
        assert_eq!(ask(server.addr, "DELETE", "/likes?post=a").field("Allow"), Some("GET, HEAD, OPTIONS"));
    }
    let fields = "Origin: http://localhost\r\nAccess-Control-Request-Method: DELETE\r\n";
    let preflight = Peer::connect(many.addr).ask(request("OPTIONS", "/like?post=a", fields, ""));
    let methods = preflight.field("Access-Control-Allow-Methods");
    assert_eq!((preflight.status, methods), (204, Some("GET, PUT, POST, DELETE")));
    // A page of another origin takes no like back.
    let fields = "Origin: http://evil.example\r\n";
    let target = format!("/like?post=a&visitor={ANN}");
    for method in ["PUT", "DELETE"] {
        let answer = Peer::connect(many.addr).ask(request(method, &target, fields, ""));
        refused_as(&answer, 403, "--allow-origin");
    }
    assert_eq!(told(many.addr, "GET", "/likes?post=a"), r#"{"numLikes":0,"version":0}"#);
}

#[test]
fn a_parameter_that_is_not_understood_is_refused_by_its_name_and_counts_nothing() {
    let memory = memory_of_many(|_| Ending::Saved);
    let kept = memory.reading();
    let server = serve_store(memory, |server| server);
    let long = format!("post={}", "x".repeat(201));
    let odd = format!("post={}%C3%B6", "x".repeat(199));
    let (short, longer) = (format!("visitor={}", "v".repeat(15)), format!("visitor={}", "v".repeat(65)));
    // On each of the three routes, but with a visitor only where one may stand.
    let everywhere = [
        ("post=", "`post`: the name of a post must not be empty"),
        ("post", "`post`: the name of a post must not be empty"),
        ("post=&post=a", "`post`"),
        (long.as_str(), "`post`: the name of a post has at most 200 bytes, and this one has 201"),
        (odd.as_str(), "at most 200 bytes, and this one has 201"),
        ("post=a%00", "U+0000"),
        ("post=%0A", "U+000A"),
        ("post=%7f", "U+007F"),
        ("post=%C2%85", "U+0085"),
        ("post=a%zz", "the parameter `post` has a broken percent-encoding"),
        ("post=a%", "the parameter `post` has a broken percent-encoding"),
        ("post=a%4", "the parameter `post` has a broken percent-encoding"),
        ("post=%+1", "the parameter `post` has a broken percent-encoding"),
        ("post=%ff", "the parameter `post` is not valid UTF-8"),
        ("post=%c3", "the parameter `post` is not valid UTF-8"),
        ("post=%ed%a0%80", "the parameter `post` is not valid UTF-8"), // a surrogate
        ("%ff=a", "the parameter `%ff` is not valid UTF-8"),
        ("po%st=a", "the parameter `po%st` has a broken percent-encoding"),
        ("Post=a", "unknown parameter `Post`"),
        ("post[]=a", "unknown parameter `post[]`"),
        ("id=a", "unknown parameter `id`"),
        ("post=a&a%0ab=c", "unknown parameter `a\\nb`"),
        ("=a", "unknown parameter ``"),
        ("post=a&_=%zz", "the parameter `_` has a broken percent-encoding"),
        ("post=a;visitor=b%00", "U+0000"),
    ];
    let likes = [
        ("post=a&post=b", "the parameter `post` stands twice"),
        ("post=a&post=a", "the parameter `post` stands twice"),
        ("post=a&top=1", "unknown parameter `top`"),
        ("post=a&seq=1", "a `visitor` is expected"),
    ];
    let visitors = [
        ("visitor=", "a visitor is named by 16 to 64 characters"),
        (short.as_str(), "a visitor is named by 16 to 64 characters"),
        (longer.as_str(), "a visitor is named by 16 to 64 characters"),
        ("visitor=0123456789abcde+", "a visitor is named by 16 to 64 characters"),
        ("visitor=0123456789abcde%C3%B6", "a visitor is named by 16 to 64 characters"),
        ("visitor=0123456789abcdef&visitor=0123456789abcdef", "the parameter `visitor` stands twice"),
    ];
    let seqs = ["-1", "", "1.0", "1e3", "%2B1", "0x1", "9007199254740992", "99999999999999999999", "1&seq=2"];
    let seqs = seqs.map(|seq| (format!("visitor={ANN}&seq={seq}"), "seq"));
    let reads = [
        ("top=0", "`top` is not a whole number from 1 to 100"),
        ("top=101", "`top` is not a whole number from 1 to 100"),
        ("top=", "`top` is not a whole number from 1 to 100"),
        ("top=%2B1", "`top` is not a whole number from 1 to 100"),
        ("top=1&top=1", "the parameter `top` stands twice"),
        ("top=1&post=a", "`top` is not expected together with"),
        ("top=1&visitor=0123456789abcdef", "`top` is not expected together with"),
        ("seq=1", "unknown parameter `seq`: only post, visitor, top may stand here"),
        ("back=/", "unknown parameter `back`"),
    ];
    let watches = [
        ("post=a&visitor=0123456789abcdef", "unknown parameter `visitor`: only post may stand here"),
        ("post=a&post=b", "the parameter `post` stands twice"),
        ("top=1", "unknown parameter `top`"),
    ];
    let mut checked = 0;
    let mut check = |method: &str, path: &str, cases: &mut dyn Iterator<Item = (&str, &str)>| {
        for (query, says) in cases {
            let target = format!("{path}?{query}");
            let asked = if path == "/liveLikes" { handshake(&target) } else { request(method, &target, "", "") };
            let answer = Peer::connect(server.addr).ask(asked);
            refused_as(&answer, 400, says);
            checked += 1;
        }
    };
    check("GET", "/likes", &mut everywhere.into_iter().chain(visitors).chain(reads));
    for method in ["PUT", "POST", "DELETE"] {
        let seqs = seqs.iter().map(|(query, says)| (query.as_str(), *says));
        let others = likes.into_iter().filter(|(query, _)| method != "DELETE" || !query.contains("seq"));
        check(method, "/like", &mut everywhere.into_iter().chain(visitors).chain(others).chain(seqs));
    }
    check("GET", "/liveLikes", &mut everywhere.into_iter().chain(watches));
    assert!(checked > 190, "{checked}");
    refused(server.addr, "DELETE", "/like?post=a", 400, "a `visitor` is expected, whose like is taken back");
    assert_eq!(kept.names(), [""], "nothing of all this is a like");
    let metrics = ask(server.addr, "GET", "/metrics").body;
    let counted = format!("live_likes_refused_total{{reason=\"bad_request\"}} {}", checked + 1);
    assert!(metrics.contains(&counted), "{metrics}");
}

#[test]
fn a_post_is_what_its_percent_encoding_says() {
    let server = serve(|server| server);
    let longest = "%C3%B6".repeat(100);
    for (query, name) in [
        ("post=a+b", "a b"),
        ("post=a%20b&", "a b"),
        ("&post=a%2Bb", "a+b"),
        ("p%6Fst=%2f%3F%26%3d%25", "/?&=%"),
        ("post=a=b=", "a=b="),
        ("post=__proto__", "__proto__"),
        ("post=constructor&_=", "constructor"),
        ("post=%E2%80%AE", "\u{202e}"), // a bidi control is no control character
        ("post=%C2%A0", "\u{a0}"),
        ("post=%F0%9F%91%8D", "\u{1f44d}"),
        ("post=e%CC%81", "e\u{301}"),
        ("post=%C3%A9", "\u{e9}"),
        ("post=a;b", "a;b"),
        (&format!("post={longest}"), &"\u{f6}".repeat(100)),
    ] {
        told(server.addr, "PUT", &format!("/like?{query}"));
        let body: serde_json::Value =
            serde_json::from_str(&told(server.addr, "GET", &format!("/likes?post=none&{query}"))).unwrap();
        assert_eq!(body["posts"][1]["post"], name);
        assert!(body["posts"][1]["numLikes"].as_u64() > Some(0), "{name}");
    }
    let body: serde_json::Value = serde_json::from_str(&told(server.addr, "GET", "/likes?top=100")).unwrap();
    let names: HashSet<_> = body["posts"].as_array().unwrap().iter().map(|post| post["post"].to_string()).collect();
    assert_eq!(names.len(), 13, "names that look alike are two posts, and two spellings of one are one: {names:?}");
}

#[test]
fn a_body_says_what_the_query_may_say_too() {
    let server = serve(|server| server);
    let (form, json) = ("Content-Type: application/x-www-form-urlencoded\r\n", "Content-Type: application/json\r\n");
    let mut likes = 0;
    let ann = format!("{{\"visitor\":\"{ANN}\",\"seq\":7}}");
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(30_000), "]".repeat(30_000));
    // Each is a like of a post of its own; what comes of it: a visitor's, anybody's, or why it is refused.
    let cases: &[(&str, &str, &str, &str)] = &[
        ("", form, &format!("visitor={ANN}&seq=7"), "visitor"),
        ("", form, &format!("visitor={ANN}&other=1&top=&back=x"), "visitor"),
        ("", json, &ann, "visitor"),
        ("", "Content-Type: Application/JSON; charset=UTF-8\r\n", &ann, "visitor"),
        ("", json, &format!(" {{\"type\":\"like\",\"visitor\":\"{ANN}\"}}\r\n"), "visitor"),
        ("", json, r#"{"v\u0069sitor":"0123456789abcdef"}"#, "visitor"),
        (&format!("&visitor={ANN}&seq=7"), json, &ann, "visitor"),
        (&format!("&visitor={ANN}"), json, r#"{"seq":7}"#, "visitor"),
        ("", json, r#"{"type":"like"}"#, "anybody"),
        ("", json, "{}", "anybody"),
        ("", json, "", "anybody"),
        ("", form, "", "anybody"),
        ("", form, "like=Like%21&csrf=x", "anybody"),
        ("", "", &ann, "anybody"), // of no type, it is ignored, as it was before there were visitors
        ("", "Content-Type: text/plain\r\n", "{", "anybody"),
        ("", "Content-Type: application/json-seq\r\n", "{", "anybody"),
        ("", "Content-Type: multipart/form-data; boundary=x\r\n", "--x", "anybody"),
        ("", json, "{", "the body is no JSON object"),
        ("", json, " ", "the body is no JSON object"),
        ("", json, "[]", "the body is no JSON object"),
        ("", json, r#""like""#, "the body is no JSON object"),
        ("", json, "{}{}", "the body is no JSON object"),
        ("", json, r#"{"visitor":"0123456789abcdef",}"#, "the body is no JSON object"),
        ("", json, &deep, "anybody"),
        ("", json, r#"{"visitor":7}"#, "`visitor` is not a string"),
        ("", json, r#"{"visitor":null}"#, "`visitor` is not a string"),
        ("", json, r#"{"visitor":"short"}"#, "a visitor is named by"),
        ("", json, r#"{"post":"b"}"#, "`post` stands in the body"),
        ("", json, r#"{"post":["b"]}"#, "`post` is not a string"),
        ("", json, r#"{"back":1}"#, "`back` is not a string"),
        ("", json, r#"{"visitor":"0123456789abcdef","seq":"7"}"#, "`seq` is not a whole number"),
        ("", json, r#"{"visitor":"0123456789abcdef","seq":-1}"#, "`seq` is not a whole number"),
        ("", json, r#"{"visitor":"0123456789abcdef","seq":7.0}"#, "`seq` is not a whole number"),
        ("", json, r#"{"visitor":"0123456789abcdef","seq":9007199254740992}"#, "`seq` is not a whole number"),
        ("", json, r#"{"seq":7}"#, "a `visitor` is expected"),
        ("", form, "post=b", "`post` stands in the body"),
        ("", form, "visitor=%zz", "the parameter `visitor` has a broken percent-encoding"),
        ("", form, "other=%ff", "the parameter `other` is not valid UTF-8"),
        ("", form, &format!("visitor={ANN}&visitor={ANN}"), "the parameter `visitor` stands twice"),
        (&format!("&visitor={BOB}"), json, &ann, "`visitor` in the body is not the same as in the query"),
        (&format!("&visitor={BOB}"), form, &format!("visitor={ANN}"), "`visitor` in the body is not the same"),
        (&format!("&visitor={ANN}&seq=8"), json, &ann, "`seq` in the body is not the same as in the query"),
        ("&back=/a", form, "back=/b", "`back` in the body is not the same as in the query"),
    ];
    for (number, (query, fields, body, expected)) in cases.iter().enumerate() {
        let target = format!("/like?post={number}{query}");
        let answer = Peer::connect(server.addr).ask(request("PUT", &target, fields, body));
        let counted = match *expected {
            "visitor" => r#"{"numLikes":1,"liked":true,"version":"#,
            "anybody" => r#"{"numLikes":1,"version":"#,
            _ => {
                refused_as(&answer, 400, expected);
                assert_eq!(told(server.addr, "GET", &format!("/likes?post={number}")), r#"{"numLikes":0,"version":0}"#);
                continue;
            }
        };
        likes += 1;
        assert_eq!((answer.status, answer.body), (200, format!("{counted}{likes}}}")), "{target} {fields}{body}");
    }
    // Whatever the method, and however it is framed.
    let unlike =
        Peer::connect(server.addr).ask(request("DELETE", "/like?post=2", json, &ann.replace("\"seq\":7", "\"seq\":8")));
    assert_eq!(unlike.body, format!(r#"{{"numLikes":0,"liked":false,"version":{}}}"#, likes + 1));
    let head = request("PUT", "/like?post=2", &format!("{json}Transfer-Encoding: chunked\r\n"), "");
    let (first, second) = r#"{"visitor":"ann-0123456789abcdef","seq":9}"#.split_at(20);
    let chunks = format!("{:x}\r\n{first}\r\n{:x};x\r\n{second}\r\n0\r\n\r\n", first.len(), second.len());
    let mut peer = Peer::connect(server.addr);
    let liked = format!(r#"{{"numLikes":1,"liked":true,"version":{}}}"#, likes + 2);
    assert_eq!(peer.ask(head + &chunks).body, liked);
    // A client that holds its body back is told to go on: what becomes of the like depends on it.
    let waits = format!("{json}Expect: 100-continue\r\nContent-Length: {}\r\n", ann.len());
    assert_eq!(peer.ask(request("PUT", "/like?post=2", &waits, "")[..].to_owned() + &ann).status, 200);
    peer.send(request("PUT", "/like?post=2", &waits, ""));
    let mut go_on = [0; 25];
    std::io::Read::read_exact(&mut peer.stream, &mut go_on).unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(peer.ask(&ann).body, liked, "its seq is not higher");
    // One that is too long is none.
    let long = format!("{json}Content-Length: 65537\r\n");
    assert_eq!(Peer::connect(server.addr).ask(request("PUT", "/like?post=2", &long, "")).status, 413);
}

#[test]
fn a_form_is_answered_by_the_page_that_it_came_from() {
    let server = serve(|server| server.allow_origin("https://blog.example"));
    let own = server.addr.to_string();
    let like = |accept: &str, origin: &str, referer: &str, back: &str| {
        let mut fields = format!("Content-Type: application/x-www-form-urlencoded\r\nAccept: {accept}\r\n");
        for (name, value) in [("Origin", origin), ("Referer", referer)] {
            if !value.is_empty() {
                fields += &format!("{name}: {value}\r\n");
            }
        }
        let encoded: String = back.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let body = format!("visitor={ANN}&back={encoded}");
        let asked = request("POST", "/like?post=a", &fields, &body).replace("Host: localhost", &format!("Host: {own}"));
        Peer::connect(server.addr).ask(asked)
    };
    let html = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let (blog, page) = ("https://blog.example", "https://blog.example/hello?a=b#c");
    for (origin, referer, back, location) in [
        (blog, "", page, page),
        (blog, "https://blog.example/other", page, page),
        (blog, page, "", page),
        (blog, "https://blog.example/", "/hello", "https://blog.example/"),
        (blog, "", blog, blog),
        (blog, "", "HTTPS://Blog.Example/x", "HTTPS://Blog.Example/x"),
        (blog, "", "https://blog.example/\u{f6} b%20c", "https://blog.example/%C3%B6%20b%20c"),
        (blog, "", "https://blog.example?a", "https://blog.example?a"),
        (blog, "", "", "/"),
        ("", page, page, "/"),
        // None of these is of the origin.
        (blog, "", "//evil.example", "/"),
        (blog, "", "https://evil.example/", "/"),
        (blog, "", "https://blog.example.evil.example/", "/"),
        (blog, "", "https://blog.example@evil.example/", "/"),
        (blog, "", "https://blog.example:x@evil.example/", "/"),
        (blog, "", "https://blog.example\\@evil.example/", "/"),
        (blog, "", "https://user@blog.example/", "/"),
        (blog, "", "https://blog.example:444/", "/"),
        (blog, "", "http://blog.example/", "/"),
        (blog, "", "javascript:alert(1)//https://blog.example/", "/"),
        (blog, "", "data:text/html,https://blog.example/", "/"),
        (blog, "", " https://blog.example/", "/"),
        (blog, "", "https://blog.example/\r\nSet-Cookie: a=b", "/"),
        (blog, "", "https://blog.exampl\u{f6}/", "/"),
        (blog, "https://evil.example/", "https://evil.example/", "/"),
        (blog, "javascript:alert(1)", "", "/"),
    ] {
        let answer = like(html, origin, referer, back);
        let told = (answer.status, answer.field("Location"), answer.body.as_str());
        assert_eq!(told, (303, Some(location), ""), "{origin} {referer} {back}");
        assert_eq!(answer.field("Cache-Control"), Some("no-store"));
    }
    // Of our own origin, `null` is none.
    let ours = format!("http://{own}");
    assert_eq!(like(html, &ours, "", &format!("{ours}/x")).field("Location"), Some(format!("{ours}/x").as_str()));
    refused_as(&like(html, "null", "null", "null"), 403, "--allow-origin");
    // What a script sends is answered in JSON, and an error is told.
    for accept in ["*/*", "application/json", "text/*", "text/htmlx"] {
        assert_eq!(like(accept, blog, "", page).body, r#"{"numLikes":1,"liked":true,"version":1}"#, "{accept}");
    }
    assert_eq!(like("a/b, Text/HTML;q=0.5", blog, "", page).status, 303);
    let fields = format!("Accept: {html}\r\n");
    let put = Peer::connect(server.addr).ask(request("PUT", "/like?post=a", &fields, ""));
    assert_eq!(put.status, 200, "no form sends PUT");
    let below = serve(|server| server.prefix("/counter"));
    let answer = Peer::connect(below.addr).ask(request("POST", "/counter/like?post=a", &fields, ""));
    assert_eq!((answer.status, answer.field("Location")), (303, Some("/counter/")));
    refused_as(&Peer::connect(server.addr).ask(request("POST", "/like?post=", &fields, "")), 400, "empty");
}

#[test]
fn a_visitor_counts_once_however_often_it_is_said() {
    let server = serve(|server| server);
    let barrier = Barrier::new(16);
    let target = |visitor: &str| format!("/like?post=a&visitor={visitor}");
    thread::scope(|scope| {
        for number in 0..16 {
            let barrier = &barrier;
            let (addr, method) = (server.addr, ["PUT", "POST"][number % 2]);
            scope.spawn(move || {
                barrier.wait();
                for visitor in [ANN, BOB, ANN] {
                    assert!(told(addr, method, &target(visitor)).contains(r#""liked":true"#));
                }
            });
        }
    });
    assert_eq!(told(server.addr, "GET", "/likes?post=a"), r#"{"numLikes":2,"version":2}"#);
    // Another post is another matter, and so is the default counter.
    assert_eq!(
        told(server.addr, "PUT", &format!("/like?post=b&visitor={ANN}")),
        r#"{"numLikes":1,"liked":true,"version":3}"#
    );
    assert_eq!(told(server.addr, "PUT", &format!("/like?visitor={ANN}")), r#"{"numLikes":1,"liked":true,"version":4}"#);
}

#[test]
#[cfg(feature = "sqlite")]
fn a_visitor_counts_once_over_restarts_and_the_highest_seq_holds() {
    let kept = Folder::new();
    let target = |method: &str, seq: u64| (method.to_owned(), format!("/like?post=a&visitor={ANN}&seq={seq}"));
    for (start, requests, body) in [
        (0, [target("PUT", 1), target("POST", 1)], r#"{"numLikes":1,"liked":true,"version":1}"#),
        (1, [target("PUT", 1), target("DELETE", 1)], r#"{"numLikes":1,"liked":true,"version":1}"#),
        (2, [target("DELETE", 5), target("PUT", 4)], r#"{"numLikes":0,"liked":false,"version":2}"#),
        (3, [target("PUT", 5), target("PUT", 2)], r#"{"numLikes":0,"liked":false,"version":2}"#),
        (4, [target("PUT", 6), target("DELETE", 3)], r#"{"numLikes":1,"liked":true,"version":3}"#),
    ] {
        let posts = live_likes::Posts::open(kept.join("likes.db")).unwrap();
        let likes = posts.default_counter().unwrap();
        let server = Running::serve(Folder::new(), likes.clone(), |server| server);
        for (method, target) in requests {
            assert_eq!(told(server.addr, &method, &target), body, "{method} {target} after start {start}");
        }
        drop(server);
        likes.close(running::PATIENCE).unwrap();
    }
}

#[test]
fn a_like_that_comes_late_does_not_land_after_the_unlike_that_followed_it() {
    let server = serve(|server| server);
    let says = |method: &str, visitor: &str, seq: &str, body: &str| {
        assert_eq!(told(server.addr, method, &format!("/like?post=a&visitor={visitor}{seq}")), body);
    };
    says("DELETE", ANN, "&seq=2", r#"{"numLikes":0,"liked":false,"version":0}"#);
    says("PUT", ANN, "&seq=1", r#"{"numLikes":0,"liked":false,"version":0}"#);
    says("PUT", BOB, "&seq=1", r#"{"numLikes":1,"liked":true,"version":1}"#);
    says("PUT", ANN, "&seq=3", r#"{"numLikes":2,"liked":true,"version":2}"#);
    says("DELETE", ANN, "&seq=3", r#"{"numLikes":2,"liked":true,"version":2}"#);
    says("DELETE", ANN, "", r#"{"numLikes":1,"liked":false,"version":3}"#);
    says("PUT", ANN, "&seq=9007199254740991", r#"{"numLikes":2,"liked":true,"version":4}"#);
}

#[test]
fn a_post_is_watched_and_liked_over_its_socket() {
    let server = serve(|server| server);
    told(server.addr, "PUT", "/like?post=a+b");
    let (mut peer, mut other) = (watch(server.addr, "/liveLikes?post=a%20b"), watch(server.addr, "/liveLikes"));
    assert_eq!(peer.frame(), Frame::text("1"));
    assert_eq!(other.frame(), Frame::text("0"));
    peer.send(text(LIKE));
    assert_eq!(peer.frame(), Frame::text("2"));
    let target = format!("/like?post=a+b&visitor={ANN}");
    assert_eq!(told(server.addr, "PUT", &target), r#"{"numLikes":3,"liked":true,"version":3}"#);
    assert_eq!(peer.frame(), Frame::text("3"));
    told(server.addr, "DELETE", &target);
    assert_eq!(peer.frame(), Frame::text("2"));
    // In JSON, messages name the posts.
    let json = |target: &str| {
        let version = "Sec-WebSocket-Version: 13\r\n";
        let asked = handshake(target).replace(version, &format!("{version}Sec-WebSocket-Protocol: live-likes\r\n"));
        Peer::connect(server.addr).ask(asked)
    };
    assert_eq!(json("/liveLikes?_=1").field("Sec-WebSocket-Protocol"), Some("live-likes"));
    refused_as(&json("/liveLikes?post=a"), 400, "unknown parameter `post`: none may stand here");
    other.send(text(LIKE));
    assert_eq!(other.frame(), Frame::text("1"), "the default counter is another");
    assert_eq!(told(server.addr, "GET", "/likes?post=a+b"), r#"{"numLikes":2,"version":4}"#);
    let watching = ask(server.addr, "GET", "/metrics").body;
    assert!(watching.contains("live_likes_watching 2\n"), "{watching}");
}

#[test]
fn a_text_file_has_one_counter_which_a_visitor_likes_once() {
    let server = Running::with_count(16);
    let many = "--db likes.db";
    for target in ["/likes?post=a", "/likes?post=a&post=b", "/likes?top=10", &format!("/likes?post=a&visitor={ANN}")] {
        refused(server.addr, "GET", target, 400, many);
    }
    for target in ["/like?post=a".to_owned(), format!("/like?post=a&visitor={ANN}")] {
        refused(server.addr, "PUT", &target, 400, many);
        refused(server.addr, "POST", &target, 400, many);
    }
    refused_as(&Peer::connect(server.addr).ask(handshake("/liveLikes?post=a")), 400, many);
    let target = format!("/like?visitor={ANN}");
    let answer = refused(server.addr, "DELETE", &target, 405, many);
    assert_eq!(answer.field("Allow"), Some("PUT, POST, OPTIONS"));
    for _ in 0..2 {
        assert_eq!(told(server.addr, "PUT", &target), r#"{"numLikes":17,"version":17}"#);
        assert_eq!(told(server.addr, "POST", &format!("{target}&seq=3")), r#"{"numLikes":17,"version":17}"#);
    }
    assert_eq!(told(server.addr, "GET", &format!("/likes?visitor={ANN}")), r#"{"numLikes":17,"version":17}"#);
    refused(server.addr, "GET", "/likes?visitor=short", 400, "a visitor is named by");
    assert_eq!(told(server.addr, "PUT", "/like"), r#"{"numLikes":18}"#);
    assert_eq!(told(server.addr, "GET", "/likes"), r#"{"numLikes":18}"#);
}

#[test]
fn only_posts_in_the_list_exist() {
    let memory = memory_of_many(|_| Ending::Saved);
    let kept = memory.reading();
    let allowed = AllowedPosts::new(["hello", "blog/*", "gone"]).unwrap();
    let server = serve_store(memory, |server| server.allow_posts(allowed.clone()));
    for target in ["/like?post=hello", "/like?post=blog/1", "/like?post=gone", "/like"] {
        told(server.addr, "PUT", target);
    }
    let mut peer = watch(server.addr, "/liveLikes?post=gone");
    assert_eq!(peer.frame(), Frame::text("1"));
    let ann = format!("/like?post=blog&visitor={ANN}&seq=1");
    for (method, target) in [
        ("GET", "/likes?post=hell"),
        ("GET", "/likes?post=hello&post=Hello"),
        ("PUT", "/like?post=blog"),
        ("POST", "/like?post=blog"),
        ("DELETE", &ann),
    ] {
        refused(server.addr, method, target, 404, "there is no such post");
    }
    refused_as(&Peer::connect(server.addr).ask(handshake("/liveLikes?post=blog")), 404, "there is no such post");
    assert_eq!(kept.names(), ["", "blog/1", "gone", "hello"]);

    allowed.replace(&AllowedPosts::new(["hello", "blog"]).unwrap());
    told(server.addr, "PUT", "/like?post=blog");
    refused(server.addr, "GET", "/likes?post=gone", 404, "there is no such post");
    let top = r#"{"posts":[{"post":"blog","numLikes":1,"version":5},{"post":"hello","numLikes":1,"version":1}]}"#;
    assert_eq!(told(server.addr, "GET", "/likes?top=10"), top);
    allowed.replace(&AllowedPosts::new(["hello"]).unwrap());
    let top = r#"{"posts":[{"post":"hello","numLikes":1,"version":1}]}"#;
    assert_eq!(told(server.addr, "GET", "/likes?top=1"), top, "the first of those in the list");
    // Who watches goes on to, but likes it no more.
    peer.send(text(LIKE));
    let closed = peer.closed();
    assert_eq!(closed.close_code(), 1008);
    assert!(closed.reason().contains("there is no such post"), "{closed:?}");
    let metrics = ask(server.addr, "GET", "/metrics").body;
    assert!(metrics.contains("live_likes_refused_total{reason=\"post\"} 8\n"), "{metrics}");
}

#[test]
fn an_address_is_the_first_to_like_as_many_posts_an_hour_as_the_limit_says() {
    let memory = memory_of_many(|_| Ending::Saved);
    let kept = memory.reading();
    let mut limits = patient();
    limits.new_posts_per_hour_and_address = 2;
    let allowed = AllowedPosts::new(["listed", "any*"]).unwrap();
    let server = serve_store(memory, |server| server.limits(limits).allow_posts(allowed));
    // Neither looking nor watching is liking.
    for number in 0..5 {
        told(server.addr, "GET", &format!("/likes?post=any{number}"));
        assert_eq!(watch(server.addr, &format!("/liveLikes?post=any{number}")).frame(), Frame::text("0"));
    }
    told(server.addr, "PUT", "/like?post=any0");
    told(server.addr, "DELETE", &format!("/like?post=any1&visitor={ANN}&seq=1"));
    for (method, target) in
        [("PUT", "/like?post=any2"), ("POST", "/like?post=any2"), ("PUT", &format!("/like?post=any3&visitor={ANN}"))]
    {
        let answer = refused(server.addr, method, target, 429, "an address may be the first to like 2 an hour");
        assert_eq!(answer.field("Retry-After"), Some("1800"));
    }
    let mut peer = watch(server.addr, "/liveLikes?post=any2");
    assert_eq!(peer.frame(), Frame::text("0"));
    peer.send(text(LIKE));
    assert_eq!(peer.closed().close_code(), 1008);
    // A post that there is, one that the list names, and the default counter are not new.
    for target in ["/like?post=any0", "/like?post=listed", "/like"] {
        told(server.addr, "PUT", target);
    }
    assert_eq!(kept.names(), ["", "any0", "any1", "listed"]);
}

#[test]
fn an_unlike_that_leaves_nothing_behind_is_not_held_against_the_address() {
    let mut limits = patient();
    limits.new_posts_per_hour_and_address = 1;
    let server = serve(|server| server.limits(limits));
    for _ in 0..3 {
        let told = told(server.addr, "DELETE", &format!("/like?post=a&visitor={ANN}"));
        assert_eq!(told, r#"{"numLikes":0,"liked":false,"version":0}"#);
    }
    told(server.addr, "PUT", "/like?post=b");
    refused(server.addr, "PUT", "/like?post=c", 429, "an address may be the first to like 1 an hour");
    told(server.addr, "DELETE", &format!("/like?post=c&visitor={ANN}"));
}

#[test]
fn a_client_of_bare_numbers_is_closed_with_what_the_store_does_not_take() {
    let refusal = |_| Ending::Each(Outcome::Refused(Refused::Posts));
    let server = serve_store(memory_of_many(refusal), |server| server);
    let mut peer = watch(server.addr, "/liveLikes?post=a");
    assert_eq!(peer.frame(), Frame::text("0"));
    peer.send(text(LIKE));
    let closed = peer.closed();
    assert_eq!((closed.close_code(), closed.reason()), (1008, "there is no room for a further post"));
}

#[test]
fn a_like_that_cannot_be_saved_is_not_held_against_the_address() {
    let mut limits = patient();
    limits.new_posts_per_hour_and_address = 2;
    let works = Arc::new(AtomicBool::new(false));
    let save = {
        let works = works.clone();
        move |_| if works.load(Ordering::Relaxed) { Ending::Saved } else { Ending::NotSaved }
    };
    let server = serve_store(memory_of_many(save), |server| server.limits(limits));
    // The first finds out; the others are refused before they are counted.
    for _ in 0..5 {
        let answer = refused(server.addr, "PUT", "/like?post=a", 503, "cannot be saved just now");
        assert_eq!(answer.field("Retry-After"), Some("2"));
    }
    works.store(true, Ordering::Relaxed);
    running::eventually("likes are taken again", || ask(server.addr, "PUT", "/like?post=a").status == 200);
}

#[test]
fn what_the_store_does_not_take_has_a_status_of_its_own() {
    let (endings, next) = channel();
    let memory = memory_of_many(move |_| next.recv().unwrap_or(Ending::Saved));
    let kept = memory.reading();
    let server = serve_store(memory, |server| server);
    for (refuses, status, says) in [
        (Refused::Posts, 507, "no room for a further post"),
        (Refused::Visitors, 507, "no room for a further visitor"),
        (Refused::Likes, 409, "the count is"),
        (Refused::Unlikes, 405, "this store cannot take a like back"),
    ] {
        endings.send(Ending::Each(Outcome::Refused(refuses))).unwrap();
        refused(server.addr, "PUT", &format!("/like?post=a&visitor={ANN}"), status, says);
    }
    // What files there are is nobody's business.
    let secret = "/srv/likes";
    kept.read_fails(Some(secret));
    for (method, target) in [("GET", "/likes?post=a"), ("GET", "/likes?top=1"), ("PUT", "/like?post=a")] {
        let answer = refused(server.addr, method, target, 503, "cannot be read just now");
        assert_eq!(answer.field("Retry-After"), Some("2"));
        assert!(!answer.body.contains(secret), "{answer:?}");
    }
    let answer = Peer::connect(server.addr).ask(handshake("/liveLikes?post=a"));
    refused_as(&answer, 503, "cannot be read just now");
    kept.read_fails(None);
    endings.send(Ending::NotSavedSince(secret)).unwrap();
    let answer = refused(server.addr, "PUT", &format!("/like?post=a&visitor={ANN}"), 503, "cannot be saved just now");
    assert_eq!(answer.field("Retry-After"), Some("2"));
    assert!(!answer.body.contains(secret), "{answer:?}");
}

#[test]
fn visitors_are_within_the_limits_of_likes_too() {
    let mut limits = patient();
    limits.likes_per_connection = Some(2);
    let server = serve(|server| server.limits(limits.clone()));
    let mut peer = Peer::connect(server.addr);
    let target = format!("/like?post=a&visitor={ANN}");
    assert_eq!(peer.ask(request("PUT", &target, "", "")).status, 200);
    assert_eq!(peer.ask(request("DELETE", &target, "", "")).status, 200);
    refused_as(&peer.ask(request("PUT", &target, "", "")), 429, "at most 2 per connection");

    (limits.likes_per_connection, limits.likes_per_second_and_address) = (None, Some(1));
    let server = serve(|server| server.limits(limits));
    let statuses: Vec<_> = (0..20).map(|_| ask(server.addr, "PUT", &target)).collect();
    let limited = statuses.iter().find(|answer| answer.status == 429).expect("one of them comes within the second");
    assert_eq!(limited.field("Retry-After"), Some("1"));
}

/// A store of many posts that remembers no visitors.
struct Forgetful<S>(S);

impl<S: Store> Store for Forgetful<S> {
    fn count(&mut self, post: &Post) -> Result<Count> {
        self.0.count(post)
    }

    fn apply(&mut self, batch: BatchId, changes: &[Change]) -> Result<Vec<Outcome>> {
        self.0.apply(batch, changes)
    }

    fn reader(&self) -> Option<Arc<dyn Reader>> {
        self.0.reader()
    }
}

#[test]
fn a_store_that_remembers_no_visitors_is_not_asked_to_take_a_like_back() {
    let (batch, batches) = channel();
    let save = move |likes| {
        let _ = batch.send(likes);
        Ending::Saved
    };
    let server = serve_store(Forgetful(memory_of_many(save)), |server| server);
    refused(server.addr, "DELETE", &format!("/like?post=a&visitor={ANN}"), 405, "cannot take a like back");
    assert!(batches.try_recv().is_err(), "it was not asked");
    assert_eq!(told(server.addr, "PUT", &format!("/like?post=a&visitor={ANN}")), r#"{"numLikes":1,"version":1}"#);
    assert_eq!(told(server.addr, "GET", &format!("/likes?post=a&visitor={ANN}")), r#"{"numLikes":1,"version":1}"#);
}

#[test]
#[cfg(feature = "sqlite")]
fn a_stranger_who_looks_at_posts_makes_none() {
    let folder = Folder::new();
    let path = folder.join("likes.db");
    let posts = live_likes::Posts::open(&path).unwrap();
    let server = Running::serve(folder, posts.default_counter().unwrap(), |server| server);
    let mut peer = Peer::connect(server.addr);
    for number in 0..2000 {
        let target = format!("/likes?post=made-up-{number}&visitor={ANN}");
        assert_eq!(peer.ask(request("GET", &target, "", "")).body, r#"{"numLikes":0,"liked":false,"version":0}"#);
    }
    for number in 0..50 {
        assert_eq!(watch(server.addr, &format!("/liveLikes?post=made-up-{number}")).frame(), Frame::text("0"));
    }
    let mut made = 0;
    for number in 0..2000 {
        made += usize::from(peer.ask(request("PUT", &format!("/like?post=made-up-{number}"), "", "")).status == 200);
    }
    // One more for each three minutes that this takes.
    assert!((20..22).contains(&made), "{made}");
    let database = rusqlite::Connection::open(&path).unwrap();
    let kept: usize = database.query_row("SELECT count(*) FROM posts WHERE name <> ''", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, made);
}

#[test]
#[cfg(feature = "sqlite")]
fn a_store_that_is_full_says_so() {
    let folder = Folder::new();
    let mut limits = live_likes::StoreLimits::default();
    // The default counter is one of them.
    (limits.posts, limits.visitors) = (2, 1);
    let store = live_likes::open_store(folder.join("likes.db"), limits).unwrap();
    let server = Running::serve(folder, Likes::with_store(store).unwrap(), |server| server);
    let mut taken: Vec<_> = (0..3).map(|number| ask(server.addr, "PUT", &format!("/like?post={number}"))).collect();
    taken.retain(|answer| answer.status != 200);
    assert!(!taken.is_empty());
    taken.iter().for_each(|answer| refused_as(answer, 507, "no room for a further post"));
    told(server.addr, "PUT", &format!("/like?post=0&visitor={ANN}"));
    refused(server.addr, "PUT", &format!("/like?post=0&visitor={BOB}"), 507, "no room for a further visitor");
    told(server.addr, "PUT", &format!("/like?post=0&visitor={ANN}"));
    told(server.addr, "PUT", "/like?post=0");
}

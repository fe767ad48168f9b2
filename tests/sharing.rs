//! What pages of other sites are given: likes and counts, a picture of a count, the page in a frame.

#[path = "support/client.rs"]
mod client;
#[path = "support/running.rs"]
mod running;
#[path = "support/scripted.rs"]
mod scripted;

use client::{Answer, ask, connect, exchange, get};
use live_likes::{AllowedPosts, Page, Posts, Server};
use running::{Folder, Running, patient};
use scripted::{Ending, memory_of_many};
use sha1::{Digest, Sha1};
use std::{
    io::{Read, Write},
    net::SocketAddr,
    process::{Command, Stdio},
    thread,
};

const BLOG: &str = "https://blog.example";
const EVIL: &str = "https://evil.example";

/// A server on a store in memory, for pages of the blog, and its posts.
fn for_the_blog(set: impl FnOnce(Server) -> Server) -> (Running, Posts) {
    let posts = Posts::with_store(memory_of_many(|_| Ending::Saved)).unwrap();
    let likes = posts.default_counter().unwrap();
    (Running::serve(Folder::new(), likes, |server| set(server.allow_origin(BLOG))), posts)
}

fn from(addr: SocketAddr, origin: &str, method: &str, target: &str, fields: &[(&str, &str)]) -> Answer {
    ask(addr, method, target, &[&[("Origin", origin)], fields].concat())
}

fn readable_by(answer: &Answer) -> Option<&str> {
    answer.field("Access-Control-Allow-Origin")
}

// --- likes and counts ---

#[test]
fn a_page_of_an_allowed_origin_reads_why_it_is_refused() {
    let (server, _posts) = for_the_blog(|server| {
        let mut limits = patient();
        (limits.likes_per_connection, limits.body_bytes) = (Some(0), 100);
        server.limits(limits).allow_posts(AllowedPosts::new(["p"]).unwrap()).allow_host("likes.example")
    });
    let long = "x".repeat(101);
    let form = [("Content-Type", "application/x-www-form-urlencoded"), ("Content-Length", "101")];
    for (method, target, fields, status) in [
        ("GET", "/likes?post=", &[][..], 400),
        ("GET", "/likes?post=p&top=1", &[], 400),
        ("GET", "/likes?post=other", &[], 404),
        ("GET", "/likes?post=other", &[("Accept", "text/event-stream")], 404),
        ("PUT", "/like?post=p", &[], 429),
        ("DELETE", "/like?post=p", &[], 400),
        ("GET", "/like", &[], 405),
        ("BREW", "/like", &[], 501),
        ("POST", "/like?post=p", &form, 413),
        ("PUT", "/like?post=p", &[("Host", "other.example")], 403),
    ] {
        for origin in [BLOG, EVIL] {
            let answer = from(server.addr, origin, method, target, fields);
            if origin == BLOG {
                assert_eq!((answer.status, readable_by(&answer)), (status, Some(BLOG)), "{method} {target}");
            } else {
                // Of a stream alone it may read that it is refused.
                let refused = fields.iter().any(|(name, _)| *name == "Accept").then_some("*");
                assert_eq!(readable_by(&answer), refused, "{method} {target}");
            }
            assert!(answer.field("Vary").unwrap().ends_with("Origin"), "{answer:?}");
        }
    }
    let mut stream = connect(server.addr);
    let head =
        format!("POST /like HTTP/1.1\r\nHost: localhost\r\nOrigin: {BLOG}\r\nTransfer-Encoding: chunked\r\n\r\n");
    stream.write_all(format!("{head}65\r\n{long}\r\n0\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains(&format!("\r\nAccess-Control-Allow-Origin: {BLOG}\r\n")), "{answer}");
}

#[test]
fn a_page_that_is_refused_is_told_the_flag_that_allows_it() {
    let (server, _posts) = for_the_blog(|server| server);
    for (origin, told) in [
        (
            EVIL,
            "pages of the origin https://evil.example are not allowed; --allow-origin https://evil.example allows them\n",
        ),
        (
            "null",
            "pages without an origin, as in a file or a sandboxed frame, are not allowed; only --allow-origin '*', for any \
            origin, allows them\n",
        ),
        (
            "javascript:alert(1)",
            "pages without an origin, as in a file or a sandboxed frame, are not allowed; only --allow-origin '*', for any \
            origin, allows them\n",
        ),
    ] {
        for (method, target) in [("PUT", "/like"), ("POST", "/like?post=p"), ("OPTIONS", "/like")] {
            let answer = from(server.addr, origin, method, target, &[]);
            assert_eq!((answer.status, answer.body.as_str(), readable_by(&answer)), (403, told, None));
        }
        let answer = from(server.addr, origin, "GET", "/likes", &[("Accept", "text/event-stream")]);
        assert_eq!((answer.status, answer.body.as_str(), readable_by(&answer)), (403, told, Some("*")));
    }
}

#[test]
fn a_preflight_allows_the_fields_that_are_asked_for_and_a_private_network_where_that_is() {
    let (server, _posts) = for_the_blog(|server| server);
    let tracing = "baggage,content-type,traceparent,x-requested-with";
    for (asked, allowed) in
        [(tracing, tracing), ("traceparent, tracestate", "traceparent, tracestate"), ("no token", "Content-Type")]
    {
        for (method, target) in [("PUT", "/like?post=p"), ("DELETE", "/like?post=p"), ("GET", "/likes?post=p")] {
            let fields = [("Access-Control-Request-Method", method), ("Access-Control-Request-Headers", asked)];
            let answer = from(server.addr, BLOG, "OPTIONS", target, &fields);
            assert_eq!((answer.status, readable_by(&answer)), (204, Some(BLOG)));
            assert_eq!(answer.field("Access-Control-Allow-Headers"), Some(allowed));
            assert_eq!(answer.field("Access-Control-Allow-Methods"), Some("GET, PUT, POST, DELETE"));
            assert_eq!(answer.field("Access-Control-Max-Age"), Some("600"));
            assert_eq!(answer.field("Access-Control-Allow-Private-Network"), None);
            assert_eq!(answer.field("Vary"), Some("Origin"));
        }
    }
    let fields = [("Access-Control-Request-Method", "GET"), ("Access-Control-Request-Private-Network", "true")];
    let answer = from(server.addr, BLOG, "OPTIONS", "/likes", &fields);
    assert_eq!(answer.field("Access-Control-Allow-Private-Network"), Some("true"));
    let answer = from(server.addr, BLOG, "OPTIONS", "/live-likes.js", &fields);
    assert_eq!((answer.status, readable_by(&answer)), (204, Some(BLOG)));
    assert_eq!(answer.field("Access-Control-Allow-Private-Network"), Some("true"));
    let answer = from(server.addr, EVIL, "OPTIONS", "/likes", &fields);
    assert_eq!((answer.status, answer.field("Access-Control-Allow-Private-Network")), (403, None));
}

// --- the button ---

#[test]
fn the_module_is_there_for_pages_of_any_origin_and_compressed_for_clients_that_take_that() {
    let server = Running::with(16, |server| server.prefix("counter"));
    let target = "/counter/live-likes.js";
    let plain = from(server.addr, "null", "GET", target, &[("Sec-Fetch-Mode", "cors")]);
    assert_eq!((plain.status, plain.field("Content-Type")), (200, Some("text/javascript; charset=utf-8")));
    assert_eq!(plain.field("Content-Encoding"), None);
    let request =
        format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip, br\r\nConnection: close\r\n\r\n");
    let bytes = exchange(server.addr, request.as_bytes());
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let (head, compressed) = (String::from_utf8(bytes[..end].to_vec()).unwrap(), &bytes[end..]);
    assert!(head.contains("\r\nContent-Encoding: gzip\r\n"), "{head}");
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", compressed.len())), "{head}");
    assert!(compressed.len() < 6 * 1024, "{} bytes", compressed.len());
    assert!(unzipped(compressed) == plain.body, "the two differ: run element/build");
    let source = Sha1::digest(include_str!("../element/live-likes.js"));
    let mark =
        format!("// live-likes.js {}\n", source[..4].iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    assert!(plain.body.starts_with(&mark), "element/live-likes.js has changed: run element/build");
    let tag = head.lines().find_map(|line| line.strip_prefix("ETag: ")).unwrap();
    let plain_tag = plain.field("ETag").unwrap();
    assert!(tag.starts_with('"') && plain_tag.starts_with('"') && tag != plain_tag, "{tag} {plain_tag}");
    for coding in ["gzip", "identity"] {
        let head = ask(server.addr, "HEAD", target, &[("Accept-Encoding", coding)]);
        assert_eq!(head.field("Content-Encoding"), Some(coding).filter(|coding| *coding == "gzip"));
        let (own, other) = if coding == "gzip" { (tag, plain_tag) } else { (plain_tag, tag) };
        assert_eq!(head.field("ETag"), Some(own));
        for (known, status) in [(own, 304), (other, 200), ("*", 304)] {
            // A 200 has bytes that are no text.
            let answer = ask(server.addr, "HEAD", target, &[("Accept-Encoding", coding), ("If-None-Match", known)]);
            assert_eq!((answer.status, answer.field("ETag")), (status, Some(own)), "{coding} {known}");
            for (name, value) in [
                ("Access-Control-Allow-Origin", "*"),
                ("Cross-Origin-Resource-Policy", "cross-origin"),
                ("Vary", "Accept-Encoding"),
                ("Cache-Control", "no-cache"),
            ] {
                assert_eq!(answer.field(name), Some(value));
            }
        }
    }
    assert_eq!(get(server.addr, "/live-likes.js").status, 404);
    let answer = ask(server.addr, "PUT", target, &[]);
    assert_eq!((answer.status, answer.field("Allow")), (405, Some("GET, HEAD, OPTIONS")));
}

/// What others make of compressed bytes.
fn unzipped(bytes: &[u8]) -> String {
    let mut gzip = Command::new("gzip").arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut input, bytes) = (gzip.stdin.take().unwrap(), bytes.to_vec());
    let writer = thread::spawn(move || input.write_all(&bytes));
    let output = gzip.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

// --- the picture ---

#[test]
fn a_picture_shows_the_count_of_a_post_to_any_page() {
    let (server, posts) = for_the_blog(|server| server.allow_posts(AllowedPosts::new(["<a&\"b\">"]).unwrap()));
    let post = posts.post("<a&\"b\">").unwrap();
    let target = "/likes.svg?post=%3Ca%26%22b%22%3E";
    for (likes, words, number) in [(0, "0 likes", "0"), (1, "1 like", "1"), (1234, "1,234 likes", "1.2K")] {
        while post.count() < likes {
            post.like().unwrap();
        }
        // As a page of another site asks for an image.
        let fields = [("Sec-Fetch-Mode", "no-cors"), ("Sec-Fetch-Dest", "image"), ("Accept", "image/avif,*/*;q=0.8")];
        let picture = ask(server.addr, "GET", target, &fields);
        assert_eq!((picture.status, picture.field("Content-Type")), (200, Some("image/svg+xml")));
        assert_eq!(picture.field("Cache-Control"), Some("public, max-age=60"));
        assert_eq!(picture.field("Cross-Origin-Resource-Policy"), Some("cross-origin"));
        assert_eq!(readable_by(&picture), None, "the number is for --allow-origin's pages");
        let name = format!("{words} of &lt;a&amp;&quot;b&quot;&gt;");
        for part in [
            "role=\"img\"".to_owned(),
            format!("aria-label=\"{name}\""),
            format!("<title>{name}</title>"),
            format!(">{number}</text>"),
        ] {
            assert!(picture.body.contains(&part), "{part} in {}", picture.body);
        }
        let head = ask(server.addr, "HEAD", target, &fields);
        assert_eq!((head.head(), head.body.as_str()), (picture.head(), ""));
    }
    let default = get(server.addr, "/likes.svg");
    assert!(default.body.contains("<title>0 likes</title>"), "{}", default.body);
    for (target, status, told) in [
        ("/likes.svg?post=", 400, "post"),
        ("/likes.svg?post=a&post=b", 400, "post"),
        ("/likes.svg?post=%", 400, "post"),
        ("/likes.svg?visitor=anna-0123456789abcdef", 400, "visitor"),
        ("/likes.svg?post=other", 404, "post"),
    ] {
        let answer = get(server.addr, target);
        assert_eq!((answer.status, answer.field("Cache-Control")), (status, Some("no-store")), "{target}");
        assert!(answer.body.contains(told), "{answer:?}");
    }
    let answer = ask(server.addr, "PUT", "/likes.svg", &[]);
    assert_eq!((answer.status, answer.field("Allow")), (405, Some("GET, HEAD, OPTIONS")));
}

#[test]
fn a_text_file_s_count_has_a_picture_too() {
    let server = Running::with(1_000_000, |server| server.prefix("counter"));
    let picture = get(server.addr, "/counter/likes.svg");
    assert!(picture.body.contains("<title>1,000,000 likes</title>"), "{}", picture.body);
    assert!(picture.body.contains(">1M</text>"), "{}", picture.body);
    assert_eq!(get(server.addr, "/counter/likes.svg?post=p").status, 400);
}

// --- the page in a frame ---

#[test]
fn the_page_may_be_framed_by_its_own_origin_and_by_those_that_are_named() {
    for (names, ancestors) in
        [(&[][..], "'self'"), (&[BLOG, "http://a:81"], "'self' https://blog.example http://a:81"), (&["*"], "*")]
    {
        for own in [false, true] {
            let server = Running::with(16, |server| {
                let server = if own { server.page(Page::new("a page")) } else { server };
                names.iter().fold(server, |server, name| server.allow_frame(*name))
            });
            let page = get(server.addr, "/");
            let known = ask(server.addr, "GET", "/", &[("If-None-Match", page.field("ETag").unwrap())]);
            assert_eq!(known.status, 304);
            for answer in [page, known] {
                let policy = answer.field("Content-Security-Policy").unwrap_or_default();
                let told = policy.split("; ").find_map(|part| part.strip_prefix("frame-ancestors "));
                assert_eq!(told, Some(ancestors).filter(|_| !own || !names.is_empty()));
                assert_eq!(policy.contains("script-src"), !own, "a page of one's own keeps its scripts");
                let older = names.is_empty().then_some("SAMEORIGIN");
                assert_eq!(answer.field("X-Frame-Options"), older, "the two agree");
            }
        }
    }
    let folder = Folder::new();
    let error = Server::new(folder.counter(0)).allow_frame("https://a/b").into_service().unwrap_err().to_string();
    assert!(error.contains("`https://a/b`") && error.contains("https://blog.example"), "{error}");
}

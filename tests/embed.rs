//! The example of a program with an accept loop and a route of its own, as it stands.

#[path = "support/client.rs"]
mod client;
#[allow(dead_code, reason = "`main` takes a fixed port")]
#[path = "../examples/embed.rs"]
mod embed;
#[path = "support/running.rs"]
mod running;

use client::{Client, ask, connect, exchange, get, handshake};
use live_likes::{
    Server, Service,
    http::{HeaderValue, Request, Response},
};
use running::{Folder, PATIENCE, Running, eventually};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    thread,
};

/// Runs the example's accept loop until the process ends.
fn host(service: Service) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || embed::accept(&listener, &service));
    addr
}

#[test]
fn a_route_of_the_program_s_own_stands_beside_the_likes() {
    let folder = Folder::new();
    let likes = folder.counter(16);
    let mut inside = likes.subscribe();
    let addr = host(Server::new(likes.clone()).fallback(embed::answer).into_service().unwrap());

    assert_eq!(get(addr, "/hello").body, "hello\n");
    assert_eq!(get(addr, "/hell").status, 404);
    assert_eq!(get(addr, "/healthz").body, "ok");
    let mut client = Client::new(addr);
    assert_eq!((client.count(), inside.next()), (16, Some(16)));
    client.like();
    assert_eq!((client.count(), inside.next_within(PATIENCE)), (17, Ok(17)));
    assert_eq!(ask(addr, "PUT", "/like", &[]).body, r#"{"numLikes":18}"#);
    assert_eq!((client.count(), inside.next_within(PATIENCE)), (18, Ok(18)));
}

#[test]
fn peers_that_say_nothing_or_little_keep_nobody_waiting() {
    let folder = Folder::new();
    let addr = host(Server::new(folder.counter(16)).fallback(embed::answer).into_service().unwrap());
    let _silent: Vec<_> = (0..20).map(|_| connect(addr)).collect();
    let mut slow = connect(addr);
    slow.write_all(b"GET /he").unwrap();
    assert_eq!(get(addr, "/hello").body, "hello\n");
    assert_eq!(get(addr, "/likes").body, r#"{"numLikes":16}"#);
    slow.write_all(b"althz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
}

#[test]
fn a_service_that_is_stopped_tells_its_clients_and_saves() {
    let folder = Folder::new();
    let likes = folder.counter(16);
    let service = Server::new(likes.clone()).into_service().unwrap();
    let addr = host(service.clone());
    let mut client = Client::new(addr);
    assert_eq!(client.count(), 16);
    likes.like_without_waiting().unwrap();
    let stop = thread::spawn(move || service.stop());
    assert_eq!(client.closed().0, 1001);
    drop(client);
    stop.join().unwrap().unwrap();
    assert_eq!((likes.count(), folder.saved()), (17, 17));
    eventually("nobody is left", || likes.watching() == 0);
    assert_eq!(get(addr, "/likes").body, r#"{"numLikes":17}"#);
    assert_eq!(get(addr, "/healthz").status, 503);
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn one_connection_is_answered_by_the_likes_and_by_the_program() {
    let folder = Folder::new();
    let likes = folder.counter(16);
    let within = host(Server::new(likes.clone()).fallback(embed::answer).into_service().unwrap());
    let bound = Running::with(16, |server| server.fallback(embed::answer));
    for addr in [within, bound.addr] {
        let asks =
            ["/likes", "/hello", "/likes?_", "/hello?x"].map(|path| format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\n"));
        let answers = text(exchange(addr, format!("{}Connection: close\r\n\r\n", asks.join("\r\n")).as_bytes()));
        let bodies: Vec<_> =
            answers.split("HTTP/1.1 200 OK").map(|answer| answer.rsplit("\r\n").next().unwrap()).collect();
        assert_eq!(bodies, ["", r#"{"numLikes":16}"#, "hello\n", r#"{"numLikes":16}"#, "hello\n"], "{answers}");
    }
}

#[test]
fn everything_can_be_put_under_a_prefix() {
    for prefix in ["/counter", "counter/"] {
        let server = Running::with(16, |server| server.prefix(prefix).fallback(embed::answer));
        assert_eq!(get(server.addr, "/counter/likes").body, r#"{"numLikes":16}"#);
        assert_eq!(ask(server.addr, "PUT", "/counter/like?_", &[]).body, r#"{"numLikes":17}"#);
        assert!(get(server.addr, "/counter/").body.contains("<!--likes-->17<!--/likes-->"));
        let moved = get(server.addr, "/counter");
        assert_eq!((moved.status, moved.field("Location")), (308, Some("/counter/")));
        let preflight =
            [("Origin", "http://localhost"), ("Host", "localhost"), ("Access-Control-Request-Method", "PUT")];
        let preflight = ask(server.addr, "OPTIONS", "/counter/like", &preflight);
        assert_eq!(preflight.field("Access-Control-Allow-Origin"), Some("http://localhost"));
        assert_eq!(ask(server.addr, "GET", "/counter/healthz", &[("Host", "10.0.0.7")]).status, 200);
        assert_eq!(ask(server.addr, "GET", "/healthz", &[("Host", "10.0.0.7")]).status, 403);
        assert_eq!(ask(server.addr, "OPTIONS", "*", &[]).status, 204);
        assert_eq!(handshake(server.addr, "/counter/liveLikes", &[("Sec-WebSocket-Version", "8")]).status, 426);
        for path in ["/", "/likes", "/like", "/healthz", "/counterlikes", "/counter/nothing", "/Counter/likes"] {
            assert_eq!(get(server.addr, path).body, "there is nothing here\n", "{path}");
        }
        assert_eq!(get(server.addr, "/hello").body, "hello\n");
    }
}

/// Says what it was asked.
fn mirror(request: Request<Vec<u8>>) -> Response<Vec<u8>> {
    let (head, body) = request.into_parts();
    let text = format!("{} {} {:?} {:?}\n", head.method, head.uri, head.version, head.headers);
    let mut response = Response::new([text.as_bytes(), &body].concat());
    response.headers_mut().insert("x-asked", HeaderValue::from_static("yes"));
    response
}

#[test]
fn the_program_is_handed_the_request_with_its_body() {
    let server = Running::with(16, |server| server.fallback(mirror));
    let asked = |request: &str| text(exchange(server.addr, request.as_bytes()));
    for (request, told) in [
        (
            "POST /a?b=%20 HTTP/1.1\r\nHost: localhost\r\nX: y\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc",
            r#"POST /a?b=%20 HTTP/1.1 {"host": "localhost", "x": "y", "connection": "close", "content-length": "3"}"#,
        ),
        // Of a chunked body only the content is left, and no field that says otherwise.
        ("QUERY /a HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc", r#"QUERY /a HTTP/1.0 {"content-length": "3"}"#),
        (
            "PUT /a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
             1;x\r\na\r\n2\r\nbc\r\n0\r\nX: y\r\n\r\n",
            r#"PUT /a HTTP/1.1 {"host": "localhost", "connection": "close"}"#,
        ),
    ] {
        let answer = asked(request);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("\r\nx-asked: yes\r\n"), "{answer}");
        assert_eq!(answer.split_once("\r\n\r\n").unwrap().1, format!("{told}\nabc"));
    }
    let long = asked("PUT /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 65537\r\n\r\n");
    assert!(long.starts_with("HTTP/1.1 413 "), "{long}");
    // A host name that is not allowed is not answered, nor is what is no request for a path.
    assert_eq!(ask(server.addr, "GET", "/a", &[("Host", "evil.example")]).status, 403);
    assert_eq!(ask(server.addr, "CONNECT", "localhost:80", &[]).status, 501);
    assert_eq!(ask(server.addr, "BREW", "/likes", &[]).status, 501);
    assert_eq!(ask(server.addr, "BREW", "/a", &[]).status, 200);
}

// RFC 9110 section 10.1.1.
#[test]
fn a_client_that_waits_to_send_a_body_to_the_program_is_told_to_go_on() {
    let server = Running::with(16, |server| server.fallback(mirror));
    let mut stream = connect(server.addr);
    let head =
        "POST /a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(client::read_head(&mut stream), "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"abc").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\nabc"), "{answer}");
    // Whoever does not wait is not told.
    let answer = text(exchange(server.addr, format!("{head}abc").as_bytes()));
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\nabc"), "{answer}");
}

/// Answers with the status that the path names, a body, and fields that would break the framing.
fn meddler(request: Request<Vec<u8>>) -> Response<Vec<u8>> {
    let path = &request.uri().path()[1..];
    assert_ne!(path, "panic", "as planned");
    let mut response = Response::builder().status(path.parse::<u16>().unwrap());
    for (name, value) in [
        ("Content-Length", "1000"),
        ("Transfer-Encoding", "chunked"),
        ("Connection", "x-mine"),
        ("Keep-Alive", "timeout=1000"),
        ("Upgrade", "h2c"),
        ("Trailer", "x"),
        ("Date", "never"),
        ("X-Mine", "1"),
        ("X-Mine", "2"),
    ] {
        response = response.header(name, value);
    }
    response.body(b"body".to_vec()).unwrap()
}

#[test]
fn whatever_the_program_answers_the_connection_stays_in_order() {
    let server = Running::with(16, |server| server.fallback(meddler));
    let count = format!("GET /likes HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", server.addr);
    for (method, path, status, body) in [
        ("GET", "/200", "200 OK", Some("body")),
        ("GET", "/404", "404 Not Found", Some("body")),
        ("HEAD", "/200", "200 OK", None),
        ("GET", "/204", "204 No Content", None),
        ("GET", "/205", "205 Reset Content", None),
        ("GET", "/304", "304 Not Modified", None),
        ("GET", "/999", "999 ", Some("body")),
        ("GET", "/101", "500 Internal Server Error", Some("the request cannot be answered\n")),
        ("GET", "/100", "500 Internal Server Error", Some("the request cannot be answered\n")),
        ("GET", "/panic", "500 Internal Server Error", Some("the request cannot be answered\n")),
    ] {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n{count}");
        let answers = text(exchange(server.addr, request.as_bytes()));
        let (first, second) = answers
            .split_once("HTTP/1.1 200 OK\r\nDate: ")
            .map_or_else(|| panic!("{answers}"), |_| answers.split_at(answers.rfind("HTTP/1.1 200 OK\r\n").unwrap()));
        assert!(second.ends_with("\r\n\r\n{\"numLikes\":16}"), "{answers}");
        let (head, rest) = first.split_once("\r\n\r\n").unwrap();
        let head = head.to_ascii_lowercase();
        assert!(first.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{first}");
        assert_eq!(rest, body.unwrap_or_default(), "{first}");
        for field in ["transfer-encoding", "connection", "keep-alive", "upgrade", "trailer", "date: never", "1000"] {
            assert!(!head.contains(field), "{field} in {first}");
        }
        assert_eq!(head.matches("\r\ndate: ").count(), 1, "{first}");
        let length = body.map(|body| format!("\r\ncontent-length: {}", body.len()));
        assert!(length.is_none_or(|length| head.contains(&length)), "{first}");
        assert!(status.starts_with("500") || head.contains("\r\nx-mine: 1\r\nx-mine: 2"), "{first}");
    }
}

#[test]
fn a_request_for_an_upgrade_that_the_program_answers_closes_its_connection() {
    let server = Running::with(16, |server| server.fallback(embed::answer));
    for path in ["/hello", "/nothing"] {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\
             PUT /like HTTP/1.1\r\nHost: localhost\r\n\r\n"
        );
        let answer = text(exchange(server.addr, request.as_bytes()));
        assert!(answer.contains("\r\nConnection: close\r\n") && answer.matches("HTTP/1.1 ").count() == 1, "{answer}");
    }
    assert_eq!(server.likes.count(), 16);
}

#[test]
fn the_program_has_room_on_the_stack() {
    let deep = |_: Request<Vec<u8>>| {
        let room = std::hint::black_box([1_u8; 256 * 1024]);
        Response::new(room[..10].to_vec())
    };
    let server = Running::with(16, |server| server.fallback(deep));
    assert_eq!(get(server.addr, "/deep").status, 200);
}

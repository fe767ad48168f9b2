//! Counts as server-sent events: `GET /likes` whose `Accept` names `text/event-stream`.

#[path = "support/client.rs"]
mod client;
#[path = "support/running.rs"]
mod running;
#[path = "support/scripted.rs"]
mod scripted;

use client::{Answer, Client, ask, connect, connect_narrow, get, handshake, read_head};
use live_likes::{AllowedPosts, Likes, Limits, Posts, Server};
use running::{Folder, PATIENCE, Running, eventually, patient};
use scripted::{Ending, memory_of_many, scripted};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

const ANNA: &str = "anna-0123456789abcdef";
const SECOND: Duration = Duration::from_secs(1);

/// A client that watches by events.
struct Events {
    head: String,
    stream: BufReader<TcpStream>,
}

impl Events {
    fn open(addr: SocketAddr, target: &str) -> Self {
        Self::over(connect(addr), &request("GET", target, ""))
    }

    #[track_caller]
    fn over(mut stream: TcpStream, request: &str) -> Self {
        stream.write_all(request.as_bytes()).unwrap();
        let head = read_head(&mut stream);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        Self { head, stream: BufReader::new(stream) }
    }

    /// The next line, without its end; none where the stream has ended.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        (self.stream.read_line(&mut line).unwrap() > 0)
            .then(|| line.strip_suffix('\n').expect("a whole line").to_owned())
    }

    /// The next event, past all comments.
    #[track_caller]
    fn event(&mut self) -> Value {
        loop {
            match self.line().as_deref() {
                Some("" | ":") => {}
                Some(line) => {
                    let data = line.strip_prefix("data: ").unwrap_or_else(|| panic!("an event, not {line:?}"));
                    let event = serde_json::from_str(data).unwrap_or_else(|e| panic!("{data:?} should be JSON: {e}"));
                    assert_eq!(self.line().as_deref(), Some(""), "an event of one line");
                    return event;
                }
                None => panic!("the stream ended"),
            }
        }
    }

    #[track_caller]
    fn likes(&mut self) -> u64 {
        self.event()["numLikes"].as_u64().unwrap()
    }

    /// Reads on until the stream ends well. Returns the last event, if there was one.
    #[track_caller]
    fn last(mut self) -> Option<Value> {
        let mut rest = String::new();
        self.stream.read_to_string(&mut rest).unwrap();
        assert!(rest.is_empty() || rest.ends_with("\n\n"), "{rest:?}");
        rest.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).unwrap()).next_back()
    }
}

fn request(method: &str, target: &str, fields: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{fields}\r\n")
}

/// What a request for events is answered with that is not granted, or is for the head alone.
fn refused(addr: SocketAddr, target: &str, fields: &[(&str, &str)]) -> Answer {
    ask(addr, "GET", target, &[&[("Accept", "text/event-stream")], fields].concat())
}

/// A server on a store in memory whose saves all work, and its posts.
fn in_memory(set: impl FnOnce(Server) -> Server) -> (Running, Posts) {
    let posts = Posts::with_store(memory_of_many(|_| Ending::Saved)).unwrap();
    let mut limits = patient();
    limits.new_posts_per_hour_and_address = 1_000;
    let likes = posts.default_counter().unwrap();
    (Running::serve(Folder::new(), likes, |server| set(server.limits(limits))), posts)
}

fn with_limits(set: impl FnOnce(&mut Limits)) -> (Running, Posts) {
    let mut limits = patient();
    set(&mut limits);
    in_memory(|server| server.limits(limits))
}

fn sample(server: &Running, name: &str) -> f64 {
    get(server.addr, "/metrics").sample(name)
}

// --- what is shown ---

#[test]
fn the_count_is_shown_and_then_each_like() {
    let server = Running::with_count(16);
    let mut events = Events::open(server.addr, "/likes");
    let field = |name: &str| events.head.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    assert_eq!(field("Content-Type: "), "text/event-stream");
    assert_eq!(field("Cache-Control: "), "no-store");
    assert_eq!(field("X-Accel-Buffering: "), "no");
    assert_eq!(field("Connection: "), "close");
    assert!(field("Vary: ").split(", ").any(|name| name == "Accept"), "{}", events.head);
    for none in ["Content-Length", "Transfer-Encoding", "Content-Encoding"] {
        assert!(!events.head.contains(none), "{}", events.head);
    }
    let first = events.event();
    assert_eq!(first["boot"].as_str().map(str::len), Some(32));
    assert_eq!(first, json!({"type": "count", "numLikes": 16, "version": first["version"], "boot": first["boot"]}));
    for likes in 17..20 {
        server.likes.like().unwrap();
        let version = first["version"].as_u64().unwrap() + likes - 16;
        let expected = format!(r#"data: {{"type":"count","numLikes":{likes},"version":{version}}}"#);
        assert_eq!((events.line(), events.line()), (Some(expected), Some(String::new())));
    }
    eventually("they are counted", || sample(&server, "frames_total") == 4.0);
    assert_eq!(sample(&server, "watching"), 1.0);
}

#[test]
fn several_posts_are_shown_each_once_and_what_the_visitor_likes_of_them() {
    let (server, posts) = in_memory(|server| server);
    posts.post("b\"é").unwrap().set_liked(ANNA, true, None).unwrap();
    let target = format!("/likes?post=a&post=b%22%C3%A9&post=a&visitor={ANNA}");
    let mut events = Events::open(server.addr, &target);
    let first = events.event();
    let (boot, b) = (&first["boot"], "b\"é");
    assert_eq!(first, json!({"type": "count", "post": "a", "numLikes": 0, "version": 0, "liked": false, "boot": boot}));
    assert_eq!(events.event(), json!({"type": "count", "post": b, "numLikes": 1, "version": 1, "liked": true}));
    posts.post("a").unwrap().like().unwrap();
    assert_eq!(events.event(), json!({"type": "count", "post": "a", "numLikes": 1, "version": 2}));
    posts.post("a").unwrap().set_liked(ANNA, true, Some(1)).unwrap();
    assert_eq!(events.event(), json!({"type": "count", "post": "a", "numLikes": 2, "version": 3, "liked": true}));
    posts.post("other").unwrap().like().unwrap();
    posts.post(b).unwrap().set_liked(ANNA, false, Some(2)).unwrap();
    assert_eq!(events.event(), json!({"type": "count", "post": b, "numLikes": 0, "version": 5, "liked": false}));
    // One that comes back is shown the newest first, whatever it has seen.
    let again = Events::over(connect(server.addr), &request("GET", "/likes?post=a", "Last-Event-ID: 1\r\n")).event();
    assert_eq!(again, json!({"type": "count", "post": "a", "numLikes": 2, "version": 3, "boot": boot}));
}

#[test]
fn an_event_holds_what_a_websocket_in_json_is_told() {
    let (server, posts) = in_memory(|server| server);
    let mut socket = Client::of_json(server.addr);
    socket.say(&json!({"type": "watch", "post": "p", "visitor": ANNA}).to_string());
    let mut told = vec![socket.hear()];
    let mut events = Events::open(server.addr, &format!("/likes?post=p&visitor={ANNA}"));
    assert_eq!(events.line(), Some(format!("data: {}", told[0])));
    events.line().unwrap();
    for liked in [true, false, true] {
        posts.post("p").unwrap().set_liked(ANNA, liked, None).unwrap();
    }
    while !told[told.len() - 1].contains("\"version\":3") {
        told.push(socket.hear());
    }
    for text in &told[1..] {
        assert_eq!(events.line(), Some(format!("data: {text}")));
        events.line().unwrap();
    }
}

#[test]
fn a_text_file_s_one_count_is_shown_too_but_not_who_likes_it() {
    let server = Running::with_count(16);
    let mut events = Events::open(server.addr, &format!("/likes?visitor={ANNA}"));
    assert_eq!(events.event().get("liked"), None);
    server.likes.set_liked(ANNA, true, None).unwrap();
    let event = events.event();
    assert_eq!((&event["numLikes"], event.get("liked")), (&json!(17), None));
}

#[test]
fn nothing_is_shown_before_it_is_saved() {
    let (likes, script) = scripted(16);
    let server = Running::serve(Folder::new(), likes, |server| server);
    let mut events = Events::open(server.addr, "/likes");
    assert_eq!(events.likes(), 16);
    server.likes.like_without_waiting().unwrap();
    script.save();
    assert_eq!(Events::open(server.addr, "/likes").likes(), 16, "the save goes on");
    script.end(Ending::Saved);
    assert_eq!(events.likes(), 17);
    drop(script);
}

#[test]
fn every_count_is_shown_to_one_that_keeps_up() {
    let (server, posts) = in_memory(|server| server);
    let likes = posts.post("p").unwrap();
    let mut events = Events::open(server.addr, "/likes?post=p");
    assert_eq!(events.likes(), 0);
    for first in (1..500).step_by(50) {
        // Of more than 64 that are saved within a round, it would be shown the newest alone.
        thread::scope(|scope| {
            scope.spawn(|| (0..50).for_each(|_| _ = likes.like().unwrap()));
            for expected in first..first + 50 {
                assert_eq!(events.likes(), expected);
            }
        });
    }
}

// --- who asks, and how ---

#[test]
fn the_head_alone_is_the_same() {
    let server = Running::with_count(16);
    let mut stream = connect(server.addr);
    stream.write_all(request("HEAD", "/likes", "").as_bytes()).unwrap();
    let mut head = String::new();
    stream.read_to_string(&mut head).unwrap();
    let without_date =
        |head: &str| head.lines().filter(|line| !line.starts_with("Date: ")).collect::<Vec<_>>().join("\n");
    let mut events = Events::open(server.addr, "/likes");
    assert_eq!((events.likes(), without_date(&head)), (16, without_date(&events.head)));
    eventually("one event is counted", || sample(&server, "frames_total") == 1.0);
}

#[test]
fn an_older_proxy_is_served_in_the_same_way() {
    let server = Running::with_count(16);
    let request = "GET /likes HTTP/1.0\r\nAccept: text/event-stream\r\n\r\n";
    let mut events = Events::over(connect(server.addr), request);
    assert_eq!(events.likes(), 16);
    server.likes.like().unwrap();
    assert_eq!(events.likes(), 17);
}

#[test]
fn accept_may_name_other_types_beside_it_and_in_any_case() {
    let server = Running::with_count(16);
    for (accept, is_stream) in [
        ("text/event-stream", true),
        ("Text/Event-Stream", true),
        ("application/json, text/event-stream;q=0.5", true),
        ("text/event-stream;charset=utf-8;q=1.0", true),
        ("text/event-stream;q=0", false),
        ("text/event-stream; q=0.000", false),
        ("text/event-streams", false),
        ("text/*", false),
        ("*/*", false),
        ("application/json", false),
    ] {
        let head = ask(server.addr, "HEAD", "/likes", &[("Accept", accept)]);
        let expected = if is_stream { "text/event-stream" } else { "application/json" };
        assert_eq!(head.field("Content-Type"), Some(expected), "{accept}");
        assert!(head.field("Vary").unwrap().contains("Accept"), "{accept}");
        let liked = ask(server.addr, "PUT", "/like", &[("Accept", accept)]);
        assert_eq!(liked.field("Content-Type"), Some("application/json"), "{accept}");
    }
}

#[test]
fn what_is_not_understood_or_not_granted_is_refused_before_the_stream_begins() {
    let allowed = AllowedPosts::new(["p", "q", "p*"]).unwrap();
    let mut limits = patient();
    limits.posts_per_client = 2;
    let (server, _posts) = in_memory(|server| server.limits(limits).allow_posts(allowed));
    let many: String = (0..101).map(|number| format!("&post=p{number}")).collect();
    for (target, status, told) in [
        ("/likes?top=3", 400, "top"),
        ("/likes?post=p&top=3", 400, "top"),
        ("/likes?post=", 400, "post"),
        ("/likes?post=%ff", 400, "post"),
        ("/likes?post=p&visitor=short", 400, "visitor"),
        ("/likes?post=p&seq=1", 400, "seq"),
        (&*format!("/likes?_=1{many}"), 400, "100"),
        ("/likes?post=p&post=p1&post=p2", 429, "2"),
        ("/likes?post=other", 404, "post"),
    ] {
        let answer = refused(server.addr, target, &[]);
        assert_eq!(answer.status, status, "{target}");
        assert!(answer.body.contains(told), "{}", answer.body);
        assert_eq!(answer.field("Content-Type"), Some("text/plain; charset=utf-8"));
    }
    let answer = refused(Running::with_count(1).addr, "/likes?post=p", &[]);
    assert!(answer.status == 400 && answer.body.contains("--db likes.db"), "{answer:?}");
}

#[test]
fn a_page_must_name_itself_and_be_allowed_and_one_that_is_not_may_read_why() {
    let (server, _posts) = in_memory(|server| server.allow_origin("https://blog.example"));
    for fields in
        [&[("Origin", "https://blog.example"), ("Sec-Fetch-Mode", "cors")][..], &[("Sec-Fetch-Mode", "same-origin")]]
    {
        let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let mut events = Events::over(connect(server.addr), &request("GET", "/likes", &fields));
        assert_eq!(events.likes(), 0);
        let shared = events.head.contains("Access-Control-Allow-Origin: https://blog.example\r\n");
        assert_eq!(shared, fields.contains("blog"), "{}", events.head);
    }
    let unnamed = refused(server.addr, "/likes", &[("Sec-Fetch-Mode", "no-cors")]);
    assert!(unnamed.status == 403 && unnamed.body.contains("EventSource"), "{unnamed:?}");
    assert_eq!(unnamed.field("Access-Control-Allow-Origin"), None);
    assert_eq!(ask(server.addr, "GET", "/likes", &[("Sec-Fetch-Mode", "no-cors")]).status, 200, "that ends");
    for origin in ["https://evil.example", "null"] {
        let foreign = refused(server.addr, "/likes", &[("Origin", origin), ("Sec-Fetch-Mode", "cors")]);
        assert!(foreign.status == 403 && foreign.body.contains("--allow-origin"), "{foreign:?}");
        assert_eq!(foreign.field("Access-Control-Allow-Origin"), Some("*"));
    }
    let refusals = get(server.addr, "/metrics").sample("refused_total{reason=\"origin\"}");
    assert_eq!(refusals, 3.0);
    eventually("two events are counted", || sample(&server, "frames_total") == 2.0);
}

#[test]
fn a_stream_is_one_of_the_connections_that_there_may_be() {
    let (server, _posts) = with_limits(|limits| limits.connections = 1);
    let mut events = Events::open(server.addr, "/likes");
    assert_eq!(events.likes(), 0);
    assert_eq!(get(server.addr, "/likes").status, 503);
    drop(events);
    eventually("its place is free", || get(server.addr, "/likes").status == 200);
}

// --- the line ---

#[test]
fn a_client_that_sends_no_more_is_still_shown_the_count_and_one_that_has_gone_is_found_out_at_once() {
    let (server, posts) = in_memory(|server| server);
    let mut events = Events::open(server.addr, "/likes?post=p");
    assert_eq!(events.likes(), 0);
    events.stream.get_ref().shutdown(Shutdown::Write).unwrap();
    let gone = Events::open(server.addr, "/likes?post=p");
    eventually("both watch", || posts.watching() == 2);
    drop(gone);
    // No heartbeat is due in this test.
    eventually("one has gone", || posts.watching() == 1);
    posts.post("p").unwrap().like().unwrap();
    assert_eq!(events.likes(), 1);
    drop(events);
    // Of one that had said that it sends no more, nothing tells so but what is sent to it.
    posts.post("p").unwrap().like().unwrap();
    eventually("the other has gone", || posts.watching() == 0 && sample(&server, "connections") == 1.0);
    assert_eq!(sample(&server, "dropped_total"), 0.0);
}

#[test]
fn what_a_client_sends_after_its_request_is_neither_answered_nor_harmful() {
    let (mut server, posts) = in_memory(|server| server);
    let likes = posts.post("p").unwrap();
    let put = "PUT /like HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let pipelined = format!("{}{put}", request("GET", "/likes?post=p", ""));
    let mut events = Events::over(connect(server.addr), &pipelined);
    assert_eq!(events.likes(), 0);
    events.stream.get_ref().write_all(put.repeat(100).as_bytes()).unwrap();
    likes.like().unwrap();
    assert_eq!(events.likes(), 1);
    // Nor is one that sends without an end read, or does it delay anybody.
    let mut flood = Events::open(server.addr, "/likes?post=p");
    assert_eq!(flood.likes(), 1);
    let sender = flood.stream.get_ref().try_clone().unwrap();
    sender.set_nonblocking(true).unwrap();
    while (&sender).write(&[b'x'; 65_536]).is_ok() {}
    sender.set_nonblocking(false).unwrap();
    likes.like().unwrap();
    assert_eq!((events.likes(), flood.likes()), (2, 2));
    assert_eq!(server.likes.count(), 0, "no request but the first");
    server.begin_stop();
    assert_eq!(events.last(), None, "it ends well");
    drop(flood);
    server.wait().unwrap();
}

#[test]
fn a_silent_line_has_a_heartbeat() {
    let (server, posts) = with_limits(|limits| limits.ping_after = SECOND / 10);
    let mut events = Events::open(server.addr, "/likes?post=p");
    assert_eq!(events.likes(), 0);
    for _ in 0..3 {
        assert_eq!((events.line().as_deref(), events.line().as_deref()), (Some(":"), Some("")));
    }
    posts.post("p").unwrap().like().unwrap();
    assert_eq!(events.likes(), 1);
}

#[test]
fn a_stop_ends_the_stream_after_what_is_saved() {
    for likes in 0..10 {
        // A stop shows what is saved for at most as long as a close may take.
        let (mut server, posts) = with_limits(|limits| limits.close_within = PATIENCE);
        let mut streams: Vec<_> = (0..5).map(|_| Events::open(server.addr, "/likes?post=p")).collect();
        streams.iter_mut().for_each(|events| assert_eq!(events.likes(), 0));
        let counter = posts.post("p").unwrap();
        (0..likes).for_each(|_| _ = counter.like().unwrap());
        server.begin_stop();
        for events in streams {
            assert_eq!(events.last().map(|event| event["numLikes"].clone()), (likes > 0).then(|| json!(likes)));
        }
        server.wait().unwrap();
    }
}

#[test]
fn while_a_server_stops_a_stream_is_refused() {
    let (likes, script) = scripted(16);
    let server = Running::serve(Folder::new(), likes, |server| server);
    let mut waiting = connect(server.addr);
    waiting.write_all(b"PUT /like HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    script.save();
    let mut late = connect(server.addr);
    late.write_all(b"GET /likes HTTP/1.1\r\nHost: localhost\r\n").unwrap();
    server.begin_stop();
    eventually("it stops", || get(server.addr, "/healthz").status == 503);
    let answer = refused(server.addr, "/likes", &[]);
    assert_eq!((answer.status, answer.field("Retry-After")), (503, Some("2")));
    script.end(Ending::Saved);
    drop(script);
}

// --- clients that do not read ---

/// A client of a post with a long name that has been shown so much that it is behind.
fn behind(server: &Running, likes: &Likes, target: &str) -> Events {
    let mut client = Events::over(connect_narrow(server.addr), &request("GET", target, ""));
    assert_eq!(client.event()["type"], "count");
    while sample(server, "behind") == 0.0 {
        (0..50).for_each(|_| _ = likes.like().unwrap());
    }
    client
}

#[test]
fn a_client_that_does_not_read_is_dropped_after_the_deadline_and_delays_nobody() {
    let (server, posts) = with_limits(|limits| limits.write_deadline = SECOND);
    let post = "p".repeat(200);
    let (target, likes) = (format!("/likes?post={post}"), posts.post(&post).unwrap());
    let slow = behind(&server, &likes, &target);
    let start = Instant::now();
    let (mut events, mut socket) = (Events::open(server.addr, &target), Client::of_json(server.addr));
    socket.say(&json!({"type": "watch", "post": post}).to_string());
    let mut count = events.likes();
    let told = |socket: &mut Client| serde_json::from_str::<Value>(&socket.hear()).unwrap()["numLikes"].clone();
    assert_eq!(told(&mut socket), count);
    while sample(&server, "dropped_total") == 0.0 {
        count = likes.like().unwrap();
        assert_eq!((events.likes(), told(&mut socket)), (count, json!(count)));
        assert!(start.elapsed() < PATIENCE, "it was to be dropped");
    }
    eventually("it does not watch any more", || sample(&server, "watching") == 2.0);
    assert_eq!(sample(&server, "behind"), 0.0);
    let mut rest = Vec::new();
    let mut slow = slow.stream.into_inner();
    // Whatever is left in the kernel, and then the end, well or by a reset.
    let _ = slow.read_to_end(&mut rest);
    assert!(rest.len() < 1_000_000, "{}", rest.len());
}

#[test]
fn a_client_that_falls_behind_and_then_reads_ends_at_the_newest_count_of_each_post_and_what_its_visitor_likes() {
    let (server, posts) = in_memory(|server| server);
    let names = ["p".repeat(200), "q".repeat(200)];
    let likes = names.each_ref().map(|name| posts.post(name).unwrap());
    let target = format!("/likes?post={}&post={}&visitor={ANNA}", names[0], names[1]);
    let mut client = behind(&server, &likes[0], &target);
    likes[1].set_liked(ANNA, true, None).unwrap();
    for _ in 0..100 {
        likes.iter().for_each(|likes| _ = likes.like().unwrap());
    }
    let newest = posts.counts(&names.each_ref().map(String::as_str)).unwrap();
    let (mut versions, mut liked, mut shown) = ([0; 2], None, 0);
    while versions != [newest[0].version, newest[1].version] {
        let event = client.event();
        let index = usize::from(event["post"] == names[1]);
        let version = event["version"].as_u64().unwrap();
        assert!(version > versions[index] || versions[index] == 0, "{event} came after version {}", versions[index]);
        versions[index] = version;
        liked = event["liked"].as_bool().filter(|_| index == 1).or(liked);
        shown += 1;
    }
    assert_eq!(liked, Some(true));
    assert!(shown < newest[0].likes, "it was to miss some");
    eventually("it is level again", || sample(&server, "behind") == 0.0);
    likes[0].like().unwrap();
    assert_eq!(client.event()["version"], newest.iter().map(|count| count.version).max().unwrap() + 1);
}

// --- many ---

#[test]
fn streams_that_come_and_go_beside_websockets_while_likes_come_are_shown_rising_versions_and_the_newest() {
    let (server, posts) = in_memory(|server| server);
    let likes = posts.post("p").unwrap();
    let over = AtomicBool::new(false);
    let last = thread::scope(|scope| {
        let watchers: Vec<_> = (0..8)
            .map(|number| {
                let (server, over) = (&server, &over);
                scope.spawn(move || {
                    let mut watched = 0;
                    while !over.load(Ordering::Relaxed) {
                        let mut last = None;
                        if number % 2 == 0 {
                            let mut events = Events::open(server.addr, "/likes?post=p");
                            for _ in 0..20 {
                                let version = events.event()["version"].as_u64();
                                assert!(version > last || last.is_none(), "{version:?} after {last:?}");
                                last = version;
                            }
                        } else {
                            let mut client = Client::of_json(server.addr);
                            client.say(r#"{"type":"watch","post":"p"}"#);
                            for _ in 0..20 {
                                let told: Value = serde_json::from_str(&client.hear()).unwrap();
                                assert!(told["version"].as_u64() > last || last.is_none(), "{told} after {last:?}");
                                last = told["version"].as_u64();
                            }
                        }
                        watched += 1;
                    }
                    watched
                })
            })
            .collect();
        let start = Instant::now();
        // Likes go on until the last watcher has had its fill.
        while start.elapsed() < SECOND {
            likes.like().unwrap();
        }
        over.store(true, Ordering::Relaxed);
        while watchers.iter().any(|watcher| !watcher.is_finished()) {
            likes.like().unwrap();
        }
        assert!(watchers.into_iter().all(|watcher| watcher.join().unwrap() > 0));
        likes.count()
    });
    assert_eq!(Events::open(server.addr, "/likes?post=p").likes(), last);
    eventually("all have gone", || posts.watching() == 0);
}

#[test]
fn a_handshake_is_one_whatever_it_accepts() {
    let server = Running::with_count(16);
    let answer = handshake(server.addr, "/likes", &[("Accept", "text/event-stream"), ("Sec-Fetch-Mode", "no-cors")]);
    assert_eq!(answer.status, 403);
}

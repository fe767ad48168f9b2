//! Like counters that break their promises, one each, so that every check is seen to fail. And some that are merely
//! different, which must pass.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

use crate::check::Kind;
use crate::modes::{Report, run};
use crate::options::Options;

/// The count that every fake starts with.
const START: u64 = 16;

/// The like at which a fault happens.
const FAULTY: u64 = 5;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Manner {
    Honest,
    /// Shows the newest of each ten counts only.
    Coalesces,
    /// Hands its frames over byte by byte.
    Dribbles,
    /// Pings before each count.
    Pings,
    /// Shows a count twice.
    Repeats,
    /// Shows an older count again.
    SkipsBack,
    /// Shows a first count lower than what it said before.
    StartsLow,
    /// Does not count a like.
    Loses,
    /// Counts a like, but does not show it, nor any after it, to one client.
    Forgets,
    /// Counts a like twice.
    Doubles,
    /// Shows everything as it should, and says another count over HTTP.
    Lies,
    /// Ends a connection.
    Drops,
    /// Says a count in words.
    Babbles,
    /// Sends a count as a binary frame.
    SendsBinary,
    /// Has no room for clients.
    IsFull,
    /// Answers a like over HTTP with an error.
    Fails,
    /// Does not grant a visitor's like.
    Refuses,
}

struct Fake {
    manner: Manner,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    likes: u64,
    count: u64,
    pongs: u64,
    clients: Vec<TcpStream>,
    streams: Vec<TcpStream>,
    /// The likes and the version of each post, and who watches it.
    posts: HashMap<String, (u64, u64)>,
    watchers: Vec<(String, TcpStream)>,
}

impl Fake {
    fn start(manner: Manner) -> (Arc<Self>, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Mutex::new(State { count: START, ..State::default() });
        let fake = Arc::new(Self { manner, state });
        let accepting = fake.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (fake, stream) = (accepting.clone(), stream.unwrap());
                // A connection that breaks is over: the load has left.
                thread::spawn(move || fake.serve(stream));
            }
        });
        (fake, addr)
    }

    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte)?;
                head.push(byte[0]);
            }
            let many = head.windows(10).any(|window| window == b"live-likes");
            let target = str::from_utf8(head.split(|&byte| byte == b' ').nth(1).unwrap()).unwrap();
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let names: Vec<_> = query.split('&').filter_map(|pair| pair.strip_prefix("post=")).collect();
            let mut state = self.state.lock().unwrap();
            let lie = u64::from(self.manner == Manner::Lies && state.likes > 0);
            let fails = self.manner == Manner::Fails && state.likes == FAULTY - 1;
            let (code, count) = match path {
                "/liveLikes" if self.manner != Manner::IsFull => {
                    drop(state);
                    return if many { self.watch_many(stream) } else { self.watch(stream) };
                }
                "/likes" if head.windows(12).any(|window| window == b"event-stream") => {
                    drop(state);
                    return self.stream(stream);
                }
                "/like" if names.is_empty() => {
                    drop(state);
                    self.put()?
                }
                "/like" => {
                    let (likes, version) = self.like_post(&mut state, names[0])?;
                    let refused = self.manner == Manner::Refuses && state.likes == FAULTY;
                    let code = if fails { 500 } else { 200 };
                    let body = format!(r#"{{"numLikes":{likes},"liked":{},"version":{version}}}"#, !refused);
                    drop(state);
                    answer(&mut stream, code, &body)?;
                    continue;
                }
                "/likes" if !names.is_empty() => {
                    let counts = names[1..].iter().map(|name| {
                        let (likes, version) = state.posts.get(*name).copied().unwrap_or_default();
                        format!(r#"{{"post":"{name}","numLikes":{},"version":{version}}}"#, likes + lie)
                    });
                    let body = format!(r#"{{"posts":[{}]}}"#, counts.collect::<Vec<_>>().join(","));
                    return answer(&mut stream, 200, &body);
                }
                "/likes" => (200, state.count + if state.posts.is_empty() { lie } else { 0 }),
                _ => (503, 0),
            };
            let body = if code == 200 { format!("{{\"numLikes\":{count}}}") } else { "full\n".to_owned() };
            answer(&mut stream, code, &body)?;
            if head.windows(5).any(|window| window == b"close") {
                return Ok(());
            }
        }
    }

    fn put(&self) -> io::Result<(u16, u64)> {
        let mut state = self.state.lock().unwrap();
        self.like(&mut state)?;
        let count = match self.manner {
            Manner::Repeats if state.likes == FAULTY => state.count - 1,
            Manner::SkipsBack if state.likes == FAULTY => state.count - 2,
            _ => state.count,
        };
        let code = if self.manner == Manner::Fails && state.likes == FAULTY { 500 } else { 200 };
        Ok((code, count))
    }

    fn watch(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        {
            let mut state = self.state.lock().unwrap();
            stream.write_all(UPGRADED)?;
            let low = u64::from(self.manner == Manner::StartsLow);
            stream.write_all(&text(&(state.count - low).to_string()))?;
            state.clients.push(stream.try_clone()?);
        }
        loop {
            let (first, payload) = read_frame(&mut stream)?;
            let mut state = self.state.lock().unwrap();
            match first {
                0x81 if payload == br#"{"type":"like"}"# => self.like(&mut state)?,
                0x8a if payload == b"awake?" => state.pongs += 1,
                _ => return Ok(()),
            }
        }
    }

    fn stream(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.write_all(b"HTTP/1.1 200 So\r\nContent-Type: text/event-stream\r\n\r\n")?;
        let mut state = self.state.lock().unwrap();
        stream.write_all(&event(&state.count.to_string()))?;
        state.streams.push(stream);
        Ok(())
    }

    fn like(&self, state: &mut State) -> io::Result<()> {
        state.likes += 1;
        state.count += 1;
        let now = state.likes == FAULTY;
        let count = state.count;
        let mut frame = text(&count.to_string());
        let mut spared = None;
        match self.manner {
            Manner::Coalesces if !state.likes.is_multiple_of(10) => return Ok(()),
            Manner::Pings => frame = [b"\x89\x06awake?".as_slice(), &frame].concat(),
            Manner::Repeats if now => frame = frame.repeat(2),
            Manner::SkipsBack if now => frame = [frame, text(&(count - 2).to_string())].concat(),
            Manner::Loses if now => {
                state.count -= 1;
                return Ok(());
            }
            Manner::Forgets if state.likes >= FAULTY => spared = Some(1),
            Manner::Doubles if now => {
                state.count += 1;
                frame = text(&state.count.to_string());
            }
            Manner::Drops if now => state.clients[0].shutdown(std::net::Shutdown::Both)?,
            Manner::Babbles if now => frame = text("twenty-one"),
            Manner::SendsBinary if now => frame[0] = 0x82,
            _ => {}
        }
        let mut events = event(&state.count.to_string());
        match self.manner {
            Manner::Pings => events.splice(..0, *b":\n\n").for_each(drop),
            Manner::Repeats if now => events = events.repeat(2),
            Manner::Babbles if now => events = event("\"twenty-one\""),
            Manner::Forgets if state.likes >= FAULTY => events.clear(),
            _ => {}
        }
        for client in &mut state.streams {
            let pieces = if self.manner == Manner::Dribbles { 1 } else { events.len().max(1) };
            let _ = events.chunks(pieces).try_for_each(|piece| client.write_all(piece));
        }
        for (id, client) in state.clients.iter_mut().enumerate() {
            let pieces = if self.manner == Manner::Dribbles { 1 } else { frame.len() };
            // One that has left takes nothing.
            let _ = frame
                .chunks(pieces)
                .try_for_each(|piece| client.write_all(if spared == Some(id) { b"" } else { piece }));
        }
        Ok(())
    }

    fn watch_many(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.write_all(UPGRADED)?;
        loop {
            let (first, payload) = read_frame(&mut stream)?;
            let mut state = self.state.lock().unwrap();
            let Some(message) = (first == 0x81).then(|| serde_json::from_slice::<Value>(&payload).unwrap()) else {
                return Ok(());
            };
            let post = message["post"].as_str().unwrap();
            if message["type"] == "watch" {
                stream.write_all(&told("count", post, state.posts.get(post).copied().unwrap_or_default()))?;
                state.watchers.push((post.to_owned(), stream.try_clone()?));
                continue;
            }
            let count = self.like_post(&mut state, post)?;
            let refused = self.manner == Manner::Refuses && state.likes == FAULTY;
            stream.write_all(&told(if refused { "refused" } else { "answer" }, post, count))?;
        }
    }

    fn like_post(&self, state: &mut State, post: &str) -> io::Result<(u64, u64)> {
        state.likes += 1;
        let (now, version) = (state.likes == FAULTY, state.likes);
        let count = state.posts.entry(post.to_owned()).or_default();
        let before = *count;
        match self.manner {
            Manner::Loses if now => return Ok(before),
            Manner::Doubles if now => *count = (before.0 + 2, version),
            _ => *count = (before.0 + 1, version),
        }
        let count = *count;
        let mut frame = told("count", post, count);
        let mut spared = false;
        match self.manner {
            Manner::Forgets if state.likes >= FAULTY => spared = true,
            Manner::Repeats if now => frame = frame.repeat(2),
            Manner::SkipsBack if now => frame = [frame, told("count", post, before)].concat(),
            Manner::Drops if now => state.watchers[0].1.shutdown(std::net::Shutdown::Both)?,
            Manner::Babbles if now => frame = text("twenty-one"),
            _ => {}
        }
        for (watched, client) in &mut state.watchers {
            if watched == post && !std::mem::take(&mut spared) {
                let _ = client.write_all(&frame); // one that has left takes nothing
            }
        }
        Ok(count)
    }
}

const UPGRADED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

fn answer(stream: &mut TcpStream, code: u16, body: &str) -> io::Result<()> {
    let length = body.len();
    stream.write_all(format!("HTTP/1.1 {code} So\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes())
}

fn read_frame(stream: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 6];
    stream.read_exact(&mut head)?;
    let mut payload = vec![0; usize::from(head[1] & 0x7f)];
    stream.read_exact(&mut payload)?;
    Ok((head[0], payload.iter().zip(head[2..].iter().cycle()).map(|(byte, mask)| byte ^ mask).collect()))
}

fn told(kind: &str, post: &str, (likes, version): (u64, u64)) -> Vec<u8> {
    let liked = if kind == "answer" { r#","liked":true"# } else { "" };
    text(&format!(r#"{{"type":"{kind}","post":"{post}","numLikes":{likes}{liked},"version":{version}}}"#))
}

fn event(count: &str) -> Vec<u8> {
    format!("data: {{\"type\":\"count\",\"numLikes\":{count}}}\n\n").into_bytes()
}

fn text(text: &str) -> Vec<u8> {
    [&[0x81, text.len() as u8], text.as_bytes()].concat()
}

/// The time after which a server that says nothing more has lost likes.
const BRIEFLY: &str = "--timeout 1";

/// Runs the load with these flags; what it failed for, if it did, and what it reports.
fn load(addr: SocketAddr, flags: &str) -> (Option<Kind>, Report) {
    let flags = format!("--addr {addr} {flags}");
    let options = Options::parse(lexopt::Parser::from_args(flags.split_whitespace())).unwrap().unwrap();
    let mut report = Report::new();
    let failure = run(&options, &mut report).err();
    if let Some(failure) = &failure {
        println!("{failure}");
    }
    (failure.map(|failure| failure.kind), report)
}

const CLOSED: &str = "--mode closed --clients 5 --likers 2 --likes 20 --warmup 2 --timeout 10";
const STEADY: &str = "--mode steady --clients 5 --likes 20 --warmup 2 --timeout 10";
const STORM: &str = "--mode storm --clients 5 --likers 2 --likes 200 --timeout 10";
const PUT: &str = "--mode put --clients 2 --connections 1 --warmup 0 --likes 20 --timeout 10";

fn verdict(manner: Manner, flags: &str) -> Option<Kind> {
    let (_, addr) = Fake::start(manner);
    load(addr, flags).0
}

#[test]
fn an_honest_server_passes_in_every_mode_and_all_is_counted() {
    let (_, addr) = Fake::start(Manner::Honest);
    let (failure, report) = load(addr, &format!("{CLOSED} --stuck 1 --burst 2 --hold 0.1"));
    assert_eq!(failure, None);
    assert!(report["socket_bytes_per_stuck_client"].is_u64(), "{report:?}");
    assert_eq!(report["start"], START);
    assert_eq!(report["end"], START + 22);
    assert_eq!(report["likes_shown_to_all"], 20);
    assert_eq!(report["deliveries"], 100);
    assert_eq!(report["stuck_dropped"], 0);
    let (failure, report) = load(addr, STEADY);
    assert_eq!(failure, None);
    assert_eq!(report["end"], START + 44);
    assert_eq!(report["deliveries"], 100);
    let (failure, report) = load(addr, STORM);
    assert_eq!(failure, None);
    assert_eq!(report["end"], START + 244);
    assert_eq!(report["frames_per_client"]["min"], 200);
    assert_eq!(report["complete"], true);
    let (failure, report) = load(addr, "--mode put --clients 3 --connections 4 --warmup 10 --likes 99 --timeout 10");
    assert_eq!(failure, None);
    assert_eq!(report["end"], START + 353);
    assert_eq!(report["deliveries"], 297);
    assert_eq!(load(addr, "--mode connect --clients 20 --stuck 2 --hold 0.1 --connecting 3 --timeout 10").0, None);
    assert_eq!(load(addr, &format!("{STORM} --sources 3")).0, None);
}

#[test]
fn a_server_may_leap_to_the_newest_count() {
    let (_, addr) = Fake::start(Manner::Coalesces);
    let (failure, report) = load(addr, STORM);
    assert_eq!(failure, None);
    assert_eq!(report["frames_per_client"]["max"], 20);
}

#[test]
fn frames_may_come_in_pieces() {
    assert_eq!(verdict(Manner::Dribbles, CLOSED), None);
    assert_eq!(verdict(Manner::Dribbles, STORM), None);
}

#[test]
fn pings_are_answered() {
    let (fake, addr) = Fake::start(Manner::Pings);
    assert_eq!(load(addr, STORM).0, None);
    assert_eq!(fake.state.lock().unwrap().pongs, 5 * 200);
}

#[test]
fn events_are_judged_as_frames_are() {
    let flags = format!("{CLOSED} --events 3");
    for (manner, kind) in [
        (Manner::Honest, None),
        (Manner::Dribbles, None),
        (Manner::Pings, None),
        (Manner::Repeats, Some(Kind::Repeated)),
        (Manner::Babbles, Some(Kind::Malformed)),
        (Manner::Forgets, Some(Kind::Lost)),
    ] {
        assert_eq!(verdict(manner, &format!("{flags} {BRIEFLY}")), kind, "{manner:?}");
    }
}

#[test]
fn a_repeated_count_is_caught() {
    assert_eq!(verdict(Manner::Repeats, CLOSED), Some(Kind::Repeated));
    assert_eq!(verdict(Manner::Repeats, STORM), Some(Kind::Repeated));
    assert_eq!(verdict(Manner::Repeats, PUT), Some(Kind::Repeated));
}

#[test]
fn a_count_that_goes_back_is_caught() {
    assert_eq!(verdict(Manner::SkipsBack, CLOSED), Some(Kind::Backwards));
    assert_eq!(verdict(Manner::SkipsBack, STORM), Some(Kind::Backwards));
    assert_eq!(verdict(Manner::SkipsBack, PUT), Some(Kind::Backwards));
    assert_eq!(verdict(Manner::StartsLow, "--mode connect --clients 1 --timeout 10"), Some(Kind::Backwards));
}

#[test]
fn a_lost_like_is_caught() {
    assert_eq!(verdict(Manner::Loses, &format!("{CLOSED} {BRIEFLY}")), Some(Kind::Lost));
    assert_eq!(verdict(Manner::Loses, &format!("{STEADY} {BRIEFLY}")), Some(Kind::Lost));
    assert_eq!(verdict(Manner::Loses, &format!("{STORM} {BRIEFLY}")), Some(Kind::Lost));
    assert_eq!(
        verdict(Manner::Loses, "--mode put --connections 20 --warmup 0 --likes 20 --timeout 1"),
        Some(Kind::Lost)
    );
}

#[test]
fn a_count_that_one_client_is_not_shown_is_caught() {
    assert_eq!(verdict(Manner::Forgets, &format!("{CLOSED} {BRIEFLY}")), Some(Kind::Lost));
    assert_eq!(verdict(Manner::Forgets, &format!("{STORM} {BRIEFLY}")), Some(Kind::Lost));
    assert_eq!(verdict(Manner::Forgets, &format!("{PUT} {BRIEFLY}")), Some(Kind::Lost));
}

#[test]
fn a_like_counted_twice_is_caught() {
    assert_eq!(verdict(Manner::Doubles, CLOSED), Some(Kind::Phantom));
    assert_eq!(verdict(Manner::Doubles, STEADY), Some(Kind::Phantom));
    assert_eq!(verdict(Manner::Doubles, STORM), Some(Kind::Phantom));
    assert_eq!(verdict(Manner::Doubles, PUT), Some(Kind::Phantom));
    assert_eq!(verdict(Manner::Lies, CLOSED), Some(Kind::Phantom));
}

#[test]
fn a_dropped_client_is_caught() {
    assert_eq!(verdict(Manner::Drops, CLOSED), Some(Kind::Dropped));
    assert_eq!(verdict(Manner::Drops, STORM), Some(Kind::Dropped));
}

const MANY_STORM: &str = "--mode storm --posts 7 --watch 3 --clients 5 --likers 2 --likes 200 --timeout 10";
const MANY_PUT: &str = "--mode put --posts 7 --connections 4 --warmup 10 --likes 200 --timeout 10";
const MANY_CONNECT: &str = "--mode connect --posts 7 --watch 7 --clients 5 --timeout 10";

#[test]
fn an_honest_server_of_many_posts_passes_also_when_it_is_measured_again() {
    let (fake, addr) = Fake::start(Manner::Honest);
    for flags in [MANY_STORM, MANY_PUT, MANY_CONNECT, MANY_STORM] {
        assert_eq!(load(addr, flags).0, None, "{flags}");
    }
    let state = fake.state.lock().unwrap();
    assert_eq!(state.posts.values().map(|(likes, _)| likes).sum::<u64>(), 610);
    assert_eq!(state.count, START, "none is for the count that has no name");
}

#[test]
fn a_breach_of_one_post_is_caught() {
    for (manner, kind) in [
        (Manner::Loses, Kind::Lost),
        (Manner::Forgets, Kind::Lost),
        (Manner::Doubles, Kind::Phantom),
        (Manner::Lies, Kind::Phantom),
        (Manner::Repeats, Kind::Repeated),
        (Manner::SkipsBack, Kind::Backwards),
        (Manner::Drops, Kind::Dropped),
        (Manner::Babbles, Kind::Malformed),
        (Manner::Refuses, Kind::Malformed),
    ] {
        assert_eq!(verdict(manner, &format!("{MANY_STORM} {BRIEFLY}")), Some(kind), "{manner:?}");
    }
    for (manner, kind) in [
        (Manner::Loses, Kind::Lost),
        (Manner::Doubles, Kind::Phantom),
        (Manner::Lies, Kind::Phantom),
        (Manner::Fails, Kind::Malformed),
        (Manner::Refuses, Kind::Lost),
    ] {
        assert_eq!(verdict(manner, MANY_PUT), Some(kind), "{manner:?}");
    }
}

#[test]
fn what_is_no_count_is_caught() {
    assert_eq!(verdict(Manner::Babbles, CLOSED), Some(Kind::Malformed));
    assert_eq!(verdict(Manner::SendsBinary, STORM), Some(Kind::Malformed));
    assert_eq!(verdict(Manner::Fails, PUT), Some(Kind::Malformed));
}

#[test]
fn a_server_that_cannot_be_measured_is_no_success() {
    assert_eq!(verdict(Manner::IsFull, CLOSED), Some(Kind::Setup));
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(load(nobody, CLOSED).0, Some(Kind::Setup));
    let (_, addr) = Fake::start(Manner::Honest);
    assert_eq!(load(addr, &format!("{CLOSED} --pid 4000000000")).0, Some(Kind::Setup));
}

#[test]
fn a_lenient_run_measures_on_and_counts_breaches() {
    for (manner, flags, kind, times) in [
        (Manner::Repeats, STORM, "repeated", 5),
        (Manner::SkipsBack, STORM, "backwards", 5),
        (Manner::Loses, CLOSED, "lost", 2),
        (Manner::Drops, CLOSED, "dropped", 1),
        (Manner::Fails, PUT, "malformed", 1),
    ] {
        let (_, addr) = Fake::start(manner);
        let (failure, report) = load(addr, &format!("{flags} --no-check"));
        assert_eq!(failure, None, "{manner:?}");
        assert_eq!(report["breaches"][kind], times, "{manner:?}");
    }
}

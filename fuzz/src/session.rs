//! Any bytes as a whole connection.
//!
//! A real connection over the loopback, served as the server does; the peer sends the bytes, then its end, and reads
//! all that comes back. That is held against the bytes once more, read here by the letter of RFC 6455: which answers
//! they must get, which likes they hold, and how it must end. Connections follow one another on one counter, so that
//! none costs threads of its own; so what is compared leaves out the number of likes before it.

use crate::{
    draw::Draw,
    error::Result,
    http::Refusal,
    likes::Likes,
    limits::Limits,
    message::says_like,
    request::{Found, find, narrow},
    server::Server,
    server::page::Page,
    server::service::{Kind, Service},
    store::{
        Store,
        change::{self, BatchId, Change, ChangeKind, Count, Post, VisitorKey},
    },
    stream::Stream,
    websocket::{ClientMessage, Kind as Says},
};
use serde_json::{Value, json};
use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        mpsc::{Receiver, Sender, TryRecvError, channel},
    },
    thread,
    time::Duration,
};

/// Longer than anybody waits: each connection comes to its end by itself.
const NEVER: Duration = Duration::from_secs(3600);

/// Likes that a connection may send. Fewer than are shown one by one in a round, so that every count is seen.
const LIKES: u64 = 12;

/// Longer inputs only take longer.
const LONGEST: usize = 4096;

/// A whole connection: the same bytes get the same answers, however they are split, and those that they must.
pub fn session(bytes: &[u8]) {
    static HOUSE: LazyLock<Mutex<House>> = LazyLock::new(|| Mutex::new(House::new()));
    let bytes = &bytes[..bytes.len().min(LONGEST)];
    let house = HOUSE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut draw = Draw::from(bytes);
    let whole = house.check(bytes, &[bytes], Vec::new());
    let most = [2, 4, 16][draw.up_to(2)];
    let mut pieces = draw.split(bytes, most);
    let early = if draw.up_to(1) == 0 && !pieces.is_empty() { pieces.remove(0).to_vec() } else { Vec::new() };
    let split = house.check(bytes, &pieces, early);
    assert_eq!(whole, split, "in pieces of {:?}", pieces.iter().map(|piece| piece.len()).collect::<Vec<_>>());
}

/// A number in memory.
struct Number(u64);

impl Store for Number {
    fn count(&mut self, _: &Post) -> Result<Count> {
        Ok(Count { likes: self.0, version: self.0 })
    }

    fn apply(&mut self, _: BatchId, changes: &[Change]) -> Result<Vec<change::Outcome>> {
        let apply = |change: &Change| match change.kind {
            ChangeKind::Likes(_) | ChangeKind::Visitor { liked: true, .. } => {
                self.0 += change.likes();
                change::Outcome::Applied(Count { likes: self.0, version: self.0 })
            }
            _ => change::Outcome::Refused(change::Refused::Unlikes),
        };
        Ok(changes.iter().map(apply).collect())
    }
}

/// A server and its counter, and the thread that serves one connection after another.
struct House {
    likes: Likes,
    service: Service,
    limits: Limits,
    listener: TcpListener,
    /// Connections to be served, with the bytes that were read from them before.
    accepted: Sender<(Arc<Stream>, Vec<u8>)>,
    /// One for each connection that has been served.
    served: Receiver<()>,
}

/// What a connection came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    answers: Vec<Answer>,
    /// The payloads of pongs.
    pongs: Vec<Vec<u8>>,
    /// Of a client that speaks JSON: what it is told at once of what it says.
    replies: Vec<Reply>,
    /// The payload of a close frame.
    close: Option<Vec<u8>>,
    likes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    /// With how many watch, if that is asked.
    Pong(Option<u64>),
    Watching(u64),
    /// With this status.
    Refused(u64),
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    /// Without those that differ from one time to the next.
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    closes: bool,
}

impl House {
    fn new() -> Self {
        let mut limits = narrow();
        (limits.message_bytes, limits.fragments, limits.likes_per_connection) = (200, 6, Some(LIKES));
        (limits.request_time, limits.keep_alive, limits.ping_after, limits.pong_within) = (NEVER, NEVER, NEVER, NEVER);
        (limits.write_deadline, limits.close_within) = (NEVER, NEVER);
        let likes = Likes::with_store(Number(16)).unwrap();
        let server = Server::new(likes.clone()).page(Page::new("<title>likes</title>")).limits(limits.clone());
        let service = server.allow_origin("https://blog.example").into_service().unwrap();
        let (accepted, connections) = channel::<(Arc<Stream>, _)>();
        let (done, served) = channel();
        let serving = service.clone();
        thread::spawn(move || {
            for (stream, early) in connections {
                let place =
                    serving.enter(&stream, Kind::Public { loopback: true }).expect("it holds no other connection");
                drop(stream);
                place.serve(early);
                if done.send(()).is_err() {
                    break;
                }
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { likes, service, limits, listener, accepted, served }
    }

    /// Sends bytes in pieces, of which the server reads each by itself, and then an end. Returns all that comes back.
    fn send(&self, pieces: &[&[u8]], early: Vec<u8>) -> Vec<u8> {
        let mut client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        let server = Arc::new(Stream::new(self.listener.accept().unwrap().0).unwrap());
        client.set_nodelay(true).unwrap();
        client.set_nonblocking(true).unwrap();
        self.accepted.send((server.clone(), early)).unwrap();
        let mut answers = Vec::new();
        for piece in pieces {
            client.write_all(piece).unwrap();
            let mut looks = 0;
            while rustix::io::ioctl_fionread(&*server).unwrap() > 0 {
                // Until its peer's end has come, a server that has no more to say goes on reading.
                assert_eq!(self.served.try_recv(), Err(TryRecvError::Empty), "it broke off");
                match client.read_to_end(&mut answers) {
                    Err(e) if e.kind() != ErrorKind::WouldBlock => panic!("it broke off: {e}"),
                    _ => {}
                }
                if stream_begins(&answers).is_some() {
                    break; // what comes after its request is not read
                }
                looks += 1;
                if looks > 20 {
                    thread::yield_now();
                }
            }
        }
        drop(server);
        client.set_nonblocking(false).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        // A stream has no end of its own. Once it has begun, the peer breaks off.
        let mut bytes = [0; 4096];
        while !stream_begins(&answers).is_some_and(|start| answers[start..].windows(2).any(|end| end == b"\n\n")) {
            match client.read(&mut bytes).expect("a connection ends in order") {
                0 => break,
                read => answers.extend(&bytes[..read]),
            }
        }
        rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
        drop(client);
        self.served.recv().expect("the server panicked");
        answers
    }

    fn check(&self, bytes: &[u8], pieces: &[&[u8]], early: Vec<u8>) -> Outcome {
        let before = self.likes.count();
        let answers = self.send(pieces, early);
        let after = self.likes.flush(NEVER).unwrap();
        assert!(!self.service.is_busy() && self.likes.watching() == 0, "it has left something behind");
        let outcome = self.outcome(bytes, &answers, before);
        assert_eq!(after - before, outcome.likes, "likes counted, and likes sent");
        outcome
    }

    /// Reads what was sent and what came back side by side.
    fn outcome(&self, mut sent: &[u8], mut came: &[u8], before: u64) -> Outcome {
        let mut outcome = Outcome::default();
        loop {
            let found = match find([sent], &self.limits) {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(refusal) => {
                    outcome.answers.push(rejected(&mut came, &refusal));
                    break;
                }
            };
            let body = match &found.body {
                _ if found.holds_back() => 0,
                Ok(Some(body)) => *body,
                Ok(None) => break,
                Err(refusal) => {
                    outcome.answers.push(rejected(&mut came, refusal));
                    break;
                }
            };
            sent = &sent[found.head + body..];
            let answer = Answer::read(&mut came, found.is("HEAD"));
            let answer = accounted(&found, answer, before, &mut outcome.likes);
            let (upgraded, closes) = (answer.status == 101, answer.closes);
            let must_close = !found.request.keep_alive || found.holds_back();
            assert!(closes || upgraded || !must_close, "{found:?} {answer:?}");
            outcome.answers.push(answer);
            if upgraded {
                assert!(found.asks_to_upgrade() && found.path() == "/liveLikes" && !found.holds_back(), "{found:?}");
                let speaks_json = outcome.answers.iter().any(|answer| {
                    answer.fields.iter().any(|(name, value)| name == "sec-websocket-protocol" && value == "live-likes")
                });
                let talk = Talk::read(sent, &self.limits, outcome.likes, speaks_json);
                if speaks_json {
                    told(&talk, came, before, &mut outcome);
                } else {
                    shown(&talk, came, before, &mut outcome);
                }
                outcome.likes += talk.likes;
                return outcome;
            }
            if closes {
                break;
            }
        }
        assert!(came.is_empty(), "answered without being asked: {}", came.escape_ascii());
        outcome
    }
}

/// Where the events begin, if it is they that came last.
fn stream_begins(answers: &[u8]) -> Option<usize> {
    let kind = b"\r\nContent-Type: text/event-stream\r\n";
    let field = answers.windows(kind.len()).position(|window| window == kind)?;
    Some(field + 4 + answers[field..].windows(4).position(|end| end == b"\r\n\r\n")?)
}

/// What a client of bare numbers is shown.
fn shown(talk: &Talk, mut came: &[u8], before: u64, outcome: &mut Outcome) {
    let mut shown = None;
    while let Some(text) = next_text(&mut came, outcome) {
        let count: u64 = text.parse().unwrap();
        assert_eq!(text, count.to_string());
        let next = shown.map_or(before + outcome.likes, |shown| shown + 1);
        assert_eq!(count, next, "every count is shown, in order");
        shown = Some(count);
    }
    assert!(shown.is_some_and(|shown| shown <= before + outcome.likes + talk.likes), "{shown:?} {talk:?}");
    ended(talk, outcome);
}

/// What a client that speaks JSON is told. Of its changes it need not be told, since its end may come before.
fn told(talk: &Talk, mut came: &[u8], before: u64, outcome: &mut Outcome) {
    let (mut version, mut answers, mut replies) = (0, 0, Vec::new());
    while let Some(text) = next_text(&mut came, outcome) {
        let told: Value = serde_json::from_str(&text).unwrap();
        let likes = told["numLikes"].as_u64();
        match (told["type"].as_str().unwrap(), told["status"].as_u64()) {
            ("pong", None) => replies.push(Reply::Pong(told["watching"].as_u64())),
            ("watching", None) => replies.push(Reply::Watching(told["watching"].as_u64().unwrap())),
            ("refused", Some(status)) => replies.push(Reply::Refused(status)),
            ("answer", None) => answers += 1,
            ("count", None) => {
                assert_eq!(told.get("boot").is_some(), version == 0, "{told}");
                assert!(likes >= Some(version) && talk.watches, "{told} after {version}");
                version = likes.unwrap();
            }
            _ => panic!("{told}"),
        }
        assert!(likes.is_none_or(|likes| (before..=before + outcome.likes + talk.likes).contains(&likes)), "{told}");
        assert!(likes.is_none() || told["version"] == json!(likes), "{told}");
    }
    assert!(answers <= talk.likes, "{answers} {talk:?}");
    assert_eq!(replies, talk.replies);
    assert!(version > 0 || !talk.watches);
    outcome.replies = replies;
    ended(talk, outcome);
}

/// The next text message, past the pongs.
fn next_text(came: &mut &[u8], outcome: &mut Outcome) -> Option<String> {
    while !came.is_empty() {
        let frame = Frame::read(came).filter(|frame| frame.whole).expect("whole frames");
        assert!(outcome.close.is_none(), "a frame after the close frame");
        assert!(frame.last && !frame.reserved && !frame.masked && frame.shortest, "{frame:?}");
        assert!(frame.opcode == 1 || frame.payload.len() <= 125, "{frame:?}");
        match frame.opcode {
            1 => return Some(String::from_utf8(frame.payload).unwrap()),
            8 => outcome.close = Some(frame.payload),
            10 => outcome.pongs.push(frame.payload),
            _ => panic!("{frame:?}"),
        }
    }
    None
}

/// How a WebSocket has ended.
fn ended(talk: &Talk, outcome: &Outcome) {
    assert_eq!(outcome.pongs, talk.pongs);
    let end = match outcome.close.as_deref() {
        None => End::Gone,
        Some([]) => End::Closed(None),
        Some([high, low, reason @ ..]) => {
            assert!(std::str::from_utf8(reason).is_ok());
            End::Closed(Some(u16::from_be_bytes([*high, *low])))
        }
        Some([_]) => panic!("half a close code"),
    };
    assert!(talk.ends.contains(&end), "{end:?}, where one of {:?} is right", talk.ends);
}

/// The answer to what is no request.
fn rejected(came: &mut &[u8], refusal: &Refusal) -> Answer {
    let answer = Answer::read(came, false);
    assert_eq!((answer.status, answer.closes), (refusal.status, true), "{refusal:?}");
    answer
}

/// An answer without the count in it, which must be the right one; a like is added to `likes`.
fn accounted(found: &Found, mut answer: Answer, before: u64, likes: &mut u64) -> Answer {
    const KNOWN: [u16; 12] = [101, 200, 204, 303, 304, 400, 403, 404, 405, 426, 429, 501];
    assert!(KNOWN.contains(&answer.status), "{found:?} {answer:?}");
    let asks_to_like = found.path() == "/like" && (found.is("PUT") || found.is("POST"));
    match (found.path(), answer.status) {
        ("/like", 200 | 303) if asks_to_like => {
            *likes += 1;
            assert!(*likes <= LIKES);
        }
        ("/like", status) => assert!(status != 200 && (status != 429 || *likes == LIKES), "{found:?} {answer:?}"),
        ("/metrics", 200) => answer.body.clear(),
        _ => {}
    }
    if answer.streams() {
        assert!(found.path() == "/likes" && found.request.accepts("text/event-stream") && answer.closes, "{found:?}");
        let body = String::from_utf8(std::mem::take(&mut answer.body)).unwrap();
        if !found.is("HEAD") {
            // The peer's end may be answered with a heartbeat.
            let event = body.strip_suffix(":\n\n").unwrap_or(&body);
            let data = event.strip_prefix("data: ").and_then(|event| event.strip_suffix("\n\n"));
            let told: Value = serde_json::from_str(data.expect("an event")).unwrap();
            let likes = before + *likes;
            let expected = json!({"type": "count", "numLikes": likes, "version": likes, "boot": told["boot"]});
            assert_eq!(told, expected);
        }
    } else if answer.status == 200 && matches!(found.path(), "/like" | "/likes") && !found.is("HEAD") {
        // Where parameters are given, more may follow.
        let body = std::mem::take(&mut answer.body);
        let rest = body.strip_prefix(format!("{{\"numLikes\":{}", before + *likes).as_bytes());
        assert!(rest.is_some_and(|rest| rest == b"}" || rest.starts_with(b",\"version\":")), "{body:?}");
    }
    answer
}

impl Answer {
    fn read(bytes: &mut &[u8], to_head: bool) -> Self {
        let mut storage = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut storage);
        let length = match response.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            result => panic!("no answer: {result:?} {}", bytes.escape_ascii()),
        };
        let lines = bytes[..length].iter().zip(&bytes[1..length]).filter(|pair| *pair.1 == b'\n');
        assert!(lines.clone().count() > 0 && lines.clone().all(|pair| *pair.0 == b'\r'), "a bare LF");
        assert_eq!(response.version, Some(1));
        let status = response.code.unwrap();
        let text = |field: &httparse::Header<'_>| {
            (field.name.to_ascii_lowercase(), String::from_utf8_lossy(field.value).into_owned())
        };
        let fields: Vec<_> = response.headers.iter().map(text).collect();
        let all = |name: &str| fields.iter().filter(|field| field.0 == name).map(|field| &field.1).collect::<Vec<_>>();
        let has_body = status >= 200 && !matches!(status, 204 | 304);
        let lengths = all("content-length");
        let streams = all("content-type").iter().any(|value| value.as_str() == "text/event-stream");
        assert_eq!(lengths.len(), usize::from(has_body && !streams), "{fields:?}");
        assert_eq!(all("date").len(), usize::from(status >= 200), "{fields:?}");
        let whole = if streams { bytes.len() - length } else { 0 };
        let body = lengths.first().filter(|_| !to_head).map_or(whole, |length| length.parse().unwrap());
        let closes = all("connection").iter().any(|value| value.as_str() == "close");
        let body = bytes[length..length + body].to_vec();
        *bytes = &bytes[length + body.len()..];
        let same = |field: &(String, String)| !matches!(field.0.as_str(), "date" | "content-length");
        Self { status, fields: fields.into_iter().filter(same).collect(), body, closes }
    }

    /// Whether it is a stream of events.
    fn streams(&self) -> bool {
        self.fields.contains(&("content-type".to_owned(), "text/event-stream".to_owned()))
    }
}

/// One frame, unmasked; of one that is not whole, what there is.
#[derive(Debug)]
struct Frame {
    last: bool,
    /// A reserved bit is set.
    reserved: bool,
    opcode: u8,
    masked: bool,
    length: u64,
    /// The length is in its shortest form.
    shortest: bool,
    payload: Vec<u8>,
    whole: bool,
}

impl Frame {
    /// RFC 6455 section 5.2. `None` where not even the header is whole.
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let mut take = |count: usize| {
            let (taken, rest) = bytes.split_at_checked(count)?;
            *bytes = rest;
            Some(taken)
        };
        let [first, second] = take(2)?.try_into().ok()?;
        let length = match second & 0x7f {
            126 => u64::from(u16::from_be_bytes(take(2)?.try_into().ok()?)),
            127 => u64::from_be_bytes(take(8)?.try_into().ok()?),
            length => u64::from(length),
        };
        let shortest = match second & 0x7f {
            126 => length > 125,
            127 => length > 65535,
            _ => true,
        };
        let masked = second & 0x80 != 0;
        let mask = if masked { take(4)? } else { &[0; 4] };
        let there = usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len());
        let (payload, rest) = bytes.split_at(there);
        *bytes = rest;
        Some(Self {
            last: first & 0x80 != 0,
            reserved: first & 0x70 != 0,
            opcode: first & 0x0f,
            masked,
            length,
            shortest,
            payload: payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect(),
            whole: there as u64 == length,
        })
    }
}

/// How a WebSocket ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The peer's end came first.
    Gone,
    /// By a close frame, with this code.
    Closed(Option<u16>),
}

/// What a client's frames must come to.
#[derive(Debug, Default)]
struct Talk {
    likes: u64,
    /// It has asked to be shown the count.
    watches: bool,
    /// It is shown the count.
    watching: bool,
    replies: Vec<Reply>,
    pongs: Vec<Vec<u8>>,
    /// Where a frame is wrong in several ways, each of its codes is right.
    ends: Vec<End>,
}

impl Talk {
    /// `liked`: how many likes the connection has sent before.
    fn read(mut bytes: &[u8], limits: &Limits, liked: u64, speaks_json: bool) -> Self {
        let mut talk = Self::default();
        // Of a message in several frames: its opcode, its bytes, its frames.
        let mut begun: Option<(u8, Vec<u8>, usize)> = None;
        while talk.ends.is_empty() {
            let Some(frame) = Frame::read(&mut bytes) else {
                talk.ends.push(End::Gone);
                break;
            };
            let (opcode, control) = (frame.opcode, frame.opcode >= 8);
            let mut codes = Vec::new();
            let mut wrong = |is_wrong: bool, code: u16| {
                if is_wrong {
                    codes.push(End::Closed(Some(code)));
                }
            };
            wrong(frame.reserved || !frame.masked || matches!(opcode, 3..=7 | 11..), 1002);
            wrong(!frame.shortest, 1002);
            wrong(control && (!frame.last || frame.length > 125), 1002);
            wrong(!control && (opcode == 0) != begun.is_some(), 1002);
            let (before, frames) = match &begun {
                Some((_, bytes, frames)) if opcode == 0 => (bytes.len() as u64, frames + 1),
                _ => (0, 1),
            };
            wrong(frame.length.saturating_add(before) > limits.message_bytes as u64, 1009);
            wrong(!control && frames > limits.fragments, 1009);
            if !frame.whole {
                codes.push(End::Gone);
            }
            if !codes.is_empty() {
                talk.ends = codes;
                break;
            }
            match opcode {
                8 => talk.ends = closed(&frame.payload),
                9 => talk.pongs.push(frame.payload),
                10 => {}
                _ => {
                    let (kind, mut message, _) = begun.take().unwrap_or((opcode, Vec::new(), 0));
                    message.extend(frame.payload);
                    if kind == 1
                        && let Err(e) = std::str::from_utf8(&message)
                        && (frame.last || e.error_len().is_some())
                    {
                        talk.ends.push(End::Closed(Some(1007)));
                    } else if !frame.last {
                        begun = Some((kind, message, frames));
                    } else if kind == 2 {
                        talk.ends.push(End::Closed(Some(1003)));
                    } else {
                        let text = str::from_utf8(&message).unwrap();
                        let taken = if speaks_json { talk.hear(text, liked) } else { talk.hear_like(text, liked) };
                        if !taken {
                            talk.ends.push(End::Closed(Some(1008)));
                        }
                    }
                }
            }
        }
        talk
    }

    /// Takes a text for a like. Says whether the connection stays.
    fn hear_like(&mut self, text: &str, liked: u64) -> bool {
        let taken = says_like(text) && liked + self.likes < LIKES;
        self.likes += u64::from(taken);
        taken
    }

    /// Takes a message in JSON, which `dialect` is about. The server has one counter, and remembers no visitors.
    fn hear(&mut self, text: &str, liked: u64) -> bool {
        let Ok(message) = ClientMessage::parse(text) else { return false };
        let post = message.post.as_deref().map(Post::new);
        let bad_visitor =
            message.visitor.as_deref().is_some_and(|name| VisitorKey::of(name, &Post::default()).is_err());
        let nobody = message.visitor.is_none() && message.kind == Says::Like && message.seq.is_some();
        let reply = match message.kind {
            Says::Unlike => Reply::Refused(405),
            _ if matches!(post, Some(Err(_))) => Reply::Refused(400),
            Says::Ping if !message.watching => Reply::Pong(None),
            Says::Ping if post.is_none() => Reply::Pong(Some(self.watching.into())),
            Says::Unwatch => {
                self.watching &= post.is_some();
                return true;
            }
            _ if bad_visitor || nobody || post.is_some() => Reply::Refused(400),
            Says::Watch => {
                (self.watches, self.watching) = (true, true);
                if !message.watching {
                    return true;
                }
                Reply::Watching(1)
            }
            _ if liked + self.likes == LIKES => Reply::Refused(429),
            _ => {
                self.likes += 1;
                return true;
            }
        };
        self.replies.push(reply);
        true
    }
}

/// The answer to a close frame, RFC 6455 sections 5.5.1 and 7.4.
fn closed(payload: &[u8]) -> Vec<End> {
    let [high, low, reason @ ..] = payload else {
        return vec![End::Closed(if payload.is_empty() { None } else { Some(1002) })];
    };
    let code = u16::from_be_bytes([*high, *low]);
    let mut ends = Vec::new();
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        ends.push(End::Closed(Some(1002)));
    }
    if std::str::from_utf8(reason).is_err() {
        ends.push(End::Closed(Some(1007)));
    }
    if ends.is_empty() { vec![End::Closed(Some(code))] } else { ends }
}

//! All connections of the load on one thread: readiness in, counts judged, likes out.
//!
//! What happens for each count is kept to a few instructions and one `read` into a buffer that all share, since the
//! load must not be slower than the server it measures. Edge-triggered readiness saves a second `read` for most
//! counts: one that did not fill the buffer has emptied the socket.

use std::io::{self, ErrorKind, Read};
use std::mem;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use mio::event::Event;
use mio::{Events, Interest, Poll, Token};
use serde_json::Value;

use crate::check::{Checker, Failure, Kind, Result};
use crate::client::{Client, Phase, Role};
use crate::frame::{self, Frame};
use crate::http;
use crate::options::Options;
use crate::posts::{Posts, Told, Watched};

/// A head that has not ended by then is not one.
const HEAD_LIMIT: usize = 16 * 1024;

/// Without a frame for so long, a lenient run takes it that none will come.
const QUIET: Duration = Duration::from_secs(2);

/// The longest wait in one turn, so that the progress bar moves.
const TURN: Duration = Duration::from_millis(100);

/// What the watchers are waited for: every one of them has been shown `target`; of many posts, each its own.
pub struct Goal {
    target: u64,
    /// Counts that are still to be shown.
    missing: usize,
    pub first: Option<Instant>,
    pub last: Option<Instant>,
}

/// The connections and what was seen on them.
pub struct Swarm {
    poll: Poll,
    events: Events,
    addr: SocketAddr,
    /// Shows the likes since `base`.
    pub progress: ProgressBar,
    pub base: u64,
    pub crowd: Crowd,
}

/// All of the swarm but the poll, which is borrowed while its events are handled.
pub struct Crowd {
    pub clients: Vec<Client>,
    pub checker: Checker,
    /// Where there are many.
    posts: Option<Posts>,
    addr: SocketAddr,
    pub goal: Goal,
    /// Counts shown to anybody.
    pub frames: u64,
    /// The newest count shown to anybody.
    pub newest: u64,
    /// From the first step of connecting to the first count, for each client that got there.
    pub arrivals: Vec<Duration>,
    /// Requests that are still to be made, and those whose answer is still to come, made or not.
    unasked: u64,
    unanswered: u64,
    /// From each request to its answer.
    pub answers: Vec<Duration>,
    watchers: usize,
    /// Likes that the first client is still to send, one after another.
    one_by_one: u64,
    /// Clients that have something to send and may send it.
    sending: Vec<usize>,
    request: Vec<u8>,
    upgrade: Vec<u8>,
    stream: Vec<u8>,
    buffer: Vec<u8>,
}

impl Swarm {
    /// A swarm without clients yet.
    ///
    /// # Errors
    ///
    /// When there are no descriptors left.
    pub fn new(options: &Options, start: u64) -> Result<Self> {
        let many = options.posts > 0;
        let posts = many.then(|| Posts::new(options.addr, options.posts, options.skew)).transpose()?;
        let missing = options.clients * options.watch.max(1);
        let poll = Poll::new().map_err(|error| Failure::setup(format!("failed to make a poll: {error}")))?;
        Ok(Self {
            poll,
            events: Events::with_capacity(1024),
            addr: options.addr,
            progress: ProgressBar::hidden(),
            base: start,
            crowd: Crowd {
                clients: Vec::new(),
                checker: Checker::new(start, options.strict),
                posts,
                addr: options.addr,
                goal: Goal { target: 0, missing, first: None, last: None },
                frames: 0,
                newest: 0,
                arrivals: Vec::new(),
                unasked: 0,
                unanswered: 0,
                answers: Vec::new(),
                watchers: options.clients,
                one_by_one: 0,
                sending: Vec::new(),
                request: http::put(options.addr, ""),
                upgrade: http::upgrade(options.addr, many),
                stream: http::events(options.addr),
                buffer: vec![0; 64 * 1024],
            },
        })
    }

    /// Connects everybody: the watchers, then the stuck, then the connections for requests.
    ///
    /// # Errors
    ///
    /// When one is refused, or the time is up.
    pub fn connect(&mut self, options: &Options) -> Result<()> {
        let deadline = Instant::now() + options.timeout;
        let all = options.clients + options.stuck + options.connections;
        while self.crowd.arrivals.len() < all {
            while self.crowd.clients.len() < all
                && self.crowd.clients.len() - self.crowd.arrivals.len() < options.connecting
            {
                let id = self.crowd.clients.len();
                let role = match id {
                    _ if id < options.clients - options.events => Role::Watcher,
                    _ if id < options.clients => Role::Events,
                    _ if id < options.clients + options.stuck => Role::Stuck,
                    _ => Role::Put,
                };
                let source = (options.sources > 1)
                    .then(|| Ipv4Addr::new(127, 0, 0, 1 + (id % usize::from(options.sources)) as u8));
                self.open(id, source, role).map_err(|error| {
                    Failure::setup(format!("failed to connect client {id} to {}: {error}", self.addr))
                })?;
                let watched = (0..options.watch).map(|n| Watched::new((id * options.watch + n) % options.posts));
                self.crowd.clients[id].watched.extend(watched);
            }
            if !self.turn(deadline)? {
                let arrived = self.crowd.arrivals.len();
                return Err(Failure::new(Kind::Late, format!("only {arrived} of {all} clients connected in time")));
            }
            self.progress.set_position(self.crowd.arrivals.len() as u64);
        }
        for client in self.crowd.clients.iter_mut().filter(|client| client.role == Role::Stuck) {
            let deregistered = self.poll.registry().deregister(&mut client.stream);
            deregistered.map_err(|error| Failure::setup(format!("failed to leave a client alone: {error}")))?;
        }
        Ok(())
    }

    fn open(&mut self, id: usize, source: Option<Ipv4Addr>, role: Role) -> io::Result<()> {
        let mut client = Client::connect(self.addr, source, role)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut client.stream, Token(id), interest)?;
        self.crowd.clients.push(client);
        Ok(())
    }

    /// Sends what can be sent, waits for events up to `deadline`, and handles them; false once it has passed.
    ///
    /// # Errors
    ///
    /// When a breach was seen.
    pub fn turn(&mut self, deadline: Instant) -> Result<bool> {
        let now = Instant::now();
        if now >= deadline {
            return Ok(false);
        }
        let wait = if self.crowd.send()? { Duration::ZERO } else { TURN.min(deadline - now) };
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(true),
            polled => polled.map_err(|error| Failure::setup(format!("failed to poll: {error}")))?,
        }
        for event in &self.events {
            self.crowd.ready(event)?;
        }
        Ok(true)
    }

    /// From now on, the watchers are waited for until they have been shown `target`; of many posts, the likes that each
    /// has been sent by now.
    pub fn aim(&mut self, target: u64) {
        self.crowd.goal = Goal { target, missing: 0, first: None, last: None };
        let watchers = self.crowd.clients[..self.crowd.watchers].iter();
        let watchers = watchers.filter(|client| client.phase != Phase::Gone);
        self.crowd.goal.missing = watchers.map(|client| self.crowd.behind(client)).sum();
    }

    /// Turns until all requests are answered and all watchers have been shown the target. A lenient run gives up,
    /// with `false`, once nothing has come for a while.
    ///
    /// # Errors
    ///
    /// When a breach was seen, or the time is up.
    pub fn reach(&mut self, deadline: Instant) -> Result<bool> {
        let mut seen = (0, 0);
        let mut since = Instant::now();
        while self.crowd.goal.missing > 0 || self.crowd.unanswered > 0 {
            let in_time = self.turn(deadline)?;
            let now = (self.crowd.frames, self.crowd.answers.len());
            if now != seen {
                (seen, since) = (now, Instant::now());
                self.progress.set_position(self.crowd.newest.saturating_sub(self.base));
            }
            if !in_time {
                let kind = if since.elapsed() > TURN * 5 { Kind::Lost } else { Kind::Late };
                return Err(Failure::new(kind, self.crowd.missing()));
            }
            if !self.crowd.checker.strict && since.elapsed() > QUIET {
                self.crowd.checker.breach(Kind::Lost, self.crowd.missing())?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Turns for so long: answers pings, and judges what comes unasked.
    ///
    /// # Errors
    ///
    /// When a breach was seen.
    pub fn idle(&mut self, time: Duration) -> Result<()> {
        let deadline = Instant::now() + time;
        while self.turn(deadline)? {
            self.progress.tick();
        }
        Ok(())
    }

    /// Lets the stuck clients read at last, and tells how many of them the server had dropped.
    ///
    /// # Errors
    ///
    /// When what they read is a breach.
    pub fn wake_stuck(&mut self) -> Result<usize> {
        let mut dropped = 0;
        for id in 0..self.crowd.clients.len() {
            if self.crowd.clients[id].phase == Phase::Still {
                self.crowd.read(id, true)?;
                dropped += usize::from(self.crowd.clients[id].phase == Phase::Gone);
            }
        }
        Ok(dropped)
    }

    /// Tells the server that all clients leave, as pages do.
    pub fn leave(&mut self) {
        for client in &mut self.crowd.clients {
            if matches!(client.phase, Phase::Open | Phase::Still) && client.role != Role::Put && client.is_flushed() {
                if client.role != Role::Events {
                    client.queue(&frame::close());
                }
                // They leave anyway.
                let _ = client.flush();
            }
        }
    }
}

impl Crowd {
    /// Has a client send likes, as soon as the kernel takes them.
    pub fn like(&mut self, id: usize, likes: u64) {
        self.sending.push(id);
        let client = &mut self.clients[id];
        let Some(posts) = &mut self.posts else {
            self.checker.sends(likes);
            return client.queue_likes(likes as usize);
        };
        self.unanswered += likes;
        (0..likes).for_each(|_| client.queue(&posts.like()));
    }

    /// Judges the counts of many posts when all is over.
    ///
    /// # Errors
    ///
    /// When one is wrong, if the checker is strict.
    pub fn posts_ended(&mut self, addr: SocketAddr) -> Result<()> {
        match self.posts.as_ref().map(|posts| posts.ended(addr)) {
            Some(Err(failure)) => self.checker.breach(failure.kind, failure.text),
            _ => Ok(()),
        }
    }

    /// Counts that a client is still to be shown.
    fn behind(&self, client: &Client) -> usize {
        match &self.posts {
            Some(posts) => {
                client.watched.iter().filter(|watched| watched.is_behind(posts.ceiling(watched.post))).count()
            }
            None => usize::from(client.newest.is_none_or(|newest| newest < self.goal.target)),
        }
    }

    /// Has the first client send likes, each as soon as it has been shown the one before.
    pub fn like_one_by_one(&mut self, likes: u64) {
        let Some(more) = likes.checked_sub(1) else { return };
        self.one_by_one = more;
        self.like(0, 1);
    }

    /// Has every connection for requests make its first one, of `requests` in all.
    ///
    /// # Errors
    ///
    /// When one is broken.
    pub fn request(&mut self, requests: u64) -> Result<()> {
        (self.unasked, self.unanswered) = (requests, requests);
        for id in 0..self.clients.len() {
            if self.clients[id].role == Role::Put {
                self.ask(id)?;
            }
        }
        Ok(())
    }

    /// Makes the next request, if one is left.
    fn ask(&mut self, id: usize) -> Result<()> {
        if self.unasked == 0 {
            return Ok(());
        }
        self.unasked -= 1;
        let client = &mut self.clients[id];
        match &mut self.posts {
            Some(posts) => {
                let (post, request) = posts.put(self.addr);
                client.watched = vec![Watched::new(post)];
                client.queue(&request);
            }
            None => {
                self.checker.sends(1);
                client.queue(&self.request);
            }
        }
        client.began = Instant::now();
        self.flush(id)
    }

    /// Sends a load of likes for each client that has some; true while there are more that the kernel would take.
    fn send(&mut self) -> Result<bool> {
        let sending = mem::take(&mut self.sending);
        for id in sending {
            self.flush(id)?;
            if self.clients[id].can_like() {
                self.sending.push(id);
            }
        }
        Ok(!self.sending.is_empty())
    }

    fn ready(&mut self, event: &Event) -> Result<()> {
        let id = event.token().0;
        let client = &mut self.clients[id];
        match client.phase {
            Phase::Still | Phase::Gone => return Ok(()),
            Phase::Connecting => {
                if let Some(error) = client.stream.take_error().ok().flatten() {
                    return Err(Failure::setup(format!("failed to connect client {id}: {error}")));
                }
                if !event.is_writable() {
                    return Ok(());
                }
                client.blocked = false;
                if client.role == Role::Put {
                    client.phase = Phase::Open;
                    self.arrivals.push(client.began.elapsed());
                } else {
                    client.phase = Phase::Upgrading;
                    client.queue(if client.role == Role::Events { &self.stream } else { &self.upgrade });
                    self.flush(id)?;
                }
            }
            Phase::Upgrading | Phase::Open => {
                if event.is_writable() && client.blocked {
                    client.blocked = false;
                    self.flush(id)?;
                    if self.clients[id].can_like() {
                        self.sending.push(id);
                    }
                }
            }
        }
        // An end that came with the last bytes is announced only once.
        let ended = event.is_read_closed() || event.is_error();
        if event.is_readable() || ended { self.read(id, ended) } else { Ok(()) }
    }

    fn flush(&mut self, id: usize) -> Result<()> {
        match self.clients[id].flush() {
            Ok(()) => Ok(()),
            // Why the server ended it is still to be read.
            Err(_) => self.read(id, true),
        }
    }

    /// Reads until the socket is empty, or, if there is an end to be read, until that.
    fn read(&mut self, id: usize, ended: bool) -> Result<()> {
        let mut buffer = mem::take(&mut self.buffer);
        let result = self.read_into(id, &mut buffer, ended);
        self.buffer = buffer;
        result
    }

    fn read_into(&mut self, id: usize, buffer: &mut [u8], ended: bool) -> Result<()> {
        loop {
            let client = &mut self.clients[id];
            let read = match client.stream.read(buffer) {
                Ok(0) => return self.gone(id, "the server closed the connection"),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return self.gone(id, &format!("the connection broke: {error}")),
            };
            if client.carry.is_empty() {
                let taken = self.take(id, &buffer[..read])?;
                self.clients[id].carry.extend_from_slice(&buffer[taken..read]);
            } else {
                let mut carry = mem::take(&mut client.carry);
                carry.extend_from_slice(&buffer[..read]);
                let taken = self.take(id, &carry)?;
                carry.drain(..taken);
                self.clients[id].carry = carry;
            }
            if (read < buffer.len() && !ended) || self.clients[id].phase == Phase::Gone {
                return Ok(());
            }
        }
    }

    /// Takes all that is complete off the front of the bytes, and returns how many that were.
    fn take(&mut self, id: usize, bytes: &[u8]) -> Result<usize> {
        let client = &mut self.clients[id];
        if client.role == Role::Put {
            return self.take_answers(id, bytes);
        }
        let by_events = client.role == Role::Events;
        if client.phase != Phase::Upgrading {
            return if by_events { self.take_events(id, bytes) } else { self.take_frames(id, bytes) };
        }
        match if by_events { http::streamed(bytes) } else { http::upgraded(bytes) } {
            Ok(Some(head)) if by_events => {
                client.phase = Phase::Open;
                Ok(head + self.take_events(id, &bytes[head..])?)
            }
            Ok(Some(head)) => {
                client.phase = Phase::Open;
                for frame in client.watched.iter().map(Watched::watch).collect::<Vec<_>>() {
                    client.queue(&frame);
                }
                self.flush(id)?;
                Ok(head + self.take_frames(id, &bytes[head..])?)
            }
            Ok(None) if bytes.len() < HEAD_LIMIT => Ok(0),
            Ok(None) => Err(Failure::setup(format!("client {id} was answered with an endless head"))),
            Err(reason) => Err(Failure::setup(format!("client {id} was not let in: {reason}"))),
        }
    }

    fn take_frames(&mut self, id: usize, bytes: &[u8]) -> Result<usize> {
        let mut taken = 0;
        loop {
            let rest = &bytes[taken..];
            let length = match frame::parse(rest) {
                Ok(None) => return Ok(taken),
                Ok(Some((Frame::Text(text), length))) if self.posts.is_some() => {
                    self.told(id, text)?;
                    length
                }
                Ok(Some((Frame::Text(text), length))) => {
                    match frame::count(text) {
                        Some(count) => self.shown(id, count)?,
                        None => {
                            let text = String::from_utf8_lossy(text);
                            let text = format!("client {id} was shown {text:?}, which is not a count");
                            self.checker.breach(Kind::Malformed, text)?;
                        }
                    }
                    length
                }
                Ok(Some((Frame::Ping(payload), length))) => {
                    self.clients[id].queue(&frame::pong(payload));
                    if self.clients[id].flush().is_err() {
                        self.gone(id, "the connection broke at a pong")?;
                        return Ok(bytes.len());
                    }
                    length
                }
                Ok(Some((Frame::Pong, length))) => length,
                Ok(Some((Frame::Close(code), _))) => {
                    let code = code.map_or("no code".to_owned(), |code| format!("code {code}"));
                    self.gone(id, &format!("the server sent a close with {code}"))?;
                    return Ok(bytes.len());
                }
                Err(reason) => {
                    self.clients[id].phase = Phase::Gone;
                    self.checker.breach(Kind::Malformed, format!("client {id} was sent no count: {reason}"))?;
                    return Ok(bytes.len());
                }
            };
            taken += length;
        }
    }

    fn take_events(&mut self, id: usize, bytes: &[u8]) -> Result<usize> {
        let mut taken = 0;
        loop {
            match http::event(&bytes[taken..]) {
                Ok(None) => return Ok(taken),
                Ok(Some((count, length))) => {
                    if let Some(count) = count {
                        self.shown(id, count)?;
                    }
                    taken += length;
                }
                Err(reason) => {
                    self.clients[id].phase = Phase::Gone;
                    self.checker.breach(Kind::Malformed, format!("client {id} was sent {reason}"))?;
                    return Ok(bytes.len());
                }
            }
        }
    }

    fn take_answers(&mut self, id: usize, bytes: &[u8]) -> Result<usize> {
        let mut taken = 0;
        loop {
            match http::object(&bytes[taken..]) {
                Ok(None) if bytes.len() - taken < HEAD_LIMIT => return Ok(taken),
                Ok(Some((object, length))) => {
                    taken += length;
                    self.answered(id, &object)?;
                }
                Ok(None) => return self.refused(id, "with an endless head").map(|()| bytes.len()),
                Err(reason) => return self.refused(id, &reason).map(|()| bytes.len()),
            }
        }
    }

    /// A request was answered with something else than a count. A lenient run does without the connection.
    fn refused(&mut self, id: usize, reason: &str) -> Result<()> {
        self.clients[id].phase = Phase::Gone;
        self.unanswered -= 1;
        self.checker.breach(Kind::Malformed, format!("connection {id}'s like was answered {reason}"))
    }

    fn answered(&mut self, id: usize, object: &Value) -> Result<()> {
        let client = &mut self.clients[id];
        self.answers.push(client.began.elapsed());
        if let Some(posts) = &mut self.posts {
            let judged = posts.answered(client.watched[0].post, object);
            self.unanswered = self.unanswered.saturating_sub(1);
            self.judged(id, judged)?;
            return self.ask(id);
        }
        let count = match http::count(object) {
            Ok(count) => count,
            Err(reason) => return self.refused(id, &reason),
        };
        let last = client.newest.replace(count);
        self.newest = self.newest.max(count);
        self.unanswered = self.unanswered.saturating_sub(1);
        self.checker.shown(id, last, count)?;
        self.ask(id)
    }

    /// A client of many posts was told something.
    fn told(&mut self, id: usize, text: &[u8]) -> Result<()> {
        let Some(posts) = &mut self.posts else { return Ok(()) };
        let (post, count) = match posts.told(text) {
            Ok(Told::Count(post, count)) => (post, count),
            Ok(Told::Answer) => {
                self.unanswered = self.unanswered.saturating_sub(1);
                return Ok(());
            }
            Err(failure) => return self.judged(id, Err(failure)),
        };
        let target = posts.ceiling(post);
        let client = &mut self.clients[id];
        client.frames += 1;
        self.frames += 1;
        let Some(watched) = client.watched.iter_mut().find(|watched| watched.post == post) else {
            let failure = Failure::new(Kind::Malformed, format!("was shown p{post}, which it does not watch"));
            return self.judged(id, Err(failure));
        };
        let (was_behind, had_begun) = (watched.is_behind(target), watched.has_begun());
        let judged = watched.show(count);
        if was_behind && !watched.is_behind(target) {
            self.reached();
        }
        let client = &self.clients[id];
        if !had_begun && client.watched.iter().all(Watched::has_begun) {
            self.arrivals.push(client.began.elapsed());
        }
        self.judged(id, judged)
    }

    /// Notes what was judged of what a client was told.
    fn judged(&mut self, id: usize, judged: Result<()>) -> Result<()> {
        judged.or_else(|failure| self.checker.breach(failure.kind, format!("client {id} {}", failure.text)))
    }

    /// One of the counts that are waited for was shown.
    fn reached(&mut self) {
        self.goal.missing -= 1;
        self.goal.first.get_or_insert_with(Instant::now);
        if self.goal.missing == 0 {
            self.goal.last = Some(Instant::now());
        }
    }

    fn shown(&mut self, id: usize, count: u64) -> Result<()> {
        let client = &mut self.clients[id];
        let last = client.newest;
        client.newest = last.max(Some(count));
        client.frames += 1;
        self.frames += 1;
        self.newest = self.newest.max(count);
        if last.is_none() {
            self.arrivals.push(client.began.elapsed());
            if client.role == Role::Stuck {
                client.phase = Phase::Still;
            }
        }
        let target = self.goal.target;
        if id < self.watchers && count >= target && last.is_none_or(|last| last < target) {
            self.reached();
        }
        self.checker.shown(id, last, count)?;
        if id == 0 && self.one_by_one > 0 {
            self.one_by_one -= 1;
            self.like(0, 1);
            return self.flush(0);
        }
        Ok(())
    }

    /// The server has ended a connection: its right if the client was stuck.
    fn gone(&mut self, id: usize, how: &str) -> Result<()> {
        let client = &mut self.clients[id];
        let (role, phase) = (client.role, mem::replace(&mut client.phase, Phase::Gone));
        match (role, phase) {
            (_, Phase::Gone) | (Role::Stuck, Phase::Still) => return Ok(()),
            (_, Phase::Connecting | Phase::Upgrading) => {
                return Err(Failure::setup(format!("client {id} was not upgraded: {how}")));
            }
            _ => {}
        }
        if id < self.watchers {
            self.goal.missing -= self.behind(&self.clients[id]);
        }
        self.checker.breach(Kind::Dropped, format!("client {id} was dropped: {how}"))
    }

    /// What is still waited for.
    fn missing(&self) -> String {
        let Goal { target, missing, .. } = self.goal;
        let watchers = &self.clients[..self.watchers];
        let furthest = watchers.iter().filter_map(|client| client.newest).min().unwrap_or_default();
        match missing {
            0 => format!("{} likes were not answered in time", self.unanswered),
            _ if self.posts.is_some() => format!(
                "{missing} newest counts were not shown in time to {} clients, and {} likes were not answered",
                self.watchers, self.unanswered
            ),
            _ => format!(
                "{missing} of {} clients were not shown {target} in time; the furthest behind is at {furthest}, the newest \
                 count shown is {}",
                self.watchers, self.newest
            ),
        }
    }
}

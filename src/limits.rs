//! Every limit and deadline of the server, each with its unit, its default and the danger it stops.
//!
//! Whatever reads from a peer, waits for one or holds something for one takes its numbers from here, so that a reader
//! can see on one page how much a bad peer can cost.

use crate::error::{Error, Result};
use std::{
    fmt::Debug,
    hash::{BuildHasher, Hasher, RandomState},
    ops::RangeInclusive,
    time::{Duration, Instant},
};

/// How much a peer may send, hold and take its time over. Each time is from a millisecond to a day.
///
/// ```
/// let mut limits = live_likes::Limits::default();
/// limits.connections = 100;
/// limits.likes_per_connection = Some(1);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Connections held at once; a further one is answered 503 and closed. Default 10,000, from 1 to 1,000,000.
    ///
    /// Each costs a thread, a descriptor and four memory maps. Where the system allows a process fewer (RLIMIT_NOFILE,
    /// RLIMIT_AS, RLIMIT_DATA; `vm.max_map_count` on Linux), fewer are held, and a warning is logged that says what to
    /// raise: an eighth of what is free when the server starts is kept for everything else. All servers of a process
    /// share what there is.
    pub connections: usize,
    /// Connections of one address held at once (an IPv6 /64 counts as one), at least 1. Unlimited by default; past it 429.
    ///
    /// For a server that clients reach directly, or that is told which proxies to
    /// [trust](crate::Server::trust_proxy): of a client behind such a proxy count the requests that are being answered
    /// and the WebSockets.
    pub connections_per_address: Option<usize>,
    /// Bytes of a request head, request line and empty line included. Default 16 KiB, from 256 to 1 MiB; past it
    /// 431.
    pub head_bytes: usize,
    /// Bytes of a request target. Default 8 KiB (RFC 9112 section 3 asks for at least 8,000), from 16 to 1 MiB; past it
    /// 414.
    pub target_bytes: usize,
    /// Header fields in a request. Default 64, from 8 to 1,000; past it 431.
    pub headers: usize,
    /// Time for a whole request head, and again for its body. Default 5 s; past it 408. For the first request it runs
    /// from the connection on, for a further one from its first byte.
    ///
    /// A deadline for the whole, not a time between two bytes: a peer that sends a byte now and then gains nothing.
    pub request_time: Duration,
    /// Bytes of a request body. Default 64 KiB, at most 16 MiB; past it 413.
    ///
    /// A form or JSON is held until it is answered, anything else thrown away as it comes.
    pub body_bytes: u64,
    /// Time that a connection may stay open between two requests. Default 15 s; past it closed.
    pub keep_alive: Duration,
    /// Payload bytes of a WebSocket frame and of a whole message. Default 4 KiB, from 16 to 16 MiB; past it close code
    /// 1009.
    ///
    /// Judged from the length that a frame claims, before anything of it is held.
    pub message_bytes: usize,
    /// Frames that one WebSocket message may come in. Default 64, from 1 to 1,048,576; past it close code 1009.
    ///
    /// Without it, empty fragments without end would never reach `message_bytes`.
    pub fragments: usize,
    /// Silence of a WebSocket client after which it is sent a ping; time between two heartbeats of a stream of events.
    /// Default 25 s.
    ///
    /// Below the 30 to 60 s after which proxies and address translators forget a silent connection.
    pub ping_after: Duration,
    /// Time that a WebSocket client has to answer a ping, with anything. Default 10 s; past it dropped. A client of a
    /// stream of events is dropped where its system acknowledges nothing for this long and `write_deadline` together.
    pub pong_within: Duration,
    /// Time that a client has to take a whole HTTP response, and time without any progress after which a client that watches
    /// that does not read is dropped. Default 10 s.
    pub write_deadline: Duration,
    /// Time that a peer has to finish a closing connection. Default 2 s; past it dropped.
    pub close_within: Duration,
    /// Posts that one client may watch. Default 100; past it status 429. From 1 to 100,000.
    pub posts_per_client: usize,
    /// Likes that one connection may send. Unlimited by default; past it close code 1008, or 429 over HTTP.
    ///
    /// Over HTTP, a proxy sends those of many clients over one connection.
    pub likes_per_connection: Option<u64>,
    /// Likes a second that one address may send (an IPv6 /64 counts as one), at least 1. Unlimited by
    /// default; past it close code 1008, or 429 over HTTP. A burst of up to one second's worth passes.
    pub likes_per_second_and_address: Option<u32>,
    /// Posts an hour that one address may be the first to like (an IPv6 /64 counts as one), at least 1, but for those that are
    /// [allowed](crate::AllowedPosts) by their own name. Default 20; past it close code 1008, or 429 over HTTP.
    ///
    /// Without it, a stranger who makes names up could fill a store of many posts in seconds. All clients behind a proxy
    /// that is not [trusted](crate::Server::trust_proxy) have one address, and so have all that come by a Unix socket.
    pub new_posts_per_hour_and_address: u32,
    /// Time for a graceful stop: clients told, likes saved. Default 5 s; past it everything left is cut off.
    pub stop_within: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_address: None,
            head_bytes: 16 * 1024,
            target_bytes: 8 * 1024,
            headers: 64,
            request_time: Duration::from_secs(5),
            body_bytes: 64 * 1024,
            keep_alive: Duration::from_secs(15),
            message_bytes: 4 * 1024,
            fragments: 64,
            ping_after: Duration::from_secs(25),
            pong_within: Duration::from_secs(10),
            write_deadline: Duration::from_secs(10),
            close_within: Duration::from_secs(2),
            posts_per_client: 100,
            likes_per_connection: None,
            likes_per_second_and_address: None,
            new_posts_per_hour_and_address: 20,
            stop_within: Duration::from_secs(5),
        }
    }
}

impl Limits {
    /// Checks that each limit is in its range. A server does so when it is built.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] that names the first one that is not.
    pub fn check(&self) -> Result<()> {
        within("connections", self.connections, 1..=1_000_000)?;
        within("connections_per_address", self.connections_per_address.unwrap_or(1), 1..=usize::MAX)?;
        within("head_bytes", self.head_bytes, 256..=1 << 20)?;
        within("target_bytes", self.target_bytes, 16..=1 << 20)?;
        within("headers", self.headers, 8..=1000)?;
        within("body_bytes", self.body_bytes, 0..=16 << 20)?;
        within("message_bytes", self.message_bytes, 16..=16 << 20)?;
        within("fragments", self.fragments, 1..=1 << 20)?;
        within("posts_per_client", self.posts_per_client, 1..=100_000)?;
        within("likes_per_second_and_address", self.likes_per_second_and_address.unwrap_or(1), 1..=u32::MAX)?;
        within("new_posts_per_hour_and_address", self.new_posts_per_hour_and_address, 1..=u32::MAX)?;
        for (name, time) in [
            ("request_time", self.request_time),
            ("keep_alive", self.keep_alive),
            ("ping_after", self.ping_after),
            ("pong_within", self.pong_within),
            ("write_deadline", self.write_deadline),
            ("close_within", self.close_within),
            ("stop_within", self.stop_within),
        ] {
            within(name, time, Duration::from_millis(1)..=Duration::from_secs(24 * 3600))?;
        }
        Ok(())
    }
}

fn within<T: PartialOrd + Debug>(name: &'static str, value: T, range: RangeInclusive<T>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    let expected = format!("{:?} to {:?}", range.start(), range.end());
    Err(Error::Limit { name, value: format!("{value:?}"), expected })
}

/// The standard library seeds its hash maps at random; two seeds are as good a number as any.
pub(crate) fn random() -> u128 {
    let seed = || u128::from(RandomState::new().build_hasher().finish());
    seed() << 64 | seed()
}

/// A pause of at least half so long, at random, so that several servers do not try again at once.
pub(crate) fn some_of(pause: Duration) -> Duration {
    let half = pause / 2;
    half + half.mul_f64(f64::from(random() as u32) / f64::from(u32::MAX))
}

/// When a time that begins now is over. One that no clock can tell the end of, such as [`Duration::MAX`], lasts a
/// hundred years.
pub(crate) fn due_in(within: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    let now = Instant::now();
    now.checked_add(within).unwrap_or_else(|| now + CENTURY)
}

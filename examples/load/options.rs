//! Flags.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use lexopt::prelude::*;

pub const HELP: &str = "\
Puts a like counter on this machine under load, checks all it shows, and measures it.

    cargo run --release --example load -- [--mode MODE] [FLAGS]

Modes:
    closed      one like at a time: from the like to the first and the last client that shows it (the default)
    steady      one client likes, and again as soon as it is shown its like: deliveries a second
    storm       likes as fast as they can be sent, until every client shows the last of them
    connect     clients connect until each has its first count; then they stay for --hold seconds
    put         PUT /like over keep-alive connections, each sending its next like when the last is answered

Flags:
    --addr ADDR         the server, an address or URL of this machine          [http://127.0.0.1:3000/]
    --clients N         watching clients                                       [1000; put: 0]
    --events N          of them, so many watch by server-sent events, the others by WebSocket [0]
    --likers N          how many of them like, in turn                         [1; storm: 100]
    --stuck N           clients more that connect but never read               [0]
    --likes N           likes to send                                          [100; storm, put: 10000]
    --warmup N          likes more, before the measured ones (closed, steady, put) [10; put: 1000]
    --burst N           so many of them at once, then the next (closed)        [1]
    --posts N           many posts: likes are visitors' and go to any of so many, clients speak
                        JSON (storm, connect, put)                             [0: one count without visitors]
    --watch N           of them, each client watches so many                   [1]
    --skew S            the nth post is liked 1/n^S times as often as the first [0; put: 1, a Zipf law]
    --connections N     keep-alive connections (put)                           [64]
    --hold SECONDS      how long to stay connected in the end (closed, connect) [0]
    --pid PID           the server's process: measures its CPU time and memory
    --sources N         connect from 127.0.0.1 to 127.0.0.N in turn, since one address
                        has about 28,000 ports                                 [one for every 20,000 clients]
    --connecting N      at most so many connections being made at once         [64]
    --timeout SECONDS   for connecting, and again for the likes                [60]
    --no-check          count breaches of the server's promises instead of stopping at the first
    --help              this text

What every client is shown is checked: counts must rise, hold no like that was not sent, and end at the exact sum.
One line of JSON on standard output tells the measurements; times in it are microseconds where the name ends in _us.
Exit code: 0, or 1 for a breach, a failure or the time being up (the JSON says which), or 2 for bad usage.
";

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    Closed,
    Steady,
    Storm,
    Connect,
    Put,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Steady => "steady",
            Self::Storm => "storm",
            Self::Connect => "connect",
            Self::Put => "put",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Options {
    pub mode: Mode,
    pub addr: SocketAddr,
    pub clients: usize,
    pub events: usize,
    pub likers: usize,
    pub stuck: usize,
    pub likes: u64,
    pub warmup: u64,
    pub burst: u64,
    pub connections: usize,
    /// 0 for one count.
    pub posts: usize,
    pub watch: usize,
    pub skew: f64,
    pub hold: Duration,
    pub pid: Option<u32>,
    pub sources: u8,
    pub connecting: usize,
    pub timeout: Duration,
    pub strict: bool,
}

impl Options {
    /// Reads the flags; `None` when help was asked for.
    ///
    /// # Errors
    ///
    /// When they make no sense: the reason.
    pub fn parse(mut parser: lexopt::Parser) -> Result<Option<Self>, lexopt::Error> {
        let mut mode = Mode::Closed;
        let mut addr = SocketAddr::from(([127, 0, 0, 1], 3000));
        let (mut clients, mut likers, mut stuck, mut likes, mut warmup) = (None, None, 0, None, None);
        let (mut connections, mut hold, mut pid, mut sources) = (None, Duration::ZERO, None, None);
        let (mut posts, mut watch, mut skew, mut events) = (0, None, None, 0);
        let (mut connecting, mut timeout, mut strict, mut burst) = (64, Duration::from_secs(60), true, 1);
        while let Some(flag) = parser.next()? {
            match flag {
                Long("mode") => mode = parser.value()?.parse_with(named)?,
                Long("addr") => addr = parser.value()?.parse_with(loopback)?,
                Long("clients") => clients = Some(parser.value()?.parse()?),
                Long("events") => events = parser.value()?.parse()?,
                Long("likers") => likers = Some(parser.value()?.parse()?),
                Long("stuck") => stuck = parser.value()?.parse()?,
                Long("likes") => likes = Some(parser.value()?.parse()?),
                Long("warmup") => warmup = Some(parser.value()?.parse()?),
                Long("burst") => burst = parser.value()?.parse()?,
                Long("connections") => connections = Some(parser.value()?.parse()?),
                Long("posts") => posts = parser.value()?.parse()?,
                Long("watch") => watch = Some(parser.value()?.parse()?),
                Long("skew") => skew = Some(parser.value()?.parse()?),
                Long("hold") => hold = parser.value()?.parse_with(seconds)?,
                Long("pid") => pid = Some(parser.value()?.parse()?),
                Long("sources") => sources = Some(parser.value()?.parse()?),
                Long("connecting") => connecting = parser.value()?.parse()?,
                Long("timeout") => timeout = parser.value()?.parse_with(seconds)?,
                Long("no-check") => strict = false,
                Long("help") | Short('h') => return Ok(None),
                _ => return Err(flag.unexpected()),
            }
        }
        let (some_clients, some_likers, some_likes, some_warmup, some_connections) = match mode {
            Mode::Closed | Mode::Steady => (1000, 1, 100, 10, 0),
            Mode::Storm => (1000, 100, 10_000, 0, 0),
            Mode::Connect => (1000, 0, 0, 0, 0),
            Mode::Put => (0, 0, 10_000, 1000, 64),
        };
        let clients = clients.unwrap_or(some_clients);
        let likers = likers.unwrap_or(clients.min(some_likers));
        let likes = likes.unwrap_or(some_likes);
        let warmup = warmup.unwrap_or(some_warmup);
        let connections = if mode == Mode::Put { connections.unwrap_or(some_connections) } else { 0 };
        let all: usize = clients + stuck + connections;
        if all == 0 {
            return Err("there is nobody to connect".into());
        }
        let most_likers = if mode == Mode::Steady { clients.min(1) } else { clients };
        if matches!(mode, Mode::Closed | Mode::Steady | Mode::Storm) && !(1..=most_likers).contains(&likers) {
            return Err(format!("--likers must be 1 to {most_likers}, and there must be that many --clients").into());
        }
        if posts > 0 && matches!(mode, Mode::Closed | Mode::Steady) {
            return Err("--posts is for storm, connect and put".into());
        }
        if events > clients.saturating_sub(likers) || events > 0 && posts > 0 {
            return Err("--events must be at most the --clients that do not like, and is for one count".into());
        }
        if posts > 0 && (stuck > 0 || mode == Mode::Put && clients > 0) {
            return Err("--stuck, and --clients of put, are for one count".into());
        }
        let watch = watch.unwrap_or(usize::from(posts > 0));
        if !(usize::from(posts > 0)..=posts).contains(&watch) {
            return Err("--watch must be 1 to the number of --posts".into());
        }
        if burst == 0 {
            return Err("--burst must not be 0".into());
        }
        if mode == Mode::Put && connections == 0 {
            return Err("--connections must not be 0".into());
        }
        if connecting == 0 {
            return Err("--connecting must not be 0".into());
        }
        let sources = sources.unwrap_or(all.div_ceil(20_000).min(254) as u8);
        if sources == 0 || sources == 255 || (sources > 1 && addr.is_ipv6()) {
            return Err("--sources must be 1 to 254, and 1 over IPv6".into());
        }
        Ok(Some(Self {
            mode,
            addr,
            clients,
            events,
            likers,
            stuck,
            likes,
            warmup,
            burst,
            connections,
            posts,
            watch,
            skew: skew.unwrap_or(f64::from(u8::from(mode == Mode::Put))),
            hold,
            pid,
            sources,
            connecting,
            timeout,
            strict,
        }))
    }
}

fn named(name: &str) -> Result<Mode, &'static str> {
    [Mode::Closed, Mode::Steady, Mode::Storm, Mode::Connect, Mode::Put]
        .into_iter()
        .find(|mode| mode.name() == name)
        .ok_or("the modes are closed, steady, storm, connect and put")
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    let seconds = text.parse().map_err(|_| "expected seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|_| "expected seconds")
}

/// An address or URL, and only of this machine: a load tool aimed elsewhere is a weapon.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let host = text.trim_start_matches("http://").trim_start_matches("ws://");
    let host = host.split('/').next().unwrap_or_default();
    let addr = host.to_socket_addrs().map_err(|error| error.to_string())?.next().ok_or("no such address")?;
    if addr.ip().is_loopback() { Ok(addr) } else { Err(format!("{} is not an address of this machine", addr.ip())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        let parser = lexopt::Parser::from_args(line.split_whitespace());
        Options::parse(parser).map(|options| options.expect("no help")).map_err(|error| error.to_string())
    }

    #[test]
    fn each_mode_has_its_defaults() {
        let closed = parse("").unwrap();
        assert_eq!((closed.mode, closed.clients, closed.likers, closed.likes), (Mode::Closed, 1000, 1, 100));
        let storm = parse("--mode storm").unwrap();
        assert_eq!((storm.clients, storm.likers, storm.likes), (1000, 100, 10_000));
        let put = parse("--mode put").unwrap();
        assert_eq!((put.clients, put.connections, put.likes), (0, 64, 10_000));
        assert_eq!(parse("--mode connect --clients 45000").unwrap().sources, 3);
    }

    #[test]
    fn the_server_may_be_given_as_the_url_it_printed() {
        let addr = SocketAddr::from(([127, 0, 0, 1], 8080));
        for text in ["127.0.0.1:8080", "http://127.0.0.1:8080/", "ws://127.0.0.1:8080/liveLikes"] {
            assert_eq!(parse(&format!("--addr {text}")).unwrap().addr, addr, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(parse("--addr 192.0.2.1:80").unwrap_err().contains("not an address of this machine"));
        assert!(parse("--mode flood").unwrap_err().contains("the modes are"));
        assert!(parse("--clients 5 --likers 6").unwrap_err().contains("1 to 5"));
        assert!(parse("--clients 5 --events 5").unwrap_err().contains("--events must be"));
        assert!(parse("--mode storm --posts 5 --likers 1 --events 1").unwrap_err().contains("--events must be"));
        assert!(parse("--mode steady --likers 2").unwrap_err().contains("1 to 1"));
        assert!(parse("--posts 5").unwrap_err().contains("for storm"));
        assert!(parse("--mode storm --posts 5 --watch 6").unwrap_err().contains("--watch must be"));
        assert!(parse("--mode storm --posts 5 --watch 0").is_err() && parse("--mode storm --watch 1").is_err());
        assert!(parse("--mode connect --posts 5 --stuck 1").unwrap_err().contains("for one count"));
        assert!(parse("--mode put --posts 5 --clients 1").unwrap_err().contains("for one count"));
        assert!(parse("--burst 0").unwrap_err().contains("must not be 0"));
        assert!(parse("--mode connect --clients 0").unwrap_err().contains("nobody"));
        assert!(parse("--hold -1").unwrap_err().contains("expected seconds"));
        assert!(parse("--sources 0").is_err() && parse("--likers 0").is_err() && parse("--fast").is_err());
    }
}

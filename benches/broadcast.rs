//! The broadcast path, each part beside its limit or its naive alternative, so that a ratio can be read off one run.
//!
//! ```sh
//! cargo bench                 # everything
//! cargo bench -- round        # the parts whose name holds `round`
//! taskset -c 0 cargo bench -- round
//! ```
//!
//! The sockets are real and over loopback. Between two measurements their other ends are read empty, outside the time
//! that is taken, so that no reader takes part. The two sides of a pair are measured in turn, and the ratio is the
//! median of the pairs' ratios: the speed of a shared machine drifts, and a ratio of neighbours does not.
//!
//! The core is no part of the library's interface, so this is a crate that holds it: the rooms of `src` up to `likes`,
//! which import nothing from those above them.

#![allow(dead_code, unused_imports, reason = "the rooms are included whole, and used in part")]

#[path = "../src/error.rs"]
mod error;
#[path = "../src/likes/mod.rs"]
mod likes;
#[path = "../src/limits.rs"]
mod limits;
#[path = "../src/metrics.rs"]
mod metrics;
#[path = "../src/store/mod.rs"]
mod store;
#[path = "../src/stream.rs"]
mod stream;

use crate::{
    likes::{
        audience::Audience,
        behind::Behind,
        dialect::Dialect,
        outbox::{Outbox, Standing},
        round::{Round, Steps},
    },
    store::change::{Count, Post},
    stream::Stream,
};
use rustix::{
    net::{
        RecvFlags, SendFlags, recv, send,
        sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size},
    },
    time::{ClockId, clock_gettime},
};
use std::{
    net::{TcpListener, TcpStream},
    sync::{Arc, LazyLock, mpsc},
    time::{Duration, Instant},
};

const PAIRS: usize = 31;

/// One copy for all, as in a ledger.
static POST: LazyLock<Post> = LazyLock::new(Post::default);

fn main() {
    // `cargo bench` passes `--bench`; a word of its own is a filter.
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let run = |name: &str, part: fn()| {
        if name.contains(&filter) {
            println!("\n{name}");
            part();
        }
    };
    println!("medians of {PAIRS} pairs, in microseconds a delivery unless it says otherwise");
    run("round: CPU of the sending thread for one count to everyone, beside a bare loop of `send`", round);
    run(
        "events: CPU of the sending thread for one count as events, beside the same as WebSocket frames in JSON",
        events,
    );
    run("storm: CPU a like and client for a round of 16 likes, beside a fan-out for each like", storm);
    run("lanes: wall time of one count to everyone over two threads, beside one", lanes);
    run(
        "threads: CPU of the process for one count to everyone, beside a queue and a writer thread a client",
        writer_threads,
    );
    run("behind: CPU of offering a count to a client that is behind, beside a `send` that is refused", behind);
    run("encoding: microseconds for 64 counts once, beside once for each of 1,000 clients", encoding);
}

/// Over the same sockets, since between two sets of them a bare loop alone differs by up to a quarter: it depends on
/// when the kernel acknowledges.
fn round() {
    for clients in [10, 100, 1_000, 4_000] {
        let sockets = Sockets::open(clients);
        let mut fan_out = FanOut::new(&sockets.servers, Dialect::Bare);
        sockets.read_empty();
        compare(
            &format!("{clients:>6} clients"),
            ("round", &mut || thread_cpu(&sockets, || fan_out.round(1, 1))),
            ("bare send", &mut || thread_cpu(&sockets, || sockets.send_loop(b"\x81\x0217"))),
            clients,
        );
    }
}

fn events() {
    for clients in [100, 1_000, 4_000] {
        let (ours, theirs) = (Sockets::open(clients), Sockets::open(clients));
        let mut events = FanOut::new(&ours.servers, Dialect::Events);
        let mut frames = FanOut::new(&theirs.servers, Dialect::Json);
        compare(
            &format!("{clients:>6} clients"),
            ("events", &mut || thread_cpu(&ours, || events.round(1, 1))),
            ("frames", &mut || thread_cpu(&theirs, || frames.round(1, 1))),
            clients,
        );
    }
}

fn storm() {
    for clients in [100, 1_000] {
        let (ours, theirs) = (Sockets::open(clients), Sockets::open(clients));
        let (mut rounds, mut fan_outs) =
            (FanOut::new(&ours.servers, Dialect::Bare), FanOut::new(&theirs.servers, Dialect::Bare));
        compare(
            &format!("{clients:>6} clients"),
            ("one round", &mut || thread_cpu(&ours, || rounds.round(16, 1))),
            ("16 fan-outs", &mut || thread_cpu(&theirs, || (0..16).map(|_| fan_outs.round(1, 1)).sum())),
            16 * clients,
        );
    }
}

fn lanes() {
    for clients in [500, 1_000, 4_000] {
        let (ours, theirs) = (Sockets::open(clients), Sockets::open(clients));
        let (mut two, mut one) =
            (FanOut::new(&ours.servers, Dialect::Bare), FanOut::new(&theirs.servers, Dialect::Bare));
        compare(
            &format!("{clients:>6} clients"),
            ("two lanes", &mut || wall(&ours, || two.round(1, 2))),
            ("one lane", &mut || wall(&theirs, || one.round(1, 1))),
            clients,
        );
        // What two cores can do at best here.
        compare(
            "      bare send",
            ("two loops", &mut || wall(&ours, || ours.send_loops(b"\x81\x0217"))),
            ("one loop", &mut || wall(&theirs, || theirs.send_loop(b"\x81\x0217"))),
            clients,
        );
    }
}

/// The design that was not taken: each client has a queue, and a thread that writes what comes through it.
fn writer_threads() {
    for clients in [100, 1_000] {
        let (ours, theirs) = (Sockets::open(clients), Sockets::open(clients));
        let mut fan_out = FanOut::new(&ours.servers, Dialect::Bare);
        let (done, all_done) = mpsc::channel();
        let queues: Vec<_> = theirs
            .servers
            .iter()
            .map(|socket| {
                let (queue, counts) = mpsc::channel::<Arc<[u8]>>();
                let (socket, done) = (socket.clone(), done.clone());
                std::thread::spawn(move || {
                    for frame in counts {
                        send(&socket, &frame, SendFlags::NOSIGNAL).expect("a socket with room");
                        done.send(()).expect("the benchmark waits");
                    }
                });
                queue
            })
            .collect();
        compare(
            &format!("{clients:>6} clients"),
            ("round", &mut || process_cpu(&ours, || fan_out.round(1, 1))),
            ("threads", &mut || {
                process_cpu(&theirs, || {
                    let frame: Arc<[u8]> = Arc::from(&b"\x81\x0217"[..]);
                    queues.iter().for_each(|queue| queue.send(frame.clone()).expect("a writer"));
                    all_done.iter().take(clients).count() as u64
                })
            }),
            clients,
        );
    }
}

fn behind() {
    let clients = 100;
    let (ours, theirs) = (Sockets::open(clients), Sockets::open(clients));
    for socket in ours.clients.iter().chain(&theirs.clients) {
        // Of its own accord the kernel would hold megabytes for each.
        set_socket_recv_buffer_size(socket, 4096).expect("a TCP socket");
    }
    let mut fan_out = FanOut::new(&ours.servers, Dialect::Bare);
    // What is on its way can leave room for a little more.
    while theirs.stuff() > 0 {}
    while fan_out.offer_each() < clients || ours.stuff() > 0 {}
    compare(
        &format!("{clients:>6} clients"),
        ("offer", &mut || thread_cpu_unread(|| fan_out.offer_each() as u64)),
        ("refused send", &mut || thread_cpu_unread(|| theirs.send_loop(b"\x81\x0217"))),
        clients,
    );
}

fn encoding() {
    compare(
        "    64 counts",
        ("once", &mut || thread_cpu_unread(|| encode(64))),
        ("for each", &mut || thread_cpu_unread(|| (0..1_000).map(|_| encode(64)).sum())),
        1,
    );
}

/// Runs two sides in turn and prints their medians and the median of the ratios.
fn compare(
    name: &str,
    (ours, mut run_ours): (&str, &mut dyn FnMut() -> Duration),
    (theirs, mut run_theirs): (&str, &mut dyn FnMut() -> Duration),
    deliveries: usize,
) {
    let (run_ours, run_theirs) = (&mut run_ours, &mut run_theirs);
    let mut pairs = Vec::with_capacity(PAIRS);
    for pair in 0..PAIRS + 1 {
        // The first pair warms up; who goes first alternates.
        let both = if pair % 2 == 0 {
            let first = run_ours();
            (first, run_theirs())
        } else {
            let first = run_theirs();
            (run_ours(), first)
        };
        if pair > 0 {
            pairs.push((both.0.as_secs_f64(), both.1.as_secs_f64()));
        }
    }
    let each = 1e6 / deliveries as f64;
    println!(
        "{name}: {ours} {:8.3}   {theirs} {:8.3}   ratio {:.3}",
        median(pairs.iter().map(|pair| pair.0)) * each,
        median(pairs.iter().map(|pair| pair.1)) * each,
        median(pairs.iter().map(|pair| pair.0 / pair.1)),
    );
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn thread_cpu(sockets: &Sockets, work: impl FnOnce() -> u64) -> Duration {
    let took = thread_cpu_unread(work);
    sockets.read_empty();
    took
}

fn thread_cpu_unread(work: impl FnOnce() -> u64) -> Duration {
    took(ClockId::ThreadCPUTime, work)
}

fn process_cpu(sockets: &Sockets, work: impl FnOnce() -> u64) -> Duration {
    let took = took(ClockId::ProcessCPUTime, work);
    sockets.read_empty();
    took
}

fn wall(sockets: &Sockets, work: impl FnOnce() -> u64) -> Duration {
    let took = took(ClockId::Monotonic, work);
    sockets.read_empty();
    took
}

fn took(clock: ClockId, work: impl FnOnce() -> u64) -> Duration {
    let now = || {
        let time = clock_gettime(clock);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let start = now();
    assert!(std::hint::black_box(work()) > 0, "the work was done");
    now() - start
}

fn send_to_each(sockets: &[Arc<Stream>], bytes: &[u8]) -> u64 {
    for socket in sockets {
        let _ = std::hint::black_box(send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL));
    }
    sockets.len() as u64
}

/// An audience over given sockets.
struct FanOut {
    audience: Audience,
    outboxes: Vec<Arc<Outbox>>,
    behind: Behind,
    shown: u64,
}

impl FanOut {
    /// Registers a client for each socket, and shows it the count 16.
    fn new(sockets: &[Arc<Stream>], dialect: Dialect) -> Self {
        const DEADLINE: Duration = Duration::from_secs(3600);
        let audience = Audience::default();
        let outbox = |socket: &Arc<Stream>| Arc::new(Outbox::new(socket.clone(), DEADLINE, dialect, None));
        let outboxes: Vec<_> = sockets.iter().map(outbox).collect();
        for outbox in &outboxes {
            audience.join(outbox.clone(), outbox.open(POST.clone(), None));
            outbox.begin(0, Count { likes: 15, version: 15 }, None);
        }
        let mut fan_out = Self { audience, outboxes, behind: Behind::default(), shown: 15 };
        fan_out.round(1, 1);
        fan_out
    }

    /// Shows everyone the counts of this many likes, over so many threads. Returns the frames sent.
    fn round(&mut self, likes: u64, workers: usize) -> u64 {
        self.shown += likes;
        self.audience.fan_out(&round_of(&POST, self.shown, likes), workers, &self.behind)
    }

    /// Offers one further count to each client alone, without the audience. Returns how many are behind.
    fn offer_each(&mut self) -> usize {
        self.shown += 1;
        let round = round_of(&POST, self.shown, 1);
        self.outboxes.iter().filter(|outbox| outbox.offer(0, &round).standing == Standing::Behind).count()
    }
}

/// Encodes a round of this many counts; returns their number.
fn encode(likes: u64) -> u64 {
    let round = round_of(&POST, 1_000_000 + likes, likes);
    std::hint::black_box(round.encoded(Dialect::Bare));
    round.counts().len() as u64
}

/// The round of so many likes, of which the last makes the count this one.
fn round_of(post: &Post, count: u64, likes: u64) -> Round {
    let mut steps = Steps::default();
    steps.push(Count { likes: count, version: count }, likes, None);
    Round::of(post.clone(), steps).expect("there is a like")
}

/// Connected pairs of sockets, set as the server sets its own.
struct Sockets {
    servers: Vec<Arc<Stream>>,
    clients: Vec<TcpStream>,
}

impl Sockets {
    fn open(count: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let address = listener.local_addr().expect("its address");
        let (mut servers, mut clients) = (Vec::new(), Vec::new());
        for _ in 0..count {
            clients.push(TcpStream::connect(address).expect("a descriptor: raise `ulimit -n`"));
            let (server, _) = listener.accept().expect("a descriptor: raise `ulimit -n`");
            let server = Stream::new(server).expect("a TCP socket");
            set_socket_send_buffer_size(&server, 16 * 1024).expect("a TCP socket");
            servers.push(Arc::new(server));
        }
        let sockets = Self { servers, clients };
        sockets.send_loop(b"\x81\x0216");
        sockets.read_empty();
        sockets
    }

    /// The limit: one `send` for each client and nothing else. Returns the number of clients.
    fn send_loop(&self, bytes: &[u8]) -> u64 {
        send_to_each(&self.servers, bytes)
    }

    /// The same over two threads, half of the clients each.
    fn send_loops(&self, bytes: &[u8]) -> u64 {
        let (here, there) = self.servers.split_at(self.servers.len() / 2);
        std::thread::scope(|scope| {
            let there = scope.spawn(|| send_to_each(there, bytes));
            send_to_each(here, bytes) + there.join().expect("no panic in a loop of sends")
        })
    }

    /// Sends until the kernel takes no more. Returns how many sends it took.
    fn stuff(&self) -> usize {
        let takes = |socket| send(socket, &[0; 4096], SendFlags::DONTWAIT | SendFlags::NOSIGNAL).is_ok();
        self.servers.iter().map(|socket| (0..).take_while(|_| takes(socket)).count()).sum()
    }

    fn read_empty(&self) {
        let mut bytes = [0; 4096];
        for socket in &self.clients {
            while matches!(recv(socket, &mut bytes, RecvFlags::DONTWAIT), Ok((1.., _))) {}
        }
    }
}

//! What the program promises, each promise end to end.

#[path = "support/client.rs"]
mod client;
#[cfg(all(feature = "cli", target_os = "linux"))]
#[path = "support/process.rs"]
mod process;
#[path = "support/running.rs"]
mod running;
#[path = "support/scripted.rs"]
mod scripted;

use client::{Client, ask, connect, connect_narrow, get, handshake, reset};
use live_likes::{Error, Likes, Limits};
use running::{Folder, PATIENCE, Running, eventually, patient};
use scripted::{Ending, memory, scripted};
use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};
use tungstenite::{Message, protocol::CloseFrame};

/// Counts of nineteen digits, so that what is not read fills a socket soon.
const LONG_COUNT: u64 = 1_000_000_000_000_000_000;

/// Most likes that are shown one by one.
const MOST_IN_ROUND: usize = 64;

fn assert_rising(counts: &[u64]) {
    assert!(counts.is_sorted_by(|one, next| one < next), "they should rise strictly: {counts:?}");
}

#[test]
fn a_like_is_saved_and_shown() {
    let server = Running::with_count(16);
    let (mut one, mut other) = (Client::new(server.addr), Client::new(server.addr));
    assert_eq!((one.count(), other.count()), (16, 16));
    one.like();
    assert_eq!((one.count(), other.count(), server.folder.saved()), (17, 17, 17));
}

#[test]
fn many_who_like_at_once_in_every_way_lose_nothing_and_all_end_at_the_same_count() {
    const EACH: usize = 100;
    let server = Running::with_limits(0, &patient());
    let addr = server.addr;
    let last = (12 * EACH) as u64;
    let mut inside = server.likes.subscribe();
    let (sockets, numbers) = thread::scope(|scope| {
        let sockets: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(move || {
                    let mut client = Client::new(addr);
                    client.like_times(EACH);
                    client.counts_until(last)
                })
            })
            .collect();
        let http = (0..4).map(|_| {
            scope.spawn(move || {
                (0..EACH).map(|_| ask(addr, "PUT", "/like", &[]).body).map(|body| number(&body)).collect::<Vec<_>>()
            })
        });
        let likes = &server.likes;
        let within = (0..4).map(|_| scope.spawn(move || (0..EACH).map(|_| likes.like().unwrap()).collect()));
        let answered: Vec<_> = http.chain(within).collect();
        let numbers: Vec<u64> = answered.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        (sockets.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>(), numbers)
    });
    sockets.iter().for_each(|counts| assert_rising(counts));
    let different = BTreeSet::from_iter(&numbers);
    assert_eq!(different.len(), 8 * EACH, "each like that is answered has a number of its own");
    assert!(different.into_iter().all(|number| (1..=last).contains(number)));
    let seen: Vec<_> =
        std::iter::from_fn(|| inside.next_within(PATIENCE).ok()).take_while(|count| *count < last).collect();
    assert_rising(&seen);
    assert_eq!((server.likes.count(), server.folder.saved()), (last, last));
}

fn number(body: &str) -> u64 {
    body.strip_prefix(r#"{"numLikes":"#).and_then(|rest| rest.strip_suffix('}')).unwrap().parse().unwrap()
}

#[test]
fn eight_clients_with_ten_thousand_likes_each_lose_none() {
    let server = Running::with_limits(16, &patient());
    let addr = server.addr;
    let last = 16 + 8 * 10_000;
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(move || {
                let mut client = Client::new(addr);
                client.like_times(10_000);
                assert_rising(&client.counts_until(last));
            });
        }
    });
    assert_eq!((server.likes.count(), server.folder.saved()), (last, last));
    assert_eq!(number(&get(addr, "/likes").body), last);
    assert_eq!(Client::new(addr).count(), last);
}

#[test]
fn who_keeps_up_is_shown_every_count_in_order_over_the_wire_and_within_the_process() {
    let server = Running::with_limits(0, &patient());
    let mut clients: Vec<_> = (0..4).map(|_| Client::new(server.addr)).collect();
    let mut inside = server.likes.subscribe();
    assert!(clients.iter_mut().all(|client| client.count() == 0));
    assert_eq!(inside.next(), Some(0));
    let mut next = 1;
    for _ in 0..100 {
        // No more are under way than are shown one by one.
        clients.iter_mut().for_each(|client| client.like_times(MOST_IN_ROUND / 4));
        let expected = Vec::from_iter(next..next + MOST_IN_ROUND as u64);
        for client in &mut clients {
            assert_eq!(Vec::from_iter(expected.iter().map(|_| client.count())), expected);
        }
        assert_eq!(Vec::from_iter(inside.by_ref().take(MOST_IN_ROUND)), expected);
        next += MOST_IN_ROUND as u64;
    }
}

#[test]
fn who_joins_while_others_like_begins_at_the_count_and_misses_none() {
    let server = Running::with_limits(0, &patient());
    let (addr, over) = (server.addr, AtomicBool::new(false));
    let mut inside = server.likes.subscribe();
    thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 0.. {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                (0..turn % 8).for_each(|_| server.likes.like_without_waiting().unwrap());
                let last = server.likes.like().unwrap();
                // No more before these are being shown, so that a round shows each of its counts.
                let mut shown = std::iter::from_fn(|| inside.next_within(PATIENCE).ok());
                assert!(shown.any(|count| count == last));
            }
        });
        let watchers = (0..4).map(|_| {
            scope.spawn(|| {
                for _ in 0..200 {
                    let before = server.likes.count();
                    let mut client = Client::new(addr);
                    let counts = Vec::from_iter((0..5).map(|_| client.count()));
                    assert!(before <= counts[0], "{} is older than {before}", counts[0]);
                    assert_eq!(counts, Vec::from_iter(counts[0]..counts[0] + 5));
                }
            })
        });
        let ended: Vec<_> = watchers.collect::<Vec<_>>().into_iter().map(|watcher| watcher.join()).collect();
        over.store(true, Ordering::Relaxed);
        ended.into_iter().for_each(|watcher| watcher.unwrap());
    });
}

#[test]
fn of_more_likes_than_are_shown_one_by_one_only_the_newest_count_is_shown() {
    let (likes, script) = scripted(0);
    let server = Running::serve(Folder::new(), likes, |server| server);
    let (mut liker, mut client) = (Client::new(server.addr), Client::new(server.addr));
    let mut inside = server.likes.subscribe();
    assert_eq!((client.count(), inside.next()), (0, Some(0)));
    let mut count = 0;
    for (likes, shown_one_by_one) in [(MOST_IN_ROUND as u64, true), (MOST_IN_ROUND as u64 + 1, false)] {
        // While the save of the first is held up, the others gather, to be saved and shown as one.
        liker.like();
        assert_eq!(script.save(), 1);
        liker.like_times(likes as usize);
        liker.settle();
        script.end(Ending::Saved);
        count += 1;
        assert_eq!((client.count(), inside.next()), (count, Some(count)));
        assert_eq!(script.save(), likes);
        script.end(Ending::Saved);
        let expected = Vec::from_iter(if shown_one_by_one { count + 1 } else { count + likes }..=count + likes);
        count += likes;
        assert_eq!(client.counts_until(count), expected);
        assert_eq!(Vec::from_iter(inside.by_ref().take(expected.len())), expected);
    }
}

// --- clients that do not read ---

/// One who likes and watches, and a client that does not read.
struct Stalled {
    lively: Client,
    silent: Client,
    /// At this time the silent one could still be sent something.
    moved: Instant,
    /// The last to go: it waits for its clients.
    server: Running,
}

impl Stalled {
    /// Has likes shown until the silent one takes no more.
    fn with(limits: &Limits) -> Self {
        let server = Running::with_limits(LONG_COUNT, limits);
        let silent = Client::over(connect_narrow(server.addr), None);
        let lively = Client::new(server.addr);
        let mut stalled = Self { lively, silent, moved: Instant::now(), server };
        assert_eq!(stalled.lively.count(), LONG_COUNT);
        loop {
            let start = Instant::now();
            stalled.show_round();
            if stalled.sample("behind") > 0.0 {
                return stalled;
            }
            stalled.moved = start;
        }
    }

    /// Likes, and sees to it that every count is shown to the one who reads.
    fn show_round(&mut self) {
        let next = self.server.likes.count() + 1;
        self.lively.like_times(MOST_IN_ROUND);
        let expected = Vec::from_iter(next..next + MOST_IN_ROUND as u64);
        assert_eq!(Vec::from_iter(expected.iter().map(|_| self.lively.count())), expected);
    }

    fn sample(&self, name: &str) -> f64 {
        get(self.server.addr, "/metrics").sample(name)
    }
}

#[test]
fn a_client_that_does_not_read_is_dropped_after_the_deadline_and_delays_nobody() {
    let mut limits = patient();
    limits.write_deadline = Duration::from_secs(1);
    let mut stalled = Stalled::with(&limits);
    let start = Instant::now();
    while stalled.sample("dropped_total") == 0.0 {
        stalled.show_round();
        assert!(start.elapsed() < PATIENCE, "it was to be dropped");
    }
    assert!(stalled.moved.elapsed() >= limits.write_deadline, "dropped too soon: {:?}", stalled.moved.elapsed());
    assert_eq!((stalled.sample("watching"), stalled.sample("behind")), (1.0, 0.0));
    stalled.show_round();
    stalled.silent.ended();
}

#[test]
fn a_client_that_falls_behind_and_then_reads_ends_at_the_newest_count() {
    let mut stalled = Stalled::with(&patient());
    for _ in 0..20 {
        stalled.show_round();
    }
    let last = stalled.server.likes.count();
    let counts = stalled.silent.counts_until(last);
    assert_rising(&counts);
    assert!((counts.len() as u64) < last - LONG_COUNT, "it was to miss some");
    eventually("it is level again", || stalled.sample("behind") == 0.0);
    // From now on it is shown every count.
    stalled.show_round();
    assert_eq!(stalled.silent.counts_until(last + 64), Vec::from_iter(last + 1..=last + 64));
    assert_eq!(stalled.sample("dropped_total"), 0.0);
}

#[test]
fn a_client_that_sends_and_does_not_read_is_held_up_by_itself_alone() {
    let mut limits = patient();
    limits.write_deadline = Duration::from_secs(1);
    let server = Running::with_limits(16, &limits);
    let mut lively = Client::new(server.addr);
    let silent = Client::over(connect_narrow(server.addr), None);
    // Each of these pings is owed a pong.
    let flood = thread::spawn(move || {
        let mut stream = silent.socket.get_ref();
        let pings = [b"\x89\xfd\0\0\0\0".as_slice(), &[b'.'; 125]].concat().repeat(100);
        while stream.write_all(&pings).is_ok() {}
    });
    assert_eq!(lively.count(), 16);
    let mut next = 17;
    let start = Instant::now();
    while get(server.addr, "/metrics").sample("watching") > 1.0 {
        lively.like();
        assert_eq!(lively.count(), next);
        next += 1;
        assert!(start.elapsed() < PATIENCE, "it was to be dropped");
    }
    flood.join().unwrap();
}

#[test]
#[cfg(all(feature = "cli", target_os = "linux"))]
fn clients_that_do_not_read_cost_no_memory_however_much_is_shown() {
    const SILENT: usize = 40;
    let server = process::Process::start(LONG_COUNT, &["--write-deadline", "1000", "--ping-after", "1000"]);
    let silent: Vec<_> = (0..SILENT).map(|_| Client::over(connect_narrow(server.addr), None)).collect();
    let mut lively = Client::new(server.addr);
    let mut count = lively.count();
    let mut show = |likes: usize| {
        for _ in 0..likes / MOST_IN_ROUND {
            lively.like_times(MOST_IN_ROUND);
            count += MOST_IN_ROUND as u64;
            lively.counts_until(count);
        }
    };
    let behind = || get(server.addr, "/metrics").sample("behind");
    while behind() < SILENT as f64 {
        show(10 * MOST_IN_ROUND);
    }
    let before = server.resident();
    show(200 * MOST_IN_ROUND);
    assert_eq!(behind(), SILENT as f64);
    let grown = server.resident().saturating_sub(before);
    // Had each held the frames that it was not sent, they would hold 10 MB.
    assert!(grown < 1024, "grown by {grown} KiB");
    drop(silent);
}

// --- clients that leave ---

#[test]
fn clients_that_leave_in_whatever_way_leave_nothing_behind() {
    let server = Running::with_limits(16, &patient());
    let mut stays = Client::new(server.addr);
    assert_eq!(stays.count(), 16);
    for leave in WAYS_TO_LEAVE {
        let mut clients: Vec<_> = (0..10).map(|_| Client::new(server.addr)).collect();
        assert!(clients.iter_mut().all(|client| client.count() == server.likes.count()));
        assert_eq!(server.likes.watching(), 11);
        clients.into_iter().for_each(leave);
        // Some may still be in the registry; whoever stays sees the like all the same.
        let next = server.likes.count() + 1;
        stays.like();
        assert_eq!(stays.count(), next);
        eventually("all have left but one", || server.likes.watching() == 1);
    }
    drop(stays);
    eventually("all have left", || server.likes.watching() == 0);
    eventually("there is no connection but this one", || get(server.addr, "/metrics").sample("connections") == 1.0);
}

/// How a client may leave, from the politest way down.
const WAYS_TO_LEAVE: [fn(Client); 5] = [
    |mut client| {
        let frame = CloseFrame { code: 1000.into(), reason: "".into() };
        client.socket.close(Some(frame)).unwrap();
        client.ended();
    },
    drop,
    |mut client| {
        client.socket.get_ref().shutdown(Shutdown::Write).unwrap();
        client.ended();
    },
    // Within a frame.
    |client| client.socket.get_ref().write_all(b"\x81\x8f\0\0").unwrap(),
    |client| reset(client.socket.get_ref().try_clone().unwrap()),
];

#[test]
#[cfg(all(feature = "cli", target_os = "linux"))]
fn connections_that_end_give_their_descriptors_and_threads_back() {
    let server = process::Process::start(16, &[]);
    let addr = server.addr;
    let held = || (server.descriptors(), server.threads());
    // Who is shown a count is served: the server has read what the system allows, and holds no more of its own.
    let mut stays = Client::new(addr);
    let count = stays.count();
    let before = held();
    let visits: [fn(SocketAddr); 6] = [
        |addr| drop(get(addr, "/")),
        |addr| drop(connect(addr)),
        |addr| connect(addr).write_all(b"GET / HT").unwrap(),
        // Does not wait for the page.
        |addr| connect(addr).write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap(),
        // Speaks TLS.
        |addr| drop(client::exchange(addr, b"\x16\x03\x01\x02\r\n\r\n")),
        |addr| reset(connect(addr)),
    ];
    for _ in 0..10 {
        visits.iter().for_each(|visit| visit(addr));
        for leave in WAYS_TO_LEAVE {
            leave(Client::new(addr));
        }
    }
    eventually("descriptors and threads are as before", || held() == before);
    assert_eq!(get(addr, "/metrics").sample("watching"), 1.0);
    stays.like();
    assert_eq!(stays.count(), count + 1);
}

// --- the end ---

#[test]
fn a_stop_tells_every_client_and_saves_what_was_taken() {
    let (likes, script) = scripted(0);
    let folder = Folder::new();
    let mut server = Running::serve(folder, likes, |server| server);
    let mut clients: Vec<_> = (0..8).map(|_| Client::new(server.addr)).collect();
    let mut inside = server.likes.subscribe();
    for client in &mut clients {
        assert_eq!(client.count(), 0);
        client.like_times(10);
        client.settle();
    }
    // All are taken, and none is saved: the store holds up the first of them.
    let mut saved = script.save();
    assert_eq!(server.likes.count(), 0);
    server.begin_stop();
    for client in &mut clients {
        assert_eq!(client.closed(), (1001, "the server is shutting down".to_owned()));
    }
    drop(clients);
    script.end(Ending::Saved);
    while saved < 80 {
        saved += script.save();
        script.end(Ending::Saved);
    }
    server.wait().unwrap();
    assert_eq!(server.likes.count(), 80);
    assert_eq!(inside.find(|count| *count == 80), Some(80));
    TcpStream::connect(server.addr).expect_err("nobody listens any more");
}

#[test]
fn a_like_over_http_that_waits_for_its_save_is_answered_through_a_stop() {
    let (likes, script) = scripted(0);
    let mut limits = patient();
    limits.close_within = PATIENCE;
    let likes = likes;
    let mut server = Running::serve(Folder::new(), likes, |server| server.limits(limits));
    let addr = server.addr;
    let liker = thread::spawn(move || ask(addr, "PUT", "/like", &[]));
    assert_eq!(script.save(), 1);
    server.begin_stop();
    eventually("it is stopping", || get(addr, "/healthz").status == 503);
    script.end(Ending::Saved);
    assert_eq!(liker.join().unwrap().body, r#"{"numLikes":1}"#);
    server.wait().unwrap();
}

#[test]
fn who_comes_while_the_server_stops_is_told_so() {
    let mut limits = patient();
    limits.close_within = PATIENCE;
    limits.stop_within = 2 * PATIENCE;
    let mut server = Running::with_limits(16, &limits);
    let addr = server.addr;
    let mut last = Client::new(addr);
    assert_eq!(last.count(), 16);
    let mut kept_alive = connect(addr);
    kept_alive.write_all(format!("HEAD /likes HTTP/1.1\r\nHost: {addr}\r\n\r\n").as_bytes()).unwrap();
    client::read_head(&mut kept_alive);
    server.begin_stop();
    assert!(matches!(last.socket.read(), Ok(Message::Close(_))));
    // The last client keeps its connection open, and the server waits for it.
    for answer in [get(addr, "/healthz"), ask(addr, "PUT", "/like", &[]), handshake(addr, "/liveLikes", &[])] {
        assert_eq!((answer.status, answer.body.as_str()), (503, "the server is shutting down\n"));
        assert!(answer.field("Retry-After").is_some());
    }
    assert_eq!(get(addr, "/likes").body, r#"{"numLikes":16}"#);
    assert_eq!(kept_alive.read(&mut [0]).unwrap(), 0, "nothing more is asked on it");
    let start = Instant::now();
    last.ended();
    drop(last);
    server.wait().unwrap();
    assert!(start.elapsed() < PATIENCE, "with the last client gone the stop is done");
    assert_eq!(server.folder.saved(), 16);
}

#[test]
fn peers_that_do_not_care_cannot_hold_up_a_stop() {
    let mut limits = patient();
    limits.request_time = 10 * PATIENCE;
    limits.stop_within = Duration::from_secs(1);
    let mut server = Running::with_limits(16, &limits);
    let mut watching: Vec<_> = (0..10).map(|_| Client::over(connect_narrow(server.addr), None)).collect();
    assert!(watching.iter_mut().all(|client| client.count() == 16));
    let silent: Vec<_> = (0..10).map(|_| connect(server.addr)).collect();
    silent.iter().for_each(|mut stream| stream.write_all(b"GET / HTTP/1.1\r\n").unwrap());
    server.likes.like_without_waiting().unwrap();
    let start = Instant::now();
    server.begin_stop();
    server.wait().unwrap();
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    assert_eq!(server.folder.saved(), 17);
}

// --- panics ---

/// A logger that panics at one line that the thread of a connection logs while its client is in the registry. It
/// stands in for a defect there.
struct PanicsAtBinary;

impl log::Log for PanicsAtBinary {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("live_likes::websocket")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            assert!(!record.args().to_string().contains("Some(1003)"), "the panic that this test is about");
        }
    }

    fn flush(&self) {}
}

#[test]
fn a_panic_in_one_connection_ends_that_connection_alone() {
    log::set_logger(&PanicsAtBinary).unwrap();
    log::set_max_level(log::LevelFilter::Debug);
    let server = Running::with_limits(16, &patient());
    let (mut stays, mut breaks) = (Client::new(server.addr), Client::new(server.addr));
    assert_eq!((stays.count(), breaks.count()), (16, 16));
    breaks.like_times(3);
    breaks.counts_until(19);
    breaks.socket.send(Message::binary("boom")).unwrap();
    assert!(!matches!(breaks.socket.read(), Ok(Message::Close(_))), "it was to break off");
    eventually("its place is empty", || server.likes.watching() == 1);
    eventually("its connection is counted no more", || get(server.addr, "/metrics").sample("connections") == 2.0);
    stays.like();
    assert_eq!(stays.counts_until(20), [17, 18, 19, 20]);
    assert_eq!(Client::new(server.addr).count(), 20);
    assert_eq!(server.folder.saved(), 20);
}

#[test]
fn a_store_that_panics_stops_the_counter_for_good_and_everyone_is_told() {
    let mut server =
        Running::serve(Folder::new(), Likes::with_store(memory(16, |_| Ending::Panic)).unwrap(), |server| server);
    let mut client = Client::new(server.addr);
    assert_eq!(client.count(), 16);
    assert_eq!(ask(server.addr, "PUT", "/like", &[]).status, 503);
    assert_eq!(client.closed().0, 1001);
    drop(client);
    assert!(matches!(server.wait(), Err(Error::Stopped(_))));
    assert_eq!(server.likes.count(), 16);
}

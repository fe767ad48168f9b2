//! The concurrent core under a model scheduler, which runs it in one order of steps after another: `.ci/model`.
//!
//! Ledger, saver, broadcaster, audiences and outboxes are the real ones; the sockets are pipes in memory, and the store
//! is a number here, and a database in memory in `posts`. Each schedule must keep the promises: versions that rise, the
//! newest in the end, no like lost or counted twice, nobody left behind or waiting. `.ci/model` also plants mistakes in a copy of the core, to show that the model finds them.
//!
//! The core is no part of the library's interface, so this is a crate that holds it, built with `--cfg shuttle`.

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

#[path = "model/client.rs"]
mod client;
#[path = "model/database.rs"]
mod database;
#[path = "model/posts.rs"]
mod posts;

use crate::{
    error::{Error, Result},
    likes::Likes,
    likes::audience::Audience,
    likes::behind::Behind,
    likes::dialect::Dialect,
    likes::outbox::{Outbox, Standing, tests::Pipe},
    likes::round::tests::{count, only},
    likes::sync::{Mutex, lock, thread},
    store::{
        Store,
        change::{BatchId, Change, Count, Outcome, Post},
    },
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

const SCHEDULES: usize = 100_000;
const LONG: Duration = Duration::from_secs(3600);
/// Waits of this length may be over at any time: see `sync::wait_for`.
const SHORT: Duration = Duration::from_secs(30);

/// Runs a scenario in `LIVE_LIKES_SCHEDULES` random orders: each step is anybody's.
fn random(scenario: fn()) {
    shuttle::check_random(scenario, schedules());
}

/// The same with random priorities that change three times, which finds what takes one thread to be held up for long.
fn held_up(scenario: fn()) {
    shuttle::check_pct(scenario, schedules(), 3);
}

fn schedules() -> usize {
    std::env::var("LIVE_LIKES_SCHEDULES").map_or(SCHEDULES, |n| n.parse().expect("a number"))
}

/// A store that fails as often as it is told to, and says what it kept.
struct Memory {
    total: Arc<AtomicU64>,
    failures: usize,
}

impl Store for Memory {
    fn count(&mut self, _: &Post) -> Result<Count> {
        Ok(count(self.total.load(Ordering::SeqCst)))
    }

    fn apply(&mut self, _: BatchId, changes: &[Change]) -> Result<Vec<Outcome>> {
        thread::yield_now();
        if self.failures > 0 {
            self.failures -= 1;
            return Err(Error::NotSaved("as planned".into()));
        }
        let apply = |change: &Change| {
            let likes = change.likes();
            Outcome::Applied(count(self.total.fetch_add(likes, Ordering::SeqCst) + likes))
        };
        Ok(changes.iter().map(apply).collect())
    }
}

fn open(failures: usize) -> (Likes, Arc<AtomicU64>) {
    let total = Arc::new(AtomicU64::new(16));
    let store = Memory { total: total.clone(), failures };
    (Likes::with_store(store).unwrap(), total)
}

/// A client on a pipe with so much room.
fn client(room: usize) -> (Arc<Pipe>, Arc<Outbox>) {
    let pipe = Pipe::new(room);
    (pipe.clone(), Arc::new(Outbox::new(pipe, LONG, Dialect::Bare, None)))
}

#[track_caller]
fn rising(pipe: &Pipe) -> Vec<u64> {
    let counts: Vec<u64> = pipe.frames().iter().filter_map(|frame| frame.parse().ok()).collect();
    assert!(counts.is_sorted_by(|a, b| a < b), "counts rise: {counts:?}");
    counts
}

/// Everyone at once: likers of both kinds, one who watches from the start, one who joins, one who leaves, one who
/// reads slowly; then the end.
fn everyone() {
    let (likes, total) = open(0);
    let (watching, outbox) = client(usize::MAX);
    let registration = likes.join(&outbox, None).unwrap();
    let (slow, slow_outbox) = client(3);
    let slow_registration = likes.join(&slow_outbox, None).unwrap();

    let liker = thread::spawn({
        let likes = likes.clone();
        move || {
            let first = likes.like().unwrap();
            assert!(likes.count() >= first, "saved before it is told");
            let second = likes.like().unwrap();
            assert!(second > first);
        }
    });
    let sender = thread::spawn({
        let likes = likes.clone();
        move || (0..2).for_each(|_| likes.like_without_waiting().unwrap())
    });
    let joiner = thread::spawn({
        let likes = likes.clone();
        move || {
            let (pipe, outbox) = client(usize::MAX);
            let registration = likes.join(&outbox, None).unwrap();
            likes.like().unwrap();
            (pipe, registration)
        }
    });
    let leaver = thread::spawn({
        let likes = likes.clone();
        move || {
            let (pipe, outbox) = client(usize::MAX);
            drop(likes.join(&outbox, None).unwrap());
            rising(&pipe);
        }
    });
    let reader = thread::spawn(move || {
        slow.make_room(usize::MAX);
        slow
    });

    liker.join().unwrap();
    sender.join().unwrap();
    leaver.join().unwrap();
    let (joined, joined_registration) = joiner.join().unwrap();
    let slow = reader.join().unwrap();
    assert_eq!(likes.flush(LONG).unwrap(), 21);
    likes.wait_until_shown(Instant::now() + LONG);
    assert_eq!(likes.close(LONG).unwrap(), 21);
    assert_eq!(total.load(Ordering::SeqCst), 21);
    assert_eq!(rising(&watching), [16, 17, 18, 19, 20, 21], "one that keeps up is shown every count");
    let joined = rising(&joined);
    assert_eq!(joined, Vec::from_iter(joined[0]..=21), "one that joins is shown every count from its first one on");
    while slow_outbox.retry(Instant::now()).standing == Standing::Behind {}
    assert_eq!(rising(&slow).last(), Some(&21), "one that was behind ends at the newest");
    drop((registration, slow_registration, joined_registration));
    assert_eq!(likes.watching(), 0, "nobody is left behind");
}

/// A client joins while likes are on their way: it begins at the count as it is and ends at the newest.
fn joining() {
    let (likes, _) = open(0);
    let liker = thread::spawn({
        let likes = likes.clone();
        move || {
            likes.like().unwrap();
            likes.like().unwrap();
        }
    });
    let (pipe, outbox) = client(usize::MAX);
    let before = likes.count();
    let _registration = likes.join(&outbox, None).unwrap();
    liker.join().unwrap();
    likes.close(LONG).unwrap();
    let counts = rising(&pipe);
    assert!(counts[0] >= before, "it begins at the count as it is, {before}: {counts:?}");
    assert_eq!(counts.last(), Some(&18), "the client ends at the newest count");
}

/// Saves fail while likes come: those who wait are told, those who do not are saved once.
fn failing_saves() {
    let (likes, total) = open(2);
    let (watching, outbox) = client(usize::MAX);
    let _registration = likes.join(&outbox, None).unwrap();
    let taken = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..3)
        .map(|kind| {
            let (likes, taken) = (likes.clone(), taken.clone());
            thread::spawn(move || {
                let like = || if kind == 0 { likes.like_without_waiting() } else { likes.like().map(drop) };
                for _ in 0..2 {
                    if like().is_ok() {
                        taken.fetch_add(1, Ordering::SeqCst);
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let count = 16 + taken.load(Ordering::SeqCst);
    assert_eq!(likes.flush(LONG).unwrap(), count);
    // Only a like makes a save that shows that saving works again, so `close` may find the fault still there.
    let _ = likes.close(LONG);
    assert_eq!(total.load(Ordering::SeqCst), count, "each like that was taken is saved once, and no other");
    assert_eq!(rising(&watching).last(), Some(&count));
}

/// The counter is closed while likes come: each is saved or refused.
fn closing() {
    let (likes, total) = open(0);
    let mut subscription = likes.subscribe();
    let watcher = thread::spawn(move || Vec::from_iter(std::iter::from_fn(|| subscription.next_within(SHORT).ok())));
    let liker = thread::spawn({
        let likes = likes.clone();
        move || (0..3).filter(|_| likes.like().is_ok()).count() as u64
    });
    let closer = thread::spawn({
        let likes = likes.clone();
        move || likes.close(LONG).unwrap()
    });
    let count = 16 + liker.join().unwrap();
    assert_eq!(closer.join().unwrap(), count);
    assert_eq!(total.load(Ordering::SeqCst), count);
    let counts = watcher.join().unwrap();
    assert!(counts.is_sorted_by(|a, b| a < b), "{counts:?}");
    assert_eq!(counts.last(), Some(&count));
}

#[test]
fn everyone_at_once_in_random_orders() {
    random(everyone);
}

#[test]
fn joining_in_random_orders() {
    random(joining);
}

#[test]
fn joining_while_one_is_held_up() {
    held_up(joining);
}

#[test]
fn failing_saves_in_random_orders() {
    random(failing_saves);
}

#[test]
fn closing_in_random_orders() {
    random(closing);
}

/// One like, one client that joins meanwhile, through the outbox alone: every order there is.
#[test]
fn a_client_that_joins_during_a_round_in_every_order() {
    static ORDERS: AtomicUsize = AtomicUsize::new(0);
    shuttle::check_dfs(
        || {
            ORDERS.fetch_add(1, Ordering::Relaxed);
            join_during_a_round();
        },
        None,
    );
    assert!(ORDERS.load(Ordering::Relaxed) > 100, "it was exhaustive over more than a few");
}

/// The rule for joining: register, *then* look at the count.
fn join_during_a_round() {
    let audience = Arc::<Audience>::default();
    let saved = Arc::new(Mutex::new(16));
    let round = thread::spawn({
        let (audience, saved) = (audience.clone(), saved.clone());
        move || {
            *lock(&saved) = 17;
            audience.fan_out(&only(17), 1, &Behind::default());
        }
    });
    let (pipe, outbox) = client(usize::MAX);
    let slot = outbox.open(Post::default(), None);
    let registration = audience.join(outbox.clone(), slot);
    let saved = *lock(&saved);
    outbox.begin(slot, count(saved), None);
    round.join().unwrap();
    assert_eq!(rising(&pipe).last(), Some(&17), "the client ends at the newest count");
    drop(registration);
}

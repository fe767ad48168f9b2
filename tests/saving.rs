//! Saved before shown, whatever the store does: counter and server with a store whose every save ends as the test says.

#[path = "support/client.rs"]
mod client;
#[path = "support/folder.rs"]
mod folder;
#[path = "support/scripted.rs"]
mod scripted;

use client::{Client, get, put};
use folder::Folder;
use live_likes::{Count, Error, Likes, Limits, Result, Server, Subscription};
use scripted::{Ending, fed, memory, scripted};
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::mpsc::RecvTimeoutError,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Nobody should ever wait this long.
const LONG: Duration = Duration::from_secs(60);

/// A server that runs until it is stopped.
struct Running {
    addr: SocketAddr,
    handle: live_likes::Handle,
    thread: JoinHandle<Result<()>>,
}

fn serve(likes: &Likes) -> Running {
    let mut limits = Limits::default();
    // However busy the machine, nobody is dropped for not reading while it sends.
    (limits.write_deadline, limits.ping_after) = (10 * LONG, 10 * LONG);
    // The peers of these tests do not answer a close frame.
    limits.close_within = Duration::from_millis(100);
    let listening = Server::new(likes.clone()).limits(limits).bind("127.0.0.1:0").unwrap();
    let (addr, handle) = (listening.local_addr(), listening.handle());
    Running { addr, handle, thread: thread::spawn(|| listening.run()) }
}

impl Running {
    fn stop(self) -> Result<()> {
        self.handle.stop();
        self.thread.join().unwrap()
    }
}

/// A subscriber that has been shown the count as it is.
fn subscriber(likes: &Likes) -> Subscription {
    let mut shown = likes.subscribe();
    assert_eq!(shown.next_within(LONG), Ok(likes.count()));
    shown
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        thread::yield_now();
    }
}

/// Likes in a thread of its own, and returns once the like has been taken.
fn like_in_thread(likes: &Likes) -> JoinHandle<Result<u64>> {
    let before = unsaved(likes);
    let clone = likes.clone();
    let thread = thread::spawn(move || clone.like());
    until("the like should be taken", || unsaved(likes) > before);
    thread
}

/// Likes taken and not saved yet.
fn unsaved(likes: &Likes) -> u64 {
    match likes.flush(Duration::ZERO) {
        Ok(_) => 0,
        Err(e) => e.to_string().split_whitespace().find_map(|word| word.parse().ok()).unwrap(),
    }
}

#[test]
fn nobody_is_shown_a_count_before_it_is_saved() {
    let (likes, script) = scripted(16);
    let server = serve(&likes);
    let mut shown = subscriber(&likes);
    let mut watching = Client::new(server.addr);
    let mut liking = Client::new(server.addr);
    assert_eq!((watching.count(), liking.count()), (16, 16));

    // While the save hangs, everyone is shown the old count: those who watch, those who ask, those who come.
    liking.like();
    assert_eq!(script.save(), 1);
    assert_eq!(likes.count(), 16);
    assert_eq!(shown.next_within(Duration::ZERO), Err(RecvTimeoutError::Timeout));
    assert!(watching.has_been_sent_nothing() && liking.has_been_sent_nothing());
    assert_eq!(Client::new(server.addr).count(), 16);
    assert!(get(server.addr, "/likes").body.ends_with(r#"{"numLikes":16}"#));
    let addr = server.addr;
    let putting = thread::spawn(move || put(addr, "/like"));
    until("the second like should be taken", || unsaved(&likes) == 2);

    script.end(Ending::Saved);
    assert_eq!((watching.count(), liking.count(), shown.next_within(LONG)), (17, 17, Ok(17)));
    assert_eq!(script.save(), 1);
    assert!(get(server.addr, "/likes").body.ends_with(r#"{"numLikes":17}"#));
    assert!(watching.has_been_sent_nothing() && !putting.is_finished());

    script.end(Ending::Saved);
    assert!(putting.join().unwrap().body.ends_with(r#"{"numLikes":18}"#));
    assert_eq!((watching.count(), liking.count(), shown.next_within(LONG)), (18, 18, Ok(18)));
    server.stop().unwrap();
}

#[test]
fn likes_gathered_while_a_save_runs_are_saved_together() {
    let (likes, script) = scripted(0);
    likes.like_without_waiting().unwrap();
    assert_eq!(script.save(), 1);
    for _ in 0..100 {
        likes.like_without_waiting().unwrap();
    }
    let waiting = like_in_thread(&likes);
    script.end(Ending::Saved);
    assert_eq!(script.save(), 101);
    script.end(Ending::Saved);
    assert_eq!(waiting.join().unwrap().unwrap(), 102);
    assert_eq!(likes.flush(LONG).unwrap(), 102);
    assert!(script.is_idle());
}

#[test]
fn when_a_save_fails_those_who_wait_are_told_and_not_counted_and_the_others_are_saved_once_later() {
    let (likes, script) = scripted(16);
    let mut shown = subscriber(&likes);
    // One save fails: with 2 likes that nobody waits for and 1 that somebody does; meanwhile come 3 more and 1.
    likes.like_without_waiting().unwrap();
    assert_eq!(script.save(), 1);
    (0..2).for_each(|_| likes.like_without_waiting().unwrap());
    let first = like_in_thread(&likes);
    script.end(Ending::Saved);
    assert_eq!(script.save(), 3);
    (0..3).for_each(|_| likes.like_without_waiting().unwrap());
    let second = like_in_thread(&likes);
    script.end(Ending::NotSaved);

    for waiting in [first, second] {
        let told = waiting.join().unwrap().unwrap_err();
        assert!(matches!(&told, Error::NotSaved(reason) if reason == "the disk is full"), "{told}");
    }
    assert_eq!(script.save(), 2, "tried again with what nobody waited for");
    assert!(matches!(likes.health(), Err(Error::NotSaved(_))));
    assert!(matches!(likes.like(), Err(Error::NotSaved(_))));
    assert!(matches!(likes.like_without_waiting(), Err(Error::NotSaved(_))));
    script.end(Ending::NotSaved);
    assert_eq!(script.save(), 2, "and again");
    assert_eq!(
        (likes.count(), shown.next_within(LONG), shown.next_within(Duration::ZERO)),
        (17, Ok(17), Err(RecvTimeoutError::Timeout))
    );

    script.end(Ending::Saved);
    assert_eq!(script.save(), 3, "then what nobody waited for of the likes that came meanwhile");
    script.end(Ending::Saved);
    assert_eq!((18..=22).map(|_| shown.next_within(LONG).unwrap()).collect::<Vec<_>>(), [18, 19, 20, 21, 22]);
    likes.health().unwrap();
    let next = like_in_thread(&likes);
    assert_eq!(script.save(), 1, "the likes that were refused are gone");
    script.end(Ending::Saved);
    assert_eq!(next.join().unwrap().unwrap(), 23);
}

#[test]
fn with_nothing_left_to_save_it_is_still_found_out_when_saving_works_again() {
    let (likes, script) = scripted(16);
    let mut shown = subscriber(&likes);
    let waiting = like_in_thread(&likes);
    assert_eq!(script.save(), 1);
    script.end(Ending::NotSaved);
    waiting.join().unwrap().unwrap_err();
    assert_eq!(script.save(), 0);
    assert!(likes.health().is_err());
    script.end(Ending::Saved);
    until("it should be well again", || likes.health().is_ok());
    assert_eq!((likes.count(), shown.next_within(Duration::ZERO)), (16, Err(RecvTimeoutError::Timeout)));
}

#[test]
fn while_likes_cannot_be_saved_the_server_says_so_and_takes_none() {
    let (likes, script) = scripted(16);
    let server = serve(&likes);
    assert_eq!(get(server.addr, "/healthz").status, 200);
    let mut watching = Client::new(server.addr);
    let mut late = Client::new(server.addr);
    assert_eq!((watching.count(), late.count()), (16, 16));

    watching.like();
    assert_eq!(script.save(), 1);
    let addr = server.addr;
    let putting = thread::spawn(move || put(addr, "/like"));
    until("both likes should be taken", || unsaved(&likes) == 2);
    script.end(Ending::NotSaved);
    let answer = putting.join().unwrap();
    assert!(answer.status == 503 && answer.field("Retry-After").is_some(), "{answer:?}");
    assert_eq!(script.save(), 1);

    let health = get(addr, "/healthz");
    assert!(health.status == 503 && !health.body.contains("the disk"), "{health:?}");
    let answer = put(addr, "/like");
    assert!(answer.status == 503 && answer.field("Retry-After").is_some(), "{answer:?}");
    assert!(!answer.body.contains("the disk"), "what ails the server is nobody's business: {answer:?}");
    late.like();
    assert_eq!(late.closed().0, 1013);
    assert!(watching.has_been_sent_nothing());
    assert!(get(addr, "/likes").body.ends_with(r#"{"numLikes":16}"#));
    assert_eq!(get(addr, "/").status, 200);

    script.end(Ending::Saved);
    assert_eq!(watching.count(), 17);
    assert_eq!(get(addr, "/healthz").status, 200);
    drop(script);
    assert!(put(addr, "/like").body.ends_with(r#"{"numLikes":18}"#));
    server.stop().unwrap();
}

/// Has a save end in a way that stops the counter, and checks that it has stopped.
fn stops_for_good(ending: Ending, reason: &str) {
    let (likes, script) = scripted(16);
    let server = serve(&likes);
    let mut shown = subscriber(&likes);
    let mut watching = Client::new(server.addr);
    assert_eq!(watching.count(), 16);
    let saving = like_in_thread(&likes);
    assert_eq!(script.save(), 1);
    let gathered = like_in_thread(&likes);
    likes.like_without_waiting().unwrap();
    script.end(ending);

    let stopped = |result: Result<u64>| matches!(result, Err(Error::Stopped(told)) if told == reason);
    assert!(stopped(saving.join().unwrap()));
    assert!(stopped(gathered.join().unwrap()));
    assert!(stopped(server.thread.join().unwrap().map(|()| 0)), "run() should return the error");
    assert!(stopped(likes.like()));
    assert!(stopped(likes.like_without_waiting().map(|()| 0)));
    assert!(stopped(likes.health().map(|()| 0)));
    assert!(stopped(likes.flush(LONG)));
    assert!(stopped(likes.close(LONG)));
    assert_eq!((likes.count(), shown.next()), (16, None), "nothing is shown, and there is nothing more to come");
    assert_eq!(watching.closed().0, 1001);
    assert!(script.is_idle(), "the store is not called again");

    // A server that comes later sees it at once.
    assert!(stopped(serve(&likes).thread.join().unwrap().map(|()| 0)));
}

#[test]
fn a_save_whose_outcome_is_unknown_stops_everything() {
    stops_for_good(Ending::Stopped, "the disk is lost");
}

#[test]
fn a_store_that_panics_stops_everything() {
    stops_for_good(Ending::Panic, "the store panicked");
}

#[test]
fn a_retry_whose_outcome_is_unknown_stops_everything_too() {
    let (likes, script) = scripted(16);
    likes.like_without_waiting().unwrap();
    for (ending, likes) in [(Ending::NotSaved, 1), (Ending::NotSaved, 1), (Ending::Stopped, 1)] {
        assert_eq!(script.save(), likes);
        script.end(ending);
    }
    until("it should stop", || matches!(likes.health(), Err(Error::Stopped(_))));
    assert!(matches!(likes.close(LONG), Err(Error::Stopped(_))));
    assert_eq!(likes.count(), 16);
    assert!(script.is_idle());
}

#[test]
fn closing_saves_what_was_taken_and_takes_no_more() {
    let (likes, script) = scripted(16);
    (0..5).for_each(|_| likes.like_without_waiting().unwrap());
    drop(script);
    let mut shown = likes.subscribe();
    assert_eq!(likes.close(LONG).unwrap(), 21);
    assert!(matches!(likes.like(), Err(Error::Closed)));
    assert!(matches!(likes.like_without_waiting(), Err(Error::Closed)));
    assert!(matches!(likes.health(), Err(Error::Closed)));
    assert_eq!(likes.close(LONG).unwrap(), 21, "closing twice changes nothing");
    assert_eq!(shown.by_ref().last(), Some(21), "all is shown before the end");
}

#[test]
fn dropping_the_last_clone_saves_what_was_taken() {
    let folder = Folder::new();
    let path = folder.join("db.txt");
    let likes = Likes::open(&path).unwrap();
    (0..1000).for_each(|_| likes.like_without_waiting().unwrap());
    drop(likes.clone());
    assert!(likes.like().is_ok());
    drop(likes);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "1001");
}

#[test]
fn closing_gives_up_a_save_that_hangs_after_its_time() {
    let (likes, script) = scripted(16);
    likes.like_without_waiting().unwrap();
    assert_eq!(script.save(), 1);
    likes.like_without_waiting().unwrap();
    let start = Instant::now();
    let told = likes.close(Duration::from_millis(50)).unwrap_err();
    assert!(matches!(&told, Error::Unknown(reason) if reason.starts_with("2 likes may be saved or not")), "{told}");
    assert!((Duration::from_millis(50)..LONG).contains(&start.elapsed()));
    script.end(Ending::NotSaved);
    drop(likes);
    assert!(script.is_idle(), "the rest is not saved after all");
}

#[test]
fn closing_gives_up_a_save_that_keeps_failing_after_its_time() {
    let (likes, script) = scripted(16);
    likes.like_without_waiting().unwrap();
    assert_eq!(script.save(), 1);
    script.end(Ending::NotSaved);
    assert_eq!(script.save(), 1);
    script.end(Ending::NotSaved);
    until("it should have failed", || likes.health().is_err());
    let told = likes.close(Duration::from_millis(50)).unwrap_err();
    assert!(told.to_string().contains("1 likes were given up: the disk is full"), "{told}");
}

#[test]
fn closing_does_not_wait_for_a_store_that_fails_when_there_is_nothing_to_save() {
    let (likes, script) = scripted(16);
    (0..100).for_each(|_| script.end(Ending::NotSaved));
    likes.like().unwrap_err();
    let start = Instant::now();
    assert_eq!(likes.close(3 * LONG).unwrap(), 16);
    assert!(start.elapsed() < LONG);
}

#[test]
fn each_like_has_a_number_of_its_own() {
    const THREADS: u64 = 8;
    const LIKES: u64 = 1000;
    let (likes, script) = scripted(16);
    drop(script);
    let numbers: BTreeSet<u64> = thread::scope(|scope| {
        let liker = || {
            let mut numbers = Vec::new();
            for _ in 0..LIKES / 2 {
                // Likes that nobody waits for have numbers too, in the same batches.
                likes.like_without_waiting().unwrap();
                numbers.push(likes.like().unwrap());
            }
            assert!(numbers.is_sorted(), "later likes have higher numbers");
            numbers
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(liker)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(numbers.len() as u64, THREADS * LIKES / 2);
    assert!(*numbers.last().unwrap() <= 16 + THREADS * LIKES);
    assert_eq!(likes.close(LONG).unwrap(), 16 + THREADS * LIKES);
}

#[test]
fn likes_of_many_clients_are_all_saved_and_shown() {
    const CLIENTS: u64 = 8;
    const LIKES: u64 = 10_000;
    let folder = Folder::new();
    let path = folder.join("db.txt");
    let likes = Likes::open(&path).unwrap();
    let server = serve(&likes);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut peer = Client::new(server.addr);
                (0..LIKES).for_each(|_| peer.like());
                let mut last = None;
                while last < Some(CLIENTS * LIKES) {
                    let count = peer.count();
                    assert!(last < Some(count), "{count} after {last:?}");
                    last = Some(count);
                }
                assert_eq!(last, Some(CLIENTS * LIKES));
            });
        }
    });
    server.stop().unwrap();
    drop(likes);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "80000");
}

#[test]
fn past_the_largest_count_each_door_says_so() {
    let (likes, script) = scripted(u64::MAX - 1);
    drop(script);
    let server = serve(&likes);
    let mut peer = Client::new(server.addr);
    assert_eq!(peer.count(), u64::MAX - 1);
    peer.like();
    assert_eq!(peer.count(), u64::MAX);
    assert_eq!(put(server.addr, "/like").status, 409);
    assert!(get(server.addr, "/likes").body.ends_with(r#"{"numLikes":18446744073709551615}"#));
    peer.like();
    assert_eq!(peer.closed().0, 1008);
    assert!(matches!(likes.like(), Err(Error::Full)));
    assert_eq!(get(server.addr, "/healthz").status, 200);
    server.stop().unwrap();
}

#[test]
fn flush_waits_for_the_likes_before_it_and_not_for_those_after() {
    let (likes, script) = scripted(16);
    likes.like_without_waiting().unwrap();
    assert_eq!(script.save(), 1);
    let flushing = thread::spawn({
        let likes = likes.clone();
        move || likes.flush(LONG)
    });
    // However long likes keep coming: each save leaves the next to be made.
    for count in 17.. {
        likes.like_without_waiting().unwrap();
        script.end(Ending::Saved);
        assert_eq!(script.save(), 1);
        until("the count should rise", || likes.count() == count);
        if flushing.is_finished() {
            break;
        }
    }
    assert!(flushing.join().unwrap().unwrap() >= 17);
    assert!(unsaved(&likes) > 0);
}

#[test]
fn flush_returns_when_a_failed_save_leaves_nothing_to_be_saved() {
    let (likes, script) = scripted(16);
    let waiting = like_in_thread(&likes);
    assert_eq!(script.save(), 1);
    let flushing = thread::spawn({
        let likes = likes.clone();
        move || likes.flush(LONG)
    });
    script.end(Ending::NotSaved);
    waiting.join().unwrap().unwrap_err();
    assert_eq!(flushing.join().unwrap().unwrap(), 16);
}

#[test]
fn a_save_that_hangs_is_told_to_those_who_wait_and_refuses_further_likes_until_it_ends() {
    let (likes, script) = scripted(16);
    let server = serve(&likes);
    let waiting = like_in_thread(&likes);
    assert_eq!(script.save(), 1);
    let gathered = like_in_thread(&likes);
    let told = waiting.join().unwrap().unwrap_err();
    assert!(matches!(told, Error::Unknown(_)), "it may be saved yet: {told}");
    let told = gathered.join().unwrap().unwrap_err();
    assert!(matches!(told, Error::NotSaved(_)), "the store has not been given this one: {told}");
    assert!(matches!(likes.like(), Err(Error::NotSaved(_))));
    assert!(matches!(likes.health(), Err(Error::NotSaved(_))));
    assert_eq!(get(server.addr, "/healthz").status, 503);
    assert_eq!(put(server.addr, "/like").status, 503);

    script.end(Ending::Saved);
    until("it should be well again", || likes.health().is_ok());
    assert_eq!(likes.count(), 17);
    drop(script);
    assert_eq!(likes.like().unwrap(), 18);
    server.stop().unwrap();
}

#[test]
fn a_batch_whose_outcome_is_unknown_is_saved_again_under_its_number_with_those_who_wait_for_it() {
    let (likes, script) = scripted(16);
    likes.like_without_waiting().unwrap();
    assert_eq!(script.save(), 1);
    likes.like_without_waiting().unwrap();
    let waiting = like_in_thread(&likes);
    script.end(Ending::Saved);
    for ending in [Ending::Unknown, Ending::Unknown, Ending::NotSaved, Ending::Saved] {
        assert_eq!(script.save(), 2);
        assert!(!waiting.is_finished());
        script.end(ending);
    }
    assert_eq!(waiting.join().unwrap().unwrap(), 19);
    assert_eq!(likes.flush(LONG).unwrap(), 19);
}

#[test]
fn a_store_that_breaks_its_contract_stops_the_counter() {
    let count = |likes, version| Count { likes, version };
    for told in [
        vec![],
        vec![count(17, 17), count(18, 18)],
        vec![count(17, 16)],
        vec![count(16, 17)],
        vec![count(0, 17)],
        vec![count(15, 17)],
        vec![count(18, 18)],
        vec![count(u64::MAX, 17)],
        vec![count(u64::MAX, u64::MAX)],
    ] {
        let (likes, script) = scripted(16);
        let mut shown = subscriber(&likes);
        let waiting = like_in_thread(&likes);
        assert_eq!(script.save(), 1);
        script.end(Ending::Told(told.clone()));
        let problem = waiting.join().unwrap().unwrap_err();
        assert!(matches!(&problem, Error::Stopped(reason) if reason.contains("the store told")), "{told:?}: {problem}");
        assert!(matches!(likes.close(LONG), Err(Error::Stopped(_))));
        assert_eq!((likes.count(), shown.next()), (16, None), "{told:?} is not shown");
    }
}

#[test]
fn what_others_change_in_the_store_is_shown_if_it_is_newer() {
    let (likes, feed) = fed(16);
    let mut shown = subscriber(&likes);
    for (count, version) in [(20, 20), (18, 19), (3, 21)] {
        feed.changed(&live_likes::Post::default(), Count { likes: count, version });
    }
    feed.changed(&live_likes::Post::new("other").unwrap(), Count { likes: 99, version: 99 });
    assert_eq!((shown.next(), shown.next()), (Some(20), Some(3)));
    assert_eq!(likes.count(), 3);
}

#[test]
fn dropping_a_counter_that_cannot_save_does_not_wait_for_it() {
    let folder = Folder::new();
    let likes = Likes::with_store(memory(16, |_| Ending::NotSaved)).unwrap();
    likes.like_without_waiting().unwrap();
    until("it should have failed", || likes.health().is_err());
    let start = Instant::now();
    drop(likes);
    assert!(start.elapsed() < Duration::from_secs(4), "it gives up at once: {:?}", start.elapsed());
    drop(folder);
}

/// A logger that does not return from one line until it is let, as a standard error does that nobody reads.
struct Stuck {
    let_go: std::sync::Mutex<()>,
    reached: std::sync::atomic::AtomicBool,
}

static STUCK: Stuck = Stuck { let_go: std::sync::Mutex::new(()), reached: std::sync::atomic::AtomicBool::new(false) };

impl log::Log for Stuck {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.args().to_string().contains("while the log is stuck") {
            self.reached.store(true, std::sync::atomic::Ordering::SeqCst);
            drop(self.let_go.lock());
        }
    }

    fn flush(&self) {}
}

#[test]
fn a_log_that_is_stuck_stops_neither_counts_nor_joins_nor_health() {
    log::set_logger(&STUCK).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    let (likes, script) = scripted(16);
    let server = serve(&likes);
    let held = STUCK.let_go.lock().unwrap();
    likes.like_without_waiting().unwrap();
    assert_eq!(script.save(), 1);
    script.end(Ending::NotSavedSince("the disk fails while the log is stuck"));
    until("the line should be reached", || STUCK.reached.load(std::sync::atomic::Ordering::SeqCst));
    assert_eq!(likes.count(), 16);
    assert!(likes.health().is_err());
    assert_eq!(subscriber(&likes).next_within(Duration::ZERO), Err(RecvTimeoutError::Timeout));
    assert_eq!(Client::new(server.addr).count(), 16);
    assert_eq!(get(server.addr, "/healthz").status, 503);
    drop((held, script));
    assert_eq!(likes.flush(LONG).unwrap(), 17);
    server.stop().unwrap();
}

#[test]
fn a_subscription_keeps_its_counter_in_use() {
    let posts = live_likes::Posts::with_store(scripted::memory_of_many(|_| Ending::Saved)).unwrap();
    let mut shown = posts.post("hello").unwrap().subscribe();
    assert_eq!(shown.next(), Some(0));
    assert_eq!(posts.post("hello").unwrap().like().unwrap(), 1);
    assert_eq!(shown.next(), Some(1));
    drop(posts);
    assert_eq!(shown.next(), None, "it does not keep the store open");
}

//! Everyone who is shown one counter: the list of their outboxes, and the fan-out over it.
//!
//! A fan-out works on a copy of the list, so that joining, leaving and connecting never wait for a send. The copy is
//! made under the lock, and serves until somebody joins or leaves. Who joins while a fan-out runs is shown the current
//! count by its own thread; the outbox drops what would be a step back. Who leaves meanwhile may be sent to once more,
//! into a slot that is free by then.

use crate::{
    likes::{
        behind::Behind,
        outbox::Outbox,
        round::Round,
        subscription::Queue,
        sync::{Arc, Mutex, lock},
    },
    store::change::VisitorKey,
};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Threads for a fan-out, at most. More would wait for the same locks of the kernel's.
pub(crate) const MOST_WORKERS: usize = 8;

/// Clients for each thread of a fan-out, at the fewest. Starting one costs about as much as ten sends; this many sends
/// take half a millisecond.
const CLIENTS_A_WORKER: usize = 128;

/// Clients that a worker takes at a time: few enough that none waits long for another at the end.
const CLIENTS_A_TURN: usize = 64;

/// Everyone who is shown one counter.
#[derive(Default)]
pub(crate) struct Audience {
    clients: Mutex<Clients>,
    queues: Mutex<Vec<Arc<Queue>>>,
}

/// A list with holes, so that joining and leaving take the same time whether it is long or short.
#[derive(Default)]
struct Clients {
    places: Vec<Option<Client>>,
    free: Vec<usize>,
    /// All that are listed, if that was asked for since the last change.
    copy: Option<Copied>,
}

/// An outbox, and its slot for this counter.
type Client = (Arc<Outbox>, usize);
type Copied = Arc<[Client]>;

impl Clients {
    fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// The place taken; and the copy that is no longer good, to be dropped once the lock is free, for it is long.
    fn add(&mut self, client: Client) -> (usize, Option<Copied>) {
        let index = self.free.pop().unwrap_or(self.places.len());
        if index == self.places.len() {
            self.places.push(Some(client));
        } else {
            self.places[index] = Some(client);
        }
        (index, self.copy.take())
    }

    /// Who stood there; and the copy that is no longer good.
    fn remove(&mut self, index: usize) -> (Option<Client>, Option<Copied>) {
        self.free.push(index);
        (self.places[index].take(), self.copy.take())
    }

    fn copy(&mut self) -> Copied {
        self.copy.get_or_insert_with(|| self.places.iter().flatten().cloned().collect()).clone()
    }
}

impl Audience {
    /// Lets a client in, with its slot; returns its place. It is shown every round from the next one on; the caller shows
    /// it the count as it is now, *after* this call, or a round between the two would be missed.
    pub(crate) fn join(&self, outbox: Arc<Outbox>, slot: usize) -> usize {
        let (place, _stale) = lock(&self.clients).add((outbox, slot));
        place
    }

    /// Lets the client of this place go, and frees its slot.
    pub(crate) fn leave(&self, place: usize) {
        let (client, _stale) = lock(&self.clients).remove(place);
        if let Some((outbox, slot)) = client {
            outbox.release(slot);
        }
    }

    /// Lets a subscriber of this process in; see [`join`](Self::join) for the order.
    pub(crate) fn join_queue(&self, queue: Arc<Queue>) {
        lock(&self.queues).push(queue);
    }

    /// Lets a subscriber go.
    pub(crate) fn leave_queue(&self, queue: &Arc<Queue>) {
        lock(&self.queues).retain(|other| !Arc::ptr_eq(other, queue));
    }

    /// Ends all subscriptions, once everything has been shown.
    pub(crate) fn close_queues(&self) {
        lock(&self.queues).drain(..).for_each(|queue| queue.close());
    }

    /// The visitors on whose behalf it is watched.
    pub(crate) fn visitors(&self) -> Vec<VisitorKey> {
        let clients = lock(&self.clients).copy();
        clients.iter().filter_map(|(outbox, slot)| outbox.visitor(*slot)).collect()
    }

    /// Clients and subscribers.
    pub(crate) fn watching(&self) -> usize {
        lock(&self.clients).len() + lock(&self.queues).len()
    }

    /// Shows everyone a round, over at most `workers` threads; returns how many frames the kernel took when everyone
    /// has been tried. Clients that fall behind are added to those.
    ///
    /// One round at a time: a client's counts are in order because rounds are.
    pub(crate) fn fan_out(&self, round: &Round, workers: usize, behind: &Behind) -> u64 {
        for queue in lock(&self.queues).iter() {
            queue.offer(round.counts());
        }
        let clients = lock(&self.clients).copy();
        let workers = workers.min(clients.len() / CLIENTS_A_WORKER).max(1);
        let next = AtomicUsize::new(0);
        let worker = || show(&clients, &next, round, behind);
        if workers == 1 {
            return worker();
        }
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..workers)
                // A thread that cannot be had is not missed: the other workers take its clients.
                .filter_map(|_| std::thread::Builder::new().stack_size(64 * 1024).spawn_scoped(scope, worker).ok())
                .collect();
            worker() + others.into_iter().filter_map(|other| other.join().ok()).sum::<u64>()
        })
    }
}

/// One worker's part of a fan-out: a turn of clients, and another, until none are left. Returns the frames sent.
fn show(clients: &[Client], next: &AtomicUsize, round: &Round, behind: &Behind) -> u64 {
    let mut frames = 0;
    loop {
        let start = next.fetch_add(CLIENTS_A_TURN, Ordering::Relaxed);
        if start >= clients.len() {
            return frames;
        }
        for (outbox, slot) in &clients[start..clients.len().min(start + CLIENTS_A_TURN)] {
            let sent = outbox.offer(*slot, round);
            frames += sent.frames;
            if sent.fell_behind {
                behind.add(outbox.clone());
            }
        }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::{
        likes::{
            dialect::Dialect,
            outbox::{
                Wire,
                tests::{Pipe, Scripted},
            },
            round::tests::{count, only},
        },
        store::change::Post,
    };
    use std::{io, sync::mpsc, thread, time::Duration};

    const SOON: Duration = Duration::from_secs(20);

    /// A wire that tells of a send and holds it up until the test lets it go on.
    struct Held {
        begun: mpsc::Sender<()>,
        go_on: Mutex<mpsc::Receiver<()>>,
    }

    impl Scripted for Held {
        fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
            if bytes == b"\x81\x010" {
                return Ok(bytes.len()); // the count as it was when it joined
            }
            self.begun.send(()).unwrap();
            lock(&self.go_on).recv_timeout(SOON).expect("the test lets it go on");
            Ok(bytes.len())
        }

        fn shut_down(&self) {}
    }

    fn join(audience: &Audience, wire: impl Into<Wire>) -> usize {
        let outbox = Arc::new(Outbox::new(wire, SOON, Dialect::Bare, None));
        let slot = outbox.open(Post::default(), None);
        let place = audience.join(outbox.clone(), slot);
        outbox.begin(slot, count(0), None);
        place
    }

    fn fan_out(audience: &Audience, count: u64) -> u64 {
        audience.fan_out(&only(count), 1, &Behind::default())
    }

    #[test]
    fn who_joins_or_leaves_while_a_fan_out_is_held_up_does_not_wait_for_it() {
        let audience = Audience::default();
        let (begun, has_begun) = mpsc::channel();
        let (let_go, go_on) = mpsc::channel();
        join(&audience, Arc::new(Held { begun, go_on: Mutex::new(go_on) }));
        let (staying, leaving, joining) = (Pipe::new(usize::MAX), Pipe::new(usize::MAX), Pipe::new(usize::MAX));
        let leaver = join(&audience, leaving.clone());
        join(&audience, staying.clone());

        thread::scope(|scope| {
            let first = scope.spawn(|| fan_out(&audience, 1));
            has_begun.recv_timeout(SOON).expect("the fan-out reaches the client that holds it up");
            let (joined, has_joined) = mpsc::channel();
            let (audience, wire) = (&audience, joining.clone());
            scope.spawn(move || {
                audience.leave(leaver);
                let _ = joined.send(join(audience, wire));
            });
            let joiner = has_joined.recv_timeout(SOON);
            let_go.send(()).unwrap();
            joiner.expect("nobody waits for the fan-out");
            first.join().unwrap();
            assert_eq!(audience.watching(), 3);

            let_go.send(()).unwrap();
            fan_out(audience, 2);
        });

        assert_eq!(staying.frames(), ["0", "1", "2"]);
        assert_eq!(joining.frames(), ["0", "2"]);
        assert_eq!(leaving.frames(), ["0"]);
    }

    #[test]
    fn a_place_that_was_left_is_taken_again() {
        let audience = Audience::default();
        let pipes: Vec<_> = (0..3).map(|_| Pipe::new(usize::MAX)).collect();
        let mut places: Vec<_> = pipes.iter().map(|pipe| join(&audience, pipe.clone())).collect();
        fan_out(&audience, 1);
        for round in 2..10 {
            let place = round as usize % 3;
            audience.leave(places[place]);
            places[place] = join(&audience, pipes[place].clone());
            assert_eq!(fan_out(&audience, round), 3);
        }
        assert_eq!((audience.watching(), lock(&audience.clients).places.len()), (3, 3));
    }
}

//! Everyone who is shown the count: the registry of clients' outboxes, and the fan-out over it.
//!
//! A fan-out works on a copy of the registry's entries, so that joining, leaving and connecting never wait for a send.
//! The copy is made under the lock, and serves until somebody joins or leaves. Who joins while a fan-out runs is shown
//! the current count by its own thread; the outbox drops what would be a step back. Who leaves meanwhile may be sent to
//! once more, into a closed outbox.

use crate::{
    likes::mailbox::Mailbox,
    likes::outbox::{Outbox, Round, Standing},
    likes::sync::{Arc, Mutex, lock},
};
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

/// Clients for each thread of a fan-out, at the fewest. Starting one costs about as much as ten sends; this many sends
/// take half a millisecond.
const CLIENTS_A_LANE: usize = 128;

/// Clients that a lane takes at a time: few enough that no lane waits long for another at the end.
const CLIENTS_A_TURN: usize = 64;

/// Everyone who is shown the count.
#[derive(Default)]
pub(crate) struct Audience {
    seats: Mutex<Seats>,
    mailboxes: Mutex<Vec<Arc<Mailbox>>>,
    behind: Mutex<Vec<Arc<Outbox>>>,
    dropped: AtomicUsize,
}

/// A list with holes, so that taking and leaving a seat take the same time in a full house as in an empty one.
#[derive(Default)]
struct Seats {
    seats: Vec<Option<Arc<Outbox>>>,
    free: Vec<usize>,
    /// Those who have a seat, if that was asked for since the last change.
    clients: Option<Clients>,
}

type Clients = Arc<[Arc<Outbox>]>;

impl Seats {
    fn taken(&self) -> usize {
        self.seats.len() - self.free.len()
    }

    /// The place taken; and the copy that is no longer good, to be dropped once the lock is free, for it is long.
    fn take(&mut self, outbox: Arc<Outbox>) -> (usize, Option<Clients>) {
        let index = self.free.pop().unwrap_or(self.seats.len());
        if index == self.seats.len() {
            self.seats.push(Some(outbox));
        } else {
            self.seats[index] = Some(outbox);
        }
        (index, self.clients.take())
    }

    /// Who sat there; and the copy that is no longer good.
    fn leave(&mut self, index: usize) -> (Option<Arc<Outbox>>, Option<Clients>) {
        self.free.push(index);
        (self.seats[index].take(), self.clients.take())
    }

    fn clients(&mut self) -> Clients {
        self.clients.get_or_insert_with(|| self.seats.iter().flatten().cloned().collect()).clone()
    }
}

/// A client's place in the audience, left when this is dropped.
pub(crate) struct Seat {
    audience: Arc<Audience>,
    index: usize,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let (outbox, _stale) = lock(&self.audience.seats).leave(self.index);
        if let Some(outbox) = outbox {
            // Others may hold it a moment longer; it must not hold the client's connection open.
            outbox.abandon();
            if outbox.was_dropped() {
                self.audience.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// What a fan-out came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Frames handed to the kernel.
    pub(crate) frames: u64,
    /// Clients that fell behind.
    pub(crate) fell_behind: usize,
}

impl Audience {
    /// Takes a seat for a client. It is shown every round from the next one on; the caller shows it the count as it
    /// is now, *after* this call, or a round between the two would be missed.
    pub(crate) fn join(self: &Arc<Self>, outbox: Arc<Outbox>) -> Seat {
        let (index, _stale) = lock(&self.seats).take(outbox);
        Seat { audience: self.clone(), index }
    }

    /// Lets a subscriber of this process in; see [`join`](Self::join) for the order.
    pub(crate) fn join_mailbox(&self, mailbox: Arc<Mailbox>) {
        lock(&self.mailboxes).push(mailbox);
    }

    /// Lets a subscriber go.
    pub(crate) fn leave_mailbox(&self, mailbox: &Arc<Mailbox>) {
        lock(&self.mailboxes).retain(|other| !Arc::ptr_eq(other, mailbox));
    }

    /// Ends all subscriptions, once everything has been shown.
    pub(crate) fn close_mailboxes(&self) {
        lock(&self.mailboxes).drain(..).for_each(|mailbox| mailbox.close());
    }

    /// Clients and subscribers.
    pub(crate) fn watching(&self) -> usize {
        lock(&self.seats).taken() + lock(&self.mailboxes).len()
    }

    /// Clients that have not been sent all there is.
    pub(crate) fn behind(&self) -> usize {
        lock(&self.behind).len()
    }

    /// Clients dropped because they took nothing for too long.
    pub(crate) fn dropped(&self) -> usize {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Shows everyone a round, over at most `lanes` threads; returns when everyone has been tried.
    ///
    /// One round at a time: a client's counts are in order because rounds are.
    pub(crate) fn fan_out(&self, round: &Round, lanes: usize) -> Tally {
        for mailbox in lock(&self.mailboxes).iter() {
            mailbox.offer(round.counts());
        }
        let clients = self.clients();
        let lanes = lanes.min(clients.len() / CLIENTS_A_LANE).max(1);
        let next = AtomicUsize::new(0);
        let lane = || self.lane(&clients, &next, round);
        if lanes == 1 {
            return lane();
        }
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..lanes)
                // A thread that cannot be had is not missed: the other lanes take its clients.
                .filter_map(|_| std::thread::Builder::new().stack_size(64 * 1024).spawn_scoped(scope, lane).ok())
                .collect();
            let mut tally = lane();
            for other in others {
                if let Ok(part) = other.join() {
                    tally.frames += part.frames;
                    tally.fell_behind += part.fell_behind;
                }
            }
            tally
        })
    }

    /// One thread's part of a fan-out: a turn of clients, and another, until none are left.
    fn lane(&self, clients: &[Arc<Outbox>], next: &AtomicUsize, round: &Round) -> Tally {
        let mut tally = Tally::default();
        loop {
            let start = next.fetch_add(CLIENTS_A_TURN, Ordering::Relaxed);
            if start >= clients.len() {
                return tally;
            }
            for client in &clients[start..clients.len().min(start + CLIENTS_A_TURN)] {
                let sent = client.offer(round);
                tally.frames += sent.frames;
                if sent.fell_behind {
                    tally.fell_behind += 1;
                    self.look_after(client.clone());
                }
            }
        }
    }

    /// Puts a client on the list of those that [`retry_behind`](Self::retry_behind) looks at.
    pub(crate) fn look_after(&self, client: Arc<Outbox>) {
        lock(&self.behind).push(client);
    }

    /// Tries again to send to those that are behind, and drops those that have taken nothing for too long.
    pub(crate) fn retry_behind(&self) -> Tally {
        let mut behind = std::mem::take(&mut *lock(&self.behind));
        let now = Instant::now();
        let mut tally = Tally::default();
        behind.retain(|client| {
            let sent = client.retry(now);
            tally.frames += sent.frames;
            sent.standing == Standing::Behind
        });
        // Others may have fallen behind meanwhile.
        lock(&self.behind).append(&mut behind);
        tally
    }

    fn clients(&self) -> Clients {
        lock(&self.seats).clients()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::likes::outbox::{Wire, tests::Pipe};
    use std::{io, sync::mpsc, thread, time::Duration};

    const SOON: Duration = Duration::from_secs(20);

    /// A wire that tells of a send and holds it up until the test lets it go on.
    struct Held {
        begun: mpsc::Sender<()>,
        go_on: Mutex<mpsc::Receiver<()>>,
    }

    impl Wire for Held {
        fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
            self.begun.send(()).unwrap();
            lock(&self.go_on).recv_timeout(SOON).expect("the test lets it go on");
            Ok(bytes.len())
        }

        fn shut_down(&self) {}
    }

    fn client(wire: Arc<dyn Wire>) -> Arc<Outbox> {
        Arc::new(Outbox::new(wire, SOON))
    }

    #[test]
    fn who_joins_or_leaves_while_a_fan_out_is_held_up_does_not_wait_for_it() {
        let audience = Arc::<Audience>::default();
        let (begun, has_begun) = mpsc::channel();
        let (let_go, go_on) = mpsc::channel();
        let _held = audience.join(client(Arc::new(Held { begun, go_on: Mutex::new(go_on) })));
        let (staying, leaving, joining) = (Pipe::new(usize::MAX), Pipe::new(usize::MAX), Pipe::new(usize::MAX));
        let leaving_seat = audience.join(client(leaving.clone()));
        let _staying_seat = audience.join(client(staying.clone()));

        thread::scope(|scope| {
            let first = scope.spawn(|| audience.fan_out(&Round::only(1), 1));
            has_begun.recv_timeout(SOON).expect("the fan-out reaches the client that holds it up");
            let (seated, is_seated) = mpsc::channel();
            let (audience, newcomer) = (&audience, client(joining.clone()));
            scope.spawn(move || {
                drop(leaving_seat);
                let _ = seated.send(audience.join(newcomer));
            });
            let seat = is_seated.recv_timeout(SOON);
            let_go.send(()).unwrap();
            let _seat = seat.expect("nobody waits for the fan-out");
            first.join().unwrap();
            assert_eq!(audience.watching(), 3);

            let_go.send(()).unwrap();
            audience.fan_out(&Round::only(2), 1);
        });

        assert_eq!(staying.frames(), ["1", "2"]);
        assert_eq!(joining.frames(), ["2"]);
        assert!(leaving.frames().is_empty(), "{:?}", leaving.frames());
    }

    #[test]
    fn a_place_that_was_left_is_taken_again() {
        let audience = Arc::<Audience>::default();
        let pipes: Vec<_> = (0..3).map(|_| Pipe::new(usize::MAX)).collect();
        let mut seats: Vec<_> = pipes.iter().map(|pipe| Some(audience.join(client(pipe.clone())))).collect();
        audience.fan_out(&Round::only(1), 1);
        for round in 2..10 {
            let place = round as usize % 3;
            seats[place] = None;
            seats[place] = Some(audience.join(client(pipes[place].clone())));
            assert_eq!(audience.fan_out(&Round::only(round), 1).frames, 3);
        }
        assert_eq!((audience.watching(), lock(&audience.seats).seats.len()), (3, 3));
    }
}

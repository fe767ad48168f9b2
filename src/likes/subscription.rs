//! A subscriber within the process: counts as they come, in a short queue.
//!
//! The same promise as for a client on the wire: rising versions, every change for a subscriber that keeps up, and the
//! newest for one that does not. So the queue is bounded, and one that is full is replaced by the newest.

use crate::{
    likes::InUse,
    likes::round::MOST_IN_ROUND,
    likes::sync::{Arc, Condvar, Mutex, lock, wait, wait_for},
    store::change::Count,
};
use std::{
    collections::VecDeque,
    fmt,
    sync::mpsc::RecvTimeoutError,
    time::{Duration, Instant},
};

/// The counts of a [`Likes`](crate::Likes), as they come: first the count as it is, then the count after each like.
///
/// As an iterator it waits for the next count, and ends when the counter is closed. A subscriber that leaves more than
/// 64 counts waiting is taken straight to the newest.
pub struct Subscription {
    queue: Arc<Queue>,
    /// Held, so that the counter stays in use.
    counter: Arc<InUse>,
}

impl Subscription {
    /// Subscribes to what is shown of a counter, from the count that `now` says on.
    pub(crate) fn new(counter: Arc<InUse>, now: impl Fn() -> Count) -> Self {
        let queue = Arc::new(Queue::default());
        lock(&queue.inner).at_least = now().version;
        counter.audience.join_queue(queue.clone());
        queue.begin(now());
        Self { queue, counter }
    }

    pub(crate) fn close(&self) {
        self.queue.close();
    }

    /// Waits for the next count, for `time` at most.
    ///
    /// # Errors
    ///
    /// [`Timeout`](RecvTimeoutError::Timeout) where none came in that time,
    /// [`Disconnected`](RecvTimeoutError::Disconnected) where the counter is closed and all has been taken.
    pub fn next_within(&mut self, time: Duration) -> Result<u64, RecvTimeoutError> {
        // A time too long for the clock is as good as none.
        self.queue.take(Instant::now().checked_add(time))
    }
}

impl Iterator for Subscription {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.queue.take(None).ok()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.counter.audience.leave_queue(&self.queue);
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}

/// What is to be shown to one subscriber.
#[derive(Default)]
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    waiting: VecDeque<u64>,
    /// The version that was put in last.
    last: Option<u64>,
    /// The first count is at least of this version: a round that began before the subscriber came may be behind it.
    at_least: u64,
    closed: bool,
}

impl Inner {
    fn push(&mut self, counts: &[Count]) {
        self.waiting.extend(counts.iter().map(|count| count.likes));
        self.last = counts.last().map(|count| count.version).or(self.last);
        if self.waiting.len() > MOST_IN_ROUND {
            self.waiting.drain(..self.waiting.len() - 1);
        }
    }
}

impl Queue {
    /// Puts in the counts that are newer than all before; on the first call, the newest alone.
    pub(crate) fn offer(&self, counts: &[Count]) {
        let mut inner = lock(&self.inner);
        let first = match inner.last {
            Some(last) => counts.partition_point(|count| count.version <= last),
            None if counts.last().is_none_or(|newest| newest.version < inner.at_least) => return,
            None => counts.len() - 1,
        };
        inner.push(&counts[first..]);
        self.changed.notify_all();
    }

    /// Puts in the count as it is, unless a round has come first: see [`Outbox::begin`](crate::likes::outbox::Outbox::begin).
    fn begin(&self, count: Count) {
        let mut inner = lock(&self.inner);
        if inner.last.is_none() {
            inner.push(&[count]);
            self.changed.notify_all();
        }
    }

    /// Takes the next count, and waits for it until `deadline`.
    fn take(&self, deadline: Option<Instant>) -> Result<u64, RecvTimeoutError> {
        let mut inner = lock(&self.inner);
        loop {
            if let Some(count) = inner.waiting.pop_front() {
                return Ok(count);
            }
            if inner.closed {
                return Err(RecvTimeoutError::Disconnected);
            }
            inner = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                Some(left) if left.is_zero() => return Err(RecvTimeoutError::Timeout),
                Some(left) => wait_for(&self.changed, &self.inner, inner, left),
                None => wait(&self.changed, inner),
            };
        }
    }

    /// Ends the subscription, once what waits has been taken.
    pub(crate) fn close(&self) {
        lock(&self.inner).closed = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::likes::round::tests::{after, count};

    fn taken(queue: &Queue) -> Vec<u64> {
        std::iter::from_fn(|| queue.take(Some(Instant::now())).ok()).collect()
    }

    fn offer(queue: &Queue, first: u64, newest: u64) {
        queue.offer(&(first..=newest).map(count).collect::<Vec<_>>());
    }

    #[test]
    fn counts_come_in_order_and_none_twice() {
        let queue = Queue::default();
        offer(&queue, 16, 18);
        assert_eq!(taken(&queue), [18], "the newest alone on the first call");
        offer(&queue, 17, 20);
        offer(&queue, 20, 20);
        offer(&queue, 19, 21);
        assert_eq!(taken(&queue), [19, 20, 21]);
    }

    #[test]
    fn a_round_that_comes_before_the_first_count_is_gone_on_from() {
        let queue = Queue::default();
        offer(&queue, 15, 16);
        queue.begin(count(19));
        offer(&queue, 17, 19);
        assert_eq!(taken(&queue), [16, 17, 18, 19]);
    }

    #[test]
    fn a_round_from_before_the_subscriber_came_is_not_taken() {
        let queue = Queue::default();
        lock(&queue.inner).at_least = 17;
        offer(&queue, 16, 16);
        queue.begin(count(17));
        offer(&queue, 17, 18);
        assert_eq!(taken(&queue), [17, 18]);
    }

    #[test]
    fn a_queue_that_is_full_is_replaced_by_the_newest() {
        let most = MOST_IN_ROUND as u64;
        let queue = Queue::default();
        queue.offer(after(0, 1).counts());
        offer(&queue, 2, most);
        assert_eq!(taken(&queue), Vec::from_iter(1..=most));
        offer(&queue, most + 1, 2 * most + 1);
        assert_eq!(taken(&queue), [2 * most + 1]);
    }

    #[test]
    fn a_timeout_is_told_from_the_end() {
        let queue = Queue::default();
        assert_eq!(queue.take(Some(Instant::now())), Err(RecvTimeoutError::Timeout));
        offer(&queue, 16, 16);
        queue.close();
        assert_eq!(queue.take(Some(Instant::now())), Ok(16), "what waits is still taken after the end");
        assert_eq!(queue.take(Some(Instant::now())), Err(RecvTimeoutError::Disconnected));
    }
}

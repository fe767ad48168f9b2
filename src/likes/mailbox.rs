//! What waits for one subscriber in this process: counts as they come, in a short queue.
//!
//! The same promise as for a client on the wire: rising counts, every one of them for a subscriber that keeps up,
//! and the newest for one that does not. So the queue is bounded, and one that is full is replaced by the newest.

use crate::{
    likes::outbox::MOST_IN_ROUND,
    likes::sync::{Condvar, Mutex, lock, wait, wait_for},
};
use std::{collections::VecDeque, ops::RangeInclusive, time::Instant};

/// What is to be shown to one subscriber.
#[derive(Default)]
pub(crate) struct Mailbox {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    waiting: VecDeque<u64>,
    last: Option<u64>,
    /// The first count is at least this one: a round that began before the subscriber came may be behind it.
    at_least: u64,
    closed: bool,
}

impl Mailbox {
    /// Puts in the counts that are higher than all before; on the first call, the newest alone.
    pub(crate) fn offer(&self, counts: RangeInclusive<u64>) {
        let mut inner = lock(&self.inner);
        let newest = *counts.end();
        match inner.last {
            Some(last) if last >= newest => return,
            Some(last) => {
                let first = last.saturating_add(1).max(*counts.start());
                inner.waiting.extend(first..=newest);
            }
            None if newest < inner.at_least => return,
            None => inner.waiting.push_back(newest),
        }
        inner.last = Some(newest);
        if inner.waiting.len() as u64 > MOST_IN_ROUND {
            inner.waiting.clear();
            inner.waiting.push_back(newest);
        }
        self.changed.notify_all();
    }

    /// Takes no count below this one; said before rounds come in.
    pub(crate) fn expect(&self, count: u64) {
        lock(&self.inner).at_least = count;
    }

    /// Puts in the count as it is, unless a round has come first: see [`Outbox::begin`](crate::likes::outbox::Outbox::begin).
    pub(crate) fn begin(&self, count: u64) {
        let mut inner = lock(&self.inner);
        if inner.last.is_none() {
            inner.last = Some(count);
            inner.waiting.push_back(count);
            self.changed.notify_all();
        }
    }

    /// Takes the next count, and waits for it until `deadline`. `None` where none came, or there will be none.
    pub(crate) fn take(&self, deadline: Option<Instant>) -> Option<u64> {
        let mut inner = lock(&self.inner);
        loop {
            if let Some(count) = inner.waiting.pop_front() {
                return Some(count);
            }
            if inner.closed {
                return None;
            }
            inner = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                Some(left) if left.is_zero() => return None,
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

    fn taken(mailbox: &Mailbox) -> Vec<u64> {
        std::iter::from_fn(|| mailbox.take(Some(Instant::now()))).collect()
    }

    #[test]
    fn counts_come_in_order_and_none_twice() {
        let mailbox = Mailbox::default();
        mailbox.offer(16..=18);
        assert_eq!(taken(&mailbox), [18], "the newest alone on the first call");
        mailbox.offer(17..=20);
        mailbox.offer(20..=20);
        mailbox.offer(19..=21);
        assert_eq!(taken(&mailbox), [19, 20, 21]);
    }

    #[test]
    fn a_round_that_comes_before_the_first_count_is_gone_on_from() {
        let mailbox = Mailbox::default();
        mailbox.offer(15..=16);
        mailbox.begin(19);
        mailbox.offer(17..=19);
        assert_eq!(taken(&mailbox), [16, 17, 18, 19]);
    }

    #[test]
    fn a_round_from_before_the_subscriber_came_is_not_taken() {
        let mailbox = Mailbox::default();
        mailbox.expect(17);
        mailbox.offer(16..=16);
        mailbox.begin(17);
        mailbox.offer(17..=18);
        assert_eq!(taken(&mailbox), [17, 18]);
    }

    #[test]
    fn one_that_is_full_is_replaced_by_the_newest() {
        let mailbox = Mailbox::default();
        mailbox.offer(0..=0);
        mailbox.offer(1..=MOST_IN_ROUND - 1);
        assert_eq!(taken(&mailbox), Vec::from_iter(0..MOST_IN_ROUND));
        mailbox.offer(MOST_IN_ROUND..=2 * MOST_IN_ROUND);
        assert_eq!(taken(&mailbox), [2 * MOST_IN_ROUND]);
    }

    #[test]
    fn what_waits_is_still_taken_after_the_end() {
        let mailbox = Mailbox::default();
        mailbox.offer(16..=16);
        mailbox.close();
        assert_eq!((mailbox.take(None), mailbox.take(None)), (Some(16), None));
    }
}

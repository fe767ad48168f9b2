//! The visitors whose likes a store without a table of them has saved lately: so a like that is sent again counts once.

use crate::store::change::VisitorKey;
use std::{
    collections::{HashSet, VecDeque},
    time::{Duration, Instant},
};

/// How many are remembered; past it the first goes.
const MOST: usize = 100_000;

/// How long each is. Longer than anybody tries again.
const LONGEST: Duration = Duration::from_secs(3600);

/// Visitors in the order in which they liked.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    known: HashSet<VisitorKey>,
    order: VecDeque<(Instant, VisitorKey)>,
}

impl Remembered {
    pub(super) fn contains(&self, visitor: &VisitorKey) -> bool {
        self.known.contains(visitor)
    }

    /// Remembers visitors who liked now, and forgets those whose time is over.
    pub(super) fn add(&mut self, visitors: impl IntoIterator<Item = VisitorKey>, now: Instant) {
        for visitor in visitors {
            if self.known.insert(visitor) {
                self.order.push_back((now, visitor));
            }
        }
        while let Some(&(since, visitor)) = self.order.front() {
            if self.order.len() <= MOST && now.duration_since(since) < LONGEST {
                break;
            }
            self.order.pop_front();
            self.known.remove(&visitor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visitor(number: u128) -> VisitorKey {
        VisitorKey(number.to_be_bytes())
    }

    #[test]
    fn a_visitor_is_remembered_for_an_hour() {
        let (mut remembered, start) = (Remembered::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        remembered.add([visitor(1)], start);
        remembered.add([visitor(1), visitor(2)], after(3599));
        assert!(remembered.contains(&visitor(1)));
        remembered.add([], after(3600));
        assert!(!remembered.contains(&visitor(1)), "since the first like");
        assert!(remembered.contains(&visitor(2)));
    }

    #[test]
    fn the_last_100_000_visitors_are_remembered() {
        let (mut remembered, now) = (Remembered::default(), Instant::now());
        remembered.add((0..100_001).map(visitor), now);
        assert!(!remembered.contains(&visitor(0)));
        assert!(remembered.contains(&visitor(1)) && remembered.contains(&visitor(100_000)));
        assert_eq!((remembered.known.len(), remembered.order.len()), (MOST, MOST));
    }
}

//! What is shown of one post at once: the counts since the last round, encoded once for all who watch it.

use crate::store::change::{Count, Post};
use std::sync::OnceLock;

/// Most changes that are shown one by one in a round. When more were saved meanwhile, only the newest is shown.
pub(crate) const MOST_IN_ROUND: usize = 64;

/// The language in which a client is told counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// A WebSocket text message with the number alone.
    Bare,
}

const DIALECTS: usize = 1;

impl Dialect {
    /// Appends the frame of a count: final, text, not masked (RFC 6455 section 5.2).
    pub(crate) fn encode(self, _post: &Post, count: Count, bytes: &mut Vec<u8>) {
        match self {
            // Twenty digits need no longer length.
            Self::Bare => {
                let digits = count.likes.to_string();
                bytes.extend([0x81, digits.len() as u8]);
                bytes.extend(digits.as_bytes());
            }
        }
    }
}

/// The changes of a post that have been saved and not been shown yet.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    counts: Vec<Count>,
    /// There were more than are shown one by one.
    skipped: bool,
}

impl Steps {
    pub(crate) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Adds so many likes, the last of which made the count this one.
    pub(crate) fn push(&mut self, count: Count, likes: u64) {
        if self.skipped || likes.saturating_add(self.counts.len() as u64) > MOST_IN_ROUND as u64 {
            self.skipped = true;
            self.counts.clear();
            self.counts.push(count);
            return;
        }
        let before = |left| Count { likes: count.likes - left, version: count.version - left };
        self.counts.extend((0..likes).rev().map(before));
    }
}

impl From<Count> for Steps {
    fn from(count: Count) -> Self {
        Self { counts: vec![count], skipped: false }
    }
}

/// The counts that are shown at once. There is at least one.
#[derive(Debug)]
pub(crate) struct Round {
    post: Post,
    counts: Vec<Count>,
    encoded: [OnceLock<Encoded>; DIALECTS],
}

/// The frames of a round in one dialect.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    /// Where in `bytes` each count's frame ends.
    pub(crate) ends: Vec<u32>,
}

impl Round {
    /// The round of what has been saved since the last one.
    pub(crate) fn of(post: Post, steps: Steps) -> Option<Self> {
        let encoded = [const { OnceLock::new() }; DIALECTS];
        (!steps.is_empty()).then_some(Self { post, counts: steps.counts, encoded })
    }

    pub(crate) fn post(&self) -> &Post {
        &self.post
    }

    /// The counts, by rising versions.
    pub(crate) fn counts(&self) -> &[Count] {
        &self.counts
    }

    pub(crate) fn newest(&self) -> Count {
        self.counts[self.counts.len() - 1]
    }

    /// The frames, encoded when the first client that wants them is offered the round.
    pub(crate) fn encoded(&self, dialect: Dialect) -> &Encoded {
        self.encoded[dialect as usize].get_or_init(|| {
            let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(self.counts.len()));
            for count in &self.counts {
                dialect.encode(&self.post, *count, &mut bytes);
                ends.push(bytes.len() as u32);
            }
            Encoded { bytes, ends }
        })
    }
}

impl Encoded {
    /// Where the frame with this index begins.
    pub(crate) fn start_of(&self, index: usize) -> usize {
        if index == 0 { 0 } else { self.ends[index - 1] as usize }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A round of the default counter, whose versions are its counts: those after `shown`, up to `newest`.
    pub(crate) fn after(shown: u64, newest: u64) -> Round {
        let mut steps = Steps::default();
        steps.push(count(newest), newest - shown);
        Round::of(Post::default(), steps).unwrap()
    }

    pub(crate) fn only(newest: u64) -> Round {
        Round::of(Post::default(), count(newest).into()).unwrap()
    }

    pub(crate) fn count(likes: u64) -> Count {
        Count { likes, version: likes }
    }

    fn likes(round: &Round) -> Vec<u64> {
        round.counts().iter().map(|count| count.likes).collect()
    }

    #[test]
    fn a_round_of_more_than_64_counts_is_the_newest_alone() {
        assert_eq!(likes(&after(0, 64)), Vec::from_iter(1..=64));
        assert_eq!(likes(&after(0, 65)), [65]);
        assert_eq!(likes(&after(u64::MAX - 64, u64::MAX)), Vec::from_iter(u64::MAX - 63..=u64::MAX));
        assert_eq!(after(u64::MAX - 64, u64::MAX).encoded(Dialect::Bare).bytes.len(), 64 * 22);
    }

    #[test]
    fn steps_of_several_saves_are_one_round_until_they_are_too_many() {
        let mut steps = Steps::default();
        steps.push(count(3), 3);
        steps.push(count(64), 61);
        assert_eq!(steps.counts.len(), 64);
        steps.push(count(65), 1);
        steps.push(count(67), 2);
        assert_eq!(likes(&Round::of(Post::default(), steps).unwrap()), [67]);
    }

    #[test]
    fn nothing_saved_is_no_round() {
        assert!(Round::of(Post::default(), Steps::default()).is_none());
    }
}

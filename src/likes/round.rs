//! What is shown of one post at once: the counts since the last round, encoded once for all who watch it.

use crate::{
    likes::dialect::{DIALECTS, Dialect, Personal},
    store::change::{Count, Post, VisitorKey},
};
use std::{collections::HashMap, sync::OnceLock};

/// Most changes that are shown one by one in a round. When more were saved meanwhile, only the newest is shown.
pub(crate) const MOST_IN_ROUND: usize = 64;

/// The changes of a post that have been saved and not been shown yet.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    counts: Vec<Count>,
    /// There were more than are shown one by one.
    skipped: bool,
    minds: Minds,
}

/// Whether visitors like a post, each with the version from which on that holds: what comes late may be older than what a
/// client was told.
#[derive(Debug, Default)]
struct Minds {
    visitors: HashMap<VisitorKey, Mind>,
    /// The last version with which the post had no likes, so that no visitor likes it who did before.
    cleared: Option<u64>,
}

/// Whether a visitor likes a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mind {
    pub(crate) liked: bool,
    /// The version from which on that holds.
    pub(crate) version: u64,
}

impl Minds {
    fn add(&mut self, count: Count, minds: impl IntoIterator<Item = (VisitorKey, bool)>) {
        let version = count.version;
        if count.likes == 0 {
            self.cleared = self.cleared.max(Some(version));
        }
        for (visitor, liked) in minds {
            let known = self.visitors.entry(visitor).or_insert(Mind { liked, version });
            if known.version <= version {
                *known = Mind { liked, version };
            }
        }
    }

    fn get(&self, visitor: VisitorKey) -> Option<Mind> {
        let cleared = self.cleared.map(|version| Mind { liked: false, version });
        match (self.visitors.get(&visitor).copied(), cleared) {
            (Some(said), Some(cleared)) if said.version < cleared.version => Some(cleared),
            (said, cleared) => said.or(cleared),
        }
    }
}

impl Steps {
    /// Adds so many likes, the last of which made the count this one; and the visitors among them, where they are known.
    pub(crate) fn push(&mut self, count: Count, likes: u64, minds: impl IntoIterator<Item = (VisitorKey, bool)>) {
        self.minds.add(count, minds);
        if self.skipped || likes.saturating_add(self.counts.len() as u64) > MOST_IN_ROUND as u64 {
            self.skipped = true;
            self.counts.clear();
            self.counts.push(count);
            return;
        }
        let before = |left| Count { likes: count.likes - left, version: count.version - left };
        self.counts.extend((0..likes).rev().map(before));
    }

    /// Adds a change that comes after a newer one, `known`, whose count is shown or about to be: what it says of visitors
    /// still holds, unless something newer is known of them.
    pub(crate) fn push_late(
        &mut self,
        known: Count,
        count: Count,
        minds: impl IntoIterator<Item = (VisitorKey, bool)>,
    ) {
        self.minds.add(count, minds);
        if self.counts.is_empty() {
            self.counts.push(known);
        }
    }
}

impl From<Count> for Steps {
    fn from(count: Count) -> Self {
        Self { counts: vec![count], ..Self::default() }
    }
}

/// The counts that are shown at once. There is at least one.
#[derive(Debug)]
pub(crate) struct Round {
    post: Post,
    counts: Vec<Count>,
    minds: Minds,
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
        let Steps { counts, minds, .. } = steps;
        (!counts.is_empty()).then_some(Self { post, counts, minds, encoded })
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

    /// The index of the first count that is newer than this version. Most clients have been shown all before.
    pub(crate) fn first_after(&self, version: u64) -> usize {
        if version < self.counts[0].version { 0 } else { self.counts.partition_point(|count| count.version <= version) }
    }

    /// Whether a visitor likes the post, where that has changed, or may have.
    pub(crate) fn mind(&self, visitor: VisitorKey) -> Option<Mind> {
        self.minds.get(visitor)
    }

    /// The frames, encoded when the first client that wants them is offered the round.
    pub(crate) fn encoded(&self, dialect: Dialect) -> &Encoded {
        self.encoded[dialect as usize].get_or_init(|| self.encode(dialect, 0, Personal::default()))
    }

    /// The frames from the one with this index on, as one client alone is told them.
    pub(crate) fn encode(&self, dialect: Dialect, first: usize, personal: Personal<'_>) -> Encoded {
        let mut encoded = Encoded { bytes: Vec::new(), ends: Vec::with_capacity(self.counts.len() - first) };
        for (index, count) in self.counts.iter().enumerate().skip(first) {
            let personal = if index + 1 == self.counts.len() { personal } else { Personal::default() };
            dialect.encode(&self.post, *count, personal, &mut encoded.bytes);
            encoded.ends.push(encoded.bytes.len() as u32);
        }
        encoded
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
        steps.push(count(newest), newest - shown, None);
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
        steps.push(count(3), 3, None);
        steps.push(count(64), 61, None);
        assert_eq!(steps.counts.len(), 64);
        steps.push(count(65), 1, None);
        steps.push(count(67), 2, None);
        assert_eq!(likes(&Round::of(Post::default(), steps).unwrap()), [67]);
    }

    #[test]
    fn where_there_were_no_likes_only_those_like_it_who_have_said_so_since() {
        let (before, since, never) = (VisitorKey([1; 16]), VisitorKey([2; 16]), VisitorKey([3; 16]));
        let counts = [(1, Some((before, true))), (0, None), (1, Some((since, true)))].into_iter().zip(1..);
        let mut steps = Steps::default();
        counts.for_each(|((likes, mind), version)| steps.push(Count { likes, version }, 1, mind));
        let round = Round::of(Post::default(), steps).unwrap();
        assert_eq!(
            [before, since, never].map(|visitor| round.mind(visitor).map(|mind| mind.liked)),
            [Some(false), Some(true), Some(false)]
        );
    }

    #[test]
    fn what_comes_late_is_told_of_visitors_of_whom_nothing_newer_is_known() {
        let (first, second) = (VisitorKey([1; 16]), VisitorKey([2; 16]));
        let (known, late) = (Count { likes: 5, version: 9 }, Count { likes: 3, version: 7 });
        let mut steps = Steps::default();
        steps.push(known, 1, [(first, true)]);
        steps.push_late(known, late, [(first, false), (second, true)]);
        let mind = |liked, version| Some(Mind { liked, version });
        let round = Round::of(Post::default(), steps).unwrap();
        assert_eq!([first, second].map(|visitor| round.mind(visitor)), [mind(true, 9), mind(true, 7)]);
        assert_eq!(round.counts(), [known]);

        let mut steps = Steps::default();
        steps.push_late(known, Count { likes: 0, version: 8 }, [(first, true)]);
        steps.push_late(known, late, [(second, true)]);
        let round = Round::of(Post::default(), steps).unwrap();
        assert_eq!([first, second].map(|visitor| round.mind(visitor)), [mind(true, 8), mind(false, 8)]);
        assert_eq!(round.counts(), [known], "which is shown again to those alone whom it concerns");
    }

    #[test]
    fn nothing_saved_is_no_round() {
        assert!(Round::of(Post::default(), Steps::default()).is_none());
    }
}

//! The counters in use: those that somebody has a handle of, or that likes are on their way to. The others are in the
//! store alone.

use crate::{
    likes::{audience::Audience, round::Steps, sync::Arc},
    store::change::{Count, Post, VisitorKey},
};
use std::collections::HashMap;

/// The counters in use, and which of them have something to be shown.
#[derive(Default)]
pub(crate) struct Counters {
    in_use: HashMap<Post, Counter>,
    changed: Vec<Post>,
    /// How often there was something new to be shown, and how much of that has been shown.
    to_show: u64,
    shown: u64,
}

/// A counter in use.
#[derive(Default)]
struct Counter {
    /// What is saved, once it is known.
    count: Option<Count>,
    /// Changes that are on their way to the store.
    pending: u64,
    /// How many handles there are.
    handles: usize,
    /// What is saved and not shown.
    steps: Steps,
    audience: Arc<Audience>,
}

/// What is to be shown of one counter.
pub(crate) struct News {
    pub(crate) post: Post,
    pub(crate) steps: Steps,
    pub(crate) audience: Arc<Audience>,
}

impl Counters {
    /// Notes a handle of a counter. Returns the post, of which one copy serves all; those who are shown it; and whether
    /// its count is known.
    pub(crate) fn hold(&mut self, post: &Post) -> (Post, Arc<Audience>, bool) {
        let entry = self.in_use.entry(post.clone());
        let post = entry.key().clone();
        let counter = entry.or_default();
        counter.handles += 1;
        (post, counter.audience.clone(), counter.count.is_some())
    }

    /// Notes that a handle is gone.
    pub(crate) fn release(&mut self, post: &Post) {
        if let Some(counter) = self.in_use.get_mut(post) {
            counter.handles -= 1;
        }
        self.remove_unused(post);
    }

    fn remove_unused(&mut self, post: &Post) {
        let unused = |counter: &Counter| counter.handles == 0 && counter.pending == 0 && counter.steps.is_empty();
        if self.in_use.get(post).is_some_and(unused) {
            self.in_use.remove(post);
        }
    }

    /// Notes that a change is on its way; not where the count could become larger than the largest number.
    pub(crate) fn expect(&mut self, post: &Post) -> bool {
        let counter = match self.in_use.get_mut(post) {
            Some(counter) => counter,
            None => self.in_use.entry(post.clone()).or_default(),
        };
        let likes = counter.count.unwrap_or_default().likes.checked_add(counter.pending);
        let has_room = likes.is_some_and(|likes| likes < u64::MAX);
        counter.pending += u64::from(has_room);
        has_room
    }

    /// Notes that so many changes are not on their way any more.
    pub(crate) fn forget(&mut self, post: &Post, changes: u64) {
        if let Some(counter) = self.in_use.get_mut(post) {
            counter.pending -= changes;
        }
        self.remove_unused(post);
    }

    /// The count of a counter in use, if it is known.
    pub(crate) fn get(&self, post: &Post) -> Option<Count> {
        self.in_use.get(post).and_then(|counter| counter.count)
    }

    /// Whether nobody has ever liked a post, nor is just about to.
    pub(crate) fn is_unliked(&self, post: &Post) -> bool {
        let never = |counter: &Counter| counter.count.unwrap_or_default().version == 0 && counter.pending == 0;
        self.in_use.get(post).is_none_or(never)
    }

    /// Notes a count as it was read from the store, unless one is known: what is saved after that is shown by
    /// [`raise`](Self::raise) to those who have been shown it.
    pub(crate) fn know(&mut self, post: &Post, count: Count) {
        if let Some(counter) = self.in_use.get_mut(post) {
            counter.count.get_or_insert(count);
        }
    }

    /// Notes a count that is saved, the last of so many likes; and whose they were, where that is known.
    pub(crate) fn raise(
        &mut self,
        post: &Post,
        count: Count,
        likes: u64,
        minds: impl IntoIterator<Item = (VisitorKey, bool)>,
    ) {
        let Some(counter) = self.in_use.get_mut(post) else { return };
        let was_shown = counter.steps.is_empty();
        let known = counter.count.unwrap_or_default();
        if counter.count.is_some_and(|known| known.version >= count.version) {
            let mut minds = minds.into_iter().peekable();
            if count.likes > 0 && minds.peek().is_none() {
                return;
            }
            counter.steps.push_late(known, count, minds);
        } else {
            counter.count = Some(count);
            counter.steps.push(count, likes, minds);
        }
        if was_shown {
            self.changed.push(post.clone());
        }
        self.to_show += 1;
    }

    /// The counters in use that somebody has a handle of, what is known of each, and for which visitors it is watched.
    pub(crate) fn watched(&self) -> Vec<(Post, Count, Arc<Audience>)> {
        let held = self.in_use.iter().filter(|(_, counter)| counter.handles > 0);
        held.map(|(post, counter)| (post.clone(), counter.count.unwrap_or_default(), counter.audience.clone()))
            .collect()
    }

    /// Takes all that is to be shown; and a mark to say when it has been.
    pub(crate) fn take_news(&mut self) -> (Vec<News>, u64) {
        let changed = std::mem::take(&mut self.changed);
        let news = changed.into_iter().filter_map(|post| {
            let counter = self.in_use.get_mut(&post)?;
            let (steps, audience) = (std::mem::take(&mut counter.steps), counter.audience.clone());
            self.remove_unused(&post);
            Some(News { post, steps, audience })
        });
        (news.collect(), self.to_show)
    }

    /// Notes that there are answers to be given, which counts as something to be shown.
    pub(crate) fn note_answers(&mut self) {
        self.to_show += 1;
    }

    /// A mark of all there is to be shown by now.
    pub(crate) fn mark(&self) -> u64 {
        self.to_show
    }

    pub(crate) fn set_shown(&mut self, mark: u64) {
        self.shown = mark;
    }

    pub(crate) fn is_shown(&self, mark: u64) -> bool {
        self.shown >= mark
    }

    /// How many are shown a counter, over all.
    pub(crate) fn watching(&self) -> usize {
        self.in_use.values().map(|counter| counter.audience.watching()).sum()
    }

    pub(crate) fn audiences(&self) -> Vec<Arc<Audience>> {
        self.in_use.values().map(|counter| counter.audience.clone()).collect()
    }
}

//! The counters in use: those that somebody has a handle of, or that likes are on their way to. The others are in the
//! store alone.

use crate::{
    likes::{InUse, audience::Audience, round::Steps, sync::Arc},
    store::change::{Count, Post, VisitorKey},
};
use std::{
    collections::{HashMap, HashSet},
    sync::Weak,
    time::Instant,
};

/// How many posts that have been liked are remembered: some 2 MB, of names of 200 bytes. One more, and all are forgotten.
const REMEMBERED: usize = 10_000;

/// The counters in use, and which of them have something to be shown.
#[derive(Default)]
pub(crate) struct Counters {
    /// The one that is always in use, since not every store can be read later. Apart, so that whoever has no other looks
    /// nothing up.
    default: Counter,
    in_use: HashMap<Post, Counter>,
    /// Some that were in use and have been liked, so that who likes one again need not read it. Such a post is never new
    /// again, also where its likes are taken back.
    liked: HashSet<Post>,
    changed: Vec<Post>,
    /// Since when the first of them has been waiting to be shown, and the first of those that are being shown.
    changed_since: Option<Instant>,
    showing_since: Option<Instant>,
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
    /// What all handles share, if there are any.
    handle: Weak<InUse>,
    /// What is saved and not shown, if there is any.
    steps: Option<Box<Steps>>,
    audience: Arc<Audience>,
}

/// What is to be shown of one counter.
pub(crate) struct News {
    pub(crate) post: Post,
    pub(crate) steps: Steps,
    pub(crate) audience: Arc<Audience>,
}

impl Counters {
    fn find(&self, post: &Post) -> Option<&Counter> {
        if post.is_default() { Some(&self.default) } else { self.in_use.get(post) }
    }

    fn find_mut(&mut self, post: &Post) -> Option<&mut Counter> {
        if post.is_default() { Some(&mut self.default) } else { self.in_use.get_mut(post) }
    }

    fn find_or_add(&mut self, post: &Post) -> &mut Counter {
        if post.is_default() { &mut self.default } else { self.in_use.entry(post.clone()).or_default() }
    }

    /// Returns the handle of a counter, which `make` makes where there is none.
    pub(crate) fn hold(&mut self, post: &Post, make: impl FnOnce(Arc<Audience>) -> InUse) -> Arc<InUse> {
        let counter = self.find_or_add(post);
        let handle = counter.handle.upgrade().unwrap_or_else(|| Arc::new(make(counter.audience.clone())));
        counter.handle = Arc::downgrade(&handle);
        handle
    }

    /// Forgets a counter that is not in use any more.
    pub(crate) fn remove_unused(&mut self, post: &Post) {
        let unused =
            |counter: &Counter| counter.handle.strong_count() == 0 && counter.pending == 0 && counter.steps.is_none();
        if !self.in_use.get(post).is_some_and(unused) {
            return;
        }
        let removed = self.in_use.remove_entry(post);
        if let Some((post, _)) = removed.filter(|(_, counter)| counter.count.unwrap_or_default().version > 0) {
            if self.liked.len() >= REMEMBERED {
                self.liked.clear();
            }
            self.liked.insert(post);
        }
    }

    /// Notes that a change is on its way; not where the count is to stay below `most`, and may not.
    pub(crate) fn expect(&mut self, post: &Post, most: Option<u64>) -> bool {
        let counter = self.find_or_add(post);
        let likes = counter.count.unwrap_or_default().likes.saturating_add(counter.pending);
        let has_room = most.is_none_or(|most| likes < most);
        counter.pending += u64::from(has_room);
        has_room
    }

    /// Notes that so many changes are not on their way any more.
    pub(crate) fn forget(&mut self, post: &Post, changes: u64) {
        if let Some(counter) = self.find_mut(post) {
            counter.pending -= changes;
        }
        self.remove_unused(post);
    }

    /// The count of a counter in use, if it is known.
    pub(crate) fn get(&self, post: &Post) -> Option<Count> {
        self.find(post).and_then(|counter| counter.count)
    }

    /// Whether nobody has ever liked a post, nor is just about to.
    pub(crate) fn is_unliked(&self, post: &Post) -> bool {
        let never = |counter: &Counter| counter.count.unwrap_or_default().version == 0 && counter.pending == 0;
        !self.has_been_liked(post) && self.find(post).is_none_or(never)
    }

    /// Whether a post is remembered as one that has been liked.
    pub(crate) fn has_been_liked(&self, post: &Post) -> bool {
        self.liked.contains(post)
    }

    /// Notes a count as it was read from the store, unless one is known: what is saved after that is shown by
    /// [`raise`](Self::raise) to those who have been shown it.
    pub(crate) fn know(&mut self, post: &Post, count: Count) {
        if let Some(counter) = self.find_mut(post) {
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
        let Some(counter) = self.find_mut(post) else { return };
        let first = counter.steps.is_none();
        if let Some(known) = counter.count.filter(|known| known.version >= count.version) {
            let mut minds = minds.into_iter().peekable();
            if count.likes > 0 && minds.peek().is_none() {
                return;
            }
            counter.steps.get_or_insert_default().push_late(known, count, minds);
        } else {
            counter.count = Some(count);
            counter.steps.get_or_insert_default().push(count, likes, minds);
        }
        if first {
            self.changed.push(post.clone());
            self.changed_since.get_or_insert_with(Instant::now);
        }
        self.to_show += 1;
    }

    /// The counters in use that somebody has a handle of, what is known of each, and for which visitors it is watched.
    pub(crate) fn watched(&self) -> Vec<(Post, Count, Arc<Audience>)> {
        let others = self.in_use.iter().filter(|(_, counter)| counter.handle.strong_count() > 0);
        let others = others.map(|(post, counter)| (post.clone(), counter));
        std::iter::once((Post::default(), &self.default))
            .chain(others)
            .map(|(post, counter)| (post, counter.count.unwrap_or_default(), counter.audience.clone()))
            .collect()
    }

    /// Takes all that is to be shown; and a mark to say when it has been.
    pub(crate) fn take_news(&mut self) -> (Vec<News>, u64) {
        let changed = std::mem::take(&mut self.changed);
        self.showing_since = self.changed_since.take();
        let news = changed.into_iter().filter_map(|post| {
            let counter = self.find_mut(&post)?;
            let (steps, audience) = (*counter.steps.take()?, counter.audience.clone());
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
        self.showing_since = None;
    }

    /// Since when the oldest change that is not shown has been waiting.
    pub(crate) fn unshown_since(&self) -> Option<Instant> {
        self.showing_since.or(self.changed_since)
    }

    pub(crate) fn is_shown(&self, mark: u64) -> bool {
        self.shown >= mark
    }

    fn all(&self) -> impl Iterator<Item = &Counter> {
        std::iter::once(&self.default).chain(self.in_use.values())
    }

    /// How many are shown a counter, over all.
    pub(crate) fn watching(&self) -> usize {
        self.all().map(|counter| counter.audience.watching()).sum()
    }

    /// How many are shown this one.
    pub(crate) fn watching_one(&self, post: &Post) -> usize {
        self.find(post).map_or(0, |counter| counter.audience.watching())
    }

    pub(crate) fn audiences(&self) -> Vec<Arc<Audience>> {
        self.all().map(|counter| counter.audience.clone()).collect()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn so_many_posts_that_have_been_liked_are_remembered_and_the_last_of_them_always() {
        let mut counters = Counters::default();
        for number in 0..=REMEMBERED {
            let post = Post::new(&number.to_string()).unwrap();
            counters.find_or_add(&post).count = Some(Count { likes: 1, version: 1 });
            counters.remove_unused(&post);
            assert!(!counters.is_unliked(&post) && counters.liked.len() <= REMEMBERED);
        }
        assert!(counters.in_use.is_empty());
        let read = Post::new("that was only read").unwrap();
        counters.find_or_add(&read).count = Some(Count::default());
        counters.remove_unused(&read);
        assert!(counters.is_unliked(&read));
    }
}

//! Where counts are kept: the [`Store`] trait, what it is asked, and a file for each kind of store.

pub(crate) mod change;
pub(crate) mod text;

use crate::error::Result;
use change::{BatchId, Change, Count, Outcome, Post, VisitorKey};
use std::sync::Arc;

/// Keeps counts. One ledger owns it and calls it from one thread.
///
/// A store that breaks its contract (a version that does not rise, a count that is lower than the likes just added, a
/// panic) stops the counter for good, with an error that says so.
pub trait Store: Send + 'static {
    /// The count of a post, as it is kept durably. A post that is not kept has no likes.
    ///
    /// # Errors
    ///
    /// [`Error::NotSaved`](crate::Error::NotSaved) where the store cannot be read.
    fn count(&mut self, post: &Post) -> Result<Count>;

    /// Applies a batch: makes every change of it durable, or none, and tells what has become of each, in their order.
    /// Without changes it proves that saving works.
    ///
    /// # Errors
    ///
    /// - [`Error::NotSaved`](crate::Error::NotSaved): this call has changed nothing. It may be tried again, or not.
    /// - [`Error::Unknown`](crate::Error::Unknown): it is not known whether the batch was applied. The same batch is
    ///   given again under the same number, and the store sees to it that it counts once.
    /// - [`Error::Stopped`](crate::Error::Stopped): the outcome is unknown and stays so; the store is not called
    ///   again, and the counter stops for good.
    fn apply(&mut self, batch: BatchId, changes: &[Change]) -> Result<Vec<Outcome>>;

    /// What reads counts beside the thread that saves. `None`, the default, is a store of the default counter alone.
    fn reader(&self) -> Option<Arc<dyn Reader>> {
        None
    }

    /// Whether it is kept durably which visitors like a post, so that they can take that back. `false` by default.
    fn remembers_visitors(&self) -> bool {
        false
    }

    /// Whether others change the counts too. If not, each count must follow from the one before it, which is checked.
    fn is_shared(&self) -> bool {
        false
    }

    /// Takes the feed by which a store that is shared tells of the changes of others. Called once, before all else.
    fn follow(&mut self, feed: Feed) {
        drop(feed);
    }
}

impl Store for Box<dyn Store> {
    fn count(&mut self, post: &Post) -> Result<Count> {
        (**self).count(post)
    }

    fn apply(&mut self, batch: BatchId, changes: &[Change]) -> Result<Vec<Outcome>> {
        (**self).apply(batch, changes)
    }

    fn reader(&self) -> Option<Arc<dyn Reader>> {
        (**self).reader()
    }

    fn remembers_visitors(&self) -> bool {
        (**self).remembers_visitors()
    }

    fn is_shared(&self) -> bool {
        (**self).is_shared()
    }

    fn follow(&mut self, feed: Feed) {
        (**self).follow(feed);
    }
}

/// Reads the counts of a store of many posts, from any thread. What it returns is durable.
///
/// Each call may wait for the disk, so it is made on the thread of the connection that asks.
pub trait Reader: Send + Sync {
    /// The count of each post, in the order asked, all as they were at one moment; and where a visitor is named,
    /// whether that visitor likes the post. A post that is not kept has no likes.
    ///
    /// # Errors
    ///
    /// [`Error::NotRead`](crate::Error::NotRead) where the store cannot be read just now.
    fn read(&self, posts: &[(Post, Option<VisitorKey>)]) -> Result<Vec<(Count, Option<bool>)>>;

    /// The most liked posts, `most` of them at most, the most liked first: those that have likes, without the default
    /// counter.
    ///
    /// # Errors
    ///
    /// [`Error::NotRead`](crate::Error::NotRead) where the store cannot be read just now.
    fn top(&self, most: usize) -> Result<Vec<(Post, Count)>>;
}

/// Where a store tells of changes that others have made.
#[derive(Clone)]
pub struct Feed {
    tell: Arc<Tell>,
}

type Tell = dyn Fn(&Post, Count) + Send + Sync;

impl Feed {
    pub(crate) fn new(tell: impl Fn(&Post, Count) + Send + Sync + 'static) -> Self {
        Self { tell: Arc::new(tell) }
    }

    /// Tells of the count of a post after a change that is durable. One with a version that is not newer than what is
    /// known already is ignored.
    pub fn changed(&self, post: &Post, count: Count) {
        (self.tell)(post, count);
    }
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed").finish_non_exhaustive()
    }
}

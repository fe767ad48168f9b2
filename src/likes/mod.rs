//! Likes: the counter and those who are shown it.
//!
//! [`ledger`] takes likes, [`saver`] has them saved, [`broadcaster`] shows them: each [`round`] to an [`audience`],
//! through each client's [`outbox`] or a [`subscription`]'s queue. Knows no protocol but the frames of a count.

pub(crate) mod audience;
pub(crate) mod batch;
pub(crate) mod behind;
mod broadcaster;
mod ledger;
pub(crate) mod outbox;
pub(crate) mod round;
mod saver;
pub(crate) mod subscription;
pub(crate) mod sync;

pub(crate) use ledger::Hook;

use crate::{
    error::{Error, Result},
    likes::{
        audience::{Audience, Registration},
        ledger::Ledger,
        outbox::Outbox,
        subscription::Subscription,
        sync::{Arc, lock},
    },
    metrics::Metrics,
    store::{
        Store,
        change::{Count, Outcome, Post},
        text::FileStore,
    },
};
use std::{
    fmt,
    path::Path,
    time::{Duration, Instant},
};

/// A like counter: saved before shown, shared by cloning.
///
/// When the last clone is dropped, the counter is [closed](Self::close).
///
/// ```
/// # let folder = std::env::temp_dir().join(format!("live-likes-doc-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder).unwrap();
/// # let path = folder.join("db.txt");
/// let likes = live_likes::Likes::open(&path)?;
/// let mut counts = likes.subscribe();
/// assert_eq!(likes.like()?, 1);
/// assert_eq!(counts.next(), Some(0)); // the count as it was, then the count after each like
/// assert_eq!(counts.next(), Some(1));
/// # drop((likes, counts));
/// # std::fs::remove_dir_all(&folder).unwrap();
/// # Ok::<(), live_likes::Error>(())
/// ```
#[derive(Clone)]
pub struct Likes {
    post: Post,
    audience: Arc<Audience>,
    ledger: Ledger,
}

impl Likes {
    /// Opens the counter kept in a file, such as `db.txt`; a file that is missing is created with a count of 0.
    ///
    /// # Errors
    ///
    /// [`Error::Database`](crate::Error::Database) where the file is not usable; see [`FileStore::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::with_store(FileStore::open(path)?)
    }

    /// Opens the default counter of a store of one's own.
    ///
    /// # Errors
    ///
    /// What the store says where it cannot be read; [`Error::Thread`](crate::Error::Thread) where the system has no
    /// thread to give.
    pub fn with_store(store: impl Store) -> Result<Self> {
        let ledger = Ledger::open(store)?;
        let post = Post::default();
        let audience = lock(&ledger.core().state).counters.entry(post.clone()).or_default().audience.clone();
        Ok(Self { post, audience, ledger })
    }

    /// Adds one like and waits until it is saved, 5 s at most. Returns its number: the count with it and all before it.
    ///
    /// # Errors
    ///
    /// The like is not counted: [`Error::NotSaved`](crate::Error::NotSaved) where it cannot be saved just now,
    /// [`Error::Full`](crate::Error::Full), [`Error::Closed`](crate::Error::Closed). It is not known whether it will
    /// be counted: [`Error::Unknown`](crate::Error::Unknown) where saving takes longer than 5 s or has failed halfway,
    /// [`Error::Stopped`](crate::Error::Stopped) where the counter has stopped for good.
    pub fn like(&self) -> Result<u64> {
        match self.ledger.core().accept_awaited(&self.post)?.wait()? {
            Outcome::Applied(count) | Outcome::Unchanged { count, .. } => Ok(count.likes),
            Outcome::Refused(_) => Err(Error::Full),
        }
    }

    /// Adds one like without waiting until it is saved. It is saved as soon as likes can be saved, and shown then.
    ///
    /// # Errors
    ///
    /// As [`like`](Self::like), for what is known when the like arrives.
    pub fn like_without_waiting(&self) -> Result<()> {
        self.ledger.core().accept(&self.post)
    }

    /// The number of likes saved.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.now().likes
    }

    fn now(&self) -> Count {
        self.ledger.core().count(&self.post)
    }

    /// The counts as they come, in this process.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        let subscription = Subscription::new(self.audience.clone(), || self.now());
        if lock(&self.ledger.core().state).over {
            subscription.close();
        }
        subscription
    }

    /// How many are shown the count: WebSocket clients, and subscribers in this process.
    #[must_use]
    pub fn watching(&self) -> usize {
        self.audience.watching()
    }

    /// Whether likes are taken and saved.
    ///
    /// # Errors
    ///
    /// What [`like`](Self::like) would say: [`Error::NotSaved`](crate::Error::NotSaved),
    /// [`Error::Stopped`](crate::Error::Stopped) or [`Error::Closed`](crate::Error::Closed).
    pub fn health(&self) -> Result<()> {
        lock(&self.ledger.core().state).health()
    }

    /// Waits until every like that was taken before the call is saved, and returns the count.
    ///
    /// # Errors
    ///
    /// [`Error::NotSaved`](crate::Error::NotSaved) where that takes longer than `within`; the likes are kept, and
    /// saved when that is possible. [`Error::Stopped`](crate::Error::Stopped) where the counter has stopped for good.
    pub fn flush(&self, within: Duration) -> Result<u64> {
        self.ledger.core().flush(within)?;
        Ok(self.count())
    }

    /// Takes no further likes, saves and shows those it has, and returns the final count.
    ///
    /// # Errors
    ///
    /// Where likes could not be saved within `within`: [`Error::NotSaved`](crate::Error::NotSaved) if they are given
    /// up, which they then are for good; [`Error::Unknown`](crate::Error::Unknown) if a save was still running.
    /// [`Error::Stopped`](crate::Error::Stopped) where the counter had stopped for good.
    pub fn close(&self, within: Duration) -> Result<u64> {
        self.ledger.core().close(within)?;
        Ok(self.count())
    }

    /// Lets a client in: shows it the count as it is, and each round from now on, until the registration is dropped.
    pub(crate) fn join(&self, outbox: &Arc<Outbox>) -> Registration {
        self.ledger.core().join(&self.post, &self.audience, outbox)
    }

    /// Waits until all that is saved by now has been shown; no longer than until `deadline`.
    pub(crate) fn wait_until_shown(&self, deadline: Instant) {
        self.ledger.core().wait_until_shown(deadline);
    }

    /// Has a client [that fell behind](crate::likes::outbox::Sent::fell_behind) tried again.
    pub(crate) fn look_after(&self, outbox: Arc<Outbox>) {
        self.ledger.core().look_after(outbox);
    }

    /// Calls the hook when the counter has stopped for good, at once if it has; as long as somebody holds the hook.
    pub(crate) fn when_stopped(&self, hook: &Arc<Hook>) {
        self.ledger.core().when_stopped(hook);
    }

    /// How many clients have not been sent all there is.
    pub(crate) fn behind(&self) -> usize {
        self.ledger.core().behind.len()
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.ledger.core().metrics
    }
}

impl fmt::Debug for Likes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Likes").field("count", &self.count()).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::store::change::{BatchId, Change};

    /// A counter in memory.
    #[derive(Default)]
    pub(crate) struct Memory {
        likes: u64,
    }

    impl Store for Memory {
        fn count(&mut self, _: &Post) -> Result<Count> {
            Ok(Count { likes: self.likes, version: self.likes })
        }

        fn apply(&mut self, _: BatchId, changes: &[Change]) -> Result<Vec<Outcome>> {
            let apply = |change: &Change| {
                self.likes += change.likes();
                Outcome::Applied(Count { likes: self.likes, version: self.likes })
            };
            Ok(changes.iter().map(apply).collect())
        }
    }
}

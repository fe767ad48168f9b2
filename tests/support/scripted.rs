//! A store in memory that does what the test says.

#![allow(dead_code, reason = "each test file uses a part")]

use live_likes::{BatchId, Change, ChangeKind, Count, Error, Feed, Likes, Outcome, Post, Result, Store};
use std::{
    sync::mpsc::{Receiver, Sender, channel},
    time::Duration,
};

/// Nobody should ever wait this long.
const LONG: Duration = Duration::from_secs(60);

/// A store of one counter: the test says what becomes of each save of so many likes.
pub struct Memory<F> {
    pub total: u64,
    save: F,
    /// The batch whose outcome the store does not know: it must come again, as it was, before any other.
    unknown: Option<(BatchId, Vec<Change>)>,
    feed: Option<Sender<Feed>>,
}

/// A store that has a closure say how each save ends.
pub fn memory<F: FnMut(u64) -> Ending + Send + 'static>(total: u64, save: F) -> Memory<F> {
    Memory { total, save, unknown: None, feed: None }
}

/// How a save ends.
pub enum Ending {
    Saved,
    NotSaved,
    /// It is not saved, for this reason.
    NotSavedSince(&'static str),
    /// The store does not know whether it is saved.
    Unknown,
    Stopped,
    Panic,
    /// The store says this.
    Told(Vec<Count>),
}

impl<F: FnMut(u64) -> Ending + Send + 'static> Store for Memory<F> {
    fn count(&mut self, _: &Post) -> Result<Count> {
        Ok(Count { likes: self.total, version: self.total })
    }

    fn is_shared(&self) -> bool {
        self.feed.is_some()
    }

    fn follow(&mut self, feed: Feed) {
        if let Some(given) = &self.feed {
            given.send(feed).unwrap();
        }
    }

    fn apply(&mut self, batch: BatchId, changes: &[Change]) -> Result<Vec<Outcome>> {
        let likes = changes.iter().map(likes_of).sum();
        if let Some(unknown) = self.unknown.take() {
            assert_eq!((unknown.0, &unknown.1[..]), (batch, changes), "the same batch under the same number");
        }
        match (self.save)(likes) {
            Ending::Saved => {
                let counts = changes.iter().map(|change| {
                    self.total += likes_of(change);
                    Outcome::Applied(Count { likes: self.total, version: self.total })
                });
                Ok(counts.collect())
            }
            Ending::Told(counts) => Ok(counts.into_iter().map(Outcome::Applied).collect()),
            Ending::NotSaved => Err(Error::NotSaved("the disk is full".to_owned())),
            Ending::NotSavedSince(reason) => Err(Error::NotSaved(reason.to_owned())),
            Ending::Unknown => {
                self.unknown = Some((batch, changes.to_vec()));
                Err(Error::Unknown("the disk is silent".to_owned()))
            }
            Ending::Stopped => Err(Error::Stopped("the disk is lost".to_owned())),
            Ending::Panic => panic!("the store panics, as the test asks"),
        }
    }
}

/// A counter whose store hands out its feed.
pub fn fed(total: u64) -> (Likes, Feed) {
    let (given, feed) = channel();
    let store = Memory { feed: Some(given), ..memory(total, |_| Ending::Saved) };
    let likes = Likes::with_store(store).unwrap();
    (likes, feed.recv().unwrap())
}

fn likes_of(change: &Change) -> u64 {
    match change.kind {
        ChangeKind::Likes(likes) => likes,
        _ => panic!("this store knows nothing but likes"),
    }
}

/// The test's side of a store whose saves hang until the test ends them; and once the test is over, work.
pub struct Script {
    saves: Receiver<u64>,
    endings: Sender<Ending>,
}

impl Script {
    /// Waits for the next save. Returns its likes; the save hangs until it is ended.
    #[track_caller]
    pub fn save(&self) -> u64 {
        self.saves.recv_timeout(LONG).expect("a save should begin")
    }

    pub fn end(&self, ending: Ending) {
        self.endings.send(ending).unwrap();
    }

    /// No save has begun that the test did not see.
    pub fn is_idle(&self) -> bool {
        self.saves.try_recv().is_err()
    }
}

/// A counter on such a store.
pub fn scripted(total: u64) -> (Likes, Script) {
    let ((saves, begun), (endings, ended)) = (channel(), channel());
    let store = memory(total, move |likes| {
        let _ = saves.send(likes);
        ended.recv().unwrap_or(Ending::Saved)
    });
    (Likes::with_store(store).unwrap(), Script { saves: begun, endings })
}

/// What tests ask of a store of one counter.
pub trait OneCounter: Store {
    fn total(&mut self) -> u64 {
        self.count(&Post::default()).unwrap().likes
    }

    /// Saves so many likes; returns the count.
    fn add(&mut self, likes: u64) -> Result<u64> {
        let batch = BatchId { server: 0, number: 0 };
        let changes = [Change { post: Post::default(), kind: ChangeKind::Likes(likes) }];
        self.apply(batch, &changes[..usize::from(likes > 0)])?;
        Ok(self.total())
    }
}

impl<S: Store> OneCounter for S {}

//! A store in memory that does what the test says.

#![allow(dead_code, reason = "each test file uses a part")]

use live_likes::{BatchId, Change, ChangeKind, Count, Error, Likes, Outcome, Post, Refused, Result, Store};
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
}

/// A store that has a closure say how each save ends.
pub fn memory<F: FnMut(u64) -> Ending + Send + 'static>(total: u64, save: F) -> Memory<F> {
    Memory { total, save }
}

/// How a save ends.
pub enum Ending {
    Saved,
    NotSaved,
    Unknown,
    /// It is saved, and the store does not know.
    SavedUnknown,
    Stopped,
    Panic,
    /// The store says this.
    Told(Vec<Count>),
}

impl<F: FnMut(u64) -> Ending + Send + 'static> Store for Memory<F> {
    fn count(&mut self, _: &Post) -> Result<Count> {
        Ok(Count { likes: self.total, version: self.total })
    }

    fn apply(&mut self, _: BatchId, changes: &[Change]) -> Result<Vec<Outcome>> {
        let likes = changes.iter().map(likes_of).sum();
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
            Ending::Unknown | Ending::SavedUnknown => Err(Error::Unknown("the disk is silent".to_owned())),
            Ending::Stopped => Err(Error::Stopped("the disk is lost".to_owned())),
            Ending::Panic => panic!("the store panics, as the test asks"),
        }
    }
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
        match self.apply(batch, &changes[..usize::from(likes > 0)])?.first() {
            Some(Outcome::Refused(Refused::Likes)) => Err(Error::Full),
            _ => Ok(self.total()),
        }
    }
}

impl<S: Store> OneCounter for S {}

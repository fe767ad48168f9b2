//! Changes that are saved together, and those who wait for the outcome.

use crate::{
    error::{Error, Result},
    likes::sync::{Arc, Mutex, OnceLock, lock},
    store::change::{Change, ChangeKind, Count, Outcome, Post},
};
use std::{collections::HashMap, time::Instant};

/// Changes that are saved together.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) number: u64,
    pub(crate) changes: Vec<Change>,
    /// When the first was added.
    pub(crate) since: Option<Instant>,
    /// How many of the likes in each change somebody waits for.
    awaited: Vec<u64>,
    /// Where in `changes` the likes of nobody in particular are gathered, for each post.
    places: HashMap<Post, usize>,
    pub(crate) results: Arc<Results>,
}

impl Batch {
    pub(crate) fn new(number: u64) -> Self {
        Self { number, ..Self::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// How many likes it holds.
    pub(crate) fn likes(&self) -> u64 {
        self.changes.iter().map(Change::likes).sum()
    }

    /// Adds a change, of one like at most; returns where it is.
    pub(crate) fn add(&mut self, post: &Post, kind: ChangeKind) -> usize {
        if let ChangeKind::Likes(_) = kind {
            // With one counter it is always the last.
            if let Some(Change { post: last, kind: ChangeKind::Likes(likes) }) = self.changes.last_mut()
                && last.is(post)
            {
                *likes += 1;
                return self.changes.len() - 1;
            }
            if let Some(&place) = self.places.get(post) {
                if let ChangeKind::Likes(likes) = &mut self.changes[place].kind {
                    *likes += 1;
                }
                return place;
            }
            self.places.insert(post.clone(), self.changes.len());
        }
        self.since.get_or_insert_with(Instant::now);
        self.changes.push(Change { post: post.clone(), kind });
        self.awaited.push(0);
        self.changes.len() - 1
    }

    /// Notes that somebody waits for the change that was just added there.
    pub(crate) fn wait_for(&mut self, change: usize) -> Waiting {
        self.awaited[change] += 1;
        Waiting { results: self.results.clone(), place: Place { change, like: self.changes[change].likes() } }
    }

    /// Has somebody told what becomes of the change that was just added there.
    pub(crate) fn tell_of(&mut self, change: usize, then: Then) {
        let place = self.wait_for(change).place;
        lock(&self.results.answers).push((place, then));
    }

    /// Takes out the changes that somebody waits for, who are to be told by the results that this returns. `forget`
    /// hears of how many of which post.
    pub(crate) fn take_awaited(&mut self, mut forget: impl FnMut(&Post, u64)) -> Arc<Results> {
        let (changes, awaited) = (std::mem::take(&mut self.changes), std::mem::take(&mut self.awaited));
        self.places.clear();
        for (mut change, awaited) in changes.into_iter().zip(awaited) {
            forget(&change.post, awaited);
            match &mut change.kind {
                ChangeKind::Likes(likes) if *likes > awaited => {
                    *likes -= awaited;
                    self.places.insert(change.post.clone(), self.changes.len());
                }
                ChangeKind::Likes(_) => continue,
                _ if awaited > 0 => continue,
                _ => {}
            }
            self.changes.push(change);
            self.awaited.push(0);
        }
        std::mem::take(&mut self.results)
    }
}

/// What is called with the outcome of a change.
pub(crate) type Then = Box<dyn FnOnce(Result<Outcome>) + Send>;

/// Where those wait whose changes are saved together. They wait for nothing but the outcome: a lock that all of them
/// had to take in turn to read it would be most of what a like over HTTP costs.
#[derive(Default)]
pub(crate) struct Results {
    saved: OnceLock<Result<Vec<Saved>, Refusal>>,
    /// Those who do not wait, but are to be told.
    answers: Mutex<Vec<(Place, Then)>>,
}

/// What has become of a change, and how many likes it was of.
pub(crate) struct Saved {
    pub(crate) outcome: Outcome,
    pub(crate) likes: u64,
}

/// A like's place in a batch.
#[derive(Clone, Copy)]
struct Place {
    change: usize,
    /// Which of the change's likes it is, from 1.
    like: u64,
}

impl Results {
    /// Tells those who wait. What is said first holds.
    pub(crate) fn settle(&self, saved: Result<Vec<Saved>, Refusal>) {
        let _ = self.saved.set(saved);
    }

    pub(crate) fn has_answers(&self) -> bool {
        !lock(&self.answers).is_empty()
    }

    /// Tells those who do not wait.
    pub(crate) fn answer(&self) {
        let answers = std::mem::take(&mut *lock(&self.answers));
        answers.into_iter().for_each(|(place, then)| then(self.of(place)));
    }

    fn of(&self, place: Place) -> Result<Outcome> {
        let saved = self.saved.wait().as_ref().map_err(Refusal::clone)?;
        let Saved { outcome, likes } = &saved[place.change];
        let after = likes - place.like;
        Ok(match *outcome {
            Outcome::Applied(Count { likes, version }) => {
                Outcome::Applied(Count { likes: likes - after, version: version - after })
            }
            other => other,
        })
    }
}

/// Somebody who waits for what becomes of a change.
pub(crate) struct Waiting {
    results: Arc<Results>,
    place: Place,
}

impl Waiting {
    pub(crate) fn wait(self) -> Result<Outcome> {
        self.results.of(self.place)
    }
}

/// Why the changes of a batch are not known to be saved.
#[derive(Clone, Debug)]
pub(crate) enum Refusal {
    NotSaved(String),
    Unknown(String),
    Stopped(String),
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotSaved(reason) => Self::NotSaved(reason),
            Refusal::Unknown(reason) => Self::Unknown(reason),
            Refusal::Stopped(reason) => Self::Stopped(reason),
        }
    }
}

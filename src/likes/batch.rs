//! Changes that are saved together, and those who wait for the outcome.

use crate::{
    error::{Error, Result},
    likes::sync::{Arc, OnceLock},
    store::change::{Change, ChangeKind, Count, Outcome, Post},
};
use std::collections::HashMap;

/// Changes that are saved together.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) number: u64,
    pub(crate) changes: Vec<Change>,
    /// How many of the likes in each change somebody waits for.
    awaited: Vec<u64>,
    /// Where in `changes` the likes of a post are gathered.
    places: HashMap<Post, usize>,
    results: Arc<Results>,
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

    pub(crate) fn results(&self) -> Arc<Results> {
        self.results.clone()
    }

    /// Adds a like; returns where it is.
    pub(crate) fn add(&mut self, post: &Post) -> usize {
        if let Some(&place) = self.places.get(post) {
            if let ChangeKind::Likes(likes) = &mut self.changes[place].kind {
                *likes += 1;
            }
            return place;
        }
        self.places.insert(post.clone(), self.changes.len());
        self.push(post, ChangeKind::Likes(1))
    }

    /// Adds a like that somebody waits for.
    pub(crate) fn add_awaited(&mut self, post: &Post) -> Waiting {
        let change = self.add(post);
        self.wait_for(change)
    }

    fn push(&mut self, post: &Post, kind: ChangeKind) -> usize {
        self.changes.push(Change { post: post.clone(), kind });
        self.awaited.push(0);
        self.changes.len() - 1
    }

    fn wait_for(&mut self, change: usize) -> Waiting {
        self.awaited[change] += 1;
        Waiting { results: self.results.clone(), change, like: self.changes[change].likes() }
    }

    /// Takes out the changes that somebody waits for, and tells those who do. `forget` hears of how many of which post.
    pub(crate) fn refuse_awaited(&mut self, refusal: &Refusal, mut forget: impl FnMut(&Post, u64)) {
        self.results.settle(Err(refusal.clone()));
        let (changes, awaited) = (std::mem::take(&mut self.changes), std::mem::take(&mut self.awaited));
        self.places.clear();
        for (mut change, awaited) in changes.into_iter().zip(awaited) {
            forget(&change.post, awaited);
            match &mut change.kind {
                ChangeKind::Likes(likes) if *likes > awaited => {
                    *likes -= awaited;
                    self.places.insert(change.post.clone(), self.changes.len());
                }
                ChangeKind::Visitor { .. } | ChangeKind::Set(_) | ChangeKind::Delete if awaited == 0 => {}
                _ => continue,
            }
            self.changes.push(change);
            self.awaited.push(0);
        }
        self.results = Arc::default();
    }
}

/// Where those wait whose changes are saved together. They wait for nothing but the outcome: a lock that all of them
/// had to take in turn to read it would be most of what a like over HTTP costs.
#[derive(Default)]
pub(crate) struct Results {
    saved: OnceLock<Result<Vec<Saved>, Refusal>>,
}

/// What has become of a change, and how many likes it was of.
pub(crate) struct Saved {
    pub(crate) outcome: Outcome,
    pub(crate) likes: u64,
}

impl Results {
    /// Tells those who wait. What is said first holds.
    pub(crate) fn settle(&self, saved: Result<Vec<Saved>, Refusal>) {
        let _ = self.saved.set(saved);
    }
}

/// Somebody's place in a batch.
pub(crate) struct Waiting {
    results: Arc<Results>,
    change: usize,
    /// Which of the change's likes it is, from 1.
    like: u64,
}

impl Waiting {
    /// Waits for what becomes of this very like.
    pub(crate) fn wait(self) -> Result<Outcome> {
        let saved = self.results.saved.wait().as_ref().map_err(Refusal::clone)?;
        let Saved { outcome, likes } = &saved[self.change];
        let after = likes - self.like;
        Ok(match *outcome {
            Outcome::Applied(Count { likes, version }) => {
                Outcome::Applied(Count { likes: likes - after, version: version - after })
            }
            other => other,
        })
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

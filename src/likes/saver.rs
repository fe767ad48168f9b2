//! The saver: one thread that has the store make one batch after another durable.

use crate::{
    error::{Error, Result},
    likes::{
        batch::{Batch, Refusal, Saved},
        ledger::{Core, Saving, State},
        sync::{MutexGuard, lock, wait, wait_for},
    },
    limits::some_of,
    metrics::Became,
    store::{
        Step, Store,
        change::{BatchId, Change, ChangeKind, Outcome, Post},
    },
};
use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

/// Before a failed save is tried again the first time; doubled each time, up to [`LONGEST_PAUSE`]. At random down to half
/// of it, so that several servers do not try at once.
const FIRST_PAUSE: Duration = Duration::from_millis(if cfg!(shuttle) { 0 } else { 100 });
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The saver's work, until the ledger is closed or its store fails for good.
pub(crate) fn run(core: &Core, store: impl Store) {
    let version = core.count(&Post::default()).unwrap_or_default().version;
    let mut saver = Saver { core, store, version };
    let stopped = catch_unwind(AssertUnwindSafe(|| saver.save()));
    let stopped = stopped.unwrap_or_else(|_| Some("the saver panicked".to_owned()));
    // First, so that who has closed the counter can open it anew.
    let closed = catch_unwind(AssertUnwindSafe(move || drop(saver)));
    core.saver_ended(stopped.clone());
    if closed.is_err() {
        log::error!("the store panicked when it was closed");
    }
    if let Some(reason) = stopped {
        log::error!("the counter stops: {reason}");
    }
}

struct Saver<'c, S> {
    core: &'c Core,
    store: S,
    /// The newest version that the store has told.
    version: u64,
}

/// Why no further batch is saved: the reason why the counter has stopped for good; `None` where it was closed.
type Ended = Option<String>;

impl<'c, S: Store> Saver<'c, S> {
    /// Saves batch after batch.
    fn save(&mut self) -> Ended {
        let core = self.core;
        let mut state = lock(&core.state);
        loop {
            while state.next.is_empty() && !state.closing {
                state = wait(&core.work, state);
            }
            if state.next.is_empty() || state.abandoned {
                return None;
            }
            let number = state.next.number + 1;
            let batch = std::mem::replace(&mut state.next, Batch::new(number));
            match self.finish(batch, state) {
                Ok(guard) => state = guard,
                Err(ended) => return ended,
            }
        }
    }

    /// Saves one batch, however many attempts that takes.
    fn finish(&mut self, mut batch: Batch, mut state: MutexGuard<'c, State>) -> Result<MutexGuard<'c, State>, Ended> {
        let core = self.core;
        let since = Instant::now();
        let (mut pause, mut unknown) = (FIRST_PAUSE, false);
        loop {
            let late = state.saving.as_ref().is_some_and(|saving| saving.late);
            let (number, likes, results) = (batch.number, batch.likes(), batch.results.clone());
            state.saving = Some(Saving { number, likes, called: true, since, oldest: batch.since, late, results });
            if state.broadcaster_idle {
                core.saved.notify_one();
            }
            drop(state);
            let result = self.apply(&batch);
            state = lock(&core.state);
            let problem = match result {
                Ok(outcomes) => {
                    self.check(&state, &batch.changes, &outcomes).map_err(Some)?;
                    return Ok(self.settle(&batch, &outcomes, state));
                }
                Err(Error::Stopped(problem)) => return Err(Some(problem)),
                Err(Error::Unknown(problem)) => {
                    unknown = true;
                    problem
                }
                Err(Error::NotSaved(problem)) => problem,
                Err(other) => other.to_string(),
            };
            let refusal = Refusal::NotSaved(problem.clone());
            if !unknown {
                // Those who wait are told that their likes do not count, which is then so. The others' likes are kept
                // until they can be saved.
                state.refuse(&mut batch, &refusal);
            }
            state.refuse_gathering(&refusal);
            if batch.is_empty() {
                state.finished = batch.number;
            }
            if let Some(saving) = &mut state.saving {
                (saving.called, saving.likes) = (false, batch.likes());
            }
            core.tell_progress(&state);
            core.saved.notify_one(); // there may be refusals to tell
            if state.fault.replace(problem.clone()).is_none() {
                drop(state);
                log::error!("likes cannot be saved: {problem}");
                state = lock(&core.state);
            }
            let again = Instant::now() + some_of(pause);
            while !has_given_up(&state) && Instant::now() < again {
                let left = again.saturating_duration_since(Instant::now());
                state = wait_for(&core.work, &core.state, state, left);
            }
            if has_given_up(&state) {
                return Err(None);
            }
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    fn apply(&mut self, batch: &Batch) -> Result<Vec<Outcome>> {
        let start = Instant::now();
        let id = BatchId { server: self.core.server, number: batch.number };
        let result = catch_unwind(AssertUnwindSafe(|| self.store.apply(id, &batch.changes)))
            .unwrap_or_else(|_| Err(Error::Stopped("the store panicked".to_owned())));
        match &result {
            Ok(_) => self.core.metrics.saved(start.elapsed()),
            Err(_) => self.core.metrics.save_failed(),
        }
        result
    }

    /// Holds what the store says against its contract: wrong numbers must not be shown.
    fn check(&mut self, state: &State, changes: &[Change], outcomes: &[Outcome]) -> Result<(), String> {
        if outcomes.len() != changes.len() {
            return Err(format!("the store told {} outcomes of {} changes", outcomes.len(), changes.len()));
        }
        // What the store told of a post earlier in this batch goes before what is known of it.
        let mut told = HashMap::new();
        for (change, outcome) in changes.iter().zip(outcomes) {
            let Outcome::Applied(count) = *outcome else { continue };
            if count.version.checked_sub(change.likes()).is_none_or(|version| version < self.version) {
                let (version, last) = (count.version, self.version);
                return Err(format!("the store told version {version} of a change of {change:?} on version {last}"));
            }
            self.version = count.version;
            // Read while this was being saved, it may be the count with this change already.
            let known = || state.counters.get(&change.post).filter(|known| known.version < count.version);
            let before = told.insert(&change.post, count.likes).or_else(|| known().map(|known| known.likes));
            let Some(before) = before else { continue };
            // The least that it can be after the change, and what it is if nobody else has changed it.
            let (least, follows) = match change.kind {
                ChangeKind::Visitor { liked: false, .. } => (0, before.checked_sub(1)),
                ChangeKind::Set(likes) => (likes, Some(likes)),
                ChangeKind::Delete => (0, Some(0)),
                _ => (change.likes(), before.checked_add(change.likes())),
            };
            if count.likes < least || !self.store.is_shared() && follows != Some(count.likes) {
                return Err(format!("the store told {} likes after {change:?} on {before}", count.likes));
            }
        }
        Ok(())
    }

    fn settle(&self, batch: &Batch, outcomes: &[Outcome], mut state: MutexGuard<'c, State>) -> MutexGuard<'c, State> {
        let mut steps = Vec::with_capacity(batch.changes.len());
        for (change, outcome) in batch.changes.iter().zip(outcomes) {
            let became = match outcome {
                Outcome::Applied(_) => Became::Counted,
                Outcome::Unchanged { .. } => Became::Unchanged,
                Outcome::Refused(_) => Became::Refused,
            };
            self.core.metrics.became(became, change.likes());
            if let Outcome::Applied(count) = *outcome {
                let minds = match change.kind {
                    ChangeKind::Visitor { visitor, liked, .. } => vec![(visitor, liked)],
                    _ => Vec::new(),
                };
                steps.push(Step { post: change.post.clone(), count, likes: change.likes(), minds });
            }
        }
        state.end_saving(steps);
        batch.changes.iter().for_each(|change| state.counters.forget(&change.post, change.likes()));
        let saved = batch.changes.iter().zip(outcomes);
        let saved = saved.map(|(change, &outcome)| Saved { outcome, likes: change.likes() }).collect();
        state.finished = batch.number;
        let fault = state.fault.take();
        state.will_settle(&batch.results);
        self.core.tell_progress(&state);
        drop(state);
        self.core.saved.notify_one();
        batch.results.settle(Ok(saved));
        if fault.is_some() {
            log::info!("likes can be saved again; saved {} that waited", batch.likes());
        }
        lock(&self.core.state)
    }
}

/// Whether a save that fails is not to be tried again.
fn has_given_up(state: &State) -> bool {
    state.abandoned || state.closing && state.unsaved() == 0
}

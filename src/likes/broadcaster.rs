//! The broadcaster: one thread that shows what has been saved, looks after those who are behind, and notices a save
//! that does not end.

use crate::likes::{
    counters::News,
    ledger::{Core, Work},
    round::Round,
    sync::{lock, wait, wait_for},
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

/// Between two looks at the clients that are behind.
const RETRY_BEHIND: Duration = Duration::from_millis(if cfg!(shuttle) { 0 } else { 20 });

/// The broadcaster's work, until nobody has a handle of the ledger any more and all that is saved is shown.
pub(crate) fn run(core: &Core) {
    let now = Instant::now();
    let mut broadcaster = Broadcaster { core, looked: now, awake_at: now, late: false };
    while let Some(work) = broadcaster.wait_for_work() {
        broadcaster.work(work);
    }
}

struct Broadcaster<'c> {
    core: &'c Core,
    /// When those who are behind were tried last.
    looked: Instant,
    /// When it looks next at what is being saved, whatever else happens. So long it needs not be told that a save begins.
    awake_at: Instant,
    /// A save does not end, which is still to be logged.
    late: bool,
}

impl Broadcaster<'_> {
    fn work(&mut self, work: Work) {
        let core = self.core;
        if std::mem::take(&mut self.late) {
            log::error!("likes cannot be saved: a save does not end");
        }
        let mark = work.mark;
        // A fault in showing one counter must not end the others'.
        if catch_unwind(AssertUnwindSafe(|| show(core, work))).is_err() {
            log::error!("a round panicked");
        }
        if self.looked.elapsed() >= RETRY_BEHIND {
            self.looked = Instant::now();
            core.metrics.frames(core.behind.retry());
        }
        let mut state = lock(&core.state);
        let ended = state.set_shown(mark);
        core.tell_progress(&state);
        drop(state);
        ended.iter().for_each(|audience| audience.close_queues());
    }

    /// Waits for something to be shown, a look to be taken or the end. `None` at the end.
    fn wait_for_work(&mut self) -> Option<Work> {
        let core = self.core;
        let mut state = lock(&core.state);
        loop {
            let behind = core.behind.len() > 0;
            if state.released && state.over && !behind {
                return None;
            }
            let now = Instant::now();
            let (save_due, newly_late) = core.look_at_save(&mut state, now);
            self.late |= newly_late;
            let look_due = behind.then_some(self.looked + RETRY_BEHIND);
            if state.has_work() || self.late || look_due.is_some_and(|due| due <= now) {
                return Some(state.take_work());
            }
            self.awake_at = save_due.unwrap_or(self.awake_at);
            let next = look_due.into_iter().chain([self.awake_at]).filter(|due| now < *due).min();
            state = match next {
                Some(due) => wait_for(&core.saved, &core.state, state, due - now),
                None => {
                    state.broadcaster_idle = true;
                    let mut state = wait(&core.saved, state);
                    state.broadcaster_idle = false;
                    state
                }
            };
        }
    }
}

fn show(core: &Core, Work { answers, news, .. }: Work) {
    answers.iter().for_each(|results| results.answer());
    for News { post, steps, audience } in news {
        if let Some(round) = Round::of(post, steps) {
            let start = Instant::now();
            let frames = audience.fan_out(&round, core.workers, &core.behind);
            core.metrics.round(frames, start.elapsed());
        }
    }
}

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
    let mut looked = Instant::now();
    let mut late = false;
    while let Some(work) = wait_for_work(core, looked, &mut late) {
        if std::mem::take(&mut late) {
            log::error!("likes cannot be saved: a save does not end");
        }
        let mark = work.mark;
        // A fault in showing one counter must not end the others'.
        if catch_unwind(AssertUnwindSafe(|| show(core, work))).is_err() {
            log::error!("a round panicked");
        }
        if looked.elapsed() >= RETRY_BEHIND {
            looked = Instant::now();
            core.metrics.frames(core.behind.retry());
        }
        let mut state = lock(&core.state);
        let ended = state.set_shown(mark);
        core.progress.notify_all();
        drop(state);
        ended.iter().for_each(|audience| audience.close_queues());
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

/// Waits for something to be shown, a look to be taken or the end. `None` at the end.
fn wait_for_work(core: &Core, looked: Instant, late: &mut bool) -> Option<Work> {
    let mut state = lock(&core.state);
    loop {
        let behind = core.behind.len() > 0;
        if state.released && state.over && !behind {
            return None;
        }
        let now = Instant::now();
        let (save_due, newly_late) = core.look_at_save(&mut state, now);
        *late |= newly_late;
        let look_due = behind.then_some(looked + RETRY_BEHIND);
        let due = save_due.into_iter().chain(look_due).min();
        if state.has_work() || *late || due.is_some_and(|due| due <= now) {
            return Some(state.take_work());
        }
        state = match due {
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

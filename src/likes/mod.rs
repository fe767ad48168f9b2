//! The counter: a handle, and the two threads behind it.
//!
//! A like goes one way through here. [`Likes::like`] adds one under the mutex and nothing else. The *saver* takes
//! everything gathered so far as one batch and has the store make it durable; while it saves, the next batch
//! gathers (group commit). Then the *broadcaster* shows everyone what has been saved since its last round. So a
//! save costs the same for one like and for a thousand, and nobody is shown a count that a power cut could take
//! back. The price is that a single like waits for its own save, about a millisecond.
//!
//! What must never happen here: the mutex held across I/O.

pub(crate) mod audience;
pub(crate) mod mailbox;
pub(crate) mod outbox;
pub(crate) mod subscription;
pub(crate) mod sync;

use crate::{
    error::{Error, Result},
    likes::audience::{Audience, Seat},
    likes::mailbox::Mailbox,
    likes::outbox::{MOST_IN_ROUND, Outbox, Round},
    likes::subscription::Subscription,
    likes::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, lock, thread, wait, wait_for},
    limits::{Limits, due_in},
    metrics::Metrics,
    store::{Store, text::FileStore},
};
use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Weak,
    time::{Duration, Instant},
};

/// Between two looks at the clients that are behind.
const RETRY_BEHIND: Duration = Duration::from_millis(if cfg!(shuttle) { 0 } else { 20 });

/// Before a failed save is tried again the first time; doubled each time, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(if cfg!(shuttle) { 0 } else { 100 });
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

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
    owner: Arc<Owner>,
}

/// What all clones share and the two threads do not, so that the last clone's end is theirs.
struct Owner {
    core: Arc<Core>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Err(e) = self.core.close(Limits::default().stop_within) {
            log::error!("{e}");
        }
    }
}

struct Core {
    state: Mutex<State>,
    /// There is something for the saver.
    gathered: Condvar,
    /// There is something for the broadcaster.
    saved: Condvar,
    /// Likes have been saved, or the saver or the broadcaster has ended.
    progress: Condvar,
    audience: Arc<Audience>,
    metrics: Metrics,
    lanes: usize,
}

#[derive(Default)]
struct State {
    /// Likes saved: the count.
    saved: u64,
    /// Likes being saved.
    saving: u64,
    /// Likes for the next save.
    next: Gathering,
    /// Why likes cannot be saved just now.
    fault: Option<String>,
    /// Why likes can never be saved again.
    dead: Option<String>,
    /// No further likes are taken.
    closing: bool,
    /// The saver is to give up what it cannot save.
    abandoned: bool,
    saver_ended: bool,
    broadcaster_ended: bool,
    /// Called when `dead` is set.
    when_stopped: Vec<Weak<Hook>>,
}

/// What is called when a counter has stopped for good.
pub(crate) type Hook = dyn Fn() + Send + Sync;

/// Likes that will be saved together.
#[derive(Default)]
struct Gathering {
    likes: u64,
    /// How many of them somebody waits for, at `batch`.
    awaited: u64,
    batch: Arc<Batch>,
}

/// Where those wait whose likes are saved together. They wait for nothing but the outcome: a lock that all of them had
/// to take in turn to read it would be most of what a like over HTTP costs.
#[derive(Default)]
struct Batch {
    outcome: OnceLock<Outcome>,
}

/// The count before the batch; or why its likes were not saved, and will not be.
type Outcome = Result<u64, Refusal>;

#[derive(Clone)]
enum Refusal {
    NotSaved(String),
    Undecided(String),
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotSaved(reason) => Self::NotSaved(reason),
            Refusal::Undecided(reason) => Self::Undecided(reason),
        }
    }
}

impl Batch {
    /// Tells those who wait. Once for each batch: the saver takes it out of the state to do so.
    fn settle(&self, outcome: Outcome) {
        let _ = self.outcome.set(outcome);
    }

    fn wait(&self) -> Outcome {
        self.outcome.wait().clone()
    }
}

impl Likes {
    /// Opens the counter kept in a file, such as `db.txt`; a file that is missing is created with a count of 0.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] where the file is not usable, see [`FileStore::open`]; and as
    /// [`with_store`](Self::with_store).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::with_store(FileStore::open(path)?)
    }

    /// Opens the counter kept in a store of one's own.
    ///
    /// # Errors
    ///
    /// [`Error::Thread`] where the system has no thread to give.
    pub fn with_store(mut store: impl Store) -> Result<Self> {
        let saved = store.total();
        let core = Arc::new(Core {
            state: Mutex::new(State { saved, ..State::default() }),
            gathered: Condvar::new(),
            saved: Condvar::new(),
            progress: Condvar::new(),
            audience: Arc::default(),
            metrics: Metrics::default(),
            lanes: std::thread::available_parallelism().map_or(1, usize::from),
        });
        // From here on an early return closes the counter, and with it a thread that was started.
        let likes = Self { owner: Arc::new(Owner { core: core.clone() }) };
        let start = |name: &str, work: Box<dyn FnOnce() + Send>| {
            thread::Builder::new().name(name.to_owned()).spawn(work).map(drop).map_err(Error::Thread)
        };
        let (saver, broadcaster) = (core.clone(), core.clone());
        start("saver", Box::new(move || saver.save(store))).inspect_err(|_| {
            let mut state = lock(&core.state);
            (state.saver_ended, state.broadcaster_ended) = (true, true);
        })?;
        start("broadcaster", Box::new(move || broadcaster.broadcast(saved)))
            .inspect_err(|_| lock(&core.state).broadcaster_ended = true)?;
        Ok(likes)
    }

    /// Adds one like and waits until it is saved. Returns its number: the count with it and all before it.
    ///
    /// # Errors
    ///
    /// In each case the like is not counted: [`Error::NotSaved`] where it cannot be saved just now,
    /// [`Error::Undecided`] where the counter has stopped for good, [`Error::Full`], [`Error::Closed`]. With
    /// [`Error::Undecided`] alone it may turn out to be saved, when the counter is opened anew.
    pub fn like(&self) -> Result<u64> {
        let (batch, place) = self.core().accept(|next| {
            next.awaited += 1;
            (next.batch.clone(), next.likes)
        })?;
        Ok(batch.wait()? + place)
    }

    /// Adds one like without waiting until it is saved. It is saved as soon as likes can be saved, and shown then.
    ///
    /// # Errors
    ///
    /// As [`like`](Self::like), for what is known when the like arrives.
    pub fn like_without_waiting(&self) -> Result<()> {
        self.core().accept(|_| ())
    }

    /// The number of likes saved.
    #[must_use]
    pub fn count(&self) -> u64 {
        lock(&self.core().state).saved
    }

    /// The counts as they come, in this process.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        let core = self.core();
        let mailbox = Arc::new(Mailbox::default());
        mailbox.expect(self.count());
        core.audience.join_mailbox(mailbox.clone());
        let state = lock(&core.state);
        mailbox.begin(state.saved);
        if state.broadcaster_ended {
            mailbox.close();
        }
        drop(state);
        Subscription { mailbox, audience: core.audience.clone() }
    }

    /// How many are shown the count: WebSocket clients, and subscribers in this process.
    #[must_use]
    pub fn watching(&self) -> usize {
        self.core().audience.watching()
    }

    /// Whether likes are taken and saved.
    ///
    /// # Errors
    ///
    /// What [`like`](Self::like) would say: [`Error::NotSaved`], [`Error::Undecided`] or [`Error::Closed`].
    pub fn health(&self) -> Result<()> {
        lock(&self.core().state).health()
    }

    /// Waits until every like taken so far is saved, and returns the count.
    ///
    /// # Errors
    ///
    /// [`Error::NotSaved`] where that takes longer than `within`; the likes are kept, and saved when that is possible.
    /// [`Error::Undecided`] where the counter has stopped for good.
    pub fn flush(&self, within: Duration) -> Result<u64> {
        let core = self.core();
        let deadline = due_in(within);
        let mut state = lock(&core.state);
        while state.unsaved() > 0 && !state.saver_ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = wait_for(&core.progress, &core.state, state, left);
        }
        state.outcome("are not saved yet")
    }

    /// Takes no further likes, saves and shows those it has, and returns the final count.
    ///
    /// # Errors
    ///
    /// [`Error::NotSaved`] where likes could not be saved within `within`; they are given up.
    /// [`Error::Undecided`] where the counter has stopped for good.
    pub fn close(&self, within: Duration) -> Result<u64> {
        self.core().close(within)
    }

    /// Lets a client in, and shows it the count as it is.
    pub(crate) fn join(&self, outbox: &Arc<Outbox>) -> Seat {
        let core = self.core();
        outbox.expect(self.count());
        let seat = core.audience.join(outbox.clone());
        let sent = outbox.begin(self.count());
        core.metrics.frames(sent.frames);
        if sent.fell_behind {
            self.look_after(outbox.clone());
        }
        seat
    }

    /// Shows every client what is saved by now.
    pub(crate) fn show_saved(&self) {
        let core = self.core();
        // The broadcaster may have that round still before it, when others have been answered already.
        let newest = self.count();
        if newest > 0 {
            let round = Round::after(newest.saturating_sub(MOST_IN_ROUND), newest);
            core.metrics.frames(core.audience.fan_out(&round, core.lanes).frames);
        }
    }

    /// Calls the hook when the counter has stopped for good, at once if it has; as long as somebody holds the hook.
    pub(crate) fn when_stopped(&self, hook: &Arc<Hook>) {
        let mut state = lock(&self.core().state);
        if state.dead.is_none() {
            state.when_stopped.retain(|other| other.strong_count() > 0);
            return state.when_stopped.push(Arc::downgrade(hook));
        }
        drop(state);
        hook();
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.core().metrics
    }

    pub(crate) fn audience(&self) -> &Audience {
        &self.core().audience
    }

    /// Has a client [that fell behind](crate::likes::outbox::Sent::fell_behind) tried again.
    pub(crate) fn look_after(&self, outbox: Arc<Outbox>) {
        self.core().audience.look_after(outbox);
        // Under the lock, so that the broadcaster is either before its look at the list or waiting.
        let _state = lock(&self.core().state);
        self.core().saved.notify_one();
    }

    fn core(&self) -> &Core {
        &self.owner.core
    }
}

impl fmt::Debug for Likes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Likes").field("count", &self.count()).finish_non_exhaustive()
    }
}

impl State {
    fn unsaved(&self) -> u64 {
        self.saving + self.next.likes
    }

    /// Whether a save that fails is not to be tried again.
    fn has_given_up(&self) -> bool {
        self.abandoned || self.closing && self.unsaved() == 0
    }

    /// The count; or what has become of the likes that it does not hold.
    fn outcome(&self, became: &str) -> Result<u64> {
        if let Some(reason) = &self.dead {
            return Err(Error::Undecided(reason.clone()));
        }
        match self.unsaved() {
            0 => Ok(self.saved),
            unsaved => {
                let reason = self.fault.as_deref().unwrap_or("there was no time left");
                Err(Error::NotSaved(format!("{unsaved} likes {became}: {reason}")))
            }
        }
    }

    fn health(&self) -> Result<()> {
        if let Some(reason) = &self.dead {
            return Err(Error::Undecided(reason.clone()));
        }
        if self.closing {
            return Err(Error::Closed);
        }
        match &self.fault {
            Some(reason) => Err(Error::NotSaved(reason.clone())),
            None => Ok(()),
        }
    }
}

impl Core {
    /// Takes a like for the next save. `noted` is told of that save, the like in it.
    fn accept<T>(&self, noted: impl FnOnce(&mut Gathering) -> T) -> Result<T> {
        let mut state = lock(&self.state);
        state.health()?;
        // In this order no sum overflows: each part of it was let in by this very line.
        if state.saved + state.saving + state.next.likes == u64::MAX {
            return Err(Error::Full);
        }
        state.next.likes += 1;
        let first = state.next.likes == 1;
        let noted = noted(&mut state.next);
        // Here and in `raise` whoever is woken needs the lock: woken before it is free, it would only wait again.
        drop(state);
        if first {
            self.gathered.notify_one();
        }
        Ok(noted)
    }

    /// The saver's work.
    fn save(&self, mut store: impl Store) {
        let mut state = lock(&self.state);
        loop {
            while state.next.likes == 0 && !state.closing {
                state = wait(&self.gathered, state);
            }
            if state.next.likes == 0 {
                break;
            }
            let gathering = std::mem::take(&mut state.next);
            state.saving = gathering.likes;
            drop(state);
            let result = self.add(&mut store, gathering.likes);
            state = lock(&self.state);
            match result {
                Ok(total) => {
                    self.raise(state, total);
                    // A store that others add to as well has this batch at its end.
                    gathering.batch.settle(Ok(total - gathering.likes));
                    state = lock(&self.state);
                    continue;
                }
                Err(Error::Undecided(reason)) => {
                    gathering.batch.settle(Err(Refusal::Undecided(reason.clone())));
                    self.die(&mut state, reason);
                    break;
                }
                Err(e) => {
                    let reason = reason_of(e);
                    log::error!("likes cannot be saved: {reason}");
                    // Those who wait are told that their likes do not count, which is then so. The others' likes
                    // are kept until they can be saved.
                    let refused = Err(Refusal::NotSaved(reason.clone()));
                    let since = std::mem::take(&mut state.next);
                    gathering.batch.settle(refused.clone());
                    since.batch.settle(refused);
                    state.saving = gathering.likes - gathering.awaited + since.likes - since.awaited;
                    state.fault = Some(reason);
                }
            }
            state = self.try_again(&mut store, state);
            if state.dead.is_some() || state.has_given_up() {
                break;
            }
        }
        drop(state);
        // First, so that who has closed the counter can open it anew.
        drop(store);
        let mut state = lock(&self.state);
        state.saver_ended = true;
        self.saved.notify_one();
        self.progress.notify_all();
        let hooks = if state.dead.is_some() { std::mem::take(&mut state.when_stopped) } else { Vec::new() };
        drop(state);
        hooks.iter().filter_map(Weak::upgrade).for_each(|hook| hook());
    }

    /// Tries a failed save again, until it works, or its outcome is unknown, or it is given up.
    fn try_again<'a>(&'a self, store: &mut impl Store, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let mut pause = FIRST_PAUSE;
        loop {
            let again = Instant::now() + pause;
            while !state.has_given_up() && Instant::now() < again {
                state = wait_for(&self.gathered, &self.state, state, again.saturating_duration_since(Instant::now()));
            }
            if state.has_given_up() {
                return state;
            }
            let likes = state.saving;
            drop(state);
            let result = self.add(store, likes);
            state = lock(&self.state);
            match result {
                Ok(total) => {
                    log::info!("likes can be saved again; saved {likes} that waited");
                    state.fault = None;
                    self.raise(state, total);
                    return lock(&self.state);
                }
                Err(Error::Undecided(reason)) => {
                    self.die(&mut state, reason);
                    return state;
                }
                Err(e) => state.fault = Some(reason_of(e)),
            }
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    fn add(&self, store: &mut impl Store, likes: u64) -> Result<u64> {
        let start = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| store.add(likes)))
            .unwrap_or_else(|_| Err(Error::Undecided("the store panicked".to_owned())));
        match &result {
            Ok(_) => self.metrics.saved(start.elapsed()),
            Err(_) => self.metrics.save_failed(),
        }
        result
    }

    fn raise(&self, mut state: MutexGuard<'_, State>, total: u64) {
        state.saving = 0;
        state.saved = total;
        drop(state);
        self.saved.notify_one();
        self.progress.notify_all();
    }

    fn die(&self, state: &mut State, reason: String) {
        log::error!("the counter stops: {reason}");
        std::mem::take(&mut state.next).batch.settle(Err(Refusal::Undecided(reason.clone())));
        state.saving = 0;
        state.fault = None;
        state.dead = Some(reason);
    }

    /// The broadcaster's work.
    fn broadcast(&self, mut shown: u64) {
        let mut looked = Instant::now();
        loop {
            let (newest, ended) = {
                let mut state = lock(&self.state);
                while state.saved <= shown && !state.saver_ended {
                    if self.audience.behind() == 0 {
                        state = wait(&self.saved, state);
                        continue;
                    }
                    let left = RETRY_BEHIND.saturating_sub(looked.elapsed());
                    if left.is_zero() {
                        break;
                    }
                    state = wait_for(&self.saved, &self.state, state, left);
                }
                (state.saved, state.saver_ended)
            };
            if newest > shown {
                let tally = self.audience.fan_out(&Round::after(shown, newest), self.lanes);
                self.metrics.round(tally.frames);
                shown = newest;
            }
            if looked.elapsed() >= RETRY_BEHIND {
                looked = Instant::now();
                self.metrics.frames(self.audience.retry_behind().frames);
            }
            if ended {
                break;
            }
        }
        let mut state = lock(&self.state);
        state.broadcaster_ended = true;
        self.audience.close_mailboxes();
        self.progress.notify_all();
    }

    fn close(&self, within: Duration) -> Result<u64> {
        let deadline = due_in(within);
        let mut state = lock(&self.state);
        state.closing = true;
        self.gathered.notify_one();
        while !(state.saver_ended && state.broadcaster_ended) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = wait_for(&self.progress, &self.state, state, left);
        }
        if state.unsaved() > 0 || state.fault.is_some() {
            state.abandoned = true;
            self.gathered.notify_one();
        }
        state.outcome("were given up")
    }
}

fn reason_of(error: Error) -> String {
    match error {
        Error::NotSaved(reason) => reason,
        other => other.to_string(),
    }
}

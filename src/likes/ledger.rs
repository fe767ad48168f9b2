//! The ledger: the counters in use, the batch that gathers, and what is known of saving, under one mutex.
//!
//! A like goes one way through here. [`Core::accept`] puts it on the next batch and does nothing else. The
//! [saver](super::saver) has the store make the whole batch durable; while it saves, the next one gathers (group
//! commit). Then the [broadcaster](super::broadcaster) shows everyone what has been saved since its last round. So a
//! save costs the same for one like and for a thousand, and nobody is shown a count that a power cut could take back.
//! The price is that a single like waits for its own save, about a millisecond.
//!
//! What must never happen here: the mutex held across I/O of any kind, a log line included.

use crate::{
    error::{Error, Result},
    likes::{
        InUse, Registration,
        audience::{Audience, MOST_WORKERS},
        batch::{Batch, Refusal, Results, Saved},
        behind::Behind,
        broadcaster,
        counters::{Counters, News},
        outbox::Outbox,
        saver,
        sync::{Arc, Condvar, Mutex, MutexGuard, lock, thread, wait_for},
    },
    limits::{due_in, random},
    metrics::{Metrics, Queues, Remote},
    store::{
        Feed, Follower, Reader, Step, Store,
        change::{ChangeKind, Count, LARGEST, Post, VisitorKey},
    },
};
use std::{
    sync::Weak,
    time::{Duration, Instant},
};

/// After this time a save that has not finished counts as failed: those who wait for it are told that its outcome is
/// not known, and further likes are refused until it has finished.
pub(crate) const SAVE_WITHIN: Duration = Duration::from_secs(if cfg!(shuttle) { 3600 } else { 5 });

/// Why nothing became of a like that was taken before the counter was closed.
const CLOSED: &str = "the counter was closed before it could be saved";

/// Changes of others that are held while a batch is saved.
const MOST_HELD: usize = 10_000;

/// How long the last handle of a ledger, when it is dropped, waits for likes that are being saved.
const DROP_WITHIN: Duration = Duration::from_secs(1);

/// A handle of a ledger. When the last one is dropped, the ledger is closed.
#[derive(Clone)]
pub(crate) struct Ledger {
    owner: Arc<Owner>,
}

/// What all handles share and the two threads do not, so that the last handle's end is theirs.
struct Owner {
    core: Arc<Core>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.core.let_go();
    }
}

impl Ledger {
    /// Opens a ledger over a store, and starts its two threads.
    pub(crate) fn open(mut store: impl Store) -> Result<Self> {
        let count = store.count(&Post::default())?;
        let server = random();
        let core = Arc::new(Core {
            state: Mutex::new(State { next: Batch::new(1), ..State::default() }),
            work: Condvar::new(),
            saved: Condvar::new(),
            progress: Condvar::new(),
            behind: Behind::default(),
            metrics: Metrics::default(),
            reader: store.reader(),
            remembers_visitors: store.remembers_visitors(),
            has_other_servers: store.has_other_servers(),
            server,
            boot: format!("{server:032x}").into(),
            workers: std::thread::available_parallelism().map_or(1, usize::from).min(MOST_WORKERS),
        });
        lock(&core.state).counters.know(&Post::default(), count);
        store.follow(Feed::new(Fed(Arc::downgrade(&core))));
        // From here on an early return closes the ledger, and with it a thread that was started.
        let ledger = Self { owner: Arc::new(Owner { core: core.clone() }) };
        let start = |name: &str, work: Box<dyn FnOnce() + Send>| {
            thread::Builder::new().name(name.to_owned()).spawn(work).map(drop).map_err(Error::Thread)
        };
        let (for_saver, for_broadcaster) = (core.clone(), core.clone());
        start("saver", Box::new(move || saver::run(&for_saver, store)))
            .inspect_err(|_| lock(&core.state).saver_ended = true)?;
        start("broadcaster", Box::new(move || broadcaster::run(&for_broadcaster)))?;
        Ok(ledger)
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.owner.core
    }
}

/// What the handles and the two threads share.
pub(crate) struct Core {
    pub(crate) state: Mutex<State>,
    /// There is something for the saver.
    pub(crate) work: Condvar,
    /// There is something for the broadcaster.
    pub(crate) saved: Condvar,
    /// A batch has been finished, a round shown, or the saver has ended: see [`tell_progress`](Self::tell_progress).
    progress: Condvar,
    pub(crate) behind: Behind,
    pub(crate) metrics: Metrics,
    reader: Option<Arc<dyn Reader>>,
    pub(crate) remembers_visitors: bool,
    pub(crate) has_other_servers: bool,
    /// A random name of this start, by which the store knows its batches.
    pub(crate) server: u128,
    /// Another form of it, for clients.
    pub(crate) boot: Arc<str>,
    /// Threads that a fan-out may take.
    pub(crate) workers: usize,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) counters: Counters,
    /// The batch that gathers.
    pub(crate) next: Batch,
    /// The batch that is being saved.
    pub(crate) saving: Option<Saving>,
    /// The number of the last batch that is over, in whatever way.
    pub(crate) finished: u64,
    /// What others have changed while a batch is saved. It is shown with the batch, by rising versions: what is older than
    /// what is shown already would be passed over.
    by_others: Vec<Step>,
    /// Changes that could not be saved, and do not count.
    not_saved: u64,
    /// Results that somebody who does not wait is to be told.
    answers: Vec<Arc<Results>>,
    /// Why likes cannot be saved just now.
    pub(crate) fault: Option<String>,
    /// Why the changes of others are not heard of just now.
    deaf: Option<String>,
    /// Why likes can never be saved again.
    pub(crate) stopped: Option<String>,
    /// No further likes are taken.
    pub(crate) closing: bool,
    /// The saver is to give up what it has not saved.
    pub(crate) abandoned: bool,
    /// The last handle is gone.
    pub(crate) released: bool,
    pub(crate) saver_ended: bool,
    /// All that will ever be saved has been shown.
    pub(crate) over: bool,
    /// The broadcaster waits without an end.
    pub(crate) broadcaster_idle: bool,
    /// How many wait for progress.
    waiting: usize,
    /// Called when `stopped` is set.
    when_stopped: Vec<Weak<Hook>>,
}

/// What is called when a ledger has stopped for good.
pub(crate) type Hook = dyn Fn() + Send + Sync;

/// A batch that is being saved, as far as others than the saver must know of it.
pub(crate) struct Saving {
    pub(crate) number: u64,
    pub(crate) likes: u64,
    /// The store is at it, so that its outcome is open.
    pub(crate) called: bool,
    pub(crate) since: Instant,
    /// When the first of its changes was taken.
    pub(crate) oldest: Option<Instant>,
    /// It has taken longer than [`SAVE_WITHIN`].
    pub(crate) late: bool,
    pub(crate) results: Arc<Results>,
}

/// What the broadcaster has to do.
pub(crate) struct Work {
    pub(crate) answers: Vec<Arc<Results>>,
    pub(crate) news: Vec<News>,
    /// To say when it is done.
    pub(crate) mark: u64,
}

impl State {
    /// Likes that are taken and not saved.
    pub(crate) fn unsaved(&self) -> u64 {
        self.saving.as_ref().map_or(0, |saving| saving.likes) + self.next.likes()
    }

    pub(crate) fn health(&self) -> Result<()> {
        match (&self.stopped, &self.fault) {
            (Some(reason), _) => Err(Error::Stopped(reason.clone())),
            _ if self.closing => Err(Error::Closed),
            (None, Some(reason)) => Err(Error::NotSaved(reason.clone())),
            (None, None) => Ok(()),
        }
    }

    /// What waits, for the metrics.
    pub(crate) fn queues(&self, now: Instant) -> Queues {
        let unsaved = self.unsaved();
        let oldest = self.saving.as_ref().map_or(self.next.since, |saving| saving.oldest).filter(|_| unsaved > 0);
        let age = |since: Option<Instant>| since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let (unsaved_age, unshown_age) = (age(oldest), age(self.counters.unshown_since()));
        Queues { unsaved, unsaved_age, unshown_age, not_saved: self.not_saved }
    }

    /// Takes all that is to be told and shown, if there is anything.
    pub(crate) fn take_work(&mut self) -> Work {
        let (news, mark) = self.counters.take_news();
        Work { answers: std::mem::take(&mut self.answers), news, mark }
    }

    pub(crate) fn has_work(&self) -> bool {
        !self.all_shown() || self.ends_now()
    }

    /// Notes what has been shown. Where that is the last there will be, returns those who are to be told of the end.
    pub(crate) fn set_shown(&mut self, mark: u64) -> Vec<Arc<Audience>> {
        self.counters.set_shown(mark);
        if !self.ends_now() {
            return Vec::new();
        }
        self.over = true;
        self.counters.audiences()
    }

    pub(crate) fn all_shown(&self) -> bool {
        self.counters.is_shown(self.counters.mark())
    }

    /// Whether all has been shown that ever will be, and that has not been noted yet.
    fn ends_now(&self) -> bool {
        self.saver_ended && self.all_shown() && !self.over
    }

    /// Notes that no batch is being saved any more, and what has been saved.
    pub(crate) fn end_saving(&mut self, mut steps: Vec<Step>) -> Option<Saving> {
        if !self.by_others.is_empty() {
            steps.append(&mut self.by_others);
            steps.sort_by_key(|step| step.count.version);
        }
        self.show(steps);
        self.saving.take()
    }

    fn show(&mut self, steps: Vec<Step>) {
        for Step { post, count, likes, minds } in steps {
            self.counters.raise(&post, count, likes, minds);
        }
    }

    /// Tells those who wait for these results; those who do not wait are told by the broadcaster.
    pub(crate) fn settle(&mut self, results: Arc<Results>, saved: Result<Vec<Saved>, Refusal>) {
        results.settle(saved);
        self.will_settle(&results);
    }

    /// Has the broadcaster tell those who do not wait for these results.
    pub(crate) fn will_settle(&mut self, results: &Arc<Results>) {
        if results.has_answers() {
            self.answers.push(results.clone());
            self.counters.note_answers();
        }
    }

    /// Takes the likes that somebody waits for out of a batch, and tells those who do.
    pub(crate) fn refuse(&mut self, batch: &mut Batch, refusal: &Refusal) {
        let results = batch.take_awaited(|post, likes| {
            self.not_saved += likes;
            self.counters.forget(post, likes);
        });
        self.settle(results, Err(refusal.clone()));
    }

    /// Takes the likes that somebody waits for out of the batch that gathers.
    pub(crate) fn refuse_gathering(&mut self, refusal: &Refusal) {
        let mut next = std::mem::take(&mut self.next);
        self.refuse(&mut next, refusal);
        self.next = next;
    }
}

impl Core {
    /// Puts a change on the next batch. `noted` is told of its place there.
    pub(crate) fn accept<T>(
        &self,
        post: &Post,
        kind: ChangeKind,
        noted: impl FnOnce(&mut Batch, usize) -> T,
    ) -> Result<T> {
        let mut state = lock(&self.state);
        state.health()?;
        // Whether any other change raises the count, the store finds out.
        let most =
            matches!(kind, ChangeKind::Likes(_)).then_some(if self.reader.is_some() { LARGEST } else { u64::MAX });
        if !state.counters.expect(post, most) {
            return Err(Error::Full);
        }
        let first = state.next.is_empty();
        let place = state.next.add(post, kind);
        let noted = noted(&mut state.next, place);
        // Whoever is woken needs the lock: woken before it is free, the saver would only wait again.
        drop(state);
        if first {
            self.work.notify_one();
        }
        Ok(noted)
    }

    /// Returns the handle of a counter, whose count is read from the store if it is not known.
    pub(crate) fn hold(self: &Arc<Self>, post: Post) -> Result<Arc<InUse>> {
        self.hold_if_known(post, |counters, post| counters.get(post).is_some())
    }

    /// The same for changes alone: the count is only read to learn whether the post is new.
    pub(crate) fn hold_to_change(self: &Arc<Self>, post: Post) -> Result<Arc<InUse>> {
        self.hold_if_known(post, |counters, post| counters.has_been_liked(post) || counters.get(post).is_some())
    }

    fn hold_if_known(
        self: &Arc<Self>,
        post: Post,
        is_known: impl FnOnce(&Counters, &Post) -> bool,
    ) -> Result<Arc<InUse>> {
        let make = |audience| InUse { post: post.clone(), audience, core: self.clone() };
        let mut state = lock(&self.state);
        let handle = state.counters.hold(&post, make);
        let known = is_known(&state.counters, &post);
        drop(state);
        if !known {
            let count = self.read(&[(post.clone(), None)])?[0].0;
            lock(&self.state).counters.know(&post, count);
        }
        Ok(handle)
    }

    /// Notes that the last handle of a counter is gone.
    pub(crate) fn release(&self, post: &Post) {
        lock(&self.state).counters.remove_unused(post);
    }

    /// Reads counts from the store, all as they were at one moment.
    pub(crate) fn read(&self, posts: &[(Post, Option<VisitorKey>)]) -> Result<Vec<(Count, Option<bool>)>> {
        let read = self.reader()?.read(posts)?;
        if read.len() == posts.len() {
            Ok(read)
        } else {
            Err(Error::NotRead("the store told too few counts".to_owned()))
        }
    }

    pub(crate) fn reader(&self) -> Result<&dyn Reader> {
        self.reader.as_deref().ok_or(Error::OneCounter)
    }

    /// The count of a counter in use, if it is known.
    pub(crate) fn count(&self, post: &Post) -> Option<Count> {
        lock(&self.state).counters.get(post)
    }

    /// Shows a counter to a client: the count as it is, and each round from now on. On behalf of a visitor, whether
    /// that visitor likes the post, too.
    pub(crate) fn join(
        &self,
        counter: &Arc<InUse>,
        outbox: &Arc<Outbox>,
        visitor: Option<VisitorKey>,
    ) -> Result<Registration> {
        let post = &counter.post;
        let slot = outbox.open(post.clone(), visitor);
        let place = counter.audience.join(outbox.clone(), slot);
        let registration = Registration { counter: counter.clone(), place };
        let (count, liked) = match visitor {
            Some(_) => self.read(&[(post.clone(), visitor)])?[0],
            None => (self.count(post).unwrap_or_default(), None),
        };
        let sent = outbox.begin(slot, count, liked);
        self.metrics.frames(sent.frames);
        if sent.fell_behind {
            self.look_after(outbox.clone());
        }
        Ok(registration)
    }

    /// Sees to it that a client that has fallen behind is tried again.
    pub(crate) fn look_after(&self, outbox: Arc<Outbox>) {
        self.behind.add(outbox);
        // Under the lock, so that the broadcaster is either before its look at the list or waiting.
        let _state = lock(&self.state);
        self.saved.notify_one();
    }

    /// Waits until all that is saved by now has been shown; no longer than until `deadline`.
    pub(crate) fn wait_until_shown(&self, deadline: Instant) {
        let state = lock(&self.state);
        let mark = state.counters.mark();
        drop(self.wait_until(state, deadline, |state| state.counters.is_shown(mark)));
    }

    /// Calls the hook when the ledger has stopped for good, at once if it has; as long as somebody holds the hook.
    pub(crate) fn when_stopped(&self, hook: &Arc<Hook>) {
        let mut state = lock(&self.state);
        if state.stopped.is_none() {
            state.when_stopped.retain(|other| other.strong_count() > 0);
            return state.when_stopped.push(Arc::downgrade(hook));
        }
        drop(state);
        hook();
    }

    /// Notes that nothing more is saved, and tells those who wait for something that is not.
    pub(crate) fn saver_ended(&self, stopped: Option<String>) {
        let mut state = lock(&self.state);
        let (saving, next) = match &stopped {
            Some(reason) => (Refusal::Stopped(reason.clone()), Refusal::Stopped(reason.clone())),
            None => (Refusal::Unknown(CLOSED.to_owned()), Refusal::NotSaved(CLOSED.to_owned())),
        };
        if let Some(unsaved) = state.end_saving(Vec::new()) {
            state.settle(unsaved.results, Err(saving));
        }
        let number = state.next.number + 1;
        let unsaved = std::mem::replace(&mut state.next, Batch::new(number));
        state.settle(unsaved.results, Err(next));
        state.saver_ended = true;
        if stopped.is_some() {
            (state.stopped, state.fault) = (stopped, None);
        }
        let told = if state.stopped.is_some() { std::mem::take(&mut state.when_stopped) } else { Vec::new() };
        self.saved.notify_one();
        self.tell_progress(&state);
        drop(state);
        told.iter().filter_map(Weak::upgrade).for_each(|then| then());
    }

    /// Notes that the batch that is being saved has taken too long, if it has, and tells those who wait. Returns when
    /// it is to be looked at again, and whether this was the moment and no fault was known before.
    pub(crate) fn look_at_save(&self, state: &mut State, now: Instant) -> (Option<Instant>, bool) {
        let Some(saving) = state.saving.as_mut().filter(|saving| !saving.late) else { return (None, false) };
        let due = saving.since + SAVE_WITHIN;
        if now < due {
            return (Some(due), false);
        }
        saving.late = true;
        let problem = format!("a save has not finished within {} s", SAVE_WITHIN.as_secs());
        let results = saving.results.clone();
        state.settle(results, Err(Refusal::Unknown(problem.clone())));
        state.refuse_gathering(&Refusal::NotSaved(problem.clone()));
        let is_new = state.fault.is_none();
        state.fault.get_or_insert(problem);
        self.tell_progress(state);
        (None, is_new)
    }

    /// Whether the counts that are shown are all there is, and likes are taken and saved.
    pub(crate) fn health(&self) -> Result<()> {
        let state = lock(&self.state);
        state.health()?;
        state.deaf.clone().map_or(Ok(()), |problem| Err(Error::NotRead(problem)))
    }

    fn changed_by_others(&self, mut steps: Vec<Step>) {
        let mut state = lock(&self.state);
        if state.saving.is_none() {
            state.show(steps);
            return self.saved.notify_one();
        }
        state.by_others.append(&mut steps);
        if state.by_others.len() > MOST_HELD {
            let steps = std::mem::take(&mut state.by_others);
            state.show(steps);
            self.saved.notify_one();
        }
    }

    /// Waits until every like that was taken before the call is saved.
    pub(crate) fn flush(&self, within: Duration) -> Result<()> {
        let state = lock(&self.state);
        let saving = state.saving.as_ref().map_or(state.finished, |saving| saving.number);
        let last = if state.next.is_empty() { saving } else { state.next.number };
        // Where all that gathered was refused, no batch of that number is ever finished.
        let is_saved =
            |state: &State| state.finished >= last || state.next.is_empty() && state.finished + 1 >= state.next.number;
        let state = self.wait_until(state, due_in(within), |state| is_saved(state) || state.saver_ended);
        match &state.stopped {
            Some(reason) => Err(Error::Stopped(reason.clone())),
            None if is_saved(&state) => Ok(()),
            None => Err(Error::NotSaved(state.not_saved(state.unsaved(), "are not saved yet"))),
        }
    }

    /// Takes no further likes, saves and shows those there are.
    pub(crate) fn close(&self, within: Duration) -> Result<()> {
        let mut state = lock(&self.state);
        state.closing = true;
        self.work.notify_one();
        self.saved.notify_one();
        let over = |state: &State| state.saver_ended && state.all_shown();
        let mut state = self.wait_until(state, due_in(within), over);
        if let Some(reason) = &state.stopped {
            return Err(Error::Stopped(reason.clone()));
        }
        if state.saver_ended {
            return Ok(());
        }
        // The saver looks at this before each call of the store, so that what is given up is not saved after all.
        state.abandoned = true;
        self.work.notify_one();
        let (called, unsaved) = (state.saving.as_ref().is_some_and(|saving| saving.called), state.unsaved());
        state.refuse_gathering(&Refusal::NotSaved(CLOSED.to_owned()));
        self.saved.notify_one();
        if called {
            Err(Error::Unknown(state.not_saved(unsaved, "may be saved or not")))
        } else {
            Err(Error::NotSaved(state.not_saved(unsaved, "were given up")))
        }
    }

    /// Closes the ledger when nobody has a handle any more. Waits a moment for likes that are being saved, and not at
    /// all where they cannot be.
    fn let_go(&self) {
        let mut state = lock(&self.state);
        (state.closing, state.released) = (true, true);
        self.work.notify_one();
        self.saved.notify_one();
        let hopeless = |state: &State| state.saver_ended || state.abandoned || state.fault.is_some();
        let mut state = self.wait_until(state, due_in(DROP_WITHIN), hopeless);
        if state.saver_ended || state.abandoned {
            return;
        }
        state.abandoned = true;
        self.work.notify_one();
        let unsaved = state.unsaved();
        let problem = state.not_saved(unsaved, "were given up");
        drop(state);
        if unsaved > 0 {
            log::error!("{problem}");
        }
    }

    /// Wakes those who wait for progress, which is a system call even where nobody does.
    pub(crate) fn tell_progress(&self, state: &State) {
        if state.waiting > 0 {
            self.progress.notify_all();
        }
    }

    fn wait_until<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        deadline: Instant,
        over: impl Fn(&State) -> bool,
    ) -> MutexGuard<'a, State> {
        while !over(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state.waiting += 1;
            state = wait_for(&self.progress, &self.state, state, left);
            state.waiting -= 1;
        }
        state
    }
}

/// The ledger, as the store tells it of others.
struct Fed(Weak<Core>);

#[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "what only several servers need"))]
impl Follower for Fed {
    fn changed(&self, steps: Vec<Step>) {
        if let Some(core) = self.0.upgrade() {
            core.changed_by_others(steps);
        }
    }

    fn watched(&self) -> Vec<(Post, Count, Vec<VisitorKey>)> {
        let Some(core) = self.0.upgrade() else { return Vec::new() };
        let watched = lock(&core.state).counters.watched();
        watched.into_iter().map(|(post, count, audience)| (post, count, audience.visitors())).collect()
    }

    fn lost(&self, problem: Option<String>) {
        if let Some(core) = self.0.upgrade() {
            lock(&core.state).deaf = problem;
        }
    }

    fn measure(&self, remote: std::sync::Arc<Remote>) {
        if let Some(core) = self.0.upgrade() {
            core.metrics.measure(remote);
        }
    }
}

impl State {
    fn not_saved(&self, likes: u64, became: &str) -> String {
        let reason = self.fault.as_deref().unwrap_or("there was no time left");
        format!("{likes} likes {became}: {reason}")
    }
}

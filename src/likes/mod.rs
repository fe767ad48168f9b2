//! Likes: the counter and those who are shown it.
//!
//! [`ledger`] takes likes, [`saver`] has them saved, [`broadcaster`] shows them: each [`round`] to an [`audience`],
//! through each client's [`outbox`] or a [`subscription`]'s queue. Knows no protocol but the frames of a count.

pub(crate) mod audience;
mod batch;
pub(crate) mod behind;
mod broadcaster;
mod counters;
pub(crate) mod dialect;
mod ledger;
pub(crate) mod outbox;
mod posts;
pub(crate) mod round;
mod saver;
pub(crate) mod subscription;
pub(crate) mod sync;

pub(crate) use ledger::Hook;
pub use posts::Posts;

use crate::{
    error::{Error, Result},
    likes::{
        audience::Audience,
        batch::Batch,
        ledger::{Core, Ledger},
        outbox::Outbox,
        subscription::Subscription,
        sync::{Arc, lock},
    },
    metrics::{Metrics, Queues},
    store::{
        Store,
        change::{ChangeKind, Count, Outcome, Post, Refused, VisitorKey},
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
    counter: Arc<InUse>,
    ledger: Ledger,
}

/// A counter that somebody has a handle of. All handles share this.
pub(crate) struct InUse {
    post: Post,
    audience: Arc<Audience>,
    core: Arc<Core>,
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.core.release(&self.post);
    }
}

/// A client's registration with one counter. Dropped, the client is shown nothing more of it.
pub(crate) struct Registration {
    counter: Arc<InUse>,
    place: usize,
}

impl Registration {
    pub(crate) fn post(&self) -> &Post {
        &self.counter.post
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.counter.audience.leave(self.place);
    }
}

/// What has become of a visitor's like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The count with it.
    pub count: Count,
    /// Whether the visitor likes the post.
    pub liked: bool,
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
        Self::of(Post::default(), Ledger::open(store)?)
    }

    fn of(post: Post, ledger: Ledger) -> Result<Self> {
        Ok(Self { counter: ledger.core().hold(post)?, ledger })
    }

    /// Adds one like and waits until it is saved, 5 s at most. Returns its number: the count with it and all before it.
    ///
    /// # Errors
    ///
    /// The like is not counted: [`Error::NotSaved`](crate::Error::NotSaved) where it cannot be saved just now,
    /// [`Error::Full`](crate::Error::Full), [`Error::Refused`](crate::Error::Refused),
    /// [`Error::Closed`](crate::Error::Closed). It is not known whether it will be counted:
    /// [`Error::Unknown`](crate::Error::Unknown) where saving takes longer than 5 s or has failed halfway,
    /// [`Error::Stopped`](crate::Error::Stopped) where the counter has stopped for good.
    pub fn like(&self) -> Result<u64> {
        self.change(ChangeKind::Likes(1)).map(|answer| answer.count.likes)
    }

    /// Adds one like without waiting until it is saved. It is saved as soon as likes can be saved, and shown then.
    ///
    /// # Errors
    ///
    /// As [`like`](Self::like), for what is known when the like arrives.
    pub fn like_without_waiting(&self) -> Result<()> {
        self.core().accept(&self.counter.post, ChangeKind::Likes(1), |_, _| ())
    }

    /// Notes that a visitor likes the post, or does not any more, and waits until that is saved. A visitor's like counts
    /// once, however often it is said.
    ///
    /// A visitor is 16 to 64 characters of `A-Z a-z 0-9 - _`, made at random on the visitor's side. `seq` is a number of
    /// this change that rises with each change of the visitor's mind: one that is not higher than the highest so far
    /// changes nothing, so that a like that was held up cannot land after the unlike that followed it.
    ///
    /// # Errors
    ///
    /// As [`like`](Self::like); [`Error::BadName`](crate::Error::BadName) where the visitor is not named so.
    pub fn set_liked(&self, visitor: &str, liked: bool, seq: Option<u64>) -> Result<Answer> {
        let visitor = VisitorKey::of(visitor, &self.counter.post).map_err(Error::BadName)?;
        self.change(ChangeKind::Visitor { visitor, liked, seq })
    }

    /// Has a change saved, and waits for that.
    pub(crate) fn change(&self, kind: ChangeKind) -> Result<Answer> {
        let asked = matches!(kind, ChangeKind::Likes(_) | ChangeKind::Visitor { liked: true, .. });
        let waiting = self.core().accept(&self.counter.post, kind, Batch::wait_for)?;
        answer_of(waiting.wait()?, asked)
    }

    /// Has a change saved, and the client told what becomes of it: `encode` makes the frame.
    pub(crate) fn submit(
        &self,
        kind: ChangeKind,
        client: &Arc<Outbox>,
        encode: impl FnOnce(Result<Answer>) -> Vec<u8> + Send + 'static,
    ) -> Result<()> {
        let asked = matches!(kind, ChangeKind::Likes(_) | ChangeKind::Visitor { liked: true, .. });
        // Not a handle, which the broadcaster must not be the last to have.
        let (core, client) = (Arc::downgrade(self.core()), client.clone());
        let then = Box::new(move |outcome: Result<Outcome>| {
            let Some(core) = core.upgrade() else { return };
            let frame = encode(outcome.and_then(|outcome| answer_of(outcome, asked)));
            if client.tell(&frame).fell_behind {
                core.look_after(client);
            }
        });
        self.core().accept(&self.counter.post, kind, |batch, place| batch.tell_of(place, then))
    }

    /// The number of likes saved.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.now().likes
    }

    /// The count as it is saved.
    pub(crate) fn now(&self) -> Count {
        self.core().count(&self.counter.post).unwrap_or_default()
    }

    /// Whether nobody has ever liked the post, nor is just about to.
    pub(crate) fn is_unliked(&self) -> bool {
        lock(&self.core().state).counters.is_unliked(&self.counter.post)
    }

    pub(crate) fn post(&self) -> &Post {
        &self.counter.post
    }

    /// The counts as they come, in this process.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        let subscription = Subscription::new(self.counter.clone(), || self.now());
        if lock(&self.core().state).over {
            subscription.close();
        }
        subscription
    }

    /// How many are shown the count: WebSocket clients, and subscribers in this process.
    #[must_use]
    pub fn watching(&self) -> usize {
        self.counter.audience.watching()
    }

    /// Whether likes are taken and saved, and those that other servers save are heard of.
    ///
    /// # Errors
    ///
    /// What [`like`](Self::like) would say: [`Error::NotSaved`](crate::Error::NotSaved),
    /// [`Error::Stopped`](crate::Error::Stopped) or [`Error::Closed`](crate::Error::Closed).
    pub fn health(&self) -> Result<()> {
        self.core().health()
    }

    /// Whether the store has been saving for more than 5 s, and may never come back: for a watchdog. A save that fails
    /// is tried again, and does not count as one that hangs.
    #[must_use]
    pub fn hangs(&self) -> bool {
        lock(&self.core().state).saving.as_ref().is_some_and(|saving| saving.called && saving.late)
    }

    /// Waits until every like that was taken before the call is saved, and returns the count.
    ///
    /// # Errors
    ///
    /// [`Error::NotSaved`](crate::Error::NotSaved) where that takes longer than `within`; the likes are kept, and
    /// saved when that is possible. [`Error::Stopped`](crate::Error::Stopped) where the counter has stopped for good.
    pub fn flush(&self, within: Duration) -> Result<u64> {
        self.core().flush(within)?;
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
        self.core().close(within)?;
        Ok(self.count())
    }

    /// Lets a client in: shows it the count as it is, and each round from now on, until the registration is dropped. On
    /// behalf of a visitor, whether that visitor likes the post, too.
    pub(crate) fn join(&self, outbox: &Arc<Outbox>, visitor: Option<VisitorKey>) -> Result<Registration> {
        self.core().join(&self.counter, outbox, visitor)
    }

    /// Waits until all that is saved by now has been shown; no longer than until `deadline`.
    pub(crate) fn wait_until_shown(&self, deadline: Instant) {
        self.core().wait_until_shown(deadline);
    }

    /// Has a client [that fell behind](crate::likes::outbox::Sent::fell_behind) tried again.
    pub(crate) fn look_after(&self, outbox: Arc<Outbox>) {
        self.core().look_after(outbox);
    }

    /// Calls the hook when the counter has stopped for good, at once if it has; as long as somebody holds the hook.
    pub(crate) fn when_stopped(&self, hook: &Arc<Hook>) {
        self.core().when_stopped(hook);
    }

    /// How many clients have not been sent all there is.
    pub(crate) fn behind(&self) -> usize {
        self.core().behind.len()
    }

    /// What waits, for the metrics.
    pub(crate) fn queues(&self) -> Queues {
        lock(&self.core().state).queues(Instant::now())
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.core().metrics
    }

    fn core(&self) -> &Arc<Core> {
        self.ledger.core()
    }
}

/// What has become of a change, where it was `asked` that the visitor like the post or not.
fn answer_of(outcome: Outcome, asked: bool) -> Result<Answer> {
    match outcome {
        Outcome::Applied(count) => Ok(Answer { count, liked: asked }),
        Outcome::Unchanged { count, liked } => Ok(Answer { count, liked }),
        Outcome::Refused(Refused::Likes) => Err(Error::Full),
        Outcome::Refused(refused) => Err(Error::Refused(refused)),
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
    use crate::{
        likes::{
            dialect::Dialect,
            outbox::tests::{Pipe, Scripted},
        },
        store::change::{BatchId, Change},
    };
    use std::{io, sync::mpsc};

    /// A counter in memory.
    #[derive(Default)]
    pub(crate) struct Memory {
        likes: u64,
        /// It does not know what it holds.
        breaks: bool,
    }

    impl Store for Memory {
        fn count(&mut self, _: &Post) -> Result<Count> {
            Ok(Count { likes: self.likes, version: self.likes })
        }

        fn apply(&mut self, _: BatchId, changes: &[Change]) -> Result<Vec<Outcome>> {
            if self.breaks {
                return Err(Error::Stopped("as planned".to_owned()));
            }
            let apply = |change: &Change| {
                self.likes += change.likes();
                Outcome::Applied(Count { likes: self.likes, version: self.likes })
            };
            Ok(changes.iter().map(apply).collect())
        }
    }

    /// A client that takes nothing for now.
    fn stuck_client(likes: &Likes) -> (Arc<Pipe>, Arc<Outbox>, Registration) {
        let pipe = Pipe::new(0);
        let outbox = Arc::new(Outbox::new(pipe.clone(), Duration::MAX, Dialect::Bare, None));
        let registration = likes.join(&outbox, None).unwrap();
        (pipe, outbox, registration)
    }

    fn until_it_takes(pipe: &Pipe, last: &str) {
        pipe.make_room(1000);
        let deadline = Instant::now() + Duration::from_secs(60);
        while pipe.frames().last().is_none_or(|frame| !frame.ends_with(last)) {
            assert!(Instant::now() < deadline, "{last} was to come: {:?}", pipe.frames());
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_client_that_is_behind_when_the_counter_is_closed_is_shown_the_final_count_later() {
        let likes = Likes::with_store(Memory::default()).unwrap();
        let (pipe, ..) = stuck_client(&likes);
        let (pipe_that_stays, _outbox, _registration) = stuck_client(&likes);
        likes.like().unwrap();
        assert_eq!(likes.close(Duration::MAX).unwrap(), 1);
        until_it_takes(&pipe_that_stays, "1");
        assert!(pipe.frames().is_empty(), "one that has left is shown nothing");
    }

    /// A wire that tells of a send, takes its time over it, and tells of its end.
    struct Slow(mpsc::Sender<&'static str>);

    impl Scripted for Slow {
        fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send("begun").unwrap();
            std::thread::park_timeout(Duration::from_millis(200));
            self.0.send("sent").unwrap();
            Ok(bytes.len())
        }

        fn shut_down(&self) {}
    }

    #[test]
    fn all_is_shown_when_the_answers_are_given_too() {
        // It stops for good, so that nothing changes that would be shown.
        let likes = Likes::with_store(Memory { breaks: true, ..Memory::default() }).unwrap();
        let (tell, told) = mpsc::channel();
        let client = Arc::new(Outbox::new(Arc::new(Slow(tell)), Duration::MAX, Dialect::Json, None));
        likes.submit(ChangeKind::Likes(1), &client, |_| b"\x81\x02no".to_vec()).unwrap();
        assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok("begun"));
        likes.wait_until_shown(Instant::now() + Duration::from_secs(60));
        assert_eq!(told.try_recv(), Ok("sent"));
    }

    #[test]
    fn a_client_that_is_behind_when_the_counter_stops_for_good_gets_its_close_frame_later() {
        let likes = Likes::with_store(Memory { breaks: true, ..Memory::default() }).unwrap();
        let (pipe, outbox, _registration) = stuck_client(&likes);
        assert!(matches!(likes.like(), Err(Error::Stopped(_))));
        assert!(!outbox.close(Some(1001), "over").fell_behind, "it is looked after already");
        until_it_takes(&pipe, "over");
    }
}

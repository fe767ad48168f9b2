//! A database of many posts in memory: durable at once, slow to say so, and failing at random as often as it may. It
//! knows every count that there has been, and what was promised of it, so that both can be held against what it keeps.

use crate::{
    error::{Error, Result},
    likes::{
        Answer,
        sync::{self, thread},
    },
    store::{
        Feed, Reader, Store,
        change::{BatchId, Change, ChangeKind, Count, Outcome, Post, VisitorKey},
    },
};
use shuttle::rand::{Rng, thread_rng};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard},
};

#[derive(Default)]
pub(crate) struct Database {
    /// Not the model's lock, so that a commit is one step.
    rows: Mutex<Rows>,
    feed: Mutex<Option<Feed>>,
    /// Whether a store is open.
    open: sync::Mutex<bool>,
    closed: sync::Condvar,
}

#[derive(Default)]
struct Rows {
    version: u64,
    posts: HashMap<Post, Row>,
    /// The batch that was applied last, and what became of it.
    last: Option<(BatchId, Vec<Outcome>)>,
    /// Every count there has been: version, post, likes.
    history: BTreeMap<u64, (Post, u64)>,
    /// No save works.
    full: bool,
    /// How many more saves, and how many more reads, may fail.
    faults: usize,
    failing_reads: usize,
    promised: Promised,
    broken: Vec<String>,
}

#[derive(Default)]
struct Row {
    version: u64,
    anonymous: u64,
    visitors: HashMap<VisitorKey, Mind>,
}

#[derive(Clone, Copy, Default)]
struct Mind {
    liked: bool,
    seq: Option<u64>,
}

/// What was answered.
#[derive(Default)]
struct Promised {
    /// Of each post, the likes of nobody in particular that were answered, and those of which nothing is known.
    likes: HashMap<Post, (u64, u64)>,
    /// Of each post and visitor, the highest number that was answered, and what it asked for.
    highest: HashMap<(Post, VisitorKey), (u64, bool)>,
}

impl Row {
    fn count(&self) -> Count {
        let visitors = self.visitors.values().filter(|mind| mind.liked).count() as u64;
        Count { likes: self.anonymous + visitors, version: self.version }
    }
}

impl Rows {
    fn row(&mut self, post: &Post) -> &mut Row {
        self.posts.entry(post.clone()).or_default()
    }

    fn apply(&mut self, Change { post, kind }: &Change) -> Outcome {
        let version = self.version;
        let row = self.row(post);
        let versions = match *kind {
            ChangeKind::Likes(likes) => {
                row.anonymous += likes;
                likes
            }
            ChangeKind::Visitor { visitor, liked, seq } => {
                let was = row.visitors.get(&visitor).copied().unwrap_or_default();
                if seq.is_some() && seq <= was.seq || seq.is_none() && liked == was.liked {
                    return Outcome::Unchanged { count: row.count(), liked: was.liked };
                }
                row.visitors.insert(visitor, Mind { liked, seq: seq.or(was.seq) });
                if liked == was.liked {
                    return Outcome::Unchanged { count: row.count(), liked };
                }
                1
            }
            ChangeKind::Set(_) | ChangeKind::Delete => unreachable!("no scenario has it"),
        };
        row.version = version + versions;
        let count = row.count();
        for left in 0..versions {
            self.history.insert(count.version - left, (post.clone(), count.likes - left));
        }
        self.version = count.version;
        Outcome::Applied(count)
    }

    fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.broken.push(what());
        }
    }

    /// Whether the post has had this count.
    fn has_been(&self, post: &Post, count: Count) -> bool {
        count == Count::default() || self.history.get(&count.version) == Some(&(post.clone(), count.likes))
    }
}

impl Database {
    /// A database of which so many saves may fail, and so many reads.
    pub(crate) fn new(faults: usize, failing_reads: usize) -> Arc<Self> {
        let rows = Mutex::new(Rows { faults, failing_reads, ..Rows::default() });
        Arc::new(Self { rows, ..Self::default() })
    }

    /// Has every save fail from now on, or none.
    pub(crate) fn set_full(&self, full: bool) {
        self.rows().full = full;
    }

    pub(crate) fn store(self: &Arc<Self>, shared: bool) -> Table {
        *sync::lock(&self.open) = true;
        Table { database: self.clone(), shared }
    }

    /// Waits until the store is closed.
    pub(crate) fn wait_until_closed(&self) {
        let mut open = sync::lock(&self.open);
        while *open {
            open = sync::wait(&self.closed, open);
        }
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap()
    }

    pub(crate) fn count(&self, post: &Post) -> Count {
        self.rows().row(post).count()
    }

    pub(crate) fn likes(&self, post: &Post, visitor: VisitorKey) -> bool {
        self.rows().row(post).visitors.get(&visitor).is_some_and(|mind| mind.liked)
    }

    /// The versions that the post has had, but for the first `after` of the database.
    pub(crate) fn versions(&self, post: &Post, after: u64) -> Vec<u64> {
        let rows = self.rows();
        let later = rows.history.range(after + 1..);
        later.filter(|(_, (other, _))| other == post).map(|(version, _)| *version).collect()
    }

    /// Another server likes the post, and this one is told some time later.
    pub(crate) fn like_elsewhere(&self, post: &Post) {
        let change = Change { post: post.clone(), kind: ChangeKind::Likes(1) };
        let Outcome::Applied(count) = self.rows().apply(&change) else { unreachable!("a like is applied") };
        self.rows().promised.likes.entry(post.clone()).or_default().0 += 1;
        thread::yield_now();
        let feed = self.feed.lock().unwrap().clone();
        feed.expect("it is followed").changed(post, count);
    }

    /// Notes what is being told of a count, which must be durable by now.
    pub(crate) fn shows(&self, post: &Post, count: Count) {
        let mut rows = self.rows();
        let has_been = rows.has_been(post, count);
        rows.check(has_been, || format!("{post:?} was shown {count:?}, which it never had"));
    }

    /// Notes an answer to a change. It must be true already, and stay so.
    pub(crate) fn promises(&self, post: &Post, kind: &ChangeKind, answer: &Result<Answer>) {
        let mut rows = self.rows();
        if let Ok(Answer { count, .. }) = *answer {
            let has_been = rows.has_been(post, count);
            rows.check(has_been, || format!("{kind:?} of {post:?} was answered {count:?}, which it never had"));
        }
        match (kind, answer) {
            (_, Err(Error::NotSaved(_) | Error::Closed)) => {}
            (ChangeKind::Likes(_), Ok(_)) => rows.promised.likes.entry(post.clone()).or_default().0 += 1,
            (ChangeKind::Likes(_), Err(Error::Unknown(_))) => {
                rows.promised.likes.entry(post.clone()).or_default().1 += 1;
            }
            (&ChangeKind::Visitor { visitor, liked, seq: Some(seq) }, Ok(_)) => {
                let kept = rows.row(post).visitors.get(&visitor).copied().unwrap_or_default();
                rows.check(kept.seq >= Some(seq), || {
                    format!("number {seq} of {post:?} was answered before it is kept")
                });
                let highest = rows.promised.highest.entry((post.clone(), visitor)).or_default();
                *highest = (*highest).max((seq, liked));
            }
            (ChangeKind::Visitor { .. }, Ok(_) | Err(Error::Unknown(_))) => {}
            (_, answer) => rows.broken.push(format!("{kind:?} of {post:?} was answered {answer:?}")),
        }
    }

    /// Asserts that everything that was answered is so, and that no like is counted twice.
    #[track_caller]
    pub(crate) fn keeps_its_promises(&self) {
        let mut rows = self.rows();
        let Promised { likes, highest } = std::mem::take(&mut rows.promised);
        assert_eq!(rows.broken, Vec::<String>::new());
        for (post, row) in &rows.posts {
            let (answered, unknown) = likes.get(post).copied().unwrap_or_default();
            let kept = row.anonymous;
            assert!(
                (answered..=answered + unknown).contains(&kept),
                "{post:?}: {answered} likes were answered, of {unknown} nothing is known, and {kept} are kept"
            );
        }
        for ((post, visitor), (seq, liked)) in highest {
            let kept = rows.row(&post).visitors[&visitor];
            assert!(
                kept.seq > Some(seq) || kept.seq == Some(seq) && kept.liked == liked,
                "{post:?}: number {seq} was answered last, for liked {liked}, and {:?} is kept for {}",
                kept.seq,
                kept.liked
            );
        }
    }
}

/// The store that keeps its counts in the database.
pub(crate) struct Table {
    database: Arc<Database>,
    /// Others change the counts too.
    shared: bool,
}

/// How a save fails.
#[derive(Clone, Copy)]
enum Fault {
    NotSaved,
    /// It is not known whether it was applied: it was not, or it was.
    Lost,
    Applied,
}

impl Table {
    fn fault(&self) -> Option<Fault> {
        let mut rows = self.database.rows();
        if rows.full {
            return Some(Fault::NotSaved);
        }
        let fault = [None, Some(Fault::NotSaved), Some(Fault::Lost), Some(Fault::Applied)];
        let fault = if rows.faults > 0 { fault[thread_rng().gen_range(0..fault.len())] } else { None };
        rows.faults -= usize::from(fault.is_some());
        fault
    }

    fn commit(&self, batch: BatchId, changes: &[Change]) -> Vec<Outcome> {
        let mut rows = self.database.rows();
        if let Some((_, outcomes)) = rows.last.as_ref().filter(|(last, _)| *last == batch) {
            return outcomes.clone();
        }
        let outcomes: Vec<_> = changes.iter().map(|change| rows.apply(change)).collect();
        rows.last = Some((batch, outcomes.clone()));
        outcomes
    }
}

impl Store for Table {
    fn count(&mut self, post: &Post) -> Result<Count> {
        Ok(self.database.count(post))
    }

    fn apply(&mut self, batch: BatchId, changes: &[Change]) -> Result<Vec<Outcome>> {
        thread::yield_now();
        let fault = self.fault();
        match fault {
            Some(Fault::NotSaved) => return Err(Error::NotSaved("as planned".into())),
            Some(Fault::Lost) => return Err(Error::Unknown("as planned".into())),
            Some(Fault::Applied) | None => {}
        }
        let outcomes = self.commit(batch, changes);
        // It is durable, and nobody knows yet but who reads it.
        thread::yield_now();
        if fault.is_some() { Err(Error::Unknown("as planned".into())) } else { Ok(outcomes) }
    }

    fn reader(&self) -> Option<Arc<dyn Reader>> {
        Some(Arc::new(TableReader(self.database.clone())))
    }

    fn remembers_visitors(&self) -> bool {
        true
    }

    fn is_shared(&self) -> bool {
        self.shared
    }

    fn follow(&mut self, feed: Feed) {
        *self.database.feed.lock().unwrap() = Some(feed);
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        *sync::lock(&self.database.open) = false;
        self.database.closed.notify_all();
    }
}

struct TableReader(Arc<Database>);

impl Reader for TableReader {
    fn read(&self, posts: &[(Post, Option<VisitorKey>)]) -> Result<Vec<(Count, Option<bool>)>> {
        thread::yield_now();
        let mut rows = self.0.rows();
        if rows.failing_reads > 0 && thread_rng().gen_range(0..2) == 0 {
            rows.failing_reads -= 1;
            return Err(Error::NotRead("as planned".into()));
        }
        let mut read = |(post, visitor): &(Post, Option<VisitorKey>)| {
            let row = rows.row(post);
            let liked = |key| row.visitors.get(&key).is_some_and(|mind| mind.liked);
            (row.count(), visitor.map(liked))
        };
        let read = posts.iter().map(&mut read).collect();
        drop(rows);
        // It is old by the time it is used.
        thread::yield_now();
        Ok(read)
    }

    fn top(&self, _: usize) -> Result<Vec<(Post, Count)>> {
        unreachable!("no scenario asks for it")
    }
}

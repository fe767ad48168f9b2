//! A store in memory that does what the test says.

#![allow(dead_code, reason = "each test file uses a part")]

use live_likes::{
    BatchId, Change, ChangeKind, Count, Error, Feed, Likes, Outcome, Post, Posts, Reader, Result, Store, VisitorKey,
};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

/// Nobody should ever wait this long.
const LONG: Duration = Duration::from_secs(60);

/// A store in memory: the test says what becomes of each save of so many likes.
pub struct Memory<F> {
    kept: Arc<Mutex<Kept>>,
    save: F,
    /// The batch whose outcome the store does not know: it must come again, as it was, before any other. And what has
    /// become of it, if it is saved.
    unknown: Option<(BatchId, Vec<Change>, Option<Vec<Outcome>>)>,
    feed: Option<Sender<Feed>>,
    /// It keeps many posts, and remembers visitors.
    reader: Option<Arc<Reading>>,
}

/// A store of one counter that has a closure say how each save ends.
pub fn memory<F: FnMut(u64) -> Ending + Send + 'static>(total: u64, save: F) -> Memory<F> {
    let mut kept = Kept { version: total, ..Kept::default() };
    kept.posts.insert(Post::default(), KeptPost { likes: total, version: total, ..KeptPost::default() });
    Memory { kept: Arc::new(Mutex::new(kept)), save, unknown: None, feed: None, reader: None }
}

/// The same of many posts and their visitors.
pub fn memory_of_many<F: FnMut(u64) -> Ending + Send + 'static>(save: F) -> Memory<F> {
    let mut store = memory(0, save);
    store.reader = Some(Arc::new(Reading { kept: store.kept.clone(), ..Reading::default() }));
    store
}

impl<F> Memory<F> {
    /// What readers see of a store of many posts.
    pub fn reading(&self) -> Arc<Reading> {
        self.reader.clone().expect("a store of many posts")
    }
}

/// How a save ends.
pub enum Ending {
    Saved,
    /// It is saved, and readers see it; but it goes on until the test ends it once more.
    Written,
    NotSaved,
    /// It is not saved, for this reason.
    NotSavedSince(&'static str),
    /// The store does not know whether it is saved.
    Unknown,
    Stopped,
    Panic,
    /// The store says this.
    Told(Vec<Count>),
    /// The store says this of each change.
    Each(Outcome),
}

impl<F: FnMut(u64) -> Ending + Send + 'static> Store for Memory<F> {
    fn count(&mut self, post: &Post) -> Result<Count> {
        Ok(self.kept.lock().unwrap().read(post, None).0)
    }

    fn reader(&self) -> Option<Arc<dyn Reader>> {
        self.reader.clone().map(|reader| reader as Arc<dyn Reader>)
    }

    fn remembers_visitors(&self) -> bool {
        self.reader.is_some()
    }

    fn is_shared(&self) -> bool {
        self.feed.is_some()
    }

    fn follow(&mut self, feed: Feed) {
        if let Some(given) = &self.feed {
            given.send(feed).unwrap();
        }
    }

    fn apply(&mut self, batch: BatchId, changes: &[Change]) -> Result<Vec<Outcome>> {
        let likes = changes.iter().map(likes_of).sum();
        let mut written = self.unknown.take().and_then(|unknown| {
            assert_eq!((unknown.0, &unknown.1[..]), (batch, changes), "the same batch under the same number");
            unknown.2
        });
        loop {
            let ending = (self.save)(likes);
            let mut write = || written.take().unwrap_or_else(|| self.kept.lock().unwrap().apply(changes));
            return match ending {
                Ending::Saved => Ok(write()),
                Ending::Written => {
                    written = Some(write());
                    continue;
                }
                Ending::Unknown => {
                    self.unknown = Some((batch, changes.to_vec(), written));
                    Err(Error::Unknown("the disk is silent".to_owned()))
                }
                Ending::Told(counts) => Ok(counts.into_iter().map(Outcome::Applied).collect()),
                Ending::Each(outcome) => Ok(vec![outcome; changes.len()]),
                Ending::NotSaved => Err(Error::NotSaved("the disk is full".to_owned())),
                Ending::NotSavedSince(reason) => Err(Error::NotSaved(reason.to_owned())),
                Ending::Stopped => Err(Error::Stopped("the disk is lost".to_owned())),
                Ending::Panic => panic!("the store panics, as the test asks"),
            };
        }
    }
}

/// A counter whose store hands out its feed.
pub fn fed(total: u64) -> (Likes, Feed) {
    let (given, feed) = channel();
    let store = Memory { feed: Some(given), ..memory(total, |_| Ending::Saved) };
    let likes = Likes::with_store(store).unwrap();
    (likes, feed.recv().unwrap())
}

fn likes_of(change: &Change) -> u64 {
    match change.kind {
        ChangeKind::Likes(likes) => likes,
        _ => 1,
    }
}

/// What is saved.
#[derive(Default)]
struct Kept {
    version: u64,
    posts: HashMap<Post, KeptPost>,
}

#[derive(Default)]
struct KeptPost {
    likes: u64,
    version: u64,
    /// Whether each visitor likes it, and the highest number of a change.
    minds: HashMap<VisitorKey, (bool, Option<u64>)>,
}

impl Kept {
    fn read(&self, post: &Post, visitor: Option<VisitorKey>) -> (Count, Option<bool>) {
        let post = self.posts.get(post);
        let count = post.map_or_else(Count::default, |post| Count { likes: post.likes, version: post.version });
        (count, visitor.map(|visitor| post.and_then(|post| post.minds.get(&visitor)).is_some_and(|mind| mind.0)))
    }

    fn apply(&mut self, changes: &[Change]) -> Vec<Outcome> {
        changes.iter().map(|change| self.change(change)).collect()
    }

    fn change(&mut self, change: &Change) -> Outcome {
        let post = self.posts.entry(change.post.clone()).or_default();
        match change.kind {
            ChangeKind::Likes(likes) => post.likes += likes,
            ChangeKind::Visitor { visitor, liked, seq } => {
                let (was, highest) = post.minds.get(&visitor).copied().unwrap_or_default();
                let late = seq.is_some() && seq <= highest;
                if !late {
                    post.minds.insert(visitor, (liked, seq.or(highest)));
                }
                if late || liked == was {
                    return Outcome::Unchanged {
                        count: Count { likes: post.likes, version: post.version },
                        liked: was,
                    };
                }
                post.likes = if liked { post.likes + 1 } else { post.likes - 1 };
            }
            ChangeKind::Set(likes) => post.likes = likes,
            ChangeKind::Delete => {
                post.likes = 0;
                post.minds.values_mut().for_each(|mind| mind.0 = false);
            }
        }
        self.version += likes_of(change);
        post.version = self.version;
        Outcome::Applied(Count { likes: post.likes, version: post.version })
    }
}

/// Reads what is saved, unless the test holds it up or has it fail.
#[derive(Default)]
pub struct Reading {
    kept: Arc<Mutex<Kept>>,
    reads: AtomicUsize,
    /// Of the next reads: where to tell that it has begun, and from where it hears which state to read.
    held: Mutex<Vec<(Sender<()>, Receiver<Seen>)>>,
    /// Why reads fail.
    fails: Mutex<Option<&'static str>>,
}

impl Reading {
    /// From now on reads fail for this reason, or work.
    pub fn read_fails(&self, reason: Option<&'static str>) {
        *self.fails.lock().unwrap() = reason;
    }

    /// The posts that there are, by their names.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.kept.lock().unwrap().posts.keys().map(|post| post.name().to_owned()).collect();
        names.sort();
        names
    }

    fn works(&self) -> Result<()> {
        self.fails.lock().unwrap().map_or(Ok(()), |reason| Err(Error::NotRead(reason.to_owned())))
    }
}

impl Reader for Reading {
    fn read(&self, posts: &[(Post, Option<VisitorKey>)]) -> Result<Vec<(Count, Option<bool>)>> {
        let read = || {
            let kept = self.kept.lock().unwrap();
            posts.iter().map(|(post, visitor)| kept.read(post, *visitor)).collect()
        };
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.works()?;
        let held = self.held.lock().unwrap().pop();
        let Some((begun, go_on)) = held else { return Ok(read()) };
        let before = read();
        begun.send(()).unwrap();
        match go_on.recv_timeout(LONG) {
            Ok(Seen::Before) => Ok(before),
            Ok(Seen::Now) => Ok(read()),
            Err(_) => Err(Error::NotRead("the disk is away".to_owned())),
        }
    }

    fn top(&self, most: usize) -> Result<Vec<(Post, Count)>> {
        self.works()?;
        let kept = self.kept.lock().unwrap();
        let posts = kept.posts.iter().filter(|(post, kept)| **post != Post::default() && kept.likes > 0);
        let mut posts: Vec<_> = posts.map(|(post, _)| (post.clone(), kept.read(post, None).0)).collect();
        posts.sort_by_key(|(post, count)| (u64::MAX - count.likes, post.name().to_owned()));
        posts.truncate(most);
        Ok(posts)
    }
}

/// What a read that was held up sees.
enum Seen {
    Before,
    Now,
}

/// A read that is held up.
pub struct HeldRead {
    begun: Receiver<()>,
    go_on: Sender<Seen>,
}

impl HeldRead {
    /// Waits until it has begun.
    #[track_caller]
    pub fn has_begun(&self) {
        self.begun.recv_timeout(LONG).expect("a read should begin");
    }

    /// Lets it read what is saved by now.
    pub fn see_now(self) {
        self.go_on.send(Seen::Now).unwrap();
    }

    /// Lets it read what was saved when it began.
    pub fn see_before(self) {
        self.go_on.send(Seen::Before).unwrap();
    }

    pub fn fail(self) {}
}

/// The test's side of a store whose saves hang until the test ends them; and once the test is over, work.
pub struct Script {
    saves: Receiver<u64>,
    endings: Sender<Ending>,
    reader: Option<Arc<Reading>>,
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

    /// From now on all saves work, the one that hangs too.
    pub fn end_all(&mut self) {
        self.endings = channel().0;
    }

    /// Holds up the next read.
    pub fn hold_read(&self) -> HeldRead {
        let ((begun, has_begun), (go_on, let_go)) = (channel(), channel());
        self.reader().held.lock().unwrap().push((begun, let_go));
        HeldRead { begun: has_begun, go_on }
    }

    /// How often the store was read.
    pub fn reads(&self) -> usize {
        self.reader().reads.load(Ordering::SeqCst)
    }

    fn reader(&self) -> &Reading {
        self.reader.as_ref().expect("a store of many posts")
    }
}

/// A counter on such a store.
pub fn scripted(total: u64) -> (Likes, Script) {
    let (save, saves, endings) = asks();
    (Likes::with_store(memory(total, save)).unwrap(), Script { saves, endings, reader: None })
}

/// Many posts on such a store.
pub fn scripted_posts() -> (Posts, Script) {
    let (save, saves, endings) = asks();
    let store = memory_of_many(save);
    let reader = store.reader.clone();
    (Posts::with_store(store).unwrap(), Script { saves, endings, reader })
}

/// Asks the test how a save ends.
fn asks() -> (impl FnMut(u64) -> Ending + Send + 'static, Receiver<u64>, Sender<Ending>) {
    let ((saves, begun), (endings, ended)) = (channel(), channel());
    let save = move |likes| {
        let _ = saves.send(likes);
        ended.recv().unwrap_or(Ending::Saved)
    };
    (save, begun, endings)
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
            Some(&Outcome::Refused(refused)) => Err(Error::Refused(refused)),
            _ => Ok(self.total()),
        }
    }
}

impl<S: Store> OneCounter for S {}

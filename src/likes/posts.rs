//! Many posts: a handle of all counters of one store.

use crate::{
    error::{Error, Result},
    likes::{
        Answer, Likes,
        ledger::Ledger,
        sync::{Arc, lock},
    },
    store::{
        Store, StoreLimits,
        change::{ChangeKind, Count, Post, VisitorKey},
        open_store,
    },
};
use std::{fmt, path::Path};

/// The posts of one store, each with a counter of its own; shared by cloning.
///
/// ```
/// # #[cfg(feature = "sqlite")] {
/// # let folder = std::env::temp_dir().join(format!("live-likes-posts-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder).unwrap();
/// # let path = folder.join("likes.db");
/// let posts = live_likes::Posts::open(&path)?;
/// let hello = posts.post("hello")?;
/// assert_eq!(hello.like()?, 1); // from anybody
/// let answer = hello.set_liked("a-visitor-at-random", true, None)?; // counts once, however often it is said
/// assert_eq!((answer.count.likes, answer.liked), (2, true));
/// assert_eq!(posts.top(10)?[0].0.name(), "hello");
/// # drop((posts, hello));
/// # std::fs::remove_dir_all(&folder).unwrap();
/// # }
/// # Ok::<(), live_likes::Error>(())
/// ```
#[derive(Clone)]
pub struct Posts {
    ledger: Ledger,
}

impl Posts {
    /// Opens the store that a name means: `*.db`, `*.sqlite` and `*.sqlite3` a SQLite database, anything else a text
    /// file, which keeps the default counter alone.
    ///
    /// # Errors
    ///
    /// As [`open_store`] and [`with_store`](Self::with_store).
    pub fn open(name: impl AsRef<Path>) -> Result<Self> {
        Self::with_store(open_store(name, StoreLimits::default())?)
    }

    /// Opens the counters of a store of one's own.
    ///
    /// # Errors
    ///
    /// As [`Likes::with_store`].
    pub fn with_store(store: impl Store) -> Result<Self> {
        Ok(Self { ledger: Ledger::open(store)? })
    }

    /// The counter of a post. That does not make the post: a post that nobody has liked has no likes and is not stored.
    ///
    /// # Errors
    ///
    /// [`Error::BadName`] where it can be no post's name, [`Error::OneCounter`] where the store keeps one counter
    /// alone, [`Error::NotRead`] where it cannot be read just now.
    pub fn post(&self, name: &str) -> Result<Likes> {
        self.counter(Post::new(name).map_err(Error::BadName)?)
    }

    /// The counter that has no name: the one of a page of its own.
    ///
    /// # Errors
    ///
    /// None where the store was opened.
    pub fn default_counter(&self) -> Result<Likes> {
        self.counter(Post::default())
    }

    pub(crate) fn counter(&self, post: Post) -> Result<Likes> {
        Likes::of(post, self.ledger.clone())
    }

    /// A handle for changes alone, whose count may not be known.
    pub(crate) fn to_change(&self, post: Post) -> Result<Likes> {
        Ok(Likes { counter: self.ledger.core().hold_to_change(post)?, ledger: self.ledger.clone() })
    }

    /// The counts of these posts, all as they were at one moment.
    ///
    /// # Errors
    ///
    /// As [`post`](Self::post).
    pub fn counts(&self, names: &[&str]) -> Result<Vec<Count>> {
        let posts = names.iter().map(|name| Ok((Post::new(name).map_err(Error::BadName)?, None)));
        let counts = self.read(&posts.collect::<Result<Vec<_>>>()?)?;
        Ok(counts.into_iter().map(|(count, _)| count).collect())
    }

    /// Counts, and whether visitors like the posts.
    pub(crate) fn read(&self, posts: &[(Post, Option<VisitorKey>)]) -> Result<Vec<(Count, Option<bool>)>> {
        self.ledger.core().read(posts)
    }

    /// The most liked posts, the most liked first: `most` of them at most, without the default counter.
    ///
    /// # Errors
    ///
    /// [`Error::OneCounter`], [`Error::NotRead`].
    pub fn top(&self, most: usize) -> Result<Vec<(Post, Count)>> {
        self.ledger.core().reader()?.top(most)
    }

    /// Takes back all likes of a post, and shows that to everybody.
    ///
    /// # Errors
    ///
    /// As [`post`](Self::post) and [`Likes::like`].
    pub fn delete(&self, name: &str) -> Result<Answer> {
        self.post(name)?.change(ChangeKind::Delete)
    }

    /// How many are shown a counter, over all counters.
    #[must_use]
    pub fn watching(&self) -> usize {
        lock(&self.ledger.core().state).counters.watching()
    }

    /// How many are shown the counter of a post; `None` where other servers may show it too.
    pub(crate) fn watching_one(&self, post: &Post) -> Option<usize> {
        let core = self.ledger.core();
        (!core.has_other_servers).then(|| lock(&core.state).counters.watching_one(post))
    }

    /// How many counters are in memory.
    #[cfg(test)]
    pub(crate) fn in_memory(&self) -> usize {
        lock(&self.ledger.core().state).counters.audiences().len()
    }

    /// The name of this start of the server.
    pub(crate) fn boot(&self) -> Arc<str> {
        self.ledger.core().boot.clone()
    }

    /// Whether the store keeps more than the default counter.
    pub(crate) fn has_many(&self) -> bool {
        self.ledger.core().reader().is_ok()
    }

    /// Whether the store remembers who likes a post.
    pub(crate) fn remembers_visitors(&self) -> bool {
        self.ledger.core().remembers_visitors
    }
}

impl From<Likes> for Posts {
    /// All counters of the store that this is one of.
    fn from(likes: Likes) -> Self {
        Self { ledger: likes.ledger }
    }
}

impl fmt::Debug for Posts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Posts").finish_non_exhaustive()
    }
}

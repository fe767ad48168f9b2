//! Where counts are kept: the [`Store`] trait, what it is asked, and a file for each kind of store.

pub(crate) mod admin;
pub(crate) mod change;
mod permissions;
#[cfg(any(feature = "sqlite", feature = "redis"))]
mod pool;
#[cfg(feature = "redis")]
pub(crate) mod redis;
mod remembered;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;
pub(crate) mod text;

#[allow(unused_imports, reason = "with all stores, only the documentation names it")]
use crate::error::Error;
use crate::{error::Result, metrics::Remote};
use change::{BatchId, Change, Count, Outcome, Post, VisitorKey};
use std::{ffi::OsStr, path::Path, sync::Arc};

/// Keeps counts. One ledger owns it and calls it from one thread.
///
/// A store that breaks its contract (a version that does not rise, a count that is lower than the likes just added, a
/// panic) stops the counter for good, with an error that says so.
pub trait Store: Send + 'static {
    /// The count of a post, as it is kept durably. A post that is not kept has no likes.
    ///
    /// # Errors
    ///
    /// [`Error::NotRead`] where the store cannot be read.
    fn count(&mut self, post: &Post) -> Result<Count>;

    /// Applies a batch: makes every change of it durable, or none, and tells what has become of each, in their order.
    /// Without changes it proves that saving works.
    ///
    /// # Errors
    ///
    /// - [`Error::NotSaved`]: this call has changed nothing. It may be tried again, or not.
    /// - [`Error::Unknown`]: it is not known whether the batch was applied. The same batch is given again under the
    ///   same number, and the store sees to it that it counts once.
    /// - [`Error::Stopped`]: the outcome is unknown and stays so; the store is not called again, and the counter stops
    ///   for good.
    fn apply(&mut self, batch: BatchId, changes: &[Change]) -> Result<Vec<Outcome>>;

    /// What reads counts beside the thread that saves. `None`, the default, is a store of the default counter alone.
    /// The counts of one of many posts are below 2^53, so that every reader of JSON reads them as they are.
    fn reader(&self) -> Option<Arc<dyn Reader>> {
        None
    }

    /// Whether it is kept durably which visitors like a post, so that they can take that back. `false` by default.
    fn remembers_visitors(&self) -> bool {
        false
    }

    /// Whether others change the counts too. If not, each count must follow from the one before it, which is checked.
    fn is_shared(&self) -> bool {
        false
    }

    /// Whether other servers may have it open too, whose clients this one does not know of. By default, if it
    /// [is shared](Self::is_shared).
    fn has_other_servers(&self) -> bool {
        self.is_shared()
    }

    /// Takes the feed by which a store that is shared tells of the changes of others. Called once, before all else.
    fn follow(&mut self, feed: Feed) {
        drop(feed);
    }
}

impl Store for Box<dyn Store> {
    fn count(&mut self, post: &Post) -> Result<Count> {
        (**self).count(post)
    }

    fn apply(&mut self, batch: BatchId, changes: &[Change]) -> Result<Vec<Outcome>> {
        (**self).apply(batch, changes)
    }

    fn reader(&self) -> Option<Arc<dyn Reader>> {
        (**self).reader()
    }

    fn remembers_visitors(&self) -> bool {
        (**self).remembers_visitors()
    }

    fn is_shared(&self) -> bool {
        (**self).is_shared()
    }

    fn has_other_servers(&self) -> bool {
        (**self).has_other_servers()
    }

    fn follow(&mut self, feed: Feed) {
        (**self).follow(feed);
    }
}

/// How much a store of many posts may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreLimits {
    /// Posts, those that were deleted too. Default 100,000; past it [`Refused::Posts`](crate::Refused::Posts).
    ///
    /// Without it, a stranger who makes names up could fill the disk.
    pub posts: u64,
    /// Visitors of a post, counted once for each post. Default 10,000,000, which is about 500 MB; past it
    /// [`Refused::Visitors`](crate::Refused::Visitors).
    pub visitors: u64,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self { posts: 100_000, visitors: 10_000_000 }
    }
}

/// Opens the store that a name means: `*.db`, `*.sqlite` and `*.sqlite3` a SQLite database (with the feature `sqlite`),
/// `redis://…`, `rediss://…` and `redis+unix://…` one in Redis (with the feature `redis`), anything else a text file with
/// one number.
///
/// # Errors
///
/// [`Error::Database`] where the store is not usable, and where this build has no store of that kind.
pub fn open_store(name: impl AsRef<Path>, limits: StoreLimits) -> Result<Box<dyn Store>> {
    let path = name.as_ref();
    match kind_of(path)? {
        #[cfg(feature = "sqlite")]
        Kind::Sqlite => Ok(Box::new(sqlite::SqliteStore::open(path, limits)?)),
        #[cfg(feature = "redis")]
        Kind::Redis => Ok(Box::new(redis::RedisStore::open(path, limits)?)),
        Kind::Text => {
            let StoreLimits { .. } = limits;
            Ok(Box::new(text::FileStore::open(path)?))
        }
    }
}

/// The kinds of store that this build has.
enum Kind {
    Text,
    #[cfg(feature = "sqlite")]
    Sqlite,
    #[cfg(feature = "redis")]
    Redis,
}

/// The kind of store that a name means.
fn kind_of(path: &Path) -> Result<Kind> {
    let scheme = path.to_str().and_then(|name| name.split_once("://")).map(|(scheme, _)| scheme);
    match scheme {
        #[cfg(feature = "redis")]
        Some("redis" | "rediss" | "redis+unix") => return Ok(Kind::Redis),
        #[cfg(not(feature = "redis"))]
        Some(scheme @ ("redis" | "rediss" | "redis+unix")) => {
            // Without the rest, which may hold a password.
            let path = format!("{scheme}://").into();
            let problem = "this build has no Redis: cargo install live-likes --features redis".to_owned();
            return Err(Error::Database { path, problem });
        }
        _ => {}
    }
    match path.extension().and_then(OsStr::to_str) {
        #[cfg(feature = "sqlite")]
        Some("db" | "sqlite" | "sqlite3") => Ok(Kind::Sqlite),
        #[cfg(not(feature = "sqlite"))]
        Some("db" | "sqlite" | "sqlite3") => {
            let problem = "this build has no SQLite: cargo install live-likes --features sqlite".to_owned();
            Err(Error::Database { path: path.to_owned(), problem })
        }
        _ => Ok(Kind::Text),
    }
}

/// Reads the counts of a store of many posts, from any thread. What it returns is durable.
///
/// Each call may wait for the disk, so it is made on the thread of the connection that asks.
pub trait Reader: Send + Sync {
    /// The count of each post, in the order asked, all as they were at one moment; and where a visitor is named,
    /// whether that visitor likes the post. A post that is not kept has no likes.
    ///
    /// # Errors
    ///
    /// [`Error::NotRead`] where the store cannot be read just now.
    fn read(&self, posts: &[(Post, Option<VisitorKey>)]) -> Result<Vec<(Count, Option<bool>)>>;

    /// The most liked posts, `most` of them at most, the most liked first; of those with as many likes, the one that
    /// had them first. Those without likes and the default counter are left out.
    ///
    /// # Errors
    ///
    /// [`Error::NotRead`] where the store cannot be read just now.
    fn top(&self, most: usize) -> Result<Vec<(Post, Count)>>;
}

/// Where a store tells of changes that others have made.
#[derive(Clone)]
pub struct Feed {
    pub(crate) follower: Arc<dyn Follower>,
}

/// Who is told of the changes of others.
#[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "what only several servers need"))]
pub(crate) trait Follower: Send + Sync {
    /// Durable changes of others, in their order.
    fn changed(&self, steps: Vec<Step>);

    /// The posts that somebody is shown, the count that is known of each, and the visitors on whose behalf.
    fn watched(&self) -> Vec<(Post, Count, Vec<VisitorKey>)>;

    /// Why others' changes are not heard of just now; `None` when they are again.
    fn lost(&self, problem: Option<String>);

    /// Where the store counts what it does.
    fn measure(&self, remote: Arc<Remote>);
}

/// A change of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) post: Post,
    pub(crate) count: Count,
    /// How many likes it is of, each with a version.
    pub(crate) likes: u64,
    /// The visitors among them.
    pub(crate) minds: Vec<(VisitorKey, bool)>,
}

impl Feed {
    pub(crate) fn new(follower: impl Follower + 'static) -> Self {
        Self { follower: Arc::new(follower) }
    }

    /// Tells of the count of a post after a change that is durable. One with a version that is not newer than what is
    /// known already is ignored.
    pub fn changed(&self, post: &Post, count: Count) {
        self.follower.changed(vec![Step { post: post.clone(), count, likes: 1, minds: Vec::new() }]);
    }
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed").finish_non_exhaustive()
    }
}

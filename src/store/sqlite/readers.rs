//! Connections that only read: a few that all threads share, since each costs descriptors and memory.

use super::{file, rows};
use crate::{
    error::{Error, Result},
    store::{
        Reader,
        change::{Count, Post, VisitorKey},
    },
};
use rusqlite::{Connection, Transaction};
use std::{
    path::PathBuf,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Connections at once.
const MOST: usize = 8;

/// How long a free one is waited for.
const FREE_WITHIN: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 5000 });

/// A pool of connections that only read.
///
/// What they read is durable: SQLite shows a commit to other connections only once the `fsync` of its log has
/// succeeded. A commit whose `fsync` fails is overwritten in the log by the next one.
#[derive(Debug)]
pub(super) struct Readers {
    file: PathBuf,
    pool: Mutex<Pool>,
    free: Condvar,
}

#[derive(Debug, Default)]
struct Pool {
    idle: Vec<Connection>,
    /// How many are open, in use or idle.
    open: usize,
    closed: bool,
}

impl Readers {
    pub(super) fn new(file: PathBuf) -> Self {
        Self { file, pool: Mutex::default(), free: Condvar::new() }
    }

    /// Reads in one snapshot.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Transaction) -> rusqlite::Result<T>) -> Result<T> {
        let mut lent = self.lend()?;
        let connection = match lent.connection.take() {
            Some(connection) => Ok(connection),
            None => file::open_to_read(&self.file),
        };
        let result = connection.and_then(|mut connection| {
            let value = read(&connection.transaction()?)?;
            // One that has failed is not used again.
            lent.connection = Some(connection);
            Ok(value)
        });
        result.map_err(|e| Error::NotRead(e.to_string()))
    }

    fn lend(&self) -> Result<Lent<'_>> {
        let deadline = Instant::now() + FREE_WITHIN;
        let mut pool = self.lock();
        loop {
            if pool.closed {
                return Err(Error::Closed);
            }
            let connection = pool.idle.pop();
            if connection.is_some() || pool.open < MOST {
                pool.open += usize::from(connection.is_none());
                return Ok(Lent { readers: self, connection });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::NotRead(format!("{MOST} others have been reading for {FREE_WITHIN:?}")));
            }
            pool = self.free.wait_timeout(pool, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Closes those that are idle, and each other once it has read.
    pub(super) fn close(&self) {
        let mut pool = self.lock();
        pool.closed = true;
        let idle = std::mem::take(&mut pool.idle);
        drop(pool);
        drop(idle);
        self.free.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among the connections, and one of them unless it is still to be opened or has failed.
struct Lent<'r> {
    readers: &'r Readers,
    connection: Option<Connection>,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut pool = self.readers.lock();
        match self.connection.take() {
            Some(connection) if !pool.closed => pool.idle.push(connection),
            none => {
                pool.open -= 1;
                drop(pool);
                drop(none);
            }
        }
        self.readers.free.notify_one();
    }
}

impl Reader for Readers {
    fn read(&self, posts: &[(Post, Option<VisitorKey>)]) -> Result<Vec<(Count, Option<bool>)>> {
        self.read(|snapshot| {
            let posts = posts.iter().map(|(post, visitor)| {
                let row = rows::post(snapshot, post)?;
                let liked = match visitor {
                    Some(visitor) => Some(rows::visitor(snapshot, &row, visitor)?.is_some_and(|(liked, _)| liked)),
                    None => None,
                };
                Ok((row.count(), liked))
            });
            posts.collect()
        })
    }

    fn top(&self, most: usize) -> Result<Vec<(Post, Count)>> {
        self.read(|snapshot| rows::top(snapshot, most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Feed, Store, StoreLimits, admin::open_admin, change::*, sqlite::SqliteStore};
    use std::sync::mpsc;

    /// Reads while so many others do.
    fn read_beside(readers: &Readers, others: usize) -> Result<usize> {
        if others == 0 {
            return readers.top(1).map(|top| top.len());
        }
        readers.read(|_| Ok(read_beside(readers, others - 1)))?
    }

    fn with_store(name: &str, test: impl FnOnce(SqliteStore, PathBuf)) {
        let folder = std::env::temp_dir().join(format!("live-likes-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("likes.db");
        test(SqliteStore::open(&path, StoreLimits::default()).unwrap(), path);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_ninth_that_reads_waits_and_gives_up_in_time() {
        with_store("ninth", |store, _| {
            assert_eq!(read_beside(&store.readers, 7).unwrap(), 0);
            let refused = read_beside(&store.readers, 8);
            assert!(matches!(&refused, Err(Error::NotRead(problem)) if problem.contains("8 others")), "{refused:?}");
            assert_eq!(store.readers.lock().open, 8);
            assert_eq!(read_beside(&store.readers, 0).unwrap(), 0);
        });
    }

    #[test]
    fn a_connection_that_fails_is_not_used_again() {
        with_store("fails", |store, _| {
            store.readers.top(1).unwrap();
            let failed = store.readers.read(|snapshot| snapshot.execute("no SQL", []));
            assert!(matches!(failed, Err(Error::NotRead(_))));
            let pool = store.readers.lock();
            assert_eq!((pool.idle.len(), pool.open), (0, 0));
        });
    }

    #[test]
    fn what_others_change_is_told_and_what_the_server_changes_is_not() {
        with_store("told", |mut store, path| {
            let (tell, told) = mpsc::channel();
            store.follow(Feed::new(move |post, count| tell.send((post.clone(), count)).unwrap()));
            let likes = |name| Change { post: Post::kept(name), kind: ChangeKind::Likes(2) };
            store.apply(BatchId { server: 1, number: 1 }, &[likes("a"), likes("b")]).unwrap();
            let mut operator = open_admin(path, StoreLimits::default()).unwrap();
            operator.apply(&[likes("b"), likes("c")]).unwrap();
            let expected = [("b", 4, 6), ("c", 2, 8)];
            for (name, likes, version) in expected {
                let next = told.recv_timeout(Duration::from_secs(60)).unwrap();
                assert_eq!(next, (Post::kept(name), Count { likes, version }));
            }
            drop(store);
            assert!(told.recv().is_err(), "nobody tells any more");
        });
    }
}

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
const FREE_WITHIN: Duration = Duration::from_secs(5);

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
                return Err(Error::NotRead(format!("{MOST} others have been reading for {} s", FREE_WITHIN.as_secs())));
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
        self.read(|snapshot| {
            let mut top = snapshot.prepare_cached(
                "SELECT name, likes, version FROM posts WHERE likes > 0 AND name <> '' ORDER BY likes DESC, id LIMIT ?1",
            )?;
            let posts = top.query_map([i64::try_from(most).unwrap_or(i64::MAX)], |row| {
                let post = Post::kept(row.get_ref(0)?.as_str()?);
                Ok((post, Count { likes: row.get(1)?, version: row.get(2)? }))
            })?;
            posts.collect()
        })
    }
}

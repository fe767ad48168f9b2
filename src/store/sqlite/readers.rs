//! Connections that only read, from a pool.

use super::{file, rows};
use crate::{
    error::{Error, Result},
    store::{
        Reader,
        change::{Count, Post, VisitorKey},
        pool::Pool,
    },
};
use rusqlite::{Connection, Transaction};
use std::path::PathBuf;

/// A pool of connections that only read.
///
/// What they read is durable: SQLite shows a commit to other connections only once the `fsync` of its log has
/// succeeded. A commit whose `fsync` fails is overwritten in the log by the next one.
#[derive(Debug)]
pub(super) struct Readers {
    file: PathBuf,
    pool: Pool<Connection>,
}

impl Readers {
    pub(super) fn new(file: PathBuf) -> Self {
        Self { file, pool: Pool::default() }
    }

    /// Reads in one snapshot.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Transaction) -> rusqlite::Result<T>) -> Result<T> {
        let mut lent = self.pool.lend()?;
        let connection = match lent.take() {
            Some(connection) => Ok(connection),
            None => file::open_to_read(&self.file),
        };
        let result = connection.and_then(|mut connection| {
            let value = read(&connection.transaction()?)?;
            lent.put_back(connection);
            Ok(value)
        });
        result.map_err(|e| Error::NotRead(e.to_string()))
    }

    pub(super) fn close(&self) {
        self.pool.close();
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
    use crate::{
        metrics::Remote,
        store::{Feed, Follower, Step, Store, StoreLimits, admin::open_admin, change::*, sqlite::SqliteStore},
    };
    use std::{
        sync::{Arc, mpsc},
        time::Duration,
    };

    struct Told(mpsc::Sender<(Post, Count)>);

    impl Follower for Told {
        fn changed(&self, steps: Vec<Step>) {
            steps.into_iter().for_each(|step| self.0.send((step.post, step.count)).unwrap());
        }

        fn watched(&self) -> Vec<(Post, Count, Vec<VisitorKey>)> {
            Vec::new()
        }

        fn lost(&self, _: Option<String>) {}

        fn measure(&self, _: Arc<Remote>) {}
    }

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
            assert_eq!(store.readers.pool.counts().1, 8);
            assert_eq!(read_beside(&store.readers, 0).unwrap(), 0);
        });
    }

    #[test]
    fn a_connection_that_fails_is_not_used_again() {
        with_store("fails", |store, _| {
            store.readers.top(1).unwrap();
            let failed = store.readers.read(|snapshot| snapshot.execute("no SQL", []));
            assert!(matches!(failed, Err(Error::NotRead(_))));
            assert_eq!(store.readers.pool.counts(), (0, 0));
        });
    }

    #[test]
    fn what_others_change_is_told_and_what_the_server_changes_is_not() {
        with_store("told", |mut store, path| {
            let (tell, told) = mpsc::channel();
            store.follow(Feed::new(Told(tell)));
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

//! Many posts, and who likes them, in a SQLite database: `likes.db`.
//!
//! One connection writes, on the saver's thread: a batch is one transaction, and so one `fsync` of the log (WAL mode,
//! `synchronous=FULL`). A few others [read](readers), on the threads of those who ask.
//!
//! A `COMMIT` that fails may have written its log all the same, so that a process that opens the database later finds
//! the batch in it. Therefore the number of the last batch is part of the transaction, and the batch is given again,
//! on the same connection: to open it anew could read from the log what no `fsync` has made durable.
//!
//! What must never happen here: a count told whose transaction the disk could still lose, or a batch applied twice.

pub(super) mod admin;
mod batch;
mod file;
mod readers;
mod rows;

use crate::{
    error::{Error, Result},
    store::{
        Feed, Reader, Store, StoreLimits,
        change::{BatchId, Change, Count, Outcome, Post},
        text::{Lock, beside, follow, is_there, take_lock},
    },
};
use readers::Readers;
use rusqlite::{Connection, ErrorCode, TransactionBehavior, config::DbConfig};
use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// How often a running server looks for what others have changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Many posts, and who likes them, in a SQLite database.
///
/// The log stands beside the database while it is open, as `<name>-wal` and `<name>-shm`; and `<name>.lock`, which
/// keeps a second server out, but no other program: `sqlite3`, a backup or a replication may read, and an operator may
/// write. `UPDATE posts SET anonymous = 100 WHERE name = 'hello'` changes a count by hand, and is shown within about a
/// second; the table `visitors` is not to be written to. A copy of the file alone lacks what is in the log: take
/// `VACUUM INTO` or `.backup`.
#[derive(Debug)]
pub struct SqliteStore {
    writer: Connection,
    file: PathBuf,
    /// Device and number of the file.
    identity: (u64, u64),
    limits: StoreLimits,
    /// The last batch, and what has become of it if it is in the database.
    last: Option<(BatchId, Vec<Outcome>)>,
    readers: Arc<Readers>,
    follower: Option<(Sender<()>, JoinHandle<()>)>,
    _lock: Lock,
}

impl SqliteStore {
    /// Opens the database for a server, or creates it where there is none.
    ///
    /// A symbolic link is followed. A file that is empty becomes a database, and keeps its owner and mode.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] where the file is no database, is one of another program or of a newer version of this one,
    /// is damaged, read-only or no regular file; where another server has it open, or another program has held a
    /// transaction on it for 4 s; and where its folder cannot be written. The file is left as it was. Damage further
    /// inside is found when it is read, and stops the counter.
    pub fn open(path: impl AsRef<Path>, limits: StoreLimits) -> Result<Self> {
        let path = path.as_ref();
        Self::try_open(path, limits).map_err(|problem| Error::Database { path: path.to_owned(), problem })
    }

    fn try_open(path: &Path, limits: StoreLimits) -> Result<Self, String> {
        let file = follow(path)?;
        let name = file.file_name().ok_or("it names no file")?;
        // Before the lock file is made, so that a device is not given one.
        is_there(&file)?;
        let lock = take_lock(&beside(&file, name, ".lock"))?;
        if !file::is_ours(&file)? {
            file::create(&file)?;
        }
        file::check_writable(&file)?;
        let writer = file::open(&file)?;
        rows::post(&writer, &Post::default()).map_err(file::describe)?;
        file::make_durable(&writer, &file)?;
        let identity = identity(&file).map_err(|e| e.to_string())?;
        let readers = Arc::new(Readers::new(file.clone()));
        Ok(Self { writer, file, identity, limits, last: None, readers, follower: None, _lock: lock })
    }
}

fn identity(file: &Path) -> std::io::Result<(u64, u64)> {
    fs::metadata(file).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Counts, visitors and versions are kept durably; versions are those of the whole database.
impl Store for SqliteStore {
    fn count(&mut self, post: &Post) -> Result<Count> {
        rows::post(&self.writer, post).map(|row| row.count()).map_err(|e| Error::NotRead(e.to_string()))
    }

    fn apply(&mut self, batch: BatchId, changes: &[Change]) -> Result<Vec<Outcome>> {
        if !identity(&self.file).is_ok_and(|identity| identity == self.identity) {
            let path = self.file.display();
            return Err(Error::NotSaved(format!("`{path}` was moved away or replaced: put it back, or restart")));
        }
        let begun = self.writer.transaction_with_behavior(TransactionBehavior::Immediate);
        let transaction = begun.map_err(before_commit)?;
        if batch::is_last(&transaction, batch).map_err(before_commit)? {
            let last = self.last.as_ref().filter(|(last, _)| *last == batch);
            let outcomes = last.map(|(_, outcomes)| outcomes.clone());
            return outcomes
                .ok_or_else(|| Error::Stopped("a store that is closed by now has applied this batch".to_owned()));
        }
        let outcomes = batch::apply(&transaction, &self.limits, Some(batch), changes);
        let outcomes = outcomes.map_err(before_commit)?;
        self.last = Some((batch, outcomes.clone()));
        transaction.commit().map_err(in_commit)?;
        Ok(outcomes)
    }

    fn reader(&self) -> Option<Arc<dyn Reader>> {
        Some(self.readers.clone())
    }

    fn remembers_visitors(&self) -> bool {
        true
    }

    fn is_shared(&self) -> bool {
        true
    }

    /// Only commands are the others.
    fn has_other_servers(&self) -> bool {
        false
    }

    fn follow(&mut self, feed: Feed) {
        let (stop, stopped) = mpsc::channel();
        let readers = self.readers.clone();
        let started = thread::Builder::new().name("database".to_owned()).spawn(move || {
            let mut seen = 0;
            while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                // What cannot be read now is seen at the next look.
                let edits = readers.read(|snapshot| rows::edits_since(snapshot, seen));
                for (version, post, count) in edits.unwrap_or_default() {
                    seen = version;
                    feed.changed(&post, count);
                }
            }
        });
        match started {
            Ok(thread) => self.follower = Some((stop, thread)),
            Err(e) => log::warn!("what others change in `{}` is not shown: {e}", self.file.display()),
        }
    }
}

impl Drop for SqliteStore {
    /// Writes the log into the database and removes it, unless others use the database too.
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.follower.take() {
            drop(stop);
            let _ = thread.join();
        }
        self.readers.close();
        let _ = self.writer.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
    }
}

/// What an error before `COMMIT` means: the transaction is rolled back, since nothing of it is valid in the log yet.
fn before_commit(e: rusqlite::Error) -> Error {
    if is_corrupt(&e) { Error::Stopped(e.to_string()) } else { Error::NotSaved(e.to_string()) }
}

/// What an error of `COMMIT` means. Without room in the log or without the lock, the end of the transaction is not
/// written. After any other, it may be.
fn in_commit(e: rusqlite::Error) -> Error {
    match e.sqlite_error_code() {
        _ if is_corrupt(&e) => Error::Stopped(e.to_string()),
        Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy) => Error::NotSaved(e.to_string()),
        _ => Error::Unknown(e.to_string()),
    }
}

fn is_corrupt(e: &rusqlite::Error) -> bool {
    matches!(e.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

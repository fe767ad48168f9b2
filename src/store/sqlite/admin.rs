//! A database for an operator: one connection of its own, and each use of it a transaction.

use super::{batch, before_commit, file, in_commit, rows};
use crate::{
    error::{Error, Result},
    store::{
        StoreLimits,
        admin::{Admin, NotApplied, copy_to},
        change::{Change, ChangeKind, Count, Outcome, Post, VisitorKey},
        text::{beside, follow, is_locked, is_there},
    },
};
use rusqlite::{Connection, Transaction, TransactionBehavior, config::DbConfig};
use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// How long a server is left alone after a transaction. It looks whether it may save every 100 ms at the latest, the
/// longest pause of SQLite's busy handler: where transactions follow one another without this, its saves would fail.
const PAUSE: Duration = Duration::from_millis(150);

pub(crate) struct SqliteAdmin {
    connection: Connection,
    file: PathBuf,
    limits: StoreLimits,
    /// Whether a server had it open when it was opened here.
    beside_server: bool,
    last: Option<Instant>,
}

impl SqliteAdmin {
    pub(crate) fn open(path: &Path, limits: StoreLimits) -> Result<Self, String> {
        let file = follow(path)?;
        let name = file.file_name().ok_or("it names no file")?;
        if !is_there(&file)? {
            return Err("there is no such file".to_owned());
        }
        // Not looked at while a server has it: were that in this process, it would lose its POSIX locks when the file is
        // closed here. (fcntl(2))
        let beside_server = is_locked(&beside(&file, name, ".lock"));
        if !beside_server && !file::is_ours(&file)? {
            return Err("it is empty; a server makes a database of it".to_owned());
        }
        let connection = file::open(&file)?;
        rows::post(&connection, &Post::default()).map_err(file::describe)?;
        // A large import changes pages all over the database in each transaction: kept longer in memory and in the log,
        // they are written less often.
        connection.pragma_update(None, "cache_size", -64 * 1024).map_err(file::describe)?; // KiB
        connection.pragma_update(None, "wal_autocheckpoint", 25_000).map_err(file::describe)?; // pages
        // The last connection writes the log into the database and removes it.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(file::describe)?;
        Ok(Self { connection, file, limits, beside_server, last: None })
    }
}

impl Admin for SqliteAdmin {
    fn count(&mut self, post: &Post) -> Result<Count> {
        rows::post(&self.connection, post).map(|row| row.count()).map_err(not_read)
    }

    fn top(&mut self, most: usize) -> Result<Vec<(Post, Count)>> {
        rows::top(&self.connection, most).map_err(not_read)
    }

    fn apply(&mut self, changes: &[Change]) -> Result<Vec<Outcome>, NotApplied> {
        if self.beside_server
            && let Some(last) = self.last
        {
            thread::sleep(PAUSE.saturating_sub(last.elapsed()));
        }
        let begun = self.connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let transaction = begun.map_err(before_commit)?;
        let outcomes = batch::apply(&transaction, &self.limits, None, changes).map_err(before_commit)?;
        for (place, outcome) in outcomes.iter().enumerate() {
            if let Outcome::Refused(refused) = outcome {
                return Err(NotApplied::at(place, Error::Refused(*refused)));
            }
        }
        transaction.commit().map_err(|e| match in_commit(e) {
            // What is not numbered cannot be given again.
            Error::Unknown(problem) => Error::Stopped(problem),
            error => error,
        })?;
        self.last = Some(Instant::now());
        Ok(outcomes)
    }

    fn export(&mut self, visitors: bool, tell: &mut dyn FnMut(Change) -> ControlFlow<()>) -> Result<()> {
        self.connection.transaction().and_then(|snapshot| tell_all(&snapshot, visitors, tell)).map_err(not_read)
    }

    fn back_up(&mut self, file: &Path) -> Result<()> {
        copy_to(file, &self.file, |new| {
            // Absolute, or SQLite would take a name that begins with `file:` for a URI.
            let new = std::path::absolute(new).map_err(|e| e.to_string())?;
            let new = new.to_str().ok_or("its name must be valid UTF-8")?;
            self.connection.execute("VACUUM INTO ?1", [new]).map(drop).map_err(|e| e.to_string())
        })
    }
}

fn tell_all(
    snapshot: &Transaction,
    visitors: bool,
    tell: &mut dyn FnMut(Change) -> ControlFlow<()>,
) -> rusqlite::Result<()> {
    // In this order each gets a version after those that had as many likes before it.
    let mut posts =
        snapshot.prepare("SELECT id, name, likes FROM posts WHERE likes > ?1 ORDER BY likes DESC, version")?;
    let mut fans = snapshot.prepare("SELECT visitor, liked, seq FROM visitors WHERE post = ?1")?;
    let mut posts = posts.query([if visitors { -1 } else { 0 }])?;
    while let Some(row) = posts.next()? {
        let post = Post::kept(row.get_ref(1)?.as_str()?);
        if visitors {
            let mut fans = fans.query([row.get::<_, i64>(0)?])?;
            while let Some(row) = fans.next()? {
                let (visitor, liked, seq) = (VisitorKey(row.get(0)?), row.get(1)?, row.get(2)?);
                let kind = ChangeKind::Visitor { visitor, liked, seq };
                if tell(Change { post: post.clone(), kind }).is_break() {
                    return Ok(());
                }
            }
        }
        if tell(Change { post, kind: ChangeKind::Set(row.get(2)?) }).is_break() {
            return Ok(());
        }
    }
    Ok(())
}

fn not_read(e: rusqlite::Error) -> Error {
    Error::NotRead(e.to_string())
}

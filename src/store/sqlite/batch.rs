//! A batch, change by change, within one transaction.

use super::rows::{self, PostRow};
use crate::store::{
    StoreLimits,
    change::{BatchId, Change, ChangeKind, LARGEST, Outcome, Post, Refused, VisitorKey},
};
use rusqlite::{Connection, Result};
use std::collections::HashMap;

/// Whether a batch is the last that was applied.
pub(super) fn is_last(connection: &Connection, batch: BatchId) -> Result<bool> {
    let mut read = connection.prepare_cached("SELECT server = ?1 AND batch = ?2 FROM meta")?;
    read.query_row((batch.server.to_be_bytes(), batch.number.cast_signed()), |row| row.get(0))
}

/// Applies a batch of the server's, or, without a number, an operator's changes.
pub(super) fn apply(
    connection: &Connection,
    limits: &StoreLimits,
    batch: Option<BatchId>,
    changes: &[Change],
) -> Result<Vec<Outcome>> {
    let mut meta = connection.prepare_cached("SELECT version, posts, visitors FROM meta")?;
    let (version, kept_posts, kept_visitors) = meta.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let (rows, places) = (Vec::new(), HashMap::new());
    let mut applying = Applying { connection, limits, version, kept_posts, kept_visitors, rows, places };
    let outcomes = changes.iter().map(|change| applying.apply(change)).collect::<Result<_>>()?;
    applying.finish(batch)?;
    Ok(outcomes)
}

struct Applying<'c> {
    connection: &'c Connection,
    limits: &'c StoreLimits,
    version: u64,
    kept_posts: u64,
    kept_visitors: u64,
    /// The posts of the batch, as they are by now.
    rows: Vec<PostRow>,
    places: HashMap<Post, usize>,
}

impl Applying<'_> {
    fn apply(&mut self, change: &Change) -> Result<Outcome> {
        let place = match self.places.get(&change.post) {
            Some(&place) => place,
            None => {
                self.rows.push(rows::post(self.connection, &change.post)?);
                self.places.insert(change.post.clone(), self.rows.len() - 1);
                self.rows.len() - 1
            }
        };
        let mut row = self.rows[place];
        let outcome = match change.kind {
            ChangeKind::Likes(likes) => self.like(&change.post, &mut row, likes),
            ChangeKind::Visitor { visitor, liked, seq } => {
                self.change_mind(&change.post, &mut row, &visitor, liked, seq.map(|seq| seq.min(LARGEST)))
            }
            ChangeKind::Set(likes) => self.set(&change.post, &mut row, likes),
            ChangeKind::Delete => self.delete(&mut row),
        };
        self.rows[place] = row;
        outcome
    }

    fn like(&mut self, post: &Post, row: &mut PostRow, likes: u64) -> Result<Outcome> {
        if !self.has_room(row, likes) {
            return Ok(Outcome::Refused(Refused::Likes));
        }
        if !self.keep(post, row)? {
            return Ok(Outcome::Refused(Refused::Posts));
        }
        row.anonymous += likes;
        Ok(self.applied(row, likes))
    }

    fn change_mind(
        &mut self,
        post: &Post,
        row: &mut PostRow,
        visitor: &VisitorKey,
        liked: bool,
        seq: Option<u64>,
    ) -> Result<Outcome> {
        let kept = rows::visitor(self.connection, row, visitor)?;
        let (was, highest) = kept.unwrap_or((false, None));
        let late = seq.is_some() && seq <= highest;
        if late || seq.is_none() && liked == was {
            return Ok(Outcome::Unchanged { count: row.count(), liked: was });
        }
        if liked != was && !self.has_room(row, u64::from(liked)) {
            return Ok(Outcome::Refused(Refused::Likes));
        }
        if kept.is_none() && self.kept_visitors >= self.limits.visitors {
            return Ok(Outcome::Refused(Refused::Visitors));
        }
        if !self.keep(post, row)? {
            return Ok(Outcome::Refused(Refused::Posts));
        }
        // Kept also where the mind is as it was, and after an unlike, so that a like from before it finds its `seq`.
        let highest = seq.or(highest);
        if liked || highest.is_some() {
            let mut write = self.connection.prepare_cached(
                "INSERT INTO visitors (post, visitor, liked, seq) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET liked = excluded.liked, seq = excluded.seq",
            )?;
            write.execute((row.id, visitor.0, liked, highest))?;
            self.kept_visitors += u64::from(kept.is_none());
        } else {
            let mut remove = self.connection.prepare_cached("DELETE FROM visitors WHERE post = ?1 AND visitor = ?2")?;
            remove.execute((row.id, visitor.0))?;
            self.kept_visitors = self.kept_visitors.saturating_sub(1);
        }
        if liked == was {
            return Ok(Outcome::Unchanged { count: row.count(), liked });
        }
        row.visitors = if liked { row.visitors + 1 } else { row.visitors.saturating_sub(1) };
        Ok(self.applied(row, 1))
    }

    fn set(&mut self, post: &Post, row: &mut PostRow, likes: u64) -> Result<Outcome> {
        let Some(anonymous) = likes.checked_sub(row.visitors) else {
            return Ok(Outcome::Refused(Refused::BelowVisitors));
        };
        if likes > LARGEST || !self.has_room(row, 0) {
            return Ok(Outcome::Refused(Refused::Likes));
        }
        if !self.keep(post, row)? {
            return Ok(Outcome::Refused(Refused::Posts));
        }
        row.anonymous = anonymous;
        Ok(self.applied(row, 1))
    }

    fn delete(&mut self, row: &mut PostRow) -> Result<Outcome> {
        let Some(id) = row.id else { return Ok(Outcome::Unchanged { count: row.count(), liked: false }) };
        if !self.has_room(row, 0) {
            return Ok(Outcome::Refused(Refused::Likes));
        }
        let forgotten = self.connection.execute("DELETE FROM visitors WHERE post = ?1 AND seq IS NULL", [id])?;
        self.connection.execute("UPDATE visitors SET liked = 0 WHERE post = ?1 AND liked", [id])?;
        self.kept_visitors = self.kept_visitors.saturating_sub(forgotten as u64);
        (row.visitors, row.anonymous) = (0, 0);
        Ok(self.applied(row, 1))
    }

    /// Whether a post can have so many likes more, and the versions that go with them.
    fn has_room(&self, row: &PostRow, likes: u64) -> bool {
        let fits = |number: u64, more| number.checked_add(more).is_some_and(|sum| sum <= LARGEST);
        fits(row.count().likes, likes) && fits(self.version, likes.max(1))
    }

    /// Keeps a post that is not kept; says whether there is room for it.
    fn keep(&mut self, post: &Post, row: &mut PostRow) -> Result<bool> {
        if row.id.is_some() {
            return Ok(true);
        }
        if self.kept_posts >= self.limits.posts {
            return Ok(false);
        }
        self.connection.prepare_cached("INSERT INTO posts (name) VALUES (?1)")?.execute([post.name()])?;
        row.id = Some(self.connection.last_insert_rowid());
        self.kept_posts += 1;
        Ok(true)
    }

    /// Gives a change so many versions.
    fn applied(&mut self, row: &mut PostRow, versions: u64) -> Outcome {
        self.version += versions;
        row.version = self.version;
        row.changed = true;
        Outcome::Applied(row.count())
    }

    /// Writes what has become of the posts and of the whole.
    fn finish(self, batch: Option<BatchId>) -> Result<()> {
        let connection = self.connection;
        let mut write =
            connection.prepare_cached("UPDATE posts SET visitors = ?2, anonymous = ?3, version = ?4 WHERE id = ?1")?;
        let changed = || self.rows.iter().filter(|row| row.changed);
        for row in changed() {
            write.execute((row.id, row.visitors, row.anonymous, row.version))?;
        }
        let mut write = connection.prepare_cached("UPDATE meta SET version = ?1, posts = ?2, visitors = ?3")?;
        write.execute((self.version, self.kept_posts, self.kept_visitors))?;
        if let Some(batch) = batch {
            let mut write = connection.prepare_cached("UPDATE meta SET server = ?1, batch = ?2")?;
            write.execute((batch.server.to_be_bytes(), batch.number.cast_signed()))?;
            return Ok(());
        }
        let mut write = connection.prepare_cached("INSERT INTO edits (version, post) VALUES (?1, ?2)")?;
        for row in changed() {
            write.execute((row.version, row.id))?;
        }
        Ok(())
    }
}

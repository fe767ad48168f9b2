//! The rows of a post and of a visitor.

use crate::store::change::{Count, Post, VisitorKey};
use rusqlite::{Connection, OptionalExtension, Result};

/// A post as it is kept.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PostRow {
    /// `None` of one that is not kept.
    pub(super) id: Option<i64>,
    /// Visitors who like it.
    pub(super) visitors: u64,
    /// Likes from nobody in particular.
    pub(super) anonymous: u64,
    pub(super) version: u64,
    /// Whether a batch has changed it.
    pub(super) changed: bool,
}

impl PostRow {
    pub(super) fn count(&self) -> Count {
        Count { likes: self.visitors + self.anonymous, version: self.version }
    }
}

/// Reads a post.
pub(super) fn post(connection: &Connection, post: &Post) -> Result<PostRow> {
    let mut read = connection.prepare_cached("SELECT id, visitors, anonymous, version FROM posts WHERE name = ?1")?;
    let row = read.query_row([post.name()], |row| {
        Ok(PostRow {
            id: row.get(0)?,
            visitors: row.get(1)?,
            anonymous: row.get(2)?,
            version: row.get(3)?,
            changed: false,
        })
    });
    Ok(row.optional()?.unwrap_or_default())
}

/// Reads whether a visitor likes a post, and the highest `seq` that came from there; `None` where neither is kept.
pub(super) fn visitor(
    connection: &Connection,
    post: &PostRow,
    visitor: &VisitorKey,
) -> Result<Option<(bool, Option<u64>)>> {
    let Some(id) = post.id else { return Ok(None) };
    let mut read = connection.prepare_cached("SELECT liked, seq FROM visitors WHERE post = ?1 AND visitor = ?2")?;
    read.query_row((id, visitor.0), |row| Ok((row.get(0)?, row.get(1)?))).optional()
}

/// The most liked posts, without those that have no likes, and the default counter.
pub(super) fn top(connection: &Connection, most: usize) -> Result<Vec<(Post, Count)>> {
    let mut read = connection.prepare_cached(
        "SELECT name, likes, version FROM posts WHERE likes > 0 AND name <> '' ORDER BY likes DESC, version LIMIT ?1",
    )?;
    let posts = read.query_map([i64::try_from(most).unwrap_or(i64::MAX)], |row| {
        let post = Post::kept(row.get_ref(0)?.as_str()?);
        Ok((post, Count { likes: row.get(1)?, version: row.get(2)? }))
    })?;
    posts.collect()
}

/// The posts that others have changed, after a version: the version of the change, and the post as it is.
pub(super) fn edits_since(connection: &Connection, version: u64) -> Result<Vec<(u64, Post, Count)>> {
    let mut read = connection.prepare_cached(
        "SELECT edits.version, name, likes, posts.version FROM edits JOIN posts ON posts.id = edits.post
         WHERE edits.version > ?1 ORDER BY edits.version",
    )?;
    let edits = read.query_map([version], |row| {
        let post = Post::kept(row.get_ref(1)?.as_str()?);
        Ok((row.get(0)?, post, Count { likes: row.get(2)?, version: row.get(3)? }))
    })?;
    edits.collect()
}

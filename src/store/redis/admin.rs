//! The store for an operator, beside running servers: these hear of what is changed here as of each other's changes.

use super::{
    Shared,
    link::{Failure, Link},
    part::{self, MOST_POSTS, Part},
    readers::{Readers, Row, damaged, mind},
};
use crate::{
    error::{Error, Result},
    limits::random,
    store::{
        Reader, StoreLimits,
        admin::{Admin, NotApplied},
        change::{BatchId, Change, ChangeKind, Count, Outcome, Post, VisitorKey},
    },
};
use redis::{cmd, pipe};
use std::{ops::ControlFlow, path::Path, sync::Arc};

pub(crate) struct RedisAdmin {
    shared: Arc<Shared>,
    link: Link,
    readers: Readers,
    limits: StoreLimits,
    last: BatchId,
}

impl RedisAdmin {
    pub(crate) fn open(name: &Path, limits: StoreLimits) -> Result<Self> {
        let open = || {
            let shared = Arc::new(Shared::new(name.to_str().ok_or("valid UTF-8 is expected")?)?);
            let readers = Readers::new(shared.clone());
            let known = readers.ask(|open| cmd("EXISTS").arg(shared.key("meta")).query(&mut open.connection));
            if !known.map_err(|e| match e {
                Error::NotRead(problem) => problem,
                e => e.to_string(),
            })? {
                return Err(format!("nothing is kept there under the prefix `{}`", shared.address.prefix));
            }
            let link = Link::new(shared.clone());
            Ok(Self { shared, link, readers, limits, last: BatchId { server: random(), number: 0 } })
        };
        open().map_err(|problem| super::refused(name, problem))
    }
}

impl Admin for RedisAdmin {
    fn count(&mut self, post: &Post) -> Result<Count> {
        Ok(self.readers.read(&[(post.clone(), None)])?[0].0)
    }

    fn top(&mut self, most: usize) -> Result<Vec<(Post, Count)>> {
        self.readers.top(most)
    }

    fn most_changes(&self) -> usize {
        MOST_POSTS
    }

    fn apply(&mut self, changes: &[Change]) -> Result<Vec<Outcome>, NotApplied> {
        if changes.len() > MOST_POSTS {
            return Err(Error::NotSaved(format!("at most {MOST_POSTS} changes are made at once in Redis")).into());
        }
        self.last.number += 1;
        let part = Part { batch: self.last, index: 0, changes, strict: true };
        let mut apply = || part::apply(&mut self.link, &self.shared, &self.limits, &part);
        // Given again under its number, it counts once.
        let applied = match apply() {
            Err(Failure::Unanswered(_)) => apply().map_err(|e| Error::Stopped(e.to_string())),
            applied => applied.map_err(|e| Error::NotSaved(e.to_string())),
        };
        let outcomes = applied?;
        match outcomes.last() {
            Some(Outcome::Refused(refused)) => Err(NotApplied::at(outcomes.len() - 1, Error::Refused(*refused))),
            _ => Ok(outcomes),
        }
    }

    /// The counts are those of one moment; with visitors, each post is as it was at one, and they follow one another.
    fn export(&mut self, visitors: bool, tell: &mut dyn FnMut(Change) -> ControlFlow<()>) -> Result<()> {
        let shared = self.shared.clone();
        let mut rows: Vec<(Post, Row)> = self.readers.ask(|open| {
            let all: Vec<(String, String)> = cmd("HGETALL").arg(shared.key("posts")).query(&mut open.connection)?;
            let rows = all.into_iter().map(|(name, row)| {
                Row::read(Some(&row)).map(|row| (Post::kept(&name), row)).ok_or_else(|| damaged("a post"))
            });
            rows.collect()
        })?;
        // In this order each gets a version after those that had as many likes before it.
        rows.sort_by_key(|(_, row)| (std::cmp::Reverse(row.likes), row.version));
        for (post, mut row) in rows {
            let mut fans = Vec::new();
            if visitors {
                (row, fans) = self.with_visitors(&post)?;
            } else if row.likes == 0 {
                continue;
            }
            let fans = fans.into_iter().map(|(visitor, liked, seq)| ChangeKind::Visitor { visitor, liked, seq });
            for kind in fans.chain([ChangeKind::Set(row.likes)]) {
                if tell(Change { post: post.clone(), kind }).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn back_up(&mut self, file: &Path) -> Result<()> {
        let problem =
            "what is in Redis is backed up by Redis (redis-cli --rdb FILE), or by `live-likes export --visitors`";
        Err(Error::Database { path: file.to_owned(), problem: problem.to_owned() })
    }
}

/// A visitor, whether they like the post, and the highest `seq`.
type Fan = (VisitorKey, bool, Option<u64>);

impl RedisAdmin {
    fn with_visitors(&self, post: &Post) -> Result<(Row, Vec<Fan>)> {
        let shared = &self.shared;
        self.readers.ask(|open| {
            let mut request = pipe();
            request.atomic().cmd("HGET").arg(shared.key("posts")).arg(post.name());
            request.cmd("HGETALL").arg(shared.visitors_of(post));
            let (row, fans): (Option<String>, Vec<(Vec<u8>, String)>) = request.query(&mut open.connection)?;
            let row = Row::read(row.as_deref()).ok_or_else(|| damaged("a post"))?;
            let fans = fans.into_iter().map(|(key, value)| {
                let key = key.try_into().ok().map(VisitorKey);
                let (liked, seq) = mind(&value, row.era).ok_or_else(|| damaged("a visitor"))?;
                Ok((key.ok_or_else(|| damaged("a visitor"))?, liked, seq))
            });
            // One who does not like it any more, and has no number, is as one who never did.
            let is_known = |fan: &redis::RedisResult<Fan>| !matches!(fan, Ok((_, false, None)));
            Ok((row, fans.filter(is_known).collect::<redis::RedisResult<_>>()?))
        })
    }
}

//! What asks Redis for counts, from any thread, over a few connections that all share.

use super::{
    Shared,
    link::{Failure, Link, Open},
};
use crate::{
    error::{Error, Result},
    store::{
        Reader,
        change::{Count, LARGEST, Post, VisitorKey},
        pool::Pool,
    },
};
use redis::{FromRedisValue, RedisResult, from_redis_value, pipe};
use std::sync::Arc;

pub(super) struct Readers {
    shared: Arc<Shared>,
    pool: Pool<Link>,
}

/// A post as it is kept: nothing of one that is not.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Row {
    pub(super) likes: u64,
    pub(super) version: u64,
    pub(super) era: u64,
    pub(super) kept: bool,
}

impl Row {
    pub(super) fn read(text: Option<&str>) -> Option<Self> {
        let Some(text) = text else { return Some(Self::default()) };
        let mut fields = text.split(' ').map(|field| field.parse().ok());
        let (likes, _, version, era) = (fields.next()??, fields.next()??, fields.next()??, fields.next()??);
        Some(Self { likes, version, era, kept: true })
    }

    /// The count as it is told: the version is one of the present epoch, since what comes from before may be another
    /// count than the one that was shown under its version.
    pub(super) fn count(&self, floor: u64) -> Count {
        let version = if self.kept { self.version.max(floor) } else { 0 };
        Count { likes: self.likes, version }
    }
}

/// Reads whether a visitor likes a post of this era, and the highest `seq`.
pub(super) fn mind(value: &str, era: u64) -> Option<(bool, Option<u64>)> {
    let (seq, of) = value.split_once('@').map_or(Some((value, 0)), |(seq, of)| Some((seq, of.parse().ok()?)))?;
    let likes = !seq.starts_with('-') && of == era;
    let seq = seq.trim_start_matches('-');
    Some((likes, if seq.is_empty() { None } else { Some(seq.parse().ok()?) }))
}

/// What was read at one moment.
pub(super) struct Read {
    pub(super) floor: u64,
    /// Of each post, and whether the visitor likes it.
    pub(super) rows: Vec<(Row, Option<bool>)>,
}

impl Readers {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, pool: Pool::default() }
    }

    pub(super) fn close(&self) {
        self.pool.close();
    }

    pub(super) fn ask<T>(&self, request: impl Fn(&mut Open) -> RedisResult<T>) -> Result<T> {
        let mut lent = self.pool.lend()?;
        let mut link = lent.take().unwrap_or_else(|| Link::new(self.shared.clone()));
        let answer = link.ask(request);
        lent.put_back(link);
        answer.map_err(|e: Failure| Error::NotRead(e.to_string()))
    }

    /// Reads posts, all as they are at one moment.
    pub(super) fn rows(&self, posts: &[(Post, Option<VisitorKey>)]) -> Result<Read> {
        let shared = &self.shared;
        self.ask(|open| {
            let mut request = pipe();
            request.atomic().cmd("HGET").arg(shared.key("meta")).arg("floor");
            if !posts.is_empty() {
                request.cmd("HMGET").arg(shared.key("posts"));
                posts.iter().for_each(|(post, _)| _ = request.arg(post.name()));
            }
            for (post, visitor) in posts {
                if let Some(visitor) = visitor {
                    request.cmd("HGET").arg(shared.visitors_of(post)).arg(&visitor.0);
                }
            }
            let mut answers = request.query::<Vec<redis::Value>>(&mut open.connection)?.into_iter();
            let floor = next::<Option<u64>>(&mut answers)?.unwrap_or_default();
            let kept = if posts.is_empty() { Vec::new() } else { next::<Vec<Option<String>>>(&mut answers)? };
            let rows = posts.iter().zip(kept).map(|((_, visitor), row)| {
                let row = Row::read(row.as_deref()).ok_or_else(|| damaged("a post"))?;
                let Some(_) = visitor else { return Ok((row, None)) };
                let value = next::<Option<String>>(&mut answers)?;
                let value = value.map(|value| mind(&value, row.era).ok_or_else(|| damaged("a visitor"))).transpose()?;
                Ok((row, Some(value.is_some_and(|(likes, _)| likes))))
            });
            Ok(Read { floor, rows: rows.collect::<RedisResult<_>>()? })
        })
    }
}

fn next<T: FromRedisValue>(answers: &mut impl Iterator<Item = redis::Value>) -> RedisResult<T> {
    Ok(from_redis_value(answers.next().unwrap_or(redis::Value::Nil))?)
}

pub(super) fn damaged(what: &str) -> redis::RedisError {
    (redis::ErrorKind::UnexpectedReturnType, "the row of this is not as docs/REDIS.md says", what.to_owned()).into()
}

impl Reader for Readers {
    fn read(&self, posts: &[(Post, Option<VisitorKey>)]) -> Result<Vec<(Count, Option<bool>)>> {
        let Read { floor, rows } = self.rows(posts)?;
        Ok(rows.into_iter().map(|(row, liked)| (row.count(floor), liked)).collect())
    }

    fn top(&self, most: usize) -> Result<Vec<(Post, Count)>> {
        let Some(last) = most.checked_sub(1) else { return Ok(Vec::new()) };
        let last = i64::try_from(last).unwrap_or(i64::MAX);
        let shared = &self.shared;
        self.ask(|open| {
            let mut request = pipe();
            request.atomic().cmd("HGET").arg(shared.key("meta")).arg("floor");
            request.cmd("ZREVRANGE").arg(shared.key("top")).arg(0).arg(last).arg("WITHSCORES");
            let (floor, top): (Option<u64>, Vec<(String, f64)>) = request.query(&mut open.connection)?;
            let posts = top.into_iter().map(|(member, likes)| {
                let (inverted, name) = member.split_at_checked(16).ok_or_else(|| damaged("the top"))?;
                let inverted: u64 = inverted.parse().map_err(|_| damaged("the top"))?;
                let version = LARGEST.saturating_sub(inverted).max(floor.unwrap_or_default());
                Ok((Post::kept(name), Count { likes: likes as u64, version }))
            });
            posts.collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visitor_likes_only_what_was_liked_in_the_present_era() {
        for (value, era, expected) in [
            ("", 0, Some((true, None))),
            ("17", 0, Some((true, Some(17)))),
            ("-17", 0, Some((false, Some(17)))),
            ("0", 0, Some((true, Some(0)))),
            ("-0", 0, Some((false, Some(0)))),
            ("17", 1, Some((false, Some(17)))),
            ("17@1", 1, Some((true, Some(17)))),
            ("@1", 1, Some((true, None))),
            ("@1", 2, Some((false, None))),
            ("17@x", 0, None),
            ("x", 0, None),
        ] {
            assert_eq!(mind(value, era), expected, "{value} {era}");
        }
    }
}

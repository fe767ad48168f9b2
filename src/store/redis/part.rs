//! A part of a batch as the script is told it, and what the script answers and publishes.

use super::{
    KEEP_MARKS, REPLICATE_WITHIN, Shared,
    link::{Failure, Link},
};
use crate::store::{
    Step, StoreLimits,
    change::{BatchId, Change, ChangeKind, Count, LARGEST, Outcome, Post, Refused, VisitorKey},
};
use redis::{Cmd, ErrorKind, RedisError, cmd};
use std::{collections::HashMap, sync::atomic::Ordering::Relaxed};

/// Changes of one call of the script, and posts, at most: Redis does nothing else meanwhile.
pub(super) const MOST_CHANGES: usize = 200;
pub(super) const MOST_POSTS: usize = 100;

/// A part of a batch.
pub(super) struct Part<'c> {
    pub(super) batch: BatchId,
    pub(super) index: usize,
    pub(super) changes: &'c [Change],
    /// Nothing is applied where one change is refused.
    pub(super) strict: bool,
}

/// Splits a batch into what one call takes. A batch without changes is one part.
pub(super) fn split(mut changes: &[Change]) -> impl Iterator<Item = &[Change]> {
    let mut is_first = true;
    std::iter::from_fn(move || {
        if changes.is_empty() && !std::mem::take(&mut is_first) {
            return None;
        }
        is_first = false;
        let mut posts = HashMap::new();
        let mut fits = |change: &Change| {
            let further = posts.len();
            posts.entry(change.post.clone()).or_insert(further);
            posts.len() <= MOST_POSTS
        };
        let length = changes.iter().take(MOST_CHANGES).map_while(|change| Some(change).filter(|c| fits(c))).count();
        let (part, rest) = changes.split_at(length);
        changes = rest;
        Some(part)
    })
}

/// What each message begins with, and each answer of a script.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// The version with which this Redis began, which names its epoch.
    pub(super) floor: u64,
    /// The version before the change, and after it.
    pub(super) before: u64,
    pub(super) version: u64,
    /// What the Redis before this one had reached, as far as this one knows, and the version with which that began.
    pub(super) base: u64,
    pub(super) previous: u64,
    /// Who made the change.
    pub(super) server: u128,
}

impl Head {
    /// Reads the fields of a head, and returns those after it.
    fn read(line: &str) -> Option<(Self, std::str::Split<'_, char>)> {
        let mut fields = line.split(' ');
        let mut number = || fields.next()?.parse().ok();
        let (floor, before, version) = (number()?, number()?, number()?);
        let (base, previous) = (number()?, number()?);
        let server = u128::from_str_radix(fields.next()?, 16).ok()?;
        Some((Self { floor, before, version, base, previous, server }, fields))
    }
}

/// Reads a message of the channel.
pub(super) fn read_message(message: &[u8]) -> Option<(Head, Vec<Step>)> {
    let mut rest = message;
    let mut line = || -> Option<&str> {
        let end = rest.iter().position(|&byte| byte == b'\n')?;
        let line = std::str::from_utf8(&rest[..end]).ok()?;
        rest = &rest[end + 1..];
        Some(line)
    };
    let (head, mut fields) = Head::read(line()?)?;
    let named: usize = fields.next()?.parse().ok().filter(|named| *named <= MOST_POSTS)?;
    let posts: Vec<_> = (0..named).map(|_| line().map(Post::kept)).collect::<Option<_>>()?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        // `place likes count version`, and where it is a visitor's: a sign and the 16 bytes of the key, of any value.
        let mut number = || {
            let end = rest.iter().position(|byte| !byte.is_ascii_digit())?;
            let number: u64 = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
            rest = &rest[end + usize::from(rest[end] == b' ')..];
            Some(number)
        };
        let (place, likes) = (usize::try_from(number()?).ok()?, number()?);
        let count = Count { likes: number()?, version: number()? };
        let (sign, mut after) = rest.split_first()?;
        let mut minds = Vec::new();
        if matches!(sign, b'+' | b'-') {
            let (key, tail) = after.split_first_chunk()?;
            minds.push((VisitorKey(*key), *sign == b'+'));
            after = tail.strip_prefix(b"\n")?;
        }
        rest = after;
        // What cannot be would be taken for true further on.
        let is_sane = likes <= count.version && likes > 0 && (likes == 1 || likes <= count.likes);
        steps.push(Step { post: posts.get(place).filter(|_| is_sane)?.clone(), count, likes, minds });
    }
    Some((head, steps))
}

/// Applies a part, or learns what became of it.
pub(super) fn apply(
    link: &mut Link,
    shared: &Shared,
    limits: &StoreLimits,
    part: &Part<'_>,
) -> Result<Vec<Outcome>, Failure> {
    let mut places = HashMap::new();
    let mut posts = Vec::new();
    for change in part.changes {
        places.entry(&change.post).or_insert_with(|| {
            posts.push(&change.post);
            posts.len()
        });
    }
    let server = format!("{:032x}", part.batch.server);
    let keys: Vec<_> = posts.iter().map(|post| shared.visitors_of(post)).collect();
    let waits = shared.address.wait > 0;
    let arguments = |request: &mut Cmd, run: &str| {
        request.arg(4 + keys.len()).arg(shared.key("posts")).arg(shared.key("top")).arg(shared.key("meta"));
        request.arg(shared.key(&format!("batch:{server}"))).arg(&keys);
        request.arg(shared.channel()).arg(run).arg(shared.seen.load(Relaxed)).arg(&server);
        request.arg(part.batch.number).arg(part.index).arg(KEEP_MARKS.as_secs());
        request.arg(u8::from(part.strict)).arg(u8::from(!waits)).arg(limits.posts).arg(limits.visitors);
        request.arg(posts.len());
        posts.iter().for_each(|post| _ = request.arg(post.name()));
        for change in part.changes {
            request.arg(places[&change.post]);
            match &change.kind {
                ChangeKind::Likes(likes) => request.arg("l").arg(likes).arg(""),
                ChangeKind::Set(likes) => request.arg("s").arg(likes).arg(""),
                ChangeKind::Delete => request.arg("d").arg("").arg(""),
                ChangeKind::Visitor { visitor, liked, seq } => {
                    let seq = seq.map(|seq| seq.min(LARGEST).to_string()).unwrap_or_default();
                    request.arg(if *liked { "+" } else { "-" }).arg(&visitor.0).arg(seq)
                }
            };
        }
    };
    let (head, told) = link.ask(|open| {
        let (head, told, message): (String, String, Vec<u8>) = open.run(&shared.apply, arguments)?;
        if waits {
            // On the connection that has written, or it would not be waited for.
            let wait = &shared.address.wait;
            let within = REPLICATE_WITHIN.as_millis() as u64;
            let have: u32 = cmd("WAIT").arg(wait).arg(within).query(&mut open.connection)?;
            if have < *wait {
                return Ok((None, format!("{have} of {wait} replicas have it within {REPLICATE_WITHIN:?}")));
            }
            if !message.is_empty() {
                let _: () = cmd("PUBLISH").arg(shared.channel()).arg(message).query(&mut open.connection)?;
            }
        }
        let (head, _) = Head::read(&head).ok_or_else(|| not_understood(&head))?;
        Ok((Some(head), told))
    })?;
    let Some(head) = head else { return Err(Failure::Unanswered(told)) };
    shared.saw(head.version);
    let outcomes: Option<Vec<_>> = told.split(';').filter(|told| !told.is_empty()).map(outcome).collect();
    outcomes.ok_or_else(|| Failure::Unanswered(not_understood(&told).to_string()))
}

fn outcome(told: &str) -> Option<Outcome> {
    let mut fields = told.split(' ');
    match fields.next()? {
        "R" => Some(Outcome::Refused(match fields.next()? {
            "L" => Refused::Likes,
            "P" => Refused::Posts,
            "V" => Refused::Visitors,
            "B" => Refused::BelowVisitors,
            _ => return None,
        })),
        kind => {
            let count = Count { likes: fields.next()?.parse().ok()?, version: fields.next()?.parse().ok()? };
            match (kind, fields.next()) {
                ("A", None) => Some(Outcome::Applied(count)),
                ("U", Some(liked)) => Some(Outcome::Unchanged { count, liked: liked == "1" }),
                _ => None,
            }
        }
    }
}

fn not_understood(told: &str) -> RedisError {
    (ErrorKind::UnexpectedReturnType, "the script's answer is not understood", format!("{told:?}")).into()
}

/// Learns where Redis stands, and has all servers told so.
pub(super) fn beat(link: &mut Link, shared: &Shared) -> Result<Head, Failure> {
    let head = link.ask(|open| {
        let head: String = open.run(&shared.beat, |request, run| {
            request
                .arg(4)
                .arg(shared.key("posts"))
                .arg(shared.key("top"))
                .arg(shared.key("meta"))
                .arg(shared.key("batch"));
            request.arg(shared.channel()).arg(run).arg(shared.seen.load(Relaxed)).arg(0);
        })?;
        Head::read(&head).map(|(head, _)| head).ok_or_else(|| not_understood(&head))
    })?;
    shared.saw(head.version);
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn likes(post: usize) -> Change {
        Change { post: Post::kept(&post.to_string()), kind: ChangeKind::Likes(1) }
    }

    #[test]
    fn a_batch_is_split_into_parts_of_200_changes_of_100_posts() {
        let sizes = |changes: Vec<Change>| split(&changes).map(<[Change]>::len).collect::<Vec<_>>();
        assert_eq!(sizes(Vec::new()), [0]);
        assert_eq!(sizes((0..201).map(|_| likes(1)).collect()), [200, 1]);
        assert_eq!(sizes((0..250).map(likes).collect()), [100, 100, 50]);
        assert_eq!(sizes((0..300).map(|number| likes(number / 2)).collect()), [200, 100]);
    }

    #[test]
    fn a_message_is_read_back_whatever_bytes_a_key_has() {
        let key = VisitorKey(*b"\n +-0123456\n8\n\n\n");
        let message = [b"10 3 6 2 1 ff 2\na b\n\n0 2 7 5\n1 1 1 6+".as_slice(), &key.0, b"\n"].concat();
        let (head, steps) = read_message(&message).unwrap();
        assert_eq!(head, Head { floor: 10, before: 3, version: 6, base: 2, previous: 1, server: 255 });
        let step = |post: &str, likes, of, version, minds: &[_]| Step {
            post: Post::kept(post),
            count: Count { likes: of, version },
            likes,
            minds: minds.to_vec(),
        };
        assert_eq!(steps, [step("a b", 2, 7, 5, &[]), step("", 1, 1, 6, &[(key, true)])]);
        for length in 0..message.len() {
            assert!(read_message(&message[..length]).is_none_or(|(_, read)| read.len() < 2), "{length}");
        }
        for broken in ["0 0 0 0 0 1 1\na\n0 5 4 5\n", "0 0 0 0 0 1 1\na\n1 1 1 1\n", "0 0 0 0 0 1 1\na\n0 1 1 0\n"] {
            assert_eq!(read_message(broken.as_bytes()), None, "{broken}");
        }
    }

    #[test]
    fn an_answer_that_is_none_is_not_taken_for_one() {
        assert_eq!(outcome("A 3 4"), Some(Outcome::Applied(Count { likes: 3, version: 4 })));
        for told in ["", "A", "A 3", "A 3 x", "A 3 4 1", "U 3 4", "R", "R X", "B 3 4"] {
            assert_eq!(outcome(told), None, "{told}");
        }
    }
}

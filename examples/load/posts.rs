//! Many posts: which one the next like is for, and what may be shown of each.
//!
//! Every like is a new visitor's, so that each counts, and of two states of a post the one with the higher version must
//! have the higher count.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::check::{Failure, Kind, Result};
use crate::frame;
use crate::http;

/// Posts that a server tells of in one answer.
const POSTS_A_REQUEST: usize = 100;

/// A post at one moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Count {
    pub likes: u64,
    version: u64,
}

/// What a client is told in JSON.
#[derive(Debug, Eq, PartialEq)]
pub enum Told {
    Count(usize, Count),
    Answer,
}

/// All posts, with the likes that each has been sent.
pub struct Posts {
    posts: Vec<Post>,
    /// The chance of each post and of those before it.
    chances: Vec<f64>,
    random: u64,
    /// Visitors of this run have a name of its own: those of the run before like already.
    run: u64,
    visitors: u64,
}

#[derive(Clone, Copy)]
struct Post {
    /// As it was before the run.
    start: Count,
    /// The start and every like that was sent.
    ceiling: u64,
    newest: Count,
}

impl Posts {
    /// So many posts, `p0` and so on, as the server has them now. The chance of the nth to be liked is 1/n^`skew`.
    ///
    /// # Errors
    ///
    /// When the server does not tell their counts.
    pub fn new(addr: SocketAddr, number: usize, skew: f64) -> Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let start = ask(addr, number)?.into_iter();
        let posts = start.map(|start| Post { start, ceiling: start.likes, newest: start }).collect();
        Ok(Self { posts, chances: chances(number, skew), random: 1, run: now.as_nanos() as u64, visitors: 0 })
    }

    /// The likes that a post must have in the end.
    pub fn ceiling(&self, post: usize) -> u64 {
        self.posts[post].ceiling
    }

    /// A post, with its chance, and a new visitor of it. Notes that this like is sent.
    fn draw(&mut self) -> (usize, String) {
        // SplitMix64 by Steele, Lea and Flood.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let drawn = ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
        let drawn = drawn * self.chances.last().copied().unwrap_or_default();
        let post = self.chances.partition_point(|chance| *chance <= drawn).min(self.posts.len() - 1);
        self.posts[post].ceiling += 1;
        self.visitors += 1;
        (post, format!("{:016x}-{:08x}", self.run, self.visitors))
    }

    /// The frame of a like.
    pub fn like(&mut self) -> Vec<u8> {
        let (post, visitor) = self.draw();
        frame::text(&format!(r#"{{"type":"like","post":"p{post}","visitor":"{visitor}","seq":1}}"#))
    }

    /// The request of a like, and its post.
    pub fn put(&mut self, addr: SocketAddr) -> (usize, Vec<u8>) {
        let (post, visitor) = self.draw();
        (post, http::put(addr, &format!("?post=p{post}&visitor={visitor}&seq=1")))
    }

    /// Judges a message.
    ///
    /// # Errors
    ///
    /// When it is none of a like counter's, or what it tells of its post is wrong.
    pub fn told(&mut self, text: &[u8]) -> Result<Told> {
        let malformed = || Failure::new(Kind::Malformed, format!("was told {}", String::from_utf8_lossy(text)));
        let message: Value = serde_json::from_slice(text).map_err(|_| malformed())?;
        let post = message["post"].as_str().and_then(|name| name.strip_prefix('p')?.parse().ok());
        let post = post.filter(|post| *post < self.posts.len()).ok_or_else(malformed)?;
        match message["type"].as_str() {
            Some("count") => Ok(Told::Count(post, self.judge(post, &message)?)),
            Some("answer") => self.answered(post, &message).map(|()| Told::Answer),
            _ => Err(malformed()),
        }
    }

    /// Judges what became of a like of a post.
    ///
    /// # Errors
    ///
    /// When it is wrong.
    pub fn answered(&mut self, post: usize, answer: &Value) -> Result<()> {
        let count = self.judge(post, answer)?;
        if answer["liked"] != true || count.likes <= self.posts[post].start.likes {
            return Err(Failure::new(Kind::Lost, format!("was told that its like does not count: {answer}")));
        }
        Ok(())
    }

    fn judge(&mut self, post: usize, object: &Value) -> Result<Count> {
        let malformed = || Failure::new(Kind::Malformed, format!("was told {object}"));
        let number = |name: &str| object[name].as_u64().ok_or_else(malformed);
        let count = Count { likes: number("numLikes")?, version: number("version")? };
        let Post { start, ceiling, newest } = &mut self.posts[post];
        let fail = |kind, but: String| Err(Failure::new(kind, format!("was told {object}, but {but}")));
        if count.likes > *ceiling {
            return fail(Kind::Phantom, format!("likes were sent up to {ceiling} only"));
        }
        if count.version < start.version {
            return fail(Kind::Backwards, format!("/likes had said {start:?}"));
        }
        if count.version.cmp(&newest.version) != count.likes.cmp(&newest.likes) {
            return fail(Kind::Backwards, format!("somebody was told {newest:?}"));
        }
        if count.version > newest.version {
            *newest = count;
        }
        Ok(count)
    }

    /// Judges the counts that the server tells when all is over.
    ///
    /// # Errors
    ///
    /// At the first that is wrong.
    pub fn ended(&self, addr: SocketAddr) -> Result<()> {
        for (number, (post, now)) in self.posts.iter().zip(ask(addr, self.posts.len())?).enumerate() {
            let kind = if now.likes < post.ceiling { Kind::Lost } else { Kind::Phantom };
            if now.likes != post.ceiling {
                let text = format!("p{number} has {} likes in the end; {} were expected", now.likes, post.ceiling);
                return Err(Failure::new(kind, text));
            }
        }
        Ok(())
    }
}

/// What one client was shown of one post.
pub struct Watched {
    pub post: usize,
    newest: Option<Count>,
}

impl Watched {
    pub fn new(post: usize) -> Self {
        Self { post, newest: None }
    }

    /// The frame that asks for it.
    pub fn watch(&self) -> Vec<u8> {
        frame::text(&format!(r#"{{"type":"watch","post":"p{}"}}"#, self.post))
    }

    /// Whether a count with so many likes is still to be shown.
    pub fn is_behind(&self, target: u64) -> bool {
        self.newest.is_none_or(|newest| newest.likes < target)
    }

    /// Whether anything was shown.
    pub fn has_begun(&self) -> bool {
        self.newest.is_some()
    }

    /// Notes a count that was shown.
    ///
    /// # Errors
    ///
    /// When it is not newer than the one before.
    pub fn show(&mut self, count: Count) -> Result<()> {
        let last = self.newest.unwrap_or_default();
        if self.newest.is_some() && count.version <= last.version {
            let kind = if count == last { Kind::Repeated } else { Kind::Backwards };
            return Err(Failure::new(kind, format!("was shown {count:?} of p{} after {last:?}", self.post)));
        }
        self.newest = Some(count);
        Ok(())
    }
}

/// 1/1^`skew`, the sum of that and 1/2^`skew`, and so on.
fn chances(number: usize, skew: f64) -> Vec<f64> {
    let mut sum = 0.0;
    let mut next = |n: usize| {
        sum += (n as f64).powf(-skew);
        sum
    };
    (1..=number).map(&mut next).collect()
}

/// The counts of the first `number` posts.
fn ask(addr: SocketAddr, number: usize) -> Result<Vec<Count>> {
    let mut counts = Vec::with_capacity(number);
    while counts.len() < number {
        let names = counts.len()..number.min(counts.len() + POSTS_A_REQUEST);
        // A parameter twice, so that one post is answered as several are.
        let query: Vec<String> = names.clone().map(|post| format!("post=p{post}")).collect();
        let query = format!("?{}&{}", query[0], query.join("&"));
        let answer = http::ask(addr, &format!("/likes{query}"))?;
        for post in names {
            let object = &answer["posts"][post % POSTS_A_REQUEST];
            let count = object["numLikes"].as_u64().zip(object["version"].as_u64());
            let Some((likes, version)) = count.filter(|_| object["post"] == format!("p{post}")) else {
                return Err(Failure::setup(format!("{addr} did not tell the count of p{post}, but {answer}")));
            };
            counts.push(Count { likes, version });
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn posts(number: usize, skew: f64) -> Posts {
        let mut posts = Posts { posts: Vec::new(), chances: chances(number, skew), random: 1, run: 7, visitors: 0 };
        let start = Count { likes: 5, version: 9 };
        posts.posts = vec![Post { start, ceiling: 7, newest: start }; number];
        posts
    }

    fn kind(told: Result<()>) -> Kind {
        told.unwrap_err().kind
    }

    #[test]
    fn of_two_states_of_a_post_the_higher_version_has_the_higher_count() {
        let mut posts = posts(1, 0.0);
        let mut told = |likes: u64, version: u64| {
            let text = json!({ "type": "count", "post": "p0", "numLikes": likes, "version": version });
            posts.told(text.to_string().as_bytes()).map(drop)
        };
        told(5, 9).unwrap();
        told(7, 20).unwrap();
        told(6, 15).unwrap();
        assert_eq!(kind(told(8, 21)), Kind::Phantom);
        assert_eq!(kind(told(4, 8)), Kind::Backwards);
        assert_eq!(kind(told(7, 21)), Kind::Backwards);
        assert_eq!(kind(told(6, 20)), Kind::Backwards);
    }

    #[test]
    fn a_like_that_does_not_count_is_lost() {
        let mut posts = posts(1, 0.0);
        let mut answered = |likes: u64, liked: bool| {
            posts.answered(0, &json!({ "numLikes": likes, "version": likes + 4, "liked": liked }))
        };
        answered(6, true).unwrap();
        assert_eq!(kind(answered(6, false)), Kind::Lost);
        assert_eq!(kind(answered(5, true)), Kind::Lost);
    }

    #[test]
    fn likes_go_to_each_post_by_its_chance() {
        let mut shares = posts(3, 1.0);
        let mut drawn = [0; 3];
        (0..11_000).for_each(|_| drawn[shares.draw().0] += 1);
        for (drawn, expected) in drawn.into_iter().zip([6000_i32, 3000, 2000]) {
            assert!((expected - 300..expected + 300).contains(&drawn), "{drawn} of {expected}");
        }
    }
}

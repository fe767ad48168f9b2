//! Many posts, and who likes them, in Redis, for several servers at once.
//!
//! One script applies a part of a batch, on the saver's thread, and publishes what has changed; a batch has a number, so
//! that one whose answer was lost is given again and counts once. A thread [follows](feed) what the other servers
//! publish, and readers ask Redis on the threads of those who want to know. All keys: docs/REDIS.md.
//!
//! What is saved is as safe as Redis is told to keep it, which is [said](durability) at the start.
//!
//! What must never happen here: a batch that counts twice, or two counts under one version.

pub(super) mod admin;
mod durability;
mod feed;
mod link;
mod part;
mod readers;
mod url;

use crate::{
    error::{Error, Result},
    metrics::Remote,
    store::{
        Feed, Reader, Store, StoreLimits,
        change::{BatchId, Change, Count, Outcome, Post},
    },
};
use feed::Following;
use link::{Failure, Link, Script};
use part::Part;
use readers::Readers;
use redis::RedisError;
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use url::Address;

/// How long Redis keeps the mark of a server's last batch.
const KEEP_MARKS: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long a batch is given again. Shorter, so that its mark is there as long as it may be.
const TRY_FOR: Duration = Duration::from_secs(6 * 24 * 3600);

/// How long replicas are waited for, where that is asked for.
const REPLICATE_WITHIN: Duration = Duration::from_secs(1);

/// What all parts of a store share.
struct Shared {
    address: Address,
    apply: Script,
    beat: Script,
    /// The highest version that was told.
    seen: AtomicU64,
    remote: Arc<Remote>,
}

impl Shared {
    fn new(name: &str) -> Result<Self, String> {
        Ok(Self {
            address: Address::parse(name)?,
            apply: Script::new(concat!(include_str!("epoch.lua"), include_str!("apply.lua"))),
            beat: Script::new(concat!(include_str!("epoch.lua"), include_str!("beat.lua"))),
            seen: AtomicU64::new(0),
            remote: Arc::default(),
        })
    }

    /// The key of this name. The braces keep all keys of a prefix on one node of a cluster.
    fn key(&self, name: &str) -> String {
        format!("{{{}}}:{name}", self.address.prefix)
    }

    fn visitors_of(&self, post: &Post) -> String {
        self.key(&format!("visitors:{}", post.name()))
    }

    /// Where changes are published. Channels are those of all databases together.
    fn channel(&self) -> String {
        self.key(&format!("changes:{}", self.address.connection.redis_settings().db()))
    }

    fn saw(&self, version: u64) {
        self.seen.fetch_max(version, Relaxed);
    }

    fn tell(&self, e: &RedisError) -> String {
        let problem = if e.is_timeout() { "it does not answer in time".to_owned() } else { e.to_string() };
        format!("Redis at {}: {problem}", self.address)
    }
}

/// Many posts, and who likes them, in Redis, for several servers at once.
///
/// It is named `redis://host:port/0?prefix=likes`, `rediss://…` for TLS, or `redis+unix:///path?db=0`. The user and the
/// password stand in the environment, as `LIVE_LIKES_REDIS_USER` and `LIVE_LIKES_REDIS_PASSWORD`. With `wait=1` a like is
/// answered, and told to other servers, once one replica has it.
///
/// What a change is worth once it is saved is what Redis is told to do: with `appendonly yes` and `appendfsync always` it
/// survives a crash of Redis. A failover may lose what the replica has not received.
pub struct RedisStore {
    shared: Arc<Shared>,
    link: Link,
    limits: StoreLimits,
    /// The batch whose outcome is not known, and since when.
    unknown: Option<(BatchId, Instant)>,
    readers: Arc<Readers>,
    following: Option<Following>,
    server: Arc<ServerName>,
    durability: durability::Durability,
}

/// The name by which this server's own changes are known, which its first batch brings.
type ServerName = std::sync::OnceLock<u128>;

impl RedisStore {
    /// Opens the store for a server.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] where the name or the environment is not as expected, where Redis is not reached, is older
    /// than 7.0 or keeps something else under the prefix, and where it deletes keys when its memory is full
    /// (`maxmemory-policy`), unless `evict=allow` is part of the name.
    pub fn open(name: impl AsRef<Path>, limits: StoreLimits) -> Result<Self> {
        let name = name.as_ref();
        open(name, limits).map_err(|problem| refused(name, problem))
    }
}

/// A name with a password in it is not repeated.
fn refused(name: &Path, problem: String) -> Error {
    let text = name.to_string_lossy();
    let hides = text.contains('@') || redis::parse_redis_url(&text).is_none();
    let path = match text.split_once("://") {
        Some((scheme, _)) if hides => format!("{scheme}://…").into(),
        _ => name.to_owned(),
    };
    Error::Database { path, problem }
}

fn open(name: &Path, limits: StoreLimits) -> Result<RedisStore, String> {
    let shared = Arc::new(Shared::new(name.to_str().ok_or("valid UTF-8 is expected")?)?);
    let mut link = Link::new(shared.clone());
    let durability = durability::read(&mut link, &shared)?;
    part::beat(&mut link, &shared).map_err(|e| e.to_string())?;
    let readers = Arc::new(Readers::new(shared.clone()));
    let server = Arc::default();
    Ok(RedisStore { shared, link, limits, unknown: None, readers, following: None, server, durability })
}

impl Store for RedisStore {
    fn count(&mut self, post: &Post) -> Result<Count> {
        Ok(self.readers.read(&[(post.clone(), None)])?[0].0)
    }

    fn apply(&mut self, batch: BatchId, changes: &[Change]) -> Result<Vec<Outcome>> {
        self.server.get_or_init(|| batch.server);
        let unknown_since = self.unknown.filter(|(unknown, _)| *unknown == batch).map(|(_, since)| since);
        if unknown_since.is_some_and(|since| since.elapsed() > TRY_FOR) {
            return Err(Error::Stopped("Redis may have forgotten by now whether it has applied a batch".to_owned()));
        }
        let mut outcomes = Vec::with_capacity(changes.len());
        for (index, part) in part::split(changes).enumerate() {
            let part = Part { batch, index, changes: part, strict: false };
            match part::apply(&mut self.link, &self.shared, &self.limits, &part) {
                Ok(applied) => outcomes.extend(applied),
                Err(Failure::Refused(code, problem)) if code == "LATER" => return Err(Error::Stopped(problem)),
                // Of a batch nothing is saved, or all of it: a part that is saved is asked for again with the others.
                Err(Failure::NotSent(problem) | Failure::Refused(_, problem))
                    if index == 0 && unknown_since.is_none() =>
                {
                    return Err(Error::NotSaved(problem));
                }
                Err(failure) => {
                    self.unknown = Some((batch, unknown_since.unwrap_or_else(Instant::now)));
                    return Err(Error::Unknown(failure.to_string()));
                }
            }
        }
        self.unknown = None;
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

    fn follow(&mut self, feed: Feed) {
        self.durability.log();
        feed.follower.measure(self.shared.remote.clone());
        match Following::start(self.shared.clone(), self.readers.clone(), self.server.clone(), feed) {
            Ok(following) => self.following = Some(following),
            Err(e) => log::error!("what other servers change is not shown: {e}"),
        }
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.following.take();
        self.readers.close();
    }
}

impl std::fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisStore").field("address", &self.shared.address.to_string()).finish_non_exhaustive()
    }
}

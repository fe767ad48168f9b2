//! What "saved" means on this Redis: what it is told to do, said in one line at the start.

use super::{
    Shared,
    link::{Failure, Link},
};
use redis::{RedisResult, cmd};
use std::collections::HashMap;

/// What Redis is told to do.
#[derive(Debug)]
pub(super) struct Durability {
    line: String,
    /// A crash may take likes back.
    is_weak: bool,
}

impl Durability {
    pub(super) fn log(&self) {
        log::log!(if self.is_weak { log::Level::Warn } else { log::Level::Info }, "{}", self.line);
    }
}

/// Asks Redis, and refuses one that deletes counts.
pub(super) fn read(link: &mut Link, shared: &Shared) -> Result<Durability, String> {
    let ask = |link: &mut Link| {
        link.ask(|open| {
            let mut request = cmd("INFO");
            request.arg("server").arg("replication").arg("persistence").arg("memory");
            let info: String = request.query(&mut open.connection)?;
            let mut request = cmd("CONFIG");
            request.arg("GET").arg("appendfsync").arg("save").arg("min-replicas-to-write");
            let config: RedisResult<HashMap<String, String>> = request.query(&mut open.connection);
            Ok((info, config.ok()))
        })
    };
    let (info, config) = ask(link).map_err(|e: Failure| e.to_string())?;
    let info: HashMap<&str, &str> = info.lines().filter_map(|line| line.trim().split_once(':')).collect();
    let of = |name: &str| info.get(name).copied().unwrap_or_default();
    let policy = of("maxmemory_policy");
    if policy != "noeviction" && !policy.is_empty() && !shared.address.evict {
        return Err(format!(
            "this Redis deletes keys, and so counts, when its memory is full (maxmemory-policy {policy}): noeviction is \
             expected, or evict=allow in the name"
        ));
    }
    if of("role") != "master" {
        return Err("it is a replica, which takes no likes; its primary is expected".to_owned());
    }
    let config = config.as_ref();
    let told = |name: &str| config.and_then(|config| config.get(name)).map(String::as_str);
    let (means, is_weak) = match (of("aof_enabled"), told("appendfsync")) {
        ("1", Some("always")) => ("a like is on the disk of Redis (appendfsync always)".to_owned(), false),
        ("1", Some("everysec")) => {
            ("a crash of its machine may take back the likes of the last second (appendfsync everysec)".to_owned(), true)
        }
        ("1", Some(other)) => (
            format!("a crash of its machine may take back the likes of about the last 30 s (appendfsync {other})"),
            true,
        ),
        ("1", None) => (
            "a like is in the append-only file of Redis; how soon on its disk is not known, since this user may not ask \
             for CONFIG (appendfsync)"
                .to_owned(),
            true,
        ),
        _ if told("save").is_some_and(str::is_empty) => {
            ("nothing: whenever Redis ends, all likes are gone (appendonly no, save \"\")".to_owned(), true)
        }
        _ => (
            "little: whenever Redis crashes, all likes since its last snapshot are gone (appendonly no)".to_owned(),
            true,
        ),
    };
    let replicas: u32 = of("connected_slaves").parse().unwrap_or(0);
    let wait = shared.address.wait;
    let replicas = match (replicas, wait) {
        (0, 0) => "it has no replica".to_owned(),
        (replicas, 0) => format!("a failover may lose what its {replicas} replicas have not received (wait=0)"),
        (replicas, wait) => {
            format!("a like is answered once {wait} of its replicas have received it, and {replicas} are connected")
        }
    };
    let evicts = if policy == "noeviction" { String::new() } else { format!("; it may delete counts ({policy})") };
    let line = format!(
        "likes are kept in Redis {} at {} under `{}`. Saved means: {means}; {replicas}{evicts}",
        of("redis_version"),
        shared.address,
        shared.address.prefix
    );
    Ok(Durability { line, is_weak: is_weak || !evicts.is_empty() })
}

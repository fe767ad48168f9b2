//! A connection to Redis that is made when it is needed, and dropped where its next answer could be the last request's.

use super::Shared;
use redis::{Client, Cmd, Connection, ErrorKind, RedisError, RedisResult, ServerErrorKind, cmd};
use sha1::{Digest, Sha1};
use std::{fmt, sync::Arc, time::Duration};

/// How long a connection may take.
const CONNECT_WITHIN: Duration = Duration::from_millis(300);

/// How long Redis may take over an answer. Shorter than the time after which a save counts as hanging, so that an answer
/// that was lost is asked for again before.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// A script, which Redis knows by its hash.
pub(super) struct Script {
    text: &'static str,
    hash: String,
}

impl Script {
    pub(super) fn new(text: &'static str) -> Self {
        let hash = Sha1::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { text, hash }
    }
}

/// What became of a request that was not answered.
#[derive(Debug)]
pub(super) enum Failure {
    /// Redis did not get it.
    NotSent(String),
    /// Redis refused it, and has changed nothing: the code, and what it said.
    Refused(String, String),
    /// It is not known whether Redis did it.
    Unanswered(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent(problem) | Self::Refused(_, problem) | Self::Unanswered(problem) => f.write_str(problem),
        }
    }
}

/// A connection, if there is one just now.
pub(super) struct Link {
    shared: Arc<Shared>,
    open: Option<Open>,
    /// It had one before.
    was_open: bool,
}

pub(super) struct Open {
    pub(super) connection: Connection,
    /// The name of this start of Redis.
    pub(super) run: String,
}

impl Link {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, open: None, was_open: false }
    }

    /// Asks, over a new connection if there is none. Over one that was broken meanwhile it asks again, so it must not
    /// matter how often Redis is asked.
    pub(super) fn ask<T>(&mut self, request: impl Fn(&mut Open) -> RedisResult<T>) -> Result<T, Failure> {
        let mut lost = None;
        loop {
            let is_new = self.open.is_none();
            let open = match &mut self.open {
                Some(open) => open,
                none => none.insert(connect(&self.shared).map_err(|e| lost.take().map_or(e, Failure::Unanswered))?),
            };
            if is_new && std::mem::replace(&mut self.was_open, true) {
                self.shared.remote.reconnected();
            }
            self.shared.remote.asked();
            let error = match request(open) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if let Some(refused) = refusal(&error) {
                // Not the Redis any more that takes changes, or not yet.
                if refused != ErrorKind::Server(ServerErrorKind::NoPerm) {
                    self.open = None;
                }
                // What was lost before may have been done all the same.
                return Err(lost.take().map_or_else(|| refused_as(&error), Failure::Unanswered));
            }
            self.open = None;
            let problem = self.shared.tell(&error);
            if is_new || error.is_timeout() {
                return Err(Failure::Unanswered(problem));
            }
            lost = Some(problem);
        }
    }

    /// Hands the connection out, for what is no request with one answer.
    pub(super) fn take(&mut self) -> Result<Connection, Failure> {
        let open = self.open.take().map_or_else(|| connect(&self.shared), Ok)?;
        if std::mem::replace(&mut self.was_open, true) {
            self.shared.remote.reconnected();
        }
        Ok(open.connection)
    }
}

impl Open {
    /// Runs a script, whose text Redis is told where it does not know it.
    pub(super) fn run<T: redis::FromRedisValue>(
        &mut self,
        script: &Script,
        arguments: impl Fn(&mut Cmd, &str),
    ) -> RedisResult<T> {
        let mut request = cmd("EVALSHA");
        arguments(request.arg(&script.hash), &self.run);
        match request.query(&mut self.connection) {
            Err(e) if e.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                let mut request = cmd("EVAL");
                arguments(request.arg(script.text), &self.run);
                request.query(&mut self.connection)
            }
            answered => answered,
        }
    }
}

/// Connects, and asks who is there before all else.
fn connect(shared: &Shared) -> Result<Open, Failure> {
    let open = || {
        let client = Client::open(shared.address.connection.clone())?;
        let mut connection = client.get_connection_with_timeout(CONNECT_WITHIN)?;
        connection.set_read_timeout(Some(ANSWER_WITHIN))?;
        connection.set_write_timeout(Some(ANSWER_WITHIN))?;
        let told: String = cmd("INFO").arg("server").query(&mut connection)?;
        for script in [&shared.apply, &shared.beat] {
            // Where this is not permitted, the text is told with the first request.
            let _: RedisResult<String> = cmd("SCRIPT").arg("LOAD").arg(script.text).query(&mut connection);
        }
        Ok((connection, told))
    };
    shared.remote.asked();
    let (connection, told) = open().map_err(|e: RedisError| match refusal(&e) {
        Some(ErrorKind::Server(ServerErrorKind::NoPerm)) => {
            Failure::Refused("NOPERM".to_owned(), format!("{}; docs/REDIS.md has what the user needs", said(&e)))
        }
        Some(_) => refused_as(&e),
        None => Failure::NotSent(shared.tell(&e)),
    })?;
    let of_server = |name: &str| told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let (version, run) = (of_server("redis_version").unwrap_or_default(), of_server("run_id").unwrap_or_default());
    let major = version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
    if major < 7 || run.is_empty() {
        let problem = format!("Redis 7.0 or later is expected at {}, and this is `{version}`", shared.address);
        return Err(Failure::Refused("VERSION".to_owned(), problem));
    }
    Ok(Open { connection, run: run.trim().to_owned() })
}

/// The kind of an error that Redis told.
fn refusal(e: &RedisError) -> Option<ErrorKind> {
    matches!(e.kind(), ErrorKind::Server(_) | ErrorKind::Extension | ErrorKind::AuthenticationFailed).then(|| e.kind())
}

fn refused_as(e: &RedisError) -> Failure {
    Failure::Refused(e.code().unwrap_or_default().to_owned(), said(e))
}

/// What Redis said, in its own words.
fn said(e: &RedisError) -> String {
    format!("Redis says: {}", e.detail().map_or_else(|| e.to_string(), str::to_owned))
}

//! What the name of a store in Redis says: `redis://host:port/0?prefix=likes`.

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo, io::tcp::TcpSettings};
use std::{env, fmt};

/// What the name must look like.
const EXPECTED: &str = "redis://HOST:PORT/DB?prefix=NAME is expected, rediss:// with TLS, or redis+unix:///SOCKET?db=N";

/// Where the user and the password stand.
const USER: &str = "LIVE_LIKES_REDIS_USER";
const PASSWORD: &str = "LIVE_LIKES_REDIS_PASSWORD";

/// Where the store is and what it is told.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) connection: ConnectionInfo,
    /// What all its keys begin with, in braces.
    pub(super) prefix: String,
    /// How many replicas must have a like before it is answered.
    pub(super) wait: u32,
    /// A Redis that deletes keys when its memory is full is taken too.
    pub(super) evict: bool,
}

impl Address {
    /// Reads a name, and the user and the password from the environment.
    pub(super) fn parse(name: &str) -> Result<Self, String> {
        Self::with(name, |variable| env::var(variable).ok().filter(|value| !value.is_empty()))
    }

    fn with(name: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let url = redis::parse_redis_url(name).ok_or(EXPECTED)?;
        if url.password().is_some() || !url.username().is_empty() {
            // It would stand in the list of processes, and in logs.
            return Err(format!(
                "a user and a password of Redis are expected in the environment: {USER} and {PASSWORD}"
            ));
        }
        let (mut db, mut prefix, mut wait, mut evict) = (0, "likes".to_owned(), 0, false);
        let number =
            |text: &str, what| text.parse::<u16>().map_err(|_| format!("a whole number is expected for `{what}`"));
        let has_host = url.host_str().is_some_and(|host| !host.is_empty());
        let addr = match (url.scheme(), url.host_str().unwrap_or_default()) {
            ("redis+unix", _) if !has_host && url.path().len() > 1 => {
                let path = percent_encoding::percent_decode_str(url.path()).decode_utf8().map_err(|_| EXPECTED)?;
                ConnectionAddr::Unix(path.into_owned().into())
            }
            (scheme @ ("redis" | "rediss"), host) if has_host => {
                let path = url.path().trim_start_matches('/');
                db = if path.is_empty() { 0 } else { number(path, "DB")? };
                // An address of IPv6 stands in brackets.
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                let port = url.port().unwrap_or(6379);
                if scheme == "redis" {
                    ConnectionAddr::Tcp(host, port)
                } else {
                    ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
                }
            }
            _ => return Err(EXPECTED.to_owned()),
        };
        let is_socket = matches!(addr, ConnectionAddr::Unix(_));
        for (key, value) in url.query_pairs() {
            match &*key {
                "prefix" => prefix = value.into_owned(),
                "wait" => wait = number(&value, "wait")?,
                "evict" if value == "allow" => evict = true,
                "db" if is_socket => db = number(&value, "db")?,
                _ => return Err(format!("`{key}` is not expected: prefix=NAME, wait=REPLICAS and evict=allow are")),
            }
        }
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        if prefix.is_empty() || prefix.len() > 64 || !prefix.bytes().all(is_plain) {
            return Err("a prefix of 1 to 64 characters of A-Z a-z 0-9 - _ . : is expected".to_owned());
        }
        let mut settings = RedisConnectionInfo::default().set_db(i64::from(db)).set_skip_set_lib_name();
        if let Some(password) = variable(PASSWORD) {
            settings = settings.set_password(password);
            if let Some(user) = variable(USER) {
                settings = settings.set_username(user);
            }
        } else if variable(USER).is_some() {
            return Err(format!("a password is expected in the environment, as {PASSWORD}, for the user in {USER}"));
        }
        let connection = addr.into_connection_info().map_err(|e| e.to_string())?;
        let connection =
            connection.set_redis_settings(settings).set_tcp_settings(TcpSettings::default().set_nodelay(true));
        Ok(Self { connection, prefix, wait: u32::from(wait), evict })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.connection.addr())
    }
}

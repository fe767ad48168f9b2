//! Who may ask: the rules for `Host` and `Origin`. A table of names; knows no socket.
//!
//! A browser lets any page open a WebSocket to any server, and a name of an attacker's can be made to point at
//! 127.0.0.1 (DNS rebinding). So a like from a browser must come from a page of this server's own, or of one that was
//! named, and a server on a loopback address answers to loopback names and to those that it was told.

use crate::{
    error::{Error, Result},
    http::request::authority,
};
use ::http::{HeaderValue, uri::Authority};
use std::net::IpAddr;

/// The names that are allowed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Access {
    hosts: Vec<Authority>,
    origins: Vec<Named>,
}

/// An origin that was allowed: `https://blog.example` exactly, or `blog.example` under any scheme and port.
#[derive(Clone, Debug)]
struct Named {
    scheme: Option<String>,
    authority: Authority,
}

impl Access {
    pub(crate) fn new(hosts: &[String], origins: &[String]) -> Result<Self> {
        let hosts = hosts
            .iter()
            .map(|name| authority(name.as_bytes()).ok_or_else(|| bad(name, "a host name, perhaps with a port")))
            .collect::<Result<_>>()?;
        let origins = origins
            .iter()
            .map(|name| {
                let (scheme, host) = match name.split_once("://") {
                    Some((scheme, host)) => (Some(scheme.to_ascii_lowercase()), host),
                    None => (None, name.as_str()),
                };
                let authority = authority(host.as_bytes())
                    .ok_or_else(|| bad(name, "an origin such as https://blog.example, or a host name"))?;
                Ok(Named { scheme, authority })
            })
            .collect::<Result<_>>()?;
        Ok(Self { hosts, origins })
    }

    /// Whether a request may name this host. `loopback`: the server listens on a loopback address.
    pub(crate) fn host(&self, host: Option<&Authority>, loopback: bool) -> bool {
        let Some(host) = host else {
            return true; // HTTP/1.0 without Host, which no browser speaks
        };
        if self.hosts.is_empty() && !loopback {
            return true;
        }
        is_loopback_name(host.host()) || self.hosts.iter().any(|allowed| fits(allowed, host))
    }

    /// Whether a page of this origin may like and watch. No origin at all comes from no page.
    pub(crate) fn origin(&self, origin: Option<&HeaderValue>, host: Option<&Authority>) -> bool {
        let Some(origin) = origin else { return true };
        let Some((scheme, page)) = origin
            .to_str()
            .ok()
            .and_then(|origin| origin.split_once("://"))
            .and_then(|(scheme, page)| Some((scheme.to_ascii_lowercase(), authority(page.as_bytes())?)))
        else {
            return false; // `null`, or no origin at all
        };
        let named = |allowed: &Named| match &allowed.scheme {
            Some(wanted) => {
                *wanted == scheme
                    && allowed.authority.host() == page.host()
                    && port(&allowed.authority, &scheme) == port(&page, &scheme)
            }
            None => fits(&allowed.authority, &page),
        };
        if self.origins.iter().any(named) {
            return true;
        }
        // `Host` leaves out the port that belongs to the scheme, which a proxy in front may have changed.
        host.is_some_and(|host| {
            port(host, &scheme) == port(&page, &scheme)
                && (host.host() == page.host() || is_loopback_name(host.host()) && is_loopback_name(page.host()))
        })
    }
}

fn bad(name: &str, expected: &'static str) -> Error {
    Error::Name { name: name.to_owned(), expected }
}

/// A name without a port allows every port.
fn fits(allowed: &Authority, asked: &Authority) -> bool {
    allowed.host() == asked.host() && (allowed.port_u16().is_none() || allowed.port_u16() == asked.port_u16())
}

fn port(authority: &Authority, scheme: &str) -> Option<u16> {
    authority.port_u16().or(match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    })
}

/// `localhost` and what is below it (RFC 6761 section 6.3), 127.0.0.0/8, `[::1]`.
pub(crate) fn is_loopback_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host == "localhost"
        || host.ends_with(".localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(hosts: &[&str], origins: &[&str]) -> Access {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        Access::new(&owned(hosts), &owned(origins)).unwrap()
    }

    #[test]
    fn on_a_loopback_address_only_loopback_names_and_named_hosts_are_answered() {
        let access = access(&["likes.example", "other.example:8080"], &[]);
        for (host, allowed) in [
            ("localhost", true),
            ("localhost:3000", true),
            ("LOCALHOST:3000", true),
            ("localhost.", true),
            ("blog.localhost:3000", true),
            ("127.0.0.1:3000", true),
            ("127.9.8.7", true),
            ("[::1]:3000", true),
            ("[::ffff:127.0.0.1]", true),
            ("likes.example", true),
            ("likes.example:3000", true),
            ("other.example:8080", true),
            ("other.example", false),
            ("other.example:80", false),
            ("sub.likes.example", false),
            ("localhost.evil.example", false),
            ("evil-localhost", false),
            ("127.0.0.1.evil.example", false),
            ("128.0.0.1", false),
            ("[::2]", false),
            ("evil.example:3000", false),
        ] {
            let host = authority(host.as_bytes()).unwrap();
            assert_eq!(access.host(Some(&host), true), allowed, "{host:?}");
        }
        assert!(access.host(None, true));
    }

    #[test]
    fn elsewhere_any_host_is_answered_until_names_are_given() {
        let evil = authority(b"evil.example").unwrap();
        assert!(access(&[], &[]).host(Some(&evil), false));
        assert!(!access(&["likes.example"], &[]).host(Some(&evil), false));
    }

    #[test]
    fn an_origin_is_the_host_s_own_or_named_or_loopback_with_the_same_port() {
        let access = access(&[], &["https://blog.example", "http://odd.example:8080", "any.example"]);
        for (origin, host, allowed) in [
            (None, "likes.example", true),
            (Some("null"), "likes.example", false),
            (Some(""), "likes.example", false),
            (Some("likes.example"), "likes.example", false),
            (Some("http://likes.example"), "likes.example", true),
            (Some("https://likes.example"), "likes.example", true), // TLS ends at a proxy in front
            (Some("http://LIKES.example"), "likes.example", true),
            (Some("http://likes.example:80"), "likes.example", true),
            (Some("http://likes.example"), "likes.example:80", true),
            (Some("https://likes.example"), "likes.example:443", true),
            (Some("http://likes.example:3000"), "likes.example:3000", true),
            (Some("http://likes.example:3000"), "likes.example", false),
            (Some("http://likes.example"), "likes.example:3000", false),
            (Some("http://likes.example:3001"), "likes.example:3000", false),
            (Some("http://sub.likes.example"), "likes.example", false),
            (Some("http://evil.example"), "likes.example", false),
            (Some("http://likes.example.evil.example"), "likes.example", false),
            (Some("http://likes.example@evil.example"), "likes.example", false),
            (Some("http://likes.example/"), "likes.example", false),
            (Some("http://localhost:3000"), "127.0.0.1:3000", true),
            (Some("http://127.0.0.1:3000"), "localhost:3000", true),
            (Some("http://[::1]:3000"), "localhost:3000", true),
            (Some("http://localhost:3001"), "127.0.0.1:3000", false),
            (Some("http://localhost"), "127.0.0.1:3000", false),
            (Some("http://localhost.evil.example:3000"), "localhost:3000", false),
            (Some("http://evil.example:3000"), "localhost:3000", false),
            (Some("https://blog.example"), "likes.example", true),
            (Some("https://blog.example:443"), "likes.example", true),
            (Some("http://blog.example"), "likes.example", false),
            (Some("https://blog.example:444"), "likes.example", false),
            (Some("http://odd.example:8080"), "likes.example", true),
            (Some("http://odd.example"), "likes.example", false),
            (Some("http://any.example:1"), "likes.example", true),
            (Some("https://any.example"), "likes.example", true),
            (Some("https://sub.any.example"), "likes.example", false),
            (Some("chrome-extension://abcdef"), "likes.example", false),
            (Some("file://"), "likes.example", false),
        ] {
            let host = authority(host.as_bytes()).unwrap();
            let origin = origin.map(HeaderValue::from_static);
            assert_eq!(access.origin(origin.as_ref(), Some(&host)), allowed, "{origin:?} at {host:?}");
        }
        assert!(!access.origin(Some(&HeaderValue::from_static("http://likes.example")), None));
    }

    #[test]
    fn a_name_that_is_none_is_refused_by_name() {
        for name in ["", "a b", "user@host", "host/path", "host:port", "[::1"] {
            let error = Access::new(&[name.to_owned()], &[]).unwrap_err();
            assert!(error.to_string().contains(&format!("`{name}`")), "{error}");
            assert!(Access::new(&[], &[format!("https://{name}")]).is_err(), "{name}");
        }
    }
}

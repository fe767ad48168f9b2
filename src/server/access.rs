//! Who may ask: the rules for `Host` and `Origin`. A table of names; knows no socket.
//!
//! A browser lets any page open a WebSocket to any server, and a name of an attacker's can be made to point at
//! 127.0.0.1 (DNS rebinding). So a like from a browser must come from a page of this server's own, or of one that was
//! named, and a server on a loopback address answers to loopback names and to those that it was told.

use crate::{
    error::{Error, Result},
    http::request::authority,
    likes::sync::{Mutex, lock},
};
use ::http::{HeaderValue, uri::Authority};
use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr},
};

/// What pages never come from, or what their origin does not say.
const NO_ORIGINS: [&str; 9] = ["about", "blob", "data", "file", "ftp", "javascript", "mailto", "ws", "wss"];

/// Refused names that are logged, each once. Whoever asks can make up more.
const LOGGED: usize = 100;

/// Longer than any name with a scheme and a port (RFC 1035 section 2.3.4).
const LONGEST: usize = 300;

/// The names that are allowed.
#[derive(Debug)]
pub(crate) struct Access {
    hosts: Vec<Authority>,
    origins: Vec<Origin>,
    any_origin: bool,
    /// What has been logged about names that are not.
    logged: Mutex<HashSet<String>>,
}

/// `https://blog.example`, or `blog.example` under `http` and `https` and, if it names none, any port.
#[derive(Debug)]
struct Origin {
    scheme: Option<String>,
    host: Authority,
}

impl Access {
    pub(crate) fn new(hosts: &[String], origins: &[String]) -> Result<Self> {
        let no_host = "a host name such as likes.example or likes.example:8080 (no scheme, no wildcard)";
        let no_origin = "an origin such as https://blog.example, a host name, or * for any origin (no path, no other \
            wildcard, not null or file://)";
        let bad = |name: &str, expected| Error::Name { name: name.to_owned(), expected };
        let host = |text: &String| name(text).ok_or_else(|| bad(text, no_host));
        let origin = |text: &String| Origin::read(text).ok_or_else(|| bad(text, no_origin));
        let (any, origins): (Vec<_>, Vec<_>) = origins.iter().partition(|text| *text == "*");
        Ok(Self {
            hosts: hosts.iter().map(host).collect::<Result<_>>()?,
            origins: origins.into_iter().map(origin).collect::<Result<_>>()?,
            any_origin: !any.is_empty(),
            logged: Mutex::default(),
        })
    }

    /// Whether a request may name this host. `loopback`: the server listens on a loopback address.
    pub(crate) fn host(&self, host: &Authority, loopback: bool) -> bool {
        // `Host` leaves out the port that belongs to the scheme.
        let has_port = |port| host.port_u16() == Some(port) || host.port().is_none() && matches!(port, 80 | 443);
        self.hosts.is_empty() && !loopback
            || is_loopback_name(host.host())
            || self.hosts.iter().any(|allowed| allowed.host() == host.host() && allowed.port_u16().is_none_or(has_port))
    }

    /// Whether a page of this origin may like and watch, on a server that it calls by this host and, where that is
    /// known, this scheme.
    pub(crate) fn origin(&self, origin: &HeaderValue, host: Option<&Authority>, called: Option<&str>) -> bool {
        if self.any_origin {
            return true;
        }
        let Some(Origin { scheme: Some(scheme), host: page }) = origin.to_str().ok().and_then(Origin::read) else {
            return false;
        };
        let is_web = matches!(scheme.as_str(), "http" | "https");
        let port = |host: &Authority| {
            host.port_u16().or(match scheme.as_str() {
                "http" => Some(80),
                "https" => Some(443),
                _ => None,
            })
        };
        let is_named = |allowed: &Origin| {
            allowed.host.host() == page.host()
                && match &allowed.scheme {
                    Some(wanted) => *wanted == scheme && port(&allowed.host) == port(&page),
                    None => is_web && (allowed.host.port().is_none() || allowed.host.port_u16() == port(&page)),
                }
        };
        let is_own = |host: &Authority| {
            called.is_none_or(|called| called == scheme)
                && port(host) == port(&page)
                && (host.host() == page.host() || is_loopback_name(host.host()) && is_loopback_name(page.host()))
        };
        self.origins.iter().any(is_named) || is_web && host.is_some_and(is_own)
    }

    /// What tells a browser that a page of an allowed origin may read a response.
    pub(crate) fn shared_with(&self, origin: &HeaderValue) -> HeaderValue {
        if self.any_origin { HeaderValue::from_static("*") } else { origin.clone() }
    }

    /// Logs that a host was refused, and the flag that allows it.
    pub(crate) fn log_host(&self, host: &Authority) {
        let host = host.as_str();
        self.log_once(match name(host) {
            Some(_) => format!("refused a request for the host {host}; --allow-host {host} allows it"),
            None => format!("refused a request for the host `{}`, which is no name", host.escape_default()),
        });
    }

    /// Logs that a page's origin was refused, and the flag that allows it. Returns the same for the page.
    pub(crate) fn refuse_origin(&self, origin: &HeaderValue) -> String {
        let text = origin.to_str().unwrap_or_default();
        match Origin::read(text) {
            Some(Origin { scheme: Some(_), .. }) => {
                self.log_once(format!("refused a page of the origin {text}; --allow-origin {text} allows it"));
                format!("pages of the origin {text} are not allowed; --allow-origin {text} allows them")
            }
            _ => {
                let (origin, only) = (origin.as_bytes().escape_ascii(), "only --allow-origin '*', for any origin,");
                self.log_once(format!("refused a page of the origin `{origin}`; {only} allows it"));
                format!(
                    "pages without an origin, as in a file or a sandboxed frame, are not allowed; {only} allows them"
                )
            }
        }
    }

    fn log_once(&self, mut message: String) {
        message.truncate(message.floor_char_boundary(2 * LONGEST));
        let mut logged = lock(&self.logged);
        let is_new = logged.len() < LOGGED && logged.insert(message.clone());
        drop(logged); // a log that nobody reads may block
        if is_new {
            log::warn!("{message}");
        }
    }
}

impl Origin {
    fn read(text: &str) -> Option<Self> {
        let (scheme, host) = match text.split_once("://") {
            Some((scheme, host)) => (Some(scheme.to_ascii_lowercase()), host),
            None => (None, text),
        };
        let fits = |scheme: &String| {
            scheme.starts_with(|first: char| first.is_ascii_alphabetic())
                && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
                && !NO_ORIGINS.contains(&scheme.as_str())
        };
        (text != "null" && scheme.as_ref().is_none_or(fits)).then_some(())?;
        Some(Self { scheme, host: name(host)? })
    }
}

/// A host that somebody could be reached at, with its port. Of what `Host` may hold, that leaves out what no name or
/// address is made of, such as a wildcard; what a shell would take for something else; and a number that is no whole
/// address of IPv4, which browsers refuse or write as one (URL Standard section 3.5).
fn name(text: &str) -> Option<Authority> {
    let authority = authority(text.as_bytes()).filter(|authority| authority.port_u16() != Some(0))?;
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let host = authority.host();
    let last = host.rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit())
        || last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let is_name = host.split('.').all(is_label) && (!is_number || host.parse::<Ipv4Addr>().is_ok());
    (text.len() <= LONGEST && (host.starts_with('[') || is_name)).then_some(authority)
}

/// The pages that may show this server's page in a frame, as `frame-ancestors` of a content policy names them (Content
/// Security Policy Level 3, section 6.4.2); `None` where none are named.
pub(crate) fn ancestors(names: &[String]) -> Result<Option<String>> {
    if names.iter().any(|name| name == "*") {
        return Ok(Some("*".to_owned()));
    }
    let mut sources = String::from("'self'");
    for name in names {
        // No policy names an address of IPv6.
        let origin = Origin::read(name).filter(|origin| !origin.host.host().starts_with('['));
        let Some(Origin { scheme, host }) = origin else {
            let expected = "an origin such as https://blog.example, a host name, or * for any page (no path, no other \
                wildcard, no address in brackets)";
            return Err(Error::Name { name: name.clone(), expected });
        };
        let port = if host.port().is_none() { ":*" } else { "" };
        sources += &match scheme {
            Some(scheme) => format!(" {scheme}://{host}"),
            None => format!(" http://{host}{port} https://{host}{port}"),
        };
    }
    Ok((!names.is_empty()).then_some(sources))
}

/// `localhost` and what is below it (RFC 6761 section 6.3), 127.0.0.0/8, `[::1]`.
fn is_loopback_name(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || address(host).is_some_and(|it| it.to_canonical().is_loopback())
}

/// The address that a host is, if it is no name.
pub(crate) fn address(host: &str) -> Option<IpAddr> {
    host.trim_matches(['[', ']']).parse().ok()
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
        let access = access(&["likes.example", "other.example.:8080", "web.example:80", "[2001:db8::0:1]"], &[]);
        for (host, allowed) in [
            ("localhost", true),
            ("localhost:3000", true),
            ("LOCALHOST:3000", true),
            ("localhost.", true),
            ("localhost.:3000", true),
            ("blog.localhost:3000", true),
            ("127.0.0.1:3000", true),
            ("127.9.8.7", true),
            ("[::1]:3000", true),
            ("[::ffff:127.0.0.1]", true),
            ("likes.example", true),
            ("likes.example:3000", true),
            ("likes.example.", true),
            ("Likes.Example.:3000", true),
            ("likes.example..", false),
            ("web.example", true), // port 80 is left out
            ("web.example:80", true),
            ("web.example:443", false),
            ("web.example:8080", false),
            ("[2001:db8::1]", true),
            ("[2001:DB8:0:0::1]:3000", true),
            ("[2001:db8::2]", false),
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
            assert_eq!(access.host(&host, true), allowed, "{host:?}");
        }
    }

    #[test]
    fn elsewhere_any_host_is_answered_until_names_are_given() {
        let evil = authority(b"evil.example").unwrap();
        assert!(access(&[], &[]).host(&evil, false));
        assert!(!access(&["likes.example"], &[]).host(&evil, false));
    }

    #[test]
    fn an_origin_is_the_host_s_own_or_named_or_loopback_with_the_same_port() {
        let access = access(
            &[],
            &[
                "https://blog.example",
                "http://odd.example.:8080",
                "any.example",
                "port.example:443",
                "app://blog.example",
            ],
        );
        for (origin, host, allowed) in [
            ("null", "likes.example", false),
            ("", "likes.example", false),
            ("likes.example", "likes.example", false),
            ("http://likes.example", "likes.example", true),
            ("https://likes.example", "likes.example", true), // TLS ends at a proxy in front
            ("http://LIKES.example", "likes.example", true),
            ("http://likes.example:80", "likes.example", true),
            ("http://likes.example", "likes.example:80", true),
            ("https://likes.example", "likes.example:443", true),
            ("http://likes.example:3000", "likes.example:3000", true),
            ("http://likes.example:3000", "likes.example", false),
            ("http://likes.example", "likes.example:3000", false),
            ("http://likes.example:3001", "likes.example:3000", false),
            ("http://sub.likes.example", "likes.example", false),
            ("http://evil.example", "likes.example", false),
            ("http://likes.example.evil.example", "likes.example", false),
            ("http://likes.example@evil.example", "likes.example", false),
            ("http://likes.example/", "likes.example", false),
            ("http://localhost:3000", "127.0.0.1:3000", true),
            ("http://127.0.0.1:3000", "localhost:3000", true),
            ("http://[::1]:3000", "localhost:3000", true),
            ("http://localhost:3001", "127.0.0.1:3000", false),
            ("http://localhost", "127.0.0.1:3000", false),
            ("http://localhost.evil.example:3000", "localhost:3000", false),
            ("http://evil.example:3000", "localhost:3000", false),
            ("https://blog.example", "likes.example", true),
            ("https://blog.example:443", "likes.example", true),
            ("http://blog.example", "likes.example", false),
            ("https://blog.example:444", "likes.example", false),
            ("http://odd.example:8080", "likes.example", true),
            ("http://odd.example", "likes.example", false),
            ("http://any.example:1", "likes.example", true),
            ("https://any.example", "likes.example", true),
            ("https://sub.any.example", "likes.example", false),
            ("https://blog.example.", "likes.example", true),
            ("https://blog.example.:443", "likes.example", true),
            ("http://odd.example:8080", "likes.example", true),
            ("https://port.example", "likes.example", true),
            ("https://port.example:443", "likes.example", true),
            ("http://port.example", "likes.example", false),
            ("http://port.example:443", "likes.example", true),
            ("http://likes.example.", "likes.example", true),
            ("http://likes.example", "likes.example.", true),
            ("http://likes.example.:3000", "likes.example:3000", true),
            ("http://likes.example..", "likes.example", false),
            ("app://blog.example", "likes.example", true),
            ("app://any.example", "likes.example", false),
            // A scheme is part of an origin: of our own, these are none.
            ("app://likes.example", "likes.example", false),
            ("ftp://likes.example", "likes.example", false),
            ("ws://likes.example", "likes.example", false),
            ("wss://likes.example", "likes.example", false),
            ("ws://localhost:3000", "localhost:3000", false),
            ("://likes.example", "likes.example", false),
            ("ht!tp://likes.example", "likes.example", false),
            ("http://a;b", "a;b", false),
            ("chrome-extension://abcdef", "likes.example", false),
            ("file://", "likes.example", false),
        ] {
            let host = authority(host.as_bytes()).unwrap();
            let origin = HeaderValue::from_static(origin);
            assert_eq!(access.origin(&origin, Some(&host), None), allowed, "{origin:?} at {host:?}");
        }
        assert!(!access.origin(&HeaderValue::from_static("http://likes.example"), None, None));
    }

    #[test]
    fn an_own_origin_has_the_scheme_that_the_client_is_known_to_use() {
        let access = access(&[], &["http://blog.example"]);
        for (origin, host, called, allowed) in [
            ("https://likes.example", "likes.example", "https", true),
            ("http://likes.example", "likes.example", "http", true),
            ("http://likes.example", "likes.example", "https", false),
            ("http://likes.example:8443", "likes.example:8443", "https", false),
            ("https://likes.example:8443", "likes.example:8443", "https", true),
            ("https://localhost", "127.0.0.1", "http", false),
            ("http://blog.example", "likes.example", "https", true), // named
        ] {
            let host = authority(host.as_bytes()).unwrap();
            let origin = HeaderValue::from_static(origin);
            assert_eq!(access.origin(&origin, Some(&host), Some(called)), allowed, "{origin:?} at {called} {host:?}");
        }
    }

    #[test]
    fn any_origin_may_be_allowed() {
        let any = access(&[], &["https://blog.example", "*"]);
        for origin in
            ["https://blog.example", "http://evil.example", "null", "file://", "x"].map(HeaderValue::from_static)
        {
            assert!(any.origin(&origin, None, None), "{origin:?}");
            assert_eq!(any.shared_with(&origin), "*");
        }
        let origin = HeaderValue::from_static("https://blog.example");
        assert_eq!(access(&[], &["https://blog.example"]).shared_with(&origin), origin);
    }

    #[test]
    fn pages_that_may_frame_are_named_as_a_policy_names_them() {
        let ancestors = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
            ancestors(&names).map_err(|e| e.to_string())
        };
        assert_eq!(ancestors(&[]), Ok(None));
        for (names, sources) in [
            (&["https://Blog.example."][..], "'self' https://blog.example"),
            (&["http://a:81", "app://b"], "'self' http://a:81 app://b"),
            (&["a", "b:8080"], "'self' http://a:* https://a:* http://b:8080 https://b:8080"),
            (&["https://a", "*"], "*"),
        ] {
            assert_eq!(ancestors(names), Ok(Some(sources.to_owned())));
        }
        for name in
            ["", "null", "https://[::1]", "[::1]:3000", "https://*.a", "https://a/", "a; script-src *", "'none'"]
        {
            assert!(ancestors(&[name]).unwrap_err().contains(&format!("`{name}`")), "{name}");
        }
    }

    #[test]
    fn a_name_that_can_match_nothing_is_refused_by_name() {
        let new = |hosts: &[&str], origins: &[&str]| {
            let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
            Access::new(&owned(hosts), &owned(origins)).map_err(|e| e.to_string())
        };
        for name in [
            "",
            "a b",
            "user@host",
            "host/path",
            "host/",
            "host:port",
            "host:0",
            "host:65536",
            "[::1",
            "[x]",
            "::1",
            "*.example",
            ".example",
            "a..b",
            ".",
            "name;",
            "na*me",
            "b\u{fc}cher.example",
            "$(reboot)",
            "a%41",
            "127.1",
            "1.2.3.256",
            "2130706433",
            "a.example.7",
            "0x7f000001",
            &"x".repeat(64),
        ] {
            let error = new(&[name], &[]).unwrap_err();
            assert!(error.contains(&format!("`{name}`")) && error.contains("likes.example"), "{error}");
            for origin in [name.to_owned(), format!("https://{name}")] {
                let error = new(&[], &[&origin]).unwrap_err();
                assert!(error.contains(&format!("`{origin}`")) && error.contains("https://blog.example"), "{error}");
            }
        }
        for host in ["*", "https://likes.example"] {
            assert!(new(&[host], &[]).is_err(), "{host}");
        }
        for origin in [
            "null",
            "https://*",
            "*:3000",
            "file://",
            "file:///",
            "file://host",
            "data:text/html",
            "blob://x",
            "ws://x",
            "wss://x",
            "://x",
            "ht tp://x",
            "https://x?y",
            "https://x#y",
            "ftp://x",
        ] {
            assert!(new(&[], &[origin]).is_err(), "{origin}");
        }
        assert!(
            new(
                &["a_b", "1.2.3.4:5", "0xygen", "7.example", &"x".repeat(63)],
                &["a-b", "app://x", "chrome-extension://abc", "[::1]:3000"]
            )
            .is_ok()
        );
    }
}

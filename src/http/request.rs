//! HTTP/1.1 requests: the bytes of a head in, a [`Request`] or a [`Reject`] out. Knows no socket and no likes.
//!
//! httparse reads the fields. What it leaves to its caller (the request line, `Host`, the framing of a body) is judged
//! here, on the strict side wherever RFC 9112 leaves a choice, since a request that two programs read differently is
//! how one is smuggled past the other.

use crate::limits::Limits;
use std::borrow::Cow;

/// A request that is answered with an error before anyone asks what it wants. The connection closes after it, since
/// where the next request begins is not to be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reject {
    pub(crate) status: u16,
    pub(crate) problem: Cow<'static, str>,
}

impl Reject {
    pub(crate) fn new(status: u16, problem: impl Into<Cow<'static, str>>) -> Self {
        Self { status, problem: problem.into() }
    }

    pub(crate) fn bad(problem: impl Into<Cow<'static, str>>) -> Self {
        Self::new(400, problem)
    }
}

/// The methods that this server has heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Head,
    Put,
    Post,
    Options,
    /// Known, and nowhere allowed here.
    Other,
    /// Not known, or not for an origin server (CONNECT): 501.
    Unknown,
}

/// How the body of a request is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    None,
    Length(u64),
    Chunked,
}

/// A host with its port, as in `Host` and in an origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Authority {
    /// In lower case; an IPv6 address keeps its brackets.
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
}

/// What a request head says, as far as this server asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// Without the query.
    pub(crate) path: String,
    /// 0 for HTTP/1.0, else 1: a higher minor version is spoken to as 1.1 (RFC 9110 section 2.5).
    pub(crate) minor: u8,
    pub(crate) host: Option<Authority>,
    pub(crate) origin: Option<String>,
    pub(crate) if_none_match: Option<String>,
    pub(crate) preflight: bool,
    pub(crate) body: Body,
    /// `Expect: 100-continue`: the client holds its body back.
    pub(crate) expects_continue: bool,
    pub(crate) keep_alive: bool,
    pub(crate) handshake: Handshake,
}

/// What a request says about becoming a WebSocket (RFC 6455 section 4.2.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Handshake {
    /// `Upgrade` holds `websocket` and `Connection` holds `upgrade`.
    pub(crate) asked: bool,
    pub(crate) versions: Vec<String>,
    pub(crate) keys: Vec<String>,
    pub(crate) protocols: Vec<String>,
}

/// Method, target and minor version of a request line, RFC 9112 section 3.
pub(crate) fn request_line(line: &[u8]) -> Result<(&str, &str, u8), Reject> {
    let malformed = || Reject::bad("the request line is malformed; METHOD TARGET HTTP/1.1 is expected");
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(malformed());
    };
    let method_fits = !method.is_empty() && method.iter().all(|byte| is_token(*byte));
    let target_fits = !target.is_empty() && target.iter().all(u8::is_ascii_graphic) && !target.contains(&b'#');
    let &[b'H', b'T', b'T', b'P', b'/', major @ b'0'..=b'9', b'.', minor @ b'0'..=b'9'] = version else {
        return Err(malformed());
    };
    let (true, true, Ok(method), Ok(target)) =
        (method_fits, target_fits, std::str::from_utf8(method), std::str::from_utf8(target))
    else {
        return Err(malformed());
    };
    if major != b'1' {
        return Err(Reject::new(505, "HTTP/1.1 is spoken here"));
    }
    Ok((method, target, (minor - b'0').min(1)))
}

/// Reads a head that the [`Scanner`] has found whole.
pub(crate) fn parse(head: &[u8], limits: &Limits) -> Result<Request, Reject> {
    let start = head.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(head.len());
    let line = head[start..].split(|byte| *byte == b'\r').next().unwrap_or_default();
    let (method, target, minor) = request_line(line)?;
    let mut storage = vec![httparse::EMPTY_HEADER; limits.headers];
    let fields = match httparse::parse_headers(&head[(start + line.len() + 2).min(head.len())..], &mut storage) {
        Ok(httparse::Status::Complete((_, fields))) => Fields(fields),
        Err(httparse::Error::TooManyHeaders) => return Err(Reject::new(431, "too many header fields")),
        Ok(httparse::Status::Partial) | Err(_) => return Err(Reject::bad("a header field is malformed")),
    };

    let host = host(&fields, minor)?;
    let body = body(&fields, minor)?;
    let (path, host) = route(method, target, host)?;
    let connection = |token| fields.has_token("connection", token);
    let expects_continue = match fields.all("expect").next() {
        Some(value) if minor == 1 && value.eq_ignore_ascii_case(b"100-continue") => true,
        Some(_) if minor == 1 => return Err(Reject::new(417, "of Expect, only 100-continue is known")),
        _ => false,
    };
    Ok(Request {
        method: match method {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "PUT" => Method::Put,
            "POST" => Method::Post,
            "OPTIONS" => Method::Options,
            "DELETE" | "PATCH" | "TRACE" => Method::Other,
            _ => Method::Unknown,
        },
        path,
        minor,
        host,
        origin: fields.one("origin")?,
        if_none_match: fields.joined("if-none-match"),
        preflight: fields.all("access-control-request-method").next().is_some(),
        body,
        expects_continue,
        keep_alive: minor == 1 && !connection("close"),
        handshake: Handshake {
            asked: fields.has_token("upgrade", "websocket") && connection("upgrade"),
            versions: fields.texts("sec-websocket-version"),
            keys: fields.texts("sec-websocket-key"),
            protocols: fields.texts("sec-websocket-protocol"),
        },
    })
}

/// The fields of a head.
struct Fields<'h>(&'h [httparse::Header<'h>]);

impl<'h> Fields<'h> {
    fn all(&self, name: &str) -> impl Iterator<Item = &'h [u8]> {
        self.0.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value.trim_ascii())
    }

    fn texts(&self, name: &str) -> Vec<String> {
        self.all(name).map(|value| String::from_utf8_lossy(value).into_owned()).collect()
    }

    /// A field that may stand once.
    fn one(&self, name: &str) -> Result<Option<String>, Reject> {
        let mut texts = self.texts(name);
        if texts.len() > 1 {
            return Err(Reject::bad(format!("more than one {name} field")));
        }
        Ok(texts.pop())
    }

    /// A list that may stand in several lines, which are then one (RFC 9110 section 5.3).
    fn joined(&self, name: &str) -> Option<String> {
        let texts = self.texts(name);
        (!texts.is_empty()).then(|| texts.join(","))
    }

    fn has_token(&self, name: &str, token: &str) -> bool {
        self.all(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    }
}

/// RFC 9112 section 3.2: one valid `Host`, which HTTP/1.0 may leave out.
fn host(fields: &Fields<'_>, minor: u8) -> Result<Option<Authority>, Reject> {
    let mut hosts = fields.all("host");
    match (hosts.next(), hosts.next()) {
        (None, _) if minor == 0 => Ok(None),
        (None, _) => Err(Reject::bad("the Host field is missing")),
        (Some(_), Some(_)) => Err(Reject::bad("more than one Host field")),
        (Some(value), None) => {
            authority(value).map(Some).ok_or_else(|| Reject::bad("the Host field is not a host with an optional port"))
        }
    }
}

/// Reads `host[:port]`. No user information, no list, no empty host.
pub(crate) fn authority(bytes: &[u8]) -> Option<Authority> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            (&text[..address.len() + 2], port)
        }
        None => {
            let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(&byte);
            if host.is_empty() || !host.bytes().all(fits) {
                return None;
            }
            (host, port)
        }
    };
    let port = match port.strip_prefix(':') {
        Some("") => None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
        Some(_) => return None,
        None if port.is_empty() => None,
        None => return None,
    };
    Some(Authority { host: host.to_ascii_lowercase(), port })
}

/// The path of a target, and the host, which that of an absolute target replaces (RFC 9112 section 3.2).
fn route(method: &str, target: &str, host: Option<Authority>) -> Result<(String, Option<Authority>), Reject> {
    let path = |target: &str| target.split('?').next().unwrap_or_default().to_owned();
    if target.starts_with('/') {
        return Ok((path(target), host));
    }
    if target == "*" {
        return if method == "OPTIONS" {
            Ok((target.to_owned(), host))
        } else {
            Err(Reject::bad("the target * goes with OPTIONS alone"))
        };
    }
    if method == "CONNECT" {
        return Ok((String::new(), host)); // answered 501, whatever it asks for
    }
    let absolute = ["http://", "https://"].into_iter().find_map(|scheme| {
        target.get(..scheme.len()).filter(|start| start.eq_ignore_ascii_case(scheme)).map(|_| &target[scheme.len()..])
    });
    let Some(rest) = absolute else {
        return Err(Reject::bad("the target is neither a path nor an absolute URL"));
    };
    let (host, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let host = authority(host.as_bytes()).ok_or_else(|| Reject::bad("the target's host is malformed"))?;
    let path = path(rest);
    Ok((if path.is_empty() { "/".to_owned() } else { path }, Some(host)))
}

/// RFC 9112 section 6: one way to frame a body, or none, and nothing that a second reader could take otherwise.
fn body(fields: &Fields<'_>, minor: u8) -> Result<Body, Reject> {
    let mut lengths = fields.all("content-length");
    let length = match (lengths.next(), lengths.next()) {
        (None, _) => None,
        (Some(digits), None) if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => Some(
            std::str::from_utf8(digits)
                .ok()
                .and_then(|digits| digits.parse::<u64>().ok())
                .ok_or_else(|| Reject::bad("the Content-Length is too large to be one"))?,
        ),
        _ => return Err(Reject::bad("Content-Length is not one decimal number")),
    };
    let Some(codings) = fields.joined("transfer-encoding") else {
        return Ok(length.map_or(Body::None, Body::Length));
    };
    if length.is_some() {
        return Err(Reject::bad("both Content-Length and Transfer-Encoding"));
    }
    if minor == 0 {
        return Err(Reject::bad("HTTP/1.0 knows no Transfer-Encoding"));
    }
    let codings: Vec<_> = codings.split(',').map(|coding| coding.trim_ascii().to_ascii_lowercase()).collect();
    match codings.split_last() {
        Some((last, [])) if last == "chunked" => Ok(Body::Chunked),
        Some((last, others)) if last == "chunked" && !others.iter().any(|coding| coding == "chunked") => {
            if others.iter().all(|coding| !coding.is_empty() && coding.bytes().all(is_token)) {
                Err(Reject::new(501, "of transfer codings, only chunked is known"))
            } else {
                Err(Reject::bad("Transfer-Encoding is malformed"))
            }
        }
        _ => Err(Reject::bad("the last transfer coding is not chunked, once")),
    }
}

/// RFC 9110 section 5.6.2.
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

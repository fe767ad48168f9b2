//! What a request head says, on the strict side wherever RFC 9112 leaves a choice: a request that two programs read
//! differently is how one is smuggled past the other.
//!
//! httparse reads the fields, the `http` crate's types hold what was read. What both leave to their caller (the request
//! line, `Host`, the framing of a body) is judged here. Knows no socket.

use crate::http::{Refusal, body::Framing};
use ::http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri, Version,
    header::{ACCEPT, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, ORIGIN, TRANSFER_ENCODING, UPGRADE},
    uri::Authority,
};
use std::net::Ipv6Addr;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// A path with a query, an absolute `http` or `https` URL, `*` with OPTIONS, or anything with CONNECT.
    pub(crate) target: Uri,
    /// 1.0 or 1.1: a higher minor version is treated as 1.1 (RFC 9110 section 2.5).
    pub(crate) version: Version,
    pub(crate) fields: HeaderMap,
    /// What the target or the `Host` field names, in the form that [`authority`] gives it.
    pub(crate) host: Option<Authority>,
    /// The host and the scheme that the client named, where a proxy in front tells.
    pub(crate) forwarded_host: Option<Authority>,
    pub(crate) scheme: Option<&'static str>,
    pub(crate) framing: Framing,
    /// The client holds its body back until it is told to go on (RFC 9110 section 10.1.1).
    pub(crate) expects_continue: bool,
    /// Whether another request may follow on the connection.
    pub(crate) keep_alive: bool,
    /// Empty where nobody wants it.
    pub(crate) body: Vec<u8>,
}

/// What a body is written in that says something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// `application/x-www-form-urlencoded`
    Form,
    /// `application/json`
    Json,
}

/// Fields that may stand once: two programs could go by different ones.
const SINGLE: [HeaderName; 4] = [CONTENT_LENGTH, CONTENT_TYPE, HOST, ORIGIN];

/// Method, target and version of a request line.
pub(crate) type RequestLine = (Method, Uri, Version);

/// Reads a request line (RFC 9112 section 3).
pub(crate) fn request_line(line: &[u8]) -> Result<RequestLine, Refusal> {
    let malformed = || Refusal::bad("the request line is malformed; METHOD TARGET HTTP/1.1 is expected");
    let mut parts = line.split(|byte| *byte == b' ');
    let mut part = || parts.next().ok_or_else(malformed);
    let (method, target, version) = (part()?, part()?, part()?);
    if parts.next().is_some() {
        return Err(malformed());
    }
    let &[b'H', b'T', b'T', b'P', b'/', major @ b'0'..=b'9', b'.', minor @ b'0'..=b'9'] = version else {
        return Err(malformed());
    };
    let method = Method::from_bytes(method).map_err(|_| malformed())?;
    if !target.iter().all(u8::is_ascii_graphic) || target.contains(&b'#') {
        return Err(malformed());
    }
    let uri = Uri::try_from(target).map_err(|_| Refusal::bad("the target is malformed"))?;
    if major != b'1' {
        return Err(Refusal::new(505, "only HTTP/1.1 is supported"));
    }
    match target {
        [b'/', ..] => {}
        b"*" if method == Method::OPTIONS => {}
        b"*" => return Err(Refusal::bad("the target * is for OPTIONS only")),
        _ if method == Method::CONNECT => {}
        _ if !matches!(uri.scheme_str(), Some("http" | "https")) => {
            return Err(Refusal::bad("the target is neither a path nor an absolute URL"));
        }
        _ if uri.authority().and_then(|host| authority(host.as_str().as_bytes())).is_none() => {
            return Err(Refusal::bad("the target's host is malformed"));
        }
        _ => {}
    }
    Ok((method, uri, if minor == b'0' { Version::HTTP_10 } else { Version::HTTP_11 }))
}

impl Request {
    /// Reads the lines after the request line, `count` fields and the empty line. The body is still to come.
    pub(crate) fn new((method, target, version): RequestLine, lines: &[u8], count: usize) -> Result<Self, Refusal> {
        let malformed = || Refusal::bad("a header field is malformed");
        let mut storage = vec![httparse::EMPTY_HEADER; count];
        let Ok(httparse::Status::Complete((_, parsed))) = httparse::parse_headers(lines, &mut storage) else {
            return Err(malformed());
        };
        let mut fields = HeaderMap::new();
        for field in parsed {
            let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| malformed())?;
            let value = HeaderValue::from_bytes(field.value.trim_ascii()).map_err(|_| malformed())?;
            let is_single = SINGLE.contains(&name);
            let is_further = fields.try_append(name, value).map_err(|_| Refusal::new(431, "too many header fields"))?;
            if is_single && is_further {
                return Err(Refusal::bad(format!("more than one {} field", field.name.to_ascii_lowercase())));
            }
        }

        // RFC 9112 section 3.2: one valid `Host`, which HTTP/1.0 may leave out; an absolute target replaces it.
        let host = match fields.get(HOST) {
            Some(host) => Some(authority(host.as_bytes()).ok_or_else(|| {
                Refusal::bad("the Host field is malformed; a host is expected, with a port or without")
            })?),
            None if version == Version::HTTP_10 => None,
            None => return Err(Refusal::bad("the Host field is missing")),
        };
        let named = target.authority().filter(|_| target.scheme().is_some());
        let host = named.and_then(|host| authority(host.as_str().as_bytes())).or(host);
        let framing = framing(&fields, version)?;
        let expectation = fields.get(EXPECT).filter(|_| version == Version::HTTP_11);
        if expectation.is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
            return Err(Refusal::new(417, "of Expect, only 100-continue is supported"));
        }
        let expects_continue = expectation.is_some();
        // Of a request for an upgrade or a tunnel, a proxy in front may take the connection for granted, and pass on
        // unseen what follows. So where none comes of it, nothing more is read as a request.
        let asks_for_more = fields.contains_key(UPGRADE) || method == Method::CONNECT;
        let keep_alive = version == Version::HTTP_11 && !has_token(&fields, CONNECTION, "close") && !asks_for_more;
        Ok(Self {
            method,
            target,
            version,
            fields,
            host,
            forwarded_host: None,
            scheme: None,
            framing,
            expects_continue,
            keep_alive,
            body: Vec::new(),
        })
    }

    /// The host that the client named, by which it knows the server's own pages.
    pub(crate) fn called_host(&self) -> Option<&Authority> {
        self.forwarded_host.as_ref().or(self.host.as_ref())
    }

    /// What the body is written in, if that can say something here.
    pub(crate) fn content(&self) -> Option<Content> {
        let kind = self.fields.get(CONTENT_TYPE)?.to_str().ok()?.split(';').next()?.trim();
        let is = |name| kind.eq_ignore_ascii_case(name);
        let json = || is("application/json").then_some(Content::Json);
        is("application/x-www-form-urlencoded").then_some(Content::Form).or_else(json)
    }

    /// Whether `Accept` names this media type, whatever else it names.
    pub(crate) fn accepts(&self, kind: &str) -> bool {
        weight(&self.fields, ACCEPT, kind).is_some_and(|weight| weight > 0.0)
    }

    /// Whether the client asks to turn the connection into a WebSocket (RFC 6455 section 4.2.1).
    pub(crate) fn asks_for_websocket(&self) -> bool {
        has_token(&self.fields, UPGRADE, "websocket") && has_token(&self.fields, CONNECTION, "upgrade")
    }
}

/// The members of a list, which may stand in several lines (RFC 9110 section 5.6.1).
pub(crate) fn list(fields: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    fields
        .get_all(name)
        .into_iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
}

/// The weight that a list gives a member, from 0 to 1; `None` where it does not name it (RFC 9110 section 12.4.2).
pub(crate) fn weight(fields: &HeaderMap, name: HeaderName, member: &str) -> Option<f32> {
    list(fields, name).find_map(|entry| {
        let mut parts = entry.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        parts.next().filter(|named| named.eq_ignore_ascii_case(member.as_bytes()))?;
        let weight = parts.find_map(|part| part.strip_prefix(b"q=").or(part.strip_prefix(b"Q=")));
        Some(weight.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).unwrap_or(1.0))
    })
}

fn has_token(fields: &HeaderMap, name: HeaderName, token: &str) -> bool {
    list(fields, name).any(|member| member.eq_ignore_ascii_case(token.as_bytes()))
}

/// A field that may stand once.
pub(crate) fn only(fields: &HeaderMap, name: HeaderName) -> Result<Option<&HeaderValue>, Refusal> {
    let mut values = fields.get_all(&name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(Refusal::bad(format!("more than one {name} field"))),
    }
}

/// Reads `host[:port]`, and gives it the form in which names compare: lower case, no root dot, an IPv6 address as short
/// as can be, no empty port. Stricter than [`Authority`] alone, which takes user information and any port.
pub(crate) fn authority(bytes: &[u8]) -> Option<Authority> {
    let given = Authority::try_from(bytes).ok()?;
    if is_plain(given.as_str()) {
        return Some(given);
    }
    let host = given.host();
    // After user information it would not be at the start.
    let port = match given.as_str().strip_prefix(host)? {
        "" | ":" => None,
        port => Some(port.strip_prefix(':').filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))?),
    };
    let mut name = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => format!("[{}]", address.parse::<Ipv6Addr>().ok()?),
        None if host.is_empty() || host.contains(['[', ']', ',']) => return None,
        None => host.strip_suffix('.').filter(|host| !host.is_empty()).unwrap_or(host).to_ascii_lowercase(),
    };
    if let Some(port) = port {
        name += &format!(":{}", port.parse::<u16>().ok()?);
    }
    name.parse().ok()
}

/// Whether a host and a port are in that form as they are, as most are, so that none has to be made.
fn is_plain(authority: &str) -> bool {
    let (host, port) = authority.split_once(':').unwrap_or((authority, "80"));
    let is_name = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    let is_number = !port.starts_with('0') && port.bytes().all(|byte| byte.is_ascii_digit());
    !host.is_empty() && !host.ends_with('.') && host.bytes().all(is_name) && is_number && port.parse::<u16>().is_ok()
}

/// RFC 9112 section 6: one way to frame a body, and nothing that a second reader could take otherwise.
fn framing(fields: &HeaderMap, version: Version) -> Result<Framing, Refusal> {
    let length = match fields.get(CONTENT_LENGTH).map(HeaderValue::as_bytes) {
        Some(digits) if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => Some(
            std::str::from_utf8(digits)
                .ok()
                .and_then(|digits| digits.parse().ok())
                .ok_or_else(|| Refusal::bad("the Content-Length is too large"))?,
        ),
        Some(_) => return Err(Refusal::bad("the Content-Length is not a decimal number")),
        None => None,
    };
    let codings: Vec<_> = list(fields, TRANSFER_ENCODING).collect();
    let is_chunked = |coding: &&[u8]| coding.eq_ignore_ascii_case(b"chunked");
    match codings.split_last() {
        None => Ok(Framing::Length(length.unwrap_or(0))),
        Some(_) if length.is_some() => Err(Refusal::bad("both Content-Length and Transfer-Encoding")),
        Some(_) if version == Version::HTTP_10 => Err(Refusal::bad("HTTP/1.0 has no Transfer-Encoding")),
        Some((last, [])) if is_chunked(last) => Ok(Framing::Chunked),
        Some((last, others)) if is_chunked(last) && !others.iter().any(is_chunked) => {
            if others.iter().all(|coding| !coding.is_empty() && coding.iter().copied().all(is_token)) {
                Err(Refusal::new(501, "of transfer codings, only chunked is supported"))
            } else {
                Err(Refusal::bad("the Transfer-Encoding is malformed"))
            }
        }
        Some(_) => Err(Refusal::bad("the last transfer coding is not chunked, once")),
    }
}

/// RFC 9110 section 5.6.2.
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

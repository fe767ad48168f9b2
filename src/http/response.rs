//! HTTP/1.1 responses: a [`Response`] in, bytes out. Knows no clock but the one it is handed.

use crate::http::Refusal;
use ::http::{HeaderValue, StatusCode};
use httpdate::HttpDate;
use std::{
    borrow::Cow,
    fmt,
    io::Write,
    time::{SystemTime, UNIX_EPOCH},
};

/// Fields that only the server knows.
const OURS: [&str; 8] = [
    "connection",
    "content-length",
    "date",
    "keep-alive",
    "proxy-connection",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    fields: Vec<(Cow<'static, str>, HeaderValue)>,
    body: Vec<u8>,
}

impl Response {
    pub(crate) fn new(status: u16) -> Self {
        Self { status, fields: Vec::new(), body: Vec::new() }
    }

    /// An error: one line of text that says what was wrong.
    pub(crate) fn error(status: u16, problem: impl fmt::Display) -> Self {
        Self::text(status, format!("{problem}\n"))
    }

    pub(crate) fn text(status: u16, text: impl Into<String>) -> Self {
        Self::new(status).body("text/plain; charset=utf-8", text.into()).field("Cache-Control", "no-store")
    }

    /// Adds a field. The value is one of ours or of a field that was read, so it fits a field.
    pub(crate) fn field(mut self, name: &'static str, value: impl TryInto<HeaderValue>) -> Self {
        match value.try_into() {
            Ok(value) => self.fields.push((name.into(), value)),
            Err(_) => debug_assert!(false, "the value of {name} does not fit a field"),
        }
        self
    }

    pub(crate) fn body(self, kind: &'static str, body: impl Into<Vec<u8>>) -> Self {
        let fixed = HeaderValue::from_static; // which allocates nothing
        let mut response = self.field("Content-Type", fixed(kind)).field("X-Content-Type-Options", fixed("nosniff"));
        response.body = body.into();
        response
    }

    /// The bytes of the response: to HEAD, those of the head alone. Every one ends by itself (RFC 9112 section 6.3).
    pub(crate) fn encode(&self, head_only: bool, keep_alive: bool, now: SystemTime) -> Vec<u8> {
        let reason = StatusCode::from_u16(self.status).ok().and_then(|status| status.canonical_reason());
        let date = HttpDate::from(now.max(UNIX_EPOCH)); // it knows no time before
        let mut bytes = Vec::with_capacity(256 + self.body.len());
        // Writing to a vector does not fail.
        let _ = write!(bytes, "HTTP/1.1 {} {}\r\nDate: {date}\r\n", self.status, reason.unwrap_or_default());
        for (name, value) in &self.fields {
            [name.as_bytes(), b": ", value.as_bytes(), b"\r\n"].iter().for_each(|part| bytes.extend(*part));
        }
        // A 204 has no content by definition; a 304's would be that of the 200 (RFC 9110 section 8.6), as that of a
        // response to HEAD would be, if it is known.
        if !(matches!(self.status, 204 | 304) || head_only && self.body.is_empty()) {
            let _ = write!(bytes, "Content-Length: {}\r\n", self.body.len());
        }
        if !keep_alive {
            // Beside a `Connection: Upgrade` it is a second member of the same list.
            bytes.extend(b"Connection: close\r\n");
        }
        bytes.extend(b"\r\n");
        if !head_only {
            bytes.extend(&self.body);
        }
        bytes
    }
}

/// Status, fields and body of a host program's response. What frames it, and what becomes of the connection, is not its
/// say: those fields are left out, and so is a body that cannot be (RFC 9110 section 15).
impl From<::http::Response<Vec<u8>>> for Response {
    fn from(response: ::http::Response<Vec<u8>>) -> Self {
        let (head, mut body) = response.into_parts();
        if matches!(head.status.as_u16(), 204 | 205 | 304) {
            body.clear();
        }
        let is_theirs = |name: &str| !OURS.contains(&name);
        let fields = head.headers.iter().filter(|(name, _)| is_theirs(name.as_str()));
        let fields = fields.map(|(name, value)| (name.as_str().to_owned().into(), value.clone())).collect();
        Self { status: head.status.as_u16(), fields, body }
    }
}

impl From<&Refusal> for Response {
    fn from(refusal: &Refusal) -> Self {
        Self::error(refusal.status, &refusal.problem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_response_is_its_fields_and_its_body() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777); // the example of RFC 9110 section 5.6.7
        let response = Response::error(404, "nothing").field("Vary", "Origin");
        let head = "HTTP/1.1 404 Not Found\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: text/plain; \
            charset=utf-8\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\nVary: Origin\r\n\
            Content-Length: 8\r\n";
        let encoded = |head_only, keep_alive| String::from_utf8(response.encode(head_only, keep_alive, now)).unwrap();
        assert_eq!(encoded(false, true), format!("{head}\r\nnothing\n"));
        assert_eq!(encoded(true, false), format!("{head}Connection: close\r\n\r\n"));
    }

    #[test]
    fn a_clock_before_1970_does_no_harm() {
        let encoded = Response::new(204).encode(false, true, UNIX_EPOCH - Duration::from_secs(1));
        assert_eq!(encoded, b"HTTP/1.1 204 No Content\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n");
    }
}

//! HTTP/1.1 responses: a [`Response`] in, bytes out. Knows no clock but the one it is handed.

use crate::{http::date::imf_fixdate, http::request::Reject};
use std::{borrow::Cow, fmt, time::SystemTime};

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    fields: Vec<(&'static str, Cow<'static, str>)>,
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

    pub(crate) fn field(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    pub(crate) fn body(self, kind: &'static str, body: impl Into<Vec<u8>>) -> Self {
        let mut response = self.field("Content-Type", kind).field("X-Content-Type-Options", "nosniff");
        response.body = body.into();
        response
    }

    /// The bytes of the answer: to HEAD, those of the head alone. Every answer ends by itself (RFC 9112 section 6.3).
    pub(crate) fn encode(&self, head_only: bool, keep_alive: bool, now: SystemTime) -> Vec<u8> {
        use std::io::Write;
        let mut bytes = Vec::with_capacity(256 + self.body.len());
        // Writing to a vector does not fail.
        let _ = write!(bytes, "HTTP/1.1 {} {}\r\nDate: {}\r\n", self.status, reason(self.status), imf_fixdate(now));
        for (name, value) in &self.fields {
            let _ = write!(bytes, "{name}: {value}\r\n");
        }
        // A 204 has no content by definition; a 304's would be that of the 200 (RFC 9110 section 8.6).
        if !matches!(self.status, 204 | 304) {
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

impl From<&Reject> for Response {
    fn from(reject: &Reject) -> Self {
        Self::error(reject.status, &reject.problem)
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Internal Server Error",
    }
}

#[cfg(test)]
mod tests {
    use super::reason;

    #[test]
    fn every_status_that_is_sent_has_its_reason() {
        for status in [200, 204, 304, 400, 403, 404, 405, 408, 409, 413, 414, 417, 426, 429, 431, 501, 503, 505] {
            assert_ne!(reason(status), reason(500), "{status}");
        }
    }
}

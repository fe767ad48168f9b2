//! HTTP/1.1, over the types of the `http` crate, some of which are here for a handler such as that of
//! [`Server::fallback`](crate::Server::fallback).
//!
//! Bytes in, a request or a refusal out; a response in, bytes out. Knows no likes.

pub use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};

pub(crate) mod body;
pub(crate) mod head;
pub(crate) mod reader;
pub(crate) mod request;
pub(crate) mod response;

use std::borrow::Cow;

/// Why a request is refused before anyone asks what it wants. The connection closes after the response, since where
/// the next request begins is not to be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) problem: Cow<'static, str>,
}

impl Refusal {
    pub(crate) fn new(status: u16, problem: impl Into<Cow<'static, str>>) -> Self {
        Self { status, problem: problem.into() }
    }

    pub(crate) fn bad(problem: impl Into<Cow<'static, str>>) -> Self {
        Self::new(400, problem)
    }
}

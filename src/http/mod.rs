//! HTTP/1.1: bytes in, a request or a refusal out; a response in, bytes out. Knows no likes.

pub(crate) mod date;
pub(crate) mod drain;
pub(crate) mod reader;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod scanner;

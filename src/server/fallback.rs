//! The host program's own routes: what it is handed, and what becomes of its response.

use crate::http::{request::Request, response::Response};
use ::http::header::TRANSFER_ENCODING;
use std::{
    fmt,
    mem::take,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

type Handler = dyn Fn(::http::Request<Vec<u8>>) -> ::http::Response<Vec<u8>> + Send + Sync;

/// Answers the requests for paths that are not the counter's.
#[derive(Clone)]
pub(crate) struct Fallback(pub(crate) Arc<Handler>);

impl Fallback {
    /// Asks the host program. Whatever it does, the client gets a response.
    pub(crate) fn answer(&self, request: &mut Request) -> Response {
        let mut asked = ::http::Request::new(take(&mut request.body));
        *asked.method_mut() = take(&mut request.method);
        *asked.uri_mut() = take(&mut request.target);
        *asked.version_mut() = request.version;
        *asked.headers_mut() = take(&mut request.fields);
        asked.headers_mut().remove(TRANSFER_ENCODING); // the body has been decoded
        match catch_unwind(AssertUnwindSafe(|| (self.0)(asked))) {
            Ok(response) if !response.status().is_informational() => response.into(),
            Ok(response) => {
                log::error!("the fallback answered {}, which is no final response", response.status());
                Response::error(500, "the request cannot be answered")
            }
            Err(_) => {
                log::error!("the fallback panicked");
                Response::error(500, "the request cannot be answered")
            }
        }
    }
}

impl fmt::Debug for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fallback")
    }
}

//! The access log: a record for each request that is answered, under a target of its own, and only where the logger
//! asks for that target. Visitors are never in it, and so of a target only the path is.

use crate::{http::request::Request, stream::Source};
use std::time::Instant;

const TARGET: &str = "live_likes::access";

/// Characters of a path that are logged.
const LONGEST: usize = 256;

/// A request that will be answered.
pub(crate) struct Asked {
    method: String,
    path: String,
    begun: Instant,
}

impl Asked {
    /// Notes a request, if its answer is to be logged.
    pub(crate) fn by(request: &Request) -> Option<Self> {
        is_on().then(|| Self {
            method: request.method.to_string(),
            path: request.target.path().chars().take(LONGEST).collect(),
            begun: Instant::now(),
        })
    }

    /// Logs that it has been answered, with so many bytes.
    pub(crate) fn answered(self, address: Source, status: u16, bytes: usize) {
        let seconds = self.begun.elapsed().as_micros() as f64 / 1e6;
        log::debug!(
            target: TARGET,
            address:% = address, method = self.method, path = self.path, status, bytes, seconds;
            "{address} {} {} {status} {bytes} {seconds:.6}", self.method, self.path.escape_debug(),
        );
    }
}

/// Logs that what came was no request.
pub(crate) fn refused(address: Source, status: u16, bytes: usize) {
    if is_on() {
        log::debug!(target: TARGET, address:% = address, status, bytes; "{address} - - {status} {bytes}");
    }
}

fn is_on() -> bool {
    log::log_enabled!(target: TARGET, log::Level::Debug)
}

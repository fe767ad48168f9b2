//! One connection: read a request, answer it, and again; or hand over to a session.

use crate::{
    http::reader::{Inbox, NoRequest, close_in_stages},
    http::request::Method,
    http::response::Response,
    likes::outbox::Outbox,
    metrics::Refused,
    server::peer::Peer,
    server::routes::{self, Answer},
    server::state::State,
    websocket::{Session, code},
};
use std::{
    io::{self, Write},
    net::TcpStream,
    sync::Arc,
    time::SystemTime,
};

/// Serves a connection until it ends. `early` are bytes that were read from it before; `upgraded` is called when it
/// becomes a WebSocket.
///
/// # Errors
///
/// What the socket said, where it broke in the middle of something.
pub(crate) fn serve(state: &State, stream: &Arc<TcpStream>, early: Vec<u8>, upgraded: impl FnOnce()) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(state.limits.write_deadline))?;
    let loopback = match state.loopback {
        Some(loopback) => loopback,
        None => stream.local_addr()?.ip().to_canonical().is_loopback(),
    };
    let mut peer = Peer::new(state, stream.peer_addr()?.ip(), loopback);
    let mut inbox = Inbox::new(stream, early);
    loop {
        let request = match inbox.request(&state.limits) {
            Ok(request) => request,
            Err(NoRequest::Ended) => return Ok(()),
            Err(NoRequest::Rejected(reject)) => {
                log::debug!("rejected a request: {} {}", reject.status, reject.problem);
                let timeout = reject.status == 408;
                state.likes.metrics().refused(if timeout { Refused::Timeout } else { Refused::BadRequest });
                write(stream, &Response::from(&reject).encode(false, false, SystemTime::now()))?;
                close_in_stages(stream, &state.limits);
                return Ok(());
            }
        };
        let response = match routes::answer(state, &request, &mut peer) {
            Answer::Response(response) => response,
            Answer::Upgrade(bytes) => {
                write(stream, &bytes)?;
                upgraded();
                watch(state, stream, inbox.into_rest(), &mut peer);
                return Ok(());
            }
        };
        let keep_alive = request.keep_alive && !state.is_stopping();
        write(stream, &response.encode(request.method == Method::Head, keep_alive, SystemTime::now()))?;
        if !keep_alive {
            close_in_stages(stream, &state.limits);
            return Ok(());
        }
    }
}

/// Shows a client the counts, and takes its likes.
fn watch(state: &State, stream: &Arc<TcpStream>, early: Vec<u8>, peer: &mut Peer<'_>) {
    let outbox = Arc::new(Outbox::new(stream.clone(), state.limits.write_deadline));
    let _seat = state.likes.join(&outbox);
    if state.is_stopping() {
        // The stop may have told everyone before this one came in.
        outbox.close(Some(code::GOING_AWAY), routes::SHUTTING_DOWN);
    }
    Session { stream, outbox: &outbox, limits: &state.limits, metrics: state.likes.metrics() }.run(early, peer);
}

fn write(mut stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes)
}

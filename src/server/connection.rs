//! One connection: read a request, answer it, and again; or hand over to a session.

use crate::{
    http::reader::{Inbox, NoRequest, close_in_stages},
    http::request::Method,
    http::response::Response,
    likes::outbox::Outbox,
    metrics::Refused,
    server::peer::Peer,
    server::routes::{self, Answer},
    server::service::Kind,
    server::state::State,
    websocket::{self, Ending, code},
};
use std::{
    io::{self, Write},
    net::TcpStream,
    sync::Arc,
    time::SystemTime,
};

/// Serves a connection until it ends. `early` are bytes that were read from it before; `upgraded` is told the client's
/// outbox when it becomes a WebSocket.
///
/// # Errors
///
/// What the socket said, where it broke in the middle of something.
pub(crate) fn serve(
    state: &State,
    stream: &Arc<TcpStream>,
    kind: Kind,
    early: Vec<u8>,
    upgraded: impl FnOnce(&Arc<Outbox>),
) -> io::Result<()> {
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
        let answer = match kind {
            Kind::Public => routes::answer(state, &request, &mut peer),
            Kind::Metrics => routes::answer_metrics(state, &request),
        };
        let response = match answer {
            Answer::Response(response) => response,
            Answer::Upgrade(bytes) => {
                write(stream, &bytes)?;
                let outbox = Arc::new(Outbox::new(stream.clone(), state.limits.write_deadline));
                upgraded(&outbox);
                watch(state, stream, &outbox, inbox.into_rest(), &mut peer);
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
fn watch(state: &State, stream: &TcpStream, outbox: &Arc<Outbox>, early: Vec<u8>, peer: &mut Peer<'_>) {
    let _seat = state.likes.join(outbox);
    if state.is_stopping() {
        // The stop may have told everyone before this one came in.
        state.close(outbox);
    }
    let ending = websocket::run(stream, outbox, early, &state.limits, peer);
    // What the client's messages mean is judged, and counted, where they are taken; how they come, in the session.
    if let Ending::Closed(code::PROTOCOL_ERROR | code::INVALID_PAYLOAD | code::MESSAGE_TOO_BIG) = ending {
        state.likes.metrics().refused(Refused::BadMessage);
    }
}

fn write(mut stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes)
}

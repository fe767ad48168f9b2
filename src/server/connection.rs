//! One connection: read a request, answer it, and again; or hand over to a session.

use crate::{
    http::reader::{RequestError, RequestReader, close_in_stages, write_within},
    http::response::Response,
    likes::Likes,
    likes::dialect::Dialect,
    likes::outbox::Outbox,
    limits::due_in,
    metrics::Refused,
    server::peer::Peer,
    server::routes::{self, Answer},
    server::service::Kind,
    server::state::State,
    websocket::{self, Ending, code},
};
use ::http::Method;
use std::{io, net::TcpStream, sync::Arc, time::SystemTime};

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
    let loopback = match state.loopback {
        Some(loopback) => loopback,
        None => stream.local_addr()?.ip().to_canonical().is_loopback(),
    };
    let mut peer = Peer::new(state, stream.peer_addr()?.ip(), loopback);
    let mut reader = RequestReader::new(stream, early);
    let write = |bytes: &[u8]| write_within(stream, bytes, state.limits.write_deadline);
    loop {
        let request = match reader.request(&state.limits) {
            Ok(request) => request,
            Err(RequestError::Ended) => return Ok(()),
            Err(RequestError::Refused(refusal)) => {
                log::debug!("refused a request: {} {}", refusal.status, refusal.problem);
                let timeout = refusal.status == 408;
                state.likes.metrics().refused(if timeout { Refused::Timeout } else { Refused::BadRequest });
                write(&Response::from(&refusal).encode(false, false, SystemTime::now()))?;
                close_in_stages(stream, due_in(state.limits.close_within));
                return Ok(());
            }
        };
        let answer = match kind {
            Kind::Public => routes::answer(state, &request, &mut peer),
            Kind::Metrics => routes::answer_metrics(state, &request),
        };
        let response = match answer {
            Answer::Response(response) => response,
            Answer::Upgrade(bytes, likes) => {
                drop(request); // nobody needs it as long as the WebSocket lives
                peer.watch(likes.clone());
                write(&bytes)?;
                let outbox = Arc::new(Outbox::new(stream.clone(), state.limits.write_deadline, Dialect::Bare, None));
                upgraded(&outbox);
                watch(state, &likes, stream, &outbox, reader.into_rest(), &mut peer);
                return Ok(());
            }
        };
        let keep_alive = request.keep_alive && !state.is_stopping();
        write(&response.encode(request.method == Method::HEAD, keep_alive, SystemTime::now()))?;
        if !keep_alive {
            close_in_stages(stream, due_in(state.limits.close_within));
            return Ok(());
        }
    }
}

/// Shows a client the counts, and takes its likes.
fn watch(state: &State, likes: &Likes, stream: &TcpStream, outbox: &Arc<Outbox>, early: Vec<u8>, peer: &mut Peer<'_>) {
    let Ok(_registration) = likes.join(outbox, None) else { return };
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

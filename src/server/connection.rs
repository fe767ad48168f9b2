//! One connection: read a request, answer it, and again; or hand over to a session.

use crate::{
    http::reader::{RequestError, RequestReader, close_in_stages, write_within},
    http::response::Response,
    likes::dialect::Dialect,
    likes::outbox::Outbox,
    limits::due_in,
    metrics::Refused,
    server::peer::Peer,
    server::routes::{self, Answer},
    server::service::Kind,
    server::state::State,
    server::watcher::Watcher,
    stream::Stream,
    websocket::{Handshake, Session},
};
use ::http::Method;
use std::{io, sync::Arc, time::SystemTime};

/// Serves a connection until it ends. `late`: it came after the stop began. `early` are bytes that were read from it before; `upgraded` is told the client's
/// outbox when it becomes a WebSocket.
///
/// # Errors
///
/// What the socket said, where it broke in the middle of something.
pub(crate) fn serve(
    state: &State,
    stream: &Arc<Stream>,
    kind: Kind,
    late: bool,
    early: Vec<u8>,
    upgraded: impl FnOnce(&Arc<Outbox>),
) -> io::Result<()> {
    let loopback = kind == Kind::Public { loopback: true };
    let mut peer = Peer::new(state, stream.peer(), loopback, late);
    let is_proxy = state.proxies.trusts(stream.peer());
    let mut reader = RequestReader::new(stream, early);
    let write = |bytes: &[u8]| write_within(stream, bytes, state.limits.write_deadline);
    loop {
        let request = match reader.request(&state.limits, |request| routes::wants_body(state, request)) {
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
        let (head_only, keep_alive) = (request.method == Method::HEAD, request.keep_alive);
        peer.client = state.proxies.client(stream.peer(), &request.fields);
        // While it is answered, and as long as it is a WebSocket. Whoever is no proxy has a place already.
        let place = if is_proxy && kind != Kind::Metrics { state.place(peer.client.place) } else { Ok(None) };
        let answer = match (kind, &place) {
            (Kind::Metrics, _) => routes::answer_metrics(state, &request),
            (Kind::Public { .. }, Ok(_)) => routes::answer(state, request, &mut peer),
            (Kind::Public { .. }, Err(refusal)) => {
                state.likes.metrics().refused(Refused::Connections);
                Response::from(refusal).field("Retry-After", "10").into()
            }
        };
        let response = match answer {
            Answer::Response(response) => response,
            Answer::Upgrade(Handshake { response, json }, likes) => {
                write(&response)?;
                let (dialect, boot) =
                    if json { (Dialect::Json, Some(state.posts.boot())) } else { (Dialect::Bare, None) };
                let outbox = Arc::new(Outbox::new(stream.clone(), state.limits.write_deadline, dialect, boot));
                upgraded(&outbox);
                peer.watch(likes);
                watch(state, stream, &outbox, dialect, reader.into_rest(), &mut peer);
                return Ok(());
            }
        };
        let keep_alive = keep_alive && !state.is_stopping();
        write(&response.encode(head_only, keep_alive, SystemTime::now()))?;
        if !keep_alive {
            close_in_stages(stream, due_in(state.limits.close_within));
            return Ok(());
        }
    }
}

/// Shows a client the counts, and takes its likes.
fn watch<'s>(
    state: &'s State,
    stream: &Stream,
    outbox: &Arc<Outbox>,
    dialect: Dialect,
    early: Vec<u8>,
    peer: &mut Peer<'s>,
) {
    let session = Session { stream, outbox, limits: &state.limits, metrics: state.likes.metrics() };
    let registration = match dialect {
        Dialect::Bare => peer.watched().join(outbox, None).ok(),
        Dialect::Json => None, // nothing is watched before the client says so
    };
    if state.is_stopping() {
        // The stop may have told everyone before this one came in.
        state.close(outbox);
    }
    match dialect {
        Dialect::Bare => session.run(early, peer),
        Dialect::Json => session.run(early, &mut Watcher::new(state, peer, outbox)),
    }
    drop(registration);
}

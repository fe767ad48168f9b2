//! One connection: read a request, answer it, and again; or hand over to a session.

use crate::{
    http::Refusal,
    http::reader::{CONTINUE, RequestError, RequestReader, close_in_stages, write_within},
    http::request::Request,
    http::response::Response,
    likes::dialect::Dialect,
    likes::outbox::Outbox,
    limits::due_in,
    metrics::Refused,
    server::access_log::{self, Asked},
    server::events,
    server::likes::Watched,
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

/// Serves a connection until it ends. `late`: it came after the stop began. `early` are bytes that were read from it
/// before; `watching` is told the client's outbox when it becomes one that is shown counts.
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
    watching: impl Fn(&Arc<Outbox>),
) -> io::Result<()> {
    let loopback = kind == Kind::Public { loopback: true };
    let mut peer = Peer::new(state, stream.peer(), loopback, late);
    let outbox = |dialect, boot| {
        let outbox = Arc::new(Outbox::new(stream.clone(), state.limits.write_deadline, dialect, boot));
        watching(&outbox);
        outbox
    };
    match answer_requests(state, stream, kind, early, &mut peer)? {
        Then::End => {}
        Then::Events(watched) => {
            let _counted = state.count_watcher(Dialect::Events);
            events::show(state, stream, &outbox(Dialect::Events, Some(state.posts.boot())), &watched);
        }
        Then::Session { json, early } => {
            let (dialect, boot) = if json { (Dialect::Json, Some(state.posts.boot())) } else { (Dialect::Bare, None) };
            watch(state, stream, &outbox(dialect, boot), dialect, early, &mut peer);
        }
    }
    Ok(())
}

/// What comes after a connection's requests.
enum Then {
    End,
    Events(Vec<Watched>),
    /// In JSON or not; and what came after the handshake's request.
    Session {
        json: bool,
        early: Vec<u8>,
    },
}

/// Answers requests until there are no more.
///
/// Never inlined, and nor is [`watch`], so that neither holds the stack that the other takes: a page a connection.
#[inline(never)]
fn answer_requests(
    state: &State,
    stream: &Stream,
    kind: Kind,
    early: Vec<u8>,
    peer: &mut Peer<'_>,
) -> io::Result<Then> {
    let mut reader = RequestReader::new(stream, early);
    let write = |bytes: &[u8]| write_within(stream, bytes, state.limits.write_deadline);
    loop {
        let mut request = match reader.request(&state.limits, |request| routes::wants_body(state, request)) {
            Ok(request) => request,
            Err(RequestError::Ended) => return Ok(Then::End),
            Err(RequestError::Refused(refusal, request)) => {
                let head_only = request.as_ref().map_or_else(|| reader.refused_head(), |it| it.method == Method::HEAD);
                write(&refused(state, peer, &refusal, request, head_only))?;
                close_in_stages(stream, due_in(state.limits.close_within));
                return Ok(Then::End);
            }
        };
        let (head_only, keep_alive) = (request.method == Method::HEAD, request.keep_alive);
        let asked = Asked::by(&request);
        let log = |source, status, bytes: &[u8]| {
            if let Some(asked) = asked {
                asked.answered(source, status, bytes.len());
            }
        };
        let answer = match place(state, stream, kind, &mut request, peer) {
            Ok(()) if kind == Kind::Metrics => routes::answer_metrics(state, &request),
            Ok(()) => routes::answer(state, &mut request, peer),
            Err(refusal) => {
                state.refusals.add(Refused::Connections);
                Response::from(&refusal).field("Retry-After", "10").into()
            }
        };
        let (response, keep_alive) = match answer {
            Answer::Response(response) => (response, keep_alive && !state.is_stopping()),
            Answer::Events(head, _) if head_only => (head, false),
            Answer::Events(head, watched) => {
                let bytes = head.encode(true, false, SystemTime::now());
                log(peer.source, 200, &bytes);
                write(&bytes)?;
                return Ok(Then::Events(watched));
            }
            Answer::Upgrade(Handshake { response, json }, likes) => {
                log(peer.source, 101, &response);
                // Before it switches, though nothing is to come (RFC 9110 section 7.8).
                let go_on = if request.expects_continue { CONTINUE } else { b"" };
                write(&[go_on, &response].concat())?;
                peer.watch(likes);
                return Ok(Then::Session { json, early: reader.into_rest() });
            }
        };
        let bytes = response.encode(head_only, keep_alive, SystemTime::now());
        log(peer.source, response.status, &bytes);
        write(&bytes)?;
        // A proxy keeps its connection for whoever comes next.
        peer.place = None;
        if !keep_alive {
            close_in_stages(stream, due_in(state.limits.close_within));
            return Ok(Then::End);
        }
    }
}

/// The response to a request that is refused before it is answered.
#[inline(never)] // as above
fn refused(
    state: &State,
    peer: &Peer<'_>,
    refusal: &Refusal,
    request: Option<Box<Request>>,
    head_only: bool,
) -> Vec<u8> {
    log::debug!("refused a request: {} {}", refusal.status, refusal.problem);
    let timeout = refusal.status == 408;
    state.refusals.add(if timeout { Refused::Timeout } else { Refused::BadRequest });
    let mut response = Response::from(refusal);
    if let Some(request) = request {
        response = routes::sharing(state, &request)(response);
    }
    let response = response.encode(head_only, false, SystemTime::now());
    access_log::refused(peer.source, refusal.status, response.len());
    response
}

/// Finds out who sent a request, and takes a place for one that a proxy passes on: until it is answered, or while what
/// comes of it is shown. Any other peer has had a place since it came.
#[inline(never)] // as above
fn place(
    state: &State,
    stream: &Stream,
    kind: Kind,
    request: &mut Request,
    peer: &mut Peer<'_>,
) -> Result<(), Refusal> {
    let client = state.proxies.client(stream.peer(), &request.fields);
    peer.source = client.source;
    (request.forwarded_host, request.scheme) = (client.host, client.scheme);
    if kind != Kind::Metrics && state.proxies.trusts(stream.peer()) {
        peer.place = state.place(client.source)?;
    }
    Ok(())
}

/// Shows a client the counts, and takes its likes.
#[inline(never)]
fn watch<'s>(
    state: &'s State,
    stream: &Stream,
    outbox: &Arc<Outbox>,
    dialect: Dialect,
    early: Vec<u8>,
    peer: &mut Peer<'s>,
) {
    let session =
        Session { stream, outbox, limits: &state.limits, metrics: state.likes.metrics(), refusals: &state.refusals };
    let _counted = state.count_watcher(dialect);
    // In JSON nothing is watched before the client says so.
    let registration = if dialect == Dialect::Json { None } else { peer.watched().join(outbox, None).ok() };
    state.close_if_stopping(outbox);
    if dialect == Dialect::Json {
        session.run(early, &mut Watcher::new(state, peer, outbox));
    } else {
        session.run(early, peer);
    }
    drop(registration);
}

//! The whole API: which request gets which answer.

use crate::{
    error::Error,
    http::request::{Method, Request},
    http::response::Response,
    metrics::Refused,
    server::peer::{LikeRefusal as LikeRefused, Peer},
    server::state::State,
    websocket,
};

/// What clients are told when the server stops.
pub(crate) const SHUTTING_DOWN: &str = "the server is shutting down";

/// What is done about a request.
pub(crate) enum Answer {
    Response(Response),
    /// These bytes are the 101 of a handshake; after them the connection is a WebSocket.
    Upgrade(Vec<u8>),
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self::Response(response)
    }
}

/// Answers a request. Framing has been judged; now the method is, then the host, then the path.
pub(crate) fn answer(state: &State, request: &Request, peer: &mut Peer<'_>) -> Answer {
    use Method::{Get, Head, Options, Post, Put, Unknown};
    if request.method == Unknown {
        return Response::error(501, "no such method is known").into();
    }
    if !state.access.host(request.host.as_ref(), peer.loopback) {
        let problem = "this server is not called that; --allow-host NAME adds a name";
        return refuse(state, Refused::Host, Response::error(403, problem)).into();
    }
    let answer = match (request.path.as_str(), request.method) {
        ("/" | "/index.html", Get | Head) => state.page.answer(state.likes.count(), request.if_none_match.as_deref()),
        ("/likes", Get | Head) => count(state.likes.count()),
        ("/like", Put | Post) => like(state, request, peer),
        ("/liveLikes", Get) => return upgrade(state, request),
        ("/liveLikes", Head) if !request.handshake.asked => match upgrade(state, request) {
            Answer::Response(response) => response,
            Answer::Upgrade(_) => websocket::not_get(),
        },
        ("/healthz", Get | Head) => health(state),
        ("/metrics", Get | Head) => metrics(state),
        ("*", Options) => Response::new(204).field("Allow", "GET, HEAD, PUT, POST, OPTIONS"),
        ("/likes" | "/like", Options) if request.preflight => return preflight(state, request).into(),

        ("/" | "/index.html" | "/likes" | "/healthz" | "/metrics", _) => not_allowed("GET, HEAD"),
        ("/like", _) => not_allowed("PUT, POST"),
        ("/liveLikes", _) => websocket::not_get(),
        _ => Response::error(404, "there is nothing here"),
    };
    share(state, request, answer).into()
}

fn count(likes: u64) -> Response {
    Response::new(200).body("application/json", format!("{{\"numLikes\":{likes}}}")).field("Cache-Control", "no-store")
}

fn like(state: &State, request: &Request, peer: &mut Peer<'_>) -> Response {
    if !state.access.origin(request.origin.as_deref(), request.host.as_ref()) {
        return refuse(state, Refused::Origin, foreign());
    }
    if state.is_stopping() {
        return refuse(state, Refused::Unavailable, unavailable(SHUTTING_DOWN));
    }
    match peer.like() {
        Ok(likes) => count(likes),
        Err(problem @ LikeRefused::Connection(_)) => Response::error(429, problem),
        Err(problem @ LikeRefused::Address(_)) => Response::error(429, problem).field("Retry-After", "1"),
        Err(problem @ LikeRefused::Counter(Error::Full)) => Response::error(409, problem),
        Err(problem) => unavailable(problem),
    }
}

fn upgrade(state: &State, request: &Request) -> Answer {
    match websocket::handshake(request) {
        Ok(_) if !state.access.origin(request.origin.as_deref(), request.host.as_ref()) => {
            refuse(state, Refused::Origin, foreign()).into()
        }
        Ok(_) if state.is_stopping() => refuse(state, Refused::Unavailable, unavailable(SHUTTING_DOWN)).into(),
        Ok(bytes) => Answer::Upgrade(bytes),
        Err(response) => refuse(state, Refused::BadRequest, response).into(),
    }
}

fn health(state: &State) -> Response {
    match state.likes.health() {
        _ if state.is_stopping() => unavailable(SHUTTING_DOWN),
        Ok(()) => Response::text(200, "ok"),
        Err(problem) => unavailable(problem),
    }
}

fn metrics(state: &State) -> Response {
    Response::new(200)
        .body("text/plain; version=0.0.4; charset=utf-8", state.metrics())
        .field("Cache-Control", "no-store")
}

/// Before a page of another origin may send a `PUT`, its browser asks whether it may (the Fetch standard's
/// CORS protocol).
fn preflight(state: &State, request: &Request) -> Response {
    if !state.access.origin(request.origin.as_deref(), request.host.as_ref()) {
        return refuse(state, Refused::Origin, foreign());
    }
    let response = Response::new(204)
        .field("Access-Control-Allow-Methods", "GET, PUT, POST")
        .field("Access-Control-Allow-Headers", "Content-Type")
        .field("Access-Control-Max-Age", "600");
    share(state, request, response)
}

/// Lets a page of an allowed origin read the answer.
fn share(state: &State, request: &Request, response: Response) -> Response {
    if !matches!(request.path.as_str(), "/likes" | "/like") {
        return response;
    }
    let response = response.field("Vary", "Origin");
    match &request.origin {
        Some(origin) if state.access.origin(Some(origin), request.host.as_ref()) => {
            response.field("Access-Control-Allow-Origin", origin.clone())
        }
        _ => response,
    }
}

fn not_allowed(allowed: &'static str) -> Response {
    Response::error(405, format!("allowed here: {allowed}")).field("Allow", allowed)
}

fn foreign() -> Response {
    Response::error(403, "likes from pages of this origin are not allowed; --allow-origin ORIGIN allows them")
}

fn unavailable(problem: impl std::fmt::Display) -> Response {
    Response::error(503, problem).field("Retry-After", "2")
}

fn refuse(state: &State, reason: Refused, response: Response) -> Response {
    state.likes.metrics().refused(reason);
    response
}

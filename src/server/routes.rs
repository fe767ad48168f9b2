//! The whole API: which request gets which answer.

use crate::{
    http::request::Request, http::response::Response, likes::Likes, metrics::Refused, server::likes,
    server::peer::Peer, server::state::State, websocket,
};
use ::http::{
    Method,
    header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN},
};

/// What clients are told when the server stops.
pub(crate) const SHUTTING_DOWN: &str = "the server is shutting down";

/// What is done about a request.
pub(crate) enum Answer {
    Response(Response),
    /// These bytes are the 101 of a handshake; after them the connection is a WebSocket, which is shown this counter.
    Upgrade(Vec<u8>, Likes),
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self::Response(response)
    }
}

const GET: &Method = &Method::GET;
const HEAD: &Method = &Method::HEAD;
const PUT: &Method = &Method::PUT;
const POST: &Method = &Method::POST;
const DELETE: &Method = &Method::DELETE;
const OPTIONS: &Method = &Method::OPTIONS;

/// The methods of a path, as `Allow` names them; `None` where there is nothing.
fn allow(state: &State, path: &str) -> Option<&'static str> {
    let takes_back = state.posts.remembers_visitors();
    match path {
        "/" | "/index.html" | "/likes" | "/healthz" | "/metrics" => Some("GET, HEAD, OPTIONS"),
        "/like" if takes_back => Some("PUT, POST, DELETE, OPTIONS"),
        "/like" => Some("PUT, POST, OPTIONS"),
        "/liveLikes" => Some("GET, OPTIONS"),
        "*" if takes_back => Some("GET, HEAD, PUT, POST, DELETE, OPTIONS"),
        "*" => Some("GET, HEAD, PUT, POST, OPTIONS"),
        _ => None,
    }
}

/// Answers a request. Framing has been judged; now the method is, then the host, then the path.
pub(crate) fn answer(state: &State, request: &Request, peer: &mut Peer<'_>) -> Answer {
    if !matches!(&request.method, GET | HEAD | PUT | POST | DELETE | OPTIONS | &Method::PATCH | &Method::TRACE) {
        return Response::error(501, "unknown method").into();
    }
    if !state.access.host(request.host.as_ref(), peer.loopback) {
        let problem = "this server is not called that; --allow-host NAME adds a name";
        return refuse(state, Refused::Host, Response::error(403, problem)).into();
    }
    let path = request.target.path();
    let Some(allow) = allow(state, path) else { return Response::error(404, "there is nothing here").into() };
    let response = match (path, &request.method) {
        ("/" | "/index.html", GET | HEAD) => state.page.answer(state.likes.count(), &request.fields),
        ("/likes", GET | HEAD) => likes::counts(state, request),
        ("/like", PUT | POST | DELETE) => like(state, request, peer),
        ("/liveLikes", GET) => return upgrade(state, request),
        ("/liveLikes", HEAD) if !request.asks_for_websocket() => return upgrade(state, request),
        ("/healthz", GET | HEAD) => health(state),
        ("/metrics", _) if state.metrics_apart => Response::error(404, "there is nothing here"),
        ("/metrics", GET | HEAD) => metrics(state),
        ("/likes" | "/like", OPTIONS) if request.fields.contains_key(ACCESS_CONTROL_REQUEST_METHOD) => {
            preflight(state, request, allow)
        }
        (_, OPTIONS) => Response::new(204).field("Allow", allow),
        _ => Response::error(405, format!("allowed here: {allow}")).field("Allow", allow),
    };
    share(state, request, response).into()
}

/// Answers a request to the address of the metrics, under whatever name: monitors come by address.
pub(crate) fn answer_metrics(state: &State, request: &Request) -> Answer {
    match (request.target.path(), &request.method) {
        ("/healthz", &Method::GET | &Method::HEAD) => health(state),
        ("/metrics", &Method::GET | &Method::HEAD) => metrics(state),
        ("/healthz" | "/metrics", _) => Response::error(405, "allowed here: GET, HEAD").field("Allow", "GET, HEAD"),
        _ => Response::error(404, "here are /metrics and /healthz"),
    }
    .into()
}

fn like(state: &State, request: &Request, peer: &mut Peer<'_>) -> Response {
    if !state.access.origin(request.fields.get(ORIGIN), request.host.as_ref()) {
        return refuse(state, Refused::Origin, foreign());
    }
    if state.is_stopping() {
        return refuse(state, Refused::Unavailable, unavailable(SHUTTING_DOWN));
    }
    likes::change(state, request, peer)
}

fn upgrade(state: &State, request: &Request) -> Answer {
    match websocket::handshake(request) {
        Ok(_) if !state.access.origin(request.fields.get(ORIGIN), request.host.as_ref()) => {
            refuse(state, Refused::Origin, foreign()).into()
        }
        Ok(_) if state.is_stopping() => refuse(state, Refused::Unavailable, unavailable(SHUTTING_DOWN)).into(),
        Ok(bytes) => match likes::watched(state, request) {
            Ok(likes) => Answer::Upgrade(bytes, likes),
            Err(response) => response.into(),
        },
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

/// Before a page of another origin may send a `PUT` or a `DELETE`, its browser asks whether it may (the Fetch standard's
/// CORS protocol).
fn preflight(state: &State, request: &Request, allow: &'static str) -> Response {
    if !state.access.origin(request.fields.get(ORIGIN), request.host.as_ref()) {
        return refuse(state, Refused::Origin, foreign());
    }
    Response::new(204)
        .field("Allow", allow)
        .field("Access-Control-Allow-Methods", "GET, PUT, POST, DELETE")
        .field("Access-Control-Allow-Headers", "Content-Type")
        .field("Access-Control-Max-Age", "600")
}

/// Lets a page of an allowed origin read the answer.
fn share(state: &State, request: &Request, response: Response) -> Response {
    if !matches!(request.target.path(), "/likes" | "/like") {
        return response;
    }
    let response = response.field("Vary", "Origin");
    match request.fields.get(ORIGIN) {
        Some(origin) if state.access.origin(Some(origin), request.host.as_ref()) => {
            response.field("Access-Control-Allow-Origin", origin.clone())
        }
        _ => response,
    }
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

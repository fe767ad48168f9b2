//! The whole API: which request gets which answer.

use crate::{
    http::body::Framing,
    http::request::{Request, is_token, list},
    http::response::Response,
    likes::Likes,
    metrics::Refused,
    server::access::address,
    server::events,
    server::likes::{self, Watched},
    server::page,
    server::peer::{LikeRefusal, Peer},
    server::state::State,
    websocket::{self, Handshake},
};
use ::http::{
    HeaderValue, Method, Uri,
    header::{ACCESS_CONTROL_REQUEST_HEADERS, ORIGIN},
    uri::Authority,
};

/// What clients are told when the server stops.
pub(crate) const SHUTTING_DOWN: &str = "the server is shutting down";

/// What is done about a request.
pub(crate) enum Answer {
    Response(Response),
    /// The connection is a WebSocket from here on, which is shown this counter.
    Upgrade(Handshake, Likes),
    /// The response is a stream of events from here on, of these counters.
    Events(Response, Vec<Watched>),
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
        "" | "/" | "/index.html" | "/live-likes.js" | "/favicon.ico" | "/likes" | "/likes.svg" | "/healthz"
        | "/metrics" => Some("GET, HEAD, OPTIONS"),
        "/like" if takes_back => Some("PUT, POST, DELETE, OPTIONS"),
        "/like" => Some("PUT, POST, OPTIONS"),
        "/liveLikes" => Some("GET, OPTIONS"),
        "*" if takes_back => Some("GET, HEAD, PUT, POST, DELETE, OPTIONS"),
        "*" => Some("GET, HEAD, PUT, POST, OPTIONS"),
        _ => None,
    }
}

/// Whether a method is one that a path could allow: a tunnel is none (RFC 9110 section 9.3.6).
fn is_known(method: &Method) -> bool {
    matches!(method, GET | HEAD | PUT | POST | DELETE | OPTIONS | &Method::PATCH | &Method::TRACE)
}

/// Whether a path is answered under this host, whatever names are allowed. Health checks and Prometheus come by address.
///
/// A health check says nothing that a page of an attacker's could use. Metrics do, and so they are kept from a page
/// whose name was made to point here (DNS rebinding): that page's requests carry its name, never an address.
fn is_open(path: &str, host: &Authority) -> bool {
    path == "/healthz" || path == "/metrics" && address(host.host()).is_some()
}

/// Of a path that is ours, what stands after the prefix, and the methods there.
fn own<'t>(state: &State, target: &'t Uri) -> Option<(&'t str, &'static str)> {
    let path = target.path();
    let path = if path == "*" { path } else { path.strip_prefix(state.prefix.as_str())? };
    if path == "/metrics" && state.metrics_apart { None } else { Some((path, allow(state, path)?)) }
}

/// Whether the body of a request is to be kept.
pub(crate) fn wants_body(state: &State, request: &Request) -> bool {
    match own(state, &request.target) {
        Some((path, _)) => path == "/like" && request.framing != Framing::Length(0) && request.content().is_some(),
        None => state.fallback.is_some(),
    }
}

/// Answers a request. Framing has been judged; now the method is, then the host, then the path.
#[inline(never)] // what it takes of the stack, reading a request takes again
pub(crate) fn answer(state: &State, request: &mut Request, peer: &mut Peer<'_>) -> Answer {
    let share = sharing(state, request);
    match route(state, request, peer) {
        Answer::Response(response) => share(response).into(),
        Answer::Events(head, watched) => Answer::Events(share(head), watched),
        upgrade => upgrade,
    }
}

fn route(state: &State, request: &mut Request, peer: &mut Peer<'_>) -> Answer {
    let own = own(state, &request.target);
    let fallback = state.fallback.as_ref().filter(|_| own.is_none() && request.method != Method::CONNECT);
    if !is_known(&request.method) && fallback.is_none() {
        return Response::error(501, "unknown method").into();
    }
    if let Some(host) = &request.host
        && !own.is_some_and(|(path, _)| is_open(path, host))
        && !state.access.host(host, peer.loopback)
    {
        state.access.log_host(host);
        let problem = "this host name is not allowed; --allow-host NAME allows it";
        return refuse(state, Refused::Host, Response::error(403, problem)).into();
    }
    let Some((path, allow)) = own else {
        return match fallback {
            Some(fallback) => fallback.answer(request),
            None => Response::error(404, "there is nothing here"),
        }
        .into();
    };
    let request = &*request;
    match (path, &request.method) {
        ("", GET | HEAD) => Response::new(308).field("Location", format!("{}/", state.prefix)),
        ("/" | "/index.html", GET | HEAD) => {
            state.page.answer(state.likes.count(), state.ancestors.as_deref(), &request.fields)
        }
        ("/live-likes.js", GET | HEAD) => page::module(&request.fields),
        ("/favicon.ico", GET | HEAD) => page::icon(),
        ("/likes", GET | HEAD) if request.accepts("text/event-stream") => match watch(state, request) {
            Ok(watched) => return Answer::Events(events::head(), watched),
            Err(response) => response,
        },
        ("/likes", GET | HEAD) => likes::counts(state, request),
        ("/likes.svg", GET | HEAD) => likes::badge(state, request),
        ("/like", PUT | POST | DELETE) => like(state, request, peer),
        ("/liveLikes", GET) => return upgrade(state, request, peer),
        ("/liveLikes", HEAD) if !request.asks_for_websocket() => return upgrade(state, request, peer),
        ("/healthz", GET | HEAD) => health(state),
        ("/metrics", GET | HEAD) => metrics(state),
        ("/likes" | "/like" | "/live-likes.js", OPTIONS) if request.fields.contains_key(ORIGIN) => {
            preflight(state, request, allow)
        }
        (_, method) => otherwise(method, allow),
    }
    .into()
}

/// Answers a request to the address of the metrics, under whatever name: monitors come by address.
pub(crate) fn answer_metrics(state: &State, request: &Request) -> Answer {
    match (request.target.path(), &request.method) {
        (_, method) if !is_known(method) => Response::error(501, "unknown method"),
        ("/healthz", GET | HEAD) => health(state),
        ("/metrics", GET | HEAD) => metrics(state),
        ("/healthz" | "/metrics" | "*", method) => otherwise(method, "GET, HEAD, OPTIONS"),
        _ => Response::error(404, "here are /metrics and /healthz"),
    }
    .into()
}

/// Answers OPTIONS, and whatever method is not allowed.
fn otherwise(method: &Method, allow: &'static str) -> Response {
    if method == OPTIONS {
        return Response::new(204).field("Allow", allow);
    }
    Response::error(405, format!("allowed here: {allow}")).field("Allow", allow)
}

fn like(state: &State, request: &Request, peer: &mut Peer<'_>) -> Response {
    if let Err(refusal) = check_origin(state, request) {
        return refusal;
    }
    if peer.late {
        return refuse(state, Refused::Unavailable, unavailable(SHUTTING_DOWN));
    }
    likes::change(state, request, peer)
}

fn upgrade(state: &State, request: &Request, peer: &Peer<'_>) -> Answer {
    let handshake = match websocket::handshake(request) {
        Ok(handshake) => handshake,
        Err(response) => return refuse(state, Refused::BadRequest, response).into(),
    };
    if let Err(refusal) = check_origin(state, request) {
        return refusal.into();
    }
    // Any other is told so by its close frame.
    if peer.late {
        return refuse(state, Refused::Unavailable, unavailable(SHUTTING_DOWN)).into();
    }
    match likes::watched(state, request, handshake.json) {
        Ok(likes) => Answer::Upgrade(handshake, likes),
        Err(response) => response.into(),
    }
}

/// What a stream of events is to show. Whoever opens one must name itself: that is what a page does not that asks for
/// what it may not read.
fn watch(state: &State, request: &Request) -> Result<Vec<Watched>, Response> {
    if request.fields.get("Sec-Fetch-Mode").is_some_and(|mode| mode == "no-cors") {
        let problem = "a page reads events by EventSource, or by fetch in a mode other than no-cors";
        return Err(refuse(state, Refused::Origin, Response::error(403, problem)));
    }
    check_origin(state, request)
        // Who may not read counts may read why, and say so in the browser's console.
        .map_err(|refusal| refusal.field("Access-Control-Allow-Origin", "*"))?;
    if state.is_stopping() {
        return Err(refuse(state, Refused::Unavailable, unavailable(SHUTTING_DOWN)));
    }
    likes::watched_by_events(state, request)
}

fn health(state: &State) -> Response {
    match state.likes.health() {
        _ if state.is_stopping() => unavailable(SHUTTING_DOWN),
        Ok(()) => Response::text(200, "ok"),
        // What exactly is the matter is in the log: it names files of the server's.
        Err(problem) => unavailable(LikeRefusal::Counter(problem)),
    }
}

fn metrics(state: &State) -> Response {
    Response::new(200)
        .body("text/plain; version=0.0.4; charset=utf-8", state.metrics())
        .field("Cache-Control", "no-store")
}

/// Before a page of another origin may send a `PUT` or a `DELETE`, or a field of its own such as those that trace a
/// request, its browser asks whether it may (the Fetch standard's CORS protocol); from a public site also whether it may
/// ask for anything on a private network. A page asks for itself too, when its WebSocket fails: why, a script is not told.
fn preflight(state: &State, request: &Request, allow: &'static str) -> Response {
    if let Err(refusal) = check_origin(state, request) {
        return refusal;
    }
    // No field says anything here that its page may not say.
    let asked = request.fields.get(ACCESS_CONTROL_REQUEST_HEADERS).filter(|_| {
        list(&request.fields, ACCESS_CONTROL_REQUEST_HEADERS).all(|name| name.iter().copied().all(is_token))
    });
    let response = Response::new(204)
        .field("Allow", allow)
        .field("Access-Control-Allow-Methods", "GET, PUT, POST, DELETE")
        .field("Access-Control-Allow-Headers", asked.cloned().unwrap_or(HeaderValue::from_static("Content-Type")))
        .field("Access-Control-Max-Age", "600");
    match request.fields.get("Access-Control-Request-Private-Network") {
        Some(asked) if asked == "true" => response.field("Access-Control-Allow-Private-Network", "true"),
        _ => response,
    }
}

/// Lets a page of an allowed origin read the response to its request, errors too.
pub(crate) fn sharing<'s>(state: &'s State, request: &Request) -> impl FnOnce(Response) -> Response + use<'s> {
    let path = own(state, &request.target).map(|(path, _)| path);
    let vary = match (path, &request.method) {
        (Some("/likes"), GET | HEAD) => Some("Accept, Origin"),
        (Some("/likes" | "/like"), _) | (Some("/live-likes.js"), OPTIONS) => Some("Origin"),
        _ => None,
    };
    let origin = request.fields.get(ORIGIN).filter(|_| vary.is_some());
    let allowed = origin.filter(|origin| state.access.origin(origin, request.called_host(), request.scheme));
    let allowed = allowed.map(|origin| state.access.shared_with(origin));
    move |mut response| {
        if let Some(vary) = vary {
            response = response.field("Vary", HeaderValue::from_static(vary));
        }
        match allowed {
            Some(origin) => response.field("Access-Control-Allow-Origin", origin),
            None => response,
        }
    }
}

/// Refuses a page of another origin. A request without an origin comes from no page.
fn check_origin(state: &State, request: &Request) -> Result<(), Response> {
    match request.fields.get(ORIGIN) {
        Some(origin) if !state.access.origin(origin, request.called_host(), request.scheme) => {
            let problem = state.access.refuse_origin(origin);
            Err(refuse(state, Refused::Origin, Response::error(403, problem)))
        }
        _ => Ok(()),
    }
}

fn unavailable(problem: impl std::fmt::Display) -> Response {
    Response::error(503, problem).field("Retry-After", "2")
}

fn refuse(state: &State, reason: Refused, response: Response) -> Response {
    state.refusals.add(reason);
    response
}

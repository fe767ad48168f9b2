//! The whole API: which request gets which answer.

use crate::{
    error::Error,
    http::{Method, Request},
    liker::{Liker, NoLike},
    metrics::Refused,
    response::Response,
    session,
    site::Site,
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
pub(crate) fn answer(site: &Site, request: &Request, liker: &mut Liker<'_>) -> Answer {
    use Method::{Get, Head, Options, Post, Put, Unknown};
    if request.method == Unknown {
        return Response::error(501, "no such method is known").into();
    }
    if !site.access.host(request.host.as_ref(), liker.loopback) {
        let problem = "this server is not called that; --allow-host NAME adds a name";
        return refuse(site, Refused::Host, Response::error(403, problem)).into();
    }
    let answer = match (request.path.as_str(), request.method) {
        ("/" | "/index.html", Get | Head) => site.page.answer(site.likes.count(), request.if_none_match.as_deref()),
        ("/likes", Get | Head) => count(site.likes.count()),
        ("/like", Put | Post) => like(site, request, liker),
        ("/liveLikes", Get) => return upgrade(site, request),
        ("/liveLikes", Head) if !request.handshake.asked => match upgrade(site, request) {
            Answer::Response(response) => response,
            Answer::Upgrade(_) => session::not_get(),
        },
        ("/healthz", Get | Head) => health(site),
        ("/metrics", Get | Head) => metrics(site),
        ("*", Options) => Response::new(204).field("Allow", "GET, HEAD, PUT, POST, OPTIONS"),
        ("/likes" | "/like", Options) if request.preflight => return preflight(site, request).into(),

        ("/" | "/index.html" | "/likes" | "/healthz" | "/metrics", _) => not_allowed("GET, HEAD"),
        ("/like", _) => not_allowed("PUT, POST"),
        ("/liveLikes", _) => session::not_get(),
        _ => Response::error(404, "there is nothing here"),
    };
    share(site, request, answer).into()
}

fn count(likes: u64) -> Response {
    Response::new(200).body("application/json", format!("{{\"numLikes\":{likes}}}")).field("Cache-Control", "no-store")
}

fn like(site: &Site, request: &Request, liker: &mut Liker<'_>) -> Response {
    if !site.access.origin(request.origin.as_deref(), request.host.as_ref()) {
        return refuse(site, Refused::Origin, foreign());
    }
    if site.is_stopping() {
        return refuse(site, Refused::Unavailable, unavailable(SHUTTING_DOWN));
    }
    match liker.like() {
        Ok(likes) => count(likes),
        Err(problem @ NoLike::Connection(_)) => Response::error(429, problem),
        Err(problem @ NoLike::Address(_)) => Response::error(429, problem).field("Retry-After", "1"),
        Err(problem @ NoLike::Counter(Error::Full)) => Response::error(409, problem),
        Err(problem) => unavailable(problem),
    }
}

fn upgrade(site: &Site, request: &Request) -> Answer {
    match session::handshake(request) {
        Ok(_) if !site.access.origin(request.origin.as_deref(), request.host.as_ref()) => {
            refuse(site, Refused::Origin, foreign()).into()
        }
        Ok(_) if site.is_stopping() => refuse(site, Refused::Unavailable, unavailable(SHUTTING_DOWN)).into(),
        Ok(bytes) => Answer::Upgrade(bytes),
        Err(response) => refuse(site, Refused::BadRequest, response).into(),
    }
}

fn health(site: &Site) -> Response {
    match site.likes.health() {
        _ if site.is_stopping() => unavailable(SHUTTING_DOWN),
        Ok(()) => Response::text(200, "ok"),
        Err(problem) => unavailable(problem),
    }
}

fn metrics(site: &Site) -> Response {
    Response::new(200)
        .body("text/plain; version=0.0.4; charset=utf-8", site.metrics())
        .field("Cache-Control", "no-store")
}

/// Before a page of another origin may send a `PUT`, its browser asks whether it may (the Fetch standard's
/// CORS protocol).
fn preflight(site: &Site, request: &Request) -> Response {
    if !site.access.origin(request.origin.as_deref(), request.host.as_ref()) {
        return refuse(site, Refused::Origin, foreign());
    }
    let response = Response::new(204)
        .field("Access-Control-Allow-Methods", "GET, PUT, POST")
        .field("Access-Control-Allow-Headers", "Content-Type")
        .field("Access-Control-Max-Age", "600");
    share(site, request, response)
}

/// Lets a page of an allowed origin read the answer.
fn share(site: &Site, request: &Request, response: Response) -> Response {
    if !matches!(request.path.as_str(), "/likes" | "/like") {
        return response;
    }
    let response = response.field("Vary", "Origin");
    match &request.origin {
        Some(origin) if site.access.origin(Some(origin), request.host.as_ref()) => {
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

fn refuse(site: &Site, reason: Refused, response: Response) -> Response {
    site.likes.metrics().refused(reason);
    response
}

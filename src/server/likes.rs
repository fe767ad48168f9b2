//! What `/likes` and `/like` answer: counts, and what has become of likes.

use crate::{
    error::Error,
    http::Refusal,
    http::request::{Request, authority},
    http::response::Response,
    likes::Likes,
    metrics::Refused,
    server::badge,
    server::peer::{LikeRefusal, Peer},
    server::query::Parameters,
    server::state::State,
    store::change::{self, ChangeKind, Count, NameError, Post, VisitorKey},
};
use ::http::{
    HeaderValue, Method,
    header::{ORIGIN, REFERER},
};

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// What a page's URL may hold as its author has written it, besides what is not ASCII, and a field may not.
const NOT_IN_URLS: &AsciiSet = &CONTROLS.add(b' ');

/// Posts in one answer.
const MOST_POSTS: usize = 100;

/// Answers `GET /likes`: the count of a post, or of several, or the most liked ones.
pub(crate) fn counts(state: &State, request: &Request) -> Response {
    try_counts(state, request).unwrap_or_else(|problem| problem.response(state))
}

fn try_counts(state: &State, request: &Request) -> Result<Response, Problem> {
    let parameters = Parameters::of_query(request, &["post", "visitor", "top"])?;
    if let Some(most) = parameters.top {
        if !parameters.posts.is_empty() || parameters.visitor.is_some() {
            return Err(Refusal::bad("`top` is not expected together with `post` or `visitor`").into());
        }
        let top = state.top(most)?.into_iter();
        return Ok(several(top.map(|(post, count)| (post, count, None))));
    }
    let one = parameters.posts.len() <= 1;
    let has_visitor = parameters.visitor.is_some();
    let posts = posts_of(state, parameters)?;
    if posts[0].0.is_default() && (!has_visitor || !state.posts.has_many()) {
        return Ok(json(count_of(None, state.likes.now(), None, has_visitor)));
    }
    let counts = state.posts.read(&posts)?;
    let mut counts = posts.into_iter().zip(counts).map(|((post, _), (count, liked))| (post, count, liked));
    match counts.next() {
        Some((_, count, liked)) if one => Ok(json(count_of(None, count, liked, true))),
        first => Ok(several(first.into_iter().chain(counts))),
    }
}

/// Answers `GET /likes.svg`: the count of a post as a picture, for where no script runs.
pub(crate) fn badge(state: &State, request: &Request) -> Response {
    let count = || -> Result<_, Problem> {
        let post = Parameters::of_query(request, &["post"])?.post()?;
        state.check(&post)?;
        let count = if post.is_default() { state.likes.now() } else { state.posts.read(&[(post.clone(), None)])?[0].0 };
        Ok((post, count.likes))
    };
    match count() {
        Ok((post, likes)) => badge::response(&post, likes),
        Err(problem) => problem.response(state),
    }
}

/// The posts that `GET /likes` asks for, in that order and each once; and the visitor, where the store remembers any.
fn posts_of(state: &State, mut parameters: Parameters) -> Result<Vec<(Post, Option<VisitorKey>)>, Problem> {
    if parameters.posts.is_empty() {
        parameters.posts.push(Post::default());
    }
    let mut posts: Vec<(Post, Option<VisitorKey>)> = Vec::new();
    for post in parameters.posts {
        if posts.iter().any(|(other, _)| *other == post) {
            continue;
        }
        if posts.len() == MOST_POSTS {
            return Err(Refusal::bad(format!("more than {MOST_POSTS} posts are asked for")).into());
        }
        let visitor = parameters.visitor.as_deref().map(|visitor| VisitorKey::of(visitor, &post)).transpose()?;
        posts.push((post, visitor.filter(|_| state.posts.remembers_visitors())));
    }
    posts.iter().try_for_each(|(post, _)| state.check(post))?;
    Ok(posts)
}

/// A counter that a stream of events shows, and the visitor on whose behalf it does.
pub(crate) struct Watched {
    pub(crate) likes: Likes,
    pub(crate) visitor: Option<VisitorKey>,
}

/// The counters that a stream of events is to show: those that the same request for JSON asks for.
pub(crate) fn watched_by_events(state: &State, request: &Request) -> Result<Vec<Watched>, Response> {
    let watched = || -> Result<_, Problem> {
        let posts = posts_of(state, Parameters::of_query(request, &["post", "visitor"])?)?;
        let most = state.limits.posts_per_client;
        if posts.len() > most {
            return Err(LikeRefusal::Watches(most).into());
        }
        let counter = |(post, visitor)| Ok(Watched { likes: state.counter(post)?, visitor });
        posts.into_iter().map(counter).collect()
    };
    watched().map_err(|problem| problem.response(state))
}

/// Answers `PUT`, `POST` and `DELETE` of `/like`, once it is saved.
pub(crate) fn change(state: &State, request: &Request, peer: &mut Peer<'_>) -> Response {
    try_change(state, request, peer).unwrap_or_else(|problem| problem.response(state))
}

fn try_change(state: &State, request: &Request, peer: &mut Peer<'_>) -> Result<Response, Problem> {
    if request.method == Method::DELETE && !state.posts.remembers_visitors() {
        return Err(Error::Refused(change::Refused::Unlikes).into());
    }
    let parameters = Parameters::of_query(request, &["post", "visitor", "seq", "back"])?.with_body(request)?;
    let post = parameters.post()?;
    let (is_default, liked) = (post.is_default(), request.method != Method::DELETE);
    let kind = match (parameters.visitor.as_deref(), parameters.seq) {
        (Some(visitor), seq) => ChangeKind::Visitor { visitor: VisitorKey::of(visitor, &post)?, liked, seq },
        (None, _) if !liked => return Err(Refusal::bad("a `visitor` is expected, whose like is taken back").into()),
        (None, Some(_)) => return Err(Refusal::bad("a `visitor` is expected, whose change `seq` numbers").into()),
        (None, None) => ChangeKind::Likes(1),
    };
    let answer = peer.change(post, kind)?;
    if request.method == Method::POST && request.accepts("text/html") {
        // A browser that shows what it is answered.
        let page = page_to_show(request, parameters.back.as_deref());
        let page = page.unwrap_or_else(|| format!("{}/", state.prefix));
        return Ok(Response::new(303).field("Location", page).field("Cache-Control", "no-store"));
    }
    let has_visitor = parameters.visitor.is_some();
    let liked = Some(answer.liked).filter(|_| has_visitor && state.posts.remembers_visitors());
    Ok(json(count_of(None, answer.count, liked, has_visitor || !is_default)))
}

/// The counter that `GET /liveLikes` names. In JSON a client says by messages which posts it watches.
pub(crate) fn watched(state: &State, request: &Request, json: bool) -> Result<Likes, Response> {
    let expected: &[&str] = if json { &[] } else { &["post"] };
    let parameters = Parameters::of_query(request, expected).map_err(Problem::from);
    let counter = parameters.and_then(|parameters| Ok(state.counter(parameters.post()?)?));
    counter.map_err(|problem| problem.response(state))
}

/// Where a browser goes on that has sent a form: to the page that the form names, or else to the one that it was on, if
/// that is of the origin that the like came from. So no link that somebody makes up leads elsewhere.
fn page_to_show(request: &Request, back: Option<&str>) -> Option<String> {
    let text = |name| request.fields.get(name).and_then(|value| value.to_str().ok());
    let is_web = |origin: &&str| {
        let Some(("http" | "https", host)) = origin.split_once("://") else { return false };
        authority(host.as_bytes()).is_some()
    };
    // A browser writes both in the same way, so that an origin that looks different may be refused.
    let is_of = |origin: &str, url: &str| {
        let rest = url.get(origin.len()..).filter(|_| url[..origin.len()].eq_ignore_ascii_case(origin));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#'])) && !url.contains(char::is_control)
    };
    let origin = text(ORIGIN).filter(is_web)?;
    let url = [back, text(REFERER)].into_iter().flatten().find(|url| is_of(origin, url))?;
    Some(utf8_percent_encode(url, NOT_IN_URLS).to_string())
}

fn json(object: String) -> Response {
    Response::new(200).body("application/json", object).field("Cache-Control", HeaderValue::from_static("no-store"))
}

fn several(counts: impl Iterator<Item = (Post, Count, Option<bool>)>) -> Response {
    let objects: Vec<_> = counts.map(|(post, count, liked)| count_of(Some(&post), count, liked, true)).collect();
    json(format!("{{\"posts\":[{}]}}", objects.join(",")))
}

/// The count as the tutorial's pages know it, and what further members are asked for.
fn count_of(post: Option<&Post>, count: Count, liked: Option<bool>, with_version: bool) -> String {
    let Count { likes, version } = count;
    let post = post.map(|post| format!("\"post\":{},", serde_json::Value::from(post.name()))).unwrap_or_default();
    let liked = liked.map(|liked| format!(",\"liked\":{liked}")).unwrap_or_default();
    let version = if with_version { format!(",\"version\":{version}") } else { String::new() };
    format!("{{{post}\"numLikes\":{likes}{liked}{version}}}")
}

/// Why there is no such answer.
enum Problem {
    /// The request is not understood.
    Request(Refusal),
    /// It is understood, and not granted.
    Refused(LikeRefusal),
}

impl Problem {
    fn response(self, state: &State) -> Response {
        match self {
            Self::Request(refusal) => {
                state.refusals.add(Refused::BadRequest);
                (&refusal).into()
            }
            Self::Refused(refused) => {
                state.refusals.add(refused.reason());
                let response = Response::error(refused.status(), &refused);
                match refused.retry_after() {
                    Some(seconds) => response.field("Retry-After", seconds),
                    None if refused.status() == 405 => response.field("Allow", "PUT, POST, OPTIONS"),
                    None => response,
                }
            }
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::Request(refusal)
    }
}

impl From<NameError> for Problem {
    fn from(problem: NameError) -> Self {
        Self::Request(Refusal::bad(problem.to_string()))
    }
}

impl From<LikeRefusal> for Problem {
    fn from(refused: LikeRefusal) -> Self {
        Self::Refused(refused)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::Refused(LikeRefusal::Counter(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Source;
    use crate::{
        error::Result,
        http::head::HeadReader,
        limits::Limits,
        server::Server,
        store::{
            Reader, Store,
            change::{BatchId, Change, Outcome},
        },
    };
    use std::{net::Ipv4Addr, sync::Arc};

    /// A store of many posts that nobody has liked.
    struct Empty;

    impl Store for Empty {
        fn count(&mut self, _: &Post) -> Result<Count> {
            Ok(Count::default())
        }

        fn apply(&mut self, _: BatchId, changes: &[Change]) -> Result<Vec<Outcome>> {
            Ok(vec![Outcome::Refused(change::Refused::Posts); changes.len()])
        }

        fn reader(&self) -> Option<Arc<dyn Reader>> {
            Some(Arc::new(Self))
        }

        fn remembers_visitors(&self) -> bool {
            true
        }
    }

    impl Reader for Empty {
        fn read(&self, posts: &[(Post, Option<VisitorKey>)]) -> Result<Vec<(Count, Option<bool>)>> {
            Ok(vec![(Count::default(), None); posts.len()])
        }

        fn top(&self, _: usize) -> Result<Vec<(Post, Count)>> {
            Ok(Vec::new())
        }
    }

    #[test]
    fn names_that_a_stranger_makes_up_are_not_kept_in_memory() {
        let state = Server::new(Likes::with_store(Empty).unwrap()).build().unwrap();
        let mut peer = Peer::new(&state, Source(Some(Ipv4Addr::LOCALHOST.into())), true, false);
        let request = |method: &str, target: String| {
            let head = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            HeadReader::default().read(head.as_bytes(), &Limits::default()).unwrap().unwrap().0
        };
        let mut statuses = [0; 3];
        for number in 0..10_000 {
            let looked = counts(&state, &request("GET", format!("/likes?post={number}&post=x{number}")));
            let watched = watched(&state, &request("GET", format!("/liveLikes?post={number}")), false);
            let target = format!("/like?post={number}&visitor=0123456789abcdef&seq=1");
            let liked = change(&state, &request("PUT", target.clone()), &mut peer);
            let unliked = change(&state, &request("DELETE", target), &mut peer);
            assert_eq!((looked.status, watched.is_ok()), (200, true));
            for answer in [liked, unliked] {
                statuses[[507, 429].iter().position(|status| *status == answer.status).unwrap_or(2)] += 1;
            }
        }
        assert!(statuses[0] >= 20 && statuses[0] < 30 && statuses[2] == 0, "{statuses:?}");
        assert_eq!(state.posts.in_memory(), 1, "the default counter");
    }
}

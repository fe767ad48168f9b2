//! One connection's likes, over HTTP and over WebSocket alike: which are taken, and how a refusal is told.

use crate::{
    error::Error,
    likes::{Answer, Likes},
    metrics::Refused,
    server::places::Place,
    server::state::State,
    store::change::{self, ChangeKind, Post},
    stream::Source,
    websocket::{Handler, Message, Refusal, code, parse_like},
};
use std::time::Instant;

/// The client at the other end of a connection.
pub(crate) struct Peer<'s> {
    state: &'s State,
    /// Where it is, by its last request.
    pub(crate) source: Source,
    /// Its place, where a proxy passes it on.
    pub(crate) place: Option<Place>,
    /// Whether the server is on a loopback address, so that only this machine can reach it.
    pub(crate) loopback: bool,
    /// It came after the server's stop began.
    pub(crate) late: bool,
    /// The counter that is watched in bare numbers, and that such likes are for.
    watched: Likes,
    /// Likes taken from this connection.
    likes: u64,
}

/// Why a like is not taken, or a post not watched.
#[derive(Debug)]
pub(crate) enum LikeRefusal {
    /// This connection has sent as many as it may.
    Connection(u64),
    /// This address has sent as many as it may within a second.
    Address(u32),
    /// This address has been the first to like its number of posts.
    NewPosts(u32),
    /// This client watches as many posts as it may.
    Watches(usize),
    /// The post is none of those that may exist.
    Unlisted,
    /// Nobody is named who could take a like back, or whose change is numbered.
    NoVisitor,
    /// The counter takes none.
    Counter(Error),
}

impl std::fmt::Display for LikeRefusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connection(most) => write!(f, "too many likes: at most {most} per connection are allowed"),
            Self::Address(most) => write!(f, "too many likes: at most {most} per second and address are allowed"),
            Self::NewPosts(most) => {
                write!(f, "too many new posts: an address may be the first to like {most} an hour")
            }
            Self::Watches(most) => write!(f, "too many posts: a client may watch {most}"),
            Self::Unlisted => write!(f, "there is no such post: it is not among those that may exist"),
            Self::NoVisitor => {
                write!(f, "a visitor is expected, whose like is taken back or whose change `seq` numbers")
            }
            // The reason names files of the server's; it is in the log.
            Self::Counter(Error::NotSaved(_)) => write!(f, "likes cannot be saved just now; try again later"),
            Self::Counter(Error::Unknown(_)) => {
                write!(f, "saving takes too long: it is not known whether the like will count")
            }
            Self::Counter(Error::Stopped(_)) => write!(f, "the counter has stopped"),
            Self::Counter(Error::NotRead(_)) => write!(f, "likes cannot be read just now; try again later"),
            Self::Counter(e) => write!(f, "{e}"),
        }
    }
}

impl LikeRefusal {
    /// HTTP's status for it.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Connection(_) | Self::Address(_) | Self::NewPosts(_) | Self::Watches(_) => 429,
            Self::Unlisted => 404,
            Self::NoVisitor | Self::Counter(Error::OneCounter | Error::BadName(_)) => 400,
            Self::Counter(Error::Refused(change::Refused::Unlikes)) => 405,
            Self::Counter(Error::Refused(change::Refused::Posts | change::Refused::Visitors)) => 507,
            Self::Counter(Error::Full | Error::Refused(_)) => 409,
            Self::Counter(_) => 503,
        }
    }

    /// After how many seconds it may be otherwise.
    pub(crate) fn retry_after(&self) -> Option<u32> {
        match self {
            Self::Address(_) => Some(1),
            Self::NewPosts(most) => Some(3600_u32.div_ceil(*most)),
            _ => (self.status() == 503).then_some(2),
        }
    }

    pub(crate) fn reason(&self) -> Refused {
        match self.status() {
            429 => Refused::Rate,
            404 => Refused::Post,
            400 | 405 => Refused::BadRequest,
            _ => Refused::Unavailable,
        }
    }

    /// The code of the close frame by which a WebSocket client is told.
    fn close_code(&self) -> u16 {
        match self {
            Self::Counter(Error::NotSaved(_) | Error::Unknown(_)) => code::TRY_AGAIN_LATER,
            Self::Counter(Error::Stopped(_)) => code::INTERNAL_ERROR,
            Self::Counter(Error::Closed) => code::GOING_AWAY,
            _ => code::POLICY_VIOLATION,
        }
    }
}

impl<'s> Peer<'s> {
    pub(crate) fn new(state: &'s State, source: Source, loopback: bool, late: bool) -> Self {
        Self { state, source, place: None, loopback, late, watched: state.likes.clone(), likes: 0 }
    }

    /// Notes what the client watches in bare numbers.
    pub(crate) fn watch(&mut self, likes: Likes) {
        self.watched = likes;
    }

    pub(crate) fn watched(&self) -> &Likes {
        &self.watched
    }

    /// Has a change of a post saved, and waits for that.
    pub(crate) fn change(&mut self, post: Post, kind: ChangeKind) -> Result<Answer, LikeRefusal> {
        let likes = self.state.counter_to_change(post)?;
        self.submit(&likes, kind, |kind| likes.change(kind))
    }

    /// Takes a like of the post that is watched in bare numbers, where nobody is told that it is saved. The first of a
    /// post is waited for, for which the store may have no room.
    fn like(&mut self) -> Result<(), LikeRefusal> {
        let kind = ChangeKind::Likes(1);
        self.state.check(self.watched.post())?;
        let is_first = self.admit(&self.watched, &kind)?;
        let taken = if is_first { self.watched.change(kind).map(drop) } else { self.watched.like_without_waiting() };
        taken.map_err(LikeRefusal::Counter)?;
        self.likes += 1;
        Ok(())
    }

    /// Hands over a change of a counter, if the limits allow one more.
    pub(crate) fn submit<T>(
        &mut self,
        likes: &Likes,
        kind: ChangeKind,
        hand_over: impl FnOnce(ChangeKind) -> Result<T, Error>,
    ) -> Result<T, LikeRefusal> {
        self.admit(likes, &kind)?;
        let done = hand_over(kind).map_err(LikeRefusal::Counter)?;
        self.likes += 1;
        Ok(done)
    }

    /// Whether the limits allow one change more. Returns whether it may be the first of a post.
    fn admit(&self, likes: &Likes, kind: &ChangeKind) -> Result<bool, LikeRefusal> {
        let limits = &self.state.limits;
        if let Some(most) = limits.likes_per_connection
            && self.likes >= most
        {
            return Err(LikeRefusal::Connection(most));
        }
        if let (Some(rate), Some(most)) = (&self.state.rate, limits.likes_per_second_and_address)
            && !rate.take(self.source.address(), Instant::now())
        {
            return Err(LikeRefusal::Address(most));
        }
        let is_first = kind.may_add_post() && !likes.post().is_default() && likes.is_unliked();
        if is_first && !self.state.is_listed(likes.post()) {
            // One that cannot be saved anyway is not held against the address.
            likes.health().map_err(LikeRefusal::Counter)?;
            if !self.state.new_posts.take(self.source.address(), Instant::now()) {
                return Err(LikeRefusal::NewPosts(limits.new_posts_per_hour_and_address));
            }
        }
        Ok(is_first)
    }

    pub(crate) fn bad_message(&self, refusal: Refusal) -> Refusal {
        self.state.refusals.add(Refused::BadMessage);
        refusal
    }
}

impl Handler for Peer<'_> {
    fn text(&mut self, text: &str) -> Result<Option<Message>, Refusal> {
        parse_like(text).map_err(|refusal| self.bad_message(refusal))?;
        let refusal = match self.like() {
            Ok(()) => return Ok(None),
            Err(refusal) => refusal,
        };
        self.state.refusals.add(refusal.reason());
        Err(Refusal::new(refusal.close_code(), refusal.to_string()))
    }

    fn binary(&mut self, _: &[u8]) -> Result<Option<Message>, Refusal> {
        let refusal = Refusal::new(code::UNSUPPORTED_DATA, r#"expected the text {"type":"like"}"#);
        Err(self.bad_message(refusal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::change::NameError;

    #[test]
    fn a_like_that_is_refused_has_a_status_and_names_no_file() {
        let reason = || "/srv/likes.db".to_owned();
        for (error, status, told) in [
            (Error::NotSaved(reason()), 503, "likes cannot be saved just now; try again later"),
            (Error::Unknown(reason()), 503, "saving takes too long: it is not known whether the like will count"),
            (Error::Stopped(reason()), 503, "the counter has stopped"),
            (Error::NotRead(reason()), 503, "likes cannot be read just now; try again later"),
            (Error::Closed, 503, "the counter is closed"),
            (Error::Full, 409, "the count is as large as it can be"),
            (Error::OneCounter, 400, "this store keeps one counter; --db likes.db keeps one for each post"),
            (Error::BadName(NameError::Empty), 400, "the name of a post must not be empty"),
            (Error::Refused(change::Refused::Posts), 507, "there is no room for a further post"),
            (Error::Refused(change::Refused::Visitors), 507, "there is no room for a further visitor"),
            (Error::Refused(change::Refused::Unlikes), 405, "this store cannot take a like back; --db likes.db can"),
        ] {
            let refused = LikeRefusal::Counter(error);
            assert_eq!((refused.status(), refused.to_string().as_str()), (status, told));
            assert_eq!(refused.retry_after().is_some(), status == 503);
        }
        assert_eq!(LikeRefusal::NewPosts(20).retry_after(), Some(180));
        assert_eq!(LikeRefusal::NewPosts(7000).retry_after(), Some(1));
    }
}

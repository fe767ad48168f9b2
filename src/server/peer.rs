//! One connection's likes: what it may send, over HTTP and over WebSocket alike, and what its messages mean.

use crate::{
    error::Error,
    likes::{Answer, Likes},
    metrics::Refused,
    server::state::State,
    store::change::{self, ChangeKind, Post},
    websocket::message::is_like,
    websocket::{Handler, Reply, code},
};
use std::{net::IpAddr, time::Instant};

/// What is known of the peer at the other end of a connection.
pub(crate) struct Peer<'s> {
    state: &'s State,
    address: IpAddr,
    /// The server is on a loopback address, so only this machine can reach it.
    pub(crate) loopback: bool,
    /// The counter that is watched, which likes over WebSocket are for.
    watched: Likes,
    likes: u64,
}

/// Why a like is not taken.
#[derive(Debug)]
pub(crate) enum LikeRefused {
    /// This connection has had its likes.
    Connection(u64),
    /// This address likes too fast.
    Address(u32),
    /// This address has been the first to like its number of posts.
    NewPosts(u32),
    /// The post is none of those that may exist.
    Unlisted,
    /// The counter says no.
    Counter(Error),
}

impl std::fmt::Display for LikeRefused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connection(most) => write!(f, "a connection may send {most} likes"),
            Self::Address(most) => write!(f, "an address may send {most} likes a second"),
            Self::NewPosts(most) => write!(f, "an address may be the first to like {most} posts an hour"),
            Self::Unlisted => write!(f, "there is no such post: it is not among those that may exist"),
            // The reason names files of the server's; it is in the log and in /healthz.
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

impl LikeRefused {
    /// The status of the response that says so.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Connection(_) | Self::Address(_) | Self::NewPosts(_) => 429,
            Self::Unlisted => 404,
            Self::Counter(Error::OneCounter | Error::BadName(_)) => 400,
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
}

impl<'s> Peer<'s> {
    pub(crate) fn new(state: &'s State, address: IpAddr, loopback: bool) -> Self {
        Self { state, address, loopback, watched: state.likes.clone(), likes: 0 }
    }

    /// Notes what the peer watches.
    pub(crate) fn watch(&mut self, likes: Likes) {
        self.watched = likes;
    }

    /// Has a change of a post saved, and waits for that.
    pub(crate) fn change(&mut self, post: Post, kind: ChangeKind) -> Result<Answer, LikeRefused> {
        // A handle of another one takes the lock of all a few times more.
        let likes = if post.is_default() { &self.state.likes } else { &self.state.counter(post)? };
        self.admit(likes)?;
        let answer = likes.change(kind).map_err(LikeRefused::Counter)?;
        self.likes += 1;
        Ok(answer)
    }

    fn like_without_waiting(&mut self) -> Result<(), LikeRefused> {
        self.state.check(self.watched.post())?;
        self.admit(&self.watched)?;
        self.watched.like_without_waiting().map_err(LikeRefused::Counter)?;
        self.likes += 1;
        Ok(())
    }

    fn admit(&self, likes: &Likes) -> Result<(), LikeRefused> {
        let limits = &self.state.limits;
        if let Some(most) = limits.likes_per_connection
            && self.likes >= most
        {
            return Err(LikeRefused::Connection(most));
        }
        if let (Some(rate), Some(most)) = (&self.state.rate, limits.likes_per_second_and_address)
            && !rate.take(self.address, Instant::now())
        {
            return Err(LikeRefused::Address(most));
        }
        if self.state.is_new(likes) {
            // One that cannot be saved anyway is not held against the address.
            likes.health().map_err(LikeRefused::Counter)?;
            if !self.state.new_posts.take(self.address, Instant::now()) {
                return Err(LikeRefused::NewPosts(limits.new_posts_per_hour_and_address));
            }
        }
        Ok(())
    }
}

impl Handler for Peer<'_> {
    fn text(&mut self, text: &str) -> Reply {
        if !is_like(text) {
            self.state.likes.metrics().refused(Refused::BadMessage);
            return Reply::Close(code::POLICY_VIOLATION, r#"expected {"type":"like"}"#.into());
        }
        match self.like_without_waiting() {
            Ok(()) => Reply::Nothing,
            Err(problem) => {
                self.state.likes.metrics().refused(problem.reason());
                let code = match &problem {
                    LikeRefused::Counter(Error::NotSaved(_)) => code::TRY_AGAIN_LATER,
                    LikeRefused::Counter(Error::Stopped(_)) => code::INTERNAL_ERROR,
                    LikeRefused::Counter(Error::Closed) => code::GOING_AWAY,
                    _ => code::POLICY_VIOLATION,
                };
                Reply::Close(code, problem.to_string().into())
            }
        }
    }

    fn binary(&mut self, _: &[u8]) -> Reply {
        self.state.likes.metrics().refused(Refused::BadMessage);
        Reply::Close(code::UNSUPPORTED_DATA, r#"expected the text {"type":"like"}"#.into())
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
            (Error::Full, 409, "the count is 18446744073709551615, the largest there is"),
            (Error::OneCounter, 400, "this store keeps one counter; --db likes.db keeps one for each post"),
            (Error::BadName(NameError::Empty), 400, "the name of a post must not be empty"),
            (Error::Refused(change::Refused::Posts), 507, "there is no room for a further post"),
            (Error::Refused(change::Refused::Visitors), 507, "there is no room for a further visitor"),
            (Error::Refused(change::Refused::Unlikes), 405, "this store cannot take a like back; --db likes.db can"),
        ] {
            let refused = LikeRefused::Counter(error);
            assert_eq!((refused.status(), refused.to_string().as_str()), (status, told));
            assert_eq!(refused.retry_after().is_some(), status == 503);
        }
        assert_eq!(LikeRefused::NewPosts(20).retry_after(), Some(180));
        assert_eq!(LikeRefused::NewPosts(7000).retry_after(), Some(1));
    }
}

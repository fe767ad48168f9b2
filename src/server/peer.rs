//! One connection's likes, over HTTP and over WebSocket alike: which are taken, and how a refusal is told.

use crate::{
    error::Error,
    metrics::Refused,
    server::state::State,
    store,
    websocket::{Handler, Message, Refusal, code, parse_like},
};
use std::{net::IpAddr, time::Instant};

/// The client at the other end of a connection.
pub(crate) struct Peer<'s> {
    state: &'s State,
    address: IpAddr,
    /// Whether the server is on a loopback address, so that only this machine can reach it.
    pub(crate) loopback: bool,
    /// Likes taken from this connection.
    likes: u64,
}

/// Why a like is not taken.
#[derive(Debug)]
pub(crate) enum LikeRefusal {
    /// This connection has sent as many as it may.
    Connection(u64),
    /// This address has sent as many as it may within a second.
    Address(u32),
    /// This client watches as many posts as it may.
    Watches(usize),
    /// Nobody is named who could take a like back.
    NoVisitor,
    /// The counter takes none.
    Counter(Error),
}

impl std::fmt::Display for LikeRefusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connection(most) => write!(f, "too many likes: at most {most} per connection are allowed"),
            Self::Address(most) => write!(f, "too many likes: at most {most} per second and address are allowed"),
            Self::Watches(most) => write!(f, "too many posts: a client may watch {most}"),
            Self::NoVisitor => write!(f, "an unlike needs a visitor"),
            // The reason names files of the server's; it is in the log and in /healthz.
            Self::Counter(Error::NotSaved(_)) => write!(f, "likes cannot be saved just now; try again later"),
            Self::Counter(Error::Unknown(_)) => {
                write!(f, "saving takes too long: it is not known whether the like will count")
            }
            Self::Counter(Error::Stopped(_)) => write!(f, "the counter has stopped"),
            Self::Counter(e) => write!(f, "{e}"),
        }
    }
}

impl LikeRefusal {
    /// HTTP's status for it.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Connection(_) | Self::Address(_) | Self::Watches(_) => 429,
            Self::NoVisitor | Self::Counter(Error::BadName(_) | Error::OneCounter) => 400,
            Self::Counter(Error::Full) => 409,
            Self::Counter(Error::Refused(store::change::Refused::Unlikes)) => 405,
            Self::Counter(Error::Refused(_)) => 507,
            Self::Counter(_) => 503,
        }
    }

    /// The code of the close frame by which a WebSocket client is told.
    fn close_code(&self) -> u16 {
        match self {
            Self::Counter(Error::NotSaved(_)) => code::TRY_AGAIN_LATER,
            Self::Counter(Error::Stopped(_)) => code::INTERNAL_ERROR,
            Self::Counter(Error::Closed) => code::GOING_AWAY,
            _ => code::POLICY_VIOLATION,
        }
    }
}

impl<'s> Peer<'s> {
    pub(crate) fn new(state: &'s State, address: IpAddr, loopback: bool) -> Self {
        Self { state, address, loopback, likes: 0 }
    }

    /// Adds a like and waits until it is saved.
    pub(crate) fn like(&mut self) -> Result<u64, LikeRefusal> {
        let likes = &self.state.likes;
        self.submit(|| likes.like())
    }

    fn like_without_waiting(&mut self) -> Result<(), LikeRefusal> {
        let likes = &self.state.likes;
        self.submit(|| likes.like_without_waiting())
    }

    /// Hands over a change, if the limits allow one more.
    pub(crate) fn submit<T>(&mut self, change: impl FnOnce() -> Result<T, Error>) -> Result<T, LikeRefusal> {
        let result = self.admit().and_then(|()| change().map_err(LikeRefusal::Counter));
        self.count(result)
    }

    /// Whether the limits allow one like more.
    fn admit(&self) -> Result<(), LikeRefusal> {
        let limits = &self.state.limits;
        if let Some(most) = limits.likes_per_connection
            && self.likes >= most
        {
            return Err(LikeRefusal::Connection(most));
        }
        match (&self.state.rate, limits.likes_per_second_and_address) {
            (Some(rate), Some(most)) if !rate.take(self.address, Instant::now()) => Err(LikeRefusal::Address(most)),
            _ => Ok(()),
        }
    }

    /// Counts a like that was taken, or the reason why not.
    fn count<T>(&mut self, result: Result<T, LikeRefusal>) -> Result<T, LikeRefusal> {
        match &result {
            Ok(_) => self.likes += 1,
            Err(LikeRefusal::Counter(_)) => self.state.likes.metrics().refused(Refused::Unavailable),
            Err(_) => self.state.likes.metrics().refused(Refused::Rate),
        }
        result
    }

    pub(crate) fn bad_message(&self, refusal: Refusal) -> Refusal {
        self.state.likes.metrics().refused(Refused::BadMessage);
        refusal
    }
}

impl Handler for Peer<'_> {
    fn text(&mut self, text: &str) -> Result<Option<Message>, Refusal> {
        parse_like(text).map_err(|refusal| self.bad_message(refusal))?;
        match self.like_without_waiting() {
            Ok(()) => Ok(None),
            Err(refusal) => Err(Refusal::new(refusal.close_code(), refusal.to_string())),
        }
    }

    fn binary(&mut self, _: &[u8]) -> Result<Option<Message>, Refusal> {
        let refusal = Refusal::new(code::UNSUPPORTED_DATA, r#"expected the text {"type":"like"}"#);
        Err(self.bad_message(refusal))
    }
}

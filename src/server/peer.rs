//! One connection's likes: what it may send, over HTTP and over WebSocket alike, and what its messages mean.

use crate::{
    error::Error,
    metrics::Refused,
    server::state::State,
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
    likes: u64,
}

/// Why a like is not taken.
#[derive(Debug)]
pub(crate) enum LikeRefused {
    /// This connection has had its likes.
    Connection(u64),
    /// This address likes too fast.
    Address(u32),
    /// The counter says no.
    Counter(Error),
}

impl std::fmt::Display for LikeRefused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connection(most) => write!(f, "a connection may send {most} likes"),
            Self::Address(most) => write!(f, "an address may send {most} likes a second"),
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

impl<'s> Peer<'s> {
    pub(crate) fn new(state: &'s State, address: IpAddr, loopback: bool) -> Self {
        Self { state, address, loopback, likes: 0 }
    }

    /// Adds a like and waits until it is saved.
    pub(crate) fn like(&mut self) -> Result<u64, LikeRefused> {
        let result = self.admit().and_then(|()| self.state.likes.like().map_err(LikeRefused::Counter));
        self.account(result)
    }

    fn like_without_waiting(&mut self) -> Result<(), LikeRefused> {
        let result = self.admit().and_then(|()| self.state.likes.like_without_waiting().map_err(LikeRefused::Counter));
        self.account(result)
    }

    fn admit(&self) -> Result<(), LikeRefused> {
        if let Some(most) = self.state.limits.likes_per_connection
            && self.likes >= most
        {
            return Err(LikeRefused::Connection(most));
        }
        match (&self.state.rate, self.state.limits.likes_per_second_and_address) {
            (Some(rate), Some(most)) if !rate.take(self.address, Instant::now()) => Err(LikeRefused::Address(most)),
            _ => Ok(()),
        }
    }

    fn account<T>(&mut self, result: Result<T, LikeRefused>) -> Result<T, LikeRefused> {
        match &result {
            Ok(_) => self.likes += 1,
            Err(LikeRefused::Counter(_)) => self.state.likes.metrics().refused(Refused::Unavailable),
            Err(_) => self.state.likes.metrics().refused(Refused::Rate),
        }
        result
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

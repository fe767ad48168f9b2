//! What `cargo bench` needs of the fan-out, and nobody else: not part of the library's promises.

use crate::{
    likes::audience::{Audience, Seat},
    likes::outbox::{Outbox, Round, Standing},
};
use std::{
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant},
};

const DEADLINE: Duration = Duration::from_secs(3600);

/// An audience over given sockets.
pub struct FanOut {
    audience: Arc<Audience>,
    outboxes: Vec<Arc<Outbox>>,
    _seats: Vec<Seat>,
    shown: u64,
}

impl FanOut {
    /// Seats a client for each socket, and shows it the count 16.
    pub fn new(sockets: &[Arc<TcpStream>]) -> Self {
        let audience = Arc::<Audience>::default();
        let outboxes: Vec<_> = sockets.iter().map(|socket| Arc::new(Outbox::new(socket.clone(), DEADLINE))).collect();
        let _seats = outboxes.iter().map(|outbox| audience.join(outbox.clone())).collect();
        let mut fan_out = Self { audience, outboxes, _seats, shown: 15 };
        fan_out.round(1, 1);
        fan_out
    }

    /// Shows everyone the counts of this many likes, over so many threads. Returns the frames sent.
    pub fn round(&mut self, likes: u64, lanes: usize) -> u64 {
        let round = Round::after(self.shown, self.shown + likes);
        self.shown += likes;
        self.audience.fan_out(&round, lanes).frames
    }

    /// Offers one further count to each client alone, without the audience. Returns how many are behind.
    pub fn offer_each(&mut self) -> usize {
        self.shown += 1;
        let round = Round::only(self.shown);
        self.outboxes.iter().filter(|outbox| outbox.offer(&round).standing == Standing::Behind).count()
    }

    /// Tries again to send to those that are behind. Returns how many still are.
    pub fn retry(&self) -> usize {
        let now = Instant::now();
        self.outboxes.iter().filter(|outbox| outbox.retry(now).standing == Standing::Behind).count()
    }
}

/// Encodes a round of this many counts; returns its bytes' number.
pub fn encode(likes: u64) -> u64 {
    Round::after(1_000_000, 1_000_000 + likes).counts().count() as u64
}

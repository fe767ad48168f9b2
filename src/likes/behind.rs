//! The clients that have not been sent all there is.

use crate::likes::{
    outbox::{Outbox, Standing},
    sync::{Arc, Mutex, lock},
};
use std::time::Instant;

/// The clients that are tried again from time to time. Each stands here once at most.
#[derive(Default)]
pub(crate) struct Behind {
    clients: Mutex<Vec<Arc<Outbox>>>,
}

impl Behind {
    /// Adds a client that [has fallen behind](crate::likes::outbox::Sent::fell_behind).
    pub(crate) fn add(&self, client: Arc<Outbox>) {
        lock(&self.clients).push(client);
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.clients).len()
    }

    /// Tries again to send to each, and drops those that are past their deadline. Returns how many frames were sent.
    pub(crate) fn retry(&self) -> u64 {
        let mut clients = std::mem::take(&mut *lock(&self.clients));
        let now = Instant::now();
        let mut frames = 0;
        clients.retain(|client| {
            let sent = client.retry(now);
            frames += sent.frames;
            sent.standing == Standing::Behind
        });
        // Others may have fallen behind meanwhile.
        lock(&self.clients).append(&mut clients);
        frames
    }
}

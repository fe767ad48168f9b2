//! A subscriber within the process: its place in the audience, and what it is shown there.

use crate::{likes::audience::Audience, likes::mailbox::Mailbox, likes::sync::Arc};
use std::{
    fmt,
    time::{Duration, Instant},
};

/// The counts of a [`Likes`](crate::Likes), as they come: first the count as it is, then the count after each like.
///
/// As an iterator it waits for the next count, and ends when the counter is closed. The counts rise strictly. A
/// subscriber that leaves more than 64 of them waiting is taken straight to the newest.
pub struct Subscription {
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) audience: Arc<Audience>,
}

impl Subscription {
    /// Waits for the next count, for `time` at most. `None` where none came, or the counter is closed.
    pub fn next_within(&mut self, time: Duration) -> Option<u64> {
        // A time too long for the clock is as good as none.
        self.mailbox.take(Instant::now().checked_add(time))
    }
}

impl Iterator for Subscription {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.mailbox.take(None)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.audience.leave_mailbox(&self.mailbox);
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}

//! Where counts are kept: the [`Store`] trait, and a file for each kind of store.

mod permissions;
pub(crate) mod text;

use crate::error::Result;

/// Keeps the count. One counter owns it and calls it from one thread.
pub trait Store: Send + 'static {
    /// The number of likes kept, durably.
    fn total(&mut self) -> u64;

    /// Adds likes, makes the new total durable and returns it. With 0 it proves that saving works.
    ///
    /// # Errors
    ///
    /// [`Error::NotSaved`] where nothing has changed, so that the same call may be tried again.
    /// [`Error::Undecided`] where it is not known whether the likes were added; the store is not called again.
    fn add(&mut self, likes: u64) -> Result<u64>;
}

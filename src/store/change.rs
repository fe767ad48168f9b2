//! What the ledger asks of a store, and what it is told: posts, changes, outcomes.

use std::{fmt, sync::Arc};

/// The name of a post. That of the default counter is empty.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Post(Arc<str>);

impl Post {
    /// The name itself.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl Default for Post {
    /// The default counter.
    fn default() -> Self {
        Self("".into())
    }
}

impl fmt::Debug for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The likes of a post, and the version of the change that made them so many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// How many likes.
    pub likes: u64,
    /// Rises with each change of any post of the store, by one for each like. Of two counts of one post, that with
    /// the higher version is the newer one.
    pub version: u64,
}

/// The number of a batch: the same for each attempt at it, and for no other batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchId {
    /// A random name of this start of the server.
    pub server: u128,
    /// Rises from batch to batch.
    pub number: u64,
}

/// A change of one post.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The post that is liked.
    pub post: Post,
    /// How many likes, from nobody in particular. At least one.
    pub likes: u64,
}

/// What has become of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The count after the change, and its version. Of a change of several likes, each has its own version: the last
    /// of them is this one, and they follow one another without a gap.
    pub count: Count,
}

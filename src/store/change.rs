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
    /// What changes.
    pub kind: ChangeKind,
}

impl Change {
    /// By how many likes, and versions, it can change a count.
    pub(crate) fn likes(&self) -> u64 {
        match self.kind {
            ChangeKind::Likes(likes) => likes,
            ChangeKind::Visitor { .. } => 1,
        }
    }
}

/// What a change changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// So many likes, at least one, from nobody in particular.
    Likes(u64),
    /// A visitor likes the post, or does not any more.
    Visitor {
        /// Who it is.
        visitor: VisitorKey,
        /// Whether the visitor likes the post from now on.
        liked: bool,
        /// The number of the change in that visitor's own order. One that is not higher than the highest that the
        /// store has had of this visitor, unlikes included, changes nothing.
        seq: Option<u64>,
    },
}

/// A visitor of one post: a hash of both, so that likes of two posts cannot be linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VisitorKey(pub [u8; 16]);

/// What has become of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was applied, and made the count this one. Of a change of several likes, each has its own version: the last
    /// of them is this one, and they follow one another without a gap.
    Applied(Count),
    /// It changes nothing: the visitor's mind is as it was, or its number is not higher.
    Unchanged {
        /// The count as it is.
        count: Count,
        /// Whether the visitor likes the post.
        liked: bool,
    },
    /// It was not applied, since the store has no room for it.
    Refused(Refused),
}

/// Why a store has no room for a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// For a new post.
    Posts,
    /// For a new visitor.
    Visitors,
    /// For one like more of this post.
    Likes,
    /// For the mind of visitors: none can be taken back.
    Unlikes,
}

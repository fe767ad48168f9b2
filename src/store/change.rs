//! What the ledger asks of a store, and what it is told: posts, changes, outcomes.

use sha1::{Digest, Sha1};
use std::{fmt, sync::Arc};

/// The largest `seq`, and the largest count and version of a store of many posts: the largest whole number that every
/// reader of JSON reads as it is.
pub(crate) const LARGEST: u64 = (1 << 53) - 1;

/// Bytes of a post's name.
const LONGEST_POST: usize = 200;

/// The name of a post: 1 to 200 bytes of UTF-8 without control characters, compared byte for byte. That of the default
/// counter is empty.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Post(Arc<str>);

impl Post {
    /// A post of this name. Nothing is normalised: two names that look alike may be two posts.
    ///
    /// # Errors
    ///
    /// [`NameError`] where the name is empty, longer than 200 bytes, or holds a control character (U+0000 to U+001F,
    /// U+007F to U+009F).
    pub fn new(name: &str) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > LONGEST_POST {
            return Err(NameError::TooLong(name.len()));
        }
        match name.chars().find(|c| c.is_control()) {
            Some(control) => Err(NameError::Control(control)),
            None => Ok(Self(name.into())),
        }
    }

    /// The name as a store has kept it.
    #[cfg(any(feature = "sqlite", feature = "redis", test))]
    pub(crate) fn kept(name: &str) -> Self {
        Self(name.into())
    }

    /// Whether it is the default counter.
    pub(crate) fn is_default(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it is this one, which is known at once of two copies.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self == other
    }

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
    /// Rises with each change of any post of the store, by one for each like. 0 of a post that was never changed. Of two
    /// counts of one post, that with the higher version is the newer one.
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
            ChangeKind::Visitor { .. } | ChangeKind::Set(_) | ChangeKind::Delete => 1,
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
    /// The count is this one from now on. The likes of visitors stay: what changes is the number of the others, and a
    /// count below the number of visitors is refused.
    Set(u64),
    /// All likes of the post are taken back, those of visitors too. As after an unlike, the highest `seq` of each
    /// visitor is kept, so that a like from before that is sent again does not bring the post back.
    Delete,
}

impl ChangeKind {
    /// Whether it may be what a post is first kept for. An unlike without a number leaves nothing behind.
    pub(crate) fn may_add_post(&self) -> bool {
        !matches!(self, Self::Visitor { liked: false, seq: None, .. } | Self::Delete)
    }
}

/// A visitor of one post: a hash of both, so that likes of two posts cannot be linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VisitorKey(pub [u8; 16]);

impl VisitorKey {
    /// The key of a visitor of a post: the first 16 bytes of the SHA-1 of one byte that holds the visitor's length,
    /// the visitor, and the post's name.
    ///
    /// # Errors
    ///
    /// [`NameError::Visitor`] where the visitor is not 16 to 64 characters of `A-Z a-z 0-9 - _`.
    pub fn of(visitor: &str, post: &Post) -> Result<Self, NameError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let length = u8::try_from(visitor.len()).ok().filter(|length| (16..=64).contains(length));
        let length = length.filter(|_| visitor.bytes().all(is_plain)).ok_or(NameError::Visitor)?;
        let hash = Sha1::new().chain_update([length]).chain_update(visitor).chain_update(post.name()).finalize();
        let mut key = [0; 16];
        key.copy_from_slice(&hash[..16]);
        Ok(Self(key))
    }
}

/// Why a text names no post, or no visitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameError {
    /// The post is empty.
    Empty,
    /// The post has so many bytes, more than 200.
    TooLong(usize),
    /// The post holds this control character.
    Control(char),
    /// The visitor is not 16 to 64 characters of `A-Z a-z 0-9 - _`.
    Visitor,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "the name of a post must not be empty"),
            Self::TooLong(bytes) => {
                write!(f, "the name of a post has at most {LONGEST_POST} bytes, and this one has {bytes}")
            }
            Self::Control(control) => write!(
                f,
                "the name of a post holds no control characters, and this one holds U+{:04X}",
                u32::from(*control)
            ),
            Self::Visitor => write!(f, "a visitor is named by 16 to 64 characters of A-Z a-z 0-9 - _"),
        }
    }
}

impl std::error::Error for NameError {}

/// What has become of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was applied, and made the count this one. Of a change of several likes, each has its own version: the last
    /// of them is this one, and they follow one another without a gap.
    Applied(Count),
    /// It changes nothing: the visitor's mind is as it was, or its number is not higher; or the post that is to be
    /// deleted is not kept.
    Unchanged {
        /// The count as it is.
        count: Count,
        /// Whether the visitor likes the post.
        liked: bool,
    },
    /// It was not applied.
    Refused(Refused),
}

/// Why a store does not apply a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// It has no room for a new post.
    Posts,
    /// It has no room for a new visitor.
    Visitors,
    /// The count would be larger than the largest that the store can keep.
    Likes,
    /// Its counts only rise: no like can be taken back, and no count be set.
    Unlikes,
    /// The count that is to be set is lower than the number of visitors who like the post.
    BelowVisitors,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Posts => "there is no room for a further post",
            Self::Visitors => "there is no room for a further visitor",
            Self::Likes => "the count is as large as it can be",
            Self::Unlikes => "this store cannot take a like back; --db likes.db can",
            Self::BelowVisitors => "more visitors than that like the post",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_post_is_1_to_200_bytes_without_control_characters() {
        let longest = "ö".repeat(100);
        for name in ["a", " ", "__proto__", "/blog/1?a=b#c", "\u{202e}", "\u{a0}", "\u{2028}", longest.as_str()] {
            assert_eq!(Post::new(name).unwrap().name(), name);
        }
        assert_eq!(Post::new(""), Err(NameError::Empty));
        assert_eq!(Post::new(&format!("{longest}a")), Err(NameError::TooLong(201)));
        for control in ('\0'..='\x1f').chain('\x7f'..='\u{9f}') {
            assert_eq!(Post::new(&format!("a{control}")), Err(NameError::Control(control)));
        }
        let told = NameError::Control('\u{85}').to_string();
        assert_eq!(told, "the name of a post holds no control characters, and this one holds U+0085");
    }

    #[test]
    fn posts_are_compared_byte_for_byte() {
        assert_ne!(Post::new("é"), Post::new("e\u{301}"));
        assert_ne!(Post::new("a"), Post::new("A"));
        assert_ne!(Post::new("a"), Post::new("a "));
    }

    #[test]
    fn a_visitor_is_16_to_64_plain_characters() {
        let post = Post::default();
        for visitor in ["0123456789abcdef", "ABCDEFGHIJKLMNOPQRSTUVWXYZ-_0123", &"z".repeat(64)] {
            VisitorKey::of(visitor, &post).unwrap();
        }
        for visitor in ["", "0123456789abcde", &"z".repeat(65), &"z".repeat(300), "0123456789abcde ", "0123456789abcdé"]
        {
            assert_eq!(VisitorKey::of(visitor, &post), Err(NameError::Visitor), "{visitor}");
        }
    }

    #[test]
    fn a_visitor_has_another_key_for_each_post() {
        let key = |visitor, post: &str| VisitorKey::of(visitor, &Post::kept(post)).unwrap();
        assert_eq!(key("0123456789abcdef", "a"), key("0123456789abcdef", "a"));
        assert_ne!(key("0123456789abcdef", "a"), key("0123456789abcdef", "b"));
        assert_ne!(key("0123456789abcdef", "a"), key("0123456789abcdef", ""));
        // Where the visitor ends and the post begins is part of the key.
        assert_ne!(key("0123456789abcdef", "g"), key("0123456789abcdefg", ""));
        // `printf '\x100123456789abcdefa' | sha1sum`: what is in a database must keep its meaning.
        let hash = u128::from_be_bytes(key("0123456789abcdef", "a").0);
        assert_eq!(hash, 0x300ede40_04821008_65273a95_c76753a1);
    }
}

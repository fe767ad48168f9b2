//! The referee: what a client may be shown, and what is a breach of the server's promises.

use std::collections::BTreeMap;
use std::fmt;

/// What went wrong.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// The measurement could not be set up: no server, no descriptors, no such process.
    Setup,
    /// Nothing wrong was shown, but the time was up.
    Late,
    /// A client was shown the count that it had already.
    Repeated,
    /// A client was shown a lower count than it, or an answer before it connected, had shown.
    Backwards,
    /// A count holds likes that nobody sent.
    Phantom,
    /// A like that was sent is in no count.
    Lost,
    /// The server ended a connection that had done nothing wrong.
    Dropped,
    /// Bytes that are no count, frame or answer of a like counter.
    Malformed,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Setup => "setup",
            Self::Late => "late",
            Self::Repeated => "repeated",
            Self::Backwards => "backwards",
            Self::Phantom => "phantom",
            Self::Lost => "lost",
            Self::Dropped => "dropped",
            Self::Malformed => "malformed",
        }
    }
}

/// Why a run ended early.
#[derive(Debug)]
pub struct Failure {
    pub kind: Kind,
    pub text: String,
}

impl Failure {
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    pub fn setup(text: impl Into<String>) -> Self {
        Self::new(Kind::Setup, text)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.text)
    }
}

pub type Result<T> = std::result::Result<T, Failure>;

/// Judges each count as it comes. A strict one ends the run at the first breach, another one only counts them.
pub struct Checker {
    pub strict: bool,
    /// The count before the run.
    start: u64,
    /// The start and every like that was sent so far: nobody else likes meanwhile.
    ceiling: u64,
    breaches: BTreeMap<Kind, u64>,
}

impl Checker {
    pub fn new(start: u64, strict: bool) -> Self {
        Self { strict, start, ceiling: start, breaches: BTreeMap::new() }
    }

    /// The count that the server must show in the end.
    pub fn ceiling(&self) -> u64 {
        self.ceiling
    }

    /// How often each kind of breach was seen.
    pub fn breaches(&self) -> impl Iterator<Item = (Kind, u64)> {
        self.breaches.iter().map(|(&kind, &times)| (kind, times))
    }

    /// Notes that so many likes are about to be sent.
    pub fn sends(&mut self, likes: u64) {
        self.ceiling += likes;
    }

    /// Judges a count that was shown to `client`, whose newest count before was `last`.
    ///
    /// # Errors
    ///
    /// At a breach, if the checker is strict.
    pub fn shown(&mut self, client: usize, last: Option<u64>, count: u64) -> Result<()> {
        if count > self.ceiling {
            let text = format!("client {client} was shown {count}, but likes were sent up to {} only", self.ceiling);
            return self.breach(Kind::Phantom, text);
        }
        match last {
            None if count < self.start => self.breach(
                Kind::Backwards,
                format!("client {client} was shown {count} first, but /likes had said {}", self.start),
            ),
            Some(last) if count == last => {
                self.breach(Kind::Repeated, format!("client {client} was shown {count} twice"))
            }
            Some(last) if count < last => {
                self.breach(Kind::Backwards, format!("client {client} was shown {count} after {last}"))
            }
            _ => Ok(()),
        }
    }

    /// Judges the count that the server tells when all is over.
    ///
    /// # Errors
    ///
    /// When likes are missing or too many, if the checker is strict.
    pub fn ended(&mut self, count: u64) -> Result<()> {
        let expected = self.ceiling;
        let text = format!("/likes says {count} in the end; {expected} was expected");
        match count {
            _ if count < expected => self.breach(Kind::Lost, text),
            _ if count > expected => self.breach(Kind::Phantom, text),
            _ => Ok(()),
        }
    }

    /// Notes a breach that somebody else found.
    ///
    /// # Errors
    ///
    /// Always, if the checker is strict.
    pub fn breach(&mut self, kind: Kind, text: String) -> Result<()> {
        *self.breaches.entry(kind).or_default() += 1;
        if self.strict { Err(Failure::new(kind, text)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(result: Result<()>) -> Kind {
        result.unwrap_err().kind
    }

    fn checker() -> Checker {
        let mut checker = Checker::new(16, true);
        checker.sends(4);
        checker
    }

    #[test]
    fn every_count_in_order_is_fine_and_so_is_a_leap_to_a_newer_one() {
        let mut checker = checker();
        checker.shown(0, None, 16).unwrap();
        checker.shown(0, Some(16), 17).unwrap();
        checker.shown(0, Some(17), 20).unwrap();
        checker.shown(1, None, 19).unwrap();
        checker.ended(20).unwrap();
        assert_eq!(checker.breaches().count(), 0);
    }

    #[test]
    fn a_count_must_rise() {
        assert_eq!(kind(checker().shown(0, Some(17), 17)), Kind::Repeated);
        assert_eq!(kind(checker().shown(0, Some(18), 17)), Kind::Backwards);
        assert_eq!(kind(checker().shown(0, None, 15)), Kind::Backwards);
    }

    #[test]
    fn a_like_that_nobody_sent_is_noticed() {
        assert_eq!(kind(checker().shown(0, Some(20), 21)), Kind::Phantom);
        assert_eq!(kind(checker().shown(0, None, 21)), Kind::Phantom);
        assert_eq!(kind(checker().ended(21)), Kind::Phantom);
    }

    #[test]
    fn a_like_that_is_missing_in_the_end_is_noticed() {
        assert_eq!(kind(checker().ended(19)), Kind::Lost);
    }

    #[test]
    fn a_lenient_checker_counts_breaches() {
        let mut checker = Checker::new(0, false);
        checker.sends(9);
        for count in [3, 3, 2, 2, 99] {
            checker.shown(0, Some(3), count).unwrap();
        }
        checker.ended(8).unwrap();
        let breaches: Vec<_> = checker.breaches().collect();
        assert_eq!(breaches, [(Kind::Repeated, 2), (Kind::Backwards, 2), (Kind::Phantom, 1), (Kind::Lost, 1)]);
    }
}

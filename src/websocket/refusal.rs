//! Why a client's connection is closed.

use std::borrow::Cow;

/// What a client is told in the close frame that ends its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// One of [`code`].
    pub(crate) code: u16,
    /// For people. Cut where it is longer than the 123 bytes that a close frame has room for.
    pub(crate) reason: Cow<'static, str>,
}

impl Refusal {
    pub(crate) fn new(code: u16, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { code, reason: reason.into() }
    }
}

/// Close codes under the names that RFC 6455 section 7.4.1 and its registry give them, as far as this server sends them.
pub(crate) mod code {
    pub(crate) const GOING_AWAY: u16 = 1001;
    pub(crate) const PROTOCOL_ERROR: u16 = 1002;
    pub(crate) const UNSUPPORTED_DATA: u16 = 1003;
    pub(crate) const INVALID_PAYLOAD: u16 = 1007;
    pub(crate) const POLICY_VIOLATION: u16 = 1008;
    pub(crate) const MESSAGE_TOO_BIG: u16 = 1009;
    pub(crate) const INTERNAL_ERROR: u16 = 1011;
    pub(crate) const TRY_AGAIN_LATER: u16 = 1013;
    pub(crate) const BAD_GATEWAY: u16 = 1014;
}

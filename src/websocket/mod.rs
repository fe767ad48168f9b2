//! What [RFC 6455](https://www.rfc-editor.org/rfc/rfc6455) asks of a server: a connection from its opening handshake to
//! its close.

mod frames;
mod handshake;
mod message;
mod refusal;
mod session;

pub(crate) use self::{
    handshake::{Handshake, handshake},
    message::{ClientMessage, Kind, parse_like},
    refusal::{Refusal, code},
    session::{Handler, Session},
};
pub(crate) use tungstenite::Message;

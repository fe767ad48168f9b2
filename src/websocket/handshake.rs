//! The opening handshake (RFC 6455 section 4.2): a request in, the bytes of the 101 or a refusal out.
//!
//! Its fields may come as lists over several lines, in any case; tungstenite takes one line of each in its plainest
//! form. So they are judged here, and tungstenite has the answer to the key.

use crate::http::{
    body::Framing,
    request::{Request, list, only},
    response::Response,
};
use ::http::{Version, header};
use base64::{Engine, engine::general_purpose::STANDARD};
use tungstenite::handshake::derive_accept_key;

/// The subprotocol that this server knows (RFC 6455 section 1.9). Without it, a client is shown bare counts.
const SUBPROTOCOL: &str = "live-likes";

/// A handshake that is right.
pub(crate) struct Handshake {
    /// The bytes of the 101.
    pub(crate) response: Vec<u8>,
    /// Whether the client has asked for the subprotocol, and so speaks JSON.
    pub(crate) json: bool,
}

/// Judges a handshake.
///
/// # Errors
///
/// The response that says what is wrong: 426 where another protocol or version is asked for, otherwise 400.
pub(crate) fn handshake(request: &Request) -> Result<Handshake, Response> {
    let bad = |problem| Response::error(400, problem);
    let upgrade_required =
        |problem| Response::error(426, problem).field("Upgrade", "websocket").field("Connection", "Upgrade");
    let asked = request.asks_for_websocket();
    if request.version == Version::HTTP_10 && asked {
        return Err(bad("a WebSocket handshake needs HTTP/1.1"));
    }
    if !asked {
        return Err(upgrade_required(
            "expected a WebSocket handshake, with Upgrade: websocket and Connection: Upgrade",
        ));
    }
    if request.framing != Framing::Length(0) {
        return Err(bad("a WebSocket handshake must not have a body"));
    }
    if !matches!(only(&request.fields, header::SEC_WEBSOCKET_VERSION), Ok(Some(version)) if version == "13") {
        return Err(upgrade_required("only version 13 of the WebSocket protocol is supported")
            .field("Sec-WebSocket-Version", "13"));
    }
    let Ok(Some(key)) = only(&request.fields, header::SEC_WEBSOCKET_KEY) else {
        return Err(bad("expected exactly one Sec-WebSocket-Key"));
    };
    if STANDARD.decode_slice(key, &mut [0; 18]) != Ok(16) {
        return Err(bad("the Sec-WebSocket-Key must be 16 bytes in base64"));
    }
    // Written by hand, since what a connection's thread allocates once it holds as long as it lives, and a map of fields
    // is large.
    let mut response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {}\r\n",
        derive_accept_key(key.as_bytes())
    );
    // One that was not offered must not be chosen (section 4.2.2).
    let json = list(&request.fields, header::SEC_WEBSOCKET_PROTOCOL).any(|offer| offer == SUBPROTOCOL.as_bytes());
    if json {
        response += &format!("Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n");
    }
    response += "\r\n";
    Ok(Handshake { response: response.into_bytes(), json })
}

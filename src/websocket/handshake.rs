//! The opening handshake (RFC 6455 section 4.2): a request in, the bytes of the 101 or a refusal out.
//!
//! Its fields may come as lists over several lines, in any case; tungstenite takes one line of each in its plainest
//! form. So they are judged here, and tungstenite is handed that form for the key's check and the answer to it.

use crate::http::{
    request::{Body, Request},
    response::Response,
};
use tungstenite::{
    handshake::server::{create_response, write_response},
    http::{self, HeaderValue, header},
};

/// The subprotocols that a client may ask for. With none, a client is shown bare counts.
const SUBPROTOCOLS: [&str; 0] = [];

/// The refusal of a handshake with another method.
pub(crate) fn not_get() -> Response {
    Response::error(405, "a WebSocket handshake must be a GET request").field("Allow", "GET")
}

/// Judges a handshake. Returns the bytes of the 101.
///
/// # Errors
///
/// The response that says what is wrong: 426 where another protocol or version is asked for, otherwise 400.
pub(crate) fn handshake(request: &Request) -> Result<Vec<u8>, Response> {
    let bad = |problem| Response::error(400, problem);
    let upgrade_required =
        |problem| Response::error(426, problem).field("Upgrade", "websocket").field("Connection", "Upgrade");
    let fields = &request.handshake;
    if request.minor == 0 && fields.asked {
        return Err(bad("a WebSocket handshake needs HTTP/1.1"));
    }
    if !fields.asked {
        return Err(upgrade_required(
            "expected a WebSocket handshake, with Upgrade: websocket and Connection: Upgrade",
        ));
    }
    if !matches!(request.body, Body::None | Body::Length(0)) {
        return Err(bad("a WebSocket handshake must not have a body"));
    }
    if fields.versions != ["13"] {
        return Err(upgrade_required("only version 13 of the WebSocket protocol is supported")
            .field("Sec-WebSocket-Version", "13"));
    }
    let [key] = fields.keys.as_slice() else {
        return Err(bad("expected exactly one Sec-WebSocket-Key"));
    };
    let plain = http::Request::builder()
        .version(http::Version::HTTP_11)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, key)
        .body(());
    let mut response = plain
        .ok()
        .and_then(|request| create_response(&request).ok())
        .ok_or_else(|| bad("the Sec-WebSocket-Key must be 16 bytes in base64"))?;
    if let Some(chosen) = subprotocol(&fields.protocols, &SUBPROTOCOLS) {
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(chosen));
    }
    let mut bytes = Vec::with_capacity(160);
    match write_response(&mut bytes, &response) {
        Ok(()) => Ok(bytes),
        Err(_) => Err(Response::error(500, "the handshake could not be answered")),
    }
}

/// Chooses the first of the subprotocols offered, which are in the client's order of preference, that is known (RFC
/// 6455 section 4.2.2, point 5). `offered` has an item for each line of `Sec-WebSocket-Protocol`.
fn subprotocol(offered: &[String], known: &[&'static str]) -> Option<&'static str> {
    let mut offered = offered.iter().flat_map(|line| line.split(',')).map(str::trim_ascii);
    offered.find_map(|offer| known.iter().copied().find(|name| *name == offer))
}

#[cfg(test)]
mod tests {
    use super::subprotocol;

    #[test]
    fn the_first_known_subprotocol_of_those_offered_is_chosen() {
        for (offered, chosen) in [
            (&["a"][..], Some("a")),
            (&["x, b ,a"], Some("b")),
            (&["x", "y,\tb"], Some("b")),
            (&[",,b,"], Some("b")),
            (&["A, b c, \"a\""], None),
            (&[""], None),
            (&[], None),
        ] {
            let offered: Vec<_> = offered.iter().map(ToString::to_string).collect();
            assert_eq!(subprotocol(&offered, &["a", "b"]), chosen, "{offered:?}");
            assert_eq!(subprotocol(&offered, &[]), None);
        }
    }
}

//! The requests the load tool makes and the answers it understands.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use httparse::{EMPTY_HEADER, Response, Status};
use serde_json::Value;

use crate::check::{Failure, Result};

/// The key of RFC 6455's own example, and the answer to it given there.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// How long a single answer may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// Asks for a WebSocket, for many posts or for one count.
pub fn upgrade(addr: SocketAddr, many: bool) -> Vec<u8> {
    let protocol = if many { "Sec-WebSocket-Protocol: live-likes\r\n" } else { "" };
    format!(
        "GET /liveLikes HTTP/1.1\r\nHost: {addr}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{protocol}\r\n"
    )
    .into_bytes()
}

/// Asks for the count as server-sent events.
pub fn events(addr: SocketAddr) -> Vec<u8> {
    format!("GET /likes HTTP/1.1\r\nHost: {addr}\r\nAccept: text/event-stream\r\n\r\n").into_bytes()
}

/// One like over HTTP, with this query or none.
pub fn put(addr: SocketAddr, query: &str) -> Vec<u8> {
    format!("PUT /like{query} HTTP/1.1\r\nHost: {addr}\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

/// The length of the head that grants the upgrade; `None` while it is not all there.
///
/// # Errors
///
/// When the upgrade was not granted: the reason.
pub fn upgraded(bytes: &[u8]) -> std::result::Result<Option<usize>, String> {
    let mut headers = [EMPTY_HEADER; 32];
    let mut response = Response::new(&mut headers);
    let Status::Complete(head) = response.parse(bytes).map_err(|error| format!("not HTTP: {error}"))? else {
        return Ok(None);
    };
    if response.code != Some(101) {
        let reason = response.reason.unwrap_or_default();
        let body = String::from_utf8_lossy(&bytes[head..]);
        let line = body.lines().next().unwrap_or_default();
        return Err(format!("{} {reason} {line}", response.code.unwrap_or_default()).trim_end().to_owned());
    }
    match header(&response, "Sec-WebSocket-Accept") {
        Some(ACCEPT) => Ok(Some(head)),
        Some(other) => Err(format!("the handshake was answered with the wrong key, {other}")),
        None => Err("the handshake was answered without a key".to_owned()),
    }
}

/// The same for a stream of events.
///
/// # Errors
///
/// When it is none: the reason.
pub fn streamed(bytes: &[u8]) -> std::result::Result<Option<usize>, String> {
    let mut headers = [EMPTY_HEADER; 32];
    let mut response = Response::new(&mut headers);
    let Status::Complete(head) = response.parse(bytes).map_err(|error| format!("not HTTP: {error}"))? else {
        return Ok(None);
    };
    match (response.code, header(&response, "Content-Type")) {
        (Some(200), Some("text/event-stream")) => Ok(Some(head)),
        (code, kind) => Err(format!("{} and {}", code.unwrap_or_default(), kind.unwrap_or("no type"))),
    }
}

/// The first event or comment, up to its empty line: the count in it, if it is an event, and its length; `None` while
/// it is not all there.
///
/// # Errors
///
/// When it is neither: the reason.
pub fn event(bytes: &[u8]) -> std::result::Result<Option<(Option<u64>, usize)>, String> {
    let Some(end) = bytes.windows(2).position(|window| window == b"\n\n") else { return Ok(None) };
    let (line, length) = (&bytes[..end], end + 2);
    if line.starts_with(b":") {
        return Ok(Some((None, length)));
    }
    let object = line.strip_prefix(b"data: ").and_then(|data| serde_json::from_slice(data).ok());
    let object: Value = object.ok_or_else(|| format!("no event: {}", line.escape_ascii()))?;
    Ok(Some((Some(count(&object)?), length)))
}

/// The object in the answer to a like or to `GET /likes`, and the answer's length; `None` while it is not all there.
///
/// # Errors
///
/// When it is no such answer: the reason.
pub fn object(bytes: &[u8]) -> std::result::Result<Option<(Value, usize)>, String> {
    let mut headers = [EMPTY_HEADER; 32];
    let mut response = Response::new(&mut headers);
    let Status::Complete(head) = response.parse(bytes).map_err(|error| format!("not HTTP: {error}"))? else {
        return Ok(None);
    };
    let length: usize = header(&response, "Content-Length")
        .and_then(|length| length.parse().ok())
        .ok_or("an answer without its length")?;
    let Some(body) = bytes.get(head..head + length) else { return Ok(None) };
    let text = String::from_utf8_lossy(body);
    if response.code != Some(200) {
        return Err(format!("{} {}", response.code.unwrap_or_default(), text.trim_end()));
    }
    let json = serde_json::from_slice(body).map_err(|_| format!("not JSON: {text}"))?;
    Ok(Some((json, head + length)))
}

/// The count in such an object.
///
/// # Errors
///
/// When there is none: the reason.
pub fn count(object: &Value) -> std::result::Result<u64, String> {
    object["numLikes"].as_u64().ok_or_else(|| format!("no count: {object}"))
}

fn header<'a>(response: &Response<'_, 'a>, name: &str) -> Option<&'a str> {
    let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
    str::from_utf8(header.value).ok()
}

/// Asks `GET /likes`, and waits for the answer.
///
/// # Errors
///
/// When no server answers with a count within 10 s.
pub fn likes(addr: SocketAddr) -> Result<u64> {
    let answered = |reason| Failure::setup(format!("{addr} answered /likes with {reason}"));
    count(&ask(addr, "/likes")?).map_err(answered)
}

/// Asks for counts, and waits for the answer.
///
/// # Errors
///
/// When no server answers with an object within 10 s.
pub fn ask(addr: SocketAddr, target: &str) -> Result<Value> {
    let ask = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&addr, ANSWER_DEADLINE)?;
        stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
        write!(stream, "GET {target} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.take(64 * 1024).read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| Failure::setup(format!("failed to ask {addr} for /likes: {error}")))?;
    match object(&answer) {
        Ok(Some((object, _))) => Ok(object),
        Ok(None) => Err(Failure::setup(format!("{addr} answered /likes only in part"))),
        Err(reason) => Err(Failure::setup(format!("{addr} answered /likes with {reason}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_upgrade_is_granted_by_the_right_key_alone() {
        let head = format!("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n");
        assert_eq!(upgraded(format!("{head}\x01").as_bytes()), Ok(Some(head.len())));
        assert_eq!(upgraded(&head.as_bytes()[..30]), Ok(None));
        let wrong = head.replace(ACCEPT, KEY);
        assert!(upgraded(wrong.as_bytes()).unwrap_err().contains("wrong key"));
        assert!(upgraded(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").unwrap_err().contains("without a key"));
        let full = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nfull\n";
        assert_eq!(upgraded(full), Err("503 Service Unavailable full".to_owned()));
        assert!(upgraded(b"SSH-2.0\r\n").unwrap_err().starts_with("not HTTP"));
    }

    #[test]
    fn a_count_is_taken_and_the_next_answer_left() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"numLikes\":17}";
        for end in 0..answer.len() {
            assert_eq!(object(&answer[..end]), Ok(None), "cut at {end}");
        }
        let two = [answer.as_slice(), answer].concat();
        assert_eq!(object(&two), Ok(Some((json!({ "numLikes": 17 }), answer.len()))));
        assert_eq!(count(&json!({ "numLikes": 17 })), Ok(17));
    }

    #[test]
    fn another_answer_says_what_it_is() {
        assert_eq!(object(b"HTTP/1.1 429 Too Many\r\nContent-Length: 5\r\n\r\nslow\n"), Err("429 slow".to_owned()));
        assert_eq!(object(b"HTTP/1.1 200 OK\r\n\r\n"), Err("an answer without its length".to_owned()));
        assert_eq!(object(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{"), Err("not JSON: {".to_owned()));
        assert_eq!(count(&json!({})), Err("no count: {}".to_owned()));
    }
}

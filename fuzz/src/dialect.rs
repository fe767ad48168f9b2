//! Any text as a message of a client that speaks JSON.

use crate::websocket::{ClientMessage, Kind};
use serde_json::Value;

/// Messages: what is taken says what a library reads, and what is not taken is none of them.
pub fn dialect(bytes: &[u8]) {
    let text = &*String::from_utf8_lossy(bytes);
    let read = ClientMessage::parse(text);
    // What the library cannot hold, such as a number that is too large or half a surrogate pair, only must not panic.
    let Ok(value) = serde_json::from_str::<Value>(text) else { return };
    let kind = match value["type"].as_str() {
        Some("watch") => Some(Kind::Watch),
        Some("unwatch") => Some(Kind::Unwatch),
        Some("like") => Some(Kind::Like),
        Some("unlike") => Some(Kind::Unlike),
        Some("ping") => Some(Kind::Ping),
        _ => None,
    };
    let is_text = |key: &str| value.get(key).is_none_or(Value::is_string);
    let seq = value.get("seq").map(|seq| seq.as_u64().filter(|seq| *seq < 1 << 53));
    let short = value["ref"].as_str().is_none_or(|reference| reference.len() <= 64);
    let watching = value.get("watching").map(Value::as_bool);
    let fits = watching != Some(None)
        && kind.is_some()
        && ["post", "visitor", "ref"].into_iter().all(is_text)
        && seq != Some(None)
        && short;
    match read {
        Ok(message) => {
            assert!(fits, "{text:?} was read as {message:?}");
            assert_eq!((Some(message.kind), message.seq), (kind, seq.flatten()));
            assert_eq!(message.watching, watching.flatten().unwrap_or(false));
            for (key, said) in [("post", message.post), ("visitor", message.visitor), ("ref", message.reference)] {
                assert_eq!(said.as_deref(), value[key].as_str(), "{key} in {text:?}");
            }
        }
        Err(refusal) => assert!(!fits, "{text:?} was refused: {refusal:?}"),
    }
}

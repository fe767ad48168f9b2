//! Any text as a client's message.

use crate::websocket::parse_like;
use serde_json::{Value, json};

/// Whether the server takes a text for a like.
pub(crate) fn says_like(text: &str) -> bool {
    parse_like(text).is_ok()
}

/// Messages: an object is a like if its `type` is and it says not whose, whatever else it holds; and a text that is part
/// of one is a text.
pub fn message(bytes: &[u8]) {
    // Other bytes do not come this far.
    let text = &*String::from_utf8_lossy(bytes);
    let said = says_like(text);
    // What the library cannot hold, such as a number that is too large or half a surrogate pair, only must not panic.
    if let Ok(value) = serde_json::from_str::<Value>(text) {
        let whose = ["post", "visitor", "seq"].iter().any(|key| value.get(key).is_some());
        assert_eq!(said, value["type"] == "like" && !whose, "{text:?}");
        let shallow = text.bytes().filter(|byte| b"[{".contains(byte)).count() < 100;
        assert!(!shallow || says_like(&format!(r#" {{ "other" : {text}, "type":"like" }} "#)), "{text:?}");
    }
    assert_eq!(says_like(&json!({ "type": text }).to_string()), text == "like", "{text:?}");
    assert!(says_like(&json!({ "type": "like", "other": text }).to_string()), "{text:?}");
    assert_eq!(says_like(&json!({ text: "like" }).to_string()), text == "type", "{text:?}");
}

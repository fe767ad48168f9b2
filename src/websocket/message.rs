//! What a client may say in a text message.
//!
//! A client that has agreed on no subprotocol says `like`, or a JSON object (RFC 8259) whose `type` is `"like"`. White
//! space around either is ignored, since command-line clients send a line with its end. Other keys are ignored too;
//! of a key that stands twice the last counts, as in a browser. What is ignored is skipped without recursion, so a
//! message of any depth costs no stack.

use crate::websocket::refusal::{Refusal, code};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// A client's text message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientMessage {
    /// One like more.
    Like,
}

impl ClientMessage {
    /// Parses a text message.
    ///
    /// # Errors
    ///
    /// 1008 if it is none of the messages above.
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        // JSON's white space, RFC 8259 section 2.
        if text.trim_matches([' ', '\t', '\n', '\r']) == "like" {
            return Ok(Self::Like);
        }
        let fields: BTreeMap<String, &RawValue> = serde_json::from_str(text).unwrap_or_default();
        let kind = fields.get("type").and_then(|kind| serde_json::from_str::<String>(kind.get()).ok());
        match kind.as_deref() {
            Some("like") => Ok(Self::Like),
            _ => Err(Refusal::new(code::POLICY_VIOLATION, r#"expected {"type":"like"}"#)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ClientMessage;

    fn is_like(text: &str) -> bool {
        ClientMessage::parse(text) == Ok(ClientMessage::Like)
    }

    #[test]
    fn any_object_whose_type_is_like_is_a_like() {
        for text in [
            "like",
            " \t\r\nlike\n",
            r#"{"type":"like"}"#,
            " {\n\t\"type\" : \"like\"\r\n} \n",
            r#"{"id":1,"type":"like"}"#,
            r#"{"type":"like","nested":{"type":"other","list":[1,-2.5e+3,true,false,null,"\"]}"]}}"#,
            r#"{"type":"other","type":"like"}"#,
            r#"{"\u0074ype":"l\u0069ke"}"#,
            r#"{"":[],"a":{},"type":"like"}"#,
            // What no string and no number of ours could hold, as far as it is ignored.
            r#"{"type":"like","a":"\ud83d","b":1e999,"c":18446744073709551616}"#,
        ] {
            assert!(is_like(text), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_what_is_expected() {
        for text in [
            "",
            " ",
            "likes",
            "like like",
            "\u{a0}like",
            "\u{feff}like",
            "like\0",
            "LIKE",
            "\"like\"",
            "{}",
            "[]",
            "null",
            "16",
            "{",
            r#"{"type":"like""#,
            r#"{"type":"like"}}"#,
            r#"{"type":"like"} {"type":"like"}"#,
            r#"{"type":"like",}"#,
            r#"{"type":"Like"}"#,
            r#"{"Type":"like"}"#,
            r#"{"type":"like "}"#,
            r#"{"type":"like","type":"other"}"#,
            r#"{"type":["like"]}"#,
            r#"{"a":{"type":"like"}}"#,
            r#"[{"type":"like"}]"#,
            r#"{'type':'like'}"#,
            r#"{"type":"like","a":01}"#,
            r#"{"type":"like","a":"\x"}"#,
            "{\"type\":\"like\",\u{a0}\"a\":1}",
            "\u{feff}{\"type\":\"like\"}",
            r#"{"type":"like","a":[1}}"#,
        ] {
            let refusal = ClientMessage::parse(text).unwrap_err();
            assert_eq!((refusal.code, &*refusal.reason), (1008, r#"expected {"type":"like"}"#), "{text}");
        }
    }

    #[test]
    fn depth_costs_no_stack() {
        let nested = |depth: usize| format!(r#"{{"type":"like","a":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        assert!(is_like(&nested(1_000_000)));
        assert!(!is_like(&"[".repeat(1_000_000)));
        assert!(!is_like(&"{\"a\":".repeat(1_000_000)));
        assert!(!is_like(&nested(1_000_000).replace("\"a\"", "\"type\"")));
    }
}

//! What a client may say in a text message.
//!
//! A client that has agreed on no subprotocol says `like`, or a JSON object (RFC 8259) whose `type` is `"like"`. White
//! space around either is ignored, since command-line clients send a line with its end. One that has agreed on
//! `live-likes` says objects of several types. Keys that are not known are ignored; of a key that stands twice the last
//! counts, as in a browser. What is ignored is skipped without recursion, so a message of any depth costs no stack.

use crate::{
    store::change::LARGEST,
    websocket::refusal::{Refusal, code},
};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// Bytes of a `ref`, by which a client knows the answer to what it said.
const LONGEST_REF: usize = 64;

/// Whether a client that has agreed on no subprotocol says that it likes.
///
/// # Errors
///
/// 1008 if it says anything else, or whose like it is, which is for those who have agreed on one.
pub(crate) fn parse_like(text: &str) -> Result<(), Refusal> {
    // JSON's white space, RFC 8259 section 2. What a browser makes of the object needs no parser.
    if matches!(text.trim_matches([' ', '\t', '\n', '\r']), "like" | r#"{"type":"like"}"#) {
        return Ok(());
    }
    let fields = Fields::parse(text).filter(|fields| fields.text("type").ok().flatten().as_deref() == Some("like"));
    let fields = fields.ok_or_else(|| bad(r#"{"type":"like"}"#))?;
    // Who says these takes this for the other dialect. It would be a like of another post than is meant, or by nobody.
    match ["post", "visitor", "seq"].into_iter().find(|key| fields.0.contains_key(*key)) {
        Some(key) => Err(bad(&format!("the subprotocol live-likes for \"{key}\""))),
        None => Ok(()),
    }
}

fn bad(expected: &str) -> Refusal {
    Refusal::new(code::POLICY_VIOLATION, format!("expected {expected}"))
}

/// What a client says that has agreed on the subprotocol.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ClientMessage {
    pub(crate) kind: Kind,
    /// The post it is about; `None` for the default counter.
    pub(crate) post: Option<String>,
    pub(crate) visitor: Option<String>,
    /// The number of a visitor's change.
    pub(crate) seq: Option<u64>,
    /// What the client calls this message.
    pub(crate) reference: Option<String>,
    /// Whether it asks how many watch the post.
    pub(crate) watching: bool,
}

/// The types of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Watch,
    Unwatch,
    Like,
    Unlike,
    Ping,
}

impl ClientMessage {
    /// Parses a text message.
    ///
    /// # Errors
    ///
    /// 1008 if it is no object of these types, or one of the values above is of another type or out of its range.
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        let fields = Fields::parse(text).ok_or_else(|| bad("a JSON object"))?;
        let kind = match fields.text("type").ok().flatten().as_deref() {
            Some("watch") => Kind::Watch,
            Some("unwatch") => Kind::Unwatch,
            Some("like") => Kind::Like,
            Some("unlike") => Kind::Unlike,
            Some("ping") => Kind::Ping,
            _ => return Err(bad("a \"type\": watch, unwatch, like, unlike or ping")),
        };
        let text = |key: &'static str| fields.text(key).map_err(|()| bad(&format!("a string as \"{key}\"")));
        let number = |seq: &&RawValue| serde_json::from_str(seq.get()).ok().filter(|seq| *seq <= LARGEST);
        let seq = fields.0.get("seq").map(|seq| number(seq).ok_or_else(|| bad("a whole number below 2^53 as \"seq\"")));
        let (seq, reference) = (seq.transpose()?, text("ref")?);
        if reference.as_ref().is_some_and(|reference| reference.len() > LONGEST_REF) {
            return Err(bad("at most 64 bytes as \"ref\""));
        }
        let watching = fields.0.get("watching").map(|asks| serde_json::from_str(asks.get()));
        let watching = watching.transpose().map_err(|_| bad("true or false as \"watching\""))?.unwrap_or(false);
        Ok(Self { kind, post: text("post")?, visitor: text("visitor")?, seq, reference, watching })
    }
}

/// The members of a JSON object.
struct Fields<'t>(BTreeMap<String, &'t RawValue>);

impl<'t> Fields<'t> {
    fn parse(text: &'t str) -> Option<Self> {
        serde_json::from_str(text).ok().map(Self)
    }

    /// A member that is a string, if it is there.
    fn text(&self, key: &str) -> Result<Option<String>, ()> {
        self.0.get(key).map(|value| serde_json::from_str(value.get()).map_err(drop)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_like(text: &str) -> bool {
        parse_like(text).is_ok()
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
    fn of_a_bare_client_anything_else_is_refused_with_what_is_expected() {
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
            let refusal = parse_like(text).unwrap_err();
            assert_eq!((refusal.code, &*refusal.reason), (1008, r#"expected {"type":"like"}"#), "{text}");
        }
    }

    #[test]
    fn of_a_bare_client_a_like_of_another_post_or_of_a_visitor_is_refused() {
        for key in ["post", "visitor", "seq"] {
            let refusal = parse_like(&format!(r#"{{"type":"like","{key}":7}}"#)).unwrap_err();
            let expected = format!("expected the subprotocol live-likes for \"{key}\"");
            assert_eq!((refusal.code, &*refusal.reason), (1008, &*expected));
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

    #[test]
    fn each_type_of_message_is_read_with_its_values() {
        let read = |text: &str| ClientMessage::parse(text).unwrap();
        let like = read(r#"{"type":"like","post":"p\u00e9","visitor":"v","seq":7,"ref":"a","other":[{}]}"#);
        let (post, visitor) = (Some("pé".to_owned()), Some("v".to_owned()));
        let (seq, reference) = (Some(7), Some("a".to_owned()));
        assert_eq!(like, ClientMessage { kind: Kind::Like, post, visitor, seq, reference, watching: false });
        for (kind, name) in [(Kind::Watch, "watch"), (Kind::Unwatch, "unwatch"), (Kind::Ping, "ping")] {
            let (post, visitor, seq, reference) = (None, None, None, None);
            let mut expected = ClientMessage { kind, post, visitor, seq, reference, watching: false };
            assert_eq!(read(&format!(r#" {{"type":"{name}"}} "#)), expected);
            assert_eq!(read(&format!(r#"{{"type":"{name}","watching":false}}"#)), expected);
            expected.watching = true;
            assert_eq!(read(&format!(r#"{{"watching":true,"type":"{name}"}}"#)), expected);
        }
        assert_eq!(read(r#"{"type":"unlike","seq":9007199254740991}"#).seq, Some(LARGEST));
        assert_eq!(read(r#"{"type":"like","type":"unlike"}"#).kind, Kind::Unlike, "the last counts");
    }

    #[test]
    fn anything_else_is_refused_with_1008_and_what_is_expected() {
        for (text, expected) in [
            ("like", "expected a JSON object"),
            ("", "expected a JSON object"),
            ("[]", "expected a JSON object"),
            (r#"{"type":"like""#, "expected a JSON object"),
            ("{}", r#"expected a "type""#),
            (r#"{"type":"Like"}"#, r#"expected a "type""#),
            (r#"{"type":5}"#, r#"expected a "type""#),
            (r#"{"type":"like","post":5}"#, r#"expected a string as "post""#),
            (r#"{"type":"like","post":null}"#, r#"expected a string as "post""#),
            (r#"{"type":"like","visitor":{}}"#, r#"expected a string as "visitor""#),
            (r#"{"type":"like","ref":7}"#, r#"expected a string as "ref""#),
            (r#"{"type":"like","seq":"7"}"#, r#"expected a whole number below 2^53 as "seq""#),
            (r#"{"type":"like","seq":-1}"#, "as \"seq\""),
            (r#"{"type":"like","seq":1.5}"#, "as \"seq\""),
            (r#"{"type":"like","seq":9007199254740992}"#, "as \"seq\""),
            (r#"{"type":"ping","watching":1}"#, r#"expected true or false as "watching""#),
            (r#"{"type":"ping","watching":"true"}"#, r#"expected true or false as "watching""#),
            (r#"{"type":"watch","watching":null}"#, r#"expected true or false as "watching""#),
            (&format!(r#"{{"type":"like","ref":"{}"}}"#, "x".repeat(65)), "expected at most 64 bytes"),
        ] {
            let refusal = ClientMessage::parse(text).unwrap_err();
            assert_eq!(refusal.code, 1008);
            assert!(refusal.reason.starts_with(expected) || refusal.reason.ends_with(expected), "{text}: {refusal:?}");
        }
    }
}

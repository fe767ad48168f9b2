//! The languages in which clients are told counts, as WebSocket frames or server-sent events.

use crate::store::change::{Count, Post};

/// The language in which a client is told counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// The number alone, of one counter.
    Bare,
    /// A JSON object.
    Json,
    /// The same object, as a server-sent event.
    Events,
}

/// How many dialects there are.
pub(crate) const DIALECTS: usize = 3;

/// What one client is told beside a count.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Personal<'a> {
    /// Whether the visitor it watches for likes the post.
    pub(crate) liked: Option<bool>,
    /// The name of this start of the server, for the first count of a connection.
    pub(crate) boot: Option<&'a str>,
}

impl Dialect {
    pub(crate) const ALL: [Self; DIALECTS] = [Self::Bare, Self::Json, Self::Events];

    /// What the metrics call it.
    pub(crate) fn transport(self) -> &'static str {
        match self {
            Self::Bare => "websocket",
            Self::Json => "websocket_json",
            Self::Events => "event_stream",
        }
    }

    /// Appends a count: a whole frame, or a whole event.
    pub(crate) fn encode(self, post: &Post, count: Count, personal: Personal<'_>, bytes: &mut Vec<u8>) {
        match self {
            Self::Bare => text_frame(&count.likes.to_string(), bytes),
            Self::Json => text_frame(&object(post, count, personal), bytes),
            // JSON has no line ends but escaped ones, so that it is one line of data.
            Self::Events => bytes.extend(["data: ", &object(post, count, personal), "\n\n"].concat().as_bytes()),
        }
    }
}

fn object(post: &Post, count: Count, personal: Personal<'_>) -> String {
    // The default counter has no name.
    let post = match post.name() {
        "" => String::new(),
        name => format!(",\"post\":{}", serde_json::Value::from(name)),
    };
    let Count { likes, version } = count;
    let liked = personal.liked.map_or_else(String::new, |liked| format!(",\"liked\":{liked}"));
    let boot = personal.boot.map_or_else(String::new, |boot| format!(",\"boot\":\"{boot}\""));
    format!("{{\"type\":\"count\"{post},\"numLikes\":{likes},\"version\":{version}{liked}{boot}}}")
}

/// Appends a text message in one frame: final, not masked (RFC 6455 section 5.2).
pub(crate) fn text_frame(text: &str, bytes: &mut Vec<u8>) {
    bytes.push(0x81);
    match text.len() {
        length @ ..126 => bytes.push(length as u8),
        length @ ..0x1_0000 => {
            bytes.push(126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(dialect: Dialect, post: &str, personal: Personal<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        dialect.encode(&Post::kept(post), Count { likes: 3, version: 41 }, personal, &mut bytes);
        bytes
    }

    #[test]
    fn a_count_is_a_bare_number_or_an_object_or_an_event() {
        let personal = Personal { liked: Some(false), boot: Some("b") };
        assert_eq!(encoded(Dialect::Bare, "p", personal), b"\x81\x013");
        let object = br#"{"type":"count","numLikes":3,"version":41}"#;
        assert_eq!(encoded(Dialect::Json, "", Personal::default()), [b"\x81\x2a", &object[..]].concat());
        let object = br#"{"type":"count","post":"a\"b","numLikes":3,"version":41,"liked":false,"boot":"b"}"#;
        assert_eq!(encoded(Dialect::Json, "a\"b", personal), [&[0x81, object.len() as u8][..], object].concat());
        assert_eq!(encoded(Dialect::Events, "a\"b", personal), [b"data: ", &object[..], b"\n\n"].concat());
    }

    #[test]
    fn a_long_text_has_a_long_length() {
        for (length, header) in
            [(125, &[0x81, 125][..]), (126, &[0x81, 126, 0, 126]), (65536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0])]
        {
            let mut bytes = Vec::new();
            text_frame(&"x".repeat(length), &mut bytes);
            assert_eq!((&bytes[..header.len()], bytes.len()), (header, header.len() + length));
        }
    }
}

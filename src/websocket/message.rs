//! What a client says: whether a text message is a like.
//!
//! `{"type":"like"}`, as any JSON object (RFC 8259) whose `type` is `"like"`, or the bare text `like`. A JSON library
//! would be four more crates for every user to build, for one question; so the text is walked here once, without
//! recursion, and proved against such a library in the tests. Of a key that stands twice the last counts, as in a
//! browser.

/// Objects and arrays within each other; a like needs none. As deep as serde_json goes.
const DEEPEST: usize = 127;

/// Whether a text message is a like.
pub(crate) fn is_like(text: &str) -> bool {
    text == "like" || Walker { rest: text.as_bytes() }.finds_like().unwrap_or(false)
}

/// The part of a JSON text that is still to be walked. Each step returns `None` where the text is no JSON.
struct Walker<'t> {
    rest: &'t [u8],
}

impl<'t> Walker<'t> {
    fn finds_like(mut self) -> Option<bool> {
        let mut liked = false;
        self.space();
        self.take(b'{')?;
        self.space();
        if self.take(b'}').is_none() {
            loop {
                let key = self.string()?;
                self.space();
                self.take(b':')?;
                self.space();
                let value = self.rest;
                self.value()?;
                if means(key, "type") {
                    let value = &value[..value.len() - self.rest.len()];
                    liked = value.first() == Some(&b'"') && means(&value[1..value.len() - 1], "like");
                }
                self.space();
                match self.next()? {
                    b',' => self.space(),
                    b'}' => break,
                    _ => return None,
                }
            }
        }
        self.space();
        self.rest.is_empty().then_some(liked)
    }

    /// Any value. The containers that it is in are kept on a list, not on the stack.
    fn value(&mut self) -> Option<()> {
        let mut open = Vec::new();
        loop {
            match self.next()? {
                kind @ (b'{' | b'[') => {
                    // One more for the object that this value is in, one for this container.
                    if open.len() + 2 > DEEPEST {
                        return None;
                    }
                    self.space();
                    let end = if kind == b'{' { b'}' } else { b']' };
                    if self.take(end).is_none() {
                        open.push(end);
                        self.key(end)?;
                        continue;
                    }
                }
                b'"' => _ = self.string_after_quote()?,
                b't' => self.literal(b"rue")?,
                b'f' => self.literal(b"alse")?,
                b'n' => self.literal(b"ull")?,
                first @ (b'-' | b'0'..=b'9') => self.number(first)?,
                _ => return None,
            }
            // A value is over: what follows in the container that it is in?
            loop {
                let Some(&end) = open.last() else { return Some(()) };
                self.space();
                match self.next()? {
                    b',' => {
                        self.space();
                        self.key(end)?;
                        break;
                    }
                    byte if byte == end => _ = open.pop(),
                    _ => return None,
                }
            }
        }
    }

    /// In an object, the key and colon before a value.
    fn key(&mut self, end: u8) -> Option<()> {
        if end == b'}' {
            self.string()?;
            self.space();
            self.take(b':')?;
            self.space();
        }
        Some(())
    }

    /// A string; returns what stands between its quotes.
    fn string(&mut self) -> Option<&'t [u8]> {
        self.take(b'"')?;
        self.string_after_quote()
    }

    fn string_after_quote(&mut self) -> Option<&'t [u8]> {
        let start = self.rest;
        loop {
            match self.next()? {
                b'"' => return Some(&start[..start.len() - self.rest.len() - 1]),
                b'\\' => match self.next()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => (0..4).try_for_each(|_| self.next()?.is_ascii_hexdigit().then_some(()))?,
                    _ => return None,
                },
                0..0x20 => return None,
                _ => {}
            }
        }
    }

    fn number(&mut self, first: u8) -> Option<()> {
        let first = if first == b'-' { self.next()? } else { first };
        match first {
            b'0' => {}
            b'1'..=b'9' => _ = self.digits(),
            _ => return None,
        }
        if self.take(b'.').is_some() {
            self.digits()?;
        }
        if self.take(b'e').or_else(|| self.take(b'E')).is_some() {
            _ = self.take(b'+').or_else(|| self.take(b'-'));
            self.digits()?;
        }
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.rest = &self.rest[digits..];
        (digits > 0).then_some(())
    }

    fn literal(&mut self, rest: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(rest)?;
        Some(())
    }

    fn space(&mut self) {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        self.rest = self.rest.strip_prefix(&[byte])?;
        Some(())
    }

    fn next(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }
}

/// Whether the inside of a well-formed string stands for a word of ASCII letters, which can be escaped as `\u006c`
/// and in no other way.
fn means(mut inside: &[u8], word: &str) -> bool {
    for letter in word.bytes() {
        let (first, rest) = match inside {
            &[b'\\', b'u', a, b, c, d, ref rest @ ..] => {
                let digits = [a, b, c, d];
                let code = std::str::from_utf8(&digits).ok().and_then(|code| u16::from_str_radix(code, 16).ok());
                (code, rest)
            }
            [first, rest @ ..] => (Some(u16::from(*first)), rest),
            [] => return false,
        };
        if first != Some(u16::from(letter)) {
            return false;
        }
        inside = rest;
    }
    inside.is_empty()
}

#[cfg(test)]
mod tests {
    use super::is_like;
    use proptest::prelude::*;

    /// What a JSON library makes of the same text.
    fn library_says(text: &str) -> bool {
        text == "like"
            || serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text)
                .is_ok_and(|object| object.get("type").is_some_and(|kind| kind == "like"))
    }

    #[test]
    fn any_object_whose_type_is_like_is_a_like() {
        for text in [
            "like",
            r#"{"type":"like"}"#,
            " {\n\t\"type\" : \"like\"\r\n} ",
            r#"{"id":1,"type":"like"}"#,
            r#"{"type":"like","nested":{"type":"other","list":[1,-2.5e+3,true,false,null,"\"]}"]}}"#,
            r#"{"type":"other","type":"like"}"#,
            r#"{"\u0074ype":"l\u0069ke"}"#,
            r#"{"":[],"a":{},"type":"like"}"#,
        ] {
            assert!(is_like(text), "{text}");
            assert!(library_says(text), "{text}");
        }
    }

    #[test]
    fn anything_else_is_not() {
        for text in [
            "",
            " ",
            "likes",
            " like",
            "LIKE",
            "\"like\"",
            "{}",
            "[]",
            "null",
            "16",
            "{",
            "}",
            "{{",
            r#"{"type"}"#,
            r#"{"type":"like""#,
            r#"{"type":"like"}}"#,
            r#"{"type":"like"} x"#,
            r#"{"type":"like",}"#,
            r#"{,"type":"like"}"#,
            r#"{"type":"Like"}"#,
            r#"{"Type":"like"}"#,
            r#"{"type":"like "}"#,
            r#"{"type":"like","type":"other"}"#,
            r#"{"type":["like"]}"#,
            r#"{"type":{"type":"like"}}"#,
            r#"{"a":{"type":"like"}}"#,
            r#"[{"type":"like"}]"#,
            r#"{'type':'like'}"#,
            r#"{type:"like"}"#,
            r#"{"type":"like","a":01}"#,
            r#"{"type":"like","a":1.}"#,
            r#"{"type":"like","a":.5}"#,
            r#"{"type":"like","a":+1}"#,
            r#"{"type":"like","a":1e}"#,
            r#"{"type":"like","a":-}"#,
            r#"{"type":"like","a":tru}"#,
            r#"{"type":"like","a":"\x"}"#,
            r#"{"type":"like","a":"\u12g4"}"#,
            "{\"type\":\"like\",\"a\":\"\n\"}",
            "{\"type\":\"like\",\u{a0}\"a\":1}",
            "\u{feff}{\"type\":\"like\"}",
            r#"{"type":"like","a":[1,]}"#,
            r#"{"type":"like","a":[1}}"#,
            r#"{"type":"like","a":{"b":1]}"#,
        ] {
            assert!(!is_like(text), "{text}");
            assert!(!library_says(text), "{text}");
        }
    }

    #[test]
    fn depth_has_a_bound_and_costs_no_stack() {
        let nested = |depth: usize| format!(r#"{{"type":"like","a":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        for depth in [1, 100, 126, 127, 128, 2000] {
            assert_eq!(is_like(&nested(depth)), library_says(&nested(depth)), "{depth}");
        }
        assert!(!is_like(&"[".repeat(1_000_000)));
        assert!(!is_like(&"{\"a\":".repeat(1_000_000)));
    }

    proptest! {
        #[test]
        fn the_verdict_is_a_json_library_s(text in r#"\{?("type"|"t\\u0079pe"|"a"|:|,|"like"|"l\\u0069ke"|\{|\}|\[|\]|-?[0-9]{1,2}|\.|e|true|null|"|\\| ){0,12}\}?"#) {
            prop_assert_eq!(is_like(&text), library_says(&text));
        }

        #[test]
        fn real_objects_are_understood(keys in prop::collection::vec(("[a-z]{0,4}|type", "[ -~é]{0,6}|like"), 0..5)) {
            let fields: Vec<_> = keys.iter().map(|(key, value)| {
                format!("{}: {}", serde_json::to_string(key).unwrap(), serde_json::to_string(value).unwrap())
            }).collect();
            let text = format!("{{{}}}", fields.join(" , "));
            let liked = keys.iter().rev().find(|(key, _)| key == "type").is_some_and(|(_, value)| value == "like");
            prop_assert_eq!(is_like(&text), liked);
            prop_assert_eq!(library_says(&text), liked);
        }
    }
}

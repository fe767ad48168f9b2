//! The parameters of a request: those of its query, and those of its body.
//!
//! Strict, since a like that is meant for another post, or by somebody else, must not be counted: what is not understood
//! is refused. The exception are members of a body that are not parameters at all, which a form or a script may have for
//! reasons of its own.

use crate::{
    http::Refusal,
    http::request::{Content, Request},
    store::change::{LARGEST, Post},
};
use percent_encoding::percent_decode;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// How many of the most liked posts may be asked for.
const LONGEST_TOP: u64 = 100;

/// What the parameters of a request say.
#[derive(Debug, Default)]
pub(crate) struct Parameters {
    /// In the order in which they stand.
    pub(crate) posts: Vec<Post>,
    pub(crate) visitor: Option<String>,
    pub(crate) seq: Option<u64>,
    pub(crate) back: Option<String>,
    pub(crate) top: Option<usize>,
}

impl Parameters {
    /// Reads the query, in which only these parameters may stand.
    pub(crate) fn of_query(request: &Request, expected: &[&str]) -> Result<Self, Refusal> {
        let mut parameters = Self::default();
        for_each_pair(request.target.query().unwrap_or_default().as_bytes(), |name, value| {
            // Some scripts add `_` against caches.
            if name != "_" && !expected.contains(&name) {
                let expected = if expected.is_empty() { "none" } else { &format!("only {}", expected.join(", ")) };
                return bad(format!("unknown parameter `{}`: {expected} may stand here", name.escape_debug()));
            }
            parameters.set(name, value)
        })?;
        Ok(parameters)
    }

    /// Adds what stands in the body, if that is a form or JSON. What stands in the query too must be the same there.
    pub(crate) fn with_body(mut self, request: &Request) -> Result<Self, Refusal> {
        if request.body.is_empty() {
            return Ok(self);
        }
        let mut body = Self::default();
        match request.content() {
            Some(Content::Form) => for_each_pair(&request.body, |name, value| body.set_in_body(name, value))?,
            Some(Content::Json) => {
                // What is not looked at is skipped without recursion, so that no body is too deep for the stack.
                let members: Result<BTreeMap<String, &RawValue>, _> = serde_json::from_slice(&request.body);
                for (name, value) in members.map_err(|_| Refusal::bad("the body is no JSON object"))? {
                    match (name.as_str(), serde_json::from_str(value.get())) {
                        ("seq", _) => body.set("seq", value.get().to_owned())?,
                        (_, Ok(text)) => body.set_in_body(&name, text)?,
                        ("post" | "visitor" | "back", Err(_)) => return bad(format!("`{name}` is not a string")),
                        _ => {}
                    }
                }
            }
            None => {}
        }
        add("visitor", &mut self.visitor, body.visitor)?;
        add("seq", &mut self.seq, body.seq)?;
        add("back", &mut self.back, body.back)?;
        Ok(self)
    }

    /// The post that is meant, where it is one: the default counter, if none is named.
    pub(crate) fn post(&self) -> Result<Post, Refusal> {
        match &self.posts[..] {
            [] => Ok(Post::default()),
            [post] => Ok(post.clone()),
            _ => twice("post"),
        }
    }

    fn set_in_body(&mut self, name: &str, value: String) -> Result<(), Refusal> {
        match name {
            "post" => bad("`post` stands in the body; it is expected in the query, as ?post=".to_owned()),
            "visitor" | "seq" | "back" => self.set(name, value),
            _ => Ok(()),
        }
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), Refusal> {
        let is_new = match name {
            "post" => {
                let post = Post::new(&value).map_err(|problem| Refusal::bad(format!("`post`: {problem}")))?;
                self.posts.push(post);
                true
            }
            "visitor" => self.visitor.replace(value).is_none(),
            "back" => self.back.replace(value).is_none(),
            "seq" => self.seq.replace(number("seq", &value, 0, LARGEST)?).is_none(),
            "top" => self.top.replace(number("top", &value, 1, LONGEST_TOP)? as usize).is_none(),
            _ => true,
        };
        if is_new { Ok(()) } else { twice(name) }
    }
}

fn bad<T>(problem: String) -> Result<T, Refusal> {
    Err(Refusal::bad(problem))
}

fn twice<T>(name: &str) -> Result<T, Refusal> {
    bad(format!("the parameter `{name}` stands twice; it is expected once"))
}

/// Adds what the body says to what the query says.
fn add<T: PartialEq>(name: &str, query: &mut Option<T>, body: Option<T>) -> Result<(), Refusal> {
    if query.is_some() && body.is_some() && *query != body {
        return bad(format!("`{name}` in the body is not the same as in the query"));
    }
    *query = query.take().or(body);
    Ok(())
}

fn number(name: &str, digits: &str, least: u64, most: u64) -> Result<u64, Refusal> {
    let number = Some(digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    match number.and_then(|digits| digits.parse().ok()) {
        Some(number) if (least..=most).contains(&number) => Ok(number),
        _ => bad(format!("`{name}` is not a whole number from {least} to {most}")),
    }
}

/// Reads `application/x-www-form-urlencoded` (URL Standard section 5.1), but takes nothing that is broken.
fn for_each_pair(text: &[u8], mut each: impl FnMut(&str, String) -> Result<(), Refusal>) -> Result<(), Refusal> {
    for pair in text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
        let (name, value) = match pair.iter().position(|byte| *byte == b'=') {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &b""[..]),
        };
        let problem = |problem| Refusal::bad(format!("the parameter `{}` {problem}", name.escape_ascii()));
        each(&decode(name).map_err(problem)?, decode(value).map_err(problem)?)?;
    }
    Ok(())
}

fn decode(text: &[u8]) -> Result<String, &'static str> {
    let is_whole =
        |rest: &[u8]| matches!(rest, [_, high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit());
    if (0..text.len()).any(|at| text[at] == b'%' && !is_whole(&text[at..])) {
        return Err("has a broken percent-encoding; % and two hexadecimal digits are expected");
    }
    let spaced: Vec<_> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    let decoded = percent_decode(&spaced).decode_utf8().map_err(|_| "is not valid UTF-8")?;
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
    use proptest::prelude::*;

    fn pairs(text: &[u8]) -> Result<Vec<(String, String)>, Refusal> {
        let mut pairs = Vec::new();
        for_each_pair(text, |name, value| {
            pairs.push((name.to_owned(), value));
            Ok(())
        })?;
        Ok(pairs)
    }

    /// The bytes `&=+%`, hexadecimal digits and others, as they might stand in a query.
    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![3 => prop::sample::select(b"&=+%%0aFfZc3".to_vec()), 1 => any::<u8>()];
        prop::collection::vec(byte, 0..40)
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_again(expected in prop::collection::vec((".{0,9}", ".{0,9}"), 0..5)) {
            let encode = |text: &str| percent_encode(text.as_bytes(), NON_ALPHANUMERIC).to_string().replace("%20", "+");
            let text: Vec<_> = expected.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
            prop_assert_eq!(pairs(text.join("&").as_bytes()), Ok(expected));
        }

        #[test]
        fn whatever_is_decoded_is_the_same_by_the_rules_of_the_url_standard(text in pieces()) {
            let Ok(pairs) = pairs(&text) else { return Ok(()) };
            let lossy = |text: &[u8]| {
                let spaced: Vec<_> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
                percent_decode(&spaced).decode_utf8_lossy().into_owned()
            };
            let expected: Vec<_> = text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
                let mut halves = pair.splitn(2, |byte| *byte == b'=');
                (lossy(halves.next().unwrap_or_default()), lossy(halves.next().unwrap_or_default()))
            }).collect();
            prop_assert_eq!(pairs, expected);
        }
    }
}

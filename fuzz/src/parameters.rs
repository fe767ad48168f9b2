//! Any query and any body of a like.

use crate::{
    draw::Draw,
    http::{head::HeadReader, request::Request},
    limits::Limits,
    server::query::Parameters,
};
use serde_json::Value;
use std::collections::BTreeMap;

/// Parameters: what is taken, a library reads in the same way, and nothing stands there that is not looked at.
///
/// The query is what stands before the first line feed, the body what stands behind it.
pub fn parameters(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (query, body) = (&bytes[..end], bytes.get(end + 1..).unwrap_or_default());
    let kind = ["text/plain", "application/x-www-form-urlencoded", "application/json"][Draw::from(bytes).up_to(2)];
    let Some(mut request) = request(query, kind) else { return };
    request.body = body.to_vec();
    let names = ["post", "visitor", "seq", "back"];
    let Ok(from_query) = Parameters::of_query(&request, &names) else { return };
    let pairs: Vec<_> = form_urlencoded::parse(query).filter(|(name, _)| name != "_").collect();
    assert!(pairs.iter().all(|(name, _)| names.contains(&&**name)), "{pairs:?}");
    let all = |name: &str| Vec::from_iter(pairs.iter().filter(|(other, _)| other == name).map(|(_, value)| &**value));
    assert_eq!(from_query.posts.iter().map(|post| post.name()).collect::<Vec<_>>(), all("post"));
    for (name, value) in [("visitor", &from_query.visitor), ("back", &from_query.back)] {
        assert_eq!(Vec::from_iter(value.as_deref()), all(name), "{name}");
    }
    assert_eq!(from_query.seq.map(|seq| seq.to_string()), all("seq").first().map(|seq| plain(seq)));

    let (visitor, seq) = (from_query.visitor.clone(), from_query.seq);
    let Ok(both) = from_query.with_body(&request) else { return };
    let members: BTreeMap<String, String> = match kind {
        "application/json" if !body.is_empty() => {
            // What the library cannot hold, such as a number that is too large, only must not panic.
            let Ok(Value::Object(members)) = serde_json::from_slice(body) else { return };
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            members.iter().map(|(name, value)| (name.clone(), text(value))).collect()
        }
        "text/plain" | "application/json" => BTreeMap::new(),
        _ => form_urlencoded::parse(body).into_owned().collect(),
    };
    assert!(!members.contains_key("post"), "{members:?}");
    assert_eq!(both.visitor.as_ref(), visitor.as_ref().or(members.get("visitor")));
    assert_eq!(both.seq, seq.or(members.get("seq").map(|seq| seq.parse().unwrap())));
}

/// Digits without the zeros before them.
fn plain(digits: &str) -> String {
    digits.parse::<u128>().map_or_else(|_| digits.to_owned(), |number| number.to_string())
}

fn request(query: &[u8], kind: &str) -> Option<Request> {
    let end = format!(" HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\n\r\n");
    let head = [b"PUT /like?", query, end.as_bytes()].concat();
    HeadReader::default().read(&head, &Limits::default()).ok().flatten().map(|(request, _)| request)
}

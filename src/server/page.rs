//! The page and the module of its script: their bytes, the count that stands in the page, and the fields that go with
//! them.
//!
//! A page may mark where the count stands, `<!--likes-->16<!--/likes-->`; what is between is replaced when the page
//! is served, so that it shows a count before its script runs, or where none runs. A page without the marks is served
//! as it is, byte for byte. The built-in page, which is in English, has the thousands apart: `1,234`.

use crate::{
    error::{Error, Result},
    http::{
        request::{list, weight},
        response::Response,
    },
};
use ::http::{
    HeaderMap,
    header::{ACCEPT_ENCODING, IF_NONE_MATCH},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use sha1::{Digest, Sha1};
use std::path::Path;

const BUILT_IN: &str = include_str!("../../index.html");
/// The module, minified and compressed when it is changed, by element/build.
const MODULE: &str = include_str!("../../element/live-likes.min.js");
const COMPRESSED_MODULE: &[u8] = include_bytes!("../../element/live-likes.min.js.gz");
const ICON: &str = include_str!("favicon.svg");
const MARKS: [&str; 2] = ["<!--likes-->", "<!--/likes-->"];

/// The content policy of the built-in page: its own script and style, by their hashes, the module, which is the only
/// script that this server has, and nothing else.
const POLICY: &str = "default-src 'none'; \
    script-src 'sha256-vl5VzXdCvrlITi+bSNEfDhHGQqWGO7C+RB04Hcx023I=' 'self'; \
    style-src 'sha256-viUTeXc1z4X8G8N41p64HEG8qClCMqSVQoyn0cMN0gk='; \
    connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'self'";

/// The page that a server serves at `/` and `/index.html`.
#[derive(Clone, Debug)]
pub struct Page {
    bytes: Vec<u8>,
    /// Where the count stands, if the page marks it.
    count: Option<std::ops::Range<usize>>,
    /// A page that a user brings gets none but for frames: it could stop its own inline script.
    policy: Option<&'static str>,
}

impl Page {
    /// A page of one's own, which can be any HTML.
    pub fn new(html: impl Into<Vec<u8>>) -> Self {
        let bytes = html.into();
        let find = |from: usize, mark: &str| {
            bytes[from..].windows(mark.len()).position(|window| window == mark.as_bytes()).map(|at| from + at)
        };
        let count =
            find(0, MARKS[0]).map(|at| at + MARKS[0].len()).and_then(|start| Some(start..find(start, MARKS[1])?));
        let policy = (bytes == BUILT_IN.as_bytes()).then_some(POLICY);
        Self { bytes, count, policy }
    }

    /// Reads a page from a file, once.
    ///
    /// # Errors
    ///
    /// [`Error::Page`] where the file cannot be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        std::fs::read(path).map(Self::new).map_err(|source| Error::Page { path: path.to_owned(), source })
    }

    /// The response to a `GET` of the page, while the count is `likes`; 304 where the client has these very bytes.
    /// `ancestors` may show it in a frame, besides pages of its own origin.
    pub(crate) fn answer(&self, likes: u64, ancestors: Option<&str>, fields: &HeaderMap) -> Response {
        let bytes = self.bytes_with(likes);
        let own = ancestors.is_none();
        let ancestors = format!("frame-ancestors {}", ancestors.unwrap_or("'self'"));
        let mut response = tagged("text/html; charset=utf-8", bytes, fields).field("Referrer-Policy", "same-origin");
        if own {
            response = response.field("X-Frame-Options", "SAMEORIGIN"); // it has no word for others
        }
        match self.policy {
            Some(policy) => response.field("Content-Security-Policy", format!("{policy}; {ancestors}")),
            None if own => response,
            None => response.field("Content-Security-Policy", ancestors),
        }
    }

    fn bytes_with(&self, likes: u64) -> Vec<u8> {
        let Some(count) = self.count.clone() else { return self.bytes.clone() };
        let likes = if self.policy.is_some() { grouped(likes) } else { likes.to_string() };
        [&self.bytes[..count.start], likes.as_bytes(), &self.bytes[count.end..]].concat()
    }
}

/// The response to a `GET` of the module, which pages of any origin may load.
pub(crate) fn module(fields: &HeaderMap) -> Response {
    let kind = "text/javascript; charset=utf-8";
    let response = if takes_gzip(fields) {
        let response = tagged(kind, COMPRESSED_MODULE, fields);
        if response.status == 304 { response } else { response.field("Content-Encoding", "gzip") }
    } else {
        tagged(kind, MODULE, fields)
    };
    response
        .field("Vary", "Accept-Encoding")
        .field("Access-Control-Allow-Origin", "*")
        .field("Cross-Origin-Resource-Policy", "cross-origin")
}

/// What clients may keep as long as they ask whether it has changed; 304 where a client has these very bytes.
fn tagged(kind: &'static str, bytes: impl Into<Vec<u8>>, fields: &HeaderMap) -> Response {
    let bytes = bytes.into();
    let tag = format!("\"{}\"", STANDARD.encode(Sha1::digest(&bytes)));
    // The weak comparison, as RFC 9110 section 13.1.2 asks for.
    let known = list(fields, IF_NONE_MATCH)
        .any(|other| other == b"*" || other.strip_prefix(b"W/").unwrap_or(other) == tag.as_bytes());
    let response = Response::new(if known { 304 } else { 200 }).field("ETag", tag).field("Cache-Control", "no-cache");
    if known { response } else { response.body(kind, bytes) }
}

/// Whether a client takes gzip, and nothing else rather (RFC 9110 section 12.5.3).
fn takes_gzip(fields: &HeaderMap) -> bool {
    let weight = |coding| weight(fields, ACCEPT_ENCODING, coding);
    let gzip = weight("gzip").or(weight("x-gzip")).or(weight("*")).unwrap_or(0.0);
    gzip > 0.0 && gzip >= weight("identity").unwrap_or(0.0)
}

/// The response to a `GET` of the icon, which changes with the program at most.
pub(crate) fn icon() -> Response {
    Response::new(200).body("image/svg+xml", ICON).field("Cache-Control", "public, max-age=86400")
}

/// A number in English, with a comma before every three digits.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(26);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl Default for Page {
    /// The built-in page.
    fn default() -> Self {
        Self::new(BUILT_IN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::Sha256;

    #[test]
    fn the_built_in_page_s_policy_names_its_script_and_its_style_by_their_hashes() {
        for (kind, name) in [("script", "script-src"), ("style", "style-src")] {
            let (_, rest) = BUILT_IN.split_once(&format!("<{kind}>")).unwrap();
            let (inside, rest) = rest.split_once(&format!("</{kind}>")).unwrap();
            assert!(!rest.contains(&format!("<{kind}")), "one {kind} alone");
            let hash = format!("{name} 'sha256-{}'", STANDARD.encode(Sha256::digest(inside)));
            assert!(POLICY.contains(&hash), "{POLICY} should contain {hash}");
        }
        assert!(!POLICY.contains("unsafe"));
    }

    #[test]
    fn only_the_built_in_page_has_a_policy_wherever_its_bytes_come_from() {
        assert!(Page::default().policy.is_some());
        assert!(Page::new(BUILT_IN).policy.is_some());
        assert!(Page::new(format!("{BUILT_IN} ")).policy.is_none());
    }

    #[test]
    fn the_count_stands_between_the_marks() {
        let served = |page: &str, likes| String::from_utf8(Page::new(page).bytes_with(likes)).unwrap();
        assert_eq!(served("a<!--likes-->16<!--/likes-->b", 17), "a<!--likes-->17<!--/likes-->b");
        assert_eq!(served("<!--likes--><!--/likes-->", u64::MAX), "<!--likes-->18446744073709551615<!--/likes-->");
    }

    #[test]
    fn the_built_in_page_has_the_thousands_apart() {
        for (likes, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (u64::MAX, "18,446,744,073,709,551,615")] {
            let page = String::from_utf8(Page::default().bytes_with(likes)).unwrap();
            assert!(page.contains(&format!("<!--likes-->{text}<!--/likes-->")), "{likes}");
        }
    }

    #[test]
    fn a_page_without_both_marks_is_served_as_it_is() {
        for page in ["", "plain", "a<!--likes-->16", "a<!--/likes-->16<!--likes-->", "16<!--/likes-->"] {
            assert_eq!(Page::new(page).bytes_with(17), page.as_bytes());
        }
    }

    #[test]
    fn the_module_is_compressed_where_the_client_takes_that() {
        for (lines, is_compressed) in [
            (&[][..], false),
            (&[""], false),
            (&["gzip"], true),
            (&["GZip, deflate, br, zstd"], true),
            (&["br;q=1.0, gzip;q=0.8, *;q=0.1"], true),
            (&["br", "gzip; q=0.001"], true),
            (&["x-gzip"], true),
            (&["*"], true),
            (&["br, *;q=0.5"], true),
            (&["gzip;q=0"], false),
            (&["gzip;q=0.000, *"], false),
            (&["*;q=0"], false),
            (&["br, deflate"], false),
            (&["identity"], false),
            (&["identity, gzip;q=0.5"], false),
            (&["identity;q=0.5, gzip"], true),
        ] {
            let fields = lines.iter().map(|line| (ACCEPT_ENCODING, line.parse().unwrap()));
            assert_eq!(takes_gzip(&fields.collect()), is_compressed, "{lines:?}");
        }
    }

    #[test]
    fn the_tag_is_the_sha1_of_the_bytes_and_answers_304() {
        let page = Page::new("hello");
        let status = |lines: &[&str]| {
            let lines = lines.iter().map(|line| (IF_NONE_MATCH, line.parse().unwrap()));
            page.answer(1, None, &lines.collect()).status
        };
        let tag = "\"qvTGHdzF6KLavt4PO0gs2a6pQ00=\"";
        assert_eq!(status(&[]), 200);
        assert_eq!(status(&[tag]), 304);
        assert_eq!(status(&[&format!("\"x\", W/{tag}")]), 304);
        assert_eq!(status(&["\"x\"", tag]), 304);
        assert_eq!(status(&["*"]), 304);
        assert_eq!(status(&["\"x\""]), 200);
        assert_eq!(status(&["qvTGHdzF6KLavt4PO0gs2a6pQ00="]), 200);
    }
}

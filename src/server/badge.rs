//! The count of a post as a picture: for a README or a feed, where no script runs.

use crate::{http::response::Response, server::page::grouped, store::change::Post};

/// Short names of a thousand and its powers.
const POWERS: [&str; 7] = ["", "K", "M", "B", "T", "Qa", "Qi"];

/// What the heart and the space around the number take.
const MARGINS: usize = 36;

/// As wide as a digit of the font, in which the number is stretched to fit.
const DIGIT: usize = 7;

/// The response with a picture, which a page of any other site may show.
pub(crate) fn response(post: &Post, likes: u64) -> Response {
    Response::new(200)
        .body("image/svg+xml", picture(post, likes))
        .field("Cache-Control", "public, max-age=60")
        .field("Cross-Origin-Resource-Policy", "cross-origin")
}

fn picture(post: &Post, likes: u64) -> String {
    let noun = if likes == 1 { "like" } else { "likes" };
    let of = if post.is_default() { String::new() } else { format!(" of {}", escaped(post.name())) };
    let (name, number) = (format!("{} {noun}{of}", grouped(likes)), compact(likes));
    let text = DIGIT * number.len();
    let width = MARGINS + text;
    let inner = width - 1; // of the middle of its border
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" aria-label="{name}"><title>{name}</title><rect x=".5" y=".5" width="{inner}" height="19" rx="4" fill="#fff" stroke="#c9c9c9"/><path d="M15 16 8.6 9.6a3.9 3.9 0 0 1 5.5-5.5l.9.9.9-.9a3.9 3.9 0 0 1 5.5 5.5z" fill="#c8102e"/><text x="28" y="14" textLength="{text}" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" fill="#222">{number}</text></svg>
"##
    )
}

/// A number in at most six characters, never more than it is: `1.2K`.
fn compact(number: u64) -> String {
    let power = number.checked_ilog(1000).unwrap_or(0);
    let (unit, name) = (1000_u64.pow(power), POWERS[power as usize]);
    let (whole, tenth) = (number / unit, number % unit * 10 / unit);
    if power > 0 && whole < 100 && tenth > 0 { format!("{whole}.{tenth}{name}") } else { format!("{whole}{name}") }
}

/// Text as it may stand in XML, where it stands for itself.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'), // XML knows no such characters
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_number_is_short_and_never_more_than_it_is() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1K"),
            (1099, "1K"),
            (1100, "1.1K"),
            (1999, "1.9K"),
            (99_999, "99.9K"),
            (100_000, "100K"),
            (999_999, "999K"),
            (1_000_000, "1M"),
            (1_250_000_000, "1.2B"),
            (1_000_000_000_000, "1T"),
            (12_300_000_000_000_000, "12.3Qa"),
            (u64::MAX, "18.4Qi"),
        ] {
            assert_eq!(compact(number), text);
        }
    }

    #[test]
    fn a_name_stands_for_itself_in_xml() {
        assert_eq!(escaped("a<b>&\"c\"'\u{ffff}é"), "a&lt;b&gt;&amp;&quot;c&quot;&#39;\u{fffd}é");
    }
}

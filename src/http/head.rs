//! Finds the end of a request head in bytes as they come.
//!
//! Each byte is looked at once, and the first that cannot stand in a head ends the search; so the result is the same
//! however the bytes are split, and a head that never ends costs no more than its limit.

use crate::{
    http::Refusal,
    http::request::{Request, RequestLine, is_token, request_line},
    limits::Limits,
};

/// Empty lines that are skipped before a request line; RFC 9112 section 2.2 asks for one at least.
const EMPTY_LINES: usize = 2;

/// The longest target that [`Uri`](::http::Uri) holds, whatever the limit says.
const LONGEST_TARGET: usize = 65_534;

/// Reads a request head.
#[derive(Debug, Default)]
pub(crate) struct HeadReader {
    /// Bytes looked at.
    at: usize,
    line_start: usize,
    empty_lines: usize,
    /// What the request line says, and where the fields begin, once it is over.
    line: Option<(RequestLine, usize)>,
    /// Complete lines after the request line.
    fields: usize,
    /// Where the target began, once the method is over.
    target_start: Option<usize>,
    target_over: bool,
}

impl HeadReader {
    /// Looks at the bytes that are new since the last call. `Some` holds the request, and the length of its head.
    pub(crate) fn read(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<(Request, usize)>, Refusal> {
        let allowed = &bytes[..bytes.len().min(limits.head_bytes)];
        while let Some(&byte) = allowed.get(self.at) {
            let after_cr = self.at > self.line_start && bytes[self.at - 1] == b'\r';
            self.at += 1;
            match byte {
                b'\n' if after_cr => {
                    let line = &bytes[self.line_start..self.at - 2];
                    if line.is_empty()
                        && let Some((line, start)) = self.line.take()
                    {
                        return Request::new(line, &bytes[start..self.at], self.fields).map(|it| Some((it, self.at)));
                    }
                    self.line_over(line, limits)?;
                    self.line_start = self.at;
                }
                b'\n' => return Err(Refusal::bad("a line ends in a bare LF; CR LF is expected")),
                _ if after_cr => return Err(Refusal::bad("a bare CR stands in the request head")),
                _ if self.line.is_none() => self.request_line_byte(byte, limits)?,
                b'\r' => {}
                // Of a field, only its end is looked for.
                _ => self.at += allowed[self.at..].iter().take_while(|byte| !matches!(byte, b'\r' | b'\n')).count(),
            }
        }
        if self.at >= limits.head_bytes { Err(self.too_long(bytes)) } else { Ok(None) }
    }

    /// Whether anything of a request has come, as opposed to empty lines before it.
    pub(crate) fn begun(&self) -> bool {
        self.at > self.line_start || self.line.is_some()
    }

    fn request_line_byte(&mut self, byte: u8, limits: &Limits) -> Result<(), Refusal> {
        let longest = limits.target_bytes.min(LONGEST_TARGET);
        match (byte, self.target_start) {
            (b' ', None) => self.target_start = Some(self.at),
            (b' ', Some(_)) => self.target_over = true,
            (b'\r', _) => {} // of the line's end, or judged by the next byte
            (_, Some(start)) if !self.target_over && self.at - start > longest => {
                return Err(Refusal::new(414, format!("the target is longer than {longest} bytes")));
            }
            _ => {}
        }
        Ok(())
    }

    /// A line has ended that does not end the head.
    fn line_over(&mut self, line: &[u8], limits: &Limits) -> Result<(), Refusal> {
        if self.line.is_some() {
            self.fields += 1;
            if self.fields > limits.headers {
                return Err(Refusal::new(431, format!("more than {} header fields", limits.headers)));
            }
        } else if line.is_empty() {
            self.empty_lines += 1;
            if self.empty_lines > EMPTY_LINES {
                return Err(Refusal::bad("empty lines stand where a request line is expected"));
            }
        } else {
            self.line = Some((request_line(line)?, self.at));
        }
        Ok(())
    }

    fn too_long(&self, bytes: &[u8]) -> Refusal {
        if self.target_over {
            Refusal::new(431, "the request head is too long")
        } else if self.target_start.is_some() {
            Refusal::new(414, "the target is too long")
        } else if bytes[self.line_start..self.at].iter().all(|byte| is_token(*byte)) {
            Refusal::new(501, "unknown method")
        } else {
            Refusal::bad("the request line is malformed")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body::{BodyReader, Framing};
    use ::http::{HeaderMap, HeaderName, Method, Version};
    use proptest::prelude::*;

    /// Reads a request out of bytes that come in these pieces: what it says and how many bytes it takes; why it is
    /// refused; or nothing, where it is not whole.
    fn read<'b>(
        pieces: impl IntoIterator<Item = &'b [u8]>,
        limits: &Limits,
    ) -> Result<Option<(Request, usize)>, Refusal> {
        let (mut head, mut buffer, mut begun) = (HeadReader::default(), Vec::new(), None);
        for piece in pieces {
            buffer.extend(piece);
            if begun.is_none()
                && let Some((request, length)) = head.read(&buffer, limits)?
            {
                let body = BodyReader::new(request.framing, limits)?;
                begun = Some((request, length, body));
            }
            if let Some((request, taken, body)) = &mut begun {
                *taken += body.take(&buffer[*taken..], |bytes| request.body.extend(bytes))?;
                if body.is_done() {
                    return Ok(Some((request.clone(), *taken)));
                }
            }
        }
        Ok(None)
    }

    fn whole(bytes: &[u8]) -> Result<Option<(Request, usize)>, Refusal> {
        read([bytes], &Limits::default())
    }

    #[test]
    fn a_request_says_what_it_says() {
        let head = b"\r\nPUT HTTP://Likes.Example:8080/like?a=b HTTP/1.3\r\nHOST: other.example\r\n\
            Origin: \t https://blog.example \r\nIf-None-Match: \"a\"\r\nIf-None-Match: W/\"b\"\r\n\
            Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nContent-Length: 003\r\nExpect: 100-Continue\r\n\r\nabcNEXT";
        let fields = [
            ("host", "other.example"),
            ("origin", "https://blog.example"),
            ("if-none-match", "\"a\""),
            ("if-none-match", "W/\"b\""),
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("content-length", "003"),
            ("expect", "100-Continue"),
        ];
        let fields = fields.map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        let request = Request {
            method: Method::PUT,
            target: "http://likes.example:8080/like?a=b".parse().unwrap(),
            version: Version::HTTP_11,
            fields: HeaderMap::from_iter(fields),
            host: Some("likes.example:8080".parse().unwrap()),
            forwarded_host: None,
            scheme: None,
            framing: Framing::Length(3),
            expects_continue: true,
            keep_alive: false,
            body: b"abc".to_vec(),
        };
        assert!(request.asks_for_websocket());
        assert_eq!((request.target.path(), request.target.query()), ("/like", Some("a=b")));
        assert_eq!(whole(head), Ok(Some((request, head.len() - b"NEXT".len()))));
    }

    #[test]
    fn the_verdict_is_the_same_wherever_the_bytes_are_split() {
        let limits = Limits::default();
        for (bytes, status) in [
            (&b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET"[..], 0),
            (b"\r\n\r\nGET / HTTP/1.0\r\n\r\n", 0),
            (b"\r\n\r\n\r\nGET", 400),
            (b"PUT /like HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n12345\r\n", 0),
            (b"PUT /like HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=\"y\"\r\n12345\r\n00\r\nX: y\r\n\r\n5", 0),
            (b"PUT /like HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n123456\r\n", 400),
            (b"PUT /like HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10001\r\n", 413),
            (b"PUT /like HTTP/1.1\r\nHost: a\r\nContent-Length: 65537\r\n\r\n", 413),
            (b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", 400),
            (b"GET / HTTP/2.0\r\n", 505),
            (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
            (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n", 417),
        ] {
            let expected = whole(bytes);
            assert_eq!(expected.as_ref().map_or_else(|refusal| refusal.status, |read| if read.is_some() { 0 } else { 1 }), status);
            for split in 0..=bytes.len() {
                let (first, second) = bytes.split_at(split);
                assert_eq!(read([first, second], &limits), expected, "{} at {split}", bytes.escape_ascii());
            }
            assert_eq!(read(bytes.chunks(1), &limits), expected, "{}", bytes.escape_ascii());
        }
    }

    // RFC 9110 section 5.5.
    #[test]
    fn a_control_character_is_found_wherever_it_stands_in_a_value() {
        for (byte, at) in (0..=255).flat_map(|byte| (0..40).map(move |at| (byte, at))) {
            let mut value = [b'x'; 40];
            value[at] = byte;
            let read = whole(&[b"GET / HTTP/1.1\r\nHost: a\r\nX: ", &value[..], b"\r\n\r\n"].concat());
            let fits = byte == b'\t' || byte >= 0x20 && byte != 0x7f;
            assert_eq!(read.is_ok(), fits, "{byte:#x} at {at}: {read:?}");
        }
    }

    /// Pieces of requests, such as one might be smuggled with.
    fn pieces() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let words: &[&[u8]] = &[
            b"GET / HTTP/1.1\r\nHost: a\r\n",
            b"PUT /like HTTP/1.1\r\nHost: a\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Content-Length: 5\r\n",
            b"GET",
            b" ",
            b"/",
            b"*",
            b"HTTP/1.1",
            b"HTTP/1.0",
            b"Host",
            b":",
            b"a",
            b"\r\n",
            b"\r",
            b"\n",
            b"\t",
            b"\r\n\r\n",
            b"Connection: Upgrade",
            b"Upgrade: websocket",
            b"Expect: 100-continue",
            b"0\r\n",
            b"5\r\n",
            b"12345\r\n",
            b";",
            b",",
            b"\0",
            b"\xff",
            b"http://a",
        ];
        let word = prop_oneof![
            4 => prop::sample::select(words).prop_map(<[u8]>::to_vec),
            1 => prop::collection::vec(any::<u8>(), 0..8),
        ];
        prop::collection::vec(word, 0..16)
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_the_same_in_any_pieces(
            pieces in pieces(), sizes in prop::collection::vec(1..12_usize, 1..20), most in 8..200_usize,
        ) {
            let mut limits = Limits::default();
            (limits.head_bytes, limits.target_bytes, limits.headers, limits.body_bytes) = (most, most / 4, 3, 9);
            let bytes = pieces.concat();
            let mut rest = bytes.as_slice();
            let mut sizes = sizes.iter().cycle();
            let split = std::iter::from_fn(|| {
                let (first, others) = rest.split_at((*sizes.next()?).min(rest.len()));
                rest = others;
                (!first.is_empty()).then_some(first)
            });
            let expected = read([bytes.as_slice()], &limits);
            prop_assert_eq!(&read(split, &limits), &expected);
            prop_assert_eq!(&read(bytes.chunks(1), &limits), &expected);
            // What has been read as a request takes no more of a longer stream.
            if let Ok(Some((_, taken))) = expected {
                prop_assert_eq!(read([&[&bytes[..taken], b"GET / HTTP/1.1\r\n"].concat()[..]], &limits), expected);
            }
        }
    }
}

//! Finds the end of a request's body in bytes as they come, and judges its form (RFC 9112 sections 6 and 7).

use crate::{http::Refusal, http::request::is_token, limits::Limits};

/// How the body of a request is framed. No body has length 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
}

/// Reads a body.
#[derive(Debug)]
pub(crate) struct BodyReader {
    next: Part,
    chunked: bool,
    /// Of the data that is next, bytes to come.
    left: u64,
    /// Of the line that is next, what has come.
    line: Vec<u8>,
    /// Bytes of data that further chunks may hold.
    allowed: u64,
    /// Bytes of chunk sizes, extensions and trailers that may still come.
    overhead: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Data,
    /// The line that ends a chunk's data.
    AfterData,
    /// The line of a chunk's size.
    Size,
    /// The line of a trailer field, or the empty one after the last.
    Trailer,
    Nothing,
}

impl BodyReader {
    /// Begins a body.
    ///
    /// # Errors
    ///
    /// 413 where its length is past the limit.
    pub(crate) fn new(framing: Framing, limits: &Limits) -> Result<Self, Refusal> {
        let (next, left) = match framing {
            Framing::Length(0) => (Part::Nothing, 0),
            Framing::Length(length) if length > limits.body_bytes => return Err(too_long()),
            Framing::Length(length) => (Part::Data, length),
            Framing::Chunked => (Part::Size, 0),
        };
        let (chunked, line) = (framing == Framing::Chunked, Vec::new());
        Ok(Self { next, chunked, left, line, allowed: limits.body_bytes, overhead: limits.head_bytes })
    }

    pub(crate) fn is_done(&self) -> bool {
        self.next == Part::Nothing
    }

    /// Takes bytes as they come, and hands on what is content; returns how many belong to the body. It is done when
    /// [`is_done`](Self::is_done).
    pub(crate) fn take(&mut self, bytes: &[u8], mut content: impl FnMut(&[u8])) -> Result<usize, Refusal> {
        let mut rest = bytes;
        while let Some((byte, after)) = rest.split_first()
            && !self.is_done()
        {
            if self.next == Part::Data {
                let (data, after) = rest.split_at(rest.len().min(usize::try_from(self.left).unwrap_or(usize::MAX)));
                content(data);
                self.left -= data.len() as u64;
                if self.left == 0 {
                    self.next = if self.chunked { Part::AfterData } else { Part::Nothing };
                }
                rest = after;
                continue;
            }
            let too_much = || Refusal::new(431, "the chunk sizes and trailers are too long");
            self.overhead = self.overhead.checked_sub(1).ok_or_else(too_much)?;
            self.line.push(*byte);
            rest = after;
            match self.line[..] {
                [.., b'\r', b'\n'] => self.line_over()?,
                [.., b'\n'] | [.., b'\r', _] => {
                    return Err(Refusal::bad("a line of the chunked body does not end in CR LF"));
                }
                [first, ..] if self.next == Part::AfterData && first != b'\r' => {
                    return Err(Refusal::bad("a chunk is longer than its size"));
                }
                _ => {}
            }
        }
        Ok(bytes.len() - rest.len())
    }

    fn line_over(&mut self) -> Result<(), Refusal> {
        let line = std::mem::take(&mut self.line);
        self.next = match (self.next, line.strip_suffix(b"\r\n").unwrap_or(&line)) {
            (Part::Size, size) => match chunk_size(size)? {
                0 => Part::Trailer,
                size => {
                    self.allowed = self.allowed.checked_sub(size).ok_or_else(too_long)?;
                    self.left = size;
                    Part::Data
                }
            },
            (Part::Trailer, []) => Part::Nothing,
            (Part::Trailer, _) => {
                let field = httparse::parse_headers(&[&line[..], b"\r\n"].concat(), &mut [httparse::EMPTY_HEADER; 1])
                    .map(|status| status.is_complete());
                if field != Ok(true) {
                    return Err(Refusal::bad("a trailer field is malformed"));
                }
                Part::Trailer
            }
            _ => Part::Size,
        };
        Ok(())
    }
}

fn too_long() -> Refusal {
    Refusal::new(413, "the body is longer than the limit")
}

/// RFC 9112 section 7.1: a hexadecimal number, then perhaps extensions, which are ignored.
fn chunk_size(line: &[u8]) -> Result<u64, Refusal> {
    let (digits, mut rest) = line.split_at(line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count());
    let size = std::str::from_utf8(digits).ok().filter(|digits| digits.len() <= 16);
    let size = size.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let size = size.ok_or_else(|| Refusal::bad("a chunk's size is not a hexadecimal number of 1 to 16 digits"))?;
    while !rest.is_empty() {
        rest = after_extension(rest).ok_or_else(|| Refusal::bad("a chunk extension is malformed"))?;
    }
    Ok(size)
}

/// What follows a chunk extension, `;name` or `;name=value` (RFC 9112 section 7.1.1).
fn after_extension(line: &[u8]) -> Option<&[u8]> {
    let rest = after_token(after_space(after_space(line).strip_prefix(b";")?))?;
    match after_space(rest).strip_prefix(b"=").map(after_space) {
        None => Some(rest),
        Some([b'"', quoted @ ..]) => after_quoted(quoted),
        Some(value) => after_token(value),
    }
}

fn after_space(bytes: &[u8]) -> &[u8] {
    &bytes[bytes.iter().take_while(|byte| b" \t".contains(byte)).count()..]
}

fn after_token(bytes: &[u8]) -> Option<&[u8]> {
    let length = bytes.iter().take_while(|byte| is_token(**byte)).count();
    (length > 0).then(|| &bytes[length..])
}

/// What follows the rest of a quoted string (RFC 9110 section 5.6.4).
fn after_quoted(mut bytes: &[u8]) -> Option<&[u8]> {
    loop {
        bytes = match bytes {
            [b'"', rest @ ..] => return Some(rest),
            [b'\\', byte, rest @ ..] | [byte, rest @ ..] if *byte == b'\t' || !byte.is_ascii_control() => rest,
            _ => return None,
        }
    }
}

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
    state: State,
    /// Body bytes that may still come.
    allowed: u64,
    /// Bytes of chunk sizes, extensions and trailers that may still come.
    overhead: usize,
    /// The content, if it is kept.
    content: Option<Vec<u8>>,
}

#[derive(Debug)]
enum State {
    /// Bytes of data to come; in a chunked body, with the CR LF after them to come.
    Data {
        left: u64,
        chunked: bool,
    },
    /// Within the line after a chunk's data, the line of a chunk's size, or a trailer.
    Line {
        kind: Line,
        text: Vec<u8>,
    },
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    AfterData,
    Size,
    Trailer,
}

impl BodyReader {
    /// Begins a body.
    ///
    /// # Errors
    ///
    /// 413 where it says itself that it is too long.
    pub(crate) fn new(framing: Framing, limits: &Limits) -> Result<Self, Refusal> {
        let state = match framing {
            Framing::Length(0) => State::Done,
            Framing::Length(left) if left > limits.body_bytes => return Err(too_large(limits.body_bytes)),
            Framing::Length(left) => State::Data { left, chunked: false },
            Framing::Chunked => State::Line { kind: Line::Size, text: Vec::new() },
        };
        Ok(Self { state, allowed: limits.body_bytes, overhead: limits.head_bytes, content: None })
    }

    /// Has the content kept.
    pub(crate) fn keep(&mut self) {
        self.content = Some(Vec::new());
    }

    /// The content, as far as it was kept.
    pub(crate) fn into_content(self) -> Vec<u8> {
        self.content.unwrap_or_default()
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Takes bytes as they come; returns how many belong to the body. It is done when [`is_done`](Self::is_done).
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<usize, Refusal> {
        let mut taken = 0;
        while taken < bytes.len() && !self.is_done() {
            match &mut self.state {
                State::Done => {}
                State::Data { left, chunked } => {
                    let step = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - taken);
                    if let Some(content) = &mut self.content {
                        content.extend(&bytes[taken..taken + step]);
                    }
                    taken += step;
                    *left -= step as u64;
                    if *left == 0 {
                        self.state = match *chunked {
                            true => State::Line { kind: Line::AfterData, text: Vec::new() },
                            false => State::Done,
                        };
                    }
                }
                State::Line { kind, text } => {
                    let byte = bytes[taken];
                    taken += 1;
                    self.overhead = self
                        .overhead
                        .checked_sub(1)
                        .ok_or_else(|| Refusal::new(431, "the chunk sizes and trailers are too long"))?;
                    match (byte, text.last()) {
                        (b'\n', Some(b'\r')) => {
                            text.pop();
                            let (kind, text) = (*kind, std::mem::take(text));
                            self.line_over(kind, &text)?;
                        }
                        (b'\n', _) | (_, Some(b'\r')) => {
                            return Err(Refusal::bad("a line of the chunked body does not end in CR LF"));
                        }
                        (byte, _) if *kind == Line::AfterData && byte != b'\r' => {
                            return Err(Refusal::bad("a chunk is longer than its size"));
                        }
                        (byte, _) => text.push(byte),
                    }
                }
            }
        }
        Ok(taken)
    }

    fn line_over(&mut self, kind: Line, text: &[u8]) -> Result<(), Refusal> {
        self.state = match kind {
            Line::AfterData => State::Line { kind: Line::Size, text: Vec::new() },
            Line::Trailer if text.is_empty() => State::Done,
            Line::Trailer => {
                let mut storage = [httparse::EMPTY_HEADER; 1];
                let line = [text, b"\r\n\r\n"].concat();
                if !matches!(httparse::parse_headers(&line, &mut storage), Ok(httparse::Status::Complete(_))) {
                    return Err(Refusal::bad("a trailer field is malformed"));
                }
                State::Line { kind: Line::Trailer, text: Vec::new() }
            }
            Line::Size => match chunk_size(text)? {
                0 => State::Line { kind: Line::Trailer, text: Vec::new() },
                size => {
                    self.allowed = self.allowed.checked_sub(size).ok_or_else(|| too_large(self.allowed))?;
                    State::Data { left: size, chunked: true }
                }
            },
        };
        Ok(())
    }
}

fn too_large(most: u64) -> Refusal {
    Refusal::new(413, format!("the body is longer than {most} bytes; none is needed"))
}

/// RFC 9112 section 7.1: a hexadecimal number, then perhaps extensions, which are ignored.
fn chunk_size(line: &[u8]) -> Result<u64, Refusal> {
    let (digits, mut rest) = line.split_at(line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count());
    while !rest.is_empty() {
        rest = after_extension(rest).ok_or_else(|| Refusal::bad("a chunk extension is malformed"))?;
    }
    std::str::from_utf8(digits)
        .ok()
        .filter(|digits| digits.len() <= 16)
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or_else(|| Refusal::bad("a chunk's size is not a hexadecimal number"))
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

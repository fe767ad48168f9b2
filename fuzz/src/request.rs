//! Any bytes as a request.

use crate::{
    draw::Draw,
    http::{
        Refusal,
        body::{BodyReader, Framing},
        head::HeadReader,
        request::Request,
    },
    limits::Limits,
};
use httparse::{EMPTY_HEADER, Status};

/// Limits that a few hundred bytes reach.
pub(crate) fn narrow() -> Limits {
    let mut limits = Limits::default();
    (limits.head_bytes, limits.target_bytes, limits.headers, limits.body_bytes) = (400, 64, 8, 40);
    limits
}

/// What has been read of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) request: Request,
    /// Bytes of its head.
    pub(crate) head: usize,
    /// Bytes of its body, where that is whole.
    pub(crate) body: Result<Option<usize>, Refusal>,
}

/// What the checks need to know of a request.
impl Found {
    pub(crate) fn is(&self, method: &str) -> bool {
        self.request.method == method
    }

    pub(crate) fn path(&self) -> &str {
        self.request.target.path()
    }

    pub(crate) fn asks_to_upgrade(&self) -> bool {
        self.request.asks_for_websocket()
    }

    /// Such a body is not waited for.
    pub(crate) fn holds_back(&self) -> bool {
        self.request.framing != Framing::Length(0) && (self.request.expects_continue || self.asks_to_upgrade())
    }
}

/// Reads a request from bytes that come in these pieces, as a connection does.
pub(crate) fn find<'b>(pieces: impl IntoIterator<Item = &'b [u8]>, limits: &Limits) -> Result<Option<Found>, Refusal> {
    let (mut reader, mut buffer, mut begun) = (HeadReader::default(), Vec::new(), None);
    let (mut at, mut body) = (0, Ok(None));
    for piece in pieces {
        buffer.extend(piece);
        if begun.is_none()
            && let Some((request, head)) = reader.read(&buffer, limits)?
        {
            let drain = BodyReader::new(request.framing, limits)?;
            begun = Some((request, head, drain));
            at = head;
        }
        if let (Some((_, head, drain)), Ok(None)) = (&mut begun, &body) {
            body = drain.take(&buffer[at..], |_| ()).map(|taken| {
                at += taken;
                drain.is_done().then_some(at - *head)
            });
        }
    }
    Ok(begun.map(|(request, head, _)| Found { request, head, body }))
}

/// Requests: what bytes say does not depend on how they are split nor on what follows them; what is taken for a request
/// is one to httparse as well, and can be read in one way only; what is refused gets a status for that.
pub fn request(bytes: &[u8]) {
    let mut draw = Draw::from(bytes);
    for limits in [Limits::default(), narrow()] {
        let found = find([bytes], &limits);
        assert_eq!(find(bytes.chunks(1), &limits), found, "byte by byte");
        let pieces = draw.split(bytes, 8);
        assert_eq!(find(pieces.iter().copied(), &limits), found, "in pieces: {pieces:?}");
        let followed = |bytes: &[u8]| find([&[bytes, b"GET / HTTP/1.1\r\n"].concat()[..]], &limits);
        match &found {
            Err(refusal) => {
                assert!([400, 413, 414, 417, 431, 501, 505].contains(&refusal.status), "{refusal:?}");
                assert_eq!(followed(bytes), found, "with more behind it");
            }
            Ok(None) => {
                assert!(bytes.len() < limits.head_bytes, "it waits for a head that is too long");
                let start = bytes.iter().take_while(|byte| b"\r\n".contains(byte)).count();
                assert!(!bytes[start..].windows(4).any(|end| end == b"\r\n\r\n"), "it waits for more than a head");
            }
            Ok(Some(found)) => {
                accepted(found, bytes, &limits);
                if let Ok(Some(body)) = found.body {
                    let again = followed(&bytes[..found.head + body]);
                    assert_eq!(again.as_ref().ok(), Some(&Some(found.clone())), "{again:?}");
                }
            }
        }
    }
}

/// What must hold of a head that was taken for one, and of the body that was found behind it.
fn accepted(found: &Found, bytes: &[u8], limits: &Limits) {
    let (head, rest) = bytes.split_at(found.head);
    assert!(head.len() <= limits.head_bytes && head.ends_with(b"\r\n\r\n"), "{found:?}");
    let lines = head.windows(2).filter(|pair| pair == b"\r\n").count();
    let ends = head.iter().filter(|byte| b"\r\n".contains(byte)).count();
    assert_eq!(ends, 2 * lines, "a line that ends otherwise: {found:?}");

    // httparse knows of no higher minor version, which counts as 1.1 (RFC 9110 section 2.5).
    let mut known = head.to_vec();
    let start = head.iter().take_while(|byte| b"\r\n".contains(byte)).count();
    let minor = start + head[start..].iter().position(|byte| *byte == b'\r').expect("a line") - 1;
    assert!(head[minor].is_ascii_digit(), "{found:?}");
    known[minor] = known[minor].min(b'1');
    let mut storage = [EMPTY_HEADER; 64];
    let mut read = httparse::Request::new(&mut storage);
    assert_eq!(read.parse(&known), Ok(Status::Complete(head.len())), "{found:?}");
    let (method, target, minor) = (read.method.unwrap(), read.path.unwrap(), read.version.unwrap());
    assert!(read.headers.len() <= limits.headers && target.len() <= limits.target_bytes, "{found:?}");
    assert!(found.is(method), "{found:?}");
    match target.split('?').next() {
        Some(path) if path.starts_with('/') || path == "*" => assert_eq!(found.path(), path),
        _ => assert!(method == "CONNECT" || found.path() == "/" || target.contains(found.path()), "{found:?}"),
    }

    let all = |name| {
        let fields = read.headers.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
        fields.map(|field| field.value.trim_ascii()).collect::<Vec<_>>()
    };
    assert!(all("host").len() == 1 || all("host").is_empty() && minor == 0, "{found:?}");
    let length = match (&all("content-length")[..], &all("transfer-encoding")[..]) {
        ([], []) => Some(0),
        ([length], []) => {
            assert!(length.iter().all(u8::is_ascii_digit), "{found:?}");
            let length: u64 = str::from_utf8(length).unwrap().parse().unwrap();
            assert!(length <= limits.body_bytes, "{found:?}");
            usize::try_from(length).ok().filter(|length| *length <= rest.len())
        }
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") && minor == 1 => match found.body {
            Ok(Some(_)) => chunked(rest),
            _ => None,
        },
        _ => panic!("a body whose end is not certain: {found:?}"),
    };
    assert_eq!(found.body.clone().unwrap_or(None), length, "{:?}", found.body);
}

/// The length of a chunked body, as httparse reads its lines.
fn chunked(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let Ok(Status::Complete((line, size))) = httparse::parse_chunk_size(&bytes[at..]) else { return None };
        at += line;
        if size == 0 {
            let mut storage = vec![EMPTY_HEADER; bytes.len()];
            let Ok(Status::Complete((length, _))) = httparse::parse_headers(&bytes[at..], &mut storage) else {
                return None;
            };
            return Some(at + length);
        }
        at += usize::try_from(size).ok()?;
        bytes.get(at..)?.strip_prefix(b"\r\n")?;
        at += 2;
    }
}

//! What must hold of any request, message or database whatever, as functions that panic where it does not. No part of
//! the library's promises.
//!
//! `.ci/fuzz` looks for bytes that break one, and the tests replay all that was found or made by hand, in
//! `fuzz/corpus`. A file there is what comes from outside, byte for byte. What a function needs beyond that (where to
//! split it, how many likes to add) it draws from the same bytes, so that a file always asks the same.
//!
//! Each has a second reader to hold the server's against: simpler, slower, and by other means. That is the price:
//! what the server may refuse stands twice, and a new rule must be told to both.

use crate::{
    error::Error,
    http::drain::Drain,
    http::request::{Body, Method, Reject, Request, is_token, parse},
    http::scanner::Scanner,
    limits::Limits,
    store::{Store, text::FileStore},
    websocket::ClientMessage,
};
use serde_json::value::RawValue;
use std::{
    collections::BTreeMap,
    fs,
    net::Ipv6Addr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

/// Numbers drawn from bytes: the same bytes, the same numbers.
pub(crate) struct Draw(u64);

impl Draw {
    pub(crate) fn from(bytes: &[u8]) -> Self {
        // FNV-1a, so that a change of any byte changes all that is drawn.
        Self(
            bytes
                .iter()
                .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)),
        )
    }

    /// SplitMix64.
    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number up to `most`.
    pub(crate) fn up_to(&mut self, most: usize) -> usize {
        (self.number() % (most as u64 + 1)) as usize
    }

    /// The bytes in `most` pieces at most, none of them empty.
    pub(crate) fn split<'b>(&mut self, bytes: &'b [u8], most: usize) -> Vec<&'b [u8]> {
        let mut ends: Vec<_> = (0..self.up_to(most - 1)).map(|_| self.up_to(bytes.len())).collect();
        ends.push(bytes.len());
        ends.sort_unstable();
        let mut start = 0;
        let pieces = ends.into_iter().map(|end| &bytes[std::mem::replace(&mut start, end)..end]);
        pieces.filter(|piece| !piece.is_empty()).collect()
    }
}

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
    pub(crate) body: Result<Option<usize>, Reject>,
}

/// Reads a request from bytes that come in these pieces, as a connection does.
pub(crate) fn find<'b>(pieces: impl IntoIterator<Item = &'b [u8]>, limits: &Limits) -> Result<Option<Found>, Reject> {
    let (mut scanner, mut buffer, mut begun) = (Scanner::default(), Vec::new(), None);
    let (mut at, mut body) = (0, Ok(None));
    for piece in pieces {
        buffer.extend(piece);
        if begun.is_none()
            && let Some(head) = scanner.scan(&buffer, limits)?
        {
            let request = parse(&buffer[..head], limits)?;
            let drain = Drain::new(request.body, limits)?;
            begun = Some((request, head, drain));
            at = head;
        }
        if let (Some((_, head, drain)), Ok(None)) = (&mut begun, &body) {
            body = drain.take(&buffer[at..]).map(|taken| {
                at += taken;
                drain.is_done().then_some(at - *head)
            });
        }
    }
    Ok(begun.map(|(request, head, _)| Found { request, head, body }))
}

/// Requests: what bytes say does not depend on how they are split nor on what follows them, and is what a second
/// reader makes of them; one that is refused has given a reason for just that answer.
pub fn request(bytes: &[u8]) {
    let mut draw = Draw::from(bytes);
    for limits in [Limits::default(), narrow()] {
        let found = find([bytes], &limits);
        assert_eq!(find(bytes.chunks(1), &limits), found, "byte by byte");
        let pieces = draw.split(bytes, 8);
        assert_eq!(find(pieces.iter().copied(), &limits), found, "in pieces: {pieces:?}");

        let second = SecondReader::read(bytes, &limits);
        match &found {
            Err(reject) => {
                assert!(second.reasons.contains(&reject.status), "refused without a reason: {reject:?}, {second:?}");
            }
            Ok(None) => {
                assert_eq!((second.head, second.reasons), (None, vec![]), "waits for more");
            }
            Ok(Some(found)) => {
                assert_eq!((second.head, &second.reasons), (Some(found.head), &vec![]), "{found:?}");
                second.agrees_with(&found.request);
                let rest = &bytes[found.head..];
                let body = match found.request.body {
                    Body::None => Some(0),
                    Body::Length(length) => usize::try_from(length).ok().filter(|length| *length <= rest.len()),
                    Body::Chunked => chunked(rest, &limits),
                };
                assert_eq!(found.body.clone().unwrap_or(None), body, "{:?}", found.body);
                if let Some(body) = body {
                    let taken = &bytes[..found.head + body];
                    let again = find([&[taken, b"GET / HTTP/1.1\r\n"].concat()[..]], &limits);
                    assert_eq!(again.as_ref().ok(), Some(&Some(found.clone())), "{again:?}");
                }
            }
        }
    }
}

/// What another reader makes of a head: httparse's reading of a whole request, of which the server uses only the
/// part for fields, and the rules of RFC 9112 beyond that.
#[derive(Debug)]
struct SecondReader {
    head: Option<usize>,
    /// The answers that it has given a reason for.
    reasons: Vec<u16>,
    method: String,
    target: String,
    minor: u8,
    fields: Vec<(String, Vec<u8>)>,
}

impl SecondReader {
    fn read(bytes: &[u8], limits: &Limits) -> Self {
        let mut start = 0;
        while bytes[start..].starts_with(b"\r\n") {
            start += 2;
        }
        let head = position(&bytes[start..], b"\r\n\r\n").map(|at| start + at + 4);
        let mut reader = Self {
            head,
            reasons: Vec::new(),
            method: String::new(),
            target: String::new(),
            minor: 1,
            fields: Vec::new(),
        };
        let bytes = &bytes[..head.unwrap_or(bytes.len())];
        if start > 4 {
            reader.reasons.push(400);
            start = 4;
        }
        let bare = |(at, byte): (usize, &u8)| match byte {
            b'\n' => at == 0 || bytes[at - 1] != b'\r',
            b'\r' => bytes.get(at + 1).is_some_and(|next| *next != b'\n'),
            _ => false,
        };
        if bytes.iter().enumerate().any(bare) {
            reader.reasons.push(400);
        }
        if bytes.len() + usize::from(head.is_none()) > limits.head_bytes {
            let seen = &bytes[start.min(limits.head_bytes)..limits.head_bytes];
            let line_over = position(seen, b"\r\n").is_some();
            match seen.iter().filter(|byte| **byte == b' ').count() {
                0 if !line_over => reader.reasons.extend([400, 501]),
                1 if !line_over => reader.reasons.push(414),
                _ => reader.reasons.push(431),
            }
        }
        reader.read_lines(&bytes[start..], limits);
        reader
    }

    /// Reads a head without the empty lines before it, or the beginning of one.
    fn read_lines(&mut self, bytes: &[u8], limits: &Limits) {
        let end = position(bytes, b"\r\n");
        let line = &bytes[..end.unwrap_or(bytes.len())];
        let target = line.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        if target.len() > limits.target_bytes {
            self.reasons.push(414);
        }
        let Some(end) = end else { return };
        // httparse knows of no other version; a higher minor one counts as 1.1 (RFC 9110 section 2.5).
        let mut known = bytes.to_vec();
        if let [start @ .., b'H', b'T', b'T', b'P', b'/', major @ b'0'..=b'9', b'.', b'0'..=b'9'] = line {
            match major {
                b'1' if line[line.len() - 1] > b'1' => known[end - 1] = b'1',
                b'1' => {}
                _ if start.last() == Some(&b' ') => self.reasons.push(505),
                _ => {}
            }
        }
        let line = [&known[..end], b"\r\n\r\n"].concat();
        let mut request = httparse::Request::new(&mut []);
        if !matches!(request.parse(&line), Ok(httparse::Status::Complete(_)))
            || !target.is_ascii()
            || target.contains(&b'#')
        {
            self.reasons.push(400);
        }
        self.method = request.method.unwrap_or_default().to_owned();
        self.target = request.path.unwrap_or_default().to_owned();
        self.minor = request.version.unwrap_or(1);

        let whole_lines = bytes.windows(2).filter(|pair| pair == b"\r\n").count();
        if whole_lines - 1 - usize::from(self.head.is_some()) > limits.headers {
            self.reasons.push(431);
        }
        if self.head.is_some() && self.reasons.is_empty() {
            let mut storage = [httparse::EMPTY_HEADER; 64];
            let mut request = httparse::Request::new(&mut storage);
            match request.parse(&known) {
                Ok(httparse::Status::Complete(length)) if length == known.len() => {
                    let field = |field: &httparse::Header<'_>| (field.name.to_lowercase(), field.value.to_vec());
                    self.fields = request.headers.iter().map(field).collect();
                    self.judge(limits);
                }
                _ => self.reasons.push(400),
            }
        }
    }

    fn all(&self, name: &str) -> Vec<&[u8]> {
        self.fields.iter().filter(|field| field.0 == name).map(|field| field.1.trim_ascii()).collect()
    }

    /// The members of a list, in lower case (RFC 9110 section 5.6.1).
    fn list(&self, name: &str) -> Vec<String> {
        let lines = self.all(name).join(&b","[..]);
        let members = lines.split(|byte| *byte == b',');
        members.map(|member| String::from_utf8_lossy(member.trim_ascii()).to_ascii_lowercase()).collect()
    }

    /// The rules beyond the form of a head.
    fn judge(&mut self, limits: &Limits) {
        let mut reasons = Vec::new();
        match self.all("host")[..] {
            [] if self.minor == 0 => {}
            [host] if is_host(host) => {}
            _ => reasons.push(400),
        }
        match self.target.as_str() {
            target if target.starts_with('/') => {}
            "*" if self.method == "OPTIONS" => {}
            "*" => reasons.push(400),
            _ if self.method == "CONNECT" || self.absolute().is_some_and(|(host, _)| is_host(host.as_bytes())) => {}
            _ => reasons.push(400),
        }
        let (lengths, codings) = (self.all("content-length"), self.list("transfer-encoding"));
        let coded = !self.all("transfer-encoding").is_empty();
        match lengths[..] {
            [] => {}
            _ if coded => reasons.push(400),
            [length] => match number(length) {
                Some(length) if length > limits.body_bytes => reasons.push(413),
                Some(_) => {}
                None => reasons.push(400),
            },
            _ => reasons.push(400),
        }
        if coded && codings != ["chunked"] {
            reasons.extend([400, 501]);
        }
        if coded && self.minor == 0 || self.all("origin").len() > 1 {
            reasons.push(400);
        }
        if self.minor == 1
            && self.all("expect").first().is_some_and(|value| !value.eq_ignore_ascii_case(b"100-continue"))
        {
            reasons.push(417);
        }
        self.reasons = reasons;
    }

    /// Of `http://host/path`, the host and what follows it.
    fn absolute(&self) -> Option<(&str, &str)> {
        let (scheme, rest) = self.target.split_once("://")?;
        let known = ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
        known.then(|| rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len())))
    }

    fn agrees_with(&self, request: &Request) {
        let method = match self.method.as_str() {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "PUT" => Method::Put,
            "POST" => Method::Post,
            "OPTIONS" => Method::Options,
            "DELETE" | "PATCH" | "TRACE" => Method::Other,
            _ => Method::Unknown,
        };
        assert_eq!((request.method, request.minor), (method, self.minor), "{request:?}");

        let field = self.all("host").first().map(|host| String::from_utf8_lossy(host).into_owned());
        let (path, host) = match (self.target.as_str(), self.absolute()) {
            (target, _) if target.starts_with('/') || target == "*" => (target, field),
            _ if self.method == "CONNECT" => ("", field),
            (_, Some((host, path))) if path.starts_with('/') => (path, Some(host.to_owned())),
            (_, Some((host, _))) => ("/", Some(host.to_owned())),
            (_, None) => panic!("it leads nowhere: {self:?}"),
        };
        assert_eq!(Some(request.path.as_str()), path.split('?').next(), "{self:?}");

        let read = request.host.as_ref().map(|host| match host.port {
            Some(port) => format!("{}:{port}", host.host),
            None => host.host.clone(),
        });
        // A port may be empty, or have zeros before it.
        let plain = |host: String| match host.rsplit_once(':') {
            Some((name, port)) if !port.contains(']') => match port.trim_start_matches('0') {
                "" if port.is_empty() => name.to_owned(),
                "" => format!("{name}:0"),
                port => format!("{name}:{port}"),
            },
            _ => host,
        };
        assert_eq!(read, host.map(|host| plain(host.to_ascii_lowercase())), "{self:?}");

        let body = match (self.all("content-length").first(), self.all("transfer-encoding").first()) {
            (Some(length), _) => number(length).map(Body::Length),
            (None, Some(_)) => Some(Body::Chunked),
            (None, None) => Some(Body::None),
        };
        assert_eq!(Some(request.body), body);
        let has = |name, member: &str| self.list(name).iter().any(|found| found == member);
        assert_eq!(request.keep_alive, self.minor == 1 && !has("connection", "close"), "{self:?}");
        assert_eq!(request.handshake.asked, has("upgrade", "websocket") && has("connection", "upgrade"), "{self:?}");
        assert_eq!(request.expects_continue, self.minor == 1 && has("expect", "100-continue"), "{self:?}");
    }
}

/// A host with an optional port, RFC 9112 section 3.2 and RFC 3986 section 3.2.2.
fn is_host(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (text, ""),
    };
    let is_name = match name.strip_prefix('[') {
        Some(address) => address.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-._~%!$&'()*+;=".contains(c)),
    };
    is_name && (port.is_empty() || number(port.as_bytes()).is_some_and(|port| port <= 65535))
}

/// The length of a chunked body, if it is whole, well-formed and within the limits (RFC 9112 section 7.1).
fn chunked(bytes: &[u8], limits: &Limits) -> Option<usize> {
    let (mut at, mut data) = (0, 0_u64);
    // The line after so many bytes, and where the one after it begins.
    let mut line_after = |skip: usize| {
        at += skip;
        let length = position(bytes.get(at..)?, b"\r\n")?;
        let line = &bytes[at..at + length];
        at += length + 2;
        (!line.contains(&b'\r') && !line.contains(&b'\n')).then_some((line, at))
    };
    let is_text = |bytes: &[u8]| bytes.iter().all(|byte| *byte == b'\t' || *byte >= b' ' && *byte != 0x7f);
    loop {
        let (line, _) = line_after(0)?;
        let (size, rest) = line.split_at(line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count());
        let is_extension = rest.trim_ascii_start().starts_with(b";") && is_text(rest);
        if size.len() > 16 || !rest.is_empty() && !is_extension {
            return None;
        }
        let size = u64::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
        data = data.checked_add(size).filter(|data| *data <= limits.body_bytes)?;
        if size == 0 {
            break;
        }
        let (after, _) = line_after(usize::try_from(size).ok()?)?;
        if !after.is_empty() {
            return None;
        }
    }
    loop {
        let (trailer, end) = line_after(0)?;
        if trailer.is_empty() {
            return (end as u64 - data <= limits.head_bytes as u64).then_some(end);
        }
        let colon = trailer.iter().position(|byte| *byte == b':')?;
        let (name, value) = trailer.split_at(colon);
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) || !is_text(value) {
            return None;
        }
    }
}

fn position(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// Digits and nothing else, up to the largest number there is.
fn number(digits: &[u8]) -> Option<u64> {
    digits
        .iter()
        .try_fold(0_u64, |number, digit| match digit {
            b'0'..=b'9' => number.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
            _ => None,
        })
        .filter(|_| !digits.is_empty())
}

/// Messages: a like is what a JSON library takes for one.
pub fn message(bytes: &[u8]) {
    // Other bytes do not come this far.
    let text = String::from_utf8_lossy(bytes);
    assert_eq!(ClientMessage::parse(&text).is_ok(), library_says(&text), "{text:?}");
}

fn library_says(text: &str) -> bool {
    // A browser takes half a surrogate pair, the library's strings cannot hold one; another letter means as little.
    let mut bytes = text.as_bytes().to_vec();
    for at in 3..bytes.len() {
        if bytes[at - 3..].starts_with(b"\\u") && bytes[at - 1].eq_ignore_ascii_case(&b'd') && bytes[at] >= b'8' {
            bytes[at - 1] = b'e';
        }
    }
    let text = String::from_utf8(bytes).expect("one ASCII letter takes the place of another");
    // Values as they stand: a number that is too large for the library is one all the same.
    let object = serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(&text);
    text.trim_matches([' ', '\t', '\n', '\r']) == "like"
        || object.is_ok_and(|object| {
            let kind = object.get("type").map(|kind| serde_json::from_str::<String>(kind.get()));
            kind.is_some_and(|kind| kind.is_ok_and(|kind| kind == "like"))
        })
}

/// Databases: one number is taken for what it is, survives being added to, and anything else is refused and left as
/// it was.
pub fn database(bytes: &[u8]) {
    let folder = Folder::new();
    let (file, temporary) = (folder.0.join("db.txt"), folder.0.join("db.txt.tmp"));
    fs::write(&file, bytes).unwrap();
    let mut draw = Draw::from(bytes);
    if draw.up_to(1) == 0 {
        fs::write(&temporary, bytes).unwrap(); // as a crash would leave it
    }
    let space = |byte: &u8| b" \t\n\r\x0c".contains(byte);
    let start = bytes.iter().position(|byte| !space(byte)).unwrap_or(0);
    let end = bytes.iter().rposition(|byte| !space(byte)).map_or(0, |last| last + 1);
    let held = number(&bytes[start..end.max(start)]).filter(|_| bytes.len() <= 64);

    let mut store = match (FileStore::open(&file), held) {
        (Ok(store), Some(_)) => store,
        (Err(Error::Database { .. }), None) => return assert_eq!(fs::read(&file).unwrap(), bytes),
        (result, _) => panic!("{held:?} was read as {result:?}"),
    };
    let held = held.unwrap();
    assert_eq!(store.total(), held);
    assert_eq!(fs::read(&file).unwrap(), bytes);
    let likes = match draw.up_to(3) {
        0 => u64::MAX - held,
        1 => draw.number(),
        likes => likes as u64,
    };
    let (total, text) = match (store.add(likes), held.checked_add(likes)) {
        (Ok(total), Some(sum)) if total == sum => (sum, sum.to_string().into_bytes()),
        (Err(Error::Full), None) => (held, bytes.to_vec()),
        (result, _) => panic!("{held} and {likes} are {result:?}"),
    };
    assert_eq!(store.total(), total);
    assert_eq!(fs::read(&file).unwrap(), text);
    assert!(!temporary.exists());
    drop(store);
    assert_eq!(FileStore::open(&file).unwrap().total(), total);
}

/// A folder of one's own, in memory where there is such a thing; gone when this is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static FOLDERS: AtomicUsize = AtomicUsize::new(0);
        let name = format!("live-likes-fuzz-{}-{}", std::process::id(), FOLDERS.fetch_add(1, Ordering::Relaxed));
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { memory.join(name) } else { std::env::temp_dir().join(name) };
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Holds a function against all that was found for it, or made by hand.
    pub(crate) fn replay(target: &str, hold: fn(&[u8])) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let corpus = root.join("fuzz/corpus").join(target);
        let files = fs::read_dir(&corpus).unwrap_or_else(|e| panic!("{}: {e}", corpus.display()));
        let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        files.sort();
        assert!(files.len() >= 10, "{} holds {} files", corpus.display(), files.len());
        for file in files {
            println!("{}", file.display()); // shown where it fails
            hold(&fs::read(&file).unwrap());
        }
    }

    #[test]
    fn what_was_found_for_requests_holds() {
        replay("request", request);
    }

    #[test]
    fn what_was_found_for_messages_holds() {
        replay("message", message);
    }

    #[test]
    fn what_was_found_for_databases_holds() {
        replay("database", database);
    }
}

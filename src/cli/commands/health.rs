//! `health`: one request, for a container without a shell.

use super::{Invocation, Problem, say};
use http::Uri;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, socket};
use std::{
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};

/// How long all of it may take.
const WITHIN: Duration = Duration::from_secs(5);

/// Bytes of a head that are read.
const LONGEST: usize = 16 * 1024;

pub(super) fn run(given: &Invocation) -> Result<(), Problem> {
    let text = given.operands[0].as_str();
    let deadline = Instant::now() + WITHIN;
    let status = match text.strip_prefix("unix:") {
        Some(path) => connect_unix(path).and_then(|stream| ask(stream, "localhost", "/healthz", deadline)),
        None => ask_at(&url(text)?, deadline),
    };
    let status = status.map_err(|e| Problem::Failed(format!("{text} does not answer: {e}")))?;
    if status == 200 { say("ok") } else { Err(Problem::Failed(format!("{text} answers with {status}, and not 200"))) }
}

fn url(text: &str) -> Result<Uri, Problem> {
    let url = text.parse::<Uri>().ok().filter(|url| {
        // Not a name with a password: what would become of that?
        url.scheme_str() == Some("http") && url.authority().is_some_and(|name| !name.as_str().contains('@'))
    });
    url.ok_or_else(|| {
        let expected = "http://HOST:PORT, http://HOST:PORT/PATH or unix:FILE is expected";
        Problem::Usage(format!("invalid URL `{text}`: {expected}"))
    })
}

fn ask_at(url: &Uri, deadline: Instant) -> io::Result<u16> {
    let (host, port) = (url.host().unwrap_or_default(), url.port_u16().unwrap_or(80));
    let stream = connect(host.trim_start_matches('[').trim_end_matches(']'), port, deadline)?;
    let target = url.path_and_query().map(http::uri::PathAndQuery::as_str).filter(|&target| target != "/");
    ask(stream, url.authority().map_or("", http::uri::Authority::as_str), target.unwrap_or("/healthz"), deadline)
}

/// Asks, and returns the status of the response.
fn ask(mut stream: TcpStream, host: &str, target: &str, deadline: Instant) -> io::Result<u16> {
    stream.set_write_timeout(Some(left(deadline)?))?;
    let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut head = Vec::new();
    loop {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut fields);
        let whole = response.parse(&head).map_err(|e| io::Error::other(format!("no HTTP: {e}")))?;
        if let (true, Some(status)) = (whole.is_complete(), response.code) {
            return Ok(status);
        }
        if head.len() > LONGEST {
            return Err(io::Error::other("its head is too long"));
        }
        stream.set_read_timeout(Some(left(deadline)?))?;
        let mut bytes = [0; 1024];
        let read = stream.read(&mut bytes).map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => late(),
            _ => e,
        })?;
        if read == 0 {
            return Err(io::Error::other("it closed the connection"));
        }
        head.extend_from_slice(&bytes[..read]);
    }
}

/// Connects to a Unix socket, which is read and written as any other. It does not wait: while the server does not accept,
/// others may have filled its queue.
fn connect_unix(path: &str) -> io::Result<TcpStream> {
    let socket = socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::io::ioctl_fionbio(&socket, false)?;
    Ok(TcpStream::from(socket))
}

/// Tries each address of the name.
fn connect(host: &str, port: u16, deadline: Instant) -> io::Result<TcpStream> {
    let mut problem = io::Error::other("the name has no address");
    for addr in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&addr, left(deadline)?) {
            Ok(stream) => return Ok(stream),
            Err(e) => problem = e,
        }
    }
    Err(problem)
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(late()) } else { Ok(left) }
}

fn late() -> io::Error {
    io::Error::other(format!("nothing within {} s", WITHIN.as_secs()))
}

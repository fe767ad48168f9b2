//! `health`: one request, for a container without a shell.

use super::{Invocation, Problem, say};
use http::Uri;
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
    let url = text.parse::<Uri>().ok().filter(|url| {
        // Not a name with a password: what would become of that?
        url.scheme_str() == Some("http") && url.authority().is_some_and(|name| !name.as_str().contains('@'))
    });
    let invalid =
        || Problem::Usage(format!("invalid URL `{text}`: http://HOST:PORT or http://HOST:PORT/PATH is expected"));
    let url = url.ok_or_else(invalid)?;
    let status = ask(&url).map_err(|e| Problem::Failed(format!("{text} does not answer: {e}")))?;
    if status == 200 { say("ok") } else { Err(Problem::Failed(format!("{text} answers with {status}, and not 200"))) }
}

/// Asks, and returns the status of the response.
fn ask(url: &Uri) -> io::Result<u16> {
    let deadline = Instant::now() + WITHIN;
    let (host, port) = (url.host().unwrap_or_default(), url.port_u16().unwrap_or(80));
    let mut stream = connect(host.trim_start_matches('[').trim_end_matches(']'), port, deadline)?;
    let target = url.path_and_query().map(http::uri::PathAndQuery::as_str).filter(|&target| target != "/");
    let target = target.unwrap_or("/healthz");
    let authority = url.authority().map_or("", http::uri::Authority::as_str);
    stream.set_write_timeout(Some(left(deadline)?))?;
    let request = format!("GET {target} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
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

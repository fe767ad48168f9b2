//! Likes within a program that has an accept loop and a route of its own: `/hello` beside the page and its likes.
//!
//! ```sh
//! cargo run --example embed
//! ```

use live_likes::{Likes, Server, Service};
use std::{
    error::Error,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

/// How a request for the program's own route begins.
const OWN: &[u8] = b"GET /hello ";

fn main() -> Result<(), Box<dyn Error>> {
    let likes = Likes::open("db.txt")?;

    // The program hears every count too, like any page that is open.
    let counts = likes.subscribe();
    thread::spawn(move || counts.for_each(|count| println!("{count} likes")));

    let service = Server::new(likes).into_service()?;
    let listener = TcpListener::bind("127.0.0.1:3000")?;
    println!("http://localhost:3000/ and http://localhost:3000/hello");
    accept(&listener, &service);
    Ok(())
}

/// Gives each connection a thread, so that one that says nothing keeps nobody waiting.
pub fn accept(listener: &TcpListener, service: &Service) {
    for stream in listener.incoming() {
        let service = service.clone();
        let served = stream.and_then(|stream| thread::Builder::new().spawn(move || serve(stream, &service)));
        if let Err(e) = served {
            // No descriptor or no thread left, as a rule. The listener stays; some will end.
            eprintln!("cannot serve a connection: {e}");
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Hands a connection to the likes, unless its first request is for the program's own route.
fn serve(mut stream: TcpStream, service: &Service) {
    let mut read = Vec::new();
    match is_own(&mut stream, &mut read) {
        Ok(true) => _ = hello(&stream),
        // What has been read goes with it.
        Ok(false) => service.serve_after(stream, read),
        Err(_) => {}
    }
}

/// Reads until it is clear whose request this is: a peer may send it byte by byte, or never.
fn is_own(stream: &mut TcpStream, read: &mut Vec<u8>) -> io::Result<bool> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    while read.len() < OWN.len() && OWN.starts_with(read) {
        let mut bytes = [0; OWN.len()];
        match stream.read(&mut bytes)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => read.extend(&bytes[..length]),
        }
    }
    Ok(read.starts_with(OWN))
}

/// The program's own route. It reads the rest of the head first: what is left unread would break the answer off.
fn hello(mut stream: &TcpStream) -> io::Result<()> {
    for line in BufReader::new(stream.take(16 * 1024)).lines() {
        if line?.is_empty() {
            break;
        }
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n")
}

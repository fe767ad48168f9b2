//! A server that does what a test tells it to: late, rude or silent where the real one never is.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use tungstenite::protocol::CloseFrame;
use tungstenite::{Error, WebSocket};

use crate::browser::DEADLINE;

/// Serves the built-in page, and hands every WebSocket that the page opens to the test.
pub struct Puppet {
    address: SocketAddr,
    pub connections: Receiver<Connection>,
}

impl Puppet {
    pub fn start() -> Puppet {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let (accepted, connections) = mpsc::channel();
        // A thread a connection, because a browser also opens some that it never uses. They end with
        // the test's process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let accepted = accepted.clone();
                thread::spawn(move || {
                    serve(stream.expect("a connection"), |connection| drop(accepted.send(connection)))
                });
            }
        });
        Puppet { address, connections }
    }

    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Waits for the next WebSocket that the page opens.
    pub fn next(&self) -> Connection {
        self.connections.recv_timeout(DEADLINE).expect("the page connects")
    }
}

fn serve(mut stream: TcpStream, hand_over: impl Fn(Connection)) {
    let mut head = [0; 4096];
    let mut length = 0;
    while !head[..length].ends_with(b"\r\n\r\n") {
        match stream.peek(&mut head) {
            Ok(0) | Err(_) => return,
            Ok(seen) => length = seen,
        }
    }
    if head.starts_with(b"GET /liveLikes ") {
        stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        return hand_over(Connection { socket: tungstenite::accept(stream).expect("a handshake") });
    }
    let page = include_str!("../../index.html");
    let answer =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\r\n", page.len());
    let _ = stream.read(&mut head).and_then(|_| stream.write_all((answer + page).as_bytes()));
}

/// The server's end of one WebSocket.
pub struct Connection {
    pub socket: WebSocket<TcpStream>,
}

impl Connection {
    pub fn say(&mut self, text: &str) {
        self.socket.send(text.into()).expect("the page listens");
    }

    pub fn hear(&mut self) -> String {
        self.socket.read().expect("the page speaks").to_string()
    }

    /// Closes with a code and waits until the page has answered.
    pub fn shut(&mut self, code: u16) {
        let _ = self.socket.close(Some(CloseFrame { code: code.into(), reason: "".into() }));
        self.wait_for_its_end();
    }

    /// Waits until the page has let go of it.
    pub fn wait_for_its_end(&mut self) {
        let end = loop {
            if let Err(end) = self.socket.read() {
                break end;
            }
        };
        let late = matches!(&end, Error::Io(error) if error.kind() == ErrorKind::WouldBlock);
        assert!(!late, "the page keeps a connection for {DEADLINE:?}");
    }
}

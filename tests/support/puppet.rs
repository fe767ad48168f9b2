//! A server that does what a test tells it to: late, rude or silent where the real one never is.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};
use tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tungstenite::http::HeaderValue;
use tungstenite::protocol::CloseFrame;
use tungstenite::{Error, WebSocket};

use crate::browser::DEADLINE;

/// Serves the built-in page, and hands every WebSocket that the page opens to the test.
pub struct Puppet {
    address: SocketAddr,
    answers: Arc<Mutex<Answers>>,
    pub connections: Receiver<Connection>,
}

/// What HTTP requests are answered.
#[derive(Clone, Copy)]
pub struct Answers {
    /// `GET /likes`, with this count if it is 200.
    pub likes: (u16, u64),
    /// `OPTIONS /like`.
    pub like: u16,
    /// Of a request for a WebSocket, if none is to be had.
    pub websocket: Option<u16>,
}

impl Puppet {
    pub fn start() -> Puppet {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let (accepted, connections) = mpsc::channel();
        let answers = Arc::new(Mutex::new(Answers { likes: (200, 16), like: 204, websocket: None }));
        let given = answers.clone();
        // A thread a connection, because a browser also opens some that it never uses. They end with
        // the test's process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (accepted, given) = (accepted.clone(), given.clone());
                let serve = move || serve(stream.expect("a connection"), &given, |new| drop(accepted.send(new)));
                thread::spawn(serve);
            }
        });
        Puppet { address, answers, connections }
    }

    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// What HTTP requests are answered from now on.
    pub fn answer(&self, answers: Answers) {
        *self.answers.lock().expect("no panic") = answers;
    }

    /// Waits for the next WebSocket that the page opens.
    pub fn next(&self) -> Connection {
        self.connections.recv_timeout(DEADLINE).expect("the page connects")
    }

    /// The same, and hears what the page watches.
    pub fn next_watching(&self) -> Connection {
        let mut connection = self.next();
        let watch = connection.hear();
        assert_eq!((&watch["type"], watch.get("post")), (&json!("watch"), None));
        connection.visitor = watch["visitor"].as_str().expect("a visitor").into();
        connection
    }

    /// The same, and shows it a count: `liked` only if the store remembers visitors.
    pub fn next_joined(&self, boot: &str, count: u64, liked: Option<bool>) -> Connection {
        let mut connection = self.next_watching();
        let mut state = json!({ "type": "count", "numLikes": count, "version": count, "boot": boot });
        if let Some(liked) = liked {
            state["liked"] = liked.into();
        }
        connection.say(&state);
        connection
    }
}

fn serve(mut stream: TcpStream, answers: &Mutex<Answers>, hand_over: impl Fn(Connection)) {
    let mut head = [0; 4096];
    let mut length = 0;
    while !head[..length].ends_with(b"\r\n\r\n") {
        match stream.peek(&mut head) {
            Ok(0) | Err(_) => return,
            Ok(seen) => length = seen,
        }
    }
    let answers = *answers.lock().expect("no panic");
    let (status, kind, body) = match (head.starts_with(b"GET /liveLikes "), answers.websocket) {
        (true, None) => {
            stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
            let socket = tungstenite::accept_hdr(stream, agree).expect("a handshake");
            return hand_over(Connection { socket, visitor: String::new() });
        }
        (true, Some(status)) => (status, "text/plain", String::new()),
        _ if head.starts_with(b"OPTIONS /like ") => (answers.like, "text/plain", String::new()),
        _ if head.starts_with(b"GET /likes?visitor=") => {
            let (status, count) = answers.likes;
            (status, "application/json", json!({ "numLikes": count, "version": count }).to_string())
        }
        _ if head.starts_with(b"GET /live-likes.js ") => {
            (200, "text/javascript", include_str!("../../element/live-likes.js").into())
        }
        _ => (200, "text/html; charset=utf-8", include_str!("../../index.html").into()),
    };
    let length = if status == 204 { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let answer = format!("HTTP/1.1 {status} \r\nContent-Type: {kind}\r\n{length}Connection: close\r\n\r\n{body}");
    let _ = stream.read(&mut head).and_then(|_| stream.write_all(answer.as_bytes()));
}

/// Agrees on the subprotocol, as the page asks.
#[expect(clippy::result_large_err, reason = "tungstenite's callback")]
fn agree(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    let asked = request.headers().get("Sec-WebSocket-Protocol");
    assert_eq!(asked, Some(&HeaderValue::from_static("live-likes")));
    response.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("live-likes"));
    Ok(response)
}

/// The server's end of one WebSocket.
pub struct Connection {
    pub socket: WebSocket<TcpStream>,
    /// For whom the page watches.
    pub visitor: String,
}

impl Connection {
    pub fn say(&mut self, message: &Value) {
        self.socket.send(message.to_string().into()).expect("the page listens");
    }

    pub fn hear(&mut self) -> Value {
        let text = self.socket.read().expect("the page speaks").to_string();
        serde_json::from_str(&text).expect("the page speaks JSON")
    }

    /// Hears a like or an unlike.
    pub fn hear_change(&mut self, kind: &str) -> Value {
        let change = self.hear();
        assert_eq!(change["type"], kind, "{change}");
        change
    }

    /// Answers a change. `liked` is told only if the store remembers visitors.
    pub fn grant(&mut self, change: &Value, count: u64, liked: Option<bool>) {
        let mut answer = json!({ "type": "answer", "ref": change["ref"], "numLikes": count, "version": count });
        if let Some(liked) = liked {
            answer["liked"] = liked.into();
        }
        self.say(&answer);
    }

    pub fn refuse(&mut self, change: &Value, status: u16, problem: &str) {
        self.say(&json!({ "type": "refused", "ref": change["ref"], "status": status, "problem": problem }));
    }

    /// Hears the page's ping, and answers it.
    pub fn answer_ping(&mut self) {
        assert_eq!(self.hear(), json!({ "type": "ping" }));
        self.say(&json!({ "type": "pong" }));
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

//! A relay before the server that lets through what the test says, and counts what is open.

use std::{
    io::{self, BufRead, BufReader, Write, copy},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard},
    thread,
};

/// A relay to one server. It ends with the test's process.
pub struct Gate {
    pub addr: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// What is cut off at once.
    blocked: Vec<Kind>,
    /// What is open, and both its ends.
    open: Vec<(u64, Kind, [TcpStream; 2])>,
    /// The first lines of all requests, blocked ones too.
    requests: Vec<String>,
    next: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    WebSocket,
    Events,
    /// `GET /likes` for a count.
    Count,
    /// A like, an unlike, or the question whether they are allowed.
    Like,
    Other,
}

pub const ALL: [Kind; 5] = [Kind::WebSocket, Kind::Events, Kind::Count, Kind::Like, Kind::Other];

impl Gate {
    pub fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("its address");
        let state = Arc::<Mutex<State>>::default();
        let given = state.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, state) = (client.expect("a connection"), given.clone());
                // An end that comes early, as of a window that closes, is no fault.
                thread::spawn(move || drop(serve(client, to, &state)));
            }
        });
        Self { addr, state }
    }

    pub fn origin(&self) -> String {
        format!("http://localhost:{}", self.addr.port())
    }

    /// Lets these through no more, and ends those that are open.
    pub fn block(&self, kinds: &[Kind]) {
        let mut state = self.state();
        state.blocked = kinds.to_vec();
        for (_, _, ends) in state.open.iter().filter(|(_, kind, _)| kinds.contains(kind)) {
            ends.iter().for_each(|end| drop(end.shutdown(Shutdown::Both)));
        }
    }

    /// How many of a kind are open.
    pub fn open(&self, kind: Kind) -> usize {
        self.state().open.iter().filter(|(_, it, _)| *it == kind).count()
    }

    /// The first lines of the requests so far that hold this.
    pub fn requests(&self, part: &str) -> Vec<String> {
        self.state().requests.iter().filter(|line| line.contains(part)).cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }
}

/// One request, WebSocket or stream of a connection: then it is closed.
fn serve(mut client: TcpStream, to: SocketAddr, state: &Mutex<State>) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let (mut first, mut head, mut kind) = (String::new(), String::new(), Kind::Other);
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let lower = line.to_ascii_lowercase();
        match lower.split(':').next() {
            _ if line == "\r\n" => break,
            Some("connection") => continue,
            Some("upgrade") => kind = Kind::WebSocket,
            Some("accept") if lower.contains("text/event-stream") => kind = Kind::Events,
            _ => {}
        }
        head += &line;
    }
    kind = match first.split(['?', ' ']).nth(1) {
        Some("/like") => Kind::Like,
        Some("/likes") if kind == Kind::Other => Kind::Count,
        _ => kind,
    };
    let mut server = TcpStream::connect(to)?;
    let number = {
        let mut state = state.lock().expect("no panic");
        state.requests.push(first.trim_end().to_owned());
        if state.blocked.contains(&kind) {
            return Ok(());
        }
        state.next += 1;
        let number = state.next;
        state.open.push((number, kind, [client.try_clone()?, server.try_clone()?]));
        number
    };
    let connection = if kind == Kind::WebSocket { "Upgrade" } else { "close" };
    let relayed = server.write_all(format!("{first}{head}Connection: {connection}\r\n\r\n").as_bytes());
    let mut back = server.try_clone()?;
    let answers = thread::spawn(move || {
        let _ = copy(&mut back, &mut client);
        let _ = client.shutdown(Shutdown::Both);
    });
    if relayed.is_ok() {
        let _ = copy(&mut reader, &mut server);
    }
    let _ = server.shutdown(Shutdown::Both);
    let _ = answers.join();
    state.lock().expect("no panic").open.retain(|(other, ..)| *other != number);
    Ok(())
}

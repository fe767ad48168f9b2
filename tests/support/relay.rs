//! A proxy that takes a path off, as `location /counter/ { proxy_pass http://…/; }` does, and may change the host; or a
//! network that holds, delays and loses what it is given, and cuts connections.

use std::io::{BufRead, BufReader, Read, Write, copy};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

pub struct Relay {
    pub addr: SocketAddr,
    weather: Arc<Weather>,
}

/// What becomes of the bytes of WebSockets.
#[derive(Default)]
struct Weather {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Nothing goes through until this ends.
    holds: bool,
    /// Of a thousand pieces, so many are not passed on as they come.
    faults: u64,
    /// WebSockets are cut before they open; of event streams nothing comes back.
    blocks: (bool, bool),
    /// What has been drawn last (xorshift).
    drawn: u64,
}

enum Fate {
    Pass,
    Delay,
    /// It is lost, and the connection is cut.
    Cut,
    /// It is lost, and all that comes after it.
    Lose,
}

impl Weather {
    fn next(&self) -> Fate {
        let state = self.state.lock().expect("no panic");
        let mut state = self.changed.wait_while(state, |state| state.holds).expect("no panic");
        for shift in [13, -7, 17] {
            state.drawn ^= if shift > 0 { state.drawn << shift } else { state.drawn >> -shift };
        }
        let drawn = state.drawn % 1000;
        match (drawn < state.faults, drawn % 8) {
            (false, _) => Fate::Pass,
            (true, 0) => Fate::Lose,
            (true, 1..4) => Fate::Delay,
            (true, _) => Fate::Cut,
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().expect("no panic"));
        self.changed.notify_all();
    }
}

impl Relay {
    /// Starts one on a free port. It ends with the test's process.
    pub fn start(to: SocketAddr, path: &'static str, host: Option<String>) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("its address");
        let weather = Arc::new(Weather::default());
        let given = weather.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, host, weather) = (client.expect("a connection"), host.clone(), given.clone());
                thread::spawn(move || {
                    // An end that comes early, as of a window that closes, is no fault.
                    let _ = serve(client, to, path, host, &weather);
                });
            }
        });
        Relay { addr, weather }
    }

    /// From now on, of a thousand pieces of a WebSocket's, so many are delayed or lost.
    pub fn spoil(&self, faults: u64, seed: u64) {
        self.weather.change(|state| (state.faults, state.drawn) = (faults, seed));
    }

    /// From now on no WebSockets get through, and no event streams.
    pub fn block(&self, websockets: bool, streams: bool) {
        self.weather.change(|state| state.blocks = (websockets, streams));
    }

    /// From now on nothing of a WebSocket's goes through; or all that was held, and what comes.
    pub fn hold(&self, holds: bool) {
        self.weather.change(|state| state.holds = holds);
    }
}

/// One request, or one WebSocket, of each connection: then it is closed.
fn serve(
    mut client: TcpStream,
    to: SocketAddr,
    path: &str,
    host: Option<String>,
    weather: &Arc<Weather>,
) -> std::io::Result<()> {
    let mut server = TcpStream::connect(to)?;
    let mut reader = BufReader::new(client.try_clone()?);
    let (mut head, mut upgrade, mut stream) = (String::new(), false, false);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        match (&host, line.split_once(':').map(|(name, _)| name)) {
            _ if head.is_empty() => head += &line.replacen(&format!(" {path}/"), " /", 1),
            _ if line == "\r\n" => break,
            (Some(host), Some("Host")) => head += &format!("Host: {host}\r\n"),
            (_, Some("Upgrade")) => {
                upgrade = true;
                head += &line;
            }
            (_, Some("Connection")) => {}
            _ => {
                stream |= line.contains("text/event-stream");
                head += &line;
            }
        }
    }
    let blocks = weather.state.lock().expect("no panic").blocks;
    if upgrade && blocks.0 {
        return Ok(());
    }
    if stream && blocks.1 {
        let _ = copy(&mut reader, &mut std::io::sink()); // until the client gives up
        return Ok(());
    }
    head += if upgrade { "Connection: Upgrade\r\n\r\n" } else { "Connection: close\r\n\r\n" };
    server.write_all(head.as_bytes())?;
    let mut back = server.try_clone()?;
    let given = weather.clone();
    let answers = thread::spawn(move || {
        let _ = if upgrade { pass(&mut back, &mut client, &given) } else { copy(&mut back, &mut client).map(drop) };
        let _ = client.shutdown(Shutdown::Both);
    });
    let _ = if upgrade { pass(&mut reader, &mut server, weather) } else { copy(&mut reader, &mut server).map(drop) };
    let _ = server.shutdown(Shutdown::Both);
    let _ = answers.join();
    Ok(())
}

/// Passes on what comes, piece by piece, as the weather is.
fn pass(from: &mut impl Read, to: &mut TcpStream, weather: &Weather) -> std::io::Result<()> {
    let mut piece = [0; 4096];
    let mut lost = false;
    loop {
        let length = from.read(&mut piece)?;
        if length == 0 {
            return Ok(());
        }
        match weather.next() {
            _ if lost => {}
            Fate::Lose => lost = true,
            Fate::Cut => return Ok(()),
            fate => {
                if let Fate::Delay = fate {
                    thread::park_timeout(Duration::from_millis(30));
                }
                to.write_all(&piece[..length])?;
            }
        }
    }
}

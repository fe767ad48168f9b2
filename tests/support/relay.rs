//! A proxy that takes a path off, as `location /counter/ { proxy_pass http://…/; }` does, and may change the host.

use std::io::{BufRead, BufReader, Write, copy};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

pub struct Relay {
    pub addr: SocketAddr,
}

impl Relay {
    /// Starts one on a free port. It ends with the test's process.
    pub fn start(to: SocketAddr, path: &'static str, host: Option<String>) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("its address");
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, host) = (client.expect("a connection"), host.clone());
                thread::spawn(move || {
                    // An end that comes early, as of a window that closes, is no fault.
                    let _ = serve(client, to, path, host);
                });
            }
        });
        Relay { addr }
    }
}

/// One request, or one WebSocket, of each connection: then it is closed.
fn serve(mut client: TcpStream, to: SocketAddr, path: &str, host: Option<String>) -> std::io::Result<()> {
    let mut server = TcpStream::connect(to)?;
    let mut reader = BufReader::new(client.try_clone()?);
    let (mut head, mut upgrade) = (String::new(), false);
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
            _ => head += &line,
        }
    }
    head += if upgrade { "Connection: Upgrade\r\n\r\n" } else { "Connection: close\r\n\r\n" };
    server.write_all(head.as_bytes())?;
    let mut back = server.try_clone()?;
    let answers = thread::spawn(move || {
        let _ = copy(&mut back, &mut client);
        let _ = client.shutdown(Shutdown::Both);
    });
    let _ = copy(&mut reader, &mut server);
    let _ = server.shutdown(Shutdown::Both);
    let _ = answers.join();
    Ok(())
}

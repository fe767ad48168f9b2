//! A Redis of a test's own, and a cable to it that can be cut.

#![allow(dead_code, reason = "each test file uses a part")]

use crate::folder::Folder;
use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Nobody should ever wait this long.
pub const LONG: Duration = Duration::from_secs(60);

/// A Redis on a free port, with a folder of its own, killed when this is dropped.
pub struct Redis {
    pub port: u16,
    pub flags: Vec<String>,
    child: Option<Child>,
    folder: Folder,
}

impl Redis {
    /// `None` where there is no `redis-server`, which is said.
    pub fn start(flags: &[&str]) -> Option<Self> {
        if Command::new("redis-server").arg("--version").output().is_err() {
            eprintln!("nothing is tested here: no redis-server (Debian: redis-server)");
            return None;
        }
        let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        let mut redis = Self { port: 0, flags, child: None, folder: Folder::new() };
        // Another process may take the port before Redis does.
        while redis.child.is_none() {
            redis.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            redis.run();
        }
        Some(redis)
    }

    /// Starts it again.
    pub fn run(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]);
        command.args(["--appendfsync", "always", "--unixsocket", "socket"]).args(&self.flags);
        let mut child = command.current_dir(&*self.folder).stdout(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + LONG;
        while self.try_say(&["PING"]).is_none_or(|answer| !answer.contains("PONG") && !answer.contains("NOAUTH")) {
            if child.try_wait().unwrap().is_some() {
                return;
            }
            assert!(Instant::now() < deadline, "Redis does not start");
            thread::park_timeout(Duration::from_millis(5));
        }
        self.child = Some(child);
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let child = self.child.as_ref().expect("it runs");
        rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).unwrap();
    }

    pub fn url(&self, rest: &str) -> String {
        format!("redis://127.0.0.1:{}/0?prefix=likes{rest}", self.port)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// What `redis-cli` prints.
    #[track_caller]
    pub fn say(&self, arguments: &[&str]) -> String {
        self.try_say(arguments).expect("redis-cli works")
    }

    fn try_say(&self, arguments: &[&str]) -> Option<String> {
        let output = Command::new("redis-cli").args(["-p", &self.port.to_string()]).args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        output.status.success().then_some(text)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A relay to a port, whose connections can be cut, and whose answers can be lost.
pub struct Cable {
    pub addr: SocketAddr,
    connections: Arc<Mutex<Vec<TcpStream>>>,
    loses: Arc<AtomicBool>,
    then: Arc<Mutex<Option<Then>>>,
}

/// What is done when an answer is lost, before anybody can know.
type Then = Box<dyn FnOnce() + Send>;

impl Cable {
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (connections, loses) = (Arc::<Mutex<Vec<TcpStream>>>::default(), Arc::<AtomicBool>::default());
        let then = Arc::<Mutex<Option<Then>>>::default();
        let (held, lost, on_loss) = (connections.clone(), loses.clone(), then.clone());
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { continue };
                // Closed at once where there is nobody.
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                held.lock().unwrap().push(client.try_clone().unwrap());
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || pump(from, to, || false));
                let (lost, on_loss) = (lost.clone(), on_loss.clone());
                thread::spawn(move || {
                    pump(server, client, || {
                        let then = on_loss.lock().unwrap().take();
                        let is_lost = then.is_some() || lost.load(Ordering::SeqCst);
                        then.into_iter().for_each(|then| then());
                        is_lost
                    });
                });
            }
        });
        Self { addr, connections, loses, then }
    }

    pub fn url(&self, rest: &str) -> String {
        format!("redis://{}/0?prefix=likes{rest}", self.addr)
    }

    /// Cuts all connections that there are.
    pub fn cut(&self) {
        self.connections.lock().unwrap().drain(..).for_each(|stream| _ = stream.shutdown(Shutdown::Both));
    }

    /// Has the next answer lost, with its connection, and this done before.
    pub fn lose_one(&self, then: impl FnOnce() + Send + 'static) {
        *self.then.lock().unwrap() = Some(Box::new(then));
    }

    /// Has all answers lost from now on, with their connections; or no more.
    pub fn lose(&self, loses: bool) {
        self.loses.store(loses, Ordering::SeqCst);
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, is_lost: impl Fn() -> bool) {
    let mut bytes = [0; 65536];
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        if is_lost() || to.write_all(&bytes[..length]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

//! What systemd hands over to the binary, and is told by it.
#![cfg(feature = "cli")]

#[path = "support/folder.rs"]
mod folder;

use folder::Folder;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::{
        fd::OwnedFd,
        unix::net::{UnixDatagram, UnixListener, UnixStream},
    },
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

/// Nobody should ever wait this long.
const LONG: Duration = Duration::from_secs(60);

/// A server that is handed listeners, as systemd hands them over: from descriptor 3 on.
struct Process {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    fn start(folder: &Folder, handed_over: [OwnedFd; 2], flags: &str, set: impl FnOnce(&mut Command)) -> Self {
        // A shell has them in two places of its own, and its number is that of the process that it becomes.
        let script = format!(
            r#"exec 3<&0 4<&2 2>log </dev/null; export LISTEN_PID=$$ LISTEN_FDS=2; exec "{}" --stop-within 30 {flags}"#,
            env!("CARGO_BIN_EXE_live-likes"),
        );
        let [first, second] = handed_over.map(Stdio::from);
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script]).current_dir(&**folder).env_clear();
        command.stdin(first).stderr(second).stdout(Stdio::piped());
        set(&mut command);
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn put(stream: &mut (impl Read + Write)) -> String {
    stream.write_all(b"PUT /like HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response.split_once("\r\n\r\n").expect("a whole response").1.to_owned()
}

#[test]
fn it_listens_on_what_is_handed_over_and_a_restart_refuses_nobody() {
    let folder = Folder::new();
    fs::write(folder.join("db.txt"), "16").unwrap();
    let internet = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = internet.local_addr().unwrap();
    let path = folder.join("likes.sock");
    let unix = UnixListener::bind(&path).unwrap();
    let handed_over = || [internet.try_clone().unwrap().into(), unix.try_clone().unwrap().into()];
    let mut count = 16;
    for _ in 0..3 {
        // It comes while nobody is there.
        let mut early = TcpStream::connect(addr).unwrap();
        let mut process = Process::start(&folder, handed_over(), "", |_| {});
        let told = format!("Live Likes at http://{addr}/ and unix:{} with {count} likes", path.display());
        assert!(process.line().starts_with(&told), "{told}");
        for response in [put(&mut early), put(&mut UnixStream::connect(&path).unwrap())] {
            count += 1;
            assert_eq!(response, format!("{{\"numLikes\":{count}}}"));
        }
        process.signal(Signal::TERM);
        assert!(process.child.wait().unwrap().success());
    }
    assert!(path.exists(), "the socket is not its own");

    // An address that is given is taken besides.
    let mut process = Process::start(&folder, handed_over(), "--addr unix:own.sock --socket-mode 600", |_| {});
    assert!(process.line().contains(" and unix:own.sock with 22 likes"));
    put(&mut UnixStream::connect(folder.join("own.sock")).unwrap());
    process.signal(Signal::TERM);
    assert!(process.child.wait().unwrap().success());
    assert!(path.exists() && !folder.join("own.sock").exists());
}

#[test]
fn what_is_no_listener_is_refused() {
    let folder = Folder::new();
    let internet = TcpListener::bind("127.0.0.1:0").unwrap();
    let file = fs::File::create(folder.join("file")).unwrap();
    let mut process = Process::start(&folder, [internet.into(), file.into()], "", |_| {});
    assert_eq!(process.child.wait().unwrap().code(), Some(1));
    let log = fs::read_to_string(folder.join("log")).unwrap();
    assert!(log.contains("what systemd hands over is no listening stream socket (ListenStream=)"), "{log}");
}

#[test]
fn systemd_is_told_when_it_is_ready_lives_reads_again_and_stops() {
    let folder = Folder::new();
    let socket = UnixDatagram::bind(folder.join("notify")).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    let told = || {
        let mut bytes = [0; 1000];
        let length = socket.recv(&mut bytes).expect("something was to be told");
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    let next = |wanted: &str| {
        while told().trim_end() != wanted {
            // Of the others, each time anew.
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut process = Process::start(&folder, [listener.into(), other.into()], "", |command| {
        command.env("NOTIFY_SOCKET", folder.join("notify")).env("WATCHDOG_USEC", "60000");
    });
    assert_eq!(told().trim_end(), "READY=1");
    for _ in 0..5 {
        assert_eq!(told().trim_end(), "WATCHDOG=1");
    }
    process.signal(Signal::HUP);
    loop {
        let text = told();
        if text.trim_end() != "WATCHDOG=1" {
            let (reloading, since) = text.trim_end().split_once('\n').unwrap();
            assert_eq!(reloading, "RELOADING=1");
            let micros = since.strip_prefix("MONOTONIC_USEC=").unwrap().parse::<u64>().unwrap();
            assert!(micros > 0);
            break;
        }
    }
    next("READY=1");
    process.signal(Signal::TERM);
    next("STOPPING=1");
    assert!(process.child.wait().unwrap().success());
}

#[test]
fn a_systemd_that_does_not_read_holds_nothing_up() {
    let folder = Folder::new();
    let socket = UnixDatagram::bind(folder.join("notify")).unwrap();
    let full = UnixDatagram::unbound().unwrap();
    full.set_nonblocking(true).unwrap();
    while full.send_to(b"WATCHDOG=1", folder.join("notify")).is_ok() {}
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut process = Process::start(&folder, [listener.into(), other.into()], "", |command| {
        command.env("NOTIFY_SOCKET", folder.join("notify")).env("WATCHDOG_USEC", "60000");
    });
    for likes in 1..4 {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        assert!(put(&mut stream).ends_with(&format!("{{\"numLikes\":{likes}}}")));
    }
    process.signal(Signal::TERM);
    assert!(process.child.wait().unwrap().success());
    drop(socket);
}

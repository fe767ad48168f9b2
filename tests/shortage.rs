//! A system that is short of descriptors, memory or threads: connections past what there is are answered 503, and the
//! server lives on.
#![cfg(all(feature = "cli", target_os = "linux"))]

#[path = "support/folder.rs"]
mod folder;
#[path = "support/wire.rs"]
mod wire;

use folder::Folder;
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};
use wire::{Answer, COUNT, PUT, Peer, until};

/// The binary under a limit of `ulimit`'s.
struct Limited {
    child: Child,
    addr: SocketAddr,
    folder: Folder,
}

fn command(folder: &Folder, limit: &str) -> Command {
    let mut command = Command::new("sh");
    let script = format!("{limit}; exec \"$0\" --addr 127.0.0.1:0 --request-time 600 \"$@\"");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_live-likes")]).current_dir(&**folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Limited {
    fn start(limit: &str, flags: &[&str]) -> Self {
        let folder = Folder::new();
        let mut child = command(&folder, limit).args(flags).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let addr = line.split_once("http://").and_then(|(_, rest)| rest.split_once('/')).map(|(addr, _)| addr.parse());
        Self { child, addr: addr.expect("it says where it listens").unwrap(), folder }
    }

    fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Opens connections and asks on each; returns those that are held, and the answers to the others.
    fn fill(&self, connections: usize) -> (Vec<Peer>, Vec<Answer>) {
        let mut peers: Vec<_> = (0..connections).map(|_| Peer::connect(self.addr)).collect();
        let mut refused = Vec::new();
        peers.retain_mut(|peer| {
            let answer = peer.ask(COUNT);
            let held = answer.status == 200;
            refused.extend(Some(answer).filter(|_| !held));
            held
        });
        (peers, refused)
    }

    /// Stops it, and returns what it has logged.
    fn stop(mut self) -> String {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::TERM)
            .unwrap();
        assert!(self.child.wait().unwrap().success());
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        log
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn connections_past_what_the_system_allows_are_answered_503_and_the_server_lives_on() {
    wire::raise_descriptor_limit();
    for (limit, told, connections) in [
        ("ulimit -n 64", "ulimit -n", 300),
        ("ulimit -n 300", "ulimit -n", 600),
        ("ulimit -v 700000", "ulimit -v", 300),
        ("export MALLOC_ARENA_MAX=2; ulimit -v 500000", "ulimit -v", 1500),
        ("ulimit -d 250000", "ulimit -d", 1500),
    ] {
        let server = Limited::start(limit, &["--connections", "1000000"]);
        let (mut held, refused) = server.fill(connections);
        assert!(!held.is_empty() && refused.len() > 10, "{limit}: {} and {}", held.len(), refused.len());
        assert!(refused.iter().all(|answer| answer.status == 503 && answer.closes()), "{limit}: {:?}", refused[0]);
        // What is kept for the store is there.
        assert_eq!(held[0].ask(PUT).body, r#"{"numLikes":1}"#, "{limit}");
        assert_eq!(fs::read_to_string(server.folder.join("db.txt")).unwrap(), "1");
        drop(held);
        until(|| Peer::connect(server.addr).ask(PUT).status == 200);
        let log = server.stop();
        assert_eq!(log.matches("connections are held, not 1000000: ").count(), 1, "{log}");
        assert!(log.contains(told), "{log}");
        assert_eq!(log.matches("cannot accept connections").count(), 1, "{log}");
    }
}

#[test]
fn what_all_connections_may_hold_fits_into_the_memory_that_there_is() {
    let server = Limited::start("ulimit -d 300000", &["--body-bytes", "8000000"]);
    let head =
        "PUT /like HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 8000000\r\n\r\n";
    let unfinished = [head.as_bytes(), &vec![b' '; 7_900_000]].concat();
    let mut peers: Vec<_> = (0..40).map(|_| Peer::connect(server.addr)).collect();
    // Those that are refused take no more.
    let taken = peers.iter_mut().filter_map(|peer| peer.stream.write_all(&unfinished).ok()).count();
    assert!((1..40).contains(&taken), "{taken}");
    drop(peers);
    until(|| Peer::connect(server.addr).ask(PUT).status == 200);
}

#[test]
fn refused_connections_take_a_bounded_number_of_descriptors() {
    let server = Limited::start("true", &["--connections", "3"]);
    let before = server.descriptors();
    // None of them ends its side.
    let peers: Vec<_> = (0..500).map(|_| Peer::connect(server.addr)).collect();
    let mut last = Peer::connect(server.addr);
    assert_eq!(last.answer().status, 503);
    assert!(server.descriptors() <= before + 3 + 64 + 1, "{} after {before}", server.descriptors());
    drop(peers);
    until(|| Peer::connect(server.addr).ask(COUNT).status == 200);
    until(|| server.descriptors() <= before + 1);
}

#[test]
fn a_thread_that_cannot_be_started_is_named_as_what_is_missing() {
    let folder = Folder::new();
    // From too little for the program's own libraries to enough for its threads, in steps of less than their stacks.
    let ends = (2000..).step_by(500).map(|limit| {
        let mut child = command(&folder, &format!("ulimit -v {limit}")).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let _ = child.kill();
        (line, String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap())
    });
    let ends: Vec<_> = ends.take_while(|(line, _)| line.is_empty()).map(|(_, problem)| problem).collect();
    assert!(ends.iter().any(|problem| problem.contains("cannot start a thread: ")), "{ends:#?}");
}

//! The binary as a process of its own, for what only a whole process shows: its memory, descriptors and threads.

#![allow(dead_code, reason = "each test file uses a part")]

use crate::running::Folder;
use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, ChildStdout, Command, Stdio},
};

/// A server process, killed when this is dropped.
pub struct Process {
    child: Child,
    pub addr: SocketAddr,
    /// Standard output stays open, as it would in a terminal.
    _stdout: BufReader<ChildStdout>,
    _folder: Folder,
}

impl Process {
    pub fn start(count: u64, flags: &[&str]) -> Self {
        let folder = Folder::new();
        fs::write(folder.join("db.txt"), count.to_string()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_live-likes"))
            .args(["--addr", "127.0.0.1:0", "--db"])
            .arg(folder.join("db.txt"))
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let (_, rest) = line.split_once("http://").unwrap_or_else(|| panic!("no address in {line:?}"));
        let addr = rest.split('/').next().unwrap().parse().unwrap();
        Self { child, addr, _stdout: stdout, _folder: folder }
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    pub fn descriptors(&self) -> usize {
        self.count("fd")
    }

    pub fn threads(&self) -> usize {
        self.count("task")
    }

    fn count(&self, folder: &str) -> usize {
        fs::read_dir(format!("/proc/{}/{folder}", self.child.id())).unwrap().count()
    }

    /// Memory that is resident, in KiB.
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

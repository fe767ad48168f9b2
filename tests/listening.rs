//! Where the server listens: several addresses, Unix sockets, and listeners that another process goes on with.

#[path = "support/client.rs"]
mod client;
#[path = "support/running.rs"]
mod running;

use client::{Client, ask, connect, get, read_head};
use live_likes::{Address, Error, Likes, Listener, Result, Server};
use running::{Folder, PATIENCE, eventually, patient};
use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        fd::OwnedFd,
        unix::{
            fs::{FileTypeExt, PermissionsExt, symlink},
            net::{UnixListener, UnixStream},
        },
    },
    path::Path,
    thread::{self, JoinHandle},
};

/// A connection over a Unix socket, as the clients here take it.
fn connect_unix(path: &Path) -> TcpStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    TcpStream::from(OwnedFd::from(stream))
}

/// The response to a request over a Unix socket.
fn ask_unix(path: &Path, line: &str, fields: &str) -> String {
    let mut stream = connect_unix(path);
    write!(stream, "{line} HTTP/1.1\r\nHost: likes.example\r\nConnection: close\r\n{fields}\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

fn serve(listening: live_likes::Listening) -> (live_likes::Handle, JoinHandle<Result<()>>) {
    (listening.handle(), thread::spawn(|| listening.run()))
}

#[test]
fn one_server_listens_on_several_addresses_and_on_a_file() {
    let folder = Folder::new();
    let (likes, path) = (folder.counter(16), folder.join("likes.sock"));
    let listening = Server::new(likes).limits(patient()).bind("127.0.0.1:0").unwrap();
    let listening = listening.and_on(Listener::bind("127.0.0.1:0").unwrap()).unwrap();
    let listening = listening.and_on(Listener::bind_unix(&path, 0o600).unwrap()).unwrap();
    let addresses = listening.addresses().to_vec();
    let [Address::Internet(first), Address::Internet(second), Address::Unix(third)] = &addresses[..] else {
        panic!("{addresses:?}");
    };
    assert_eq!((listening.local_addr(), third), (*first, &path));
    assert_eq!(addresses[2].to_string(), format!("unix:{}", path.display()));
    let (handle, running) = serve(listening);

    let stream = connect_unix(&path);
    let (socket, _) = tungstenite::client::client("ws://likes.example/liveLikes", stream).unwrap();
    let mut watcher = Client { socket };
    assert_eq!(watcher.count(), 16);
    assert_eq!(ask(*first, "PUT", "/like", &[]).body, r#"{"numLikes":17}"#);
    assert_eq!(ask(*second, "PUT", "/like", &[]).body, r#"{"numLikes":18}"#);
    let response = ask_unix(&path, "PUT /like", "");
    assert!(response.starts_with("HTTP/1.1 200 ") && response.ends_with(r#"{"numLikes":19}"#), "{response}");
    watcher.like();
    assert_eq!(watcher.counts_until(20).last(), Some(&20));
    handle.stop();
    assert_eq!(watcher.closed(), (1001, "the server is shutting down".to_owned()));
    running.join().unwrap().unwrap();
    assert!(!path.exists(), "the file is removed");
    assert_eq!(folder.saved(), 20);
}

#[test]
fn on_a_unix_socket_any_host_is_answered_and_only_its_own_origin_likes() {
    let folder = Folder::new();
    let path = folder.join("likes.sock");
    let listening = Server::new(folder.counter(16)).listen_on(Listener::bind_unix(&path, 0o600).unwrap()).unwrap();
    let (handle, running) = serve(listening);
    let status = |origin: &str| ask_unix(&path, "PUT /like", &format!("Origin: {origin}\r\n"))[9..12].to_owned();
    assert_eq!(status("https://likes.example"), "200");
    assert_eq!(status("https://evil.example"), "403");
    assert_eq!(status("http://localhost"), "403");
    handle.stop();
    running.join().unwrap().unwrap();
}

#[test]
fn the_file_of_a_socket_has_the_mode_that_was_asked_for() {
    let folder = Folder::new();
    for mode in [0o600, 0o660, 0o666] {
        let path = folder.join("likes.sock");
        let listener = Listener::bind_unix(&path, mode).unwrap();
        let file = fs::symlink_metadata(&path).unwrap();
        assert!(file.file_type().is_socket());
        assert_eq!(file.permissions().mode() & 0o7777, mode);
        drop(listener);
        assert!(!path.exists());
    }
}

#[test]
fn a_socket_that_a_server_has_left_is_replaced_and_one_that_is_listened_on_is_not() {
    let folder = Folder::new();
    let path = folder.join("likes.sock");
    drop(UnixListener::bind(&path).unwrap()); // as a server leaves it that is killed
    let first = Listener::bind_unix(&path, 0o600).unwrap();
    let refused = Listener::bind_unix(&path, 0o600).unwrap_err();
    let Error::Bind { addr, source } = &refused else { panic!("{refused:?}") };
    assert_eq!((addr.as_str(), source.kind()), (&*format!("unix:{}", path.display()), ErrorKind::AddrInUse));
    assert!(refused.to_string().contains("another server listens there"), "{refused}");
    UnixStream::connect(&path).expect("the first goes on");

    // However many wait for it.
    let busy = folder.join("busy.sock");
    let listener = UnixListener::bind(&busy).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let _waits = UnixStream::connect(&busy).unwrap();
    let refused = Listener::bind_unix(&busy, 0o600).unwrap_err();
    assert!(refused.to_string().contains("another server listens there"), "{refused}");

    // One that has taken its place is not removed with it.
    fs::remove_file(&path).unwrap();
    let second = Listener::bind_unix(&path, 0o600).unwrap();
    drop(first);
    UnixStream::connect(&path).expect("the second goes on");
    drop(second);
    assert!(!path.exists());
}

#[test]
fn no_other_file_is_ever_removed() {
    let folder = Folder::new();
    let (path, link) = (folder.join("likes.txt"), folder.join("link"));
    fs::write(&path, "16").unwrap();
    symlink(&path, &link).unwrap();
    for path in [&path, &link] {
        let refused = Listener::bind_unix(path, 0o600).unwrap_err();
        assert!(refused.to_string().contains("a file that is no socket is in the way"), "{refused}");
    }
    assert_eq!((fs::read_to_string(&path).unwrap().as_str(), fs::read_link(&link).unwrap()), ("16", path));
    for path in [folder.join("nowhere/likes.sock"), folder.join("x".repeat(108)), "".into()] {
        let refused = Listener::bind_unix(&path, 0o600).unwrap_err();
        assert!(refused.to_string().contains(&format!("cannot listen on unix:{}", path.display())), "{refused}");
    }
}

// --- a restart ---

fn shared(listener: &TcpListener, likes: &Likes) -> live_likes::Listening {
    let mut limits = patient();
    limits.close_within = PATIENCE;
    let listener = Listener::from(listener.try_clone().unwrap()).shared();
    Server::new(likes.clone()).limits(limits).listen_on(listener).unwrap()
}

fn keep_alive(addr: SocketAddr) -> TcpStream {
    let mut stream = connect(addr);
    write!(stream, "HEAD /likes HTTP/1.1\r\nHost: {addr}\r\n\r\n").unwrap();
    assert!(!read_head(&mut stream).contains("Connection: close"));
    stream
}

#[test]
fn who_comes_to_a_shared_listener_while_its_server_stops_is_answered_by_the_next_one() {
    let folder = Folder::new();
    let likes = folder.counter(16);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (handle, running) = serve(shared(&listener, &likes));
    // Its connection stays open, and the server waits for it.
    let mut last = Client::new(addr);
    assert_eq!(last.count(), 16);
    handle.stop();
    let mut code = None;
    while code.is_none() {
        if let Ok(tungstenite::Message::Close(Some(frame))) = last.socket.read() {
            code = Some(u16::from(frame.code));
        }
    }
    assert_eq!(code, Some(1001));
    // Until it has closed, the server is still there, and leaves this one alone.
    let mut comes = connect(addr);
    write!(comes, "PUT /like HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n").unwrap();
    last.ended();
    drop(last);
    running.join().unwrap().unwrap();
    comes.set_nonblocking(true).unwrap();
    assert_eq!(comes.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock, "nothing has been said");
    comes.set_nonblocking(false).unwrap();

    let (handle, running) = serve(shared(&listener, &likes));
    let mut response = String::new();
    comes.read_to_string(&mut response).unwrap();
    assert!(response.ends_with(r#"{"numLikes":17}"#), "{response}");
    handle.stop();
    running.join().unwrap().unwrap();
}

#[test]
fn a_connection_between_two_requests_may_bring_one_more_while_the_server_stops() {
    let folder = Folder::new();
    let likes = folder.counter(16);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    // On a busy machine, this end may not be quick enough the first time.
    let answered = (0..20).any(|_| {
        let (handle, running) = serve(shared(&listener, &likes));
        let mut watcher = Client::new(addr);
        assert_eq!(watcher.count(), 16);
        let (mut silent, mut asks) = (keep_alive(addr), keep_alive(addr));
        handle.stop();
        assert!(matches!(watcher.socket.read(), Ok(tungstenite::Message::Close(_))), "the stop has begun");
        let mut response = String::new();
        let sent = write!(asks, "PUT /like HTTP/1.1\r\nHost: {addr}\r\n\r\n");
        let read = sent.and_then(|()| asks.read_to_string(&mut response));
        assert_eq!(silent.read(&mut [0]).unwrap(), 0);
        drop((silent, asks));
        watcher.ended();
        drop(watcher);
        running.join().unwrap().unwrap();
        let answered = read.is_ok() && !response.is_empty();
        assert_eq!(folder.saved(), if answered { 17 } else { 16 }, "what is not answered does not count");
        if answered {
            assert!(response.starts_with("HTTP/1.1 200 ") && response.ends_with(r#"{"numLikes":17}"#), "{response}");
            assert!(response.contains("Connection: close"), "{response}");
        }
        answered
    });
    assert!(answered, "it was to be answered");
}

#[test]
fn a_heartbeat_comes_as_long_as_the_server_accepts() {
    let folder = Folder::new();
    let (beat, beats) = std::sync::mpsc::channel();
    let listening = Server::new(folder.counter(16)).limits(patient()).bind("127.0.0.1:0").unwrap();
    let (addr, every) = (listening.local_addr(), std::time::Duration::from_millis(20));
    let (handle, running) = serve(listening.heartbeat(every, move || _ = beat.send(())));
    for _ in 0..5 {
        beats.recv_timeout(PATIENCE).unwrap();
    }
    assert_eq!(get(addr, "/healthz").status, 200);
    handle.stop();
    running.join().unwrap().unwrap();
    eventually("no more come", || matches!(beats.try_recv(), Err(std::sync::mpsc::TryRecvError::Disconnected)));
}

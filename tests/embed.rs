//! The example of a program with an accept loop and a route of its own, as it stands.

#[path = "support/client.rs"]
mod client;
#[allow(dead_code, reason = "`main` takes a fixed port")]
#[path = "../examples/embed.rs"]
mod embed;
#[path = "support/running.rs"]
mod running;

use client::{Client, ask, connect, get};
use live_likes::{Server, Service};
use running::{Folder, PATIENCE, eventually};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    thread,
};

/// Runs the example's accept loop until the process ends.
fn host(service: Service) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || embed::accept(&listener, &service));
    addr
}

#[test]
fn a_route_of_the_program_s_own_stands_beside_the_likes() {
    let folder = Folder::new();
    let likes = folder.counter(16);
    let mut inside = likes.subscribe();
    let addr = host(Server::new(likes.clone()).into_service().unwrap());

    assert_eq!(get(addr, "/hello").body, "hello\n");
    assert_eq!(get(addr, "/hell").status, 404);
    assert_eq!(get(addr, "/healthz").body, "ok");
    let mut client = Client::new(addr);
    assert_eq!((client.count(), inside.next()), (16, Some(16)));
    client.like();
    assert_eq!((client.count(), inside.next_within(PATIENCE)), (17, Ok(17)));
    assert_eq!(ask(addr, "PUT", "/like", &[]).body, r#"{"numLikes":18}"#);
    assert_eq!((client.count(), inside.next_within(PATIENCE)), (18, Ok(18)));
}

#[test]
fn peers_that_say_nothing_or_little_keep_nobody_waiting() {
    let folder = Folder::new();
    let addr = host(Server::new(folder.counter(16)).into_service().unwrap());
    let _silent: Vec<_> = (0..20).map(|_| connect(addr)).collect();
    let mut slow = connect(addr);
    slow.write_all(b"GET /he").unwrap();
    assert_eq!(get(addr, "/hello").body, "hello\n");
    assert_eq!(get(addr, "/likes").body, r#"{"numLikes":16}"#);
    slow.write_all(b"althz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
}

#[test]
fn a_service_that_is_stopped_tells_its_clients_and_saves() {
    let folder = Folder::new();
    let likes = folder.counter(16);
    let service = Server::new(likes.clone()).into_service().unwrap();
    let addr = host(service.clone());
    let mut client = Client::new(addr);
    assert_eq!(client.count(), 16);
    likes.like_without_waiting().unwrap();
    let stop = thread::spawn(move || service.stop());
    assert_eq!(client.closed().0, 1001);
    drop(client);
    stop.join().unwrap().unwrap();
    assert_eq!((likes.count(), folder.saved()), (17, 17));
    eventually("nobody is left", || likes.watching() == 0);
    assert_eq!(get(addr, "/likes").body, r#"{"numLikes":17}"#);
    assert_eq!(get(addr, "/healthz").status, 503);
}

//! Behind a proxy: whose address counts, and which origin is the server's own.

#[path = "support/client.rs"]
mod client;
#[path = "support/running.rs"]
mod running;

use client::{Client, ask, connect, get, handshake};
use live_likes::Server;
use running::{Running, eventually, patient};
use std::io::{Read, Write};
use tungstenite::client::IntoClientRequest;

/// A server that takes a like a second of each address, on loopback, where the clients here come from.
fn counted(set: impl FnOnce(Server) -> Server) -> Running {
    let mut limits = patient();
    limits.likes_per_second_and_address = Some(1);
    Running::with(0, |server| set(server.limits(limits)))
}

fn like(server: &Running, fields: &[(&str, &str)]) -> u16 {
    ask(server.addr, "PUT", "/like", fields).status
}

/// How many of these get their like, if each is by another client than the one before.
fn likes_of(server: &Running, name: &str, values: &[&str]) -> usize {
    values.iter().filter(|&&value| like(server, &[(name, value)]) == 200).count()
}

#[test]
fn a_limit_by_address_goes_by_the_client_that_a_trusted_proxy_names() {
    let server = counted(|server| server.trust_proxy("127.0.0.0/8").trust_proxy("10.0.0.0/8"));
    let name = "X-Forwarded-For";
    // So many at once that no bucket fills again in between.
    let others: Vec<_> = (1..=20).map(|number| format!("198.51.100.{number}")).collect();
    let others: Vec<_> = others.iter().map(String::as_str).collect();
    assert_eq!(likes_of(&server, name, &others), 20);
    let forged: Vec<_> = (1..=200).map(|number| format!("203.0.113.{number}, 192.0.2.1, 10.9.9.9")).collect();
    let forged: Vec<_> = forged.iter().map(String::as_str).collect();
    let start = std::time::Instant::now();
    let taken = likes_of(&server, name, &forged);
    let most = 2 + start.elapsed().as_secs() as usize;
    assert!((1..=most).contains(&taken), "{taken} likes of one address");
}

#[test]
fn of_a_peer_that_is_not_trusted_nothing_is_believed() {
    for trusted in [None, Some("10.0.0.0/8"), Some("unix")] {
        let server = counted(|server| trusted.into_iter().fold(server, Server::trust_proxy));
        let start = std::time::Instant::now();
        let forged: Vec<_> = (1..=200).map(|number| format!("198.51.100.{number}")).collect();
        let taken = likes_of(&server, "X-Forwarded-For", &forged.iter().map(String::as_str).collect::<Vec<_>>());
        let most = 2 + start.elapsed().as_secs() as usize;
        assert!((1..=most).contains(&taken), "{taken} likes of one address");
    }
}

#[test]
fn the_field_that_names_the_client_may_be_another_and_is_then_the_only_one() {
    let server = counted(|server| server.trust_proxy("127.0.0.1").forwarded_header("Forwarded"));
    for number in 1..=20 {
        let value = format!("for=203.0.113.1, for=\"198.51.100.{number}:80\";proto=http");
        assert_eq!(like(&server, &[("Forwarded", &value)]), 200);
    }
    let forged: Vec<_> = (1..=200).map(|number| format!("198.51.101.{number}")).collect();
    let start = std::time::Instant::now();
    let taken = likes_of(&server, "X-Forwarded-For", &forged.iter().map(String::as_str).collect::<Vec<_>>());
    assert!((1..=2 + start.elapsed().as_secs() as usize).contains(&taken), "{taken}");
}

#[test]
fn an_origin_is_own_if_it_is_what_a_trusted_proxy_was_called_by() {
    let trusting = Running::with(0, |server| server.trust_proxy("127.0.0.1"));
    let other = Running::with(0, |server| server.trust_proxy("127.0.0.2"));
    let forwarded = [("X-Forwarded-Host", "likes.example"), ("X-Forwarded-Proto", "https")];
    let status = |server: &Running, origin: &str| {
        let fields = [&forwarded[..], &[("Origin", origin)]].concat();
        let put = ask(server.addr, "PUT", "/like", &fields).status;
        let upgrade = handshake(server.addr, "/liveLikes", &[&fields[..], &[("Sec-WebSocket-Version", "12")]].concat());
        // Of an origin that may not, 403 comes before anything else of a handshake that is right.
        assert_eq!(upgrade.status, 426);
        put
    };
    assert_eq!(status(&trusting, "https://likes.example"), 200);
    assert_eq!(status(&trusting, "https://likes.example:443"), 200);
    assert_eq!(status(&trusting, "http://likes.example"), 403, "the scheme is part of it");
    assert_eq!(status(&trusting, "https://evil.example"), 403);
    assert_eq!(status(&trusting, &format!("http://{}", trusting.addr)), 403, "nobody called it by that");
    assert_eq!(status(&other, "https://likes.example"), 403, "that peer is not trusted");
    assert_eq!(status(&other, &format!("http://{}", other.addr)), 200);

    // A page whose name was made to point here can send such a field, and no other `Host`.
    let rebound = ask(trusting.addr, "GET", "/likes", &[("Host", "evil.example"), ("X-Forwarded-Host", "localhost")]);
    assert_eq!(rebound.status, 403);
}

#[test]
fn what_is_no_proxy_and_no_field_is_refused_when_the_server_is_built() {
    let folder = running::Folder::new();
    let likes = folder.counter(0);
    for (server, told) in [
        (Server::new(likes.clone()).trust_proxy("nginx"), "cannot trust `nginx`: an address, a network"),
        (Server::new(likes.clone()).trust_proxy("10.0.0.0/33"), "cannot trust `10.0.0.0/33`"),
        (
            Server::new(likes.clone()).forwarded_header("X Forwarded"),
            "cannot trust `X Forwarded`: the name of a header",
        ),
    ] {
        let problem = server.into_service().unwrap_err().to_string();
        assert!(problem.contains(told), "{problem}");
    }
}

// --- connections of an address ---

fn with_places(most: usize, set: impl FnOnce(Server) -> Server) -> Running {
    let mut limits = patient();
    limits.connections_per_address = Some(most);
    Running::with(16, |server| set(server.limits(limits)))
}

#[test]
fn an_address_holds_as_many_connections_as_it_may() {
    let server = with_places(2, |server| server);
    let mut watcher = Client::new(server.addr);
    assert_eq!(watcher.count(), 16);
    let idle = connect(server.addr);
    eventually("both are held", || {
        let refused = get(server.addr, "/healthz");
        assert!(matches!(refused.status, 200 | 429));
        refused.status == 429
    });
    let refused = get(server.addr, "/likes");
    assert_eq!(refused.body, "too many connections: at most 2 per address are allowed\n");
    assert_eq!(refused.field("Retry-After"), Some("10"));
    drop(idle);
    eventually("there is room again", || get(server.addr, "/likes").status == 200);
    watcher.like();
    assert_eq!(watcher.count(), 17);
}

#[test]
fn behind_a_trusted_proxy_each_client_has_connections_of_its_own() {
    let server = with_places(1, |server| server.trust_proxy("127.0.0.1"));
    let watch = |client: &'static str| {
        let mut request = format!("ws://{}/liveLikes", server.addr).into_client_request().unwrap();
        request.headers_mut().insert("X-Forwarded-For", client.parse().unwrap());
        tungstenite::client::client(request, connect(server.addr)).ok().map(|(socket, _)| Client { socket })
    };
    let of = |client: &str| ask(server.addr, "GET", "/likes", &[("X-Forwarded-For", client)]).status;
    // The proxy's own connections are not counted, however many are open.
    let _idle: Vec<_> = (0..5).map(|_| connect(server.addr)).collect();
    let mut first = watch("198.51.100.1").unwrap();
    assert_eq!(first.count(), 16);
    assert!(watch("198.51.100.1").is_none());
    assert_eq!((of("198.51.100.1"), of("198.51.100.2"), of("203.0.113.1, 198.51.100.1")), (429, 200, 429));
    let mut second = None;
    eventually("the request that is answered does not count", || {
        second = watch("198.51.100.2");
        second.is_some()
    });
    assert_eq!(second.as_mut().unwrap().count(), 16);
    drop(first);
    eventually("its place is free", || of("198.51.100.1") == 200);

    // A connection that the proxy keeps is nobody's, once its request is answered.
    let mut idle = connect(server.addr);
    write!(idle, "GET /likes HTTP/1.1\r\nHost: {}\r\nX-Forwarded-For: 198.51.100.5\r\n\r\n", server.addr).unwrap();
    idle.read_exact(&mut [0; 12]).unwrap();
    eventually("its place is free", || of("198.51.100.5") == 200);

    // Requests of several clients come over one connection, each counted while it is answered.
    let mut kept = connect(server.addr);
    for client in ["198.51.100.3", "198.51.100.4", "198.51.100.2"] {
        write!(kept, "GET /likes HTTP/1.1\r\nHost: {}\r\nX-Forwarded-For: {client}\r\n\r\n", server.addr).unwrap();
    }
    kept.shutdown(std::net::Shutdown::Write).unwrap();
    let mut responses = String::new();
    kept.read_to_string(&mut responses).unwrap();
    let statuses: Vec<_> = responses.match_indices("HTTP/1.1 ").map(|(at, _)| &responses[at + 9..at + 12]).collect();
    assert_eq!(statuses, ["200", "200", "429"]);
}

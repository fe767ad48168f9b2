//! `/metrics` on an address of its own.

#[path = "support/scripted.rs"]
mod scripted;
#[path = "support/wire.rs"]
mod wire;

use live_likes::{Error, Likes, Limits, Server};
use scripted::{Ending, memory};
use std::{net::SocketAddr, thread};
use wire::{COUNT, Peer, SOON, until};

fn request(method: &str, target: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: 192.0.2.7:9100\r\n\r\n")
}

/// Runs a server with metrics on an address of their own, and stops it in the end.
fn with_metrics(limits: Limits, test: impl FnOnce(SocketAddr, SocketAddr)) {
    let likes = Likes::with_store(memory(16, |_| Ending::Saved)).unwrap();
    let server = Server::new(likes.clone()).limits(limits).bind("127.0.0.1:0").unwrap();
    let server = server.metrics_on("127.0.0.1:0").unwrap();
    let (public, metrics) = (server.local_addr(), server.metrics_addr().unwrap());
    let handle = server.handle();
    let running = thread::spawn(|| server.run());
    test(public, metrics);
    handle.stop();
    running.join().unwrap().unwrap();
}

fn patient() -> Limits {
    let mut limits = Limits::default();
    (limits.request_time, limits.keep_alive) = (10 * SOON, 10 * SOON);
    limits
}

#[test]
fn metrics_with_an_address_of_their_own_are_answered_there_under_any_name_and_nowhere_else() {
    with_metrics(patient(), |public, metrics| {
        let mut peer = Peer::connect(metrics);
        let answer = peer.ask(request("GET", "/metrics"));
        assert_eq!((answer.status, answer.field("Cache-Control")), (200, Some("no-store")));
        assert!(answer.body.contains("\nlive_likes_likes 16\n"), "{}", answer.body);
        assert_eq!(peer.ask(request("GET", "/healthz")).body, "ok");
        let answer = peer.ask(request("POST", "/metrics"));
        assert_eq!((answer.status, answer.field("Allow")), (405, Some("GET, HEAD, OPTIONS")));
        for target in ["/", "/likes", "/like", "/liveLikes"] {
            assert_eq!(peer.ask(request("GET", target)).status, 404, "{target}");
        }
        peer.send(request("HEAD", "/metrics"));
        assert_eq!(peer.answer_to_head().status, 200);
        let answer = peer.ask(request("OPTIONS", "*"));
        assert_eq!((answer.status, answer.field("Allow")), (204, Some("GET, HEAD, OPTIONS")));
        assert_eq!(peer.ask(request("BREW", "/nothing")).status, 501);

        let mut peer = Peer::connect(public);
        let asked = |method: &str, target: &str| request(method, target).replace("192.0.2.7:9100", "localhost");
        for method in ["GET", "POST"] {
            assert_eq!(peer.ask(asked(method, "/metrics")).status, 404);
        }
        assert_eq!(peer.ask(asked("GET", "/healthz")).body, "ok");
        assert_eq!(peer.ask(COUNT).body, r#"{"numLikes":16}"#);
    });
}

#[test]
fn metrics_are_answered_while_the_server_is_full_and_it_is_not_full_of_them() {
    let mut limits = patient();
    limits.connections = 2;
    with_metrics(limits, |public, metrics| {
        let mut held: Vec<_> = (0..2).map(|_| Peer::connect(public)).collect();
        assert!(held.iter_mut().all(|peer| peer.ask(COUNT).status == 200));
        assert_eq!(Peer::connect(public).answer().status, 503);
        let mut probes: Vec<_> = (0..16).map(|_| Peer::connect(metrics)).collect();
        assert!(probes.iter_mut().all(|peer| peer.ask(request("GET", "/healthz")).status == 200));
        // The 16 are taken; who goes makes room.
        assert_eq!(Peer::connect(metrics).answer().status, 503);
        drop(held.pop());
        until(|| Peer::connect(public).ask(COUNT).status == 200);
        drop(probes.pop());
        until(|| Peer::connect(metrics).ask(request("GET", "/metrics")).status == 200);
    });
}

#[test]
fn an_address_for_metrics_that_cannot_be_had_is_named() {
    let likes = Likes::with_store(memory(16, |_| Ending::Saved)).unwrap();
    let server = Server::new(likes.clone()).bind("127.0.0.1:0").unwrap();
    let taken = server.local_addr().to_string();
    let other = Server::new(likes).bind("127.0.0.1:0").unwrap().metrics_on(taken.as_str());
    assert!(matches!(&other, Err(Error::Bind { addr, .. }) if *addr == taken), "{other:?}");
}

#[test]
#[cfg(feature = "cli")]
fn the_binary_takes_an_address_for_metrics_and_says_which_it_is() {
    use std::{
        io::{BufRead, BufReader},
        process::{Command, Stdio},
    };
    let folder = std::env::temp_dir().join(format!("live-likes-metrics-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_live-likes"))
        .args(["--addr", "127.0.0.1:0", "--metrics-addr", "127.0.0.1:0"])
        .current_dir(&folder)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let addr = lines.find_map(|line| {
        Some(line.unwrap().split_once("metrics at http://")?.1.strip_suffix("/metrics")?.parse().unwrap())
    });
    assert_eq!(Peer::connect(addr.expect("it says so")).ask(request("GET", "/metrics")).status, 200);
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_waits_and_what_has_become_of_changes_is_told() {
    let (go_on, held) = std::sync::mpsc::channel::<bool>();
    let store = memory(16, move |_| if held.recv_timeout(SOON).unwrap() { Ending::Saved } else { Ending::NotSaved });
    let likes = Likes::with_store(store).unwrap();
    let server = Server::new(likes.clone()).limits(patient()).bind("127.0.0.1:0").unwrap();
    let (addr, handle) = (server.local_addr(), server.handle());
    let running = thread::spawn(|| server.run());
    let sample = |name: &str| -> f64 {
        let body = Peer::connect(addr).ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").body;
        let value =
            body.lines().find_map(|line| line.strip_prefix("live_likes_")?.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in {body}")).parse().unwrap()
    };
    let became = |outcome: &str| sample(&format!("changes_total{{outcome=\"{outcome}\"}}"));
    assert_eq!([sample("unsaved"), sample("unsaved_age_seconds"), sample("healthy")], [0.0, 0.0, 1.0]);
    for (saved, counted, not_saved) in [(true, 1.0, 0.0), (false, 1.0, 1.0)] {
        let like = thread::spawn({
            let likes = likes.clone();
            move || likes.like()
        });
        until(|| sample("unsaved") == 1.0 && sample("unsaved_age_seconds") > 0.0);
        go_on.send(saved).unwrap();
        assert_eq!(like.join().unwrap().is_ok(), saved);
        until(|| sample("unsaved") == 0.0);
        assert_eq!([became("counted"), became("not_saved"), became("refused")], [counted, not_saved, 0.0]);
        assert_eq!(sample("unsaved_age_seconds"), 0.0);
    }
    assert_eq!(sample("healthy"), 0.0);
    assert_eq!([sample("save_seconds_count"), sample("save_seconds_bucket{le=\"+Inf\"}")], [1.0, 1.0]);
    go_on.send(true).unwrap();
    until(|| sample("healthy") == 1.0);
    handle.stop();
    running.join().unwrap().unwrap();
}

//! What systemd hands over, and is told (sd_listen_fds(3), sd_notify(3)). Where there is none, nothing happens.

use listenfd::ListenFd;
use live_likes::{Error, Likes, Listener, Listening};
use sd_notify::NotifyState;
use std::io;

/// The listeners of the socket units, which stay open through a restart.
pub(crate) fn listeners() -> Result<Vec<Listener>, Error> {
    let mut handed_over = ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..handed_over.len() {
        let listener = match handed_over.take_tcp_listener(index) {
            Ok(listener) => listener.map(Listener::from),
            Err(_) => handed_over.take_unix_listener(index).map_err(not_a_listener)?.map(Listener::from),
        };
        listeners.extend(listener.map(Listener::shared));
    }
    Ok(listeners)
}

fn not_a_listener(source: io::Error) -> Error {
    let problem = format!("what systemd hands over is no listening stream socket (ListenStream=): {source}");
    Error::Listen(io::Error::new(source.kind(), problem))
}

/// Tells systemd how the service is.
pub(crate) fn tell(state: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(state) {
        log::warn!("systemd cannot be told how the service is: {e}");
    }
}

/// Tells that files are read again (`Type=notify-reload`), until it is told that the service is ready.
pub(crate) fn tell_of_reload() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
}

/// Has the thread that accepts connections tell the watchdog that it lives, as long as no save hangs. A service that says
/// nothing for `WatchdogSec=` is started anew.
pub(crate) fn watched(listening: Listening, likes: Likes) -> Listening {
    let Some(within) = sd_notify::watchdog_enabled() else { return listening };
    listening.heartbeat(within / 3, move || {
        if !likes.hangs() {
            tell(&[NotifyState::Watchdog]);
        }
    })
}

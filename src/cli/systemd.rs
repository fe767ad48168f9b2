//! What systemd hands over, and is told (sd_listen_fds(3), sd_notify(3)). Where there is none, nothing happens.

use listenfd::ListenFd;
use live_likes::{Error, Likes, Listener, Listening};
use sd_notify::NotifyState;
use std::{
    collections::VecDeque,
    env, io,
    sync::{Condvar, Mutex, MutexGuard, Once, OnceLock, PoisonError},
    time::Duration,
};

/// How long a thread waits until systemd has been told something.
const MOMENT: Duration = Duration::from_millis(100);

/// How much may wait to be told.
const MOST_UNTOLD: usize = 2;

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

/// Tells systemd how the service is: by a thread of its own, for which no other waits longer than a moment. Where nobody
/// reads what is told, a send does not end.
pub(crate) fn tell(state: Vec<NotifyState<'static>>) {
    static HAS_THREAD: OnceLock<bool> = OnceLock::new();
    let start = || {
        let thread = || super::start_thread("systemd", Box::new(tell_all)).inspect_err(cannot_tell);
        env::var_os("NOTIFY_SOCKET").is_some() && thread().is_ok()
    };
    let mut untold = untold();
    if *HAS_THREAD.get_or_init(start) && untold.len() < MOST_UNTOLD {
        untold.push_back(state);
        CHANGED.notify_all();
        let _ = CHANGED.wait_timeout_while(untold, MOMENT, |untold| !untold.is_empty());
    }
}

/// What is still to be told, the first of it just now.
static UNTOLD: Mutex<VecDeque<Vec<NotifyState<'static>>>> = Mutex::new(VecDeque::new());
static CHANGED: Condvar = Condvar::new();

fn untold() -> MutexGuard<'static, VecDeque<Vec<NotifyState<'static>>>> {
    UNTOLD.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tell_all() {
    let once = Once::new();
    loop {
        let waiting = CHANGED.wait_while(untold(), |untold| untold.is_empty());
        let state = std::mem::take(&mut waiting.unwrap_or_else(PoisonError::into_inner)[0]);
        if let Err(e) = sd_notify::notify(&state) {
            once.call_once(|| cannot_tell(&e));
        }
        untold().pop_front();
        CHANGED.notify_all();
    }
}

fn cannot_tell(e: &io::Error) {
    log::warn!("systemd cannot be told how the service is: {e}");
}

/// Tells that files are read again (`Type=notify-reload`), until it is told that the service is ready.
pub(crate) fn tell_of_reload() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(vec![NotifyState::Reloading, now]);
    }
}

/// Has the thread that accepts connections tell the watchdog that it lives, as long as no save hangs. A service that says
/// nothing for `WatchdogSec=` is started anew.
pub(crate) fn watched(listening: Listening, likes: Likes) -> Listening {
    let Some(within) = sd_notify::watchdog_enabled().filter(|within| !within.is_zero()) else { return listening };
    listening.heartbeat(within / 3, move || {
        if !likes.hangs() {
            tell(vec![NotifyState::Watchdog]);
        }
    })
}

//! What systemd hands over, and is told (sd_listen_fds(3), sd_notify(3)). Where there is none, nothing happens.

use listenfd::ListenFd;
use live_likes::{Error, Likes, Listener, Listening};
use sd_notify::NotifyState;
use std::{
    env, io,
    sync::{
        Once, OnceLock,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread,
    time::Duration,
};

/// How long a thread waits until systemd has been told something.
const MOMENT: Duration = Duration::from_millis(100);

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
    static TELL: OnceLock<Option<SyncSender<Told>>> = OnceLock::new();
    let start = || {
        env::var_os("NOTIFY_SOCKET")?;
        let (tell, told) = sync_channel(1);
        let started = thread::Builder::new().name("systemd".into()).spawn(move || tell_all(&told));
        started.inspect_err(cannot_tell).ok().map(|_| tell)
    };
    let (done, is_done) = channel();
    if let Some(tell) = TELL.get_or_init(start)
        && tell.try_send((state, done)).is_ok()
    {
        let _ = is_done.recv_timeout(MOMENT);
    }
}

/// What is to be told, and whom to tell that it has been.
type Told = (Vec<NotifyState<'static>>, Sender<()>);

fn tell_all(told: &Receiver<Told>) {
    let once = Once::new();
    for (state, done) in told {
        if let Err(e) = sd_notify::notify(&state) {
            once.call_once(|| cannot_tell(&e));
        }
        let _ = done.send(());
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

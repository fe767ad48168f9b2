//! What the process does when it is sent a signal.

use super::{start_thread, systemd};
use live_likes::Handle;
use sd_notify::NotifyState;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ},
    iterator::Signals,
};
use std::{
    io::{self, IsTerminal, stderr, stdin, stdout},
    sync::{Arc, Mutex, PoisonError},
};

/// Has a write past the limit on the size of files (RLIMIT_FSIZE) fail, like one to a full disk, and not end the process.
pub(crate) fn survive_file_limit() -> io::Result<()> {
    signal_hook::flag::register(SIGXFSZ, Arc::default()).map(drop)
}

/// Has the first SIGINT or SIGTERM stop the server gracefully, and the second end the process at once.
///
/// SIGHUP says that the terminal has been closed, which stops a server that was started in one; but a service has no
/// terminal, and is sent SIGHUP to read its files again, if it has any.
pub(crate) fn listen(server: Handle, read_again: Option<ReadAgain>) -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let in_terminal = stdin().is_terminal() || stdout().is_terminal() || stderr().is_terminal();
    let wait = move || {
        let mut stopping = false;
        for signal in signals.forever() {
            match signal {
                SIGHUP if !in_terminal => {
                    // A file that cannot be read just now must not keep the next signal waiting.
                    let read_again = read_again.clone();
                    if let Err(e) = start_thread("reload", Box::new(move || reload(read_again))) {
                        log::error!("the files cannot be read again: {e}");
                    }
                }
                // The shell and the kernel both send it, so that a second one means no haste.
                SIGHUP if stopping => {}
                _ if stopping => {
                    log::logger().flush();
                    std::process::exit(128 + signal);
                }
                _ => {
                    stopping = true;
                    log::info!("stopping");
                    systemd::tell(vec![NotifyState::Stopping]);
                    server.stop();
                }
            }
        }
    };
    start_thread("signals", Box::new(wait))
}

/// Reads files again.
pub(crate) type ReadAgain = Arc<dyn Fn() + Send + Sync>;

fn reload(read_again: Option<ReadAgain>) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _this_one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    systemd::tell_of_reload();
    match read_again {
        Some(read_again) => read_again(),
        None => log::info!("SIGHUP is ignored: there is no file to read again"),
    }
    systemd::tell(vec![NotifyState::Ready]);
}

//! What the process does when it is sent a signal.

use super::systemd;
use live_likes::Handle;
use sd_notify::NotifyState;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ},
    iterator::Signals,
};
use std::{
    io::{self, IsTerminal, stderr, stdin, stdout},
    sync::Arc,
};

/// Has a write past the limit on the size of files (RLIMIT_FSIZE) fail, like one to a full disk, and not end the process.
pub(crate) fn survive_file_limit() -> io::Result<()> {
    signal_hook::flag::register(SIGXFSZ, Arc::default()).map(drop)
}

/// Has the first SIGINT or SIGTERM stop the server gracefully, and the second end the process at once.
///
/// SIGHUP says that the terminal has been closed, which stops a server that was started in one; but a service has no
/// terminal, and is sent SIGHUP to read its files again, if it has any.
pub(crate) fn listen(server: Handle, read_again: Option<impl Fn() + Send + 'static>) -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let in_terminal = stdin().is_terminal() || stdout().is_terminal() || stderr().is_terminal();
    let wait = move || {
        let mut stopping = false;
        for signal in signals.forever() {
            match signal {
                SIGHUP if !in_terminal => {
                    systemd::tell_of_reload();
                    match &read_again {
                        Some(read_again) => read_again(),
                        None => log::info!("SIGHUP is ignored: there is no file to read again"),
                    }
                    systemd::tell(vec![NotifyState::Ready]);
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
    super::start_thread("signals", Box::new(wait))
}

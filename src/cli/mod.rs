//! What only the binary has: its flags, its commands, its log and its signals.

pub(crate) mod commands;
mod flags;
pub(crate) mod logger;
mod settings;
pub(crate) mod signals;
pub(crate) mod systemd;

pub(crate) use settings::{Addr, Asked, Settings, parse};

/// Starts a thread. Its work is boxed, since of each kind of work all that starting takes would be compiled anew.
fn start_thread(name: &str, work: Box<dyn FnOnce() + Send>) -> std::io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}

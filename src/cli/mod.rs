//! What only the binary has: its flags, its log and its signals.

mod flags;
pub(crate) mod logger;
mod settings;
pub(crate) mod signals;

pub(crate) use settings::{Command, Settings, parse};

//! What only the binary has: its flags, its commands, its log and its signals.

pub(crate) mod commands;
mod flags;
pub(crate) mod logger;
mod settings;
pub(crate) mod signals;
pub(crate) mod systemd;

pub(crate) use settings::{Addr, Asked, Settings, parse};

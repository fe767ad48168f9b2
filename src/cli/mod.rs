//! What only the binary has: its flags and its log.

mod flags;
pub(crate) mod logger;
mod settings;

pub(crate) use settings::{Command, Settings, parse};

//! What only the binary has: its flags and the environment for them.

mod flags;
mod settings;

pub(crate) use settings::{Command, Settings, parse};

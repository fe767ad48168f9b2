//! Puts a like counter under load, checks everything it shows, and measures it: `--help` tells the modes and flags.
//!
//! # Layout
//!
//! - `options`: flags
//! - `modes`: the five measurements
//! - `swarm`: all connections on one thread
//! - `client`: one connection
//! - `posts`: many posts, and what may be shown of each
//! - `http`, `frame`: the bytes that pass
//! - `check`: what a client may be shown, and what is a breach
//! - `process`, `stats`: CPU time, memory, percentiles
//! - `fake`: servers that break each promise, for the tests
#![forbid(unsafe_code)]

mod check;
mod client;
#[cfg(test)]
mod fake;
mod frame;
mod http;
mod modes;
mod options;
mod posts;
mod process;
mod stats;
mod swarm;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use serde_json::json;

use crate::modes::Report;
use crate::options::{HELP, Options};

fn main() -> ExitCode {
    let options = match Options::parse(lexopt::Parser::from_env()) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print(HELP.trim_end());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("load: {error}; try --help");
            return ExitCode::from(2);
        }
    };
    let mut report = Report::new();
    report.insert("mode".into(), options.mode.name().into());
    report.insert("addr".into(), options.addr.to_string().into());
    for (name, number) in [
        ("clients", options.clients as u64),
        ("events", options.events as u64),
        ("likers", options.likers as u64),
        ("stuck", options.stuck as u64),
        ("connections", options.connections as u64),
        ("posts", options.posts as u64),
        ("watch", options.watch as u64),
        ("likes", options.likes),
    ] {
        if number > 0 {
            report.insert(name.into(), number.into());
        }
    }
    let outcome = modes::run(&options, &mut report);
    report.insert("ok".into(), outcome.is_ok().into());
    if let Err(failure) = &outcome {
        report.insert("failure".into(), json!({ "kind": failure.kind.name(), "text": failure.text }));
    }
    if std::io::stderr().is_terminal() {
        for (name, value) in &report {
            eprintln!("{name:>28}  {value}");
        }
    }
    print(&serde_json::Value::Object(report).to_string());
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("load: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// One line, or several, for whoever still reads standard output.
fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

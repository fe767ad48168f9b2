//! The `live-likes` binary: flags and environment, signals, exit code. See the library for everything else.

mod cli;

use cli::{Command, Settings};
use live_likes::{Error, Likes, Listening, Page, Server};
use std::{
    fmt::Display,
    io::{Write, stderr, stdout},
    process::ExitCode,
};

fn main() -> ExitCode {
    let settings = match cli::parse(std::env::args_os().skip(1), |name| std::env::var_os(name)) {
        Ok(Command::Serve(settings)) => settings,
        Ok(Command::Show(text)) => {
            say(text);
            return ExitCode::SUCCESS;
        }
        Err(problem) => return misused(problem),
    };
    logger::start(settings.log);
    match serve(*settings) {
        Ok(()) => ExitCode::SUCCESS,
        // What is a name, the library judges.
        Err(e @ Error::Name { .. }) => misused(e),
        Err(e) => {
            complain(e);
            ExitCode::FAILURE
        }
    }
}

fn misused(problem: impl Display) -> ExitCode {
    complain(format_args!("{problem}\ntry live-likes --help"));
    ExitCode::from(2)
}

fn serve(settings: Settings) -> Result<(), Error> {
    raise_descriptor_limit();
    let page = settings.page.as_ref().map(Page::open).transpose()?.unwrap_or_default();
    let likes = Likes::open(&settings.db)?;
    let mut server = Server::new(likes.clone()).page(page).limits(settings.limits);
    for name in settings.allow_hosts {
        server = server.allow_host(name);
    }
    for name in settings.allow_origins {
        server = server.allow_origin(name);
    }
    let mut listening = server.bind(settings.addr.as_str())?;
    if let Some(addr) = settings.metrics_addr {
        listening = listening.metrics_on(addr.as_str())?;
    }
    stop_on_signals(&listening)?;
    let (addr, count) = (listening.local_addr(), likes.count());
    say(format_args!("Live Likes at http://{addr}/ with {count} likes in {}", settings.db.display()));
    if let Some(addr) = listening.metrics_addr() {
        log::info!("metrics at http://{addr}/metrics");
    }
    if let Err(e) = listening.run() {
        // Dropped, the counter would wait once more for likes that have been given up.
        std::mem::forget(likes);
        return Err(e);
    }
    log::info!("stopped with {} likes saved", likes.count());
    Ok(())
}

/// The first SIGINT or SIGTERM stops the server gracefully, the second at once.
fn stop_on_signals(listening: &Listening) -> Result<(), Error> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let handle = listening.handle();
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]).map_err(Error::Listen)?;
    let wait = move || {
        let mut signals = signals.forever();
        if signals.next().is_some() {
            log::info!("stopping");
            handle.stop();
        }
        if let Some(signal) = signals.next() {
            std::process::exit(128 + signal);
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).map(drop).map_err(Error::Thread)
}

/// Each connection takes a descriptor, and the usual soft limit of 1,024 is there for programs that use `select`.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

/// `println!` would panic where standard output is closed or full.
fn say(text: impl Display) {
    let mut out = stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

fn complain(problem: impl Display) {
    let _ = writeln!(stderr().lock(), "live-likes: {problem}");
}

/// One line to standard error for each record.
mod logger {
    use std::io::{Write, stderr};

    struct Stderr;

    impl log::Log for Stderr {
        fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
            // tungstenite logs each frame.
            metadata.target().starts_with("live_likes")
        }

        fn log(&self, record: &log::Record<'_>) {
            if self.enabled(record.metadata()) {
                let level = record.level().as_str().to_ascii_lowercase();
                let _ = writeln!(stderr().lock(), "live-likes: {level}: {}", record.args());
            }
        }

        fn flush(&self) {}
    }

    /// Logs records up to a level.
    pub(crate) fn start(level: log::LevelFilter) {
        if log::set_logger(&Stderr).is_ok() {
            log::set_max_level(level);
        }
    }
}

//! The `live-likes` binary: a server for one counter, with what the command line asks for.

mod cli;

use cli::{Command, Settings, logger, signals};
use live_likes::{Error, Page, Posts, Server};
use std::{
    io::{Write, stderr, stdout},
    process::ExitCode,
};

/// The exit code for bad usage.
const BAD_USAGE: u8 = 2;

fn main() -> ExitCode {
    let settings = match cli::parse(std::env::args_os().skip(1), |name| std::env::var_os(name)) {
        Ok(Command::Serve(settings)) => settings,
        // `println!` would panic where the stream is closed or full.
        Ok(Command::Show(text)) => {
            let _ = writeln!(stdout(), "{text}");
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            let _ = writeln!(stderr(), "live-likes: {problem}\ntry live-likes --help");
            return ExitCode::from(BAD_USAGE);
        }
    };
    let code = match logger::start(settings.log).map_err(Error::Thread).and_then(|()| serve(*settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            logger::complain(&e);
            // What is a name, the library judges.
            if matches!(e, Error::Name { .. }) { ExitCode::from(BAD_USAGE) } else { ExitCode::FAILURE }
        }
    };
    log::logger().flush();
    code
}

fn serve(settings: Settings) -> Result<(), Error> {
    raise_descriptor_limit();
    let page = settings.page.as_ref().map(Page::open).transpose()?.unwrap_or_default();
    let posts = Posts::open(&settings.db)?;
    let likes = posts.default_counter()?;
    let mut server = Server::new(posts).page(page).limits(settings.limits);
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
    signals::listen(listening.handle()).map_err(Error::Thread)?;
    let (addr, count) = (listening.local_addr(), likes.count());
    logger::say(format_args!("Live Likes at http://{addr}/ with {count} likes in {}", settings.db.display()));
    if let Some(addr) = listening.metrics_addr() {
        log::info!("metrics at http://{addr}/metrics");
    }
    listening.run()?;
    log::info!("stopped with {} likes saved", likes.count());
    Ok(())
}

/// Each connection takes a descriptor, and the usual soft limit of 1,024 is there for programs that use `select`.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

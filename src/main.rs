//! The `live-likes` binary: a server with what the command line asks for.

mod cli;

use cli::{
    Addr, Asked, Settings,
    commands::{Invocation, Problem},
    logger, signals, systemd,
};
use live_likes::{AllowedPosts, Error, Listener, Listening, Page, Posts, Server, open_store};
use sd_notify::NotifyState;
use std::{
    io::{Write, stderr, stdout},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

/// The exit code for bad usage.
const BAD_USAGE: u8 = 2;

fn main() -> ExitCode {
    let _ = signals::survive_file_limit();
    let settings = match cli::parse(std::env::args_os().skip(1), |name| std::env::var_os(name)) {
        Ok(Asked::Serve(settings)) => settings,
        Ok(Asked::Run(command)) => return run(&command),
        // `println!` would panic where the stream is closed or full.
        Ok(Asked::Show(text)) => {
            let _ = writeln!(stdout(), "{text}");
            return ExitCode::SUCCESS;
        }
        Err(problem) => return bad_usage(&problem, "--help"),
    };
    if let Err(e) = logger::start(settings.log) {
        let _ = writeln!(stderr(), "live-likes: {}", Error::Thread(e));
        return ExitCode::FAILURE;
    }
    let code = match serve(*settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            logger::complain(&e);
            // What is a name, the library judges.
            if matches!(e, Error::Name { .. } | Error::Proxy { .. }) {
                ExitCode::from(BAD_USAGE)
            } else {
                ExitCode::FAILURE
            }
        }
    };
    log::logger().flush();
    code
}

fn bad_usage(problem: &str, help: &str) -> ExitCode {
    let _ = writeln!(stderr(), "live-likes: {problem}\ntry live-likes {help}");
    ExitCode::from(BAD_USAGE)
}

/// Runs a command to its end.
fn run(command: &Invocation) -> ExitCode {
    let started = logger::start(command.settings.log).map_err(|e| Problem::from(Error::Thread(e)));
    let result = started.and_then(|()| command.run());
    log::logger().flush();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Problem::Usage(problem)) => bad_usage(&problem, &format!("{} --help", command.command.name)),
        Err(Problem::Failed(problem)) => {
            let _ = writeln!(stderr(), "live-likes: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn serve(settings: Settings) -> Result<(), Error> {
    raise_descriptor_limit();
    let page = settings.page.as_ref().map(Page::open).transpose()?.unwrap_or_default();
    let allowed = settings.posts.as_ref().map(AllowedPosts::open).transpose()?;
    let posts = Posts::with_store(open_store(&settings.db, settings.store)?)?;
    let likes = posts.default_counter()?;
    let mut server = Server::new(posts).page(page).limits(settings.limits);
    if let Some(allowed) = &allowed {
        server = server.allow_posts(allowed.clone());
    }
    for name in settings.allow_hosts {
        server = server.allow_host(name);
    }
    for name in settings.allow_origins {
        server = server.allow_origin(name);
    }
    for name in settings.allow_frames {
        server = server.allow_frame(name);
    }
    for name in settings.trusted_proxies {
        server = server.trust_proxy(name);
    }
    if let Some(name) = settings.forwarded_header {
        server = server.forwarded_header(name);
    }
    let mut listening = listen(server, settings.addrs, settings.socket_mode)?;
    if let Some(addr) = settings.metrics_addr {
        listening = listening.metrics_on(addr.as_str())?;
    }
    let read_again = allowed
        .zip(settings.posts)
        .map(|(allowed, path)| -> signals::ReadAgain { Arc::new(move || read_again(&allowed, &path)) });
    signals::listen(listening.handle(), read_again).map_err(Error::Thread)?;
    let addresses: Vec<_> = listening.addresses().iter().map(ToString::to_string).collect();
    let (addresses, count) = (addresses.join(" and "), likes.count());
    logger::say(format_args!("Live Likes at {addresses} with {count} likes in {}", settings.db.display()));
    if let Some(addr) = listening.metrics_addr() {
        log::info!("metrics at http://{addr}/metrics");
    }
    let listening = systemd::watched(listening, likes.clone());
    systemd::tell(vec![NotifyState::Ready]);
    listening.run()?;
    log::info!("stopped with {} likes saved", likes.count());
    Ok(())
}

/// Listens on what systemd hands over, and on the addresses.
fn listen(server: Server, mut addrs: Vec<Addr>, mode: u32) -> Result<Listening, Error> {
    let mut listeners = systemd::listeners()?;
    if addrs.is_empty() && listeners.is_empty() {
        addrs.push(Addr::default());
    }
    for addr in addrs {
        listeners.push(match addr {
            Addr::Internet(addr) => Listener::bind(addr.as_str())?,
            Addr::Unix(path) => Listener::bind_unix(path, mode)?,
        });
    }
    let mut listeners = listeners.into_iter();
    let first = listeners.next().expect("at least the default address");
    listeners.try_fold(server.listen_on(first)?, Listening::and_on)
}

/// Reads the list of posts again. One that is not usable changes nothing.
fn read_again(allowed: &AllowedPosts, path: &Path) {
    match AllowedPosts::open(path) {
        Ok(list) => {
            allowed.replace(&list);
            log::info!("read the list of posts `{}` again", path.display());
        }
        Err(e) => log::error!("{e}; the posts that may exist stay the same"),
    }
}

/// Each connection takes a descriptor, and the usual soft limit of 1,024 is there for programs that use `select`.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

//! All flags, in one table: a row names, explains and reads a flag and its environment variable.

use super::{Addr, Settings, commands::COMMANDS, logger::Format};
use std::{fmt::Write, path::PathBuf, str::FromStr, time::Duration};

/// A flag. Its environment variable is `LIVE_LIKES_` and its name in capitals.
pub(super) struct Flag {
    pub(super) name: &'static str,
    /// What the help calls its value: `FILE`. A switch has none.
    pub(super) value: &'static str,
    pub(super) help: &'static str,
    /// Reads a value into the settings.
    pub(super) read: fn(&mut Settings, &str) -> Read,
}

/// An error says what is expected.
type Read = Result<(), &'static str>;

macro_rules! flag {
    ($name:literal, $value:literal, $($field:ident).+, $read:expr, $help:literal) => {
        Flag { name: $name, value: $value, help: $help, read: |settings, text| $read(&mut settings.$($field).+, text) }
    };
}

pub(super) const FLAGS: &[Flag] = &[
    flag!(
        "addr",
        "HOST:PORT|unix:FILE",
        addrs,
        addresses,
        "where to listen, may be repeated, or a list; if none, on what systemd hands over, or 127.0.0.1:3000"
    ),
    flag!("socket-mode", "MODE", socket_mode, mode, "mode of the file of unix:FILE: who may connect [660]"),
    flag!(
        "metrics-addr",
        "HOST:PORT",
        metrics_addr,
        some_address,
        "address of its own for /metrics, which is then answered there alone"
    ),
    flag!(
        "db",
        "FILE",
        db,
        file,
        "where likes are kept: *.db for many posts, in SQLite; redis://HOST:PORT/DB for several servers; else a text file for one [db.txt]"
    ),
    flag!(
        "posts",
        "FILE",
        posts,
        some_file,
        "the posts that may exist, one a line; * at the end of one for any ending"
    ),
    flag!("max-posts", "N", store.posts, number, "posts kept in *.db or Redis [100000]"),
    flag!("max-visitors", "N", store.visitors, number, "visitors kept in *.db or Redis, for each post anew [10000000]"),
    flag!("page", "FILE", page, some_file, "page to serve in place of the built-in one"),
    flag!(
        "allow-host",
        "NAME",
        allow_hosts,
        names,
        "further name of this host; may be repeated, or a list with commas"
    ),
    flag!(
        "allow-origin",
        "ORIGIN",
        allow_origins,
        names,
        "origin whose pages may like, such as https://blog.example; may be repeated, or a list"
    ),
    flag!(
        "trust-proxy",
        "CIDR",
        trusted_proxies,
        names,
        "proxies to believe, such as 10.0.0.0/8, or unix; may be repeated, or a list"
    ),
    flag!(
        "forwarded-header",
        "NAME",
        forwarded_header,
        some_name,
        "where they name the client's address: Forwarded, X-Real-IP, or else X-Forwarded-For"
    ),
    flag!(
        "allow-frame",
        "ORIGIN",
        allow_frames,
        names,
        "origin whose pages may show the page in a frame, or *; may be repeated, or a list"
    ),
    flag!("log", "LEVEL", log.level, level, "off, error, warn, info or debug, to standard error [info]"),
    flag!("log-format", "FORMAT", log.format, format, "text, or json: an object a line [text]"),
    flag!("access-log", "", log.access, switch, "log each request too: address, method, path, status, bytes, seconds"),
    flag!("connections", "N", limits.connections, number, "connections held at once [10000]"),
    flag!(
        "connections-per-address",
        "N",
        limits.connections_per_address,
        some_number,
        "connections of one address [unlimited]"
    ),
    flag!("head-bytes", "BYTES", limits.head_bytes, number, "request head [16384]"),
    flag!("target-bytes", "BYTES", limits.target_bytes, number, "request target [8192]"),
    flag!("headers", "N", limits.headers, number, "header fields of a request [64]"),
    flag!(
        "request-time",
        "SECONDS",
        limits.request_time,
        seconds,
        "for a whole request head, and again for its body [5]"
    ),
    flag!("body-bytes", "BYTES", limits.body_bytes, number, "request body [65536]"),
    flag!("keep-alive", "SECONDS", limits.keep_alive, seconds, "between two requests [15]"),
    flag!("message-bytes", "BYTES", limits.message_bytes, number, "WebSocket message [4096]"),
    flag!("fragments", "N", limits.fragments, number, "frames of a WebSocket message [64]"),
    flag!("ping-after", "SECONDS", limits.ping_after, seconds, "silence before a ping [25]"),
    flag!("pong-within", "SECONDS", limits.pong_within, seconds, "for an answer to a ping [10]"),
    flag!("write-deadline", "SECONDS", limits.write_deadline, seconds, "a client may go without reading [10]"),
    flag!("close-within", "SECONDS", limits.close_within, seconds, "for a peer to finish closing [2]"),
    flag!("posts-per-client", "N", limits.posts_per_client, number, "posts that a WebSocket client may watch [100]"),
    flag!("likes-per-connection", "N", limits.likes_per_connection, some_number, "likes of one connection [unlimited]"),
    flag!(
        "likes-per-second",
        "N",
        limits.likes_per_second_and_address,
        some_number,
        "likes a second of one address [unlimited]"
    ),
    flag!(
        "new-posts-per-hour",
        "N",
        limits.new_posts_per_hour_and_address,
        number,
        "posts that one address may be the first to like [20]"
    ),
    flag!("stop-within", "SECONDS", limits.stop_within, seconds, "for a graceful stop [5]"),
];

/// What hosting platforms set; they reach no loopback address.
pub(super) const PORT: Flag = flag!("", "PORT", addrs, any_address, "");

fn addresses(field: &mut Vec<Addr>, text: &str) -> Read {
    for name in text.split(',').map(str::trim) {
        let mut addr = String::new();
        field.push(match name.strip_prefix("unix:") {
            Some(path) if !path.is_empty() => Addr::Unix(path.into()),
            None if address(&mut addr, name).is_ok() => Addr::Internet(addr),
            _ => return Err("HOST:PORT with a port from 0 to 65535, or unix:FILE"),
        });
    }
    Ok(())
}

fn mode(field: &mut u32, text: &str) -> Read {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    *field = mode.ok_or("a mode such as 660")?;
    Ok(())
}

fn address(field: &mut String, text: &str) -> Read {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => text.clone_into(field),
        _ => return Err("HOST:PORT, with a port from 0 to 65535"),
    }
    Ok(())
}

fn some_address(field: &mut Option<String>, text: &str) -> Read {
    address(field.get_or_insert_default(), text)
}

fn any_address(field: &mut Vec<Addr>, port: &str) -> Read {
    let port: u16 = port.parse().map_err(|_| "a port from 0 to 65535")?;
    field.push(Addr::Internet(format!("0.0.0.0:{port}")));
    Ok(())
}

fn file(field: &mut PathBuf, text: &str) -> Read {
    *field = text.into();
    Ok(())
}

fn some_file(field: &mut Option<PathBuf>, text: &str) -> Read {
    *field = Some(text.into());
    Ok(())
}

fn some_name(field: &mut Option<String>, text: &str) -> Read {
    *field = Some(text.to_owned());
    Ok(())
}

fn names(field: &mut Vec<String>, text: &str) -> Read {
    field.extend(text.split(',').map(|name| name.trim().to_owned()));
    Ok(())
}

fn level(field: &mut log::LevelFilter, text: &str) -> Read {
    *field = text.parse().map_err(|_| "off, error, warn, info or debug")?;
    Ok(())
}

fn format(field: &mut Format, text: &str) -> Read {
    *field = match text {
        "text" => Format::Text,
        "json" => Format::Json,
        _ => return Err("text or json"),
    };
    Ok(())
}

fn switch(field: &mut bool, text: &str) -> Read {
    *field = match text {
        "on" => true,
        "off" => false,
        _ => return Err("on or off"),
    };
    Ok(())
}

fn number<T: FromStr>(field: &mut T, text: &str) -> Read {
    *field = text.parse().map_err(|_| "a whole number")?;
    Ok(())
}

fn some_number<T: FromStr + Default>(field: &mut Option<T>, text: &str) -> Read {
    number(field.get_or_insert_default(), text)
}

fn seconds(field: &mut Duration, text: &str) -> Read {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    *field = seconds.ok_or("a number of seconds")?;
    Ok(())
}

impl Flag {
    /// Whether its name alone turns something on.
    pub(super) fn is_switch(&self) -> bool {
        self.value.is_empty()
    }

    /// The name of its environment variable.
    pub(super) fn variable(&self) -> String {
        format!("LIVE_LIKES_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }
}

pub(super) fn help() -> String {
    let mut commands = String::new();
    for command in COMMANDS {
        add(&mut commands, &command.usage(), command.does);
    }
    let flags: Vec<_> = FLAGS.iter().map(|flag| flag.name).collect();
    let mut flags = lines(&flags);
    add(&mut flags, "-h, --help", "this text, or that of a command");
    add(&mut flags, "-V, --version", "the version");
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "live-likes {version}\nServes a like counter: the page at /, the count in a file, each like on every open page \
         at once.\n\nUsage: live-likes [FLAG ...]\n       live-likes COMMAND [FLAG ...]\n\n\
         {flags}\nCommands, beside a running server or without one:\n\n{commands}\n\
         What no flag sets is taken from the environment: LIVE_LIKES_ADDR stands for --addr, and so on. With PORT \
         alone,\nas hosting platforms set it, the server listens on 0.0.0.0:PORT.\n\n\
         SIGINT and SIGTERM stop the server gracefully, and a second one at once. SIGHUP stops a server that was \
         started\nin a terminal; any other reads the file of --posts again.\n\n\
         The exit code is 0 after a graceful stop, 1 for an error, 2 for bad usage."
    )
}

/// The lines of the help for these flags.
pub(super) fn lines(names: &[&str]) -> String {
    let mut text = String::new();
    for flag in FLAGS.iter().filter(|flag| names.contains(&flag.name)) {
        add(&mut text, &format!("--{} {}", flag.name, flag.value), flag.help);
    }
    text
}

fn add(text: &mut String, what: &str, help: &str) {
    let _ = writeln!(text, "  {what:<31} {help}");
}

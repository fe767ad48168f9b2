//! The flags and their environment twins, in one table: each flag is parsed, documented and read from the environment
//! by the same line of it.

use live_likes::{Error, Limits};
use std::{ffi::OsString, fmt::Write, path::PathBuf, time::Duration};

/// What the command line asks for.
pub(crate) enum Command {
    Serve(Box<Settings>),
    /// `--help` or `--version`: this text.
    Show(String),
}

/// What the server is to be.
#[derive(Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) addr: String,
    pub(crate) metrics_addr: Option<String>,
    pub(crate) db: PathBuf,
    pub(crate) page: Option<PathBuf>,
    pub(crate) allow_hosts: Vec<String>,
    pub(crate) allow_origins: Vec<String>,
    pub(crate) log: log::LevelFilter,
    pub(crate) limits: Limits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            addr: "127.0.0.1:3000".to_owned(),
            metrics_addr: None,
            db: "db.txt".into(),
            page: None,
            allow_hosts: Vec::new(),
            allow_origins: Vec::new(),
            log: log::LevelFilter::Info,
            limits: Limits::default(),
        }
    }
}

/// One flag. Its environment twin is `LIVE_LIKES_` and its name, in capitals.
struct Flag {
    name: &'static str,
    value: &'static str,
    help: &'static str,
    set: fn(&mut Settings, &str) -> Result<(), String>,
}

macro_rules! limit {
    ($name:literal, $value:literal, $field:ident, $read:expr, $help:literal) => {
        Flag {
            name: $name,
            value: $value,
            help: $help,
            set: |settings, text| {
                settings.limits.$field = $read(text)?;
                check(&settings.limits)
            },
        }
    };
}

const FLAGS: &[Flag] = &[
    Flag {
        name: "addr",
        value: "HOST:PORT",
        help: "address to listen on; port 0 takes a free one [127.0.0.1:3000]",
        set: |settings, text| {
            settings.addr = addr(text)?;
            Ok(())
        },
    },
    Flag {
        name: "metrics-addr",
        value: "HOST:PORT",
        help: "address of its own for /metrics, which is then answered there alone",
        set: |settings, text| {
            settings.metrics_addr = Some(addr(text)?);
            Ok(())
        },
    },
    Flag {
        name: "db",
        value: "FILE",
        help: "file that holds the count; created if missing [db.txt]",
        set: |settings, text| {
            settings.db = text.into();
            Ok(())
        },
    },
    Flag {
        name: "page",
        value: "FILE",
        help: "page to serve instead of the built-in one",
        set: |settings, text| {
            settings.page = Some(text.into());
            Ok(())
        },
    },
    Flag {
        name: "allow-host",
        value: "NAME",
        help: "host name to answer to as well; may be repeated, or a list with commas",
        set: |settings, text| {
            settings.allow_hosts.extend(text.split(',').map(|name| name.trim().to_owned()));
            Ok(())
        },
    },
    Flag {
        name: "allow-origin",
        value: "ORIGIN",
        help: "origin whose pages may like, such as https://blog.example; may be repeated, or a list",
        set: |settings, text| {
            settings.allow_origins.extend(text.split(',').map(|name| name.trim().to_owned()));
            Ok(())
        },
    },
    Flag {
        name: "log",
        value: "LEVEL",
        help: "off, error, warn, info or debug, to standard error [info]",
        set: |settings, text| {
            settings.log =
                text.parse().map_err(|_| "a level is expected: off, error, warn, info or debug".to_owned())?;
            Ok(())
        },
    },
    limit!("connections", "N", connections, number, "connections held at once [10000]"),
    limit!("head-bytes", "BYTES", head_bytes, number, "request head [16384]"),
    limit!("target-bytes", "BYTES", target_bytes, number, "request target [8192]"),
    limit!("headers", "N", headers, number, "header fields of a request [64]"),
    limit!("request-time", "SECONDS", request_time, seconds, "for a whole request head, and again for its body [5]"),
    limit!("body-bytes", "BYTES", body_bytes, number, "request body, which is thrown away [65536]"),
    limit!("keep-alive", "SECONDS", keep_alive, seconds, "between two requests [15]"),
    limit!("message-bytes", "BYTES", message_bytes, number, "WebSocket message [4096]"),
    limit!("fragments", "N", fragments, number, "frames of a WebSocket message [64]"),
    limit!("ping-after", "SECONDS", ping_after, seconds, "silence before a ping [25]"),
    limit!("pong-within", "SECONDS", pong_within, seconds, "for an answer to a ping [10]"),
    limit!("write-deadline", "SECONDS", write_deadline, seconds, "a client may go without reading [10]"),
    limit!("close-within", "SECONDS", close_within, seconds, "for a peer to finish closing [2]"),
    limit!("likes-per-connection", "N", likes_per_connection, some_number, "likes of one connection [unlimited]"),
    limit!(
        "likes-per-second",
        "N",
        likes_per_second_and_address,
        some_number,
        "likes a second of one address [unlimited]"
    ),
    limit!("stop-within", "SECONDS", stop_within, seconds, "for a graceful stop [5]"),
];

fn addr(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').ok_or("HOST:PORT is expected")?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err("HOST:PORT is expected, with a port up to 65535".to_owned());
    }
    Ok(text.to_owned())
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "a whole number is expected".to_owned())
}

fn some_number<T: std::str::FromStr>(text: &str) -> Result<Option<T>, String> {
    number(text).map(Some)
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| "a number of seconds is expected".to_owned())
}

/// The limit that was just set is the only one that can be wrong.
fn check(limits: &Limits) -> Result<(), String> {
    limits.check().map_err(|e| match e {
        Error::Limit { expected, .. } => format!("{expected} is expected"),
        e => e.to_string(),
    })
}

/// Reads arguments (without the program's name) and environment: flag before environment before default.
pub(crate) fn parse(
    arguments: impl Iterator<Item = OsString>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Command, String> {
    let mut settings = Settings::default();
    let mut given = Vec::new();
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next().map_err(|e| e.to_string())? {
        match argument {
            lexopt::Arg::Short('h') | lexopt::Arg::Long("help") => return Ok(Command::Show(help())),
            lexopt::Arg::Short('V') | lexopt::Arg::Long("version") => {
                return Ok(Command::Show(concat!("live-likes ", env!("CARGO_PKG_VERSION")).to_owned()));
            }
            lexopt::Arg::Long(name) => {
                let flag = FLAGS.iter().find(|flag| flag.name == name).ok_or_else(|| format!("--{name} is no flag"))?;
                let value = parser.value().map_err(|e| e.to_string())?;
                set(flag, &mut settings, &value, &format!("--{}", flag.name))?;
                given.push(flag.name);
            }
            other => return Err(other.unexpected().to_string()),
        }
    }
    // A variable that is empty counts as not set.
    let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
    for flag in FLAGS.iter().filter(|flag| !given.contains(&flag.name)) {
        let name = variable_of(flag);
        match variable(&name) {
            Some(value) => set(flag, &mut settings, &value, &name)?,
            None if flag.name == "addr" => {
                if let Some(port) = variable("PORT") {
                    let port = port.to_string_lossy();
                    set(flag, &mut settings, format!("127.0.0.1:{port}").as_ref(), "PORT")?;
                }
            }
            None => {}
        }
    }
    Ok(Command::Serve(Box::new(settings)))
}

fn set(flag: &Flag, settings: &mut Settings, value: &std::ffi::OsStr, source: &str) -> Result<(), String> {
    let problem = |problem: &str| format!("{source} cannot be `{}`: {problem}", value.display());
    let text = value.to_str().ok_or_else(|| problem("it is not UTF-8"))?;
    if text.is_empty() {
        return Err(format!("{source} is empty; {} is expected", flag.value));
    }
    (flag.set)(settings, text).map_err(|e| problem(&e))
}

fn variable_of(flag: &Flag) -> String {
    format!("LIVE_LIKES_{}", flag.name.to_ascii_uppercase().replace('-', "_"))
}

fn help() -> String {
    let mut text = concat!(
        "live-likes ",
        env!("CARGO_PKG_VERSION"),
        "\nServes a like counter: the page at /, the count in a file, each like on every open page at once.\n\n",
        "Usage: live-likes [FLAG ...]\n\n"
    )
    .to_owned();
    let mut line = |flag: &str, help: &str| _ = writeln!(text, "  {flag:<31} {help}");
    for flag in FLAGS {
        line(&format!("--{} {}", flag.name, flag.value), flag.help);
    }
    line("-h, --help", "this text");
    line("-V, --version", "the version");
    text.push_str(concat!(
        "\nThe environment serves too: LIVE_LIKES_ADDR for --addr, and so on; PORT alone sets the port on 127.0.0.1.\n",
        "A flag goes before the environment. Exit: 0 after SIGINT or SIGTERM, 1 for an error, 2 for bad usage."
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Settings, String> {
        let variable = |name: &str| environment.iter().find(|(other, _)| *other == name).map(|(_, value)| value.into());
        match parse(arguments.iter().map(OsString::from), variable)? {
            Command::Serve(settings) => Ok(*settings),
            Command::Show(text) => Err(text),
        }
    }

    #[test]
    fn without_anything_the_defaults_hold() {
        assert_eq!(settings(&[], &[]).unwrap(), Settings::default());
        assert_eq!(settings(&[], &[("LIVE_LIKES_ADDR", ""), ("PORT", "")]).unwrap(), Settings::default());
    }

    #[test]
    fn a_flag_goes_before_the_environment_and_that_before_port_and_the_default() {
        let addr = |arguments: &[&str], environment: &[(&str, &str)]| settings(arguments, environment).unwrap().addr;
        let (own, port) = (("LIVE_LIKES_ADDR", "[::1]:2"), ("PORT", "3"));
        assert_eq!(addr(&["--addr", "0.0.0.0:1"], &[own, port]), "0.0.0.0:1");
        assert_eq!(addr(&["--addr=0.0.0.0:1"], &[own, port]), "0.0.0.0:1");
        assert_eq!(addr(&[], &[own, port]), "[::1]:2");
        assert_eq!(addr(&[], &[port]), "127.0.0.1:3");
    }

    #[test]
    fn every_flag_and_its_twin_change_the_same_setting() {
        for flag in FLAGS {
            let value = match flag.value {
                "HOST:PORT" => "localhost:0",
                "LEVEL" => "debug",
                "FILE" | "NAME" | "ORIGIN" => "other.example",
                _ => "300",
            };
            let by_flag = settings(&[&format!("--{}", flag.name), value], &[]).unwrap();
            let by_variable = settings(&[], &[(&variable_of(flag), value)]).unwrap();
            assert_ne!(by_flag, Settings::default(), "{}", flag.name);
            assert_eq!(by_flag, by_variable, "{}", flag.name);
        }
    }

    #[test]
    fn names_may_be_repeated_or_listed() {
        let settings = settings(&["--allow-host", "a,b", "--allow-host=c"], &[("LIVE_LIKES_ALLOW_HOST", "d")]).unwrap();
        assert_eq!(settings.allow_hosts, ["a", "b", "c"]);
    }

    #[test]
    fn what_is_no_value_is_refused_by_name() {
        for (arguments, told) in [
            (&["--addr", "3000"][..], "--addr cannot be `3000`"),
            (&["--addr", "localhost:port"], "--addr cannot be `localhost:port`"),
            (&["--addr", "localhost:65536"], "--addr cannot be"),
            (&["--addr", ":3000"], "--addr cannot be"),
            (&["--connections", "0"], "--connections cannot be `0`"),
            (&["--connections", "-1"], "--connections cannot be `-1`"),
            (&["--connections", "many"], "--connections cannot be"),
            (&["--keep-alive", "0"], "--keep-alive cannot be `0`"),
            (&["--keep-alive", "NaN"], "--keep-alive cannot be"),
            (&["--keep-alive", "inf"], "--keep-alive cannot be"),
            (&["--keep-alive", "1e99"], "--keep-alive cannot be"),
            (&["--likes-per-second", "0"], "--likes-per-second cannot be"),
            (&["--log", "loud"], "--log cannot be `loud`"),
            (&["--db", ""], "--db is empty"),
            (&["--db"], "missing argument"),
            (&["--nonsense"], "--nonsense is no flag"),
            (&["-x"], "-x"),
            (&["db.txt"], "db.txt"),
        ] {
            let problem = settings(arguments, &[]).unwrap_err();
            assert!(problem.contains(told), "{problem} should contain {told}");
        }
        let problem = settings(&[], &[("LIVE_LIKES_KEEP_ALIVE", "soon")]).unwrap_err();
        assert!(problem.contains("LIVE_LIKES_KEEP_ALIVE cannot be `soon`"), "{problem}");
    }

    #[test]
    fn the_help_names_every_flag_with_the_default_that_holds() {
        let help = help();
        for flag in FLAGS {
            assert!(help.contains(&format!("--{} {}", flag.name, flag.value)), "{}", flag.name);
            // A default that is written in brackets is the default: setting it changes nothing.
            if let Some((_, default)) = flag.help.trim_end_matches(']').rsplit_once('[')
                && default != "unlimited"
            {
                let set = settings(&[&format!("--{}", flag.name), default], &[]).unwrap();
                assert_eq!(set, Settings::default(), "{}", flag.name);
            }
        }
    }
}

//! The settings of the server, read from the command line and the environment.

use super::{
    commands::{COMMANDS, Command, Invocation},
    flags::{FLAGS, Flag, PORT, help, lines},
    logger,
};
use lexopt::Arg;
use live_likes::{Error, Limits, StoreLimits};
use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

/// What the command line asks for.
pub(crate) enum Asked {
    /// A server with these settings.
    Serve(Box<Settings>),
    /// A command of the operator's.
    Run(Box<Invocation>),
    /// This text, for `--help` and `--version`.
    Show(String),
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Addr {
    Internet(String),
    Unix(PathBuf),
}

impl Default for Addr {
    fn default() -> Self {
        Self::Internet("127.0.0.1:3000".to_owned())
    }
}

/// What the flags and the environment set.
#[derive(Debug, PartialEq)]
pub(crate) struct Settings {
    /// Where to listen; where none is given, on what systemd hands over, or else on [`Addr::default`].
    pub(crate) addrs: Vec<Addr>,
    /// The mode of Unix sockets.
    pub(crate) socket_mode: u32,
    pub(crate) metrics_addr: Option<String>,
    pub(crate) db: PathBuf,
    pub(crate) store: StoreLimits,
    /// The file with the posts that may exist.
    pub(crate) posts: Option<PathBuf>,
    pub(crate) page: Option<PathBuf>,
    pub(crate) allow_hosts: Vec<String>,
    pub(crate) allow_origins: Vec<String>,
    pub(crate) trusted_proxies: Vec<String>,
    pub(crate) forwarded_header: Option<String>,
    pub(crate) allow_frames: Vec<String>,
    pub(crate) log: logger::Settings,
    pub(crate) limits: Limits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            addrs: Vec::new(),
            socket_mode: 0o660,
            metrics_addr: None,
            db: "db.txt".into(),
            store: StoreLimits::default(),
            posts: None,
            page: None,
            allow_hosts: Vec::new(),
            allow_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            forwarded_header: None,
            allow_frames: Vec::new(),
            log: logger::Settings::DEFAULT,
            limits: Limits::default(),
        }
    }
}

/// Reads the arguments, without the program's name, and the environment for the flags that are not among them.
///
/// # Errors
///
/// A line for the user: the flag or variable, its value, and what is expected.
pub(crate) fn parse(
    arguments: impl Iterator<Item = OsString>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Asked, String> {
    let mut settings = Settings::default();
    let mut given = Vec::new();
    let mut command: Option<&'static Command> = None;
    let (mut operands, mut visitors) = (Vec::new(), false);
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next().map_err(|e| e.to_string())? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => {
                return Ok(Asked::Show(command.map_or_else(help, |command| command.help(&lines(command.flags)))));
            }
            Arg::Short('V') | Arg::Long("version") => {
                return Ok(Asked::Show(concat!("live-likes ", env!("CARGO_PKG_VERSION")).to_owned()));
            }
            Arg::Long("visitors") if command.is_some_and(Command::takes_visitors) => visitors = true,
            Arg::Long(name) => {
                let flag =
                    FLAGS.iter().find(|flag| flag.name == name).ok_or_else(|| format!("unknown flag --{name}"))?;
                let source = format!("--{name}");
                // Without one, the value that is missing is empty; that of a switch is `on`.
                let value = if flag.is_switch() {
                    parser.optional_value().unwrap_or_else(|| "on".into())
                } else {
                    parser.value().unwrap_or_default()
                };
                set(&mut settings, flag, &source, &value)?;
                given.push(flag.name);
            }
            Arg::Short(name) => return Err(format!("unknown flag -{name}")),
            Arg::Value(value) => {
                let text = value.to_str().ok_or_else(|| format!("argument `{}` is not UTF-8", value.display()))?;
                if command.is_some() {
                    operands.push(text.to_owned());
                } else {
                    command = COMMANDS.iter().find(|command| command.name == text);
                    command.ok_or_else(|| format!("unexpected argument `{text}`: a command or a flag is expected"))?;
                }
            }
        }
    }
    let has_meaning = |name: &&str| command.is_none_or(|command| command.flags.contains(name));
    if let Some(name) = given.iter().find(|name| !has_meaning(name)) {
        return Err(format!("--{name} is for the server alone"));
    }
    // An empty variable counts as not set.
    let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
    for flag in FLAGS.iter().filter(|flag| has_meaning(&flag.name) && !given.contains(&flag.name)) {
        if let Some(value) = variable(&flag.variable()) {
            set(&mut settings, flag, &flag.variable(), &value)?;
        } else if flag.name == "addr"
            && let Some(port) = variable("PORT")
        {
            set(&mut settings, &PORT, "PORT", &port)?;
        }
    }
    let Some(command) = command else { return Ok(Asked::Serve(Box::new(settings))) };
    command.check(&operands)?;
    Ok(Asked::Run(Box::new(Invocation { command, operands, visitors, settings })))
}

/// Sets what a flag sets, to the value that came from this source.
fn set(settings: &mut Settings, flag: &Flag, source: &str, value: &OsStr) -> Result<(), String> {
    if value.is_empty() {
        return Err(format!("{source} needs a value: {}", flag.value));
    }
    let invalid = |expected: &str| format!("invalid value `{}` for {source}: expected {expected}", value.display());
    let text = value.to_str().ok_or_else(|| invalid("valid UTF-8"))?;
    (flag.read)(settings, text).map_err(invalid)?;
    settings.limits.check().map_err(|e| match e {
        Error::Limit { expected, .. } => invalid(&expected),
        e => e.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Settings, String> {
        let variable = |name: &str| environment.iter().find(|(other, _)| *other == name).map(|(_, value)| value.into());
        match parse(arguments.iter().map(OsString::from), variable)? {
            Asked::Serve(settings) => Ok(*settings),
            Asked::Run(command) => Err(format!("{command:?}")),
            Asked::Show(text) => Err(text),
        }
    }

    #[test]
    fn nothing_given_leaves_the_defaults() {
        assert_eq!(settings(&[], &[]).unwrap(), Settings::default());
        assert_eq!(settings(&[], &[("LIVE_LIKES_ADDR", ""), ("PORT", "")]).unwrap(), Settings::default());
    }

    #[test]
    fn a_flag_goes_before_the_environment_and_that_before_port_and_the_default() {
        let addr = |arguments: &[&str], environment: &[(&str, &str)]| match &settings(arguments, environment)
            .unwrap()
            .addrs[..]
        {
            [Addr::Internet(addr)] => addr.clone(),
            other => panic!("{other:?}"),
        };
        let (own, port) = (("LIVE_LIKES_ADDR", "[::1]:2"), ("PORT", "3"));
        assert_eq!(addr(&["--addr", "0.0.0.0:1"], &[own, port]), "0.0.0.0:1");
        assert_eq!(addr(&["--addr=0.0.0.0:1"], &[own, port]), "0.0.0.0:1");
        assert_eq!(addr(&[], &[own, port]), "[::1]:2");
        assert_eq!(addr(&["--addr", "0.0.0.0:1"], &[("PORT", "none")]), "0.0.0.0:1");
        assert_eq!(addr(&[], &[port]), "0.0.0.0:3", "no platform that sets it reaches a loopback address");
    }

    #[test]
    fn every_flag_and_its_variable_change_the_same_setting() {
        for flag in FLAGS {
            let value = match flag.value {
                "HOST:PORT" | "HOST:PORT|unix:FILE" => "localhost:0",
                "CIDR" | "NAME" | "FILE" | "ORIGIN" => "other.example",
                "MODE" => "600",
                "LEVEL" => "debug",
                "FORMAT" => "json",
                "" => "on",
                _ => "300",
            };
            let by_flag = match flag.is_switch() {
                true => settings(&[&format!("--{}", flag.name)], &[]),
                false => settings(&[&format!("--{}", flag.name), value], &[]),
            };
            let by_flag = by_flag.unwrap();
            let by_variable = settings(&[], &[(&flag.variable(), value)]).unwrap();
            assert_ne!(by_flag, Settings::default(), "{}", flag.name);
            assert_eq!(by_flag, by_variable, "{}", flag.name);
        }
    }

    #[test]
    fn a_switch_is_turned_on_by_its_name_and_off_by_a_value() {
        let access = |arguments: &[&str], value| {
            settings(arguments, &[("LIVE_LIKES_ACCESS_LOG", value)]).map(|settings| settings.log.access)
        };
        assert_eq!(access(&["--access-log", "--log", "off"], ""), Ok(true));
        assert_eq!(access(&["--access-log=off"], "on"), Ok(false));
        assert_eq!([access(&[], "on"), access(&[], "off")], [Ok(true), Ok(false)]);
        assert!(access(&["--access-log", "on"], "").unwrap_err().contains("unexpected argument `on`"));
        let told = "invalid value `maybe` for LIVE_LIKES_ACCESS_LOG: expected on or off";
        assert_eq!(access(&[], "maybe").unwrap_err(), told);
    }

    #[test]
    fn names_may_be_repeated_or_listed() {
        let settings = settings(&["--allow-host", "a,b", "--allow-host=c"], &[("LIVE_LIKES_ALLOW_HOST", "d")]).unwrap();
        assert_eq!(settings.allow_hosts, ["a", "b", "c"]);
    }

    #[test]
    fn addresses_may_be_repeated_or_listed() {
        let wanted = [
            Addr::Internet("127.0.0.1:0".to_owned()),
            Addr::Unix("/run/x.sock".into()),
            Addr::Internet("[::1]:0".to_owned()),
        ];
        let flags = ["--addr", "127.0.0.1:0, unix:/run/x.sock", "--addr=[::1]:0"];
        assert_eq!(settings(&flags, &[("LIVE_LIKES_ADDR", "0.0.0.0:1")]).unwrap().addrs, wanted);
        let variable = ("LIVE_LIKES_ADDR", "127.0.0.1:0,unix:/run/x.sock,[::1]:0");
        assert_eq!(settings(&[], &[variable, ("PORT", "1")]).unwrap().addrs, wanted);
    }

    #[test]
    fn a_bad_value_is_refused_with_its_flag_and_what_is_expected() {
        for (arguments, told) in [
            (
                &["--addr", "3000"][..],
                "invalid value `3000` for --addr: expected HOST:PORT with a port from 0 to 65535, or unix:FILE",
            ),
            (&["--addr", "unix:"], "invalid value `unix:` for --addr"),
            (&["--addr", "127.0.0.1:0,,"], "for --addr"),
            (&["--socket-mode", "rw"], "invalid value `rw` for --socket-mode: expected a mode such as 660"),
            (&["--socket-mode", "1660"], "for --socket-mode"),
            (&["--connections-per-address", "0"], "for --connections-per-address: expected 1"),
            (&["--addr", "localhost:port"], "invalid value `localhost:port` for --addr: expected HOST:PORT"),
            (&["--addr", "localhost:65536"], "for --addr"),
            (&["--addr", ":3000"], "for --addr"),
            (&["--connections", "0"], "invalid value `0` for --connections: expected 1 to 1000000"),
            (&["--connections", "-1"], "invalid value `-1` for --connections"),
            (&["--connections", "many"], "invalid value `many` for --connections"),
            (&["--body-bytes", "-1"], "invalid value `-1` for --body-bytes: expected a whole number"),
            (&["--keep-alive", "0"], "invalid value `0` for --keep-alive: expected 1ms to 86400s"),
            (&["--keep-alive", "NaN"], "for --keep-alive"),
            (&["--keep-alive", "inf"], "for --keep-alive"),
            (&["--keep-alive", "1e99"], "for --keep-alive"),
            (&["--likes-per-second", "0"], "invalid value `0` for --likes-per-second: expected 1"),
            (&["--log", "loud"], "invalid value `loud` for --log: expected off, error, warn, info or debug"),
            (&["--log-format", "xml"], "invalid value `xml` for --log-format: expected text or json"),
            (&["--db", ""], "--db needs a value: FILE"),
            (&["--db"], "--db needs a value: FILE"),
            (&["--nonsense"], "unknown flag --nonsense"),
            (&["-x"], "unknown flag -x"),
            (&["db.txt"], "unexpected argument `db.txt`"),
        ] {
            let problem = settings(arguments, &[]).unwrap_err();
            assert!(problem.contains(told), "{problem} should contain {told}");
        }
        for (variable, told) in [
            (("LIVE_LIKES_KEEP_ALIVE", "soon"), "invalid value `soon` for LIVE_LIKES_KEEP_ALIVE: expected a number"),
            (("PORT", "http"), "invalid value `http` for PORT: expected a port from 0 to 65535"),
        ] {
            let problem = settings(&[], &[variable]).unwrap_err();
            assert!(problem.contains(told), "{problem} should contain {told}");
        }
        let bytes = std::os::unix::ffi::OsStrExt::from_bytes(b"\xff");
        let problem = parse(["--db".into(), OsStr::to_owned(bytes)].into_iter(), |_| None).err().unwrap();
        assert!(problem.contains("for --db: expected valid UTF-8"), "{problem}");
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

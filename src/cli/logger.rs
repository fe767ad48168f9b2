//! What the server writes to standard error and standard output, by a thread of its own.
//!
//! Nobody need read it: a line is put on a queue, and when the queue is full it is dropped and counted. A line is text,
//! or a JSON object.
//!
//! What must never happen here: another thread that waits until a line is written.

use log::kv::{Key, Source, VisitSource};
use serde_json::Value;
use std::{
    collections::VecDeque,
    fmt::{Display, Write as _},
    io::{self, Write, stderr, stdout},
    sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, SystemTime},
};

/// Lines that may wait.
const MOST_LINES: usize = 1024;

/// Time that the end of the process waits for them.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

/// The target of the records of the access log.
const ACCESS: &str = "live_likes::access";

/// What is logged, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) level: log::LevelFilter,
    pub(crate) format: Format,
    /// Whether there is a line for each request.
    pub(crate) access: bool,
}

impl Settings {
    pub(crate) const DEFAULT: Self = Self { level: log::LevelFilter::Info, format: Format::Text, access: false };
}

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Format {
    Text,
    Json,
}

static SETTINGS: OnceLock<Settings> = OnceLock::new();

static QUEUE: Queue =
    Queue { state: Mutex::new(State { lines: VecDeque::new(), dropped: 0, writing: false }), changed: Condvar::new() };

struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    lines: VecDeque<Line>,
    /// Lines that found no room since the queue was last empty. While there are any, all others are dropped too, so
    /// that their number is told in their place.
    dropped: u64,
    /// Whether a line is being written.
    writing: bool,
}

enum Line {
    Out(String),
    Error(String),
}

/// Starts the thread, and logs what is asked for.
pub(crate) fn start(settings: Settings) -> io::Result<()> {
    let _ = SETTINGS.set(settings);
    super::start_thread("logger", Box::new(|| QUEUE.write()))?;
    // The usual one writes to standard error itself, from the thread that panics.
    std::panic::set_hook(Box::new(|panic| complain(panic)));
    if log::set_logger(&QUEUE).is_ok() {
        log::set_max_level(if settings.access { log::LevelFilter::Debug } else { settings.level });
    }
    Ok(())
}

/// Writes a line to standard output.
pub(crate) fn say(text: impl Display) {
    QUEUE.push(Line::Out(match settings().format {
        Format::Text => format!("{text}\n"),
        Format::Json => json("info", text, None),
    }));
}

/// Writes an error to standard error, whatever the level.
pub(crate) fn complain(problem: impl Display) {
    QUEUE.push(Line::stamped("error", problem, None));
}

fn settings() -> &'static Settings {
    SETTINGS.get().unwrap_or(&Settings::DEFAULT)
}

/// The time in UTC, as RFC 3339 writes it.
fn now() -> impl Display {
    humantime::format_rfc3339_millis(SystemTime::now())
}

/// A line that is a JSON object: `time`, `level` and `message`, and what further fields there are.
fn json(level: &str, message: impl Display, fields: Option<&dyn Source>) -> String {
    let message = Value::from(message.to_string());
    let mut line = format!("{{\"time\":\"{}\",\"level\":\"{level}\",\"message\":{message}", now());
    if let Some(fields) = fields {
        // A visitor that does not fail.
        let _ = fields.visit(&mut Members(&mut line));
    }
    line + "}\n"
}

/// Writes fields as the members of an object.
struct Members<'l>(&'l mut String);

impl<'kvs> VisitSource<'kvs> for Members<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: log::kv::Value<'kvs>) -> Result<(), log::kv::Error> {
        let value = match (value.to_u64(), value.to_f64()) {
            (Some(number), _) => number.into(),
            (None, Some(number)) => number.into(),
            _ => Value::from(value.to_string()),
        };
        let _ = write!(self.0, ",{}:{value}", Value::from(key.as_str()));
        Ok(())
    }
}

impl State {
    fn next(&mut self) -> Option<Line> {
        self.lines.pop_front().or_else(|| match std::mem::take(&mut self.dropped) {
            0 => None,
            number => Some(Line::stamped("warn", format_args!("dropped {number} lines that nobody read"), None)),
        })
    }
}

impl Line {
    /// A line with the time.
    fn stamped(level: &str, text: impl Display, fields: Option<&dyn Source>) -> Self {
        Self::Error(match settings().format {
            Format::Text => format!("{} {level}: {text}", now()).replace('\n', " ") + "\n",
            Format::Json => json(level, text, fields),
        })
    }

    /// Writes it, with one call. A stream that is closed or full is no reason to stop.
    fn write(&self) {
        let _ = match self {
            Self::Out(text) => stdout().write_all(text.as_bytes()),
            Self::Error(text) => stderr().write_all(text.as_bytes()),
        };
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: Line) {
        let mut state = self.lock();
        if state.dropped > 0 || state.lines.len() == MOST_LINES {
            state.dropped += 1;
        } else {
            state.lines.push_back(line);
        }
        self.changed.notify_all();
    }

    /// The thread's work.
    fn write(&self) {
        let mut state = self.lock();
        loop {
            if let Some(line) = state.next() {
                state.writing = true;
                drop(state);
                line.write();
                state = self.lock();
                state.writing = false;
            } else {
                self.changed.notify_all();
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

impl log::Log for Queue {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        match metadata.target() {
            ACCESS => settings().access,
            // tungstenite logs each frame.
            target => target.starts_with("live_likes") && metadata.level() <= settings().level,
        }
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let level = record.level().as_str().to_ascii_lowercase();
            let level = if record.target() == ACCESS { "access" } else { &level };
            self.push(Line::stamped(level, record.args(), Some(record.key_values())));
        }
    }

    /// Waits until all is written, but for [`FLUSH_WITHIN`] at most.
    fn flush(&self) {
        let unwritten = |state: &mut State| state.writing || !state.lines.is_empty() || state.dropped > 0;
        let _ = self.changed.wait_timeout_while(self.lock(), FLUSH_WITHIN, unwritten);
    }
}

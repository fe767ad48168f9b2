//! What the server writes to standard error and standard output, by a thread of its own.
//!
//! Nobody need read it: a line is put on a queue, and when the queue is full it is dropped and counted.
//!
//! What must never happen here: another thread that waits until a line is written.

use std::{
    collections::VecDeque,
    fmt::Display,
    io::{self, Write, stderr, stdout},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, SystemTime},
};

/// Lines that may wait.
const MOST_LINES: usize = 1024;

/// Time that the end of the process waits for them.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

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

/// Starts the thread, and logs records up to a level.
pub(crate) fn start(level: log::LevelFilter) -> io::Result<()> {
    thread::Builder::new().name("logger".into()).spawn(|| QUEUE.write())?;
    // The usual one writes to standard error itself, from the thread that panics.
    std::panic::set_hook(Box::new(|panic| complain(panic)));
    if log::set_logger(&QUEUE).is_ok() {
        log::set_max_level(level);
    }
    Ok(())
}

/// Writes a line to standard output.
pub(crate) fn say(text: impl Display) {
    QUEUE.push(Line::Out(format!("{text}\n")));
}

/// Writes an error to standard error, whatever the level.
pub(crate) fn complain(problem: impl Display) {
    QUEUE.push(Line::stamped("error", problem));
}

impl State {
    fn next(&mut self) -> Option<Line> {
        self.lines.pop_front().or_else(|| match std::mem::take(&mut self.dropped) {
            0 => None,
            number => Some(Line::stamped("warn", format_args!("dropped {number} lines that nobody read"))),
        })
    }
}

impl Line {
    /// A line with the time in UTC, as RFC 3339 writes it.
    fn stamped(level: &str, text: impl Display) -> Self {
        let time = humantime::format_rfc3339_millis(SystemTime::now());
        Self::Error(format!("{time} {level}: {text}").replace('\n', " ") + "\n")
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
        // tungstenite logs each frame.
        metadata.target().starts_with("live_likes")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            self.push(Line::stamped(&record.level().as_str().to_ascii_lowercase(), record.args()));
        }
    }

    /// Waits until all is written, but for [`FLUSH_WITHIN`] at most.
    fn flush(&self) {
        let unwritten = |state: &mut State| state.writing || !state.lines.is_empty() || state.dropped > 0;
        let _ = self.changed.wait_timeout_while(self.lock(), FLUSH_WITHIN, unwritten);
    }
}

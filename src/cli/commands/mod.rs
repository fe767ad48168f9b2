//! The operator's commands, in one table: a row names and explains a command.
//!
//! What a command finds goes to standard output, one problem to standard error.

mod backup;
mod counts;
mod export;
mod health;
mod import;

use super::Settings;
use live_likes::{Admin, Error, Post, open_admin};
use std::{
    fmt::Display,
    io::{self, Write, stdout},
    path::Path,
    str::FromStr,
};

/// A command.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) name: &'static str,
    /// What the help calls its operands: `POST N`.
    operands: &'static str,
    /// How many it takes.
    least: usize,
    most: usize,
    /// A line of the help.
    pub(super) does: &'static str,
    /// The rest of its own help.
    more: &'static str,
    /// The flags that have a meaning for it.
    pub(super) flags: &'static [&'static str],
    run: fn(&Invocation) -> Result<(), Problem>,
}

/// A command as it was given.
#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) command: &'static Command,
    pub(super) operands: Vec<String>,
    pub(super) visitors: bool,
    pub(crate) settings: Settings,
}

/// Why a command has not done what it was to do.
#[derive(Debug)]
pub(crate) enum Problem {
    /// It was given something else than it takes.
    Usage(String),
    Failed(String),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::Failed(error.to_string())
    }
}

const STORE: &[&str] = &["db", "log"];
const CHANGE: &[&str] = &["db", "log", "max-posts", "max-visitors"];

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "get",
        operands: "[POST]",
        least: 0,
        most: 1,
        does: "prints the likes of a post",
        more: "Without POST, or with an empty one, it is the default counter, the one of the page.",
        flags: STORE,
        run: counts::get,
    },
    Command {
        name: "set",
        operands: "[POST] N",
        least: 1,
        most: 2,
        does: "sets the likes of a post",
        more: "Without POST, or with an empty one, it is the default counter. The likes of visitors stay: N below the\n\
               number of visitors who like the post is refused. A database that does not exist is created.",
        flags: CHANGE,
        run: counts::set,
    },
    Command {
        name: "delete",
        operands: "POST",
        least: 1,
        most: 1,
        does: "takes back all likes of a post, those of visitors too",
        more: "An empty POST is the default counter.",
        flags: CHANGE,
        run: counts::delete,
    },
    Command {
        name: "top",
        operands: "[N]",
        least: 0,
        most: 1,
        does: "prints the N most liked posts [10]",
        more: "A line each: the likes, a tab, the post. The default counter is left out.",
        flags: STORE,
        run: counts::top,
    },
    Command {
        name: "export",
        operands: "",
        least: 0,
        most: 0,
        does: "prints all counts, as CSV",
        more: "Under the header `post,likes`, a line for each post that has likes, the most liked first; that of the\n\
               default counter has an empty post. Quoted as RFC 4180 says; all of one moment.\n\n\
               --visitors  prints all there is in the store, so that an import elsewhere loses nothing. The header is\n\
               `post,likes,visitor,liked,seq`. A visitor of a post has a line with the post, the visitor's hash\n\
               (32 hexadecimal digits), true or false, and the visitor's highest number of a change, if one is known;\n\
               these lines stand before the one with the likes of that post, which counts all of them too.",
        flags: STORE,
        run: export::run,
    },
    Command {
        name: "import",
        operands: "FILE",
        least: 1,
        most: 1,
        does: "sets counts to those of an export, or of a db.txt",
        more: "FILE is what `export` has printed, with visitors or without, or a text file with one number, which is that\n\
               of the default counter; `-` is standard input. A count becomes the one in FILE, and others stay: it may be\n\
               imported again, whole, after a break. A visitor of whom the store knows a later change stays the same.\n\n\
               It is done by 10,000 lines at a time, in Redis by 100. Of these, all are imported or, if one is wrong,\n\
               none; that one is named, and the import ends. A database that does not exist is created.",
        flags: CHANGE,
        run: import::run,
    },
    Command {
        name: "backup",
        operands: "FILE",
        least: 1,
        most: 1,
        does: "copies the database into a new file, while a server runs",
        more: "The copy is whole, of one moment, and as private as the database. A FILE that exists is refused.",
        flags: STORE,
        run: backup::run,
    },
    Command {
        name: "health",
        operands: "URL",
        least: 1,
        most: 1,
        does: "asks a server whether it is healthy",
        more: "URL is http://HOST:PORT, or has a path in place of /healthz, or is unix:FILE. The exit code is 0 if the\n\
               answer is 200 within 5 seconds, else 1.",
        flags: &[],
        run: health::run,
    },
];

impl Command {
    /// Its name and operands.
    pub(super) fn usage(&self) -> String {
        let flag = if self.takes_visitors() { "[--visitors]" } else { "" };
        [self.name, self.operands, flag].into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    }

    pub(super) fn takes_visitors(&self) -> bool {
        self.name == "export"
    }

    /// The text of its `--help`.
    pub(super) fn help(&self, flags: &str) -> String {
        let flags = if flags.is_empty() { String::new() } else { format!("\n{flags}") };
        format!(
            "live-likes {}: {}\n\nUsage: live-likes {} [FLAG ...]\n\n{}\n{flags}\n\
             The exit code is 0 when it is done, 1 for an error, 2 for bad usage.",
            self.name,
            self.does,
            self.usage(),
            self.more,
        )
    }

    /// Refuses too few operands, and too many.
    pub(super) fn check(&self, operands: &[String]) -> Result<(), String> {
        let (number, usage) = (operands.len(), self.usage());
        match operands.get(self.most) {
            Some(operand) => Err(format!("unexpected argument `{operand}`: `{usage}` is expected")),
            None if number < self.least => Err(format!("an argument is missing: `{usage}` is expected")),
            None => Ok(()),
        }
    }
}

impl Invocation {
    /// Does it.
    pub(crate) fn run(&self) -> Result<(), Problem> {
        (self.command.run)(self)
    }

    fn store(&self) -> Result<Box<dyn Admin>, Problem> {
        Ok(open_admin(&self.settings.db, self.settings.store)?)
    }

    /// The store, made as a server would make it if there is none.
    fn store_to_fill(&self) -> Result<Box<dyn Admin>, Problem> {
        let Settings { db, store, .. } = &self.settings;
        // One in Redis is there, or not, whatever files there are.
        if !db.exists() && (!is_url(db) || self.store().is_err()) {
            drop(live_likes::open_store(db, *store)?);
        }
        self.store()
    }

    /// The database, for a message.
    fn db(&self) -> impl Display + '_ {
        self.settings.db.display()
    }
}

/// Whether a store is named by more than a path.
fn is_url(db: &Path) -> bool {
    db.to_str().is_some_and(|name| name.contains("://"))
}

/// The post that is meant by an operand.
fn post(name: &str) -> Result<Post, Problem> {
    if name.is_empty() {
        return Ok(Post::default());
    }
    Post::new(name).map_err(|e| Problem::Usage(e.to_string()))
}

fn number<T: FromStr>(text: &str) -> Result<T, Problem> {
    digits(text).ok_or_else(|| Problem::Usage(format!("invalid number `{text}`: a whole number is expected")))
}

/// A number without a sign, which `parse` takes.
fn digits<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Prints a line. A stream that is closed or full is a problem, for the line is all that was asked for.
fn say(text: impl Display) -> Result<(), Problem> {
    writeln!(stdout(), "{text}").map_err(|e| not_written(&e))
}

fn not_written(e: &io::Error) -> Problem {
    Problem::Failed(format!("cannot write to standard output: {e}"))
}

/// `1 post`, `2 posts`.
fn some(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// What a post is called in a message.
fn called(post: &Post) -> String {
    if *post == Post::default() { "the default counter".to_owned() } else { format!("{post:?}") }
}

//! `import`: what `export` has printed, by many lines at a time.

use super::{Invocation, Problem, digits, export::COLUMNS, say, some};
use csv::ByteRecord;
use live_likes::{Admin, Change, ChangeKind, Error, NotApplied, Post, Refused, VisitorKey};
use std::{
    fs::File,
    io::{IsTerminal, Read, Take, Write, stderr, stdin},
};

/// Bytes of a line, far more than any has that was exported: what has no end of a line must not fill the memory.
const LONGEST_LINE: u64 = 1 << 20;

pub(super) fn run(given: &Invocation) -> Result<(), Problem> {
    let name = given.operands[0].as_str();
    let cannot = |problem: String| Problem::Failed(format!("cannot import `{name}`: {problem}"));
    let (file, bytes): (Box<dyn Read>, _) = if name == "-" {
        (Box::new(stdin().lock()), None)
    } else {
        let file = File::open(name).map_err(|e| cannot(e.to_string()))?;
        let bytes = file.metadata().ok().filter(|metadata| metadata.is_file()).map(|metadata| metadata.len());
        (Box::new(file), bytes)
    };
    let mut records = Records::of(file).map_err(cannot)?;
    let mut store = given.store_to_fill()?;
    let (mut changes, mut posts, mut visitors) = (Vec::new(), 0_u64, 0_u64);
    let mut progress = Progress { bytes, shown: false };
    let mut done = 0;
    loop {
        let read =
            records.take(&mut changes, store.most_changes()).and_then(|()| save(&mut *store, &changes, &records.lines));
        if let Err(problem) = read {
            progress.clear();
            return Err(cannot(match done {
                0 => format!("{problem}; nothing is imported"),
                line => format!("{problem}; what stands up to line {line} is imported, and may be imported again"),
            }));
        }
        if changes.is_empty() {
            break;
        }
        let fans = changes.iter().filter(|change| matches!(change.kind, ChangeKind::Visitor { .. })).count();
        (posts, visitors) = (posts + (changes.len() - fans) as u64, visitors + fans as u64);
        done = records.line() - 1;
        progress.show(posts + visitors, records.records.position().byte());
    }
    progress.clear();
    let visitors =
        if records.columns == COLUMNS.len() { format!(" and {}", some(visitors, "visitor")) } else { String::new() };
    say(format_args!("imported {}{visitors} into {}", some(posts, "post"), given.db()))
}

/// Makes changes, each of which came from the line in its place.
fn save(store: &mut dyn Admin, changes: &[Change], lines: &[u64]) -> Result<(), String> {
    if changes.is_empty() {
        return Ok(());
    }
    store.apply(changes).map(drop).map_err(|NotApplied { place, error }| {
        let flag = match error {
            Error::Refused(Refused::Posts) => "; --max-posts says for how many there is",
            Error::Refused(Refused::Visitors) => "; --max-visitors says for how many there is",
            _ => "",
        };
        match place.and_then(|place| lines.get(place)) {
            Some(line) => format!("line {line}: {error}{flag}"),
            None => error.to_string(),
        }
    })
}

/// The lines of a file.
struct Records {
    records: csv::Reader<Take<Box<dyn Read>>>,
    /// Where in the file the changes are from that were read last.
    lines: Vec<u64>,
    /// How many fields a line has.
    columns: usize,
    /// The number of a `db.txt`, in place of lines.
    number: Option<u64>,
    /// The post whose visitors were read, and whose likes were not.
    unfinished: Option<Post>,
}

impl Records {
    fn of(file: Box<dyn Read>) -> Result<Self, String> {
        // The last line may have no end. Of two bytes that end one, the reader would count the second to the next line.
        let file: Box<dyn Read> = Box::new(file.chain(&b"\n"[..]));
        let mut builder = csv::ReaderBuilder::new();
        builder.has_headers(false).flexible(true).terminator(csv::Terminator::Any(b'\n'));
        let records = builder.from_reader(file.take(0));
        let mut all = Self { records, lines: Vec::new(), columns: 0, number: None, unfinished: None };
        let mut header = ByteRecord::new();
        all.next(&mut header)?;
        let columns = header.len();
        all.columns = columns;
        if ![2, 5].contains(&columns) || header != COLUMNS[..columns] {
            let text = std::str::from_utf8(header.as_slice()).map(str::trim).unwrap_or_default();
            all.number = digits(text).filter(|_| columns == 1);
            if all.number.is_none() || all.next(&mut header)? {
                let (short, long) = (COLUMNS[..2].join(","), COLUMNS.join(","));
                return Err(format!("line 1: the header `{short}` or `{long}` is expected, or nothing but a number"));
            }
        }
        Ok(all)
    }

    /// Reads a line; `false` after the last.
    fn next(&mut self, record: &mut ByteRecord) -> Result<bool, String> {
        self.records.get_mut().set_limit(LONGEST_LINE);
        let read = self.records.read_byte_record(record).map_err(|e| e.to_string())?;
        if self.records.get_ref().limit() == 0 {
            return Err(format!("line {}: it has more than {LONGEST_LINE} bytes", self.line()));
        }
        if let Some(last) = record.iter().next_back().and_then(|last| last.strip_suffix(b"\r")).map(<[u8]>::to_vec) {
            record.truncate(record.len() - 1);
            record.push_field(&last);
        }
        Ok(read)
    }

    /// The line on which the next record begins.
    fn line(&self) -> u64 {
        self.records.position().line()
    }

    /// Reads further changes, so many at most.
    fn take(&mut self, changes: &mut Vec<Change>, most: usize) -> Result<(), String> {
        changes.clear();
        self.lines.clear();
        if let Some(likes) = self.number.take() {
            self.lines.push(1);
            changes.push(Change { post: Post::default(), kind: ChangeKind::Set(likes) });
        }
        let mut record = ByteRecord::new();
        while changes.len() < most {
            if !self.next(&mut record)? {
                break;
            }
            // Where it began; its own position is before the empty lines before it. A quote that has no end takes that of
            // the file in.
            let fields = record.as_slice();
            let within = fields.iter().filter(|&&byte| byte == b'\n').count() as u64;
            let line = self.line() - within - u64::from(!fields.ends_with(b"\n"));
            self.lines.push(line);
            changes.push(self.read(&record).map_err(|problem| format!("line {line}: {problem}"))?);
        }
        match &self.unfinished {
            Some(post) if changes.len() < most => {
                Err(format!("the file ends before the likes of {post:?}: it is not whole"))
            }
            _ => Ok(()),
        }
    }

    fn read(&mut self, record: &ByteRecord) -> Result<Change, String> {
        if record.len() != self.columns {
            return Err(format!("{} columns are expected, and there are {}", self.columns, record.len()));
        }
        let mut fields = [""; COLUMNS.len()];
        for (field, bytes) in fields.iter_mut().zip(record) {
            *field = std::str::from_utf8(bytes).map_err(|_| "valid UTF-8 is expected")?;
        }
        let [name, likes, visitor, liked, seq] = fields;
        let post = match name {
            "" => Post::default(),
            name => Post::new(name).map_err(|e| e.to_string())?,
        };
        if self.unfinished.as_ref().is_some_and(|unfinished| *unfinished != post) {
            return Err("the likes of a post are expected after its visitors, before another post".to_owned());
        }
        let number = |text: &str| digits(text).ok_or_else(|| format!("a whole number is expected, and not `{text}`"));
        if visitor.is_empty() && liked.is_empty() && seq.is_empty() {
            self.unfinished = None;
            return Ok(Change { post, kind: ChangeKind::Set(number(likes)?) });
        }
        if !likes.is_empty() {
            return Err("either likes are expected, or a visitor, and not both".to_owned());
        }
        let seq = if seq.is_empty() { None } else { Some(number(seq)?) };
        let visitor = key(visitor).ok_or("32 hexadecimal digits are expected for a visitor")?;
        let liked = match liked {
            "true" => true,
            "false" => false,
            other => return Err(format!("true or false is expected, and not `{other}`")),
        };
        self.unfinished = Some(post.clone());
        Ok(Change { post, kind: ChangeKind::Visitor { visitor, liked, seq } })
    }
}

fn key(text: &str) -> Option<VisitorKey> {
    let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    u128::from_str_radix(text, 16).ok().filter(|_| is_hex).map(|key| VisitorKey(key.to_be_bytes()))
}

/// How far it is, on a terminal.
struct Progress {
    bytes: Option<u64>,
    shown: bool,
}

impl Progress {
    fn show(&mut self, lines: u64, byte: u64) {
        if !stderr().is_terminal() {
            return;
        }
        let part = self.bytes.and_then(|bytes| (byte * 100).checked_div(bytes));
        let part = part.map(|part| format!(", {part} %")).unwrap_or_default();
        let _ = write!(stderr(), "\r{lines} lines{part}");
        self.shown = true;
    }

    /// Gives the line back.
    fn clear(&self) {
        if self.shown {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

//! What the file of a SQLite database may be, and how it is made and opened.
//!
//! The header is judged before SQLite opens the file: that alone may write to it, where another program has died and
//! left a journal.

use crate::store::text::{beside, folder_of, is_there, remove_if_there, sync_folder};
use rusqlite::{Connection, ErrorCode, OpenFlags, config::DbConfig};
use std::{
    fmt::Display,
    fs::{self, File, OpenOptions},
    io::{self, Read},
    path::Path,
    time::Duration,
};

/// Marks a database as one of this program, in its header: `Like`.
const APPLICATION: u32 = u32::from_be_bytes(*b"Like");

/// The version of the schema.
const FORMAT: u32 = 1;

/// How long a transaction of another program is waited for. Shorter than the time after which a save counts as hanging.
const BUSY_WITHIN: Duration = Duration::from_secs(4);

/// Whether the file is a database of ours; it is none where one is to be made.
pub(super) fn is_ours(file: &Path) -> Result<bool, String> {
    const LENGTH: usize = 100; // https://sqlite.org/fileformat2.html#the_database_header
    if !is_there(file)? {
        return Ok(false);
    }
    let mut header = Vec::with_capacity(LENGTH);
    File::open(file)
        .and_then(|file| file.take(LENGTH as u64).read_to_end(&mut header))
        .map_err(|e| format!("cannot read it: {e}"))?;
    if header.is_empty() {
        return Ok(false);
    }
    if header.len() < LENGTH || !header.starts_with(b"SQLite format 3\0") {
        return Err("it is no SQLite database".to_owned());
    }
    let number = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    match (number(68), number(60)) {
        (APPLICATION, FORMAT) => Ok(true),
        (APPLICATION, format) => {
            Err(format!("its format is {format}, of a newer version of live-likes; this one knows format {FORMAT}"))
        }
        (other, _) => Err(format!(
            "it is a database of another program: its application_id is {other}, and {APPLICATION} is expected"
        )),
    }
}

/// Makes a new database where there is no file, or an empty one. It is made beside it and comes into its place whole,
/// so that a crash leaves no half of one; but an empty file is written to, and keeps its owner and mode.
pub(super) fn create(file: &Path) -> Result<(), String> {
    let failed = |e: &dyn Display| format!("cannot create it: {e}");
    let temporary = beside(file, file.file_name().ok_or("it names no file")?, ".tmp");
    remove_if_there(&temporary).map_err(|e| failed(&e))?;
    make(&temporary).map_err(|e| failed(&e))?;
    let put = || -> io::Result<()> {
        File::open(&temporary)?.sync_all()?;
        if !fs::exists(file)? {
            return fs::rename(&temporary, file);
        }
        let mut empty = OpenOptions::new().write(true).open(file)?;
        io::copy(&mut File::open(&temporary)?, &mut empty)?;
        empty.sync_all()?;
        fs::remove_file(&temporary)
    };
    put().map_err(|e| failed(&e))
}

fn make(file: &Path) -> rusqlite::Result<()> {
    let connection = connect(file, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
    connection.pragma_update(None, "application_id", APPLICATION)?;
    connection.pragma_update(None, "user_version", FORMAT)?;
    connection.execute_batch(concat!("BEGIN;", include_str!("schema.sql"), "COMMIT; PRAGMA journal_mode = WAL"))?;
    connection.close().map_err(|(_, e)| e)
}

/// Refuses a file that SQLite could only open to read. It would make a log beside it that is read-only too, and stays so
/// when the file no longer is.
pub(super) fn check_writable(file: &Path) -> Result<(), String> {
    OpenOptions::new().write(true).open(file).map(drop).map_err(|e| format!("cannot write it: {e}"))
}

/// A connection that writes, if it may.
pub(super) fn open(file: &Path) -> Result<Connection, String> {
    let set_up = || {
        let connection = connect(file, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        // A database that is refused is left as it is.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        let mode: String = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "cache_size", -8 * 1024)?; // KiB
        connection.pragma_update(None, "journal_size_limit", 16 << 20)?; // bytes
        // Half of the default: a commit that writes the log back then waits half as long for it.
        connection.pragma_update(None, "wal_autocheckpoint", 500)?; // pages
        Ok((mode, connection))
    };
    let (mode, connection) = set_up().map_err(describe)?;
    if mode != "wal" {
        return Err("it cannot be opened in WAL mode, which saving relies on".to_owned());
    }
    Ok(connection)
}

/// A connection that only reads.
pub(super) fn open_to_read(file: &Path) -> rusqlite::Result<Connection> {
    let connection = connect(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.pragma_update(None, "cache_size", -1024)?; // KiB
    Ok(connection)
}

fn connect(file: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    // Absolute, or SQLite would take a name that begins with `file:` for a URI.
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let connection = Connection::open_with_flags(file, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_WITHIN)?;
    Ok(connection)
}

/// Makes all that can be read durable: what another process wrote before it died may stand in memory alone.
pub(super) fn make_durable(connection: &Connection, file: &Path) -> Result<(), String> {
    // Where another program reads all the time, as one that copies the database does, some of it stays in the log,
    // which the next commit makes durable.
    connection.busy_timeout(Duration::ZERO).map_err(describe)?;
    let written = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    written.map_err(describe)?;
    connection.busy_timeout(BUSY_WITHIN).map_err(describe)?;
    // What was noted for the server before this one goes. That is written, and so synced, also where there is nothing.
    connection.execute("DELETE FROM edits", []).map_err(describe)?;
    // The names of the file and its log. SQLite does that too, but does not tell if it fails.
    let synced = File::open(folder_of(file)).and_then(|folder| sync_folder(&folder));
    synced.map(drop).map_err(|e| format!("cannot make its folder durable: {e}"))
}

/// What a database is refused with.
pub(super) fn describe(e: rusqlite::Error) -> String {
    match e.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            format!("another program has locked it for {} s", BUSY_WITHIN.as_secs())
        }
        Some(ErrorCode::ReadOnly) => "it, or its `-wal` or `-shm` beside it, is read-only".to_owned(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            format!("it is damaged, `sqlite3 <file> .recover` may save what is left: {e}")
        }
        _ => e.to_string(),
    }
}

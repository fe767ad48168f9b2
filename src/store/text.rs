//! A count in a text file, `db.txt`.
//!
//! A save writes the whole number to a temporary file beside the database, makes that durable, renames it over the
//! database and makes the rename durable. A reader, or a machine that comes back from a power cut, therefore finds
//! the old number or the new one, whole. The price is two `fsync`s a save, which the counter pays once for all likes
//! that came meanwhile; and that each save makes a new file, which has to be given the permissions of the old one.
//!
//! What must never happen here: a total returned that the disk could still lose.

use crate::{
    error::{Error, Result},
    store::{
        Store,
        change::{BatchId, Change, ChangeKind, Count, Outcome, Post, Refused},
        permissions::Permissions,
        remembered::Remembered,
    },
};
use std::{
    collections::HashSet,
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Once,
    thread,
    time::{Duration, Instant},
};

/// Bytes that a database may hold: twenty digits and plenty of white space.
const LONGEST: u64 = 64;

/// A count in a text file, `db.txt`: the decimal number and nothing else.
#[derive(Debug)]
pub struct FileStore {
    total: u64,
    remembered: Remembered,
    /// The file itself, after every symbolic link.
    file: PathBuf,
    temporary: PathBuf,
    folder: PathBuf,
    /// Whether it has been said that the folder cannot be made durable.
    warned: Once,
    _lock: Lock,
}

/// A locked file, for as long as this lives; the lock goes with the process, however that ends.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // To close it is not enough while this program starts another one: for a moment that has a copy of every
        // descriptor, and with this one's the lock.
        let _ = self.0.unlock();
    }
}

impl FileStore {
    /// Opens the database, or creates it with a count of 0.
    ///
    /// A symbolic link is followed. Beside the file stand `<name>.lock`, which keeps a second process out, and for
    /// the length of a save `<name>.tmp`. So the process needs the right to write to the folder.
    ///
    /// Each save makes a new file. It gets the owner, group, mode and access list of the file that it replaces; where
    /// the process may not set them, it is open to fewer rather than to more. Other attributes, such as an SELinux
    /// label, are those of any new file in that folder, and further hard links to the file keep the old number. The
    /// first file is made under the process's umask.
    ///
    /// While the store is open, a number that somebody else writes to the file is overwritten by the next save.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] where the file is held by another process, is no regular file, is longer than 64 bytes,
    /// holds anything but one decimal number up to [`u64::MAX`] (white space around it is fine), where it cannot be
    /// replaced, as a file that is mounted by itself into a container, or where it or its folder cannot be read or
    /// written. The file is left as it was.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::try_open(path).map_err(|problem| Error::Database { path: path.to_owned(), problem })
    }

    fn try_open(path: &Path) -> Result<Self, String> {
        let file = follow(path)?;
        let name = file.file_name().ok_or("it names no file")?;
        let folder = folder_of(&file).to_owned();
        let opened = File::open(&folder).map_err(|e| format!("cannot open its folder `{}`: {e}", folder.display()))?;
        // Before the lock file is made, so that a device is not given one.
        is_there(&file)?;
        #[cfg(target_os = "linux")]
        check_replaceable(&file)?;
        let lock = take_lock(&beside(&file, name, ".lock"))?;

        let temporary = beside(&file, name, ".tmp");
        let found = read(&file)?;
        remove_if_there(&temporary)
            .map_err(|e| format!("cannot remove `{}`, left by a crash: {e}", temporary.display()))?;

        let (total, remembered) = (found.unwrap_or(0), Remembered::default());
        let store = Self { total, remembered, file, temporary, folder, warned: Once::new(), _lock: lock };
        match found {
            // What was read may stand in memory alone, if a process before this one died between its `rename` and
            // its `fsync`. It must be on the disk before anyone is shown it.
            Some(_) => File::open(&store.file)
                .and_then(|file| file.sync_all())
                .map_err(|e| format!("cannot make sure that it is on the disk: {e}"))
                .and_then(|()| store.make_durable(&opened)),
            None => store
                .replace(0)
                .and_then(|folder| store.make_durable(&folder))
                .map_err(|e| format!("cannot create it: {e}")),
        }?;
        Ok(store)
    }

    /// Puts the total in the place of the old one, or changes nothing. Returns the folder, in which the change is still
    /// to be made durable.
    fn replace(&self, total: u64) -> Result<File, String> {
        let failed = |doing: &str, path: &Path, e: io::Error| {
            let _ = remove_if_there(&self.temporary);
            format!("failed to {doing} `{}`: {e}", path.display())
        };
        self.write_temporary(total).map_err(|e| failed("write", &self.temporary, e))?;
        // Opened each time, because another folder may stand there by now; and while there is a way back.
        let folder = File::open(&self.folder).map_err(|e| failed("open", &self.folder, e))?;
        fs::rename(&self.temporary, &self.file).map_err(|e| failed("replace", &self.file, e))?;
        Ok(folder)
    }

    /// Writes the total to a new temporary file, durably, with the permissions of the file that it is to replace.
    fn write_temporary(&self, total: u64) -> io::Result<()> {
        // Looked at each time, so that what an operator changes meanwhile is kept.
        let permissions = Permissions::of(&self.file)?;
        // Closed to others until it has these; where there is no file yet, the umask and the folder have their say.
        let mode = if permissions.is_some() { 0o600 } else { 0o666 };
        let create = || OpenOptions::new().write(true).create_new(true).mode(mode).open(&self.temporary);
        let mut file = match create() {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                remove_if_there(&self.temporary).and_then(|()| create())
            }
            result => result,
        }?;
        file.write_all(total.to_string().as_bytes())?;
        if let Some(permissions) = permissions {
            permissions.give_to(&file)?;
        }
        file.sync_all()
    }

    /// Makes durable what [`replace`](Self::replace) did in the folder. If that fails, nobody knows what the disk holds,
    /// and a second try proves nothing, since the kernel may have dropped what it could not write.
    fn make_durable(&self, folder: &File) -> Result<(), String> {
        let path = self.folder.display();
        if let Some(e) = sync_folder(folder).map_err(|e| format!("failed to make durable `{path}`: {e}"))? {
            let said = || log::warn!("a power cut may take likes back: `{path}` cannot be made durable: {e}");
            self.warned.call_once(said);
        }
        Ok(())
    }
}

impl FileStore {
    /// The total that is saved.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Makes a new total durable.
    pub(super) fn save(&mut self, total: u64) -> Result<()> {
        let folder = self.replace(total).map_err(Error::NotSaved)?;
        self.make_durable(&folder).map_err(Error::Stopped)?;
        self.total = total;
        Ok(())
    }
}

/// The default counter alone; its versions are its counts, since it only rises. The visitors of the last hour are
/// remembered in memory.
impl Store for FileStore {
    fn count(&mut self, post: &Post) -> Result<Count> {
        let likes = if *post == Post::default() { self.total } else { 0 };
        Ok(Count { likes, version: likes })
    }

    fn apply(&mut self, _: BatchId, changes: &[Change]) -> Result<Vec<Outcome>> {
        let (mut likes, mut new) = (self.total, HashSet::new());
        let outcome = |change: &Change| match change.kind {
            _ if change.post != Post::default() => Outcome::Refused(Refused::Posts),
            ChangeKind::Visitor { visitor, liked: true, .. } => {
                if self.remembered.contains(&visitor) || !new.insert(visitor) {
                    return Outcome::Unchanged { count: Count { likes, version: likes }, liked: true };
                }
                add(&mut likes, 1)
            }
            ChangeKind::Likes(more) => add(&mut likes, more),
            _ => Outcome::Refused(Refused::Unlikes),
        };
        let outcomes = changes.iter().map(outcome).collect();
        self.save(likes)?;
        // After a save that failed they may like again.
        self.remembered.add(new, Instant::now());
        Ok(outcomes)
    }
}

/// Adds to a count, if it has room.
fn add(likes: &mut u64, more: u64) -> Outcome {
    let Some(sum) = likes.checked_add(more) else { return Outcome::Refused(Refused::Likes) };
    *likes = sum;
    Outcome::Applied(Count { likes: sum, version: sum })
}

/// Where a path leads, link by link: unlike `canonicalize`, also where nothing stands yet.
pub(super) fn follow(path: &Path) -> Result<PathBuf, String> {
    const MOST_LINKS: usize = 40; // the kernel's own bound
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_symlink() => {
                let target = fs::read_link(&path).map_err(|e| format!("cannot follow the link: {e}"))?;
                path = path.parent().unwrap_or(Path::new("")).join(target);
            }
            Ok(_) => return Ok(path),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(path),
            // Not looked at, it may be a link, which a save would replace.
            Err(e) => return Err(e.to_string()),
        }
    }
    Err("too many symbolic links".to_owned())
}

pub(super) fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes durable what was done in a folder. Returns what a file system says (EINVAL) that knows no `fsync` of a folder,
/// and offers nothing in its place.
pub(super) fn sync_folder(folder: &File) -> io::Result<Option<io::Error>> {
    match folder.sync_all() {
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => Ok(Some(e)),
        result => result.map(|()| None),
    }
}

pub(super) fn beside(file: &Path, name: &std::ffi::OsStr, ending: &str) -> PathBuf {
    let mut name: OsString = name.to_owned();
    name.push(ending);
    file.with_file_name(name)
}

pub(super) fn take_lock(path: &Path) -> Result<Lock, String> {
    let cannot = |e: &dyn std::fmt::Display| format!("cannot lock `{}`: {e}", path.display());
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed()) // never wait for the other end of a pipe
        .open(path)
        .map_err(|e| cannot(&e))?;
    for _ in 0..20 {
        match lock.try_lock() {
            Ok(()) => return Ok(Lock(lock)),
            // Perhaps by one who only asks, which takes no time.
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(5)),
            Err(TryLockError::Error(e)) => return Err(cannot(&e)),
        }
    }
    Err("another process is using it".to_owned())
}

/// Whether a server has the lock. Nothing is made for it.
#[cfg(feature = "sqlite")]
pub(super) fn is_locked(path: &Path) -> bool {
    let lock = OpenOptions::new().read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed()).open(path);
    // One that cannot be opened may be locked.
    match lock {
        Ok(lock) => lock.try_lock_shared().is_err() || lock.unlock().is_err(),
        Err(e) => e.kind() != io::ErrorKind::NotFound,
    }
}

pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Whether there is a file. Asked before it is opened, because opening a pipe or a device can wait, or do something.
pub(super) fn is_there(path: &Path) -> Result<bool, String> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(true),
        Ok(_) => Err("it is not a regular file".to_owned()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e.to_string()),
    }
}

/// Refuses a file that no `rename` can replace, which otherwise the first save would find out.
#[cfg(target_os = "linux")]
fn check_replaceable(file: &Path) -> Result<(), String> {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    // What is not told, or not there, is found out by that save.
    let told = statx(CWD, file, AtFlags::empty(), StatxFlags::empty());
    let attributes = told.map_or(StatxAttributes::empty(), |told| told.stx_attributes);
    if attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Err("it is a mount of its own, which a save cannot replace; mount the folder that it is in".to_owned());
    }
    if attributes.intersects(StatxAttributes::IMMUTABLE | StatxAttributes::APPEND) {
        return Err("it is immutable or append-only, so that no save can replace it; see chattr(1)".to_owned());
    }
    Ok(())
}

/// Reads the count, or `None` where there is no file.
pub(super) fn read(path: &Path) -> Result<Option<u64>, String> {
    if !is_there(path)? {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes))
        .map_err(|e| format!("cannot read it: {e}"))?;
    if bytes.len() as u64 > LONGEST {
        return Err(format!("it holds more than {LONGEST} bytes, where one number is expected"));
    }
    parse(&bytes).map(Some).ok_or_else(|| {
        format!(
            "it holds \"{}\", where one decimal number from 0 to {} is expected; mend it or move it away",
            bytes.escape_ascii(),
            u64::MAX
        )
    })
}

/// The number in a database's bytes. Stricter than `str::parse`, which takes a plus sign.
fn parse(bytes: &[u8]) -> Option<u64> {
    let digits = bytes.trim_ascii();
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Were it another, a power cut could take likes back.
    #[test]
    fn the_folder_made_durable_is_the_one_that_the_file_is_in() {
        for (file, folder) in [("db.txt", "."), ("a/db.txt", "a"), ("/a/b/db.txt", "/a/b"), ("/db.txt", "/")] {
            assert_eq!(folder_of(Path::new(file)), Path::new(folder));
        }
    }

    /// A store in a folder of its own, which goes with the test.
    fn store(name: &str, test: impl FnOnce(FileStore, &Path)) {
        let folder = std::env::temp_dir().join(format!("live-likes-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("db.txt");
        test(FileStore::open(&path).unwrap(), &path);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_store_that_is_gone_holds_no_lock_although_somebody_has_a_copy_of_its_descriptor() {
        store("lock", |store, path| {
            let _copy = store._lock.0.try_clone().unwrap();
            drop(store);
            FileStore::open(path).unwrap();
        });
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_folder_that_has_no_fsync_is_good_enough_and_one_whose_fsync_fails_is_not() {
        use rustix::fs::OFlags;
        store("fsync", |store, path| {
            let folder = path.parent().unwrap();
            store.make_durable(&File::open(folder).unwrap()).unwrap();
            assert!(!store.warned.is_completed());
            store.make_durable(&File::open("/proc").unwrap()).unwrap(); // EINVAL
            assert!(store.warned.is_completed());
            let no_reader = OpenOptions::new().read(true).custom_flags(OFlags::PATH.bits().cast_signed()).open(folder);
            let told = store.make_durable(&no_reader.unwrap()).unwrap_err(); // EBADF
            assert!(told.contains(&folder.display().to_string()), "{told}");
        });
    }
}

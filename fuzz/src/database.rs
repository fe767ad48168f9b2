//! Any bytes as a `db.txt`.

use crate::{
    draw::Draw,
    error::Error,
    store::{
        Store,
        change::{BatchId, Change, ChangeKind, Outcome, Post, Refused},
        text::FileStore,
    },
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

/// Databases: one number is taken for what it is, survives being added to, and anything else is refused and left as
/// it was.
pub fn database(bytes: &[u8]) {
    let folder = Folder::new();
    let (file, temporary) = (folder.0.join("db.txt"), folder.0.join("db.txt.tmp"));
    fs::write(&file, bytes).unwrap();
    let mut draw = Draw::from(bytes);
    if draw.up_to(1) == 0 {
        fs::write(&temporary, bytes).unwrap(); // as a crash would leave it
    }
    let space = |byte: &u8| b" \t\n\r\x0c".contains(byte);
    let start = bytes.iter().position(|byte| !space(byte)).unwrap_or(0);
    let end = bytes.iter().rposition(|byte| !space(byte)).map_or(0, |last| last + 1);
    let held = number(&bytes[start..end.max(start)]).filter(|_| bytes.len() <= 64);

    let mut store = match (FileStore::open(&file), held) {
        (Ok(store), Some(_)) => store,
        (Err(Error::Database { .. }), None) => return assert_eq!(fs::read(&file).unwrap(), bytes),
        (result, _) => panic!("{held:?} was read as {result:?}"),
    };
    let held = held.unwrap();
    assert_eq!(total_of(&mut store), held);
    assert_eq!(fs::read(&file).unwrap(), bytes);
    let likes = match draw.up_to(3) {
        0 => u64::MAX - held,
        1 => draw.number(),
        likes => likes as u64,
    };
    let (total, text) = match (add(&mut store, likes), held.checked_add(likes)) {
        (Ok(total), Some(sum)) if total == sum => (sum, sum.to_string().into_bytes()),
        (Err(Error::Full), None) => (held, held.to_string().into_bytes()),
        (result, _) => panic!("{held} and {likes} are {result:?}"),
    };
    assert_eq!(total_of(&mut store), total);
    assert_eq!(fs::read(&file).unwrap(), text);
    assert!(!temporary.exists());
    drop(store);
    assert_eq!(total_of(&mut FileStore::open(&file).unwrap()), total);
}

fn total_of(store: &mut FileStore) -> u64 {
    store.count(&Post::default()).unwrap().likes
}

fn add(store: &mut FileStore, likes: u64) -> Result<u64, Error> {
    let change = Change { post: Post::default(), kind: ChangeKind::Likes(likes) };
    match store.apply(BatchId { server: 1, number: 1 }, &[change])?[..] {
        [Outcome::Applied(count)] => Ok(count.likes),
        [Outcome::Refused(Refused::Likes)] => Err(Error::Full),
        ref other => panic!("{other:?}"),
    }
}

/// A folder of one's own, in memory where there is such a thing; gone when this is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static FOLDERS: AtomicUsize = AtomicUsize::new(0);
        let name = format!("live-likes-fuzz-{}-{}", std::process::id(), FOLDERS.fetch_add(1, Ordering::Relaxed));
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { memory.join(name) } else { std::env::temp_dir().join(name) };
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Digits and nothing else, up to the largest number there is.
fn number(digits: &[u8]) -> Option<u64> {
    digits
        .iter()
        .try_fold(0_u64, |number, digit| match digit {
            b'0'..=b'9' => number.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
            _ => None,
        })
        .filter(|_| !digits.is_empty())
}

//! What `likes.db` promises: who likes what, counted once, in every order, over restarts, and in a file that others
//! use too.

#![cfg(feature = "sqlite")]

#[path = "support/folder.rs"]
mod folder;
#[path = "support/many.rs"]
mod many;

use folder::Folder;
use live_likes::{
    Change, ChangeKind, Count, Error, Likes, Outcome, Post, Posts, Refused, SqliteStore, Store, StoreLimits,
    open_admin, open_store,
};
use many::*;
use proptest::prelude::*;
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::Barrier,
    time::{Duration, Instant},
};

/// Nobody should ever wait this long.
const LONG: Duration = Duration::from_secs(60);

fn open(path: impl AsRef<Path>) -> SqliteStore {
    SqliteStore::open(path, StoreLimits::default()).unwrap()
}

/// A store that keeps no more than this.
fn limited(path: &Path, posts: u64, visitors: u64) -> SqliteStore {
    let mut limits = StoreLimits::default();
    (limits.posts, limits.visitors) = (posts, visitors);
    SqliteStore::open(path, limits).unwrap()
}

/// Another program that uses the database, as `sqlite3` would.
fn other(path: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(path).unwrap()
}

/// The numbers that a query of another program finds, row by row.
fn numbers(path: &Path, query: &str) -> Vec<Vec<i64>> {
    let other = other(path);
    let mut query = other.prepare(query).unwrap();
    let columns = query.column_count();
    let rows = query.query_map([], |row| (0..columns).map(|column| row.get(column)).collect()).unwrap();
    rows.map(|row| row.unwrap()).collect()
}

/// Copies what a process that is killed now leaves of its database. By another process, since one that closes a file
/// loses its POSIX locks.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap();
    assert!(copied.success());
    let _ = fs::remove_file(to.join("likes.db-shm"));
}

#[test]
fn a_change_is_in_the_file_when_it_is_answered() {
    let folder = Folder::new();
    let path = folder.join("likes.db");
    let mut store = open(&path);
    let default = Change { post: Post::default(), kind: ChangeKind::Likes(1) };
    let outcomes = store.save(&[likes("a", 3), says("b", 1, true, None), default]);
    assert_eq!(outcomes, [applied(3, 3), applied(1, 4), applied(1, 5)]);
    assert_eq!(numbers(&path, "SELECT likes, version FROM posts ORDER BY name"), [[1, 5], [3, 3], [1, 4]]);
    drop(store);
    assert_eq!(folder.names(), ["likes.db", "likes.db.lock"]);
    let mut store = open(&path);
    assert_eq!(store.count(&post("a")).unwrap(), Count { likes: 3, version: 3 });
    assert_eq!(store.count(&Post::default()).unwrap(), Count { likes: 1, version: 5 });
    assert_eq!(store.count(&post("c")).unwrap(), Count::default());
}

#[test]
fn a_process_that_is_killed_loses_nothing_that_was_answered() {
    let (folder, left) = (Folder::new(), Folder::new());
    let mut store = open(folder.join("likes.db"));
    store.save(&[likes("a", 3), says("a", 1, true, Some(5))]);
    copy(&folder, &left);
    let mut left = open(left.join("likes.db"));
    assert_eq!(read(&left, ["a"]), [(4, 4)]);
    assert_eq!(left.save(&[says("a", 1, false, Some(5))]), [unchanged(4, 4, true)]);
}

#[test]
fn a_visitor_counts_once_and_can_take_that_back() {
    let folder = Folder::new();
    let path = folder.join("likes.db");
    let mut store = open(&path);
    assert_eq!(store.save(&[says("a", 1, true, None)]), [applied(1, 1)]);
    assert_eq!(
        store.save(&[says("a", 1, true, None), says("a", 2, true, None)]),
        [unchanged(1, 1, true), applied(2, 2)]
    );
    assert!(likes_it(&store, "a", 1) && !likes_it(&store, "a", 3) && !likes_it(&store, "b", 1));
    assert_eq!(store.save(&[says("a", 1, false, None)]), [applied(1, 3)]);
    assert_eq!(store.save(&[says("a", 1, false, None)]), [unchanged(1, 3, false)]);
    assert_eq!(store.save(&[says("a", 1, true, None), likes("a", 5)]), [applied(2, 4), applied(7, 9)]);
    assert_eq!(numbers(&path, "SELECT visitors, anonymous FROM posts WHERE name = 'a'"), [[2, 5]]);
}

#[test]
fn a_visitor_who_took_it_back_is_forgotten_unless_there_is_a_seq_to_keep() {
    let folder = Folder::new();
    let path = folder.join("likes.db");
    let mut store = open(&path);
    // Of one who never liked, and gives no number, nothing is kept at all.
    assert_eq!(store.save(&[says("a", 1, false, None)]), [unchanged(0, 0, false)]);
    assert_eq!(numbers(&path, "SELECT count(*), (SELECT count(*) FROM visitors) FROM posts"), [[1, 0]]);
    store.save(&[
        says("a", 1, true, None),
        says("a", 1, false, None),
        says("a", 2, true, Some(1)),
        says("a", 2, false, None),
    ]);
    store.save(&[says("a", 3, false, Some(1))]);
    assert_eq!(
        numbers(&path, "SELECT CAST(substr(hex(visitor), 1, 2) AS INTEGER), liked, seq FROM visitors"),
        [[2, 0, 1], [3, 0, 1]]
    );
    assert_eq!(numbers(&path, "SELECT posts, visitors FROM meta"), [[1, 2]]);
}

#[test]
fn a_post_that_is_deleted_shows_0_and_is_not_brought_back_by_a_like_that_is_sent_again() {
    let folder = Folder::new();
    let path = folder.join("likes.db");
    let mut store = open(&path);
    store.save(&[says("a", 1, true, Some(5)), says("a", 2, true, None), says("a", 3, false, Some(6)), likes("a", 7)]);
    assert_eq!(store.save(&[delete("a"), delete("never")]), [applied(0, 10), unchanged(0, 0, false)]);
    assert_eq!(read(&store, ["a", "never"]), [(0, 10), (0, 0)]);
    assert!(!likes_it(&store, "a", 1) && !likes_it(&store, "a", 2));
    assert_eq!(store.save(&[says("a", 1, true, Some(5)), says("a", 3, true, Some(5))]), [unchanged(0, 10, false); 2]);
    assert_eq!(numbers(&path, "SELECT posts, visitors FROM meta"), [[1, 2]]);
    // Who wants to like it anew can.
    assert_eq!(store.save(&[says("a", 1, true, Some(6)), says("a", 2, true, None)]), [applied(1, 11), applied(2, 12)]);
    assert_eq!(store.save(&[delete("a"), likes("a", 1)]), [applied(0, 13), applied(1, 14)]);
}

#[test]
fn past_the_limits_new_posts_and_visitors_are_refused_and_known_ones_are_not() {
    let folder = Folder::new();
    let path = folder.join("likes.db");
    let mut store = limited(&path, 2, 2);
    let no_post = Outcome::Refused(Refused::Posts);
    let no_visitor = Outcome::Refused(Refused::Visitors);
    assert_eq!(
        store.save(&[likes("a", 1), says("b", 1, true, None), likes("c", 1)]),
        [applied(1, 1), applied(1, 2), no_post]
    );
    assert_eq!(store.save(&[set("c", 1), says("c", 2, true, None), says("c", 2, false, Some(1))]), [no_post; 3]);
    drop(store);
    let mut store = limited(&path, 2, 2);
    assert_eq!(store.save(&[says("b", 2, true, Some(1)), says("a", 3, true, None)]), [applied(2, 3), no_visitor]);
    assert_eq!(store.save(&[says("b", 2, false, Some(2)), says("a", 3, true, None)]), [applied(1, 4), no_visitor]);
    assert_eq!(store.save(&[says("b", 1, false, None), says("a", 3, true, None)]), [applied(0, 5), applied(2, 6)]);
    // The default counter has room in any case, and so has a post from which all likes were taken.
    let default = Change { post: Post::default(), kind: ChangeKind::Likes(1) };
    assert_eq!(
        store.save(&[delete("a"), likes("a", 1), likes("c", 1), default]),
        [applied(0, 7), applied(1, 8), no_post, applied(1, 9)]
    );
    assert_eq!(numbers(&path, "SELECT posts, visitors, (SELECT count(*) FROM visitors) FROM meta"), [[2, 1, 1]]);
}

#[test]
fn no_count_and_no_version_is_larger_than_every_json_reader_can_read() {
    let folder = Folder::new();
    let path = folder.join("likes.db");
    let mut store = open(&path);
    let full = Outcome::Refused(Refused::Likes);
    let most = [
        set("a", MOST),
        likes("a", 1),
        set("a", MOST + 1),
        says("a", 1, true, None),
        set("a", MOST - 1),
        says("a", 1, true, None),
    ];
    assert_eq!(store.save(&most), [applied(MOST, 1), full, full, full, applied(MOST - 1, 2), applied(MOST, 3)]);
    assert_eq!(store.save(&[likes("b", u64::MAX), likes("b", MOST)]), [full, full], "there are no versions for them");
    other(&path).execute("UPDATE meta SET version = ?1", [MOST - 1]).unwrap();
    let last = [likes("b", 2), likes("b", 1), likes("b", 1), set("b", 5), delete("b"), says("a", 1, false, None)];
    assert_eq!(store.save(&last), [full, applied(1, MOST), full, full, full, full]);
}

#[test]
fn a_like_past_the_largest_count_is_refused_when_it_arrives_and_no_other_change_is() {
    let folder = Folder::new();
    let mut store = open(folder.join("likes.db"));
    store.save(&[set("a", MOST)]);
    let posts = Posts::with_store(store).unwrap();
    let a = posts.post("a").unwrap();
    assert!(matches!(a.like_without_waiting(), Err(Error::Full)));
    assert!(matches!(a.like(), Err(Error::Full)));
    assert!(!a.set_liked("ann-0123456789abcdef", false, None).unwrap().liked);
    posts.delete("a").unwrap();
    assert_eq!(a.like().unwrap(), 1);
}

#[test]
fn a_batch_without_changes_is_written_too() {
    let folder = Folder::new();
    let path = folder.join("likes.db");
    let mut store = open(&path);
    let size = || fs::metadata(folder.join("likes.db-wal")).unwrap().len();
    let before = size();
    assert_eq!(store.save(&[]), []);
    assert!(size() > before, "it proves that saving works");
}

#[test]
fn many_threads_share_eight_connections() {
    let folder = Folder::new();
    let path = folder.join("likes.db");
    let mut store = open(&path);
    store.save(&[likes("a", 1)]);
    let reader = store.reader().unwrap();
    let start = Barrier::new(50);
    std::thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                start.wait();
                for _ in 0..20 {
                    assert_eq!(reader.read(&[(post("a"), None)]).unwrap()[0].0.likes, 1);
                }
            });
        }
    });
    let path = fs::canonicalize(path).unwrap();
    let descriptors = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let open = descriptors.filter(|entry| fs::read_link(entry.path()).is_ok_and(|file| file == path)).count();
    assert!(open <= 9, "one that writes and {} that read", open - 1);
}

#[test]
fn a_store_that_is_closed_is_not_read_and_its_file_is_free() {
    let folder = Folder::new();
    let path = folder.join("likes.db");
    let mut store = open(&path);
    store.save(&[likes("a", 1)]);
    let reader = store.reader().unwrap();
    reader.read(&[(post("a"), None)]).unwrap();
    drop(store);
    assert!(matches!(reader.read(&[(post("a"), None)]), Err(Error::Closed)));
    assert!(matches!(reader.top(1), Err(Error::Closed)));
    assert_eq!(folder.names(), ["likes.db", "likes.db.lock"]);
    open(&path);
}

#[test]
fn the_name_of_a_database_says_what_it_is() {
    let folder = Folder::new();
    for name in ["likes.db", "a.b.sqlite", "likes.sqlite3", "file:a.db?mode=memory.db"] {
        let store = open_store(folder.join(name), StoreLimits::default()).unwrap();
        assert!(store.remembers_visitors() && store.is_shared() && store.reader().is_some(), "{name}");
        assert!(!store.has_other_servers(), "{name}");
        assert!(fs::read(folder.join(name)).unwrap().starts_with(b"SQLite"), "{name}");
    }
    for name in ["db.txt", "db", ".db", "likes.db.txt"] {
        let store = open_store(folder.join(name), StoreLimits::default()).unwrap();
        assert!(!store.remembers_visitors() && !store.is_shared() && store.reader().is_none(), "{name}");
        assert_eq!(fs::read(folder.join(name)).unwrap(), b"0", "{name}");
    }
    for name in ["redis://:secret@localhost/0", "rediss://localhost", "redis+unix:///run/redis.sock"] {
        let told = open_store(name, StoreLimits::default()).err().unwrap().to_string();
        assert!(told.contains("Redis") && !told.contains("secret"), "{told}");
    }
}

/// The problem that a file is refused with, in whichever way it is opened.
#[track_caller]
fn refusal(path: &Path) -> String {
    let refused = |error: Option<Error>| match error {
        Some(error @ Error::Database { .. }) => {
            let told = error.to_string();
            assert!(told.contains(&path.display().to_string()), "{told} should name {}", path.display());
            told
        }
        other => panic!("{} is not refused: {other:?}", path.display()),
    };
    if path.extension().is_some() {
        refused(open_admin(path, StoreLimits::default()).err());
    }
    refused(SqliteStore::open(path, StoreLimits::default()).err())
}

/// All by which a file could show that it was touched.
fn state(path: &Path) -> (Vec<u8>, u64, i64, i64, u32) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (fs::read(path).unwrap(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.mode())
}

/// A database of ours with many pages.
fn full_of_posts(path: &Path) {
    let mut store = open(path);
    let changes: Vec<_> = (0..3000).map(|number| likes(&format!("post {number}"), 1)).collect();
    store.save(&changes);
}

#[test]
fn a_file_that_is_no_database_of_ours_is_refused_and_left_as_it_is() {
    let ours = Folder::new();
    full_of_posts(&ours.join("likes.db"));
    let ours = fs::read(ours.join("likes.db")).unwrap();
    let changed = |at: usize, bytes: &[u8]| {
        let mut changed = ours.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    let contents: [(&[u8], &str); 11] = [
        (b"16", "no SQLite database"),
        (b"\0", "no SQLite database"),
        (b"SQLite format 3\0", "no SQLite database"),
        (&ours[..99], "no SQLite database"),
        (&[0; 8192], "no SQLite database"),
        (&changed(0, b"sqlite"), "no SQLite database"),
        (&changed(68, &[0; 4]), "another program"),
        (&changed(68, b"Luke"), "another program"),
        (&changed(60, &[0, 0, 0, 2]), "newer version"),
        (&ours[..ours.len() / 2], "damaged"),
        (&ours[..100], "damaged"),
    ];
    for (content, problem) in contents {
        let folder = Folder::new();
        let path = folder.join("likes.db");
        fs::write(&path, content).unwrap();
        let before = state(&path);
        let told = refusal(&path);
        assert!(told.contains(problem), "{told} should say {problem}");
        assert_eq!(state(&path), before, "{told}");
    }
}

#[test]
fn a_database_of_another_program_is_left_with_its_journal_and_its_log() {
    for mode in ["delete", "wal"] {
        let (living, folder) = (Folder::new(), Folder::new());
        let program = other(&living.join("likes.db"));
        program.pragma_update(None, "journal_mode", mode).unwrap();
        program.pragma_update(None, "cache_size", 1).unwrap();
        program
            .execute_batch("CREATE TABLE notes (note); BEGIN; INSERT INTO notes VALUES (randomblob(100000))")
            .unwrap();
        copy(&living, &folder);
        let names = folder.names();
        assert!(names.len() > 1, "{names:?}");
        let before: Vec<_> = names.iter().map(|name| state(&folder.join(name))).collect();
        let told = refusal(&folder.join("likes.db"));
        assert!(told.contains("another program"), "{told}");
        let after: Vec<_> = names.iter().map(|name| state(&folder.join(name))).collect();
        assert!(before == after, "{mode}: {names:?}");
    }
}

#[test]
fn a_damaged_database_is_left_with_its_log() {
    let (living, folder) = (Folder::new(), Folder::new());
    let mut store = open(living.join("likes.db"));
    store.save(&[likes("a", 1)]);
    copy(&living, &folder);
    let files = [folder.join("likes.db"), folder.join("likes.db-wal")];
    let mut bytes = fs::read(&files[0]).unwrap();
    bytes[100..4096].fill(0xff);
    fs::write(&files[0], bytes).unwrap();
    let before = files.each_ref().map(|file| state(file));
    let told = refusal(&files[0]);
    assert!(told.contains("damaged"), "{told}");
    assert!(files.each_ref().map(|file| state(file)) == before);
}

#[test]
fn a_start_writes_to_the_log_and_so_makes_durable_what_it_found_there() {
    let folder = Folder::new();
    let path = folder.join("likes.db");
    let log = || fs::metadata(folder.join("likes.db-wal")).unwrap().len();
    open(&path);
    let store = open(&path);
    assert!(log() > 0);
    drop(store);
    // Also where another program, which reads, keeps it from being written into the database.
    let reading = other(&path);
    reading.execute_batch("BEGIN; SELECT count(*) FROM posts").unwrap();
    let mut store = open(&path);
    store.save(&[likes("a", 1)]);
    let before = log();
    drop(store);
    let _store = open(&path);
    assert!(log() > before);
}

#[test]
fn what_is_no_file_is_refused() {
    let folder = Folder::new();
    assert!(refusal(&folder).contains("not a regular file"));
    let pipe = folder.join("likes.db");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    assert!(refusal(&pipe).contains("not a regular file"));
    assert_eq!(folder.names(), ["likes.db"], "no lock file is made for it");
    assert!(refusal(Path::new("/dev/null")).contains("not a regular file"));
    refusal(&folder.join("missing/likes.db"));
    refusal(Path::new("/"));
    refusal(Path::new(""));
    let missing = open_admin(folder.join("none.db"), StoreLimits::default());
    assert!(missing.err().unwrap().to_string().contains("there is no such file"));
    fs::write(folder.join("empty.db"), "").unwrap();
    let empty = open_admin(folder.join("empty.db"), StoreLimits::default());
    assert!(empty.err().unwrap().to_string().contains("it is empty"));
}

#[test]
fn damage_that_is_found_later_stops_the_counter() {
    let folder = Folder::new();
    let path = folder.join("likes.db");
    full_of_posts(&path);
    let root = numbers(&path, "SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_autoindex_posts_1'")[0][0];
    let mut bytes = fs::read(&path).unwrap();
    // All but the root of the index of names, whose pages begin with 10 for a leaf.
    for page in bytes.chunks_mut(4096).skip(root as usize).filter(|page| page[0] == 10) {
        page[..8].fill(0xff);
    }
    fs::write(&path, bytes).unwrap();
    let Ok(mut store) = SqliteStore::open(&path, StoreLimits::default()) else { return };
    let error = store.apply(next_batch(), &[likes("post 1500", 1)]).unwrap_err();
    assert!(matches!(error, Error::Stopped(_)), "{error:?}");
    assert!(matches!(store.reader().unwrap().read(&[(post("post 1500"), None)]), Err(Error::NotRead(_))));
}

#[test]
fn a_database_that_may_not_be_written_is_refused() {
    let Some(folder) = Folder::mounted_of(1024) else { return };
    let path = folder.join("likes.db");
    open(&path).save(&[likes("a", 1)]);
    folder.make_read_only();
    let before = state(&path);
    let told = refusal(&path);
    assert!(told.contains("ead-only"), "{told}");
    assert_eq!(state(&path), before);
    folder.make_writable();
    assert_eq!(read(&open(&path), ["a"]), [(1, 1)]);
}

#[test]
fn a_database_that_this_user_may_not_write_is_refused_until_it_may() {
    let folder = Folder::new();
    let path = folder.join("likes.db");
    open(&path).save(&[likes("a", 1)]);
    fs::remove_file(folder.join("likes.db.lock")).unwrap();
    let set_mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    set_mode(&folder, 0o777);
    set_mode(&path, 0o444);
    let before = state(&path);
    let as_nobody = || {
        // Root may write in spite of the mode. This thread alone becomes somebody else.
        if rustix::process::geteuid().is_root() {
            let nobody = rustix::process::Uid::from_raw(65_534);
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        }
        SqliteStore::open(&path, StoreLimits::default()).map(drop).unwrap_err().to_string()
    };
    let told = std::thread::scope(|scope| scope.spawn(as_nobody).join().unwrap());
    assert!(told.contains("cannot write it"), "{told}");
    assert_eq!(state(&path), before);
    assert_eq!(folder.names(), ["likes.db", "likes.db.lock"], "no log that is read-only too");
    set_mode(&path, 0o644);
    assert_eq!(read(&open(&path), ["a"]), [(1, 1)]);
}

#[test]
fn a_second_server_is_refused_and_other_programs_are_not() {
    let folder = Folder::new();
    let path = folder.join("likes.db");
    let mut store = open(&path);
    store.save(&[likes("a", 1)]);
    let told = SqliteStore::open(&path, StoreLimits::default()).unwrap_err().to_string();
    assert!(told.contains("another process is using it"), "{told}");
    let link = folder.join("link.db");
    symlink("likes.db", &link).unwrap();
    assert!(SqliteStore::open(&link, StoreLimits::default()).is_err());
    // One that reads all the time, as a replication does; and one that copies.
    let reading = other(&path);
    reading.execute_batch("BEGIN; SELECT count(*) FROM posts").unwrap();
    store.save(&[likes("a", 1)]);
    let copy = folder.join("copy.db");
    reading.execute_batch("COMMIT").unwrap();
    reading.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
    assert_eq!(read(&open(&copy), ["a"]), [(2, 2)]);
    reading.execute_batch("BEGIN; SELECT count(*) FROM posts").unwrap();
    drop(store);
    let mut store = open(&path);
    assert_eq!(read(&store, ["a"]), [(2, 2)]);
    store.save(&[likes("a", 1)]);
    drop((store, reading));
    assert_eq!(read(&open(&path), ["a"]), [(3, 3)]);
}

#[test]
fn a_transaction_of_another_program_is_waited_for_and_costs_no_like() {
    let folder = Folder::new();
    let path = folder.join("likes.db");
    let mut store = open(&path);
    let changes = [likes("a", 1)];
    let writing = other(&path);
    writing.execute_batch("BEGIN IMMEDIATE").unwrap();
    let start = Instant::now();
    let batch = next_batch();
    let refused = store.apply(batch, &changes);
    assert!(matches!(refused, Err(Error::NotSaved(_))), "{refused:?}");
    assert!(start.elapsed() < Duration::from_secs(5), "before the save counts as hanging");
    // Readers do not wait for it.
    assert_eq!(read(&store, ["a"]), [(0, 0)]);
    writing.execute_batch("COMMIT").unwrap();
    assert_eq!(store.apply(batch, &changes).unwrap(), [applied(1, 1)]);
    // One that is over soon is waited for.
    writing.execute_batch("BEGIN IMMEDIATE").unwrap();
    std::thread::scope(|scope| {
        let saving = scope.spawn(|| store.save(&changes));
        writing.execute_batch("COMMIT").unwrap();
        assert_eq!(saving.join().unwrap(), [applied(2, 2)]);
    });
}

#[test]
fn a_database_that_is_locked_is_refused() {
    let folder = Folder::new();
    let path = folder.join("likes.db");
    open(&path).save(&[likes("a", 1)]);
    let writing = other(&path);
    writing.execute_batch("BEGIN IMMEDIATE").unwrap();
    let told = SqliteStore::open(&path, StoreLimits::default()).unwrap_err().to_string();
    assert!(told.contains("another program has locked it for 4 s"), "{told}");
    writing.execute_batch("COMMIT").unwrap();
    assert_eq!(read(&open(&path), ["a"]), [(1, 1)]);
}

#[test]
fn links_are_followed_and_an_empty_file_keeps_its_mode() {
    let folder = Folder::new();
    fs::create_dir(folder.join("data")).unwrap();
    let path = folder.join("data/real.db");
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let inode = fs::metadata(&path).unwrap().ino();
    symlink("data/real.db", folder.join("likes.db")).unwrap();
    let mut store = open(folder.join("likes.db"));
    store.save(&[likes("a", 1)]);
    for name in ["real.db", "real.db-wal", "real.db-shm"] {
        assert_eq!(fs::metadata(folder.join("data").join(name)).unwrap().mode() & 0o7777, 0o640, "{name}");
    }
    drop(store);
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    assert_eq!(folder.names(), ["data", "likes.db"]);
    assert_eq!(read(&open(&path), ["a"]), [(1, 1)]);
    // A link to nothing yet.
    symlink("data/new.db", folder.join("new.db")).unwrap();
    open(folder.join("new.db"));
    assert!(fs::symlink_metadata(folder.join("new.db")).unwrap().is_symlink() && folder.join("data/new.db").exists());
}

#[test]
fn what_a_crash_left_of_a_new_database_is_replaced() {
    let folder = Folder::new();
    fs::write(folder.join("likes.db.tmp"), "SQLite format 3").unwrap();
    open(folder.join("likes.db")).save(&[likes("a", 1)]);
    assert_eq!(folder.names(), ["likes.db", "likes.db.lock"]);
}

#[test]
fn a_file_that_is_moved_away_takes_no_likes_with_it() {
    let folder = Folder::new();
    let path = folder.join("likes.db");
    let mut store = open(&path);
    store.save(&[likes("a", 1)]);
    fs::rename(&path, folder.join("moved.db")).unwrap();
    let error = store.apply(next_batch(), &[likes("a", 1)]).unwrap_err();
    assert!(matches!(&error, Error::NotSaved(problem) if problem.contains("moved away")), "{error:?}");
    fs::copy(folder.join("moved.db"), &path).unwrap();
    assert!(store.apply(next_batch(), &[likes("a", 1)]).is_err(), "it is another file");
    fs::rename(folder.join("moved.db"), &path).unwrap();
    assert_eq!(store.save(&[likes("a", 1)]), [applied(2, 2)]);
}

#[test]
fn a_disk_that_is_full_costs_no_like() {
    let Some(folder) = Folder::mounted_of(256) else { return };
    let path = folder.join("likes.db");
    let mut store = open(&path);
    store.save(&[likes("a", 1)]);
    let filler = folder.join("filler");
    let mut content = vec![0; 256 << 10];
    while fs::write(&filler, &content).is_err() {
        content.truncate(content.len() - 1024);
    }
    // Until the log, too, has no room.
    let changes: Vec<_> = (0..20).map(|number| likes(&format!("post {number}"), 1)).collect();
    let (batch, mut saved) = (next_batch(), 0);
    let error = loop {
        match store.apply(next_batch(), &changes) {
            Ok(_) => saved += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::NotSaved(_)), "{error:?}");
    assert!(store.apply(batch, &changes).is_err());
    assert_eq!(read(&store, ["post 7"])[0].0, saved);
    fs::remove_file(filler).unwrap();
    store.apply(batch, &changes).unwrap();
    assert_eq!(read(&store, ["post 7"])[0].0, saved + 1);
    drop(store);
    assert_eq!(read(&open(&path), ["post 7"])[0].0, saved + 1);
}

#[test]
fn an_operator_changes_counts_beside_the_server() {
    let folder = Folder::new();
    let path = folder.join("likes.db");
    let mut store = open(&path);
    store.save(&[likes("a", 1), says("a", 1, true, Some(1))]);
    let mut operator = open_admin(&path, StoreLimits::default()).unwrap();
    let refused = operator.apply(&[set("c", 2), delete("a"), set("d", MOST + 1)]).unwrap_err();
    assert!(matches!((refused.place, refused.error), (Some(2), Error::Refused(Refused::Likes))));
    assert_eq!(read(&store, ["a", "c"]), [(2, 2), (0, 0)], "where one is refused, none is made");
    assert_eq!(
        operator.apply(&[set("a", 10), delete("b"), set("c", 3)]).unwrap(),
        [applied(10, 3), unchanged(0, 0, false), applied(3, 4)]
    );
    assert_eq!(read(&store, ["a", "c"]), [(10, 3), (3, 4)]);
    assert_eq!(store.save(&[likes("a", 1), likes("d", 1)]), [applied(11, 5), applied(1, 6)]);
    // The server's own batch is still known as the last.
    let (batch, changes) = (next_batch(), [likes("a", 1)]);
    assert_eq!(store.apply(batch, &changes).unwrap(), [applied(12, 7)]);
    operator.apply(&[delete("a")]).unwrap();
    assert_eq!(store.apply(batch, &changes).unwrap(), [applied(12, 7)]);
    assert_eq!(read(&store, ["a"]), [(0, 8)]);
    drop(store);
    assert_eq!(operator.apply(&[set("a", 1)]).unwrap(), [applied(1, 9)], "without a server too");
    drop(operator);
    assert_eq!(folder.names(), ["likes.db", "likes.db.lock"]);
}

#[test]
fn what_is_changed_by_hand_has_a_new_version() {
    let folder = Folder::new();
    let path = folder.join("likes.db");
    let mut store = open(&path);
    store.save(&[likes("a", 1), says("b", 1, true, None)]);
    let hand = other(&path);
    hand.execute_batch("UPDATE posts SET anonymous = 5 WHERE name = 'a'").unwrap();
    hand.execute_batch("INSERT INTO posts (name, anonymous) VALUES ('x', 7), ('y', 8)").unwrap();
    assert_eq!(read(&store, ["a", "b", "x", "y"]), [(5, 3), (1, 2), (7, 4), (8, 5)]);
    assert_eq!(store.save(&[likes("x", 1)]), [applied(8, 6)]);
    assert_eq!(numbers(&path, "SELECT posts FROM meta"), [[4]]);
    for nonsense in ["-1", "'many'", "9007199254740992", "NULL"] {
        let refused = hand.execute(&format!("UPDATE posts SET anonymous = {nonsense} WHERE name = 'b'"), []);
        assert!(refused.is_err(), "{nonsense}");
    }
}

#[test]
fn what_is_changed_by_hand_is_shown() {
    let folder = Folder::new();
    let path = folder.join("likes.db");
    let likes = Likes::with_store(open(&path)).unwrap();
    let mut counts = likes.subscribe();
    likes.like().unwrap();
    assert_eq!((counts.next(), counts.next()), (Some(0), Some(1)));
    other(&path).execute("UPDATE posts SET anonymous = 41 WHERE name = ''", []).unwrap();
    assert_eq!(counts.next_within(LONG), Ok(41));
    assert_eq!(likes.like().unwrap(), 42);
}

/// A database in a folder of its own.
struct Database(Folder);

impl Place for Database {
    fn new() -> Option<Self> {
        Some(Self(Folder::new()))
    }

    fn open(&self) -> Box<dyn Store> {
        Box::new(open(self.0.join("likes.db")))
    }
}

keeps_many_posts!(Database);

#[test]
fn the_top_is_read_by_an_index() {
    let place = Database::new().unwrap();
    drop(place.open());
    let plan = "EXPLAIN QUERY PLAN SELECT name, likes, version FROM posts WHERE likes > 0 AND name <> '' ORDER BY likes DESC, version LIMIT 10";
    let plan: String = other(&place.0.join("likes.db")).query_row(plan, [], |row| row.get(3)).unwrap();
    assert!(plan.contains("USING INDEX most_liked"), "{plan}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_likes_and_unlikes_and_retries_and_delays_and_restarts_come_to_what_plain_sets_say(
        steps in prop::collection::vec(a_step(), 1..30)
    ) {
        let place = Database::new().unwrap();
        comes_to_what_plain_sets_say(&place, steps);
        let path = place.0.join("likes.db");
        let wrong = "SELECT count(*) FROM posts WHERE visitors <>
            (SELECT count(*) FROM visitors WHERE liked AND visitors.post = posts.id)";
        prop_assert_eq!(numbers(&path, wrong), [[0]]);
        let kept = "SELECT posts - (SELECT count(*) - 1 FROM posts), visitors - (SELECT count(*) FROM visitors) FROM meta";
        prop_assert_eq!(numbers(&path, kept), [[0, 0]]);
    }
}

/// Where the test below has its database, in a process whose system calls fail.
const BROKEN: &str = "LIVE_LIKES_TEST_BROKEN";

/// Runs one of these tests in a process of its own, with each third `fsync` of the log made to fail; and without, to
/// show that it is this that fails.
#[test]
fn a_commit_whose_fsync_fails_counts_once_and_is_not_shown_before() {
    let works = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    if !works(Command::new("strace").args(["-o", "/dev/null", "true"])) {
        return eprintln!("nothing is tested here: strace is not there, or may not trace");
    }
    let folder = Folder::new();
    let log = folder.join("likes.db-wal");
    let mut traced = Command::new("strace");
    traced.args(["-f", "--seccomp-bpf", "-o"]).arg(folder.join("trace")).arg("-P").arg(&log);
    traced.args(["-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO:when=8+3"]);
    traced.arg(std::env::current_exe().unwrap()).args([
        "--exact",
        "likes_on_a_broken_disk",
        "--ignored",
        "--nocapture",
    ]);
    let output = traced.env(BROKEN, &*folder).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("outcomes were unknown"), "{told}");
    assert_eq!(read(&open(folder.join("likes.db")), ["a", "b"]).map(|(likes, _)| likes), [50, 50]);
}

#[test]
#[ignore = "part of another test"]
fn likes_on_a_broken_disk() {
    let Some(folder) = std::env::var_os(BROKEN).map(PathBuf::from) else { return };
    let path = folder.join("likes.db");
    let (mut store, mut unknown) = (open(&path), 0);
    for number in 1..=50 {
        let (batch, changes) = (next_batch(), [likes("a", 1), says("b", number as u8, true, Some(1))]);
        while let Err(error) = store.apply(batch, &changes) {
            assert!(matches!(error, Error::Unknown(_)), "{error:?}");
            unknown += 1;
            // Nobody sees it, neither here nor in another program; what the next process would see is one or the other.
            assert_eq!(read(&store, ["a"])[0].0, number - 1);
            assert_eq!(
                numbers(&path, "SELECT coalesce(sum(likes), 0) FROM posts WHERE name = 'a'"),
                [[number as i64 - 1]]
            );
            let left = Folder::new();
            copy(&folder, &left);
            let after = read(&open(left.join("likes.db")), ["a", "b"]);
            assert!(after[0].0 == after[1].0 && (number - 1..=number).contains(&after[0].0), "{after:?}");
        }
        assert_eq!(read(&store, ["a"])[0].0, number);
        assert_eq!(read(&store, ["b"])[0].0, number);
    }
    println!("{unknown} outcomes were unknown");
    assert!(unknown > 10);
}

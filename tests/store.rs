//! What `db.txt` may be, and what becomes of it: each rule of the file store, through its public functions.

#[path = "support/folder.rs"]
mod folder;
#[path = "support/scripted.rs"]
mod scripted;

use folder::Folder;
use live_likes::{
    BatchId, Change, ChangeKind, Count, Error, FileStore, Likes, Outcome, Post, Refused, Result, Store, VisitorKey,
};
use rustix::{
    buffer::spare_capacity,
    fs::{CWD, FileType, Mode, XattrFlags, getxattr, removexattr, setxattr},
    io::Errno,
};
use scripted::OneCounter;
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc::RecvTimeoutError,
    time::{Duration, Instant},
};

/// Nobody should ever wait this long.
const LONG: Duration = Duration::from_secs(60);

fn database(folder: &Path, holds: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join("db.txt");
    fs::write(&path, holds).unwrap();
    path
}

fn total(path: &Path) -> u64 {
    FileStore::open(path).unwrap().total()
}

/// The problem that a path is refused with.
fn refusal(path: &Path) -> String {
    match FileStore::open(path) {
        Err(e @ Error::Database { .. }) => {
            let told = e.to_string();
            assert!(told.contains(&path.display().to_string()), "{told} should name {}", path.display());
            told
        }
        Err(e) => panic!("not refused as a database: {e:?}"),
        Ok(mut store) => panic!("not refused: {} likes in {}", store.total(), path.display()),
    }
}

/// All by which a file could show that it was touched.
fn state(path: &Path) -> (Vec<u8>, u64, i64, i64, u32) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (fs::read(path).unwrap(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.mode())
}

#[test]
fn a_like_is_in_the_file_when_it_is_answered() {
    let folder = Folder::new();
    let path = database(&folder, "16");
    let likes = Likes::open(&path).unwrap();
    for number in 17..=20 {
        assert_eq!(likes.like().unwrap(), number);
        assert_eq!(fs::read_to_string(&path).unwrap(), number.to_string());
    }
    drop(likes);
    assert_eq!(folder.names(), ["db.txt", "db.txt.lock"]);
}

#[test]
fn likes_of_many_threads_are_all_in_the_file() {
    let folder = Folder::new();
    let path = database(&folder, "16");
    let likes = Likes::open(&path).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..50).for_each(|_| _ = likes.like().unwrap()));
        }
    });
    assert_eq!(fs::read_to_string(&path).unwrap(), "416");
}

#[test]
fn a_missing_file_is_created_with_0() {
    let folder = Folder::new();
    let path = folder.join("db.txt");
    assert_eq!(total(&path), 0);
    assert_eq!(fs::read(&path).unwrap(), b"0");
    // With the mode that any new file has; under another umask: tests/binary.rs.
    fs::write(folder.join("other.txt"), "0").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode();
    assert_eq!(mode(&path), mode(&folder.join("other.txt")));
}

#[test]
fn white_space_around_the_number_is_fine() {
    let padded = format!("{:>64}", 16);
    for holds in ["16", "16\n", "16\r\n", " 16", "\t16 \x0c\n\n", "0016", &padded] {
        let folder = Folder::new();
        let path = database(&folder, holds);
        let before = state(&path);
        assert_eq!(total(&path), 16, "{holds:?}");
        assert_eq!(state(&path), before, "opening changes nothing: {holds:?}");
    }
}

#[test]
fn anything_else_is_refused_by_name_and_left_as_it_is() {
    let long = "1".repeat(64) + "\n";
    let contents: [&[u8]; 32] = [
        b"",
        b" ",
        b"\n\n",
        b"NaN",
        b"undefined",
        b"null",
        b"-1",
        b"-0",
        b"+5",
        b"1.5",
        b"1.0",
        b".5",
        b"1e3",
        b"0x10",
        b"1_000",
        b"1,000",
        b"1 000",
        b"16 17",
        b"16\n17\n",
        b"16;",
        b"16n",
        b"\"16\"",
        b"{\"numLikes\":16}",
        b"18446744073709551616",                // 2^64
        b"99999999999999999999999999999999999", // and far past it
        b"16\0",
        b"\0\0",
        b"\x0b16",
        b"\xef\xbb\xbf16",     // a byte order mark
        b"\xff\xfe1\x006\x00", // UTF-16
        "١٦".as_bytes(),       // digits, but not these
        "16\u{a0}".as_bytes(), // white space, but not this
    ];
    for holds in contents {
        let folder = Folder::new();
        let path = database(&folder, holds);
        let before = state(&path);
        let told = refusal(&path);
        let shown = format!("it holds \"{}\"", holds.escape_ascii());
        assert!(told.contains(&shown), "{told} should say {shown}");
        assert_eq!(state(&path), before, "{shown}");
        assert!(matches!(Likes::open(&path), Err(Error::Database { .. })));
    }
    for holds in [long.as_bytes(), &[b' '; 65], &[b'7'; 1 << 20]] {
        let folder = Folder::new();
        let path = database(&folder, holds);
        let before = state(&path);
        let told = refusal(&path);
        assert!(told.contains("it holds more than 64 bytes"), "{told}");
        assert_eq!(state(&path), before);
    }
}

#[test]
fn a_link_is_followed_and_not_replaced() {
    let folder = Folder::new();
    fs::create_dir(folder.join("data")).unwrap();
    let real = folder.join("data/likes.txt");
    fs::write(&real, "16").unwrap();
    symlink(&real, folder.join("absolute")).unwrap();
    symlink("data/likes.txt", folder.join("relative")).unwrap();
    symlink("relative", folder.join("chain")).unwrap();
    symlink("data", folder.join("door")).unwrap();
    symlink("../relative", folder.join("data/round")).unwrap();

    for (number, link) in (17..).zip(["absolute", "relative", "chain", "door/likes.txt", "data/round"]) {
        let link = folder.join(link);
        let target = fs::read_link(&link);
        assert_eq!(FileStore::open(&link).unwrap().add(1).unwrap(), number, "{}", link.display());
        assert_eq!(fs::read_to_string(&real).unwrap(), number.to_string());
        assert_eq!(fs::read_link(&link).is_ok(), target.is_ok(), "{}", link.display());
    }
    assert_eq!(folder.names(), ["absolute", "chain", "data", "door", "relative"], "all else stands by the real file");
}

#[test]
fn a_link_to_nothing_creates_what_it_names() {
    let folder = Folder::new();
    let (link, real) = (folder.join("db.txt"), folder.join("likes.txt"));
    symlink("likes.txt", &link).unwrap();
    assert_eq!(FileStore::open(&link).unwrap().add(1).unwrap(), 1);
    assert_eq!(fs::read_to_string(&real).unwrap(), "1");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(fs::symlink_metadata(&real).unwrap().is_file());
}

#[test]
fn links_in_a_ring_are_refused() {
    let folder = Folder::new();
    symlink("b", folder.join("a")).unwrap();
    symlink("a", folder.join("b")).unwrap();
    refusal(&folder.join("a"));
    assert_eq!(folder.names(), ["a", "b"]);
}

#[test]
fn the_mode_is_kept_also_one_that_is_set_meanwhile() {
    let folder = Folder::new();
    let path = database(&folder, "16");
    let mut store = None;
    for mode in [0o600, 0o640, 0o444, 0o666, 0o604] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let store = store.get_or_insert_with(|| FileStore::open(&path).unwrap());
        store.add(1).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode, "{mode:o}");
    }
}

#[test]
fn the_owner_is_kept_where_that_is_permitted() {
    let folder = Folder::new();
    let path = database(&folder, "16");
    let mut store = FileStore::open(&path).unwrap();
    for (owner, group) in [(12345, 54321), (12345, 0), (0, 54321)] {
        if chown(&path, Some(owner), Some(group)).is_err() {
            return eprintln!("nothing is tested here: only root gives a file away");
        }
        store.add(1).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (owner, group));
    }
}

#[test]
fn a_file_in_a_set_group_id_folder_has_the_group_of_the_folder_if_it_is_new_and_else_its_own() {
    let folder = Folder::new();
    if chown(&*folder, None, Some(54321)).is_err() {
        return eprintln!("nothing is tested here: only root gives a folder away");
    }
    fs::set_permissions(&*folder, fs::Permissions::from_mode(0o2775)).unwrap();
    let path = folder.join("db.txt");
    let group = || fs::metadata(&path).unwrap().gid();
    let mut store = FileStore::open(&path).unwrap();
    assert_eq!(group(), 54321);
    store.add(1).unwrap();
    assert_eq!(group(), 54321);
    chown(&path, None, Some(999)).unwrap();
    store.add(1).unwrap();
    assert_eq!(group(), 999);
}

/// A POSIX access list: what user 12345 and the owning group may do, and at most (the mask).
fn access_list(user: u16, group: u16, mask: u16) -> Vec<u8> {
    let nobody = u32::MAX;
    let entries =
        [(0x01, 6, nobody), (0x02, user, 12345), (0x04, group, nobody), (0x10, mask, nobody), (0x20, 0, nobody)];
    let entry = |(tag, rights, id): (u16, u16, u32)| {
        [tag.to_le_bytes().as_slice(), &rights.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    [2u32.to_le_bytes().to_vec(), entries.map(entry).concat()].concat()
}

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

/// Sets a list. Returns whether that is possible here.
fn set_list(path: &Path, name: &str, list: &[u8]) -> bool {
    let set = setxattr(path, name, list, XattrFlags::empty());
    if set == Err(Errno::NOTSUP) {
        eprintln!("nothing is tested here: {} is on a file system without access lists", path.display());
        return false;
    }
    set.unwrap();
    true
}

fn list(path: &Path) -> Option<Vec<u8>> {
    let mut list = Vec::with_capacity(1024);
    getxattr(path, ACCESS, spare_capacity(&mut list)).ok().map(|_| list)
}

#[test]
fn an_access_list_is_kept_also_one_that_is_set_or_removed_meanwhile() {
    let folder = Folder::new();
    let path = database(&folder, "16");
    // The group's bits of the mode are the mask here, and more than the group may do.
    let first = access_list(6, 0, 6);
    if !set_list(&path, ACCESS, &first) {
        return;
    }
    let mut store = FileStore::open(&path).unwrap();
    store.add(1).unwrap();
    assert_eq!((list(&path), fs::metadata(&path).unwrap().mode() & 0o777), (Some(first), 0o660));

    let second = access_list(4, 4, 4);
    set_list(&path, ACCESS, &second);
    store.add(1).unwrap();
    assert_eq!((list(&path), fs::metadata(&path).unwrap().mode() & 0o777), (Some(second), 0o640));

    removexattr(&path, ACCESS).unwrap();
    store.add(1).unwrap();
    assert_eq!((list(&path), fs::metadata(&path).unwrap().mode() & 0o777), (None, 0o640));
}

#[test]
fn a_file_without_an_access_list_gets_none_from_its_folder() {
    let folder = Folder::new();
    let path = database(&folder, "16");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
    if !set_list(&folder, DEFAULT, &access_list(6, 6, 6)) {
        return;
    }
    FileStore::open(&path).unwrap().add(1).unwrap();
    assert_eq!((list(&path), fs::metadata(&path).unwrap().mode() & 0o777), (None, 0o664));

    // A new one does, as any new file.
    let new = folder.join("new.txt");
    let mut store = FileStore::open(&new).unwrap();
    let inherited = list(&new);
    assert_eq!(inherited, Some(access_list(6, 6, 6)));
    store.add(1).unwrap();
    assert_eq!(list(&new), inherited);
}

#[test]
fn a_file_that_is_mounted_by_itself_is_refused_at_the_start() {
    let folder = Folder::new();
    let (path, other) = (database(&folder, "16"), folder.join("other.txt"));
    fs::write(&other, "17").unwrap();
    let run = |command: &str, arguments: &[&Path]| {
        Command::new(command).args(arguments).output().is_ok_and(|output| output.status.success())
    };
    if !run("mount", &[Path::new("--bind"), &other, &path]) {
        return eprintln!("nothing is tested here: this user may not mount a file");
    }
    let opened = FileStore::open(&path).map(|mut store| store.add(1));
    while !run("umount", &[&path]) {}
    let told = opened.unwrap_err().to_string();
    assert!(told.contains("db.txt") && told.contains("mount the folder"), "{told}");
    assert_eq!(folder.names(), ["db.txt", "other.txt"]);
}

#[test]
fn a_file_that_may_not_be_replaced_is_refused_at_the_start() {
    let folder = Folder::new();
    let path = database(&folder, "16");
    let chattr =
        |change| Command::new("chattr").arg(change).arg(&path).output().is_ok_and(|output| output.status.success());
    for (set, clear) in [("+i", "-i"), ("+a", "-a")] {
        if !chattr(set) {
            return eprintln!("nothing is tested here: this user may not make a file immutable");
        }
        let opened = FileStore::open(&path).map(|mut store| store.add(1));
        assert!(chattr(clear));
        let told = opened.unwrap_err().to_string();
        assert!(told.contains("db.txt") && told.contains("chattr"), "{told}");
    }
}

#[test]
fn what_is_no_regular_file_is_refused_at_once_and_nothing_is_left_beside_it() {
    let folder = Folder::new();
    fs::create_dir(folder.join("folder")).unwrap();
    rustix::fs::mknodat(CWD, folder.join("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(folder.join("socket")).unwrap();
    symlink("/dev/null", folder.join("device")).unwrap();
    symlink("pipe", folder.join("link")).unwrap();
    let before = folder.names();

    let start = Instant::now();
    for name in &before {
        let told = refusal(&folder.join(name));
        assert!(told.contains("not a regular file"), "{told}");
    }
    for path in ["/dev/null", "/dev/zero", "/dev/full", "/dev/tty"] {
        let there = Path::new(path).exists();
        assert!(!there || refusal(Path::new(path)).contains("not a regular file"));
        assert!(!Path::new(&format!("{path}.lock")).exists());
    }
    assert!(start.elapsed() < LONG);
    assert_eq!(folder.names(), before);
}

#[test]
fn what_names_no_file_is_refused() {
    let folder = Folder::new();
    let path = database(&folder, "16");
    for path in [Path::new("").to_owned(), "/".into(), "..".into(), folder.join("none/db.txt"), path.join("db.txt")] {
        refusal(&path);
    }
    assert_eq!(folder.names(), ["db.txt"]);
}

#[test]
fn past_the_largest_count_a_like_is_refused_and_not_wrapped() {
    let folder = Folder::new();
    let path = database(&folder, (u64::MAX - 1).to_string());
    let likes = Likes::open(&path).unwrap();
    assert_eq!(likes.like().unwrap(), u64::MAX);
    assert!(matches!(likes.like(), Err(Error::Full)));
    assert!(matches!(likes.like_without_waiting(), Err(Error::Full)));
    assert!(likes.health().is_ok());
    assert_eq!(likes.close(LONG).unwrap(), u64::MAX);
    drop(likes);

    let mut store = FileStore::open(&path).unwrap();
    assert!(matches!(store.add(1), Err(Error::Refused(Refused::Likes))));
    assert_eq!(store.add(0).unwrap(), u64::MAX);
    assert_eq!(fs::read_to_string(&path).unwrap(), u64::MAX.to_string());
}

#[test]
fn likes_that_would_go_past_the_largest_count_together_are_let_in_one_by_one() {
    let folder = Folder::new();
    let likes = Likes::open(database(&folder, (u64::MAX - 20).to_string())).unwrap();
    let numbers = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..8).map(|_| scope.spawn(|| (0..5).filter_map(|_| likes.like().ok()).count())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
    });
    assert_eq!(numbers, 20);
    assert_eq!(likes.count(), u64::MAX);
}

#[test]
fn one_file_has_one_opener_by_whatever_name() {
    let folder = Folder::new();
    let path = database(&folder, "16");
    symlink("db.txt", folder.join("link")).unwrap();
    let mut first = FileStore::open(&path).unwrap();
    for name in ["db.txt", "link", "../"] {
        let name = match name {
            "../" => folder.join("..").join(folder.file_name().unwrap()).join("db.txt"),
            name => folder.join(name),
        };
        assert!(refusal(&name).contains("another process is using it"));
    }
    // The lock does not go with the file that a save replaces, and a refused opener leaves it alone.
    assert_eq!(first.add(1).unwrap(), 17);
    assert!(refusal(&path).contains("another process is using it"));
    drop(first);
    assert_eq!(total(&path), 17);
}

#[test]
fn what_a_crash_left_is_cleaned_up() {
    let folder = Folder::new();
    let path = database(&folder, "16");
    fs::write(folder.join("db.txt.tmp"), "99").unwrap();
    fs::write(folder.join("db.txt.lock"), "").unwrap();
    let mut store = FileStore::open(&path).unwrap();
    assert_eq!(store.total(), 16);
    assert_eq!(folder.names(), ["db.txt", "db.txt.lock"]);

    // Also one that comes up meanwhile, and one that leads elsewhere.
    let other = folder.join("other");
    fs::write(&other, "mine").unwrap();
    symlink(&other, folder.join("db.txt.tmp")).unwrap();
    assert_eq!(store.add(1).unwrap(), 17);
    assert_eq!(fs::read_to_string(&other).unwrap(), "mine");
    assert_eq!(folder.names(), ["db.txt", "db.txt.lock", "other"]);
}

#[test]
fn what_stands_in_the_way_of_a_save_is_refused_at_the_start() {
    let folder = Folder::new();
    let path = database(&folder, "16");
    fs::create_dir(folder.join("db.txt.tmp")).unwrap();
    let told = refusal(&path);
    assert!(told.contains("db.txt.tmp") && told.contains("left by a crash"), "{told}");
    assert_eq!(fs::read(&path).unwrap(), b"16");
}

/// Has a like fail while the folder is broken, and another succeed when it is mended.
fn shows_nothing_and_recovers(folder: &Path, break_it: impl FnOnce(), mend_it: impl FnOnce()) {
    let path = database(folder, "16");
    let likes = Likes::open(&path).unwrap();
    let mut shown = likes.subscribe();
    assert_eq!(shown.next_within(LONG), Ok(16));
    break_it();

    assert!(matches!(likes.like(), Err(Error::NotSaved(_))));
    assert!(matches!(likes.health(), Err(Error::NotSaved(_))));
    assert!(matches!(likes.like_without_waiting(), Err(Error::NotSaved(_))));
    assert_eq!((likes.count(), shown.next_within(Duration::ZERO)), (16, Err(RecvTimeoutError::Timeout)));

    mend_it();
    let deadline = Instant::now() + LONG;
    while likes.health().is_err() {
        assert!(Instant::now() < deadline, "it should work again: {:?}", likes.health());
        std::thread::yield_now();
    }
    assert_eq!(likes.like().unwrap(), 17, "the likes that were refused do not count");
    assert_eq!(shown.next_within(LONG), Ok(17));
    assert_eq!(likes.close(LONG).unwrap(), 17);
    drop(likes);
    assert_eq!(fs::read_to_string(&path).unwrap(), "17");
    assert!(!folder.join("db.txt.tmp").exists());
}

#[test]
fn with_its_folder_gone_nothing_is_shown_until_it_is_back() {
    let parent = Folder::new();
    let (folder, away) = (parent.join("data"), parent.join("away"));
    fs::create_dir(&folder).unwrap();
    shows_nothing_and_recovers(&folder, || fs::rename(&folder, &away).unwrap(), || fs::rename(&away, &folder).unwrap());
}

#[test]
fn with_its_folder_removed_the_count_goes_into_a_new_one() {
    let parent = Folder::new();
    let folder = parent.join("data");
    fs::create_dir(&folder).unwrap();
    shows_nothing_and_recovers(&folder, || fs::remove_dir_all(&folder).unwrap(), || fs::create_dir(&folder).unwrap());
}

#[test]
fn on_a_full_disk_nothing_is_shown_until_there_is_room() {
    let Some(folder) = Folder::mounted() else { return };
    let filler = folder.join("filler");
    shows_nothing_and_recovers(
        &folder,
        || assert!(fs::write(&filler, vec![0; 1 << 20]).is_err(), "it should be full now"),
        || fs::remove_file(&filler).unwrap(),
    );
}

#[test]
fn on_a_read_only_disk_nothing_is_shown_until_it_is_writable() {
    let Some(folder) = Folder::mounted() else { return };
    shows_nothing_and_recovers(&folder, || folder.make_read_only(), || folder.make_writable());
}

#[test]
fn a_read_only_disk_is_refused_at_the_start() {
    let Some(folder) = Folder::mounted() else { return };
    let path = database(&folder, "16");
    folder.make_read_only();
    refusal(&path);
    refusal(&folder.join("new.txt"));
    assert_eq!(fs::read(&path).unwrap(), b"16");
}

/// Saves a visitor's changes as one batch: who, and whether they like it.
fn say(store: &mut FileStore, minds: &[(u8, bool)]) -> Result<Vec<Outcome>> {
    let change = |&(visitor, liked): &(u8, bool)| {
        let kind = ChangeKind::Visitor { visitor: VisitorKey([visitor; 16]), liked, seq: None };
        Change { post: Post::default(), kind }
    };
    store.apply(BatchId { server: 0, number: 0 }, &minds.iter().map(change).collect::<Vec<_>>())
}

fn applied(likes: u64) -> Outcome {
    Outcome::Applied(Count { likes, version: likes })
}

fn known(likes: u64) -> Outcome {
    Outcome::Unchanged { count: Count { likes, version: likes }, liked: true }
}

#[test]
fn a_visitor_counts_once_until_the_restart_and_cannot_take_that_back() {
    let folder = Folder::new();
    let path = database(&folder, "16");
    let mut store = FileStore::open(&path).unwrap();
    let minds = [(1, true), (2, true), (1, true), (1, false)];
    let refused = Outcome::Refused(Refused::Unlikes);
    assert_eq!(say(&mut store, &minds).unwrap(), [applied(17), applied(18), known(18), refused]);
    assert_eq!(say(&mut store, &[(2, true), (3, true)]).unwrap(), [known(18), applied(19)]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "19");
    drop(store);
    assert_eq!(say(&mut FileStore::open(&path).unwrap(), &[(1, true)]).unwrap(), [applied(20)]);
}

#[test]
fn a_visitor_whose_like_was_not_saved_may_like_again() {
    let folder = Folder::new();
    let path = database(&folder, "16");
    let mut store = FileStore::open(&path).unwrap();
    fs::rename(&path, folder.join("away")).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(say(&mut store, &[(1, true)]), Err(Error::NotSaved(_))));
    fs::remove_dir(&path).unwrap();
    assert_eq!(say(&mut store, &[(1, true)]).unwrap(), [applied(17)]);
    assert_eq!(say(&mut store, &[(1, true)]).unwrap(), [known(17)]);
}

#[test]
fn a_text_file_refuses_other_posts_and_what_would_lower_its_count() {
    let folder = Folder::new();
    let mut store = FileStore::open(database(&folder, "16")).unwrap();
    let changes = [
        (Post::new("hello").unwrap(), ChangeKind::Likes(1)),
        (Post::default(), ChangeKind::Set(20)),
        (Post::default(), ChangeKind::Delete),
        (Post::default(), ChangeKind::Likes(2)),
        (Post::default(), ChangeKind::Likes(u64::MAX)),
    ];
    let changes = changes.map(|(post, kind)| Change { post, kind });
    let refused = [Refused::Posts, Refused::Unlikes, Refused::Unlikes].map(Outcome::Refused);
    let outcomes = store.apply(BatchId { server: 0, number: 0 }, &changes).unwrap();
    assert_eq!(outcomes, [&refused[..], &[applied(18), Outcome::Refused(Refused::Likes)]].concat());
}

#[test]
#[cfg(not(feature = "sqlite"))]
fn a_database_that_this_build_cannot_open_is_refused_with_what_installs_it() {
    let folder = Folder::new();
    for name in ["likes.db", "likes.sqlite", "likes.sqlite3"] {
        let refused = live_likes::open_store(folder.join(name), live_likes::StoreLimits::default());
        let told = refused.err().unwrap().to_string();
        assert!(told.contains(name) && told.contains("cargo install live-likes --features sqlite"), "{told}");
    }
    assert_eq!(folder.names(), [""; 0]);
}

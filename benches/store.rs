//! What a commit costs, in a text file, in a small database and in a large one; and what a large one costs to open, to
//! hold and to read.
//!
//!     cargo bench --features sqlite --bench store                        in the folder for temporary files
//!     cargo bench --features sqlite --bench store -- FOLDER [POSTS [VISITORS]]
//!
//! The large database (1,000,000 posts, 10,000,000 visitors unless told otherwise; about 700 MB) is made once, as
//! `FOLDER/large.db`, and stays there. Each figure is of commits that an `fsync` has made durable, so FOLDER should be
//! on the disk that is meant, and not in memory.

use live_likes::{BatchId, Change, ChangeKind, FileStore, Post, SqliteStore, Store, StoreLimits, VisitorKey};
use std::{
    collections::hash_map::RandomState,
    fs,
    hash::{BuildHasher, Hasher},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

const COMMITS: usize = 2000;

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let folder = arguments.first().map_or_else(|| std::env::temp_dir().join("live-likes-bench"), PathBuf::from);
    let number = |place: usize, default| arguments.get(place).map_or(default, |number| number.parse().unwrap());
    let (posts, visitors) = (number(1, 1_000_000), number(2, 10_000_000));
    fs::create_dir_all(&folder).unwrap();
    let large = folder.join("large.db");
    if arguments.get(3).is_some() {
        return make(&large, posts, visitors);
    }
    if !large.exists() {
        // In a process of its own, so that what it holds does not count below.
        let made = Command::new(std::env::current_exe().unwrap())
            .args([folder.to_str().unwrap(), &posts.to_string(), &visitors.to_string(), "make"])
            .status();
        assert!(made.unwrap().success());
    }
    for name in ["db.txt", "small.db", "small.db-wal", "small.db-shm"] {
        let _ = fs::remove_file(folder.join(name));
    }

    let begin = Instant::now();
    let mut large_store = SqliteStore::open(&large, limits()).unwrap();
    println!("large: open {:.1} ms, {} MiB", ms(begin.elapsed()), fs::metadata(&large).unwrap().len() >> 20);
    read(&large_store, posts);

    let mut text = FileStore::open(folder.join("db.txt")).unwrap();
    let mut small = SqliteStore::open(folder.join("small.db"), limits()).unwrap();
    commits("text:  1 counter", &mut text, 1, |_| Change { post: Post::default(), kind: ChangeKind::Likes(1) });
    for many in [1, 50] {
        commits(&format!("small: {many} posts, anonymous"), &mut small, many, |random| like(random % 10_000));
        commits(&format!("small: {many} posts, visitors"), &mut small, many, |random| says(random % 10_000, random));
        commits(&format!("large: {many} posts, anonymous"), &mut large_store, many, |random| like(random % posts));
        commits(&format!("large: {many} posts, visitors"), &mut large_store, many, |random| {
            says(random % posts, random)
        });
    }
    println!("resident {} MiB", resident() >> 10);
}

fn limits() -> StoreLimits {
    let mut limits = StoreLimits::default();
    (limits.posts, limits.visitors) = (u64::MAX, u64::MAX);
    limits
}

fn post(number: u64) -> Post {
    Post::new(&format!("https://example.com/blog/{number}")).unwrap()
}

fn like(number: u64) -> Change {
    Change { post: post(number), kind: ChangeKind::Likes(1) }
}

fn says(number: u64, random: u64) -> Change {
    let visitor = VisitorKey((u128::from(random) << 64 | u128::from(hash(random))).to_be_bytes());
    Change { post: post(number), kind: ChangeKind::Visitor { visitor, liked: true, seq: Some(1_700_000_000_000) } }
}

/// Any number, each time another.
fn hash(of: u64) -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u64(of);
    hasher.finish()
}

/// Commits batches of so many changes.
fn commits(name: &str, store: &mut impl Store, many: usize, change: impl Fn(u64) -> Change) {
    let (server, before) = (u128::from(hash(0)), written());
    let times = (0..COMMITS).map(|number| {
        let changes: Vec<_> = (0..many as u64).map(|place| change(hash(place))).collect();
        let begin = Instant::now();
        store.apply(BatchId { server, number: number as u64 }, &changes).unwrap();
        begin.elapsed()
    });
    report(name, times.collect());
    println!("{:30} {} KiB written a commit", "", (written() - before) / COMMITS as u64 >> 10);
}

/// Bytes that this process has written.
fn written() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap().parse().unwrap()
}

/// Reads posts that are in no cache of SQLite's.
fn read(store: &SqliteStore, posts: u64) {
    let reader = store.reader().unwrap();
    let one = || {
        let asked = [(post(hash(0) % posts), Some(VisitorKey([0; 16])))];
        let begin = Instant::now();
        reader.read(&asked).unwrap();
        begin.elapsed()
    };
    report("large: one count", (0..COMMITS).map(|_| one()).collect());
    let top = || {
        let begin = Instant::now();
        assert_eq!(reader.top(100).unwrap().len(), 100);
        begin.elapsed()
    };
    report("large: top 100", (0..100).map(|_| top()).collect());
    println!("large: resident after reading {} MiB", resident() >> 10);
}

fn report(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |percent: usize| ms(times[(times.len() - 1) * percent / 100]);
    let mean = ms(times.iter().sum::<Duration>()) / times.len() as f64;
    println!("{name:30} p50 {:.3}  mean {mean:.3}  p99 {:.3}  max {:.1} ms", at(50), at(99), at(100));
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// KiB of this process that are in memory.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Makes the large database: each post with as many visitors, and likes by a law that few posts have many of.
fn make(file: &Path, posts: u64, visitors: u64) {
    let begin = Instant::now();
    drop(SqliteStore::open(file, limits()).unwrap());
    let database = rusqlite::Connection::open(file).unwrap();
    database.execute_batch("PRAGMA synchronous = OFF; PRAGMA cache_size = -200000; DROP TRIGGER added; BEGIN").unwrap();
    let per_post = visitors / posts;
    database
        .execute(
            "WITH RECURSIVE n(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n + 1 < ?1)
             INSERT INTO posts (name, visitors, anonymous, version)
             SELECT 'https://example.com/blog/' || n, ?2, ?1 / (n + 1), n + 1 FROM n",
            [posts, per_post],
        )
        .unwrap();
    database
        .execute(
            "WITH RECURSIVE v(v) AS (SELECT 0 UNION ALL SELECT v + 1 FROM v WHERE v + 1 < ?1)
             INSERT INTO visitors SELECT posts.id, randomblob(16), 1, 1700000000000 + v FROM posts JOIN v
             WHERE name <> '' ORDER BY posts.id",
            [per_post],
        )
        .unwrap();
    database.execute("UPDATE meta SET version = ?1, posts = ?1, visitors = ?2", [posts, per_post * posts]).unwrap();
    database.execute_batch("COMMIT; PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    println!("{} made in {:.0} s", file.display(), begin.elapsed().as_secs_f64());
}

//! What a commit costs, in a text file, in a small database and in a large one; and what a large one costs to open, to
//! hold and to read.
//!
//!     cargo bench --features sqlite --bench store                        in the folder for temporary files
//!     cargo bench --features sqlite --bench store -- FOLDER [POSTS [VISITORS]]
//!
//! The large database (1,000,000 posts, 10,000,000 visitors unless told otherwise; about 470 MB) is made once, as
//! `FOLDER/large.db`, and stays there. Each figure is of commits that an `fsync` has made durable, so FOLDER should be
//! on the disk that is meant, and not in memory. Beside a store stands how much it writes for a commit, checkpoints
//! included.

use live_likes::{BatchId, Change, ChangeKind, FileStore, Post, SqliteStore, Store, StoreLimits, VisitorKey};
use std::{
    collections::hash_map::RandomState,
    fs,
    hash::{BuildHasher, Hasher},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

const COMMITS: u64 = 1000;

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
    let mut large = SqliteStore::open(&large, limits()).unwrap();
    println!("large: opened in {:.1} ms", ms(begin.elapsed()));
    read(&large, posts);
    println!("large: resident {} MiB after these reads", resident() >> 10);

    let mut text = FileStore::open(folder.join("db.txt")).unwrap();
    let mut small = SqliteStore::open(folder.join("small.db"), limits()).unwrap();
    for many in [1, 50] {
        for kind in ["anonymous", "visitors"] {
            let change =
                |posts| if kind == "visitors" { says(hash(0) % posts, hash(1)) } else { like(hash(0) % posts) };
            let batch = |posts| (0..many).map(|_| change(posts)).collect::<Vec<_>>();
            let one = || vec![Change { post: Post::default(), kind: ChangeKind::Likes(many) }];
            println!("{many} {kind} likes in a commit:");
            commits([
                ("text, one counter", &mut text, &one),
                ("small, 10,000 posts", &mut small, &|| batch(10_000)),
                ("large", &mut large, &|| batch(posts)),
            ]);
        }
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

/// What is measured: its name, and what makes its next batch.
type Measured<'a> = (&'a str, &'a mut dyn Store, &'a dyn Fn() -> Vec<Change>);

/// Commits batches, in turn to each store, so that whatever else the machine does hits them alike.
fn commits(mut stores: [Measured; 3]) {
    let server = u128::from(hash(0));
    let mut times = [const { Vec::new() }; 3];
    let mut bytes = [0; 3];
    for number in 0..COMMITS {
        for (place, (_, store, batch)) in stores.iter_mut().enumerate() {
            let (changes, before, begin) = (batch(), written(), Instant::now());
            store.apply(BatchId { server, number }, &changes).unwrap();
            times[place].push(begin.elapsed());
            bytes[place] += written() - before;
        }
    }
    for ((name, ..), (times, bytes)) in stores.iter().zip(times.into_iter().zip(bytes)) {
        report(&format!("{name} ({} KiB)", bytes / 1024 / COMMITS), times);
    }
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
    report("one count", (0..2000).map(|_| one()).collect());
    let top = || {
        let begin = Instant::now();
        assert_eq!(reader.top(100).unwrap().len(), 100);
        begin.elapsed()
    };
    report("top 100", (0..100).map(|_| top()).collect());
}

fn report(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |percent: usize| ms(times[(times.len() - 1) * percent / 100]);
    let mean = ms(times.iter().sum::<Duration>()) / times.len() as f64;
    println!("    {name:30} p50 {:.3}  mean {mean:.3}  p99 {:.3}  max {:.1} ms", at(50), at(99), at(100));
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

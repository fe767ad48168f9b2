//! What a store in Redis promises: the same as each store of many posts, and what several servers need of it.

#![cfg(feature = "redis")]

#[path = "support/folder.rs"]
mod folder;
#[path = "support/many.rs"]
mod many;
#[path = "support/redis.rs"]
mod redis;

use live_likes::{
    BatchId, Change, ChangeKind, Count, Error, Likes, Outcome, Post, Posts, RedisStore, Refused, Store, StoreLimits,
    open_admin, open_store,
};
use many::*;
use proptest::prelude::*;
use redis::{Cable, LONG, Redis};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

impl Place for Redis {
    fn new() -> Option<Self> {
        Self::start(&[])
    }

    fn open(&self) -> Box<dyn Store> {
        Box::new(open(&self.url("")))
    }
}

keeps_many_posts!(Redis);

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_likes_and_unlikes_and_retries_and_delays_and_restarts_come_to_what_plain_sets_say(
        steps in prop::collection::vec(a_step(), 1..30)
    ) {
        if let Some(place) = Redis::new() {
            comes_to_what_plain_sets_say(&place, steps);
        }
    }
}

#[track_caller]
fn open(url: &str) -> RedisStore {
    RedisStore::open(url, StoreLimits::default()).unwrap()
}

fn limited(redis: &Redis, posts: u64, visitors: u64) -> RedisStore {
    let mut limits = StoreLimits::default();
    (limits.posts, limits.visitors) = (posts, visitors);
    RedisStore::open(redis.url(""), limits).unwrap()
}

fn refusal(url: &str) -> String {
    match RedisStore::open(url, StoreLimits::default()) {
        Err(e @ Error::Database { .. }) => e.to_string(),
        other => panic!("not refused as a database: {other:?}"),
    }
}

/// Looks until it holds, for what tells nobody that it has come about.
#[track_caller]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "still not so: {what}");
        thread::park_timeout(Duration::from_millis(5));
    }
}

fn server(url: &str) -> Posts {
    Posts::with_store(open(url)).unwrap()
}

const ANNA: &str = "visitor-anna-0001";

#[test]
fn a_post_that_is_deleted_shows_0_and_is_not_brought_back_by_a_like_that_is_sent_again() {
    let Some(redis) = Redis::start(&[]) else { return };
    let mut store = open(&redis.url(""));
    store.save(&[says("a", 1, true, Some(5)), says("a", 2, true, None), says("a", 3, false, Some(6)), likes("a", 7)]);
    assert_eq!(store.save(&[delete("a"), delete("never")]), [applied(0, 10), unchanged(0, 0, false)]);
    assert_eq!(read(&store, ["a", "never"]), [(0, 10), (0, 0)]);
    assert!(!likes_it(&store, "a", 1) && !likes_it(&store, "a", 2));
    assert_eq!(store.save(&[says("a", 1, true, Some(5)), says("a", 3, true, Some(5))]), [unchanged(0, 10, false); 2]);
    assert_eq!(store.save(&[says("a", 1, true, Some(6)), says("a", 2, true, None)]), [applied(1, 11), applied(2, 12)]);
    assert_eq!(store.save(&[delete("a"), likes("a", 1)]), [applied(0, 13), applied(1, 14)]);
    assert_eq!(store.reader().unwrap().top(9).unwrap().len(), 1);
}

#[test]
fn past_the_limits_new_posts_and_visitors_are_refused_and_known_ones_are_not() {
    let Some(redis) = Redis::start(&[]) else { return };
    let mut store = limited(&redis, 2, 2);
    let [no_post, no_visitor] = [Refused::Posts, Refused::Visitors].map(Outcome::Refused);
    assert_eq!(
        store.save(&[likes("a", 1), says("b", 1, true, None), likes("c", 1)]),
        [applied(1, 1), applied(1, 2), no_post]
    );
    assert_eq!(store.save(&[set("c", 1), says("c", 2, true, None), says("c", 2, false, Some(1))]), [no_post; 3]);
    drop(store);
    let mut store = limited(&redis, 2, 2);
    assert_eq!(store.save(&[says("b", 2, true, Some(1)), says("a", 3, true, None)]), [applied(2, 3), no_visitor]);
    assert_eq!(store.save(&[says("b", 2, false, Some(2)), says("a", 3, true, None)]), [applied(1, 4), no_visitor]);
    assert_eq!(store.save(&[says("b", 1, false, None), says("a", 3, true, None)]), [applied(0, 5), applied(2, 6)]);
    let default = Change { post: Post::default(), kind: ChangeKind::Likes(1) };
    assert_eq!(
        store.save(&[delete("a"), likes("a", 1), likes("c", 1), default]),
        [applied(0, 7), applied(1, 8), no_post, applied(1, 9)]
    );
}

#[test]
fn no_count_and_no_version_is_larger_than_every_json_reader_can_read() {
    let Some(redis) = Redis::start(&[]) else { return };
    let mut store = open(&redis.url(""));
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
    assert_eq!(store.reader().unwrap().top(1).unwrap()[0].1, Count { likes: MOST, version: 3 });
    assert_eq!(store.save(&[likes("b", u64::MAX), likes("b", MOST)]), [full, full], "there are no versions for them");
    redis.say(&["HSET", "{likes}:meta", "version", &(MOST - 1).to_string()]);
    let last = [likes("b", 2), likes("b", 1), likes("b", 1), set("b", 5), delete("b"), says("a", 1, false, None)];
    assert_eq!(store.save(&last), [full, applied(1, MOST), full, full, full, full]);
}

#[test]
fn a_large_batch_is_applied_in_parts_and_counts_once_however_often_its_answers_are_lost() {
    let Some(redis) = Redis::start(&[]) else { return };
    let cable = Cable::to(redis.port);
    let mut store = open(&cable.url(""));
    store.save(&[likes("0", 1)]);
    let changes: Vec<_> = (0..700).map(|number| likes(&(number % 250).to_string(), 1)).collect();
    let batch = BatchId { server: 5, number: 1 };
    cable.lose(true);
    for _ in 0..3 {
        assert!(matches!(store.apply(batch, &changes), Err(Error::Unknown(_))));
    }
    cable.lose(false);
    let outcomes = store.apply(batch, &changes).unwrap();
    assert_eq!((outcomes[0], outcomes[699]), (applied(2, 2), applied(3, 701)));
    assert_eq!(store.apply(batch, &changes).unwrap(), outcomes);
    assert_eq!(redis.say(&["HGET", "{likes}:meta", "version"]), "701");
    let earlier = store.apply(BatchId { number: 0, ..batch }, &changes);
    assert!(matches!(&earlier, Err(Error::Stopped(problem)) if problem.contains("batch 1")), "{earlier:?}");
    assert!(redis.say(&["TTL", "{likes}:batch:00000000000000000000000000000005"]).parse::<u64>().unwrap() > 500_000);
}

#[test]
fn a_batch_whose_first_part_is_saved_is_not_told_to_be_not_saved() {
    let Some(mut redis) = Redis::start(&[]) else { return };
    let mut store = open(&redis.url(""));
    // Nothing is sent where nobody is there.
    redis.kill();
    let (batch, changes) = (next_batch(), [likes("a", 1)]);
    assert!(matches!(store.apply(batch, &changes), Err(Error::Unknown(_))), "it went to a connection that was broken");
    redis.run();
    assert_eq!(store.apply(batch, &changes).unwrap(), [applied(1, 1)]);
    redis.kill();
    let _ = store.apply(next_batch(), &[]);
    assert!(matches!(store.apply(next_batch(), &changes), Err(Error::NotSaved(_))), "there is no connection any more");
}

#[test]
fn a_batch_whose_answer_was_lost_is_not_told_to_be_not_saved_where_redis_refuses_it_then() {
    let Some(redis) = Redis::start(&[]) else { return };
    let cable = Cable::to(redis.port);
    let mut store = open(&cable.url(""));
    store.save(&[likes("p", 1)]);
    let port = redis.port.to_string();
    cable.lose_one(move || {
        let refuse = ["-p", &port, "CONFIG", "SET", "min-replicas-to-write", "1"];
        assert!(Command::new("redis-cli").args(refuse).output().unwrap().status.success());
    });
    let batch = next_batch();
    assert!(matches!(store.apply(batch, &[likes("p", 1)]), Err(Error::Unknown(_))), "it may be saved");
    assert!(matches!(store.apply(batch, &[likes("p", 1)]), Err(Error::Unknown(_))), "and may be still");
    redis.say(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    assert_eq!(store.apply(batch, &[likes("p", 1)]).unwrap(), [applied(2, 2)]);
    redis.say(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    assert!(matches!(store.apply(next_batch(), &[likes("p", 1)]), Err(Error::NotSaved(_))), "surely refused");
}

#[test]
fn redis_gets_one_script_call_a_batch() {
    let Some(redis) = Redis::start(&[]) else { return };
    let mut store = open(&redis.url(""));
    let mut monitor = TcpStream::connect(("127.0.0.1", redis.port)).unwrap();
    monitor.write_all(b"MONITOR\r\n").unwrap();
    let mut lines = BufReader::new(monitor).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "+OK");
    let changes: Vec<_> = (0..200).map(|number| says("a", number, true, Some(1))).collect();
    store.save(&changes);
    store.save(&changes[..1]);
    redis.say(&["ECHO", "end"]);
    let seen: Vec<_> = lines.take_while(|line| !line.contains("\"ECHO\"")).collect();
    let asked = |line: &&String| !line.contains(" lua] ") && !line.contains("\"COMMAND\"");
    let asked: Vec<_> = seen.iter().filter(asked).collect();
    assert_eq!(asked.len(), 2, "{asked:#?}");
    assert!(asked.iter().all(|line| line.contains("\"EVALSHA\"")));
    let first = seen.iter().position(|line| line.contains("lua] \"HSET\"")).unwrap();
    let second = seen.iter().rposition(|line| line.contains("\"EVALSHA\"")).unwrap();
    assert!(seen[first..second].iter().all(|line| !line.contains("GET\"")), "all is read before the first write");
}

#[test]
fn a_script_that_redis_has_forgotten_is_told_again() {
    let Some(redis) = Redis::start(&[]) else { return };
    let mut store = open(&redis.url(""));
    redis.say(&["SCRIPT", "FLUSH"]);
    assert_eq!(store.save(&[likes("a", 1)]), [applied(1, 1)]);
}

#[test]
fn a_store_is_reached_over_a_socket_and_over_tls() {
    let Some(redis) = Redis::start(&[]) else { return };
    let mut store = open(&format!("redis+unix://{}?prefix=likes&db=3", redis.file("socket").display()));
    store.save(&[likes("a", 2)]);
    assert_eq!(redis.say(&["-n", "3", "HGET", "{likes}:posts", "a"]), "2 0 2 0");

    let made = Command::new("sh").current_dir(redis.file("")).args(["-ec", MAKE_CERTIFICATES]).output();
    if !made.is_ok_and(|output| output.status.success()) {
        return eprintln!("TLS is not tested: no openssl");
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = |name: &str, value: &str| redis.say(&["CONFIG", "SET", name, value]);
    let [ca, cert, key] = ["ca.pem", "cert.pem", "key.pem"].map(|name| redis.file(name).display().to_string());
    let set = redis.say(&["CONFIG", "SET", "tls-cert-file", &cert, "tls-key-file", &key, "tls-ca-cert-file", &ca]);
    assert_eq!(set, "OK");
    config("tls-auth-clients", "no");
    config("tls-port", &port.to_string());
    let url = format!("rediss://localhost:{port}/3?prefix=likes");
    let get = |trusted: &str| command(&["get", "a", "--db", &url], &[("SSL_CERT_FILE", trusted)]);
    // On a busy machine the certificates may take longer to read than a connection may.
    eventually("it is reached over TLS", || get(&ca).stdout == b"2\n");
    let refused = get("/dev/null");
    assert!(!refused.status.success(), "a certificate that nobody vouches for: {refused:?}");
}

/// An authority, and a certificate of it for `localhost`.
const MAKE_CERTIFICATES: &str = "
    new='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2'
    openssl req -x509 $new -subj /CN=authority -keyout ca.key -out ca.pem
    openssl req -x509 $new -subj /CN=localhost -keyout key.pem -out cert.pem -CA ca.pem -CAkey ca.key \\
        -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE
";

/// Runs the binary.
fn command(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_live-likes"));
    command.args(arguments).envs(environment.iter().copied()).output().unwrap()
}

#[track_caller]
fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_user_and_a_password_come_from_the_environment_and_are_not_told() {
    let user = ["--user", "likes", "on", ">secret-word", "~{likes}:*", "&{likes}:*", "+@all", "-config"];
    let Some(redis) = Redis::start(&[&["--requirepass", "other-word"], &user[..]].concat()) else { return };
    let url = redis.url("");
    let with = [("LIVE_LIKES_REDIS_USER", "likes"), ("LIVE_LIKES_REDIS_PASSWORD", "secret-word")];
    printed(&command(&["set", "a", "3", "--db", &url], &with));
    assert_eq!(printed(&command(&["get", "a", "--db", &url], &with)), "3\n");
    let wrong = [("LIVE_LIKES_REDIS_PASSWORD", "wrong-word")];
    let in_url = format!("redis://likes:secret-word@127.0.0.1:{}/0", redis.port);
    let mut told = Vec::new();
    for (url, environment) in [(&url, &[][..]), (&url, &wrong), (&url, &with[..1]), (&in_url, &[]), (&in_url, &with)] {
        let refused = command(&["get", "a", "--db", url], environment);
        assert_eq!(refused.status.code(), Some(1));
        told.push(String::from_utf8(refused.stderr).unwrap());
    }
    assert!(told.iter().all(|told| !told.contains("-word")), "{told:#?}");
    assert!(
        told[2].contains("LIVE_LIKES_REDIS_PASSWORD") && told[3].contains("LIVE_LIKES_REDIS_PASSWORD"),
        "{told:#?}"
    );
}

#[test]
fn a_name_that_is_not_understood_is_refused_with_what_is_expected() {
    for (url, expected) in [
        ("redis://", "redis://HOST:PORT"),
        ("redis:///0", "redis://HOST:PORT"),
        ("redis://host:port/0", "redis://HOST:PORT"),
        ("redis+unix://host/path", "redis://HOST:PORT"),
        ("redis://localhost/x", "a whole number"),
        ("redis://localhost/0?wait=x", "a whole number"),
        ("redis://localhost/0?prefx=a", "`prefx`"),
        ("redis://localhost/0?db=1", "`db`"),
        ("redis://localhost/0?evict=x", "`evict`"),
        ("redis://localhost/0?prefix=", "a prefix"),
        ("redis://localhost/0?prefix=%7Ba%7D", "a prefix"),
        ("redis://u:p@localhost/0", "LIVE_LIKES_REDIS_PASSWORD"),
    ] {
        let told = refusal(url);
        assert!(told.contains(expected) && !told.contains("u:p"), "{url}: {told}");
    }
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(refusal(&format!("redis://{nobody}/0")).contains(&nobody.to_string()));
    assert!(
        open_admin("redis://u:p@localhost/0", StoreLimits::default()).err().unwrap().to_string().contains("redis://…")
    );
}

#[test]
fn a_redis_that_deletes_counts_or_is_a_replica_or_has_another_format_is_refused() {
    let Some(redis) = Redis::start(&[]) else { return };
    for policy in ["allkeys-lru", "allkeys-random", "volatile-lru", "volatile-ttl"] {
        redis.say(&["CONFIG", "SET", "maxmemory-policy", policy]);
        let told = refusal(&redis.url(""));
        assert!(told.contains(policy) && told.contains("noeviction") && told.contains("evict=allow"), "{told}");
        open(&redis.url("&evict=allow"));
    }
    redis.say(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    redis.say(&["HSET", "{likes}:meta", "format", "2"]);
    assert!(refusal(&redis.url("")).contains("format is 2"));
    redis.say(&["HSET", "{likes}:meta", "format", "1"]);
    redis.say(&["REPLICAOF", "127.0.0.1", "1"]);
    assert!(refusal(&redis.url("")).contains("replica"));
}

#[test]
fn a_redis_older_than_7_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let info = "# Server\r\nredis_version:6.2.14\r\nrun_id:0123\r\n";
        let mut asked = [0; 1000];
        while stream.read(&mut asked).is_ok_and(|read| read > 0) {
            let _ = write!(stream, "${}\r\n{info}\r\n", info.len());
        }
    });
    let told = refusal(&format!("redis://{addr}/0"));
    assert!(told.contains("7.0 or later") && told.contains("6.2.14"), "{told}");
}

/// What a server says at its start.
fn start_line(url: &str, environment: &[(&str, &str)]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_live-likes"));
    command.args(["--addr", "127.0.0.1:0", "--db", url]).envs(environment.iter().copied());
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    line
}

#[test]
fn the_start_says_what_saved_means() {
    let user = ["--user", "likes", "on", ">secret-word", "~{likes}:*", "&{likes}:*", "+@all", "-config"];
    let Some(redis) = Redis::start(&user) else { return };
    let as_user = [("LIVE_LIKES_REDIS_USER", "likes"), ("LIVE_LIKES_REDIS_PASSWORD", "secret-word")];
    let line = start_line(&redis.url(""), &as_user);
    assert!(line.contains("warn") && line.contains("not known") && line.contains("CONFIG"), "{line}");
    for (appendonly, appendfsync, save, expected) in [
        ("yes", "always", "", "info: likes are kept in Redis"),
        ("yes", "always", "", "on the disk of Redis (appendfsync always); it has no replica"),
        ("yes", "everysec", "", "last second"),
        ("yes", "no", "", "30 s"),
        ("no", "always", "3600 1", "last snapshot"),
        ("no", "always", "", "nothing: whenever Redis ends, all likes are gone"),
    ] {
        for (name, value) in [("appendonly", appendonly), ("appendfsync", appendfsync), ("save", save)] {
            assert_eq!(redis.say(&["CONFIG", "SET", name, value]), "OK");
        }
        let line = start_line(&redis.url(""), &[]);
        assert!(line.contains(expected), "{line}");
    }
}

#[test]
fn what_one_server_saves_is_shown_by_the_others_step_by_step() {
    let Some(redis) = Redis::start(&[]) else { return };
    let [one, other] = [server(&redis.url("")), server(&redis.url(""))];
    let (p, q) = (one.post("p").unwrap(), other.post("p").unwrap());
    let mut counts = q.subscribe();
    assert_eq!(counts.next_within(LONG), Ok(0));
    // The first may come before the other has subscribed, and is read then.
    assert_eq!(p.like().unwrap(), 1);
    assert_eq!(counts.next_within(LONG), Ok(1));
    for number in 2..50 {
        assert_eq!(p.like().unwrap(), number);
        assert_eq!(counts.next_within(LONG), Ok(number));
    }
    p.set_liked(ANNA, true, Some(1)).unwrap();
    assert_eq!(q.set_liked(ANNA, true, Some(1)).unwrap().count.likes, 50, "the same visitor counts once on both");
    assert_eq!(q.set_liked(ANNA, false, Some(2)).unwrap().count.likes, 49);
    eventually("the other shows it too", || p.count() == 49);
    one.delete("p").unwrap();
    eventually("a deletion is shown", || q.count() == 0);
}

#[test]
fn a_gap_is_noticed_and_read() {
    let Some(redis) = Redis::start(&[]) else { return };
    let cable = Cable::to(redis.port);
    assert!(open(&redis.url("")).has_other_servers());
    let (one, other) = (server(&redis.url("")), server(&cable.url("")));
    let (p, q) = (one.post("p").unwrap(), other.post("p").unwrap());
    p.like().unwrap();
    eventually("it is heard", || q.count() == 1);
    for round in 2..10 {
        cable.cut();
        p.like().unwrap();
        eventually("what was missed is read", || q.count() == round);
    }
    // What redis-cli drops is as good as a cut.
    redis.say(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    p.like().unwrap();
    eventually("what was missed is read", || q.count() == 10);
    eventually("all is heard of again", || q.health().is_ok());
}

#[test]
fn a_server_that_hears_nothing_says_so_and_goes_on_with_what_it_knows() {
    let Some(mut redis) = Redis::start(&[]) else { return };
    let posts = server(&redis.url(""));
    let p = posts.post("p").unwrap();
    p.like().unwrap();
    redis.kill();
    eventually("it hears nothing", || matches!(p.health(), Err(Error::NotRead(_))));
    assert_eq!(p.count(), 1);
    redis.run();
    eventually("it hears again", || p.health().is_ok());
    assert_eq!(p.like().unwrap(), 2);
}

#[test]
fn a_redis_that_does_not_answer_is_a_save_that_hangs_and_its_likes_count_once() {
    let Some(redis) = Redis::start(&[]) else { return };
    let posts = server(&redis.url(""));
    let p = posts.post("p").unwrap();
    p.like().unwrap();
    redis.signal(rustix::process::Signal::STOP);
    let begin = Instant::now();
    let liked = p.like();
    assert!(matches!(liked, Err(Error::Unknown(_))), "{liked:?}");
    assert!((4..30).contains(&begin.elapsed().as_secs()), "after 5 s: {:?}", begin.elapsed());
    assert!(matches!(p.like(), Err(Error::NotSaved(_))), "further likes are refused at once");
    redis.signal(rustix::process::Signal::CONT);
    eventually("it is well again", || p.health().is_ok());
    eventually("the like counts", || p.count() == 2);
    assert_eq!(p.like().unwrap(), 3);
}

#[test]
fn what_redis_has_lost_is_not_shown_any_more_and_later_changes_are() {
    let Some(mut redis) = Redis::start(&["--appendonly", "no"]) else { return };
    let posts = [server(&redis.url("")), server(&redis.url(""))];
    let all: Vec<Likes> =
        posts.iter().flat_map(|posts| ["kept", "less", "gone"].map(|p| posts.post(p).unwrap())).collect();
    let shows =
        |expected: [u64; 3]| all.iter().zip(expected.iter().cycle()).all(|(post, likes)| post.count() == *likes);
    (0..3).for_each(|_| _ = (all[0].like().unwrap(), all[1].like().unwrap()));
    redis.say(&["SAVE"]);
    all[1].like().unwrap();
    all[2].like().unwrap();
    eventually("all is shown", || shows([3, 4, 1]));
    let before = posts[0].counts(&["less"]).unwrap()[0].version;
    // It comes back with its snapshot.
    redis.kill();
    redis.run();
    eventually("what is left is shown", || shows([3, 3, 0]));
    assert_eq!(all[4].like().unwrap(), 4);
    eventually("later changes are shown", || shows([3, 4, 0]));
    let now = posts[1].counts(&["less"]).unwrap()[0].version;
    assert!(now > before + 1_000_000, "versions go on far above what was told: {before}, {now}");
}

#[test]
fn a_database_that_is_emptied_shows_0_and_goes_on() {
    let Some(redis) = Redis::start(&[]) else { return };
    let posts = server(&redis.url(""));
    let p = posts.post("p").unwrap();
    (0..5).for_each(|_| _ = p.like().unwrap());
    redis.say(&["FLUSHALL"]);
    eventually("nothing is left", || p.count() == 0);
    assert_eq!(p.like().unwrap(), 1);
}

#[test]
fn a_like_waits_for_replicas_where_that_is_asked_for() {
    let Some(redis) = Redis::start(&[]) else { return };
    let mut store = open(&redis.url("&wait=1"));
    let batch = next_batch();
    let told = store.apply(batch, &[likes("p", 1)]).unwrap_err().to_string();
    assert!(told.contains("0 of 1 replicas"), "{told}");
    let Some(replica) = Redis::start(&["--replicaof", "127.0.0.1", &redis.port.to_string()]) else { return };
    eventually("the replica follows", || redis.say(&["INFO", "replication"]).contains("state=online"));
    assert_eq!(store.apply(batch, &[likes("p", 1)]).unwrap(), [applied(1, 1)]);
    assert_eq!(replica.say(&["HGET", "{likes}:posts", "p"]), "1 0 1 0");
    let [one, other] = [server(&redis.url("&wait=1")), server(&redis.url("&wait=1"))];
    let (p, q) = (one.post("p").unwrap(), other.post("p").unwrap());
    for number in 2..20 {
        assert_eq!(p.like().unwrap(), number);
        eventually("it is published", || q.count() == number);
    }
}

#[test]
fn a_promoted_replica_counts_a_batch_that_it_has_once_and_one_that_it_has_not_too() {
    let Some(mut redis) = Redis::start(&[]) else { return };
    let Some(mut replica) = Redis::start(&["--replicaof", "127.0.0.1", &redis.port.to_string()]) else { return };
    eventually("the replica follows", || redis.say(&["INFO", "replication"]).contains("state=online"));
    let mut store = open(&redis.url(""));
    let [has, has_not] = [next_batch(), next_batch()];
    store.apply(has, &[likes("p", 1)]).unwrap();
    redis.say(&["WAIT", "1", "10000"]);
    eventually("it has it", || replica.say(&["HGET", "{likes}:posts", "p"]).starts_with("1 "));
    // What it was sent at first is in its append-only file only when that has been written anew.
    eventually("it has written it", || {
        let says = replica.say(&["INFO", "persistence"]);
        ["aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0"].iter().all(|field| says.contains(field))
    });
    replica.say(&["REPLICAOF", "NO", "ONE"]);
    redis.kill();
    // The address that the servers know is that of the primary.
    replica.kill();
    (replica.port, replica.flags) = (redis.port, Vec::new());
    replica.run();
    assert_eq!(store.apply(has, &[likes("p", 1)]).unwrap(), [applied(1, 1)]);
    let Outcome::Applied(count) = store.apply(has_not, &[likes("p", 1)]).unwrap()[0] else {
        panic!("a like is applied")
    };
    assert_eq!(count.likes, 2);
    assert!(count.version > 1_000_000, "{count:?}");
}

#[test]
fn an_operator_changes_counts_beside_the_servers() {
    let Some(redis) = Redis::start(&[]) else { return };
    let url = redis.url("");
    let run = |arguments: &[&str]| command(&[arguments, &["--db", &url]].concat(), &[]);
    assert_eq!(run(&["get", "p"]).status.code(), Some(1), "there is nothing yet");
    printed(&run(&["set", "p", "5"]));
    let posts = server(&url);
    let p = posts.post("p").unwrap();
    assert_eq!(p.like().unwrap(), 6);
    p.set_liked(ANNA, true, Some(3)).unwrap();
    posts.post("q").unwrap().like().unwrap();
    assert_eq!(printed(&run(&["get", "p"])), "7\n");
    assert_eq!(printed(&run(&["top"])), "7\tp\n1\tq\n");
    assert_eq!(run(&["set", "p", "0"]).status.code(), Some(1), "a visitor likes it");
    let all = printed(&run(&["export", "--visitors"]));
    printed(&run(&["set", "p", "100"]));
    eventually("it is shown", || p.count() == 100);
    printed(&run(&["delete", "p"]));
    eventually("it is shown", || p.count() == 0);
    assert_eq!(printed(&run(&["top"])), "1\tq\n");

    // Into another prefix, by more than one call of the script.
    let file = redis.file("all.csv");
    let more: String = (0..250).map(|number| format!("post-{number},{number},,,\n")).collect();
    std::fs::write(&file, all.clone() + &more).unwrap();
    let other = url.replace("prefix=likes", "prefix=other");
    printed(&command(&["import", file.to_str().unwrap(), "--db", &other], &[]));
    let again = printed(&command(&["export", "--visitors", "--db", &other], &[]));
    let visitor = all.lines().nth(1).unwrap();
    assert!(visitor.starts_with("p,,") && visitor.ends_with(",true,3"), "{all}");
    assert!(again.contains(visitor) && again.contains("\np,7,,,") && again.contains("\npost-249,249,,,"), "{again}");
    let backed_up = run(&["backup", redis.file("backup").to_str().unwrap()]);
    assert!(String::from_utf8(backed_up.stderr).unwrap().contains("redis-cli --rdb"));
    let told = String::from_utf8(command(&["get", "p", "--db", &other, "--log", "info"], &[]).stderr).unwrap();
    assert_eq!(told, "", "what a server says at its start is no answer to a command");
}

#[test]
fn a_server_counts_what_it_asks_of_redis() {
    let Some(redis) = Redis::start(&[]) else { return };
    let cable = Cable::to(redis.port);
    let one = server(&cable.url(""));
    let other = server(&redis.url(""));
    let running = live_likes::Server::new(one.clone()).bind("127.0.0.1:0").unwrap();
    let (addr, handle) = (running.local_addr(), running.handle());
    let running = thread::spawn(|| running.run());
    let metric = |name: &str| -> u64 {
        let mut stream = TcpStream::connect(addr).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("live_likes_redis_{name}_total ")));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    };
    let p = other.post("p").unwrap();
    let _shown = one.post("p").unwrap();
    eventually("others' changes are heard of", || {
        p.like().unwrap();
        metric("changes") >= 3
    });
    assert!(metric("round_trips") >= 3);
    assert_eq!(metric("reconnects"), 0);
    cable.cut();
    p.like().unwrap();
    eventually("it connects again", || metric("reconnects") >= 1);
    handle.stop();
    running.join().unwrap().unwrap();
}

#[test]
fn a_store_that_is_closed_is_not_read() {
    let Some(redis) = Redis::start(&[]) else { return };
    let store = open_store(redis.url(""), StoreLimits::default()).unwrap();
    let reader = store.reader().unwrap();
    assert_eq!(reader.read(&[(post("a"), None)]).unwrap()[0].0, Count::default());
    drop(store);
    assert!(matches!(reader.read(&[(post("a"), None)]), Err(Error::Closed)));
}

/// The commands of the document, for a post with this name.
fn documented(name: &str) -> Vec<String> {
    let text = include_str!("../docs/REDIS.md");
    let block =
        text.split("```sh\n").find(|block| block.starts_with(&format!("# {name}"))).expect("there is such a block");
    block.split("```").next().unwrap().lines().skip(1).map(str::to_owned).collect()
}

#[test]
fn the_documented_rights_are_enough() {
    let Some(redis) = Redis::start(&[]) else { return };
    let text = include_str!("../docs/REDIS.md");
    let rights = text.split("```text\n").nth(1).unwrap().split("```").next().unwrap();
    let rights = rights.replace("PASSWORD", "secret-word");
    assert_eq!(redis.say(&rights.split_whitespace().collect::<Vec<_>>()), "OK");
    let user = [("LIVE_LIKES_REDIS_USER", "likes"), ("LIVE_LIKES_REDIS_PASSWORD", "secret-word")];
    let run = |arguments: &[&str]| command(&[arguments, &["--db", &redis.url("")]].concat(), &user);
    printed(&run(&["set", "hello", "5"]));
    assert_eq!(printed(&run(&["get", "hello"])), "5\n");
    assert_eq!(printed(&run(&["top"])), "5\thello\n");
    assert_eq!(printed(&run(&["export", "--visitors"])).lines().count(), 2);
    printed(&run(&["delete", "hello"]));
    let line = start_line(&redis.url("&wait=0"), &user);
    assert!(line.contains("appendfsync always"), "{line}");
    assert_eq!(redis.say(&["--json", "ACL", "LOG"]), "[]", "nothing was denied");
}

#[test]
fn the_documented_commands_read_correct_and_delete_a_count_and_servers_show_it() {
    let Some(redis) = Redis::start(&[]) else { return };
    let posts = server(&redis.url(""));
    let hello = posts.post("hello").unwrap();
    (0..3).for_each(|_| _ = hello.like().unwrap());
    hello.set_liked(ANNA, true, None).unwrap();
    let shell = |name: &str| {
        let commands = documented(name).join("\n").replace("redis-cli", &format!("redis-cli -p {}", redis.port));
        printed(&Command::new("sh").arg("-c").arg(commands).output().unwrap())
    };
    assert!(shell("read").contains("4 1 4 0"), "{}", shell("read"));
    shell("correct");
    eventually("the corrected count is shown", || hello.count() == 100);
    assert_eq!(posts.top(1).unwrap()[0].1.likes, 100);
    assert_eq!(hello.like().unwrap(), 101);
    shell("delete");
    eventually("the deletion is shown", || hello.count() == 0);
    assert_eq!(posts.top(1).unwrap(), []);
    assert_eq!(hello.set_liked(ANNA, true, None).unwrap().count.likes, 1, "who wants to like it anew can");
}

//! The operator's commands: what they print, what they change, and their exit codes, with a server and without one.
#![cfg(feature = "cli")]

#[path = "support/client.rs"]
mod client;
#[path = "support/folder.rs"]
mod folder;
#[path = "support/reserved.rs"]
mod reserved;

use client::put;
use folder::Folder;
use reserved::Reserved;
use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
};

/// The binary in a folder, without our environment.
fn binary(folder: &Folder, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_live-likes"));
    let tsan = std::env::var_os("TSAN_OPTIONS").map(|options| ("TSAN_OPTIONS", options));
    command.current_dir(&**folder).env_clear().envs(tsan).args(arguments).stdin(Stdio::null());
    command
}

/// The exit code, standard output and standard error.
type Ended = (i32, String, String);

fn end(mut command: Command) -> Ended {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn run(folder: &Folder, arguments: &[&str]) -> Ended {
    end(binary(folder, arguments))
}

/// What a command prints that is done.
#[track_caller]
fn done(folder: &Folder, arguments: &[&str]) -> String {
    let (code, out, err) = run(folder, arguments);
    assert_eq!(code, 0, "{arguments:?}: {err}");
    out
}

/// What a command says that fails.
#[track_caller]
fn failed(folder: &Folder, arguments: &[&str]) -> String {
    let (code, out, err) = run(folder, arguments);
    assert_eq!((code, out.as_str()), (1, ""), "{arguments:?}: {err}");
    assert_eq!(err.lines().count(), 1, "{err}");
    err.strip_prefix("live-likes: ").unwrap().trim_end().to_owned()
}

/// Imports a text from standard input.
fn import(folder: &Folder, text: &str, more: &[&str]) -> Ended {
    fs::write(folder.join("import.csv"), text).unwrap();
    let mut command = binary(folder, &[&["import", "-"], more].concat());
    command.stdin(File::open(folder.join("import.csv")).unwrap());
    end(command)
}

/// A server, killed when this is dropped.
struct Server {
    child: Child,
    addr: SocketAddr,
    _stdout: BufReader<ChildStdout>,
}

impl Server {
    fn start(folder: &Folder, flags: &[&str]) -> Self {
        let mut command = binary(folder, &["--addr", "127.0.0.1:0", "--log", "error"]);
        let mut child = command.args(flags).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let (_, rest) = line.split_once("http://").unwrap_or_else(|| panic!("no address in {line:?}"));
        let addr = rest.split('/').next().unwrap().parse().unwrap();
        Self { child, addr, _stdout: stdout }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const NO_FILE: &str = "there is no such file";

#[test]
fn a_command_explains_itself_and_stands_in_the_help_of_all() {
    let folder = Folder::new();
    let all = done(&folder, &["--help"]);
    for usage in [
        "get [POST]",
        "set [POST] N",
        "delete POST",
        "top [N]",
        "export [--visitors]",
        "import FILE",
        "backup FILE",
        "health URL",
    ] {
        assert!(all.contains(&format!("\n  {usage} ")), "{usage}");
        let name = usage.split(' ').next().unwrap();
        for arguments in [[name, "--help"], [name, "-h"]] {
            let help = done(&folder, &arguments);
            assert!(help.starts_with(&format!("live-likes {name}: ")), "{help}");
            assert!(help.contains(&format!("\nUsage: live-likes {usage} [FLAG ...]\n")), "{help}");
            assert!(help.contains("exit code is 0"), "{help}");
            assert_eq!(help.contains("--db FILE"), name != "health", "{help}");
            assert_eq!(help.contains("--max-posts"), ["set", "delete", "import"].contains(&name), "{help}");
        }
    }
    assert!(folder.names().is_empty());
}

#[test]
fn bad_usage_ends_with_2_and_touches_nothing() {
    let folder = Folder::new();
    let long = "x".repeat(201);
    for (arguments, told) in [
        (
            &["frobnicate"][..],
            "unexpected argument `frobnicate`: a command or a flag is expected\ntry live-likes --help",
        ),
        (&["get", "a", "b"], "unexpected argument `b`: `get [POST]` is expected"),
        (&["get", "a\tb"], "holds U+0009\ntry live-likes get --help"),
        (&["get", &long], "has at most 200 bytes"),
        (&["get", "--visitors"], "unknown flag --visitors"),
        (&["get", "--addr", "127.0.0.1:0"], "--addr is for the server alone"),
        (&["--page", "a.html", "top"], "--page is for the server alone"),
        (&["get", "--max-posts", "3"], "--max-posts is for the server alone"),
        (&["health", "http://a", "--db", "a"], "--db is for the server alone"),
        (&["get", "--db"], "--db needs a value: FILE"),
        (&["set"], "an argument is missing: `set [POST] N` is expected"),
        (&["set", "a"], "invalid number `a`: a whole number is expected\ntry live-likes set --help"),
        (&["set", "a", "+1"], "invalid number `+1`"),
        (&["set", "a", "--", "-1"], "invalid number `-1`"),
        (&["set", "a", ""], "invalid number ``"),
        (&["set", "a", "18446744073709551616"], "invalid number `18446744073709551616`"),
        (&["set", "a", "1", "2"], "unexpected argument `2`"),
        (&["delete"], "an argument is missing: `delete POST` is expected"),
        (&["top", "many"], "invalid number `many`"),
        (&["export", "a"], "unexpected argument `a`: `export [--visitors]` is expected"),
        (&["export", "--visitors=all"], "unexpected argument for option '--visitors'"),
        (&["import"], "an argument is missing: `import FILE` is expected"),
        (&["backup"], "an argument is missing: `backup FILE` is expected"),
        (&["health"], "an argument is missing: `health URL` is expected"),
        (&["health", "127.0.0.1:3000"], "invalid URL `127.0.0.1:3000`: http://HOST:PORT, http"),
        (&["health", "https://127.0.0.1"], "invalid URL `https://127.0.0.1`"),
        (&["health", "http://user:secret@127.0.0.1"], "invalid URL"),
        (&["health", "/healthz"], "invalid URL `/healthz`"),
    ] {
        let (code, out, err) = run(&folder, arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {err}");
        assert!(err.starts_with("live-likes: ") && err.contains(told), "{err} should tell {told}");
        assert!(err.contains("\ntry live-likes "), "{err}");
    }
    assert!(folder.names().is_empty(), "{:?}", folder.names());
}

#[test]
fn a_store_that_is_not_there_is_made_by_what_fills_it_alone() {
    let folder = Folder::new();
    for arguments in [&["get"][..], &["delete", ""], &["export"], &["backup", "b"]] {
        assert_eq!(failed(&folder, arguments), format!("cannot use the database `db.txt`: {NO_FILE}"));
    }
    assert!(failed(&folder, &["get", "--db", "none/db.txt"]).contains("none/db.txt"));
    assert!(failed(&folder, &["get", "--db", "."]).contains("not a regular file"));
    fs::write(folder.join("wrong.txt"), "many").unwrap();
    assert!(failed(&folder, &["get", "--db", "wrong.txt"]).contains("one decimal number"));
    assert!(failed(&folder, &["get", "--db", "redis://:secret@localhost"]).contains("Redis"));
    assert_eq!(folder.names(), ["wrong.txt"]);
    assert_eq!(done(&folder, &["set", "16"]), "the default counter has 16 likes in db.txt\n");
    assert_eq!(fs::read_to_string(folder.join("db.txt")).unwrap(), "16");
    fs::remove_file(folder.join("db.txt")).unwrap();
    assert_eq!(import(&folder, "17\n", &[]), (0, "imported 1 post into db.txt\n".into(), String::new()));
    assert_eq!(done(&folder, &["get"]), "17\n");
}

#[test]
fn a_text_file_is_read_and_changed() {
    let folder = Folder::new();
    assert_eq!(done(&folder, &["set", "", "16"]), "the default counter has 16 likes in db.txt\n");
    assert_eq!([done(&folder, &["get"]), done(&folder, &["get", ""])], ["16\n", "16\n"]);
    let exported = (0, "post,likes\n,16\n".to_owned(), "exported 1 post of db.txt\n".to_owned());
    assert_eq!(run(&folder, &["export"]), exported);
    let all = "post,likes,visitor,liked,seq\n,16,,,\n";
    assert_eq!(done(&folder, &["export", "--visitors"]), all);
    assert_eq!(done(&folder, &["backup", "copy.txt"]), "db.txt is copied to copy.txt\n");
    assert_eq!(done(&folder, &["delete", ""]), "the default counter has no likes any more in db.txt\n");
    assert_eq!(done(&folder, &["get"]), "0\n");
    assert_eq!(done(&folder, &["export"]), "post,likes\n");
    for text in ["16", " 16 \r\n", "post,likes\n,16\n", "post,likes\r\n,16\r\n", "\u{feff}post,likes\n\"\",16", all] {
        assert_eq!(done(&folder, &["set", "3"]), "the default counter has 3 likes in db.txt\n");
        let (code, _, err) = import(&folder, text, &[]);
        assert_eq!((code, done(&folder, &["get"]).as_str()), (0, "16\n"), "{text:?}: {err}");
    }
    assert_eq!(done(&folder, &["import", "copy.txt"]), "imported 1 post into db.txt\n");
    assert_eq!(done(&folder, &["set", &u64::MAX.to_string()]).lines().count(), 1);
    let one = "this store keeps one counter; --db likes.db keeps one for each post";
    for arguments in [&["get", "a"][..], &["set", "a", "1"], &["delete", "a"], &["top"]] {
        assert_eq!(failed(&folder, arguments), one);
    }
    let (code, _, err) = import(&folder, "post,likes\n,1\na,2\n", &[]);
    assert_eq!((code, err), (1, format!("live-likes: cannot import `-`: line 3: {one}; nothing is imported\n")));
    assert_eq!(done(&folder, &["get"]), format!("{}\n", u64::MAX));
}

#[test]
fn a_text_file_that_a_server_has_is_read_and_not_changed() {
    let folder = Folder::new();
    fs::write(folder.join("db.txt"), "16").unwrap();
    let server = Server::start(&folder, &[]);
    assert!(put(server.addr, "/like").body.ends_with(r#"{"numLikes":17}"#));
    assert_eq!(done(&folder, &["get"]), "17\n");
    assert_eq!(done(&folder, &["export"]), "post,likes\n,17\n");
    assert_eq!(done(&folder, &["backup", "copy.txt"]), "db.txt is copied to copy.txt\n");
    assert_eq!(fs::read_to_string(folder.join("copy.txt")).unwrap(), "17");
    let held = "cannot use the database `db.txt`: another process is using it";
    assert_eq!(failed(&folder, &["set", "3"]), held);
    assert_eq!(failed(&folder, &["delete", ""]), held);
    let told = failed(&folder, &["import", "copy.txt"]);
    assert_eq!(told, format!("cannot import `copy.txt`: {held}; nothing is imported"));
    assert!(put(server.addr, "/like").body.ends_with(r#"{"numLikes":18}"#));
    drop(server);
    assert_eq!(done(&folder, &["set", "3"]), "the default counter has 3 likes in db.txt\n");
}

#[test]
fn a_command_takes_the_store_from_the_environment_and_nothing_that_is_for_the_server() {
    let folder = Folder::new();
    fs::write(folder.join("other.txt"), "7").unwrap();
    let mut command = binary(&folder, &["get"]);
    command.env("LIVE_LIKES_DB", "other.txt").env("PORT", "http").env("LIVE_LIKES_KEEP_ALIVE", "soon");
    assert_eq!(end(command), (0, "7\n".to_owned(), String::new()));
    let mut command = binary(&folder, &["--db", "other.txt", "get"]);
    command.env("LIVE_LIKES_DB", "none.txt");
    assert_eq!(end(command), (0, "7\n".to_owned(), String::new()));
    let mut command = binary(&folder, &["get"]);
    command.env("LIVE_LIKES_LOG", "loud");
    assert_eq!(end(command).0, 2);
}

#[test]
fn what_cannot_be_printed_is_an_error() {
    let folder = Folder::new();
    fs::write(folder.join("db.txt"), "7").unwrap();
    for arguments in [&["get"][..], &["export"]] {
        let mut command = binary(&folder, arguments);
        command.stdout(File::options().write(true).open("/dev/full").unwrap());
        let output = command.stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{err}");
        assert!(err.starts_with("live-likes: cannot write to standard output: "), "{err}");
    }
}

#[test]
#[cfg(not(feature = "sqlite"))]
fn without_sqlite_a_command_says_how_to_get_it() {
    let folder = Folder::new();
    for arguments in [["get", ""], ["set", "3"], ["import", "likes.csv"]] {
        fs::write(folder.join("likes.csv"), "3").unwrap();
        let mut command = binary(&folder, &arguments);
        command.env("LIVE_LIKES_DB", "likes.db");
        let (code, _, err) = end(command);
        assert_eq!(code, 1);
        assert!(err.contains("`likes.db`: this build has no SQLite: cargo install"), "{err}");
    }
    assert_eq!(folder.names(), ["likes.csv"]);
}

// --- health ---

/// A server that says one thing to one client, and then closes.
fn saying(text: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; 1024];
        let _ = stream.read(&mut head);
        let _ = stream.write_all(text.as_bytes());
    });
    addr
}

#[test]
fn health_is_0_after_200_alone() {
    let folder = Folder::new();
    let server = Server::start(&folder, &["--addr", "unix:likes.sock"]);
    let addr = server.addr;
    for url in [format!("http://{addr}"), format!("http://{addr}/"), format!("http://{addr}/likes?x")] {
        let expected = if url.ends_with("?x") { 1 } else { 0 };
        assert_eq!(run(&folder, &["health", &url]).0, expected, "{url}");
    }
    assert_eq!(done(&folder, &["health", &format!("http://{addr}/healthz")]), "ok\n");
    let unix = format!("unix:{}", folder.join("likes.sock").display());
    assert_eq!(done(&folder, &["health", &unix]), "ok\n");
    assert!(failed(&folder, &["health", "unix:nowhere"]).starts_with("unix:nowhere does not answer: No such file"));
    assert_eq!(done(&folder, &["health", &format!("http://localhost:{}/likes", addr.port())]), "ok\n");
    let missing = format!("http://{addr}/none");
    assert_eq!(failed(&folder, &["health", &missing]), format!("{missing} answers with 404, and not 200"));
    for (text, told) in [
        ("HTTP/1.1 200 OK\r\n\r\n", ""),
        ("HTTP/1.1 503 Service Unavailable\r\n\r\n", "answers with 503, and not 200"),
        ("HTTP/1.1 200 OK\r\nContent-Le", "does not answer: it closed the connection"),
        ("", "does not answer: it closed the connection"),
        ("SSH-2.0-OpenSSH\r\n", "does not answer: no HTTP: "),
    ] {
        let (code, _, err) = run(&folder, &["health", &format!("http://{}", saying(text))]);
        assert_eq!(code, i32::from(!told.is_empty()), "{err}");
        assert!(err.contains(told), "{err} should tell {told}");
    }
    let nobody = Reserved::new();
    let told = failed(&folder, &["health", &format!("http://{}", nobody.addr)]);
    assert!(told.contains("does not answer: Connection refused"), "{told}");
}

#[test]
fn health_waits_for_5_seconds() {
    let folder = Folder::new();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let told = failed(&folder, &["health", &format!("http://{}", silent.local_addr().unwrap())]);
    assert!(told.ends_with("does not answer: nothing within 5 s"), "{told}");
}

// --- import ---

#[test]
fn a_line_that_is_wrong_is_named_and_nothing_is_imported() {
    let folder = Folder::new();
    let header =
        "line 1: the header `post,likes` or `post,likes,visitor,liked,seq` is expected, or nothing but a number";
    let (short, long) = ("post,likes\n,1\n", "post,likes,visitor,liked,seq\n,1,,,\n");
    let hash = "00112233445566778899aabbccddeeff";
    let name = format!("{short}{},2\n", "x".repeat(201));
    let visitor = |fields: &str| format!("{long}{}\n", fields.replace("HASH", hash));
    let cases = [
        (String::new(), header),
        ("\n".to_owned(), header),
        ("likes,post\n1,a\n".to_owned(), header),
        ("-16".to_owned(), header),
        ("16\n17\n".to_owned(), header),
        ("16,17".to_owned(), header),
        (format!("{short}a\n"), "line 3: 2 columns are expected, and there are 1"),
        (format!("{short}a,1,2\n"), "line 3: 2 columns are expected, and there are 3"),
        (format!("{short}a,\n"), "line 3: a whole number is expected, and not ``"),
        (format!("{short}a,-1\n"), "line 3: a whole number is expected, and not `-1`"),
        (format!("{short}\"two\nlines\",1\n"), "line 3: the name of a post holds no control characters"),
        (format!("{short}\n\na,1.5\n"), "line 5: a whole number is expected, and not `1.5`"),
        (format!("{short}a,2\r\n\nb,x\r\n"), "line 5: a whole number is expected, and not `x`"),
        (format!("{short}a,x"), "line 3: a whole number is expected, and not `x`"),
        (name, "line 3: the name of a post has at most 200 bytes"),
        (format!("{short}{}", "x".repeat(2 << 20)), "line 3: it has more than 1048576 bytes"),
        (format!("{short}\"a,2\nb,3\n"), "line 3: 2 columns are expected, and there are 1"),
        (visitor("a,,HASH,yes,"), "line 3: true or false is expected, and not `yes`"),
        (visitor("a,,HASH,true,-1"), "line 3: a whole number is expected, and not `-1`"),
        (visitor("a,,HASHa,true,1"), "line 3: 32 hexadecimal digits are expected for a visitor"),
        (visitor("a,,+0112233445566778899aabbccddeeff,true,1"), "line 3: 32 hexadecimal digits"),
        (visitor("a,,,true,1"), "line 3: 32 hexadecimal digits"),
        (visitor("a,1,HASH,true,1"), "line 3: either likes are expected, or a visitor, and not both"),
        (visitor("a,,HASH,true,1"), "the file ends before the likes of \"a\": it is not whole"),
        (visitor("a,,HASH,true,1\nb,1,,,"), "line 4: the likes of a post are expected after its visitors"),
    ];
    for (text, told) in cases {
        let (code, out, err) = import(&folder, &text, &[]);
        assert_eq!((code, out.as_str()), (1, ""), "{text:?}: {err}");
        let told = format!("live-likes: cannot import `-`: {told}");
        assert!(err.starts_with(&told) && err.lines().count() == 1, "{text:?}: {err} should tell {told}");
    }
    let (code, _, err) = import(&folder, "post,likes\n,1\n", &["--db", "/dev/null"]);
    assert_eq!(code, 1, "{err}");
    assert_eq!(failed(&folder, &["import", "none"]), "cannot import `none`: No such file or directory (os error 2)");
    assert!(failed(&folder, &["import", "."]).contains("directory"));
    if folder.join("db.txt").exists() {
        assert_eq!(done(&folder, &["get"]), "0\n");
    }
}

#[test]
fn a_field_that_is_not_utf_8_is_named() {
    let folder = Folder::new();
    fs::write(folder.join("a.csv"), b"post,likes\n\xff,1\n").unwrap();
    let told = failed(&folder, &["import", "a.csv"]);
    assert_eq!(told, "cannot import `a.csv`: line 2: valid UTF-8 is expected; nothing is imported");
}

#[cfg(feature = "sqlite")]
mod on_sqlite {
    use super::*;
    use client::{Client, get};
    use live_likes::{Change, ChangeKind, Post, StoreLimits, VisitorKey, open_admin, open_store};
    use rustix::{
        fs::OFlags,
        pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    };
    use std::{
        os::unix::fs::{OpenOptionsExt, PermissionsExt},
        sync::{
            Arc,
            atomic::{AtomicBool, AtomicU64, Ordering},
        },
        time::{Duration, Instant},
    };

    const DB: &str = "likes.db";

    fn on<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
        [arguments, &["--db", DB]].concat()
    }

    /// So many posts, as an export has them.
    fn many(posts: usize) -> String {
        (0..posts).fold("post,likes\n".to_owned(), |text, number| format!("{text}post {number},{}\n", number + 1))
    }

    /// An empty database, and some changes of it.
    fn filled(folder: &Folder, changes: &[(&str, ChangeKind)]) {
        let path = folder.join(DB);
        drop(open_store(&path, StoreLimits::default()).unwrap());
        let post = |name: &str| if name.is_empty() { Post::default() } else { Post::new(name).unwrap() };
        let changes: Vec<_> =
            changes.iter().map(|(name, kind)| Change { post: post(name), kind: kind.clone() }).collect();
        open_admin(path, StoreLimits::default()).unwrap().apply(&changes).unwrap();
    }

    fn visitor(number: u8, liked: bool, seq: Option<u64>) -> ChangeKind {
        ChangeKind::Visitor { visitor: VisitorKey([number; 16]), liked, seq }
    }

    #[test]
    fn posts_are_read_changed_and_deleted() {
        let folder = Folder::new();
        assert!(failed(&folder, &on(&["get", "a"])).contains(NO_FILE));
        assert!(failed(&folder, &on(&["top"])).contains(NO_FILE));
        assert_eq!(done(&folder, &on(&["set", "a", "5"])), "\"a\" has 5 likes in likes.db\n");
        assert_eq!(done(&folder, &["set", "--db", DB, "--", "-b\u{202e}\"", "7"]).lines().count(), 1);
        done(&folder, &on(&["set", "100"]));
        let counts = [&["get", "a"][..], &["get"], &["get", "", "--db", DB], &["get", "none"]];
        let counts = counts.map(|arguments| done(&folder, &on(arguments)));
        assert_eq!(counts, ["5\n", "100\n", "100\n", "0\n"]);
        assert_eq!(done(&folder, &["get", "--db", DB, "--", "-b\u{202e}\""]), "7\n");
        assert_eq!(done(&folder, &on(&["top"])), "7\t-b\u{202e}\"\n5\ta\n");
        assert_eq!(done(&folder, &on(&["top", "1"])), "7\t-b\u{202e}\"\n");
        assert_eq!(done(&folder, &on(&["top", "0"])), "");
        assert_eq!(done(&folder, &on(&["delete", "a"])), "\"a\" has no likes any more in likes.db\n");
        assert_eq!(done(&folder, &on(&["delete", "none"])), "\"none\" is not in likes.db\n");
        assert_eq!(done(&folder, &on(&["get", "a"])), "0\n");
        let too_many = failed(&folder, &on(&["set", "a", "9007199254740992"]));
        assert_eq!(too_many, "the count is as large as it can be");
        let full = failed(&folder, &on(&["set", "c", "1", "--max-posts", "2"]));
        assert_eq!(full, "there is no room for a further post");
        assert_eq!(folder.names(), ["likes.db", "likes.db.lock"]);
    }

    #[test]
    fn a_count_below_the_visitors_is_refused() {
        let folder = Folder::new();
        filled(&folder, &[("a", visitor(1, true, None)), ("a", visitor(2, true, None))]);
        assert_eq!(failed(&folder, &on(&["set", "a", "1"])), "more visitors than that like the post");
        done(&folder, &on(&["set", "a", "2"]));
        done(&folder, &on(&["delete", "a"]));
        done(&folder, &on(&["set", "a", "1"]));
        assert_eq!(done(&folder, &on(&["get", "a"])), "1\n");
    }

    #[test]
    fn a_running_server_shows_what_is_changed() {
        let folder = Folder::new();
        let server = Server::start(&folder, &["--db", DB]);
        let mut peer = Client::new(server.addr);
        assert_eq!(peer.count(), 0);
        done(&folder, &on(&["set", "16"]));
        assert_eq!(peer.count(), 16);
        peer.like();
        assert_eq!(peer.count(), 17);
        assert_eq!(done(&folder, &on(&["get"])), "17\n");
        done(&folder, &on(&["delete", ""]));
        assert_eq!(peer.count(), 0);
        let (code, _, err) = import(&folder, "post,likes\n,3\nhello,4\n", &["--db", DB]);
        assert_eq!((code, peer.count()), (0, 3), "{err}");
        assert!(get(server.addr, "/likes?post=hello").body.contains(r#""numLikes":4"#));
        assert_eq!(done(&folder, &on(&["export"])), "post,likes\nhello,4\n,3\n");
    }

    #[test]
    fn an_export_with_visitors_loses_nothing_and_may_be_imported_again() {
        let folder = Folder::new();
        let names = ["\"quoted\", with commas", " spaces ", "ünïcode\u{2028}", "__proto__", "=1+1", "post"];
        let mut changes =
            vec![("", ChangeKind::Set(9)), ("gone", ChangeKind::Set(3)), ("gone", visitor(8, true, Some(5)))];
        changes.push(("gone", ChangeKind::Delete));
        for (number, name) in (1..).zip(names) {
            changes.push((name, ChangeKind::Likes(3)));
            changes.push((name, visitor(number, true, None)));
            changes.push((name, visitor(100, true, Some(7))));
            changes.push((name, visitor(101, false, Some((1 << 53) - 1))));
        }
        filled(&folder, &changes);
        let export = |db: &str| done(&folder, &["export", "--visitors", "--db", db]);
        let exported = export(DB);
        assert_eq!(exported.lines().count(), 1 + 8 + 3 * 6 + 1, "{exported}");
        let hash = "64".repeat(16);
        assert!(exported.starts_with("post,likes,visitor,liked,seq\n,9,,,\n"), "{exported}");
        assert!(exported.contains(&format!("\n\"\"\"quoted\"\", with commas\",,{hash},true,7\n")), "{exported}");
        assert!(exported.ends_with(&format!("gone,,{},false,5\ngone,0,,,\n", "08".repeat(16))), "{exported}");
        fs::write(folder.join("all.csv"), &exported).unwrap();
        for _ in 0..2 {
            let said = done(&folder, &["import", "all.csv", "--db", "new.db"]);
            assert_eq!(said, "imported 8 posts and 19 visitors into new.db\n");
            assert_eq!(export("new.db"), exported);
        }
        // The order of those with as many likes is the same, too.
        assert_eq!(done(&folder, &["top", "--db", "new.db"]), done(&folder, &on(&["top"])));
        // And a like from before the move does not come back.
        let mut new = open_admin(folder.join("new.db"), StoreLimits::default()).unwrap();
        let (gone, kind) = (Post::new("gone").unwrap(), visitor(8, true, Some(5)));
        new.apply(&[Change { post: gone.clone(), kind }]).unwrap();
        assert_eq!(new.count(&gone).unwrap().likes, 0);
        // What was sorted imports as well.
        let (header, rest) = exported.split_once('\n').unwrap();
        let mut lines: Vec<_> = rest.lines().collect();
        lines.sort_unstable();
        let (code, _, err) = import(&folder, &format!("{header}\n{}", lines.join("\n")), &["--db", "sorted.db"]);
        assert_eq!(code, 0, "{err}");
        let sorted = |text: String| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(sorted(export("sorted.db")), sorted(exported));
    }

    #[test]
    fn an_export_without_visitors_has_the_whole_counts() {
        let folder = Folder::new();
        filled(
            &folder,
            &[("a", ChangeKind::Likes(3)), ("a", visitor(1, true, None)), ("b", visitor(1, false, Some(1)))],
        );
        let exported = run(&folder, &on(&["export"]));
        assert_eq!(exported, (0, "post,likes\na,4\n".to_owned(), "exported 1 post of likes.db\n".to_owned()));
    }

    #[test]
    fn visitors_do_not_fit_into_a_text_file() {
        let folder = Folder::new();
        filled(&folder, &[("", ChangeKind::Likes(3)), ("", visitor(1, true, None))]);
        fs::write(folder.join("all.csv"), done(&folder, &on(&["export", "--visitors"]))).unwrap();
        let told = failed(&folder, &["import", "all.csv"]);
        assert!(told.contains("line 2: there is no room for a further visitor"), "{told}");
        fs::write(folder.join("counts.csv"), done(&folder, &on(&["export"]))).unwrap();
        done(&folder, &["import", "counts.csv"]);
        assert_eq!(done(&folder, &["get"]), "4\n");
    }

    #[test]
    fn a_text_file_moves_to_a_database() {
        let folder = Folder::new();
        fs::write(folder.join("db.txt"), "16\n").unwrap();
        assert_eq!(done(&folder, &on(&["import", "db.txt"])), "imported 1 post into likes.db\n");
        assert_eq!(done(&folder, &on(&["get"])), "16\n");
    }

    #[test]
    fn an_import_that_breaks_off_keeps_whole_transactions_and_is_done_again() {
        let folder = Folder::new();
        let good = many(25_000);
        let bad = good.replace("\npost 20500,20501\n", "\npost 20500,?\n");
        let (code, _, err) = import(&folder, &bad, &["--db", DB]);
        let told = "line 20502: a whole number is expected, and not `?`; what stands up to line 20001 is imported, and may \
                    be imported again";
        assert_eq!((code, err), (1, format!("live-likes: cannot import `-`: {told}\n")));
        let counts = ["post 19999", "post 20000", "post 20499"].map(|post| done(&folder, &on(&["get", post])));
        assert_eq!(counts, ["20000\n", "0\n", "0\n"]);
        for _ in 0..2 {
            let said = import(&folder, &good, &["--db", DB]);
            assert_eq!(said, (0, "imported 25000 posts into likes.db\n".to_owned(), String::new()));
        }
        assert_eq!(done(&folder, &on(&["export"])).lines().count(), 25_001);
        assert_eq!(done(&folder, &on(&["top", "1"])), "25000\tpost 24999\n");
    }

    #[test]
    fn a_line_that_the_store_refuses_is_named_with_the_flag_that_would_admit_it() {
        let folder = Folder::new();
        filled(&folder, &[("a", visitor(1, true, None)), ("a", visitor(2, true, None))]);
        let hash = "0f".repeat(16);
        for (text, more, told) in [
            (
                "post,likes\nx,1\ny,2\n".to_owned(),
                "--max-posts",
                "line 3: there is no room for a further post; --max-posts ",
            ),
            (
                format!("post,likes,visitor,liked,seq\na,,{hash},true,\na,2,,,\n"),
                "--max-visitors",
                "line 2: there is no room for a further visitor; --max-visitors says",
            ),
            ("post,likes\nx,1\na,1\n".to_owned(), "--max-posts", "line 3: more visitors than that like the post;"),
            (
                "post,likes\na,9007199254740992\n".to_owned(),
                "--max-posts",
                "line 2: the count is as large as it can be;",
            ),
            ("9007199254740992".to_owned(), "--max-posts", "line 1: the count is as large as it can be;"),
        ] {
            let (code, _, err) = import(&folder, &text, &["--db", DB, more, "2"]);
            assert!(
                code == 1 && err.contains(told) && err.contains("; nothing is imported"),
                "{err} should tell {told}"
            );
        }
        assert_eq!(done(&folder, &on(&["export"])), "post,likes\na,2\n");
    }

    #[test]
    fn an_import_says_on_a_terminal_how_far_it_is() {
        let folder = Folder::new();
        fs::write(folder.join("many.csv"), many(20_000)).unwrap();
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).and_then(|()| unlockpt(&terminal)).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
        let no_control = OFlags::NOCTTY.bits().cast_signed();
        let inside = File::options().read(true).write(true).custom_flags(no_control).open(name).unwrap();
        let mut command = binary(&folder, &on(&["import", "many.csv"]));
        command.stderr(inside);
        let output = command.stdout(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
        drop(command);
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "imported 20000 posts into likes.db\n");
        let (mut said, mut bytes) = (Vec::new(), [0; 1024]);
        let mut terminal = File::from(terminal);
        // The end is an error: nobody has the other side.
        while let Ok(read) = terminal.read(&mut bytes) {
            said.extend_from_slice(&bytes[..read]);
        }
        let said = String::from_utf8(said).unwrap();
        assert!(said.starts_with("\r10000 lines, 4"), "{said:?}");
        assert!(said.contains(" %\r20000 lines, 100 %\r\x1b[K"), "{said:?}");
    }

    #[test]
    fn likes_are_saved_while_a_large_file_is_imported() {
        let folder = Folder::new();
        let server = Server::start(&folder, &["--db", DB]);
        let addr = server.addr;
        let ended = Arc::new(AtomicBool::new(false));
        let likes = thread::spawn({
            let ended = ended.clone();
            move || {
                let mut likes = 0;
                while !ended.load(Ordering::Relaxed) {
                    let answer = put(addr, "/like");
                    likes += 1;
                    assert_eq!(answer.status, 200, "{answer:?}");
                }
                likes
            }
        });
        let (code, _, err) = import(&folder, &many(50_000), &["--db", DB]);
        ended.store(true, Ordering::Relaxed);
        assert_eq!(code, 0, "{err}");
        let likes = likes.join().unwrap();
        assert!(get(addr, "/likes").body.ends_with(&format!(r#"{{"numLikes":{likes}}}"#)));
        assert!(get(addr, "/likes?post=post+49999").body.contains(r#""numLikes":50000"#));
    }

    #[test]
    fn a_backup_is_whole_while_a_server_runs_and_as_private_as_the_database() {
        let folder = Folder::new();
        filled(&folder, &[("a", ChangeKind::Likes(3)), ("a", visitor(1, true, Some(4)))]);
        fs::set_permissions(folder.join(DB), fs::Permissions::from_mode(0o640)).unwrap();
        let server = Server::start(&folder, &["--db", DB]);
        assert!(put(server.addr, "/like").body.ends_with(r#"{"numLikes":1}"#));
        assert_eq!(done(&folder, &on(&["backup", "copy.db"])), "likes.db is copied to copy.db\n");
        assert!(put(server.addr, "/like").body.ends_with(r#"{"numLikes":2}"#));
        assert_eq!(fs::metadata(folder.join("copy.db")).unwrap().permissions().mode() & 0o777, 0o640);
        let told = failed(&folder, &on(&["backup", "copy.db"]));
        assert_eq!(
            told,
            "cannot use the database `copy.db`: there is such a file already; choose another name, or remove it"
        );
        assert!(failed(&folder, &on(&["backup", DB])).contains("such a file already"));
        assert!(failed(&folder, &on(&["backup", "none/copy.db"])).contains("`none/copy.db`: cannot write it"));
        done(&folder, &on(&["backup", "file:uri.db?mode=memory"]));
        let export = |db: &str| done(&folder, &["export", "--visitors", "--db", db]);
        let copied = export("copy.db");
        assert!(copied.contains("\na,4,,,\n") && copied.contains("\n,1,,,\n"), "{copied}");
        drop(server);
        let served = Server::start(&folder, &["--db", "copy.db"]);
        assert!(put(served.addr, "/like").body.ends_with(r#"{"numLikes":2}"#));
        assert!(folder.names().iter().all(|name| !name.ends_with(".tmp")), "{:?}", folder.names());
        assert!(folder.names().contains(&"file:uri.db?mode=memory".to_owned()));
    }

    #[test]
    fn a_backup_under_load_is_a_state_that_was_and_is_restored() {
        const CLIENTS: u64 = 4;
        let folder = Folder::new();
        let server = Server::start(&folder, &["--db", DB]);
        let addr = server.addr;
        let (ended, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        // Each visitor likes one post and then, once that is answered, the other.
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (ended, answered) = (ended.clone(), answered.clone());
                thread::spawn(move || {
                    let mut visitors = 0;
                    while !ended.load(Ordering::Relaxed) {
                        for post in ["first", "second"] {
                            let path = format!("/like?post={post}&visitor=visitor-{client:04}-{visitors:08}");
                            let answer = put(addr, &path);
                            assert!(answer.body.contains(r#""liked":true"#), "{answer:?}");
                        }
                        visitors += 1;
                        answered.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        let mut likes_before = 0;
        for number in 0..5 {
            let least = answered.load(Ordering::SeqCst);
            let copy = format!("copy{number}.db");
            done(&folder, &on(&["backup", &copy]));
            let most = answered.load(Ordering::SeqCst) + CLIENTS;
            let count = |post: &str| done(&folder, &["get", post, "--db", &copy]).trim().parse::<u64>().unwrap();
            let (first, second) = (count("first"), count("second"));
            assert!(second <= first && first <= second + CLIENTS, "{first} and {second}");
            assert!((least..=most).contains(&second), "{second} is not from {least} to {most}");
            assert!(second >= likes_before);
            likes_before = second;
            // Every like is a visitor's, and is there with it.
            let export = done(&folder, &["export", "--visitors", "--db", &copy]);
            for (post, likes) in [("first", first), ("second", second)] {
                let visitors = export.lines().filter(|line| line.starts_with(&format!("{post},,"))).count() as u64;
                assert_eq!(visitors, likes, "{post}");
            }
        }
        ended.store(true, Ordering::Relaxed);
        clients.into_iter().for_each(|client| client.join().unwrap());
        drop(server);
        // Restored, it goes on from there, and knows who likes what.
        let restored = Server::start(&folder, &["--db", "copy4.db"]);
        let likes = get(restored.addr, "/likes?post=second");
        assert!(likes.body.contains(&format!("{{\"numLikes\":{likes_before},")), "{likes:?}");
        let again = put(restored.addr, "/like?post=second&visitor=visitor-0000-00000000");
        assert!(again.body.contains(&format!("{{\"numLikes\":{likes_before},\"liked\":true")), "{again:?}");
        let new = put(restored.addr, "/like?post=second&visitor=visitor-new-0123456789");
        assert!(new.body.contains(&format!("{{\"numLikes\":{},", likes_before + 1)), "{new:?}");
    }

    #[test]
    fn a_change_is_shown_by_a_running_server_within_two_seconds() {
        let folder = Folder::new();
        let server = Server::start(&folder, &["--db", DB]);
        let mut peer = Client::new(server.addr);
        assert_eq!(peer.count(), 0);
        // The fastest of some, since a busy machine takes longer over each.
        let times = (1..=5).map(|likes| {
            done(&folder, &on(&["set", &likes.to_string()]));
            let begun = Instant::now();
            assert_eq!(peer.count(), likes);
            begun.elapsed()
        });
        assert!(times.min().unwrap() < Duration::from_secs(2));
    }

    #[test]
    fn an_import_that_is_killed_is_begun_again_and_counts_nothing_twice() {
        let folder = Folder::new();
        let hash = |number: usize| format!("{number:032x}");
        // Posts of three lines each, so that a transaction ends within one.
        let all = (0..5_000).fold("post,likes,visitor,liked,seq\n".to_owned(), |text, number| {
            let (fan, other) = (hash(number), hash(number + 20_000));
            format!("{text}post {number},,{fan},true,1\npost {number},,{other},true,\npost {number},5,,,\n")
        });
        let mut import = binary(&folder, &on(&["import", "-"])).stdin(Stdio::piped()).spawn().unwrap();
        let mut input = import.stdin.take().unwrap();
        let first: String = all.split_inclusive('\n').take(15_000).collect();
        input.write_all(first.as_bytes()).unwrap();
        // Those of its first transaction are there, and it waits for more.
        let deadline = Instant::now() + Duration::from_secs(60);
        while run(&folder, &on(&["get", "post 3332"])).1 != "5\n" {
            assert!(Instant::now() < deadline);
        }
        import.kill().unwrap();
        import.wait().unwrap();
        drop(input);
        assert_eq!(done(&folder, &on(&["get", "post 3333"])), "1\n", "one of its lines is there");
        fs::write(folder.join("all.csv"), &all).unwrap();
        let said = done(&folder, &on(&["import", "all.csv"]));
        assert_eq!(said, "imported 5000 posts and 10000 visitors into likes.db\n");
        let sorted = |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
        // The database has a default counter, too.
        assert!(sorted(&done(&folder, &on(&["export", "--visitors"]))) == sorted(&(all + ",0,,,")));
    }

    #[test]
    fn a_server_may_start_while_a_command_looks_whether_one_runs() {
        let folder = Folder::new();
        filled(&folder, &[]);
        let path = folder.join(DB);
        let asked = AtomicBool::new(false);
        thread::scope(|scope| {
            let get = binary(&folder, &on(&["get"]));
            scope.spawn(|| {
                let mut get = get;
                (0..30).for_each(|_| assert!(get.output().unwrap().status.success()));
                asked.store(true, Ordering::Relaxed);
            });
            while !asked.load(Ordering::Relaxed) {
                open_store(&path, StoreLimits::default()).unwrap();
            }
        });
    }
}

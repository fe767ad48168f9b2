//! The real binary: what it prints, how it ends, and with which exit code.
#![cfg(feature = "cli")]

#[path = "support/client.rs"]
mod client;
#[path = "support/folder.rs"]
mod folder;
#[path = "support/reserved.rs"]
mod reserved;

use client::{Client, get, put};
use folder::Folder;
use live_likes::FileStore;
use reserved::Reserved;
use rustix::{
    fs::{OFlags, XattrFlags, getxattr, setxattr},
    io::Errno,
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
};
use std::{
    env,
    fs::{self, File},
    io::{BufRead, BufReader, PipeReader, PipeWriter, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

const BINARY: &str = env!("CARGO_BIN_EXE_live-likes");

/// Nobody should ever wait this long.
const LONG: Duration = Duration::from_secs(60);

/// The binary in a folder of its own, so with a `db.txt` of its own, and without our environment.
fn binary(folder: &Folder) -> Command {
    program(folder, BINARY)
}

/// The binary with these arguments, started by a shell that does something first.
fn binary_after(folder: &Folder, preparation: &str, arguments: &[&str]) -> Command {
    let mut shell = program(folder, "/bin/sh");
    shell.arg("-c").arg(format!(r#"{preparation} exec "$0" "$@""#)).arg(BINARY).args(arguments);
    shell
}

fn program(folder: &Folder, path: &str) -> Command {
    let mut command = Command::new(path);
    // But for where `.ci/tsan` has it write what it finds.
    let tsan = env::var_os("TSAN_OPTIONS").map(|options| ("TSAN_OPTIONS", options));
    command
        .current_dir(&**folder)
        .env_clear()
        .envs(tsan)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// How a process ended.
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// A process that is killed if the test ends before it does.
struct Process {
    pid: Pid,
    ended: Receiver<Ended>,
}

impl Process {
    fn watch(mut child: Child, read: String, stdout: Option<impl Read + Send + 'static>) -> Self {
        let (ends, ended) = channel();
        let pid = Pid::from_child(&child);
        thread::spawn(move || {
            let stderr = child.stderr.take().map(|mut pipe| thread::spawn(move || read_all(&mut pipe)));
            let stdout = read + &stdout.map(|mut pipe| read_all(&mut pipe)).unwrap_or_default();
            let stderr = stderr.map(|reader| reader.join().unwrap()).unwrap_or_default();
            let _ = ends.send(Ended { code: child.wait().unwrap().code(), stdout, stderr });
        });
        Self { pid, ended }
    }

    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take();
        Self::watch(child, String::new(), stdout)
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap();
    }

    fn end(self) -> Ended {
        self.ended.recv_timeout(LONG).expect("the process should end")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(std::sync::mpsc::TryRecvError::Empty) = self.ended.try_recv() {
            let _ = kill_process(self.pid, Signal::KILL);
        }
    }
}

fn read_all(pipe: &mut impl Read) -> String {
    let mut text = String::new();
    pipe.read_to_string(&mut text).unwrap();
    text
}

/// Starts the binary and reads from its line where it listens.
fn serve(mut command: Command) -> (Process, SocketAddr) {
    let mut child = command.spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let addr = line.split_once("http://").and_then(|(_, rest)| rest.split_once('/')).map(|(addr, _)| addr.parse());
    let process = Process::watch(child, line.clone(), Some(stdout));
    match addr {
        Some(addr) => (process, addr.unwrap()),
        None => panic!("no address in {line:?}: {}", process.end().stderr),
    }
}

fn serve_in(folder: &Folder) -> (Process, SocketAddr) {
    let mut command = binary(folder);
    command.args(["--addr", "127.0.0.1:0"]);
    serve(command)
}

/// Runs it to its end, with these arguments.
fn run(folder: &Folder, arguments: &[&str]) -> Ended {
    let mut command = binary(folder);
    command.args(arguments);
    Process::start(command).end()
}

/// The lines of a log, each without the time that it must begin with.
fn log_lines(log: &str) -> Vec<&str> {
    let without_time = |line| {
        let (time, rest) = str::split_once(line, ' ').unwrap_or_else(|| panic!("no time in {line:?}"));
        let time = humantime::parse_rfc3339(time).unwrap_or_else(|e| panic!("{e} in {line:?}"));
        assert!(time.elapsed().unwrap() < 10 * LONG, "{line:?} is of another time");
        rest
    };
    log.lines().map(without_time).collect()
}

fn saved(folder: &Folder) -> u64 {
    fs::read_to_string(folder.join("db.txt")).unwrap().parse().unwrap()
}

#[test]
fn it_prints_one_line_with_its_address_and_the_count() {
    let folder = Folder::new();
    fs::write(folder.join("db.txt"), "16\n").unwrap();
    let (process, addr) = serve_in(&folder);
    assert!(get(addr, "/likes").body.ends_with(r#"{"numLikes":16}"#));
    assert!(put(addr, "/like").body.ends_with(r#"{"numLikes":17}"#));
    process.signal(Signal::TERM);
    let ended = process.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.stdout, format!("Live Likes at http://{addr}/ with 16 likes in db.txt\n"));
    assert!(ended.stderr.contains("stopped with 17 likes"), "{}", ended.stderr);
    assert_eq!(saved(&folder), 17);
}

#[test]
fn a_signal_stops_it_within_its_time_with_every_client_told_and_every_like_saved() {
    for signal in [Signal::TERM, Signal::INT] {
        let folder = Folder::new();
        let mut command = binary(&folder);
        command.args(["--addr", "127.0.0.1:0", "--request-time", "600"]);
        let (process, addr) = serve(command);
        let mut peers: Vec<_> = (0..4).map(|_| Client::new(addr)).collect();
        let silent = TcpStream::connect(addr).unwrap();
        peers.iter_mut().for_each(|peer| (0..100).for_each(|_| peer.like()));
        while peers[0].count() < 400 {}
        peers.iter_mut().for_each(|peer| (0..100).for_each(|_| peer.like()));

        process.signal(signal);
        let shown = peers.iter_mut().map(|peer| {
            let (last, code) = peer.last_count_and_close_code();
            assert_eq!(code, 1001);
            last.unwrap_or_default()
        });
        let shown = shown.max().unwrap();
        drop(peers);
        // Without the 600 seconds that the silent one has.
        let ended = process.end();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!((shown.max(400)..=800).contains(&saved(&folder)), "{} after {shown} was shown", saved(&folder));
        assert!(!folder.join("db.txt.tmp").exists());
        drop(silent);
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let folder = Folder::new();
        let mut command = binary(&folder);
        command.args(["--addr", "127.0.0.1:0", "--stop-within", "600", "--close-within", "300"]);
        let (process, addr) = serve(command);
        let mut peer = Client::new(addr);
        peer.like();
        while peer.count() < 1 {}
        process.signal(Signal::TERM);
        assert_eq!(peer.last_count_and_close_code(), (None, 1001), "it has begun to stop, and waits for this peer");
        process.signal(signal);
        assert_eq!(process.end().code, Some(code));
        assert_eq!(saved(&folder), 1);
        FileStore::open(folder.join("db.txt")).unwrap();
    }
}

#[test]
fn without_a_terminal_sighup_is_ignored() {
    let folder = Folder::new();
    let (process, addr) = serve_in(&folder);
    let mut peer = Client::new(addr);
    assert_eq!(peer.count(), 0);
    process.signal(Signal::HUP);
    process.signal(Signal::HUP);
    peer.like();
    assert_eq!(peer.count(), 1);
    // Nor has it begun to stop: the next signal is the first.
    process.signal(Signal::TERM);
    assert_eq!(peer.closed().0, 1001);
    drop(peer);
    let ended = process.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("SIGHUP is ignored"), "{}", ended.stderr);
}

#[test]
#[cfg(feature = "sqlite")]
fn the_posts_that_may_exist_are_read_from_a_file_and_again_on_sighup() {
    use rustix::fs::{CWD, Mode, mkfifoat};
    let folder = Folder::new();
    let file = folder.join("posts.txt");
    fs::write(&file, "# of this year\nhello\nblog/*\n").unwrap();
    let mut command = binary(&folder);
    command.args(["--addr", "127.0.0.1:0", "--db", "likes.db", "--posts", "posts.txt"]);
    let (process, addr) = serve(command);
    let status = |post: &str| get(addr, &format!("/likes?post={post}")).status;
    assert_eq!(["hello", "blog/1", "new", "%E2%80%AE%22"].map(status), [200, 200, 404, 404]);
    // A new pipe each time shows when it is read.
    let read_again = |text: &str| {
        fs::remove_file(&file).unwrap();
        mkfifoat(CWD, &file, Mode::RUSR | Mode::WUSR).unwrap();
        process.signal(Signal::HUP);
        let deadline = Instant::now() + LONG;
        let no_wait = OFlags::NONBLOCK.bits().cast_signed();
        let mut pipe = loop {
            match File::options().write(true).custom_flags(no_wait).open(&file) {
                Ok(pipe) => break pipe,
                Err(e) => assert!(Instant::now() < deadline, "nobody reads it: {e}"),
            }
            thread::park_timeout(Duration::from_millis(2));
        };
        // By now the list before this one is in use, or is not.
        let statuses = ["hello", "new"].map(status);
        pipe.write_all(text.as_bytes()).unwrap();
        statuses
    };
    assert_eq!(read_again("new\n"), [200, 404]);
    assert_eq!(read_again("hello\nbl\tog\n"), [404, 200]);
    assert_eq!(read_again("hello\n"), [404, 200], "a list that is not usable changes nothing");
    assert_eq!(read_again("hello\n"), [200, 404]);
    process.signal(Signal::TERM);
    let ended = process.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    for line in [
        r#"warn: refused the post "new", which is not among those that may exist"#,
        r#"warn: refused the post "\u{202e}\"", which is not among those that may exist"#,
        "info: read the list of posts `posts.txt` again",
        "error: cannot use the list of posts `posts.txt`: line 2: the name of a post holds no control characters, and \
         this one holds U+0009; the posts that may exist stay the same",
    ] {
        assert!(log_lines(&ended.stderr).contains(&line), "{} should tell {line}", ended.stderr);
    }
}

#[test]
#[cfg(feature = "sqlite")]
fn a_list_of_posts_that_cannot_be_read_just_now_does_not_keep_a_stop_waiting() {
    use rustix::fs::{CWD, Mode, mkfifoat};
    let folder = Folder::new();
    let file = folder.join("posts.txt");
    fs::write(&file, "hello\n").unwrap();
    let mut command = binary(&folder);
    command.args(["--addr", "127.0.0.1:0", "--db", "likes.db", "--posts", "posts.txt"]);
    let (process, addr) = serve(command);
    fs::remove_file(&file).unwrap();
    mkfifoat(CWD, &file, Mode::RUSR | Mode::WUSR).unwrap();
    process.signal(Signal::HUP);
    process.signal(Signal::HUP);
    assert_eq!(get(addr, "/likes?post=hello").status, 200);
    process.signal(Signal::TERM);
    let ended = process.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

#[test]
fn a_closed_terminal_stops_it_gracefully() {
    let folder = Folder::new();
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).and_then(|()| unlockpt(&terminal)).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
    let no_control = OFlags::NOCTTY.bits().cast_signed();
    let inside = File::options().read(true).write(true).custom_flags(no_control).open(name).unwrap();
    let mut command = binary(&folder);
    command.args(["--addr", "127.0.0.1:0"]).stdin(inside.try_clone().unwrap()).stderr(inside);
    let (process, addr) = serve(command);
    let mut peer = Client::new(addr);
    peer.like();
    while peer.count() < 1 {}
    drop(terminal);
    // The shell's and the kernel's: the second does not end it before this peer has answered the close frame.
    process.signal(Signal::HUP);
    assert_eq!(peer.last_count_and_close_code(), (None, 1001));
    process.signal(Signal::HUP);
    drop(peer);
    assert_eq!(process.end().code, Some(0));
    assert_eq!(saved(&folder), 1);
}

/// Requests with a visitor in each place where one may be, with secrets, and with what would break a line.
fn ask_for_the_log(addr: SocketAddr) -> Client {
    let exchange = |request: &[u8]| {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let fields = "Host: localhost\r\nAuthorization: Basic secret\r\nCookie: secret\r\nReferer: http://secret/\r\nConnection: close";
    let like = format!(
        "POST /like?post=a&visitor=VISITOR-0123456789 HTTP/1.1\r\n{fields}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: 27\r\n\r\nvisitor=VISITOR-0123456789&"
    );
    assert!(exchange(like.as_bytes()).starts_with("HTTP/1.1 400 "), "a text file keeps no posts");
    assert!(exchange(format!("GET /a\"{{b}}%0a?c HTTP/1.1\r\n{fields}\r\n\r\n").as_bytes()).contains(" 404 "));
    assert!(exchange(format!("123 /{} HTTP/1.1\r\n{fields}\r\n\r\n", "x".repeat(1000)).as_bytes()).contains(" 501 "));
    assert!(exchange(b"GET /\x1b\n HTTP\r\n\r\n").starts_with("HTTP/1.1 400 "));
    Client::new(addr)
}

#[test]
fn the_access_log_has_each_request_once_and_no_visitor_and_no_secret() {
    let folder = Folder::new();
    let mut command = binary(&folder);
    command.args(["--addr", "127.0.0.1:0", "--log", "off", "--access-log"]);
    let (process, addr) = serve(command);
    let _watcher = ask_for_the_log(addr);
    process.signal(Signal::TERM);
    let log = process.end().stderr;
    for secret in ["VISITOR", "secret", "visitor", "?"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
    let lines: Vec<_> = log_lines(&log);
    let long = format!("access: 127.0.0.1 123 /{} 501 ", "x".repeat(255));
    let expected = [
        "access: 127.0.0.1 POST /like 400 ",
        r#"access: 127.0.0.1 GET /a\"{b}%0a 404 "#,
        &long,
        "access: 127.0.0.1 - - 400 ",
        "access: 127.0.0.1 GET /liveLikes 101 ",
    ];
    assert_eq!(lines.len(), expected.len(), "{log}");
    for (line, expected) in lines.iter().zip(expected) {
        let (bytes, seconds) = line
            .strip_prefix(expected)
            .unwrap_or_else(|| panic!("{expected} in {line}"))
            .split_once(' ')
            .unwrap_or(("1", "0.1"));
        assert!(bytes.parse::<u32>().unwrap() > 0 && seconds.parse::<f64>().unwrap() < 60.0, "{line}");
    }
}

#[test]
fn a_log_in_json_is_an_object_a_line() {
    let folder = Folder::new();
    let mut command = binary(&folder);
    command.args(["--addr", "127.0.0.1:0", "--log-format", "json", "--access-log", "--connections", "900000"]);
    let (process, addr) = serve(command);
    let _watcher = ask_for_the_log(addr);
    process.signal(Signal::TERM);
    let ended = process.end();
    let parsed = |text: &str| -> Vec<serde_json::Value> {
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line}"))).collect()
    };
    let said = parsed(&ended.stdout);
    assert_eq!(said.len(), 1);
    assert_eq!(said[0]["message"], format!("Live Likes at http://{addr}/ with 0 likes in db.txt"));
    let lines = parsed(&ended.stderr);
    for line in &lines {
        assert!(humantime::parse_rfc3339(line["time"].as_str().unwrap()).is_ok(), "{line}");
        assert!(line["message"].as_str().is_some_and(|message| !message.contains("VISITOR")), "{line}");
    }
    let with = |level: &str| lines.iter().filter(|line| line["level"] == level).collect::<Vec<_>>();
    assert!(with("warn").iter().any(|line| line["message"].as_str().unwrap().contains("not 900000")), "{lines:?}");
    assert_eq!(with("info").last().unwrap()["message"], "stopped with 0 likes saved");
    let access = with("access");
    assert_eq!(access.len(), 5);
    let odd = access[1];
    assert_eq!(
        (&odd["address"], &odd["method"], &odd["path"]),
        (&"127.0.0.1".into(), &"GET".into(), &"/a\"{b}%0a".into())
    );
    assert_eq!(odd["status"], 404);
    assert!(odd["bytes"].as_u64().unwrap() > 100 && odd["seconds"].as_f64().unwrap() < 60.0, "{odd}");
    assert_eq!(access[2]["method"], "123");
    let keys: Vec<_> = access[3].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["address", "bytes", "level", "message", "status", "time"]);
}

#[test]
fn no_request_is_logged_unless_that_is_asked_for() {
    let folder = Folder::new();
    let mut command = binary(&folder);
    command.args(["--addr", "127.0.0.1:0", "--log", "debug"]);
    let (process, addr) = serve(command);
    let _watcher = ask_for_the_log(addr);
    process.signal(Signal::TERM);
    let log = process.end().stderr;
    assert!(!log.contains("access:") && !log.contains("/like ") && !log.contains("VISITOR"), "{log}");
}

#[test]
fn each_line_of_the_log_begins_with_the_time() {
    let folder = Folder::new();
    let mut command = binary(&folder);
    command.args(["--addr", "127.0.0.1:0", "--log", "debug"]);
    let (process, addr) = serve(command);
    assert_eq!(get(addr, "/two words").status, 400);
    process.signal(Signal::TERM);
    let ended = process.end();
    let lines = log_lines(&ended.stderr);
    assert!(lines.len() >= 3 && lines[0].starts_with("debug: "), "{lines:?}");
    assert_eq!(lines.last(), Some(&"info: stopped with 0 likes saved"));
}

#[test]
fn what_keeps_it_from_running_is_said_and_ends_it_with_1() {
    let folder = Folder::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    fs::write(folder.join("bad.txt"), "NaN").unwrap();
    fs::write(folder.join("used.txt"), "16").unwrap();
    fs::write(folder.join("posts.txt"), format!("hello\n{}\n", "x".repeat(201))).unwrap();
    let _user = FileStore::open(folder.join("used.txt")).unwrap();
    let free = "127.0.0.1:0";
    for (arguments, told) in [
        (["--addr", &taken, "--db", "new.txt"], [taken.as_str(), "in use"]),
        (["--addr", "192.0.2.1:0", "--db", "new.txt"], ["192.0.2.1:0", "listen"]),
        (["--addr", free, "--db", "bad.txt"], ["`bad.txt`", "it holds \"NaN\""]),
        (["--addr", free, "--db", "used.txt"], ["`used.txt`", "another process is using it"]),
        (["--addr", free, "--db", "none/db.txt"], ["`none/db.txt`", "folder `none`"]),
        (["--addr", free, "--page", "none.html"], ["`none.html`", "No such file"]),
        (["--addr", free, "--posts", "none.txt"], ["the list of posts `none.txt`", "No such file"]),
        (["--addr", free, "--posts", "posts.txt"], ["the list of posts `posts.txt`", "line 2: the name of a post"]),
    ] {
        let ended = run(&folder, &arguments);
        assert_eq!(ended.code, Some(1), "{arguments:?}: {}", ended.stderr);
        assert_eq!(ended.stdout, "", "{arguments:?}");
        assert!(told.iter().all(|word| ended.stderr.contains(word)), "{} should tell {told:?}", ended.stderr);
        let [line] = log_lines(&ended.stderr)[..] else { panic!("one line is enough: {}", ended.stderr) };
        assert!(line.starts_with("error: cannot "), "{line}");
    }
    assert_eq!(fs::read(folder.join("bad.txt")).unwrap(), b"NaN");
}

#[test]
fn a_second_process_on_one_file_is_refused_and_the_first_goes_on() {
    let folder = Folder::new();
    let (process, addr) = serve_in(&folder);
    assert!(put(addr, "/like").body.ends_with(r#"{"numLikes":1}"#));
    let second = run(&folder, &["--addr", "127.0.0.1:0"]);
    assert_eq!((second.code, second.stdout.as_str()), (Some(1), ""));
    assert!(second.stderr.contains("another process is using it"), "{}", second.stderr);
    assert!(put(addr, "/like").body.ends_with(r#"{"numLikes":2}"#));

    // Killed, it leaves no lock behind.
    process.signal(Signal::KILL);
    process.end();
    let (process, addr) = serve_in(&folder);
    assert!(put(addr, "/like").body.ends_with(r#"{"numLikes":3}"#));
    process.signal(Signal::TERM);
    assert_eq!(process.end().code, Some(0));
}

#[test]
fn bad_usage_is_said_and_ends_it_with_2() {
    for arguments in [
        &["--nonsense"][..],
        &["-x"],
        &["db.txt"],
        &["--addr"],
        &["--addr", "3000"],
        &["--addr", "127.0.0.1:65536"],
        &["--db", ""],
        &["--connections", "0"],
        &["--keep-alive", "soon"],
        &["--log", "loud"],
    ] {
        let folder = Folder::new();
        let ended = run(&folder, arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(ended.stderr.contains("--help"), "{}", ended.stderr);
        assert!(folder.names().is_empty(), "nothing has been touched");
    }
    for arguments in [["--allow-host", "a b"], ["--allow-origin", "https://user@blog.example"]] {
        let ended = run(&Folder::new(), &arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(ended.stderr.contains(arguments[1]), "{}", ended.stderr);
    }
    let folder = Folder::new();
    let mut command = binary(&folder);
    command.env("LIVE_LIKES_CONNECTIONS", "many");
    let ended = Process::start(command).end();
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("invalid value `many` for LIVE_LIKES_CONNECTIONS"), "{}", ended.stderr);
}

#[test]
fn help_and_version_are_printed() {
    let folder = Folder::new();
    for flag in ["--help", "-h"] {
        let ended = run(&folder, &[flag]);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        assert!(ended.stdout.contains("Usage: live-likes") && ended.stdout.contains("--db FILE"), "{}", ended.stdout);
    }
    for flag in ["--version", "-V"] {
        let ended = run(&folder, &[flag]);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        assert_eq!(ended.stdout, concat!("live-likes ", env!("CARGO_PKG_VERSION"), "\n"));
    }
    assert!(folder.names().is_empty());
}

#[test]
fn the_environment_serves_too_and_a_flag_goes_before_it() {
    let folder = Folder::new();
    fs::write(folder.join("page.html"), "a page").unwrap();
    let mut command = binary(&folder);
    command
        .args(["--db", "flag.txt"])
        .env("LIVE_LIKES_ADDR", "127.0.0.1:0")
        .env("LIVE_LIKES_DB", "variable.txt")
        .env("LIVE_LIKES_PAGE", "page.html")
        .env("LIVE_LIKES_LIKES_PER_CONNECTION", "0")
        .env("LIVE_LIKES_LOG", "off")
        .env("PORT", "1");
    let (process, addr) = serve(command);
    assert!(get(addr, "/").body.ends_with("a page"));
    assert_eq!(put(addr, "/like").status, 429);
    process.signal(Signal::TERM);
    let ended = process.end();
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert_eq!(folder.names(), ["flag.txt", "flag.txt.lock", "page.html"]);

    let mut command = binary(&folder);
    command.env("PORT", "0");
    let (process, addr) = serve(command);
    assert!(addr.ip().is_unspecified() && addr.port() != 0, "a platform that sets PORT reaches no loopback address");
    assert_eq!(get((Ipv4Addr::LOCALHOST, addr.port()).into(), "/likes").status, 200);
    process.signal(Signal::TERM);
    assert_eq!(process.end().code, Some(0));
}

/// Has it serve likes while standard output and error are what `redirect` makes of them.
fn serves_without_a_voice(redirect: impl FnOnce(&Folder, &[&str]) -> Command) {
    let folder = Folder::new();
    // It cannot say which port it took.
    let reserved = Reserved::new();
    let addr = reserved.addr;
    let arguments = ["--addr", &addr.to_string(), "--log", "debug", "--keep-alive", "1"];
    let process = Process::start(redirect(&folder, &arguments));
    let deadline = Instant::now() + LONG;
    while TcpStream::connect(addr).is_err() {
        assert!(Instant::now() < deadline, "it should listen");
        thread::yield_now();
    }
    let mut peer = Client::new(addr);
    for number in 0..10 {
        assert_eq!(peer.count(), 2 * number);
        peer.like();
        assert_eq!(peer.count(), 2 * number + 1);
        assert!(put(addr, "/like").body.ends_with(&format!("{{\"numLikes\":{}}}", 2 * number + 2)));
    }
    assert_eq!(get(addr, "/none").status, 404);
    process.signal(Signal::TERM);
    assert_eq!(peer.last_count_and_close_code(), (Some(20), 1001));
    drop(peer);
    assert_eq!(process.end().code, Some(0));
    assert_eq!(saved(&folder), 20);
}

#[test]
#[cfg(target_os = "linux")]
fn a_limit_on_the_size_of_files_is_a_full_disk_and_no_end() {
    use rustix::process::{Resource, Rlimit, prlimit};
    let folder = Folder::new();
    let ended = Process::start(binary_after(&folder, "ulimit -f 0;", &["--addr", "127.0.0.1:0"])).end();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("cannot create it: failed to write"), "{}", ended.stderr);

    let (process, addr) = serve_in(&folder);
    assert_eq!(put(addr, "/like").status, 200);
    let limit = |current| prlimit(Some(process.pid), Resource::Fsize, Rlimit { current, maximum: None }).unwrap();
    limit(Some(0));
    assert_eq!([put(addr, "/like").status, get(addr, "/healthz").status], [503, 503]);
    limit(None);
    let deadline = Instant::now() + LONG;
    while put(addr, "/like").status != 200 {
        assert!(Instant::now() < deadline, "likes should be taken again");
        thread::park_timeout(Duration::from_millis(20));
    }
    process.signal(Signal::TERM);
    assert_eq!(process.end().code, Some(0));
    assert_eq!(saved(&folder), 2);
}

#[test]
fn standard_output_and_error_may_be_full() {
    if Path::new("/dev/full").exists() {
        let full = || File::options().write(true).open("/dev/full").unwrap();
        serves_without_a_voice(|folder, arguments| {
            let mut command = binary(folder);
            command.args(arguments).stdout(full()).stderr(full());
            command
        });
        let folder = Folder::new();
        for (flag, code) in [("--help", 0), ("--version", 0), ("--nonsense", 2)] {
            let mut command = binary(&folder);
            command.arg(flag).stdout(full()).stderr(full());
            assert_eq!(Process::start(command).end().code, Some(code), "{flag}");
        }
    }
}

#[test]
fn standard_output_and_error_may_be_closed() {
    serves_without_a_voice(|folder, arguments| binary_after(folder, "exec >&- 2>&- <&-;", arguments));
}

#[test]
fn standard_output_and_error_may_have_lost_their_reader() {
    serves_without_a_voice(|folder, arguments| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = binary(folder);
        command.args(arguments).stdout(writer.try_clone().unwrap()).stderr(writer);
        command
    });
}

/// A pipe that takes nothing more until it is read, and its length.
fn full_pipe() -> (PipeReader, PipeWriter, usize) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    let mut length = 0;
    for block in [4096, 1] {
        while let Ok(written) = writer.write(&vec![b'#'; block]) {
            length += written;
        }
    }
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    (reader, writer, length)
}

#[test]
fn nobody_need_read_standard_output_and_error() {
    let (_reader, writer, _) = full_pipe();
    serves_without_a_voice(|folder, arguments| {
        let mut command = binary(folder);
        command.args(arguments).stdout(writer.try_clone().unwrap()).stderr(writer);
        command
    });
}

#[test]
fn a_log_that_nobody_reads_holds_nothing_up_and_tells_later_how_much_was_dropped() {
    const BAD_REQUESTS: usize = 3000;
    let folder = Folder::new();
    let (reader, writer, length) = full_pipe();
    let mut command = binary(&folder);
    command.args(["--addr", "127.0.0.1:0", "--log", "debug"]).stderr(writer);
    let (process, addr) = serve(command);
    let mut peer = Client::new(addr);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..BAD_REQUESTS / 4 {
                    assert_eq!(get(addr, "/two words").status, 400);
                }
            });
        }
    });
    for count in 0..10 {
        assert_eq!(peer.count(), count);
        peer.like();
    }
    assert_eq!(get(addr, "/healthz").status, 200);

    // Once it is read again, there are the lines that found room, then how many did not, then what is new.
    let mut log = BufReader::new(reader);
    log.read_exact(&mut vec![0; length]).unwrap();
    let mut lines = log.lines().map(Result::unwrap);
    let (mut kept, mut dropped) = (0, None);
    while dropped.is_none() {
        let line = lines.next().unwrap();
        let words: Vec<_> = log_lines(&line)[0].split(' ').map(str::to_owned).collect();
        if words[..2] == ["warn:", "dropped"] {
            dropped = Some(words[2].parse::<usize>().unwrap());
        } else {
            kept += 1;
        }
    }
    assert_eq!(kept + dropped.unwrap(), BAD_REQUESTS);
    assert_eq!(get(addr, "/two words").status, 400);
    let line = lines.next().unwrap();
    assert!(line.contains(" debug: ") && line.contains("400"), "{line}");

    process.signal(Signal::TERM);
    assert_eq!(peer.closed().0, 1001);
    drop(peer);
    assert_eq!(process.end().code, Some(0));
    let last = lines.last().unwrap();
    assert!(last.contains("stopped with 10 likes saved"), "what waits at the end is written: {last}");
}

#[test]
fn a_log_that_nobody_reads_does_not_hold_up_a_stop() {
    let folder = Folder::new();
    let (_reader, writer, _) = full_pipe();
    let mut command = binary(&folder);
    command.args(["--addr", "127.0.0.1:0"]).stderr(writer);
    let (process, addr) = serve(command);
    assert!(put(addr, "/like").body.ends_with(r#"{"numLikes":1}"#));
    process.signal(Signal::TERM);
    assert_eq!(process.end().code, Some(0));
    assert_eq!(saved(&folder), 1);
}

#[test]
fn likes_that_can_be_saved_no_more_end_it_with_1_in_its_time() {
    let folder = Folder::new();
    let (data, away) = (folder.join("data"), folder.join("away"));
    fs::create_dir(&data).unwrap();
    let mut command = binary(&folder);
    command.args(["--addr", "127.0.0.1:0", "--db", "data/db.txt", "--stop-within", "1"]);
    let (process, addr) = serve(command);
    let mut peer = Client::new(addr);
    assert_eq!(peer.count(), 0);
    fs::rename(&data, &away).unwrap();
    peer.like();
    let deadline = Instant::now() + LONG;
    while get(addr, "/healthz").status == 200 {
        assert!(Instant::now() < deadline, "it should be ill");
    }
    process.signal(Signal::TERM);
    assert_eq!(peer.last_count_and_close_code(), (None, 1001));
    drop(peer);
    let ended = process.end();
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("1 likes are not saved"), "{}", ended.stderr);
    assert_eq!(fs::read(away.join("db.txt")).unwrap(), b"0");
}

#[test]
fn likes_that_were_all_refused_do_not_hold_it_up() {
    let folder = Folder::new();
    let (data, away) = (folder.join("data"), folder.join("away"));
    fs::create_dir(&data).unwrap();
    let mut command = binary(&folder);
    command.args(["--addr", "127.0.0.1:0", "--db", "data/db.txt", "--stop-within", "600"]);
    let (process, addr) = serve(command);
    fs::rename(&data, &away).unwrap();
    assert_eq!(put(addr, "/like").status, 503);
    process.signal(Signal::TERM);
    assert_eq!(process.end().code, Some(0));
}

#[test]
fn a_new_database_is_made_under_the_umask() {
    for (umask, mode) in [("027", 0o640), ("002", 0o664), ("077", 0o600)] {
        let folder = Folder::new();
        let (process, addr) = serve(binary_after(&folder, &format!("umask {umask};"), &["--addr", "127.0.0.1:0"]));
        let made = || fs::metadata(folder.join("db.txt")).unwrap().mode() & 0o7777;
        assert_eq!(made(), mode, "umask {umask}");
        assert_eq!(put(addr, "/like").status, 200);
        assert_eq!(made(), mode, "umask {umask}");
        process.signal(Signal::TERM);
        assert_eq!(process.end().code, Some(0));
    }
}

#[test]
fn a_file_whose_group_or_access_list_cannot_be_kept_is_open_to_fewer() {
    const PROCESS: u32 = 12345;
    const GROUP: u32 = 54321;
    // A user's rights and the owning group's, under a mask that lets both through.
    let list = |(user, group): (u8, u8)| {
        let entries =
            [(1, 6, u32::MAX), (2, user, PROCESS), (4, group, u32::MAX), (16, 6, u32::MAX), (32, 4, u32::MAX)];
        let entry = |(tag, rights, id): (u8, u8, u32)| [&[tag, 0, rights, 0], &id.to_le_bytes()[..]].concat();
        [vec![2, 0, 0, 0], entries.map(entry).concat()].concat()
    };
    // The groups of the process, the file's mode, its list, and what its mode and group are after a save.
    for (groups, mode, rights, left) in [
        (GROUP, 0o664, None, (0o664, GROUP)),
        (PROCESS, 0o664, None, (0o644, PROCESS)),
        (PROCESS, 0o646, None, (0o644, PROCESS)),
        (GROUP, 0o664, Some((6, 0)), (0o664, GROUP)),
        (PROCESS, 0o664, Some((6, 0)), (0o600, PROCESS)),
    ] {
        let folder = Folder::new();
        let (db, program) = (folder.join("db.txt"), folder.join("live-likes"));
        fs::write(&db, "16").unwrap();
        fs::set_permissions(&db, fs::Permissions::from_mode(mode)).unwrap();
        if chown(&db, Some(0), Some(GROUP)).is_err() || chown(&*folder, Some(PROCESS), None).is_err() {
            return eprintln!("nothing is tested here: only root gives a file away");
        }
        let set = rights.map(|rights| setxattr(&db, "system.posix_acl_access", &list(rights), XattrFlags::empty()));
        if set == Some(Err(Errno::NOTSUP)) {
            return eprintln!("no access list is tested here: {} has none", folder.display());
        }
        // The build's folder may be closed to that user.
        fs::copy(BINARY, &program).unwrap();
        let words = format!("setpriv --reuid {PROCESS} --regid {PROCESS} --groups {groups} ./live-likes");
        let (process, addr) = serve(binary_after(&folder, &format!("exec {words} --addr 127.0.0.1:0;"), &[]));
        assert!(put(addr, "/like").body.ends_with(r#"{"numLikes":17}"#), "{left:?}");
        process.signal(Signal::TERM);
        assert_eq!(process.end().code, Some(0));
        let metadata = fs::metadata(&db).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.gid()), left, "was {mode:o} with {rights:?}");
        let kept = getxattr(&db, "system.posix_acl_access", &mut [0; 64][..]).is_ok();
        assert_eq!(kept, rights.is_some() && groups == GROUP);
    }
}

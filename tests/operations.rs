//! What an operator is told is so: docs/OPERATIONS.md names every metric, flag and line of the log; the metrics and the
//! alert rules are what Prometheus takes; the units are what systemd takes. The rest is in `tests/operations/run`.
#![cfg(feature = "cli")]

#[path = "support/client.rs"]
mod client;
#[path = "support/process.rs"]
mod process;
#[path = "support/running.rs"]
mod running;

use process::Process;
use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

fn source() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn operations() -> String {
    fs::read_to_string(source().join("docs/OPERATIONS.md")).unwrap()
}

fn metrics() -> String {
    client::get(Process::start(16, &[]).addr, "/metrics").body
}

/// The names of the metrics of a server.
fn names(metrics: &str) -> BTreeSet<&str> {
    metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect()
}

/// A program's end, unless it is not installed, which is said.
fn run(program: &str, arguments: &[&str], input: &str) -> Option<Output> {
    let child = Command::new(program)
        .args(arguments)
        .current_dir(source())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        eprintln!("nothing is tested here: there is no {program}");
        return None;
    };
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Some(child.wait_with_output().unwrap())
}

#[track_caller]
fn has_no_complaint(output: Option<Output>) {
    let Some(output) = output else { return };
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
}

#[test]
fn every_metric_is_explained_and_none_that_is_not_there() {
    let (text, metrics) = (operations(), metrics());
    let names = names(&metrics);
    assert!(names.len() > 20, "{names:?}");
    for name in &names {
        assert!(text.contains(&format!("`{name}`")), "{name}");
    }
    let rows = text.lines().filter(|line| line.starts_with("| `live_likes_") || line.starts_with("| `process_"));
    for word in rows.flat_map(|row| row.split('|').nth(1).unwrap().split('`')).filter(|word| word.contains('_')) {
        assert!(names.contains(word), "{word} is explained, and not there");
    }
    for line in metrics.lines().filter(|line| !line.starts_with('#') && line.contains('{') && !line.contains("le=")) {
        let value = line.split('"').nth(1).unwrap();
        assert!(text.contains(&format!("`{value}`")) || line.contains("build_info"), "{value} of {line}");
    }
}

#[test]
fn every_flag_is_explained() {
    let help = Command::new(env!("CARGO_BIN_EXE_live-likes")).arg("--help").output().unwrap();
    let (help, text) = (String::from_utf8(help.stdout).unwrap(), operations());
    let flags: Vec<_> = help.lines().filter_map(|line| line.strip_prefix("  --")?.split(' ').next()).collect();
    assert!(flags.len() > 25, "{flags:?}");
    for flag in flags {
        assert!(text.contains(&format!("`--{flag}`")), "--{flag}");
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn every_line_of_the_log_is_explained() {
    let text = operations().split_whitespace().collect::<Vec<_>>().join(" ");
    let mut found = 0;
    for file in files(&source().join("src")) {
        let code = fs::read_to_string(&file).unwrap();
        for call in ["log::error!(", "log::warn!(", "log::info!("] {
            for rest in code.split(call).skip(1) {
                // Of the literal, the longest part without what is filled in. A message that is made elsewhere has none.
                let Some(literal) = rest.split(");").next().and_then(|call| call.split('"').nth(1)) else { continue };
                let literal = literal.replace("\\\n", " ");
                let literal = literal.split_whitespace().collect::<Vec<_>>().join(" ");
                let part = literal.split(['{', '}', '`', ':']).max_by_key(|part| part.len()).unwrap().trim();
                if part.contains(' ') {
                    found += 1;
                    assert!(text.contains(part), "{part:?} of {} is not in docs/OPERATIONS.md", file.display());
                }
            }
        }
    }
    assert!(found > 12, "only {found} lines were found");
}

#[test]
fn prometheus_takes_the_metrics_and_the_alerts() {
    let metrics = metrics();
    has_no_complaint(run("promtool", &["check", "metrics"], &metrics));
    let (rules, tests) = ("deploy/prometheus/live-likes.rules.yml", "deploy/prometheus/live-likes.test.yml");
    has_no_complaint(run("promtool", &["check", "rules", rules], ""));
    has_no_complaint(run("promtool", &["test", "rules", tests], ""));
    let (_, config) =
        operations().split_once("```yaml prometheus\n").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let config =
        config.split("```").next().unwrap().replace("live-likes.rules.yml", &source().join(rules).to_string_lossy());
    let folder = running::Folder::new();
    let file = folder.join("prometheus.yml");
    fs::write(&file, config).unwrap();
    has_no_complaint(run("promtool", &["check", "config", &file.to_string_lossy()], ""));
}

#[test]
fn every_alert_is_of_metrics_that_are_there_and_is_tested() {
    let folder = source().join("deploy/prometheus");
    let rules = fs::read_to_string(folder.join("live-likes.rules.yml")).unwrap();
    let tests = fs::read_to_string(folder.join("live-likes.test.yml")).unwrap();
    let metrics = metrics();
    let names = names(&metrics);
    let words = |text: &str| -> Vec<String> {
        text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').map(str::to_owned).collect()
    };
    let mut alerts = 0;
    for line in rules.lines() {
        if let Some(expression) = line.trim().strip_prefix("expr: ") {
            for word in
                words(expression).iter().filter(|word| word.starts_with("live_likes_") || word.starts_with("process_"))
            {
                assert!(names.contains(word.trim_end_matches("_bucket")), "{word} in {line}");
            }
        } else if let Some(alert) = line.trim().strip_prefix("- alert: ") {
            alerts += 1;
            assert!(tests.contains(&format!("alertname: {alert}\n")), "{alert} is not tested");
        }
    }
    assert!(alerts > 10);
}

#[test]
fn the_unit_is_hardened() {
    let unit = "deploy/systemd/live-likes.service";
    // Of systemd 250 and later; an older one does not know `--offline`.
    let is_known = run("systemd-analyze", &["--help"], "")
        .is_some_and(|help| String::from_utf8_lossy(&help.stdout).contains("--offline"));
    if is_known {
        has_no_complaint(run(
            "systemd-analyze",
            &["security", "--offline=true", "--threshold=15", "--no-pager", unit],
            "",
        ));
    }
}

#[test]
fn every_defence_names_a_test_that_is_there() {
    let text = fs::read_to_string(source().join("SECURITY.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| ")).skip(1);
    let mut found = 0;
    for row in rows {
        let tests = row.trim_end_matches('|').rsplit('|').next().unwrap();
        let mut code = String::new();
        for word in tests.split('`').skip(1).step_by(2).map(|word| word.split(' ').next().unwrap()) {
            found += 1;
            if word.contains(['/', '.']) {
                let path = source().join(word);
                assert!(path.exists(), "{word} of {row}");
                code = fs::read_to_string(path).unwrap_or_default();
            } else if word != "cargo" {
                assert!(code.contains(&format!("fn {word}()")), "{word} of {row}");
            }
        }
    }
    assert!(found > 20);
}

//! What the compiler cannot hold: the order of the rooms, the number of crates, a flag for each limit.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

/// The rooms of `src`, from the top down. A file imports from its own room and from those below it.
const ROOMS: [&str; 9] = ["server", "websocket", "http", "likes", "store", "stream", "limits", "metrics", "error"];

fn imports(folder: &Path, room: &str, place: usize, found: &mut usize) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() {
            imports(&entry.path(), room, place, found);
            continue;
        }
        let source = fs::read_to_string(entry.path()).unwrap();
        let code = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        for (above, name) in ROOMS.iter().enumerate() {
            // Either `crate::room`, or an item of a group, which rustfmt puts on a line of its own.
            let named = [format!("crate::{name}"), format!("\n    {name}::"), format!("crate::{{{name}::")];
            let count: usize = named.iter().map(|text| code.matches(text.as_str()).count()).sum();
            assert!(count == 0 || above >= place, "{} imports {name}, which is above {room}", entry.path().display());
            *found += count;
        }
    }
}

#[test]
fn imports_run_down_the_list_of_rooms() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = 0;
    for (place, room) in ROOMS.iter().enumerate().filter(|(_, room)| source.join(room).is_dir()) {
        imports(&source.join(room), room, place, &mut found);
    }
    assert!(found > 40, "only {found} imports were found");
}

#[test]
fn a_program_that_embeds_the_library_builds_at_most_38_crates() {
    let arguments =
        ["tree", "--edges", "normal", "--no-default-features", "--prefix", "none", "--no-dedupe", "--locked"];
    let tree = Command::new(env!("CARGO")).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    let text = String::from_utf8(tree.stdout).unwrap();
    let crates: BTreeSet<_> = text.lines().collect();
    assert!(tree.status.success() && (10..=38).contains(&crates.len()), "{} crates: {crates:#?}", crates.len());
}

#[test]
#[cfg(feature = "cli")]
fn every_limit_has_a_flag() {
    let help = Command::new(env!("CARGO_BIN_EXE_live-likes")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let limits = format!("{:#?}", live_likes::Limits::default());
    let fields = limits.lines().filter_map(|line| Some(line.strip_prefix("    ")?.split_once(": ")?.0));
    for field in fields.filter(|field| !field.starts_with(' ')) {
        // A flag may leave out the end of a long name: `--likes-per-second`.
        let name = field.replace('_', "-");
        let mut flags = help.lines().filter_map(|line| line.strip_prefix("  --")?.split(' ').next());
        assert!(flags.any(|flag| name.starts_with(flag)), "no flag for {field} in {help}");
    }
}

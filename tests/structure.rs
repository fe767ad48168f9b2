//! What the documentation says of the source, held against the source.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The files of the layout list in the crate documentation, from the top down.
fn layout() -> Vec<String> {
    let doc = read("src/lib.rs");
    let (_, list) = doc.split_once("//! # Layout\n").expect("the crate documentation has a layout");
    list.lines()
        .take_while(|line| line.starts_with("//!"))
        .filter_map(|line| line.strip_prefix("//! - `")?.split_once("`: "))
        .map(|(file, _)| file.to_owned())
        .collect()
}

/// The modules of this crate that a source names, wherever it does. Comments may link to any.
fn modules_named(source: &str) -> BTreeSet<String> {
    let code: Vec<_> = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let mut modules = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => modules.extend(members(group).iter().map(|member| first_name(member))),
            None => _ = modules.insert(first_name(rest)),
        }
    }
    modules
}

/// The members of a group, whose opening brace has been taken off.
fn members(group: &str) -> Vec<String> {
    let mut members = vec![String::new()];
    let mut depth = 0;
    for character in group.chars() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                members.push(String::new());
                continue;
            }
            _ => {}
        }
        members.last_mut().unwrap().push(character);
    }
    members.retain(|member| !member.trim().is_empty());
    members
}

fn first_name(path: &str) -> String {
    path.trim_start().chars().take_while(|&character| character.is_alphanumeric() || character == '_').collect()
}

#[test]
fn the_layout_lists_every_source_file_once() {
    let layout = layout();
    let listed: BTreeSet<_> = layout.iter().cloned().collect();
    assert_eq!(listed.len(), layout.len(), "one stands twice: {layout:?}");
    let files = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let files: BTreeSet<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(listed, files);
}

#[test]
fn a_file_imports_only_files_further_down_the_layout() {
    let layout = layout();
    let mut imports = 0;
    for (place, file) in layout.iter().enumerate() {
        for module in modules_named(&read(&format!("src/{file}"))) {
            let imported = layout.iter().position(|file| *file == format!("{module}.rs"));
            let imported = imported.unwrap_or_else(|| panic!("{file} names crate::{module}, which is no file"));
            assert!(imported > place, "{file} imports {module}.rs, which stands above it");
            imports += 1;
        }
    }
    assert!(imports > layout.len(), "only {imports} imports were found");
}

#[test]
fn imports_are_found_wherever_they_stand() {
    let source = "use crate::{a, b::{c, d},\n    e::F,\n};\nfn f() { crate::g::h(); crate :: i }\n// crate::j\n";
    assert_eq!(Vec::from_iter(modules_named(source)), ["a", "b", "e", "g"]);
}

#[test]
fn the_binary_uses_the_library_as_any_program_would() {
    for file in ["main.rs", "cli.rs"] {
        let source = read(&format!("src/{file}"));
        assert!(source.contains("use live_likes::"), "{file}");
        assert!(modules_named(&source).is_empty(), "{file} reaches into the crate");
        let own: Vec<_> = source.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';')).collect();
        assert!(own.iter().all(|module| *module == "cli"), "{file} has a module of the library's: {own:?}");
    }
}

#[test]
fn the_changelog_begins_with_what_is_unreleased() {
    let changelog = read("CHANGELOG.md");
    let first = changelog.lines().find(|line| line.starts_with("## "));
    assert_eq!(first, Some("## Unreleased"));
}

#[test]
fn a_program_that_embeds_the_library_builds_at_most_32_crates() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--edges", "normal", "--no-default-features", "--prefix", "none", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    // A crate that stands in the tree again is marked with a star.
    let crates: BTreeSet<_> = tree.lines().map(|line| line.trim_end_matches(" (*)")).collect();
    assert!(crates.iter().any(|name| name.starts_with("live-likes v")), "{crates:#?}");
    assert!(crates.len() <= 32, "{} crates: {crates:#?}", crates.len());
}

#[test]
#[cfg(feature = "cli")]
fn every_limit_has_a_flag() {
    let help = Command::new(env!("CARGO_BIN_EXE_live-likes")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let flags: BTreeSet<_> =
        help.lines().filter_map(|line| line.strip_prefix("  --")?.split(' ').next()).map(str::to_owned).collect();
    let source = read("src/limits.rs");
    let (_, fields) = source.split_once("pub struct Limits {").unwrap();
    let fields = fields.lines().take_while(|line| *line != "}");
    let fields: Vec<_> = fields.filter_map(|line| line.strip_prefix("    pub ")?.split(':').next()).collect();
    assert!(fields.contains(&"connections"), "{fields:?}");
    for field in fields {
        let name = field.replace('_', "-");
        // A flag may leave out the end of a long name: `--likes-per-second`.
        let has_flag = flags.iter().any(|flag| name == *flag || name.starts_with(&format!("{flag}-")));
        assert!(has_flag, "no flag for {field} in {flags:?}");
    }
}

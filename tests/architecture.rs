//! The house's rules, read off the source: who imports whom, how long a file may be, and that
//! every module says what it is for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The longest file, in lines.
const FILE_LINES_MAX: usize = 600;

/// Every room and the rooms it may import. A leaf may be imported by every room but `saga`.
const ROOMS: &[(&str, &[&str])] = &[
    ("saga", &[]),
    ("store", &["saga"]),
    ("definition", &["saga"]),
    ("participant", &["saga"]),
    ("engine", &["saga", "store", "participant", "definition"]),
    ("api", &["saga", "engine"]),
    // `participant check` calls a service as the daemon would.
    ("cli", &["saga", "definition", "participant"]),
    ("demo", &["cli", "daemon"]),
    ("config", &["participant", "telemetry"]),
    ("telemetry", &[]),
    ("daemon", &["config", "telemetry", "saga", "store", "definition", "participant", "engine", "api"]),
];

/// Rooms that know nothing of ours but the types of time.
const LEAVES: &[(&str, &[&str])] = &[
    ("proto", &["saga"]),
    ("clock", &["saga"]),
    ("cork", &[]),
    ("heap", &[]),
    ("tasks", &[]),
    ("metrics", &["saga"]),
];

fn source_files() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut open = vec![root.join("src"), root.join("tests"), root.join("benches")];
    let mut files = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("a readable folder").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = fs::read_to_string(&path).expect("a readable source file");
                files.push((path.strip_prefix(root).expect("below the root").to_owned(), text));
            }
        }
    }
    assert!(files.len() > 20, "the source files were not found");
    files.sort();
    files
}

/// The room that a file below `src/` belongs to; `None` for `lib.rs` and the binaries.
fn room_of(path: &Path) -> Option<String> {
    let inside = path.strip_prefix("src").ok()?;
    let first = inside.components().next()?.as_os_str().to_str()?;
    (first != "bin" && first != "lib.rs").then(|| first.trim_end_matches(".rs").to_owned())
}

/// Whether the whole file is compiled for tests only.
fn is_test(path: &Path) -> bool {
    path.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "tests.rs" | "sim")))
}

/// The rooms named behind `crate::` in a file, comments left out.
fn imports(text: &str) -> BTreeSet<String> {
    let code: String =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let group = &group[..group.find('}').unwrap_or(group.len())];
            found.extend(group.split(',').map(|part| first_word(part.trim())));
        } else {
            found.insert(first_word(rest));
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

fn imports_by_room() -> BTreeMap<String, BTreeMap<String, PathBuf>> {
    let mut rooms: BTreeMap<String, BTreeMap<String, PathBuf>> = BTreeMap::new();
    for (path, text) in source_files() {
        if let Some(room) = room_of(&path) {
            let arrows = rooms.entry(room.clone()).or_default();
            arrows.extend(imports(&text).into_iter().filter(|to| *to != room).map(|to| (to, path.clone())));
        }
    }
    rooms
}

#[test]
fn rooms_import_only_what_they_may() {
    let leaves: BTreeSet<&str> = LEAVES.iter().map(|(name, _)| *name).collect();
    let known: BTreeMap<&str, &[&str]> = ROOMS.iter().chain(LEAVES).copied().collect();
    let mut wrong = Vec::new();
    for (room, arrows) in imports_by_room() {
        let Some(allowed) = known.get(room.as_str()) else {
            wrong.push(format!("src/{room} is a room that this test does not know"));
            continue;
        };
        for (to, path) in arrows {
            let is_leaf = leaves.contains(to.as_str()) && room != "saga" && !leaves.contains(room.as_str());
            if !is_leaf && !allowed.contains(&to.as_str()) {
                wrong.push(format!("{}: {room} may not import {to}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn rooms_do_not_import_in_a_circle() {
    let arrows = imports_by_room();
    for start in arrows.keys() {
        let mut seen = BTreeSet::new();
        let mut open: Vec<&String> = arrows[start].keys().collect();
        while let Some(room) = open.pop() {
            assert_ne!(room, start, "{start} imports itself by way of other rooms");
            if seen.insert(room) {
                open.extend(arrows.get(room).into_iter().flat_map(BTreeMap::keys));
            }
        }
    }
}

#[test]
fn the_core_is_silent() {
    let loud = [
        "tokio",
        "tonic",
        "sled",
        "async ",
        "std::fs",
        "std::net",
        "std::thread",
        "SystemTime",
        "Instant",
        "rand::",
    ];
    let mut wrong = Vec::new();
    for (path, text) in source_files() {
        if room_of(&path).as_deref() != Some("saga") || is_test(&path) {
            continue;
        }
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in
            code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"))
        {
            if let Some(word) = loud.iter().find(|word| line.contains(*word)) {
                wrong.push(format!("{}:{}: {word}", path.display(), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "the core knows no runtime, clock or file:\n{}", wrong.join("\n"));
}

#[test]
fn no_file_is_longer_than_a_room_should_be() {
    let long: Vec<String> = source_files()
        .iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .map(|(path, lines)| format!("{}: {lines} lines", path.display()))
        .collect();
    assert!(long.is_empty(), "over {FILE_LINES_MAX} lines, split by meaning:\n{}", long.join("\n"));
}

#[test]
fn every_module_says_what_it_is_for() {
    let silent: Vec<String> = source_files()
        .iter()
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert!(silent.is_empty(), "no `//!` at the top:\n{}", silent.join("\n"));
}

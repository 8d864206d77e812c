//! The statements and the guide that shows them say the same.
#![expect(clippy::unwrap_used, reason = "a test may end at whatever goes wrong")]

use std::collections::BTreeMap;
use std::fs;

/// The statements of a database by their files' names, without the comments above them.
fn statements(dialect: &str) -> BTreeMap<String, String> {
    let folder = fs::read_dir(format!("{}/sql/{dialect}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let paths = folder.map(|file| file.unwrap().path());
    paths.map(|path| (name(&path), statement(&fs::read_to_string(&path).unwrap()))).collect()
}

fn name(path: &std::path::Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

fn statement(text: &str) -> String {
    text.lines().filter(|line| !line.starts_with("--")).collect::<Vec<_>>().join("\n").trim().to_owned()
}

#[test]
fn the_guide_shows_the_statements_as_they_are() {
    let guide = include_str!("../README.md");
    let statements = statements("postgres");
    let blocks: Vec<&str> = guide.split("```sql\n-- ").skip(1).collect();
    assert_eq!(blocks.len(), 4, "claim, read and what settles an action and an undo");
    for block in blocks {
        let (file, text) = block.split_once("```").unwrap().0.split_once('\n').unwrap();
        assert_eq!(Some(text.trim()), statements.get(file).map(String::as_str), "{file}");
    }
}

#[test]
fn both_databases_have_the_same_statements_with_the_same_parameters() {
    let (postgres, sqlite) = (statements("postgres"), statements("sqlite"));
    assert!(postgres.keys().eq(sqlite.keys()), "{:?} and {:?}", postgres.keys(), sqlite.keys());
    let places = |text: &str, sign: char| {
        let mut places: Vec<char> = text.split(sign).skip(1).filter_map(|rest| rest.chars().next()).collect();
        places.sort_unstable();
        places.dedup();
        places
    };
    for (file, text) in &postgres {
        assert_eq!(places(text, '$'), places(&sqlite[file], '?'), "{file}");
    }
}

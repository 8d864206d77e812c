//! Every mistake a definition can have, with its place.

use super::*;

#[test]
fn shipped() {
    for file in ["order", "trip", "transfer"] {
        let path = format!("{}/sagas/{file}.yaml", env!("CARGO_MANIFEST_DIR"));
        let source = std::fs::read_to_string(&path).unwrap();
        match compile(&source, Some(&format!("{file}.yaml")), Version(1)) {
            Ok(c) => assert_eq!(c.warnings, Vec::<String>::new()),
            Err(p) => panic!("{}", render(&p, &source, file)),
        }
    }
}

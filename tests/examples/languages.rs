//! The languages and how their programs are started.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

/// One language's two programs, as command lines from the root of the repository.
pub struct Language {
    pub name: &'static str,
    pub service: &'static [&'static str],
    pub client: &'static [&'static str],
}

pub const RUST: Language = Language {
    name: "rust",
    service: &["target/examples/rust/debug/stock"],
    client: &["target/examples/rust/debug/place-order"],
};

pub const PYTHON: Language = Language {
    name: "python",
    service: &["target/examples/python/bin/python", "examples/python/participant/main.py"],
    client: &["target/examples/python/bin/python", "examples/python/client/place_order.py"],
};

pub const TYPESCRIPT: Language = Language {
    name: "typescript",
    service: &["node", "target/examples/typescript/dist/participant/main.js"],
    client: &["node", "target/examples/typescript/dist/client/place_order.js"],
};

pub const LANGUAGES: [&Language; 3] = [&RUST, &PYTHON, &TYPESCRIPT];

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Builds all of them; the first test that needs them does it for the others.
pub fn prepare() {
    static PREPARED: LazyLock<()> = LazyLock::new(|| {
        let mut command = Command::new("examples/prepare");
        // The examples are a project of their own: what cargo tells this test is not for their build.
        for (name, _) in std::env::vars_os() {
            let name_text = name.to_string_lossy();
            if name_text.starts_with("CARGO_")
                && name_text != "CARGO_HOME"
                && name_text != "CARGO_NET_OFFLINE"
            {
                command.env_remove(&name);
            }
        }
        let prepared = command.current_dir(root()).stdin(Stdio::null()).status();
        let status = prepared.expect("examples/prepare can be started");
        assert!(status.success(), "examples/prepare could not make the examples ready: {status}");
    });
    LazyLock::force(&PREPARED);
}

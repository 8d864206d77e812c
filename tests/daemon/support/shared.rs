//! One daemon for a whole room of tests: starting one for each would take most of their time.

use std::io;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use super::daemon::{Daemon, Launch};

/// A daemon that lives as long as the test process.
pub struct Shared(OnceLock<Running>);

struct Running {
    daemon: Daemon,
    /// Ends the daemon and removes its store when this process is gone: nothing drops a static.
    _keeper: Child,
}

impl Shared {
    /// Not started yet.
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// The daemon, started by the first test that asks for it.
    pub fn daemon(&self) -> &Daemon {
        &self.0.get_or_init(|| start().expect("the shared daemon starts")).daemon
    }
}

fn start() -> anyhow::Result<Running> {
    let data = tempfile::tempdir()?.keep();
    let daemon = Launch::on(&data).start()?;
    let keeper = keep(&daemon, &data)?;
    Ok(Running { daemon, _keeper: keeper })
}

/// The keeper reads from a pipe that this process holds open and that closes with it.
fn keep(daemon: &Daemon, data: &std::path::Path) -> io::Result<Child> {
    Command::new("sh")
        .args(["-c", "read -r _; kill -9 \"$1\"; rm -rf \"$2\"", "keeper"])
        .arg(daemon.pid().to_string())
        .arg(data)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

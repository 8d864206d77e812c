//! Child processes: the daemon and the services of the shop, each a run of `sagad`.
//!
//! A child is killed when its handle is dropped, by its own process id. Should the parent die
//! without a word, the child sees its standard input end and goes too.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::{Child, ChildStdin, Command};

use crate::tasks;

/// Ports to try: below those that the system hands to outgoing connections, so that nobody's client
/// sits on a port while its owner is down and about to come back.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// How long a process may take to end after it was asked to.
const STOP_TIMEOUT: Duration = Duration::from_secs(6);

/// The flag that makes a child end with its parent; see [`end_with_parent`].
pub const END_WITH_PARENT_FLAG: &str = "--end-with-parent";

/// How to start a child, as often as needed.
#[derive(Debug, Clone)]
pub struct Program {
    /// For people and for the name of its log.
    pub name: String,
    /// The `sagad` binary.
    pub binary: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Where its output goes; appended to.
    pub log: PathBuf,
}

/// A running child.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
    /// Open for as long as the child is to live: it ends with its standard input.
    _stdin: Option<ChildStdin>,
}

impl Program {
    /// Starts it.
    pub fn start(&self) -> anyhow::Result<Process> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("open the log {}", self.log.display()))?;
        let mut command = Command::new(&self.binary);
        // What is set for a daemon of one's own must not reach this one.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SAGAD_"))
        {
            command.env_remove(name);
        }
        let mut child = command
            .args(&self.args)
            .arg(END_WITH_PARENT_FLAG)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().context("share the log")?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", self.name))?;
        // Waiting for a child closes the standard input that it still holds.
        let stdin = child.stdin.take();
        Ok(Process { name: self.name.clone(), log: self.log.clone(), child, _stdin: stdin })
    }
}

impl Process {
    /// Its process id; `None` once it has ended.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Fails when it has ended by itself, and says where to read why.
    pub fn still_runs(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait().with_context(|| format!("look after {}", self.name))? {
            None => Ok(()),
            Some(status) => {
                anyhow::bail!("{} ended by itself ({status}): see {}", self.name, self.log.display())
            }
        }
    }

    /// Kills it with SIGKILL and waits until it is gone.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().await.with_context(|| format!("kill {}", self.name))
    }

    /// Asks it to end with SIGTERM and waits; kills it when it does not.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
        let Some(pid) = pid else { return Ok(()) };
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)
            .with_context(|| format!("ask {} to end", self.name))?;
        let Ok(status) = tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await else {
            let (name, log) = (self.name.clone(), self.log.clone());
            self.kill().await?;
            anyhow::bail!("{name} did not end within {STOP_TIMEOUT:?}: see {}", log.display());
        };
        let status = status.with_context(|| format!("wait for {}", self.name))?;
        anyhow::ensure!(status.success(), "{} ended with {status}: see {}", self.name, self.log.display());
        Ok(())
    }
}

/// Finds free loopback addresses. They are not held: whoever they are for should bind them soon.
pub fn free_addresses(count: usize) -> anyhow::Result<Vec<SocketAddr>> {
    // Two shows at the same time begin at different places.
    let begin = u16::try_from(std::process::id() % u32::from(PORTS.end - PORTS.start)).unwrap_or(0);
    let ports = (PORTS.start + begin..PORTS.end).chain(PORTS.start..PORTS.start + begin);
    let held: Vec<TcpListener> =
        ports.filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok()).take(count).collect();
    anyhow::ensure!(held.len() == count, "no {count} free ports between {} and {}", PORTS.start, PORTS.end);
    held.iter().map(|listener| listener.local_addr().context("read a bound address")).collect()
}

/// In a child: ends this process as soon as its standard input does, which is when the parent is
/// gone. An end that nobody asked for in time is a crash, and is taken like one.
pub fn end_with_parent() -> io::Result<()> {
    tasks::thread("end with parent", || {
        let mut nothing = [0_u8; 64];
        while io::stdin().read(&mut nothing).is_ok_and(|read| read > 0) {}
        std::process::exit(1);
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_addresses_are_distinct_and_can_be_bound() {
        let found = free_addresses(8).unwrap();
        let distinct: std::collections::BTreeSet<_> = found.iter().collect();
        assert_eq!(distinct.len(), 8);
        assert!(found.iter().all(|addr| TcpListener::bind(addr).is_ok()));
    }
}

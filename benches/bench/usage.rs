//! What a process has used, as the kernel tells it.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

/// The kernel counts processor time in hundredths of a second for whoever reads `/proc`.
const TICK: Duration = Duration::from_millis(10);
/// The unit in which the kernel counts what a file takes on the disk.
const BLOCK_BYTES: u64 = 512;
/// Fields of `/proc/PID/stat` behind the name: user and system time, counted from the state on.
const USER_TIME_FIELD: usize = 11;

/// The processor time that the process `pid` has used so far, in all its threads.
pub fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let file = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
    // The name stands in parentheses and may hold anything.
    let behind_name = stat.rsplit_once(')').context("a stat line without a name")?.1;
    let ticks = behind_name.split_whitespace().skip(USER_TIME_FIELD).take(2);
    let ticks: u32 =
        ticks.map(str::parse::<u32>).sum::<Result<_, _>>().context("read the processor times")?;
    Ok(TICK * ticks)
}

/// The memory of the process `pid` that is resident, in MiB.
pub fn resident_mib(pid: u32) -> anyhow::Result<f64> {
    status_mib(pid, "VmRSS:")
}

fn status_mib(pid: u32, field: &'static str) -> anyhow::Result<f64> {
    let file = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).context(field)?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().context(field)?;
    Ok(kib / 1024.0)
}

/// The most memory that the process `pid` ever had resident, in MiB.
pub fn resident_most_mib(pid: u32) -> anyhow::Result<f64> {
    status_mib(pid, "VmHWM:")
}

/// Bytes that the process `pid` had written to the disk so far.
pub fn written(pid: u32) -> anyhow::Result<u64> {
    let file = format!("/proc/{pid}/io");
    let io = std::fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes:")).context("no write_bytes")?;
    line.trim().parse().context("read write_bytes")
}

/// Bytes that the databases of the store in `dir` and their log take on the disk; the ballast beside them
/// is not theirs.
pub fn databases(dir: &Path) -> anyhow::Result<u64> {
    on_disk(dir, &["ballast"])
}

fn on_disk(dir: &Path, without: &[&str]) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir).with_context(|| format!("look into {}", dir.display()))? {
        let path = entry.with_context(|| format!("look into {}", dir.display()))?.path();
        if without.iter().any(|name| path.ends_with(name)) {
            continue;
        }
        // What the database takes away while we look is not there any more.
        let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
        bytes += if meta.is_dir() { on_disk(&path, &[])? } else { meta.blocks() * BLOCK_BYTES };
    }
    Ok(bytes)
}

//! What a process has used, as the kernel tells it.

use std::time::Duration;

use anyhow::Context as _;

/// The kernel counts processor time in hundredths of a second for whoever reads `/proc`.
const TICK: Duration = Duration::from_millis(10);
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
    let file = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().context("read VmRSS")?;
    Ok(kib / 1024.0)
}

//! Where the daemon's processor time goes: samples of its stacks under `order3`, by `perf`.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;

use crate::parts::drive;
use crate::rig::{Participants, Rig};
use crate::sagas::{Kind, ORDER3};

/// Sagas in flight.
const CALLERS: usize = 64;
/// Samples of each core in a second: enough to see a hundredth, and off the beat of timers.
const SAMPLES_PER_SECOND: &str = "199";
/// The release build has no frame pointers: stacks are unwound by what debuggers use.
const STACKS: &str = "dwarf,16384";

/// Samples the daemon for `span` and keeps what `perf record` wrote.
pub async fn record(dir: &Path, shop: &Participants, span: Duration, file: &Path) -> anyhow::Result<()> {
    let rig = Rig::start(dir, shop, ORDER3).await?;
    let mut perf = tokio::process::Command::new("perf")
        .args(["record", "--quiet", "-e", "cpu-clock", "-F", SAMPLES_PER_SECOND, "--call-graph", STACKS])
        .args(["-p", &rig.pid()?.to_string(), "-o"])
        .arg(file)
        .args(["--", "sleep", &span.as_secs().to_string()])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("start perf (Debian: apt-get install linux-perf)")?;
    let times = drive(&rig, Kind::ORDER3, CALLERS, span, || Ok(())).await?;
    let ended = perf.wait().await.context("wait for perf")?;
    anyhow::ensure!(ended.success(), "perf ended with {ended}: is kernel.perf_event_paranoid above 1?");
    tell(times.per_second);
    rig.end().await
}

#[expect(clippy::print_stderr, reason = "a program talks to its terminal")]
fn tell(per_second: f64) {
    eprintln!("sampled at {per_second:.0} sagas/s");
}

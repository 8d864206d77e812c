//! Measures sagas end to end and holds them against the machine's own limits.
//!
//! ```text
//!  client (this process) ──► daemon (sagad serve) ──► participants (this binary once more)
//!                               └─► a fresh store on the real disk
//! ```
//!
//! Ends with 0 when every bar that was measured holds, with 1 when one does not.

#![expect(clippy::print_stderr, clippy::print_stdout, reason = "a program talks to its terminal")]

mod bars;
mod closed;
mod limits;
mod parts;
mod records;
mod report;
mod rig;
mod shop;
mod usage;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::bars::{Expected, bars};
use crate::limits::probe;
use crate::parts::Figures;
use crate::report::Report;
use crate::rig::{Participants, Rig};

/// Sagas in flight, where nothing else is asked for.
const CALLERS: [usize; 4] = [1, 16, 64, 256];
/// Sagas in flight of the parts that are measured at one load.
const CALLERS_OF_OTHERS: usize = 64;

/// Measures sagas end to end.
#[derive(Debug, Parser)]
struct Bench {
    /// Only this part; may be repeated
    #[arg(long, value_name = "PART")]
    only: Vec<Part>,
    /// How long each load is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Sagas in flight in part order3; may be repeated
    #[arg(long, value_name = "C")]
    callers: Vec<usize>,
    /// Run as the participants, on this address
    #[arg(long, hide = true, value_name = "ADDR")]
    shop: Option<SocketAddr>,
    /// End when standard input ends
    #[arg(long, hide = true)]
    end_with_parent: bool,
    /// Given by `cargo bench`
    #[arg(long = "bench", hide = true)]
    by_cargo: bool,
}

/// What can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Three calls, all succeed; at 1, 16, 64 and 256 in flight
    Order3,
    /// The same, one in ten refused and undone
    Refused,
    /// Acknowledged starts
    Starts,
    /// 20,000 starts at once
    Burst,
    /// The order saga as shipped
    Order,
}

/// One thread: the machine's two cores are for three processes.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Bench::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn run(bench: Bench) -> anyhow::Result<bool> {
    if let Some(listen) = bench.shop {
        shop::serve(listen).await?;
        return Ok(true);
    }
    let (dir, kept) = (below_target("bench"), below_target("bench.json"));
    let span = Duration::from_secs(bench.seconds);
    let mut participants = Participants::start(&dir).await?;
    let idle_mib = idle(&dir, &participants).await?;
    eprintln!("the machine's limits");
    let before = probe(&dir, &mut participants, span / 2).await?;
    let order3 = order3(&bench, &dir, &participants, span).await?;
    // Only order3 is held against the limits, so the second look is right behind it.
    let behind = probe(&dir, &mut participants, span / 2).await?;
    let limits = before.between(behind);
    let expected = Expected::of(&limits);
    let bars = bars(&expected, &order3);
    let mut rows = order3;
    rows.extend(others(&bench, &dir, &participants, span).await?);
    participants.end().await?;
    let report = Report { limits: [before, behind, limits], expected, idle_mib, rows, bars };
    report.print();
    report.keep(&kept)?;
    println!("kept as {}", kept.display());
    Ok(report.holds())
}

impl Bench {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

async fn order3(
    bench: &Bench,
    dir: &Path,
    shop: &Participants,
    span: Duration,
) -> anyhow::Result<Vec<Figures>> {
    let mut rows = Vec::new();
    if !bench.wants(Part::Order3) {
        return Ok(rows);
    }
    let loads = if bench.callers.is_empty() { &CALLERS[..] } else { &bench.callers };
    for &callers in loads {
        eprintln!("order3 at {callers}");
        rows.push(parts::order3(&dir.join("daemon"), shop, callers, span).await?);
    }
    Ok(rows)
}

async fn others(
    bench: &Bench,
    dir: &Path,
    shop: &Participants,
    span: Duration,
) -> anyhow::Result<Vec<Figures>> {
    let mut rows = Vec::new();
    let (dir, callers) = (&dir.join("daemon"), CALLERS_OF_OTHERS);
    if bench.wants(Part::Refused) {
        eprintln!("order3 with refusals at {callers}");
        rows.push(parts::refused(dir, shop, callers, span).await?);
    }
    if bench.wants(Part::Starts) {
        eprintln!("starts at {callers}");
        rows.push(parts::starts(dir, shop, callers, span).await?);
    }
    if bench.wants(Part::Order) {
        eprintln!("order.yaml at {callers}");
        rows.push(parts::order(dir, shop, callers, span).await?);
    }
    if bench.wants(Part::Burst) {
        eprintln!("a burst");
        rows.push(parts::burst(dir, shop).await?);
    }
    Ok(rows)
}

/// Memory of a daemon that has nothing to do yet, in MiB.
async fn idle(dir: &Path, shop: &Participants) -> anyhow::Result<f64> {
    let rig = Rig::start(&dir.join("daemon"), shop, include_str!("../order3.yaml")).await?;
    let resident = usage::resident_mib(rig.pid()?)?;
    rig.end().await?;
    Ok(resident)
}

/// Beside what was built: a real disk, and nothing that version control sees.
fn below_target(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap_or(Path::new("target")).join(name)
}

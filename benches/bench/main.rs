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
mod crash;
mod faults;
mod fill;
mod findings;
mod history;
mod isolation;
mod limits;
mod open;
mod overload;
mod parts;
mod profile;
mod records;
mod reopen;
mod report;
mod restart;
mod retention;
mod rig;
mod sagas;
mod shop;
mod usage;
mod wide;
mod worker;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::bars::{Expected, bars};
use crate::findings::Findings;
use crate::limits::probe;
use crate::reopen::Opener;
use crate::report::{Held, Report};
use crate::rig::Participants;

/// Sagas in flight, where nothing else is asked for.
const CALLERS: [usize; 4] = [1, 16, 64, 256];
/// Sagas in flight in part worker: those with a bar.
const CALLERS_OF_WORKERS: [usize; 2] = [64, 256];
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
    /// Sagas in flight in parts order3 and worker; may be repeated
    #[arg(long, value_name = "C")]
    callers: Vec<usize>,
    /// Open sagas in parts open and reopen
    #[arg(long, default_value_t = 50_000, value_name = "N")]
    open: u64,
    /// Ended sagas in part history
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    ended: u64,
    /// Items and steps in part wide, at most
    #[arg(long, default_value_t = 4_000, value_name = "N")]
    wide: usize,
    /// Only sample the daemon's processor time at 64 in flight, with `perf`, into this file
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// Run as the participants, on this address
    #[arg(long, hide = true, value_name = "ADDR")]
    shop: Option<SocketAddr>,
    /// Run as workers of the daemon at this URL
    #[arg(long, hide = true, value_name = "URL")]
    work_for: Option<String>,
    /// Open the store in `--open-dir`, and tell what it took
    #[arg(long, hide = true, requires = "open_dir")]
    open_as: Option<Opener>,
    #[arg(long, hide = true)]
    open_dir: Option<PathBuf>,
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
    /// Ten times what the participants can take
    Overload,
    /// A participant that fails in five ways beside others that are well
    Isolation,
    /// Idle memory, kill -9 at 64 in flight, what ended sagas leave
    Restart,
    /// A start with many open sagas
    Open,
    /// Opening a store with many open sagas, and the engine's share of it
    Reopen,
    /// A start and order3 with many ended sagas
    History,
    /// A steady load with a short retention
    Retention,
    /// Lists, chains and inputs of all sizes
    Wide,
    /// Three steps over workers' streams; at 64 and 256 in flight
    Worker,
}

/// All but `order3`, in the order in which they are measured.
const BEHIND_ORDER3: [Part; 13] = [
    Part::Worker,
    Part::Refused,
    Part::Starts,
    Part::Order,
    Part::Burst,
    Part::Overload,
    Part::Isolation,
    Part::Restart,
    Part::Open,
    Part::Reopen,
    Part::History,
    Part::Retention,
    Part::Wide,
];

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
    if let Some(url) = &bench.work_for {
        shop::work(url).await?;
        return Ok(true);
    }
    if let (Some(opener), Some(dir)) = (bench.open_as, &bench.open_dir) {
        reopen::open_as(opener, dir).await?;
        return Ok(true);
    }
    let (dir, kept) = (below_target("bench"), below_target("bench.json"));
    let mut participants = Participants::start(&dir).await?;
    if let Some(file) = &bench.profile {
        profile::record(&dir.join("daemon"), &participants, bench.span(), file).await?;
        participants.end().await?;
        return Ok(true);
    }
    let (limits, mut findings) = bench.order3(&dir, &mut participants).await?;
    for part in BEHIND_ORDER3 {
        if bench.wants(part) {
            eprintln!("{part:?}");
            findings.extend(bench.part(part, &dir, &mut participants).await?);
        }
    }
    participants.end().await?;
    let Findings { rows, readings, bars } = findings;
    let report = Report { limits, rows, readings, bars };
    report.print();
    report.keep(&kept)?;
    println!("kept as {}", kept.display());
    Ok(report.holds())
}

impl Bench {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn span(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// The loads that were asked for.
    fn loads<'a>(&'a self, otherwise: &'a [usize]) -> &'a [usize] {
        if self.callers.is_empty() { otherwise } else { &self.callers }
    }

    /// Only this part is held against the machine's limits, so they are measured right before and
    /// behind it.
    async fn order3(&self, dir: &Path, shop: &mut Participants) -> anyhow::Result<(Option<Held>, Findings)> {
        let mut found = Findings::default();
        if !self.wants(Part::Order3) {
            return Ok((None, found));
        }
        eprintln!("the machine's limits");
        let before = probe(dir, shop, self.span() / 2).await?;
        for &callers in self.loads(&CALLERS) {
            eprintln!("order3 at {callers}");
            found.rows.push(parts::order3(&dir.join("daemon"), shop, callers, self.span()).await?);
        }
        let behind = probe(dir, shop, self.span() / 2).await?;
        let limits = before.between(behind);
        let expected = Expected::of(&limits);
        found.bars = bars(&expected, &found.rows);
        Ok((Some(Held { limits: [before, behind, limits], expected }), found))
    }

    async fn part(&self, part: Part, dir: &Path, shop: &mut Participants) -> anyhow::Result<Findings> {
        let (callers, span) = (CALLERS_OF_OTHERS, self.span());
        if part == Part::Worker {
            return worker::worker(dir, shop, self.loads(&CALLERS_OF_WORKERS), span).await;
        }
        let (dir, shop) = (&dir.join("daemon"), &*shop);
        let row = match part {
            Part::Order3 | Part::Worker => return Ok(Findings::default()),
            Part::Refused => parts::refused(dir, shop, callers, span).await?,
            Part::Starts => parts::starts(dir, shop, callers, span).await?,
            Part::Order => parts::order(dir, shop, callers, span).await?,
            Part::Burst => parts::burst(dir, shop).await?,
            Part::Overload => return overload::overload(dir, shop, span).await,
            Part::Isolation => return isolation::isolation(dir, shop, span).await,
            Part::Restart => return restart::restart(dir, shop, span).await,
            Part::Open => return open::open(dir, shop, self.open).await,
            Part::Reopen => return reopen::reopen(dir, self.open).await,
            Part::History => return history::history(dir, shop, self.ended, span).await,
            Part::Retention => return retention::retention(dir, shop).await,
            Part::Wide => return wide::wide(dir, shop, self.wide, span).await,
        };
        Ok(Findings { rows: vec![row], ..Findings::default() })
    }
}

/// Beside what was built: a real disk, and nothing that version control sees.
fn below_target(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap_or(Path::new("target")).join(name)
}

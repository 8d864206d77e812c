//! What opening a store with many open sagas costs, and how much of it is the engine's own: each is
//! opened by a process of its own, on a copy of the same files.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use sagad::clock::Stopwatch;
use sagad::store::Store as _;
use sagad::store::sled::{SledOptions, SledStore};

use crate::fill::{Fill, Standing};
use crate::findings::Findings;
use crate::open::held3;
use crate::usage::{cpu, resident_mib};

const PART: &str = "reopen";
/// The database of open sagas, below a store.
const DATABASE: &str = "open";

/// Who opens the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Opener {
    /// The database engine, and then a look at every row
    Engine,
    /// The store
    Store,
}

/// Fills a store with `open` sagas and opens copies of it.
pub async fn reopen(dir: &Path, open: u64) -> anyhow::Result<Findings> {
    let mut found = Findings::default();
    if dir.exists() {
        std::fs::remove_dir_all(dir).with_context(|| format!("empty {}", dir.display()))?;
    }
    let filled = dir.join("filled");
    std::fs::create_dir_all(&filled).with_context(|| format!("make {}", filled.display()))?;
    let fill = Fill::begin(&filled, &held3(), &[]).await?;
    fill.open(0, open, Standing::Pending).await?;
    fill.close().await?;
    for (opener, name) in [(Opener::Engine, "engine"), (Opener::Store, "store")] {
        let copied = dir.join("copy");
        copy(&filled, &copied)?;
        for line in told_by(name, &copied)?.lines() {
            let mut parts = line.splitn(3, ' ');
            let (value, unit) = (parts.next().context("a figure")?, parts.next().context("its unit")?);
            let what = format!("{open} open, {opener:?}: {}", parts.next().context("its name")?);
            let unit = if unit == "s" { "s" } else { "MiB" };
            found.read(PART, what, value.parse().context("a figure")?, unit);
        }
        std::fs::remove_dir_all(&copied).context("remove the copy")?;
    }
    Ok(found)
}

/// Runs this binary once more, as the opener.
fn told_by(opener: &str, dir: &Path) -> anyhow::Result<String> {
    let binary = std::env::current_exe().context("find this binary")?;
    let run = Command::new(binary).arg("--open-as").arg(opener).arg("--open-dir").arg(dir).output();
    let run = run.context("run the opener")?;
    anyhow::ensure!(run.status.success(), "the opener failed: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).context("what the opener said")
}

/// Opens the files and tells what it took: a line for each figure.
pub async fn open_as(opener: Opener, dir: &Path) -> anyhow::Result<()> {
    let before = resident_mib(std::process::id())?;
    match opener {
        Opener::Engine => {
            let options = SledOptions::new(dir);
            let watch = Stopwatch::start();
            let config = sled::Config::new().path(dir.join(DATABASE)).cache_capacity(options.cache_bytes);
            let db = config.open().context("open the database")?;
            tell("open", watch, before)?;
            let watch = Stopwatch::start();
            let mut bytes = 0;
            for row in db.iter() {
                let (key, value) = row.context("read a row")?;
                bytes += key.len() + value.len();
            }
            anyhow::ensure!(bytes > 0, "there are no rows");
            tell("each row looked at", watch, before)?;
        }
        Opener::Store => {
            let watch = Stopwatch::start();
            let store = SledStore::open(SledOptions::new(dir)).context("open the store")?;
            tell("open", watch, before)?;
            store.counters().await.context("wait until every saga is known")?;
            tell("every saga known", watch, before)?;
        }
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "it is read by whoever started this process")]
fn tell(what: &str, watch: Stopwatch, before: f64) -> anyhow::Result<()> {
    let took = watch.elapsed().as_secs_f64();
    let pid = std::process::id();
    println!("{took:.3} s {what}");
    println!("{:.2} s {what}: processor time so far", cpu(pid)?.as_secs_f64());
    println!("{:.0} MiB {what}: resident, beside the program", resident_mib(pid)? - before);
    Ok(())
}

/// Copies a folder.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("make {}", to.display()))?;
    for entry in std::fs::read_dir(from).with_context(|| format!("look into {}", from.display()))? {
        let entry = entry.with_context(|| format!("look into {}", from.display()))?;
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &to)?;
        } else {
            std::fs::copy(&path, &to).with_context(|| format!("copy {}", path.display()))?;
        }
    }
    Ok(())
}

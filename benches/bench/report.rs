//! The table for people and the JSON for what compares runs.

use std::path::Path;

use anyhow::Context as _;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::bars::{Bar, Expected};
use crate::findings::Reading;
use crate::limits::Limits;
use crate::parts::Figures;

/// A whole run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Measured where `order3` was.
    pub limits: Option<Held>,
    pub rows: Vec<Figures>,
    pub readings: Vec<Reading>,
    pub bars: Vec<Bar>,
}

/// What `order3` is held against.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Held {
    /// The machine's limits before, behind, and on average.
    pub limits: [Limits; 3],
    pub expected: Expected,
}

impl Report {
    /// Whether every bar holds that was measured.
    pub fn holds(&self) -> bool {
        self.bars.iter().all(|bar| bar.holds)
    }

    /// Keeps it as JSON.
    pub fn keep(&self, file: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self).context("write the report as JSON")?;
        std::fs::write(file, text + "\n").with_context(|| format!("write {}", file.display()))
    }

    /// Prints it.
    pub fn print(&self) {
        if let Some(held) = &self.limits {
            let limits = limits(&held.limits);
            println!("\nThe machine's limits (each as measured before and behind the rest)\n{limits}");
        }
        if !self.rows.is_empty() {
            let sagas = self.sagas();
            println!("\nSagas (times as the client sees them, CPU for each saga)\n{sagas}");
        }
        if !self.readings.is_empty() {
            println!("\nReadings\n{}", self.readings());
        }
        if !self.bars.is_empty() {
            println!("\nWhat must hold\n{}", self.verdicts());
        }
    }

    fn readings(&self) -> Table {
        let mut table = plain(&["part", "", "found", ""]);
        for reading in &self.readings {
            let (part, unit) = (reading.part.to_owned(), reading.unit.to_owned());
            table.add_row([part, reading.what.clone(), number(reading.found), unit]);
        }
        if let Some(column) = table.column_mut(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    fn sagas(&self) -> Table {
        let mut table = plain(&[
            "",
            "C",
            "sagas/s",
            "mean ms",
            "p50",
            "p99",
            "p99.9",
            "daemon µs",
            "client µs",
            "shop µs",
            "MiB",
            "syncs",
        ]);
        for row in &self.rows {
            let ms = |us: f64| format!("{:.2}", us / 1e3);
            table.add_row([
                row.part.clone(),
                row.callers.to_string(),
                number(row.per_second),
                ms(row.mean_us),
                ms(row.p50_us),
                ms(row.p99_us),
                ms(row.p999_us),
                number(row.daemon_cpu_us),
                number(row.client_cpu_us),
                number(row.participants_cpu_us),
                number(row.daemon_mib),
                format!("{:.2}", row.syncs),
            ]);
        }
        right(&mut table);
        table
    }

    fn verdicts(&self) -> Table {
        let mut table = plain(&["", "found", "bar", ""]);
        for bar in &self.bars {
            let sign = if bar.at_least { '≥' } else { '≤' };
            let verdict = if bar.holds { "holds" } else { "MISSED" };
            let (found, limit) = (format!("{:.2}", bar.found), format!("{sign} {:.2}", bar.limit));
            table.add_row([bar.what.clone(), found, limit, verdict.to_owned()]);
        }
        right(&mut table);
        table
    }
}

fn limits(looks: &[Limits; 3]) -> Table {
    let mut table = plain(&["", "before", "behind", "mean"]);
    let mut row = |name: &str, of: &dyn Fn(&Limits) -> f64| {
        let cells = looks.iter().map(|limits| number(of(limits)));
        table.add_row([name.to_owned()].into_iter().chain(cells));
    };
    row("sync to the disk, p50 µs", &|l| l.sync_p50_us);
    row("call alone, p50 µs", &|l| l.wire.alone_p50_us);
    row("calls/s, 64 in flight", &|l| l.wire.calls_per_second);
    row("CPU of a call: caller, µs", &|l| l.wire.client_cpu_us);
    row("CPU of a call: called, µs", &|l| l.wire.server_cpu_us);
    row("commit alone, p50 µs", &|l| l.commits.alone_p50_us);
    row("commits/s, 64 waiting", &|l| l.commits.per_second);
    row("CPU of a commit, µs", &|l| l.commits.cpu_us);
    row("order3: bound, sagas/s", &|l| Expected::of(l).bound_per_second);
    row("order3: alone, µs", &|l| Expected::of(l).alone_us);
    row("order3: daemon's share of CPU, µs", &|l| Expected::of(l).daemon_cpu_us);
    right(&mut table);
    table
}

fn plain(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header(header);
    table
}

/// Figures stand under each other by their last digit.
fn right(table: &mut Table) {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

fn number(of: f64) -> String {
    match of {
        100.0.. => format!("{of:.0}"),
        10.0.. => format!("{of:.1}"),
        _ => format!("{of:.2}"),
    }
}

//! What the audience sees: progress while it runs, tables and timings at the end.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, TableComponent, presets};
use indicatif::{ProgressBar, ProgressStyle};

use super::accounting::Figure;

/// Lines of progress in one act where there is no terminal to draw a bar on.
const PLAIN_LINES_PER_ACT: u64 = 4;

/// One act, with its progress. Clones share it.
#[derive(Debug, Clone)]
pub struct Act {
    bar: ProgressBar,
    name: &'static str,
}

impl Act {
    /// Begins an act of `total` orders.
    pub fn begin(name: &'static str, total: u64) -> Self {
        let style = ProgressStyle::with_template("  {msg} {bar:40} {pos}/{len}  {elapsed}");
        let bar = ProgressBar::new(total)
            .with_style(style.expect("the template is constant and well-formed"))
            .with_message(name);
        bar.tick();
        Self { bar, name }
    }

    /// One more order is settled. Gives how many are.
    pub fn advance(&self) -> usize {
        self.bar.inc(1);
        let (done, total) = (self.bar.position(), self.bar.length().unwrap_or(0));
        let quarter = |settled: u64| settled * PLAIN_LINES_PER_ACT / total.max(1);
        if self.bar.is_hidden() && quarter(done) > quarter(done.saturating_sub(1)) {
            say(&format!("  {} {done}/{total}", self.name));
        }
        usize::try_from(done).unwrap_or(usize::MAX)
    }

    /// Says something beside the bar.
    pub fn say(&self, line: &str) {
        self.bar.suspend(|| say(line));
    }
}

impl Drop for Act {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Says something.
pub fn say(line: &str) {
    anstream::println!("{line}");
}

/// Shows the figures of one part of the accounting; gives how many are off.
pub fn figures(title: &str, figures: &[Figure]) -> usize {
    say(&format!("\n{title}"));
    say(&table(figures));
    figures.iter().filter(|figure| !figure.ok).count()
}

fn table(figures: &[Figure]) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_HORIZONTAL_ONLY)
        .remove_style(TableComponent::HorizontalLines)
        .remove_style(TableComponent::MiddleIntersections);
    table.set_header(["figure", "expected", "found", "ok"]);
    for figure in figures {
        let verdict = if figure.ok { "ok" } else { "OFF" };
        table.add_row([figure.name, &figure.expected, &figure.found, verdict]);
    }
    for column in [1, 2] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

/// Half of the samples took at most the first span, 99 of 100 at most the second.
pub fn percentiles(mut samples: Vec<Duration>) -> (Duration, Duration) {
    samples.sort_unstable();
    let at = |percent: usize| {
        let rank = (samples.len() * percent).div_ceil(100).saturating_sub(1);
        samples.get(rank).copied().unwrap_or_default()
    };
    (at(50), at(99))
}

/// A span in milliseconds, for people.
pub fn millis(span: Duration) -> String {
    format!("{:.1} ms", span.as_secs_f64() * 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples_that_were_seen() {
        let samples = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(percentiles(samples), (Duration::from_millis(100), Duration::from_millis(198)));
        assert_eq!(percentiles(vec![Duration::from_millis(7)]).1, Duration::from_millis(7));
        assert_eq!(percentiles(Vec::new()).0, Duration::ZERO);
    }

    #[test]
    fn a_figure_that_is_off_stands_out() {
        let figure = |name, expected: &str, found: &str, ok| Figure {
            name,
            expected: expected.to_owned(),
            found: found.to_owned(),
            ok,
        };
        let rows = [figure("orders placed", "100", "100", true), figure("stock left", "0", "3", false)];
        insta::assert_snapshot!(table(&rows), @r"
        ────────────────────────────────────────
         figure          expected   found   ok  
        ════════════════════════════════════════
         orders placed        100     100   ok  
         stock left             0       3   OFF 
        ────────────────────────────────────────
        ");
    }
}

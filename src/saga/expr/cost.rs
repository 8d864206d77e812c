//! What the loops of an expression may cost, reckoned before they run.
//!
//! CEL has no loops but its comprehensions, so the work is known from the data: how often each
//! part of the tree is evaluated, times the size of what it reads there.

use serde_json::Value;

use super::path::Path;

/// How often a part of the tree is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    /// Once.
    Once,
    /// Once an entry of a list.
    Each,
    /// Once an entry of the lists inside a list's entries: never more often than there are values.
    Nested,
    /// Once for each pair of entries of two lists.
    Pairs,
}

/// What is counted while the tree is walked.
#[derive(Debug, Default)]
pub(super) struct Cost {
    nodes: Vec<(Weight, u64)>,
    reads: Vec<(Path, Weight)>,
    /// Reads of a loop's own variable, which in all touch each value once,
    own_reads: u64,
    /// and those that touch it again for each entry of another list.
    repeated_reads: u64,
    longest_literal: u64,
    /// Each `+` may copy the lists before it,
    concatenations: u64,
    /// and in what is looped over make a longer one.
    concatenations_in_range: u64,
}

impl Cost {
    pub(super) fn node(&mut self, weight: Weight) {
        match self.nodes.iter_mut().find(|(of, _)| *of == weight) {
            Some((_, count)) => *count += 1,
            None => self.nodes.push((weight, 1)),
        }
    }

    pub(super) fn read(&mut self, path: Path, weight: Weight) {
        self.reads.push((path, weight));
    }

    pub(super) fn own_read(&mut self) {
        self.own_reads += 1;
    }

    pub(super) fn repeated_read(&mut self) {
        self.repeated_reads += 1;
    }

    pub(super) fn literal(&mut self, entries: usize) {
        self.longest_literal = self.longest_literal.max(entries as u64);
    }

    pub(super) fn concatenation(&mut self, in_range: bool) {
        self.concatenations += 1;
        self.concatenations_in_range += u64::from(in_range);
    }

    /// Whether it can cost more than reading its data once.
    pub(super) fn is_open(&self) -> bool {
        self.concatenations > 0 || self.nodes.iter().any(|(weight, _)| *weight != Weight::Once)
    }

    /// Values visited at most, with the data that `at` gives.
    pub(super) fn work<'v>(&self, at: impl Fn(&Path) -> &'v Value) -> u64 {
        let mut longest = self.longest_literal;
        let mut all = self.longest_literal;
        let mut sizes = Vec::with_capacity(self.reads.len());
        for (path, weight) in &self.reads {
            let measured = measure(at(path));
            longest = longest.max(measured.longest);
            all = all.saturating_add(measured.values);
            sizes.push((*weight, measured.values.saturating_mul(1 + self.concatenations)));
        }
        let longest = longest.saturating_mul(1 + self.concatenations_in_range);
        let all = all.saturating_mul(1 + self.concatenations_in_range);
        let times = |weight| match weight {
            Weight::Once => 1,
            Weight::Each => longest,
            Weight::Nested => all,
            Weight::Pairs => longest.saturating_mul(longest),
        };
        self.nodes
            .iter()
            .chain(&sizes)
            .map(|(weight, each)| times(*weight).saturating_mul(*each))
            .chain([
                all.saturating_mul(self.own_reads),
                all.saturating_mul(longest).saturating_mul(self.repeated_reads),
            ])
            .fold(0, u64::saturating_add)
    }
}

#[derive(Default)]
struct Measured {
    values: u64,
    longest: u64,
}

/// Counts values, a long text as several, and finds the longest list.
fn measure(value: &Value) -> Measured {
    const TEXT_BYTES_PER_VALUE: u64 = 64;
    let mut measured = Measured::default();
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        measured.values += 1;
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
            Value::String(text) => measured.values += text.len() as u64 / TEXT_BYTES_PER_VALUE,
            Value::Array(list) => {
                measured.longest = measured.longest.max(list.len() as u64);
                open.extend(list);
            }
            Value::Object(fields) => {
                measured.longest = measured.longest.max(fields.len() as u64);
                open.extend(fields.values());
            }
        }
    }
    measured
}

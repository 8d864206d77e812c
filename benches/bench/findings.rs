//! What a part has found.

use serde::Serialize;

use crate::bars::Bar;
use crate::parts::Figures;

/// What one part has found, or several together.
#[derive(Debug, Default)]
pub struct Findings {
    pub rows: Vec<Figures>,
    pub readings: Vec<Reading>,
    pub bars: Vec<Bar>,
}

/// One figure that fits no row.
#[derive(Debug, Clone, Serialize)]
pub struct Reading {
    pub part: &'static str,
    pub what: String,
    pub found: f64,
    pub unit: &'static str,
}

impl Findings {
    /// Keeps one figure.
    pub fn read(&mut self, part: &'static str, what: impl Into<String>, found: f64, unit: &'static str) {
        self.readings.push(Reading { part, what: what.into(), found, unit });
    }

    /// Takes over what another part has found.
    pub fn extend(&mut self, other: Self) {
        self.rows.extend(other.rows);
        self.readings.extend(other.readings);
        self.bars.extend(other.bars);
    }
}

//! What must hold, mostly as ratios within one run: the machine and its other guests cancel out.
//! The parts beside `order3` bring their own.

use serde::Serialize;

use crate::limits::Limits;
use crate::parts::Figures;

/// Unary calls of an `order3` saga: one start, three steps.
pub const CALLS: f64 = 4.0;
/// Of these the daemon makes so many, and answers the rest.
pub const CALLS_MADE: f64 = 3.0;
/// Commits of an `order3` saga, one after the other.
pub const COMMITS: f64 = 4.0;
/// Microseconds of processor time that two cores have in a second.
pub const PROCESSOR_US: f64 = 2e6;

/// Least part of what an engine that cost nothing would reach.
pub const OF_BOUND_MIN: f64 = 0.60;
/// Most times the mean that the slowest hundredth may take.
const TAIL_MAX: f64 = 3.0;
/// Most times the parts' own time that a saga alone may take.
const ALONE_MAX: f64 = 1.4;
/// Most times the parts' own processor time that the daemon may use.
const DAEMON_CPU_MAX: f64 = 1.5;

/// One thing that must hold.
#[derive(Debug, Clone, Serialize)]
pub struct Bar {
    pub what: String,
    /// A ratio, or in the unit that `what` names.
    pub found: f64,
    pub limit: f64,
    /// Whether `found` must reach `limit`; otherwise it must not pass it.
    pub at_least: bool,
    pub holds: bool,
}

impl Bar {
    /// Holds when `found` reaches `limit`.
    pub fn at_least(what: impl Into<String>, found: f64, limit: f64) -> Self {
        Self { what: what.into(), found, limit, at_least: true, holds: found >= limit }
    }

    /// Holds when `found` does not pass `limit`.
    pub fn at_most(what: impl Into<String>, found: f64, limit: f64) -> Self {
        Self { what: what.into(), found, limit, at_least: false, holds: found <= limit }
    }
}

/// What the limits add up to for an `order3` saga.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Expected {
    /// Sagas a second of an engine that costs nothing.
    pub bound_per_second: f64,
    /// Time of a saga alone, in microseconds.
    pub alone_us: f64,
    /// Processor time of the daemon's share, in microseconds.
    pub daemon_cpu_us: f64,
}

impl Expected {
    /// From what was measured of the parts.
    pub fn of(limits: &Limits) -> Self {
        let (wire, commits) = (&limits.wire, &limits.commits);
        let call_us = PROCESSOR_US / wire.calls_per_second;
        Self {
            bound_per_second: PROCESSOR_US / (CALLS * call_us + COMMITS * commits.cpu_us),
            alone_us: COMMITS * commits.alone_p50_us + CALLS * wire.alone_p50_us,
            daemon_cpu_us: CALLS_MADE * wire.client_cpu_us
                + (CALLS - CALLS_MADE) * wire.server_cpu_us
                + COMMITS * commits.cpu_us,
        }
    }
}

/// The bars that the measured rows of `order3` can be held against.
pub fn bars(expected: &Expected, order3: &[Figures]) -> Vec<Bar> {
    let mut bars = Vec::new();
    for row in order3 {
        let callers = row.callers;
        if callers == 64 || callers == 256 {
            let part = row.per_second / expected.bound_per_second;
            bars.push(Bar::at_least(format!("part of the bound, C={callers}"), part, OF_BOUND_MIN));
        }
        if callers == 64 {
            bars.push(Bar::at_most("p99 / mean, C=64", row.p99_us / row.mean_us, TAIL_MAX));
            let ratio = row.daemon_cpu_us / expected.daemon_cpu_us;
            bars.push(Bar::at_most("daemon's CPU / its share, C=64", ratio, DAEMON_CPU_MAX));
        }
        if callers == 1 {
            let ratio = row.p50_us / expected.alone_us;
            bars.push(Bar::at_most("p50 / its parts, C=1", ratio, ALONE_MAX));
        }
    }
    bars
}

//! From answers of the daemon to what people and programs read.
//!
//! Every text here carries its colours as escape codes: write it through `anstream`, which takes
//! them out again where the output is no terminal or `NO_COLOR` is set.
//!
//! ```text
//!  proto ─┬─► view ──► document     JSON, YAML: for programs, stable
//!         └─► table, saga, timeline, registry, stats, graph: for people
//! ```

pub mod check;
pub mod document;
pub mod graph;
pub mod page;
pub mod participants;
pub mod registry;
pub mod repair;
pub mod saga;
pub mod stats;
pub mod table;
pub mod text;
pub mod timeline;
pub mod view;
pub mod words;

pub use page::Page;

use crate::proto;

/// The history of a saga as an operator reads it, a line an event: the time since its start, what
/// happened, to which step, at which attempt, and why.
#[must_use]
pub fn timeline(events: &[proto::SagaEvent]) -> String {
    timeline::all(events, &Page::here())
}

/// One saga as an operator reads it: where it stands, since when, and a row a step.
#[must_use]
pub fn saga(saga: &proto::Saga) -> String {
    saga::whole(saga, &Page::here())
}

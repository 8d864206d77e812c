//! The filter language: one for the API, the command line, the console and acts on many sagas.
//!
//! ```text
//! status = BLOCKED AND (age > 10m OR label.region = "kr") AND NOT error : "timeout"
//! ```
//!
//! `NOT` binds tightest, then `AND`, then `OR`. A filter holds no time of its own: `age` and `idle`
//! are reckoned from the `now` it is matched with.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::time::Duration;

use thiserror::Error;

use super::ids::Timestamp;
use super::words::{Failure, Refusal, SagaStatus};

mod bounds;
mod display;
mod lex;
mod parse;
mod times;

pub use bounds::Bounds;

/// Longest filter, in bytes.
pub const FILTER_MAX_BYTES: usize = 4 * 1024;
/// Deepest nesting of parentheses and `NOT`.
pub const FILTER_DEPTH_MAX: usize = 64;

/// A filter that was read; the default matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter(Option<Node>);

/// Why a text is not a filter.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message} (at character {position})")]
pub struct FilterError {
    /// The character, counted from 1.
    pub position: usize,
    /// What is wrong with it.
    pub message: String,
}

/// What a filter asks of a saga.
pub trait Candidate {
    /// `status`
    fn status(&self) -> SagaStatus;
    /// `definition`
    fn definition(&self) -> &str;
    /// `version`
    fn version(&self) -> u32;
    /// `saga_id`
    fn saga_id(&self) -> &str;
    /// `created`, and what `age` counts from.
    fn created_at(&self) -> Timestamp;
    /// `updated`, and what `idle` counts from.
    fn updated_at(&self) -> Timestamp;
    /// `label.NAME`
    fn labels(&self) -> &BTreeMap<String, String>;
    /// `error`: the first cause, beside what the live steps say.
    fn failure(&self) -> Option<&Failure>;
    /// `paused`
    fn paused(&self) -> bool;
    /// `uncertain`
    fn uncertain(&self) -> bool;
    /// `step` and `participant`: what is running, waiting, failed, unknown or blocked now. Asked
    /// only if [`Filter::needs_steps`], and at most once a match.
    fn live_steps(&self) -> Cow<'_, [LiveStep]>;
    /// `blocked`
    fn blocked(&self) -> bool {
        self.status() == SagaStatus::Blocked
    }
}

/// A step instance that is not simply waiting its turn or done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveStep {
    /// The instance's name, such as `deduct-stock/0`; `step` finds it, and the step's own name.
    pub instance: String,
    /// Who is or was called.
    pub participant: String,
    /// What kept its last attempt from settling it, while the saga is open.
    pub error: Option<Refusal>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    /// At least two.
    And(Vec<Node>),
    /// At least two.
    Or(Vec<Node>),
    Not(Box<Node>),
    Test(Test),
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Status { equal: bool, value: SagaStatus },
    Text { field: TextField, op: TextOp, value: String },
    Version { op: Comparison, value: u32 },
    Span { field: SpanField, op: Comparison, value: Duration },
    Time { field: TimeField, op: Comparison, value: Timestamp },
    Flag { field: FlagField, equal: bool, value: bool },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum TextField {
    Definition,
    SagaId,
    Step,
    Participant,
    Error,
    Label(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SpanField {
    Age,
    Idle,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TimeField {
    Created,
    Updated,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FlagField {
    Blocked,
    Paused,
    Uncertain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TextOp {
    Equal,
    Unequal,
    Contains,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    Unequal,
    Less,
    AtMost,
    More,
    AtLeast,
}

impl Filter {
    /// Reads a filter; an empty text matches everything.
    ///
    /// # Errors
    /// [`FilterError`] with the position of what is wrong.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        parse::parse(text).map(Self)
    }

    /// Whether it matches everything because it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether the candidate fits at time `now`.
    pub fn matches(&self, candidate: &dyn Candidate, now: Timestamp) -> bool {
        let asked = Asked { candidate, now, steps: OnceCell::new() };
        self.0.as_ref().is_none_or(|node| asked.fits(node))
    }

    /// Whether matching a saga of this status asks for [`Candidate::live_steps`]. The steps of one
    /// that has ended have no errors of their own.
    #[must_use]
    pub fn needs_steps(&self, status: SagaStatus) -> bool {
        self.any(|test| match test {
            Test::Text { field: TextField::Step | TextField::Participant, .. } => true,
            Test::Text { field: TextField::Error, .. } => !status.is_terminal(),
            _ => false,
        })
    }

    /// Whether it asks for nothing but status, definition, version and age, so that indexes give
    /// an exact total.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        !self.any(|test| !is_counted(test) && !matches!(test, Test::Span { field: SpanField::Age, .. }))
    }

    /// Whether it asks for nothing but status, definition and version, so that counters by these
    /// three give an exact total.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        !self.any(|test| !is_counted(test))
    }

    /// What every match fulfils, for an index to start from. What fulfils it need not match.
    #[must_use]
    pub fn bounds(&self, now: Timestamp) -> Bounds {
        self.0.as_ref().map_or_else(Bounds::all, |node| bounds::of(node, now))
    }

    fn any(&self, asks: impl Fn(&Test) -> bool) -> bool {
        let mut open: Vec<&Node> = self.0.iter().collect();
        while let Some(node) = open.pop() {
            match node {
                Node::And(parts) | Node::Or(parts) => open.extend(parts),
                Node::Not(inner) => open.push(inner),
                Node::Test(test) if asks(test) => return true,
                Node::Test(_) => {}
            }
        }
        false
    }
}

fn is_counted(test: &Test) -> bool {
    match test {
        Test::Status { .. } | Test::Version { .. } => true,
        Test::Text { field, .. } => *field == TextField::Definition,
        Test::Span { .. } | Test::Time { .. } | Test::Flag { .. } => false,
    }
}

/// One candidate while it is matched.
struct Asked<'a> {
    candidate: &'a dyn Candidate,
    now: Timestamp,
    steps: OnceCell<Cow<'a, [LiveStep]>>,
}

impl Asked<'_> {
    fn fits(&self, node: &Node) -> bool {
        match node {
            Node::And(parts) => parts.iter().all(|part| self.fits(part)),
            Node::Or(parts) => parts.iter().any(|part| self.fits(part)),
            Node::Not(inner) => !self.fits(inner),
            Node::Test(test) => self.passes(test),
        }
    }

    fn passes(&self, test: &Test) -> bool {
        let saga = self.candidate;
        match test {
            Test::Status { equal, value } => (saga.status() == *value) == *equal,
            Test::Text { field, op, value } => self.text_passes(field, *op, value),
            Test::Version { op, value } => op.holds(&saga.version(), value),
            Test::Span { field, op, value } => {
                let since = match field {
                    SpanField::Age => saga.created_at(),
                    SpanField::Idle => saga.updated_at(),
                };
                op.holds(&self.now.since(since), value)
            }
            Test::Time { field, op, value } => {
                let at = match field {
                    TimeField::Created => saga.created_at(),
                    TimeField::Updated => saga.updated_at(),
                };
                op.holds(&at, value)
            }
            Test::Flag { field, equal, value } => {
                let flag = match field {
                    FlagField::Blocked => saga.blocked(),
                    FlagField::Paused => saga.paused(),
                    FlagField::Uncertain => saga.uncertain(),
                };
                (flag == *value) == *equal
            }
        }
    }

    /// `!=` is the opposite of `=`: what is not there is unequal to everything.
    fn text_passes(&self, field: &TextField, op: TextOp, value: &str) -> bool {
        let saga = self.candidate;
        let hit = |text: &str| match op {
            TextOp::Equal | TextOp::Unequal => text == value,
            TextOp::Contains => text.contains(value),
        };
        let found = match field {
            TextField::Definition => hit(saga.definition()),
            TextField::SagaId => hit(saga.saga_id()),
            TextField::Label(name) => saga.labels().get(name).is_some_and(|label| hit(label)),
            TextField::Error => {
                let fits = |code: &str, message: &str| {
                    hit(code) || hit(message) || hit(&format!("{code}: {message}"))
                };
                saga.failure().is_some_and(|failure| fits(&failure.code, &failure.message))
                    || (!saga.status().is_terminal()
                        && self
                            .steps()
                            .iter()
                            .flat_map(|step| &step.error)
                            .any(|e| fits(&e.code, &e.message)))
            }
            TextField::Step => self.steps().iter().any(|step| {
                let name = step.instance.split_once('/').map_or(step.instance.as_str(), |(name, _)| name);
                hit(name) || hit(&step.instance)
            }),
            TextField::Participant => self.steps().iter().any(|step| hit(&step.participant)),
        };
        match op {
            TextOp::Equal | TextOp::Contains => found,
            TextOp::Unequal => !found,
        }
    }

    fn steps(&self) -> &[LiveStep] {
        self.steps.get_or_init(|| self.candidate.live_steps())
    }
}

impl Comparison {
    fn holds<T: Ord>(self, left: &T, right: &T) -> bool {
        match self {
            Comparison::Equal => left == right,
            Comparison::Unequal => left != right,
            Comparison::Less => left < right,
            Comparison::AtMost => left <= right,
            Comparison::More => left > right,
            Comparison::AtLeast => left >= right,
        }
    }

    /// The comparison that holds exactly where this one does not.
    fn opposite(self) -> Self {
        match self {
            Comparison::Equal => Comparison::Unequal,
            Comparison::Unequal => Comparison::Equal,
            Comparison::Less => Comparison::AtLeast,
            Comparison::AtMost => Comparison::More,
            Comparison::More => Comparison::AtMost,
            Comparison::AtLeast => Comparison::Less,
        }
    }
}

#[cfg(test)]
mod tests;

//! What an index can know of a filter.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Comparison, FlagField, Node, SpanField, Test, TextField, TextOp, TimeField};
use crate::saga::ids::{DefinitionName, Timestamp};
use crate::saga::words::SagaStatus;

/// The finest step of time.
const TICK: Duration = Duration::from_millis(1);

/// Conditions that every match of a filter fulfils.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// Its status is one of these; empty when nothing can match.
    pub statuses: BTreeSet<SagaStatus>,
    /// Its definition is this one.
    pub definition: Option<DefinitionName>,
    /// It was created then or later.
    pub created_from: Option<Timestamp>,
    /// It was created before then.
    pub created_before: Option<Timestamp>,
}

impl Bounds {
    /// No condition.
    #[must_use]
    pub fn all() -> Self {
        Self {
            statuses: SagaStatus::ALL.into_iter().collect(),
            definition: None,
            created_from: None,
            created_before: None,
        }
    }

    fn none() -> Self {
        Self { statuses: BTreeSet::new(), ..Self::all() }
    }

    /// Whether nothing can match.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.statuses.is_empty()
    }

    /// Whether the statuses say anything.
    #[must_use]
    pub fn all_statuses(&self) -> bool {
        self.statuses.len() == SagaStatus::ALL.len()
    }

    fn both(self, other: Self) -> Self {
        let definition = match (self.definition, other.definition) {
            (Some(one), Some(another)) if one != another => return Self::none(),
            (one, another) => one.or(another),
        };
        Self {
            statuses: self.statuses.intersection(&other.statuses).copied().collect(),
            definition,
            created_from: self.created_from.max(other.created_from),
            created_before: match (self.created_before, other.created_before) {
                (Some(one), Some(another)) => Some(one.min(another)),
                (one, another) => one.or(another),
            },
        }
    }

    fn either(self, other: Self) -> Self {
        if self.is_nothing() {
            return other;
        }
        if other.is_nothing() {
            return self;
        }
        Self {
            statuses: self.statuses.union(&other.statuses).copied().collect(),
            definition: if self.definition == other.definition { self.definition } else { None },
            created_from: self.created_from.min(other.created_from),
            created_before: match (self.created_before, other.created_before) {
                (Some(one), Some(another)) => Some(one.max(another)),
                _ => None,
            },
        }
    }
}

/// The bounds of `node` at time `now`.
pub(super) fn of(node: &Node, now: Timestamp) -> Bounds {
    bounds(node, now, true)
}

/// The bounds of `node`, or of its opposite. `NOT` is carried down to the conditions.
fn bounds(node: &Node, now: Timestamp, holds: bool) -> Bounds {
    match (node, holds) {
        (Node::And(parts), true) | (Node::Or(parts), false) => {
            parts.iter().map(|part| bounds(part, now, holds)).fold(Bounds::all(), Bounds::both)
        }
        (Node::Or(parts), true) | (Node::And(parts), false) => {
            parts.iter().map(|part| bounds(part, now, holds)).fold(Bounds::none(), Bounds::either)
        }
        (Node::Not(inner), _) => bounds(inner, now, !holds),
        (Node::Test(test), _) => of_test(test, now, holds),
    }
}

fn of_test(test: &Test, now: Timestamp, holds: bool) -> Bounds {
    let as_is = |op: Comparison| if holds { op } else { op.opposite() };
    match test {
        Test::Status { equal, value } => with_status(*value, *equal == holds),
        Test::Flag { field: FlagField::Blocked, equal, value } => {
            with_status(SagaStatus::Blocked, (*equal == *value) == holds)
        }
        Test::Text { field: TextField::Definition, op, value } => match (op, holds) {
            (TextOp::Equal, true) | (TextOp::Unequal, false) => match DefinitionName::parse(value) {
                Ok(name) => Bounds { definition: Some(name), ..Bounds::all() },
                Err(_) => Bounds::none(),
            },
            (TextOp::Equal, false) | (TextOp::Unequal, true) | (TextOp::Contains, _) => Bounds::all(),
        },
        Test::Span { field: SpanField::Age, op, value } => of_age(as_is(*op), *value, now),
        Test::Time { field: TimeField::Created, op, value } => of_created(as_is(*op), *value),
        Test::Text { .. }
        | Test::Version { .. }
        | Test::Span { field: SpanField::Idle, .. }
        | Test::Time { field: TimeField::Updated, .. }
        | Test::Flag { field: FlagField::Paused | FlagField::Uncertain, .. } => Bounds::all(),
    }
}

fn with_status(status: SagaStatus, wanted: bool) -> Bounds {
    let statuses = SagaStatus::ALL.into_iter().filter(|each| (*each == status) == wanted).collect();
    Bounds { statuses, ..Bounds::all() }
}

/// An age is `now - created`, and zero where the clock stood before the creation.
fn of_age(op: Comparison, age: Duration, now: Timestamp) -> Bounds {
    let created = now - age;
    match op {
        // Everything created later has age zero too.
        Comparison::Equal | Comparison::AtMost if age.is_zero() => of_created(Comparison::AtLeast, created),
        Comparison::AtLeast if age.is_zero() => Bounds::all(),
        Comparison::Less if age.is_zero() => Bounds::none(),
        Comparison::Equal => of_created(Comparison::Equal, created),
        Comparison::Unequal => Bounds::all(),
        Comparison::Less => of_created(Comparison::More, created),
        Comparison::AtMost => of_created(Comparison::AtLeast, created),
        Comparison::More => of_created(Comparison::Less, created),
        Comparison::AtLeast => of_created(Comparison::AtMost, created),
    }
}

fn of_created(op: Comparison, at: Timestamp) -> Bounds {
    let (from, before) = match op {
        Comparison::Equal => (Some(at), Some(at + TICK)),
        Comparison::Unequal => (None, None),
        Comparison::Less => (None, Some(at)),
        Comparison::AtMost => (None, Some(at + TICK)),
        Comparison::More => (Some(at + TICK), None),
        Comparison::AtLeast => (Some(at), None),
    };
    Bounds { created_from: from, created_before: before, ..Bounds::all() }
}

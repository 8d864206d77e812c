//! A participant that an operator has paused: it gets no new call, and those in flight finish.

use crate::saga::ids::Timestamp;

/// Who paused it, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// Why, for people.
    pub reason: String,
    /// Who, for people.
    pub actor: String,
    /// Since when.
    pub since: Timestamp,
}

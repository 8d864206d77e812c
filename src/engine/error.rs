//! Why the engine says no.

use std::time::Duration;

use thiserror::Error;

use crate::store::StoreError;

/// One field of a request that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The request's field, with a path inside it where there is one: `input_json.items[0].amount`.
    pub field: String,
    /// What is wrong and what it must be.
    pub description: String,
}

impl Violation {
    /// A violation of `field`.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self { field: field.into(), description: description.into() }
    }
}

/// Why a request was not carried out. Each case is one status of the public surface.
#[derive(Debug, Clone, Error)]
pub enum EngineError {
    /// There is no such thing. Repeating does not help.
    #[error("{what} {name:?} does not exist")]
    NotFound { what: &'static str, name: String },
    /// The id is taken by another request. Repeating does not help.
    #[error("saga {0:?} exists with another request: nothing was changed")]
    AlreadyExists(String),
    /// The request is wrong in itself. Repeating does not help.
    #[error("invalid request: {}", .0.iter().map(|v| format!("{}: {}", v.field, v.description)).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<Violation>),
    /// Not possible as things stand. Repeating does not help by itself.
    #[error("{0}")]
    Precondition(String),
    /// Too much at once: nothing was done, try again after the given time.
    #[error("{reason}: try again in {}", humantime::format_duration(*.retry_after))]
    Overloaded { reason: String, retry_after: Duration },
    /// The store failed: whether it was done is unknown; repeating with the same id is safe.
    #[error("the store did not answer for certain ({0}): repeating with the same id is safe")]
    Unavailable(String),
    /// The saga cannot be read; it is quarantined.
    #[error("{0}")]
    DataLoss(String),
    /// The daemon is shutting down.
    #[error("the daemon is shutting down")]
    Stopping,
}

impl From<StoreError> for EngineError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Damaged { .. } => Self::DataLoss(error.to_string()),
            StoreError::TooLarge { .. } => Self::Precondition(error.to_string()),
            StoreError::Io { .. }
            | StoreError::SyncFailed { .. }
            | StoreError::Deposed { .. }
            | StoreError::Closed => Self::Unavailable(error.to_string()),
        }
    }
}

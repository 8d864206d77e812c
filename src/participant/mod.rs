//! The services that take part in sagas: who they are, where they are, and how they are called.
//!
//! ```text
//! Dispatch::call ─► dispatch ─► registry ─► roster (whose turn, which endpoint)
//!                      │
//!                      ├─► sagad    (the messages) ─► line (the connections of an endpoint)
//!                      └─► outcome  (what the answer means)
//! ```

pub mod dispatch;
pub mod handlers;
mod line;
pub mod listing;
pub mod outcome;
pub mod registry;
mod roster;
mod sagad;
mod stored;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::saga::ids::{DefinitionName, SagaId};
use crate::saga::input::{CallDuty, Reach};
use crate::saga::words::Outcome;

/// Everything that travels with one call.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Whose call it is.
    pub saga_id: SagaId,
    /// The saga's definition.
    pub definition: DefinitionName,
    /// The saga's labels.
    pub labels: Arc<BTreeMap<String, String>>,
    /// What is owed.
    pub duty: CallDuty,
    /// This call's idempotency key.
    pub key: String,
    /// The action's key; equal to `key` for the action itself.
    pub action_key: String,
    /// Completes the step later.
    pub token: String,
}

/// Calls participants. The only way a saga touches the world.
pub trait Dispatch: Reach + Send + Sync + 'static {
    /// Makes one call and says what is known after it. Never takes longer than the duty's timeout
    /// after the call was sent; dropping the future abandons the call.
    fn call(&self, outgoing: Outgoing) -> BoxFuture<'static, Outcome>;
}

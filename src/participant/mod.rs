//! The services that take part in sagas: who they are, where they are, and how they are called.
//!
//! ```text
//! Dispatch::call ─► dispatch ─► registry ─► roster (whose turn, which endpoint) ─► breaker
//!                      │
//!                      └─► client   (the endpoint, by its protocol)
//!                            ├─► sagad  (its messages) ────────┬─► line (HTTP/2) ─┬─► socket
//!                            ├─► grpc   (any unary method) ────┤                  │
//!                            ├─► http   (a JSON request) ──────┴─► pool (HTTP/1.1)┘
//!                            ├─► worker (a stream that the participant opened)
//!                            └─► outcome (what the answer means)
//! check ─► client          a conformance run, without registry or turns
//! ```

mod breaker;
pub mod check;
mod client;
pub mod dispatch;
pub mod grpc;
pub mod handlers;
mod http;
mod keys;
mod line;
pub mod listing;
pub mod outcome;
pub mod pause;
mod recent;
pub mod registry;
mod roster;
mod sagad;
mod socket;
mod stored;
pub mod targets;
mod turns;
mod wire;
pub mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::saga::ids::{DefinitionName, ParticipantName, SagaId};
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

/// A participant has more to do than it gets done: calls that wait for their turn with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// How many.
    pub calls_waiting: usize,
    /// For how long the first of them has waited, which is about how long a new one would.
    pub first_waits: Duration,
}

/// Calls participants. The only way a saga touches the world.
pub trait Dispatch: Reach + Send + Sync + 'static {
    /// Makes one call and says what is known after it. Never takes longer than the duty's timeout
    /// after the call was sent, or after a worker's last sign that it is at work on it; dropping the
    /// future abandons the call.
    fn call(&self, outgoing: Outgoing) -> BoxFuture<'static, Outcome>;

    /// The first of these participants that is behind with its calls, if any is. Asked before each
    /// start: costs next to nothing while none is.
    fn first_behind<'p>(&self, participants: &'p [ParticipantName])
    -> Option<(&'p ParticipantName, Backlog)>;

    /// Whether some participant lets only a few calls through, or none. While none does, whoever asks
    /// need not say what it is about to call.
    fn is_holding_back(&self) -> bool {
        false
    }

    /// A call of the participant was decided and follows behind its commit: one of the few that are
    /// let through is spoken for.
    fn expect_call(&self, participant: &ParticipantName) {
        let _ = participant;
    }
}

//! Why there is no answer. Every error is an unknown outcome to the daemon: answer it with a gRPC error
//! status such as ABORTED or INTERNAL, never with `refused`.

use crate::InvalidCall;

/// Why there is no answer. `S` is the database's error, `E` that of the participant's own code.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error<S, E> {
    /// The call cannot be one of the daemon's. A retry does not help.
    #[error(transparent)]
    Call(#[from] InvalidCall),
    /// The database failed. The transaction is rolled back, unless `operation` is `commit`: then it may
    /// have been committed. Either way a retry with the same key is safe and helps.
    #[error("the barrier could not {operation}: {source}; the same call may be made again")]
    Store {
        /// What was being done.
        operation: &'static str,
        /// Why it failed.
        source: S,
    },
    /// The participant's own code failed; what it wrote in the transaction is rolled back. A retry runs
    /// it again (outside the database: once the lease has passed, and after a look).
    #[error("{0}")]
    Effect(E),
    /// The key belongs to another saga or step. A retry does not help: two daemons without common state
    /// use one participant, or the fields were mixed up.
    #[error("key {action_key} belongs to step {step} of saga {saga_id}: was a field mixed up?")]
    KeyReused {
        /// The action's key.
        action_key: String,
        /// The saga that the key is stored with.
        saga_id: String,
        /// The step that the key is stored with.
        step: String,
    },
    /// An earlier call had an effect outside the database and did not report back. Make this call with
    /// the `…_outside` method, which can look.
    #[error(
        "key {action_key}: an earlier call outside the database never reported back; use the method that looks"
    )]
    NeedsLook {
        /// The action's key.
        action_key: String,
    },
    /// The effect took longer than the lease and somebody else settled the call meanwhile. Its answer is
    /// not stored. The call may be made again and gets the stored answer, but a person has to look: the
    /// effect may have happened twice, or behind its compensation. Let effects time out well before the
    /// lease ends.
    #[error(
        "key {action_key}: it took longer than the lease and another call settled it; look at the effect, and make the lease longer"
    )]
    Overtaken {
        /// The action's key.
        action_key: String,
    },
    /// The row holds what the barrier never writes. A retry does not help.
    #[error("key {action_key}: the stored row makes no sense ({why})")]
    Damaged {
        /// The action's key.
        action_key: String,
        /// What is wrong with it.
        why: String,
    },
}

//! The barrier: what a saga's participant puts around its work so that each effect and each undo
//! happens at most once, whatever the network does to the calls.
//!
//! Calls come twice, late, in the wrong order and at the same time. The barrier keeps one row for each
//! action in the participant's own database and answers by it:
//!
//! ```text
//! a call comes ─► was it here before? ── yes ─► the stored answer, byte for byte
//!                       │ no
//!                 is there nothing to act on? ── yes ─► an empty undo leaves a tombstone,
//!                       │ no                            an action behind it is turned away
//!                 the business check and the effect
//! ```
//!
//! The effect belongs in the participant's database: `act` and `undo` hand out the transaction that
//! also holds the row. For an effect outside of it (a mail, a bank) `act_outside` and `undo_outside`
//! commit the intent first; what that can and cannot promise is in `README.md`.
//!
//! [`postgres::Barrier`] and [`sqlite::Barrier`] are behind the features `postgres` and `sqlite`.

#![cfg_attr(
    not(any(feature = "postgres", feature = "sqlite")),
    allow(dead_code, reason = "what the databases have in common has no use without one")
)]

mod answer;
mod call;
mod error;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod rules;

#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "sqlite")]
pub mod sqlite;

pub use answer::{Answer, Look, Purged, Reply};
pub use call::{Action, Compensation, InvalidCall, Probe};
pub use error::Error;

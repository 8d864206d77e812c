//! The rules of a saga as a pure state machine: no clock, no randomness, no I/O, no async.
//!
//! ```text
//!             Input, now                       facts
//!  Saga ───► decide ───────► [Event] ───► apply ───► Saga'
//!                               │                      │
//!                          the journal             duties ───► calls owed, next wake-up
//! ```
//!
//! `decide` changes nothing and performs nothing; `apply` records one fact and is also what
//! replays a journal; `duties` says what is owed by a state, so that after a crash the same
//! line of code that settles any commit settles the recovered one.

pub mod apply;
#[cfg(test)]
mod costs;
pub mod decide;
pub mod definition;
pub mod duties;
pub mod event;
pub mod expr;
pub mod filter;
pub mod handlers;
pub mod ids;
pub mod input;
mod instance;
pub mod invariants;
pub mod json;
mod json_strict;
pub mod keys;
pub mod lineup;
pub mod locks;
pub mod plan;
pub mod ready;
pub mod retry;
pub mod room;
pub mod row;
#[cfg(test)]
mod sim;
pub mod state;
#[cfg(test)]
mod stories;
pub mod suggest;
pub mod tally;
pub mod view;
pub mod words;

//! `PROTOCOL_WORKER`: steps over a stream that the participant opened.
//!
//! ```text
//!  Dispatch::call ─► Client ─► Link ─► Outbound ─► worker
//!                                ▲                   │
//!                                └──── Session ◄─────┘
//! ```
//! A [`Link`] is what both directions of a stream have in common: the calls in flight, and what is
//! still to be written. [`Outbound`] is the daemon's side of the stream, polled by its connection; it
//! takes all that has come together into one message. A [`Session`](session::Session) reads the worker's
//! side, one task a stream. Calls put themselves into the link and wait for their answer there.
//!
//! A step belongs to its stream: when that ends, however it ends, the outcome of its steps is unknown
//! at once.

mod claim;
mod link;
mod session;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

pub use claim::WorkerClaim;
pub(super) use link::Link;
pub use link::Outbound;
pub use session::Seat;

use super::Outgoing;
use super::handlers::{Endpoint, MAX_IN_FLIGHT_MAX};
use super::outcome::{Answer, MESSAGE_MAX_CHARS, NoOutcome, no_answer_within, outcome};
use crate::saga::ids::Timestamp;
use crate::saga::words::{Outcome, Phase};
use link::{Patience, Said};

/// However often a worker says that it is still at work on a step: the step's outcome is unknown after
/// this, or after the step's own timeout where that is longer. `pending` is for longer work.
pub const WORK_MAX: Duration = Duration::from_hours(1);
/// Outcomes or heartbeats in one message, at most.
pub const ENTRIES_MAX: usize = MAX_IN_FLIGHT_MAX as usize;
/// Steps are put into one message up to this size, in bytes; a larger one goes by itself.
const BATCH_MAX_BYTES: usize = 1024 * 1024;

/// When a stream is looked after.
#[derive(Debug, Clone, Copy)]
pub(super) struct Habits {
    /// The time between two looks at whether the worker has said anything.
    pub(super) look_every: Duration,
    /// After so many looks without a word it is gone. It is asked for a sign of life at each before.
    pub(super) looks_max: u32,
    /// Messages between two looks that settle no step, at most.
    pub(super) idle_messages_max: u32,
    /// Time for outcomes to come in when the daemon stops.
    pub(super) grace: Duration,
}

impl Habits {
    /// The longest time without a word.
    pub(super) fn silence_max(&self) -> Duration {
        self.look_every * self.looks_max
    }
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            look_every: Duration::from_secs(5),
            looks_max: 3,
            idle_messages_max: 5_000,
            grace: Duration::from_secs(2),
        }
    }
}

/// One worker's stream, for calls.
#[derive(Debug)]
pub(super) struct Client {
    link: Arc<Link>,
}

impl Client {
    /// Calls over the stream that `link` belongs to.
    pub(super) fn over(link: Arc<Link>) -> Self {
        Self { link }
    }

    /// A stream that has ended.
    pub(super) fn gone(endpoint: &Endpoint) -> Self {
        Self { link: Link::ended(endpoint) }
    }

    /// Makes the call and says what is known after it. Ends when the step's timeout has passed since it
    /// was sent or since the worker's last heartbeat for it.
    pub(super) async fn call(&self, outgoing: Outgoing, now: Timestamp) -> Outcome {
        let (phase, timeout) = (outgoing.duty.phase, outgoing.duty.timeout);
        let mut placed = match self.link.place(outgoing, now) {
            Ok(placed) => placed,
            Err(outcome) => return outcome,
        };
        let mut patience = timeout;
        loop {
            if let Ok(said) = tokio::time::timeout(patience, &mut placed.answer).await {
                let lost = || Said::Lost("the worker's stream was dropped".to_owned());
                return meaning(phase, said.unwrap_or_else(|_| lost()));
            }
            match self.link.patience(placed.call_id, timeout) {
                Patience::Left(left) => patience = left,
                Patience::NeverSent => {
                    let within = humantime::format_duration(timeout);
                    // It costs budget all the same: a worker that never reads must come to an end.
                    return Outcome::Unknown(format!("not sent within {within}: the worker does not read"));
                }
                Patience::Silent => return no_answer_within(timeout),
                Patience::TooLong(max) => return no_answer_within(max),
            }
        }
    }
}

/// What an end means for a call of this phase.
fn meaning(phase: Phase, said: Said) -> Outcome {
    match said {
        Said::Answer(Answer::Nothing, error) if !error.trim().is_empty() => {
            Outcome::Unknown(error.chars().take(MESSAGE_MAX_CHARS).collect())
        }
        Said::Answer(answer, _) => outcome(phase, Ok(answer)),
        Said::Unimplemented => {
            let message = "the worker has no such call".to_owned();
            outcome(phase, Err(NoOutcome::Status(tonic::Code::Unimplemented, message)))
        }
        Said::Lost(cause) => Outcome::Unknown(cause),
        Said::Unsent(cause) => Outcome::Unsent(cause),
    }
}

//! A conformance run against a service: does it keep what sagas need of a participant?
//!
//! ```text
//! Plan ─► run ─┬─► forward   repeats, twins, an abandoned call, refusals, garbage
//!              └─► backward  undo, undo of nothing, late actions
//!                    └─► subject: one call as the daemon makes it (client, route, keys)
//! ```
//!
//! Every call goes through the same clients and tables as a saga's, so a finding speaks of what a saga
//! would have seen. The effects are real. What is asked for by a case is undone by it where there is a
//! compensation.

mod backward;
mod forward;
mod subject;

use std::time::Duration;

use super::handlers::Handlers;
use crate::clock::SharedClock;
use crate::saga::ids::{ActionName, SagaId};
use crate::saga::json::Json;
use subject::Subject;

/// What is tried out, and with what.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The service, as it would be registered; offers the two actions.
    pub handlers: Handlers,
    /// The action.
    pub action: ActionName,
    /// What undoes it, if anything does.
    pub compensation: Option<ActionName>,
    /// An input with which the action has its effect.
    pub input: Json,
    /// The compensation's input; `None`: the action's.
    pub compensation_input: Option<Json>,
    /// An input that the action must refuse.
    pub refused_input: Option<Json>,
    /// How long one call may take.
    pub timeout: Duration,
    /// How long a call may be repeated that is pending or not answered for certain.
    pub patience: Duration,
    /// Whose calls they are: one that no other run has.
    pub saga_id: SagaId,
}

/// How a case ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As it must be.
    Passed,
    /// Not as it must be.
    Failed,
    /// It could not be tried.
    NotTested,
}

/// A call, and what is known after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// What was asked.
    pub sent: String,
    /// The outcome as a saga would read it.
    pub got: String,
}

/// One case and its end.
#[derive(Debug, Clone)]
pub struct Finding {
    /// For programs; never changes.
    pub name: &'static str,
    /// What must hold.
    pub rule: &'static str,
    /// Whether it does.
    pub verdict: Verdict,
    /// The calls of the case, in their order.
    pub exchanges: Vec<Exchange>,
    /// What is wrong, or why it was not tried; empty when all is well.
    pub problem: String,
    /// What it leads to in a saga.
    pub why: &'static str,
    /// What to do about it; empty when there is nothing to do.
    pub remedy: String,
}

/// What a case must show, and why.
#[derive(Debug, Clone, Copy)]
struct Case {
    name: &'static str,
    rule: &'static str,
    why: &'static str,
}

/// What a case came to.
enum Ended {
    Well,
    Badly { problem: String, remedy: String },
    Untried(String),
}

impl Ended {
    fn badly(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Badly { problem: problem.into(), remedy: remedy.into() }
    }
}

/// Tries out everything, and tells each finding as soon as it is there.
pub async fn run(plan: Plan, clock: SharedClock, mut tell: impl FnMut(Finding)) {
    let mut subject = Subject::new(plan, clock);
    let settled = forward::does_its_work(&mut subject).await;
    tell(subject.finding(forward::WORKS, settled));
    macro_rules! each {
        ($($room:ident::$case:ident as $name:ident),* $(,)?) => {$(
            let ended = if subject.works() {
                $room::$case(&mut subject).await
            } else {
                Ended::Untried("the action has no effect with this input".to_owned())
            };
            tell(subject.finding($room::$name, ended));
        )*};
    }
    each!(
        forward::answers_again as REPEATED,
        forward::knows_its_work as PROBED,
        forward::works_once_for_many as AT_ONCE,
        forward::takes_up_what_was_abandoned as ABANDONED,
        backward::undoes as UNDONE,
        backward::undoes_again as UNDONE_AGAIN,
        backward::undoes_nothing as EMPTY,
        backward::refuses_what_is_late as LATE,
        forward::refuses as REFUSED,
        backward::undoes_a_refusal as REFUSED_UNDONE,
        forward::survives_garbage as GARBAGE,
    );
    let left = backward::clean_up(&mut subject).await;
    tell(subject.finding(backward::CLEAN, left));
    subject.stop();
}

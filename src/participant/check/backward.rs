//! The cases of the way back: what was done is undone once, and what comes late has no effect.

use super::forward::{FIRST, REFUSED_STEP, STAYED_PENDING};
use super::subject::{Subject, told};
use super::{Case, Ended};
use crate::participant::handlers::Protocol;
use crate::saga::words::Outcome;

/// The step that is undone before it was ever done.
const NOTHING: &str = "undo-nothing";

const NO_COMPENSATION: &str = "name what undoes the action with --compensation";

fn untried() -> Ended {
    Ended::Untried(NO_COMPENSATION.to_owned())
}

/// The end of a case in which an undo must be done.
fn must_be_done(outcome: Option<Outcome>, remedy: impl Into<String>) -> Ended {
    match outcome {
        None => untried(),
        Some(Outcome::Done(_)) => Ended::Well,
        Some(Outcome::Pending(_)) => Ended::Untried(STAYED_PENDING.to_owned()),
        Some(outcome) => Ended::badly(format!("it was {}", told(&outcome)), remedy),
    }
}

pub(super) const UNDONE: Case = Case {
    name: "undone",
    rule: "the compensation of what was done is done",
    why: "a compensation that is refused stops the saga until an operator has looked at it",
};

pub(super) async fn undoes(subject: &mut Subject) -> Ended {
    let outcome = subject.undo(FIRST).await;
    must_be_done(
        outcome,
        "find the effect by the action's key, which every compensation carries, and undo it",
    )
}

pub(super) const UNDONE_AGAIN: Case = Case {
    name: "undone-again",
    rule: "the compensation repeated is done again",
    why: "its answer can be lost like any other; the next attempt must not be refused, nor undo twice",
};

pub(super) async fn undoes_again(subject: &mut Subject) -> Ended {
    let outcome = subject.undo(FIRST).await;
    must_be_done(outcome, "answer done when the effect is undone already")
}

pub(super) const EMPTY: Case = Case {
    name: "undo-nothing",
    rule: "the compensation of an action that never arrived is done",
    why: "after a timeout nobody knows whether the action arrived, so it is undone either way",
};

pub(super) async fn undoes_nothing(subject: &mut Subject) -> Ended {
    let outcome = subject.undo(NOTHING).await;
    let remedy = match subject.protocol() {
        Protocol::Sagad | Protocol::Worker => {
            "answer done, and remember the action's key as one that is refused from now on"
        }
        Protocol::Grpc | Protocol::Http => {
            "answer as if it was undone, and remember the action's key as one that is refused from now on; or name \
             the status in --done-on"
        }
    };
    must_be_done(outcome, remedy)
}

pub(super) const LATE: Case = Case {
    name: "late",
    rule: "an action that arrives after its compensation is refused",
    why: "a message can be held up in the network for minutes: what it does then nobody will ever undo",
};

pub(super) async fn refuses_what_is_late(subject: &mut Subject) -> Ended {
    if subject.plan.compensation.is_none() {
        return untried();
    }
    let input = subject.plan.input.clone();
    let remedy = match subject.protocol() {
        Protocol::Sagad | Protocol::Worker => {
            "keep the key of an action that was undone before it came, and answer `superseded` (or `refused`) to it"
        }
        Protocol::Http => {
            "keep the key of an action that was undone before it came, and refuse it, with 410 for example"
        }
        Protocol::Grpc => {
            "keep the key of an action that was undone before it came, and refuse it, with FAILED_PRECONDITION for \
             example"
        }
    };
    match subject.settle(NOTHING, &input).await {
        Outcome::Refused(_) => match subject.probe(NOTHING).await {
            Outcome::Refused(_) | Outcome::Unsupported => Ended::Well,
            outcome => Ended::badly(
                format!("it was refused, but a probe of it was {}", told(&outcome)),
                "a probe of what was undone before it came is refused",
            ),
        },
        Outcome::Done(_) => Ended::badly("it was done after it had been undone", remedy),
        outcome => Ended::badly(format!("it was {}", told(&outcome)), remedy),
    }
}

pub(super) const REFUSED_UNDONE: Case = Case {
    name: "undo-refused",
    rule: "the compensation of what was refused is done",
    why: "when an earlier attempt had no answer, a refused action is undone too: the earlier one may have worked",
};

pub(super) async fn undoes_a_refusal(subject: &mut Subject) -> Ended {
    let Some(input) = subject.plan.refused_input.clone() else {
        return Ended::Untried("name an input that must be refused with --refused-input".to_owned());
    };
    if !matches!(subject.act(REFUSED_STEP, &input).await, Outcome::Refused(_)) {
        return Ended::Untried("the action was not refused".to_owned());
    }
    let outcome = subject.undo(REFUSED_STEP).await;
    must_be_done(outcome, "answer done when there is nothing to undo")
}

pub(super) const CLEAN: Case =
    Case { name: "clean-up", rule: "what this run did is undone", why: "the run makes real effects" };

pub(super) async fn clean_up(subject: &mut Subject) -> Ended {
    let mut left = Vec::new();
    for step in subject.with_effect() {
        if !matches!(subject.undo(step).await, Some(Outcome::Done(_))) {
            left.push(step);
        }
    }
    if left.is_empty() {
        return Ended::Well;
    }
    let (saga, left) = (&subject.plan.saga_id, left.join(", "));
    let problem = format!("of saga {saga} these steps may have left their effect behind: {left}");
    if subject.plan.compensation.is_none() || !subject.works() {
        return Ended::Untried(format!("{problem}; look after them by hand"));
    }
    Ended::badly(problem, "undo them by hand")
}

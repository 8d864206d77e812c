//! The cases of the way forward: one effect under one key, whatever happens on the way.

use std::time::Duration;

use super::subject::{Subject, told};
use super::{Case, Ended};
use crate::clock::Stopwatch;
use crate::participant::handlers::Protocol;
use crate::saga::ids::ActionName;
use crate::saga::json::Json;
use crate::saga::words::Outcome;
use crate::saga::words::codes::INPUT_MISMATCH;

/// Calls that come at once under one key.
const TWINS: usize = 8;
/// The shortest time after which a call is abandoned.
const ABANDON_MIN: Duration = Duration::from_millis(1);
/// An action that no service has.
const NO_ACTION: &str = "no-such-action-sagactl-check";
/// The step whose effect the first cases look at.
pub(super) const FIRST: &str = "works";
/// The step that is refused.
pub(super) const REFUSED_STEP: &str = "refused";

pub(super) const STAYED_PENDING: &str =
    "it stayed pending; name a longer --patience, or an action that is done sooner";
const STORE_THE_ANSWER: &str = "store the answer under the key in the same transaction as the effect, and give it to every \
     later call with this key before anything else is looked at";

pub(super) const WORKS: Case = Case {
    name: "works",
    rule: "the action is done with the valid input",
    why: "nothing else can be tried while this is not so",
};

pub(super) async fn does_its_work(subject: &mut Subject) -> Ended {
    let input = subject.plan.input.clone();
    match subject.settle(FIRST, &input).await {
        Outcome::Done(_) => {
            subject.it_works();
            Ended::Well
        }
        Outcome::Pending(_) => Ended::Untried(STAYED_PENDING.to_owned()),
        refused @ Outcome::Refused(_) => {
            Ended::badly(format!("it was {}", told(&refused)), "give an --input that the service accepts")
        }
        outcome => Ended::badly(
            format!("it was {}", told(&outcome)),
            "see that the service runs there, and look at --protocol and target: done is 2xx over HTTP, OK over \
             gRPC and `done` in a response of sagad's own protocol",
        ),
    }
}

pub(super) const REPEATED: Case = Case {
    name: "repeated",
    rule: "the same key again gives the same answer",
    why: "a lost answer is asked for again under the same key: another answer is a second effect, or a saga \
          that is undone although its work was done",
};

pub(super) async fn answers_again(subject: &mut Subject) -> Ended {
    let input = subject.plan.input.clone();
    let first = subject.settle(FIRST, &input).await;
    let again = subject.act(FIRST, &input).await;
    same(&[first, again])
}

/// All are done with one output.
fn same(outcomes: &[Outcome]) -> Ended {
    let differs = outcomes.iter().find(|outcome| **outcome != outcomes[0] || !is_done(outcome));
    match differs {
        None => Ended::Well,
        Some(Outcome::Done(_)) => Ended::badly(
            "two calls with one key were done with different outputs: it looks as if the effect happened twice",
            STORE_THE_ANSWER,
        ),
        Some(Outcome::Pending(_)) => Ended::Untried(STAYED_PENDING.to_owned()),
        Some(other) => {
            Ended::badly(format!("a call whose key was done already was {}", told(other)), STORE_THE_ANSWER)
        }
    }
}

fn is_done(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Done(_))
}

pub(super) const PROBED: Case = Case {
    name: "probed",
    rule: "a probe finds the effect",
    why: "a probe that does not see what is there has a pivot taken for refused",
};

pub(super) async fn knows_its_work(subject: &mut Subject) -> Ended {
    match subject.probe(FIRST).await {
        Outcome::Done(_) => Ended::Well,
        Outcome::Unsupported => Ended::Untried("the service has no probe of its own".to_owned()),
        outcome => Ended::badly(
            format!("the effect is there, and the probe was {}", told(&outcome)),
            "look the effect up by the action's key and answer done with its output",
        ),
    }
}

pub(super) const AT_ONCE: Case = Case {
    name: "at-once",
    rule: "many calls with one key at once have one effect and one answer",
    why: "after a crash or a lost connection the next attempt may arrive while the one before is still at work",
};

pub(super) async fn works_once_for_many(subject: &mut Subject) -> Ended {
    const STEP: &str = "at-once";
    let input = subject.plan.input.clone();
    let mut outcomes = subject.act_at_once(STEP, &input, TWINS).await;
    // "Still at work" is a fair answer to a twin; in the end all must agree.
    outcomes.retain(|outcome| !matches!(outcome, Outcome::Pending(_) | Outcome::Unknown(_)));
    outcomes.push(subject.settle(STEP, &input).await);
    same(&outcomes)
}

pub(super) const ABANDONED: Case = Case {
    name: "abandoned",
    rule: "a call that was abandoned does not keep its key from the next attempt",
    why: "a timeout cuts calls off in the middle; a key that stays \"in progress\" for good can only be undone",
};

pub(super) async fn takes_up_what_was_abandoned(subject: &mut Subject) -> Ended {
    const STEP: &str = "abandoned";
    let input = subject.plan.input.clone();
    let watch = Stopwatch::start();
    subject.act(FIRST, &input).await;
    let patience = (watch.elapsed() / 2).max(ABANDON_MIN);
    let hung_up = subject.act_and_abandon(STEP, &input, patience).await.is_none();
    let first = subject.settle(STEP, &input).await;
    if let Outcome::Unknown(cause) = &first {
        return Ended::badly(
            format!("after an attempt that was cut off the key never got an answer: {cause}"),
            "do the work and store the answer in one transaction, so that work cut off leaves nothing behind; a \
             mark \"in progress\" needs a time after which it counts no more",
        );
    }
    let again = subject.act(STEP, &input).await;
    match same(&[first, again]) {
        Ended::Well if !hung_up => Ended::Untried("it answered before it could be cut off".to_owned()),
        ended => ended,
    }
}

pub(super) const REFUSED: Case = Case {
    name: "refused",
    rule: "what must be refused is refused for certain, and again under the same key",
    why: "an error status is not a refusal: the saga would try again until its budget is spent",
};

pub(super) async fn refuses(subject: &mut Subject) -> Ended {
    let Some(input) = subject.plan.refused_input.clone() else {
        return Ended::Untried("name an input that must be refused with --refused-input".to_owned());
    };
    let first = subject.settle(REFUSED_STEP, &input).await;
    let again = subject.act(REFUSED_STEP, &input).await;
    let remedy = match subject.protocol() {
        Protocol::Http => "answer with 400, 404, 410, 412 or 422, or name the status in --refused-on",
        Protocol::Grpc => {
            "answer with INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION or OUT_OF_RANGE, or name the status in \
             --refused-on"
        }
        Protocol::Sagad | Protocol::Worker => "answer with the outcome `refused` in an OK response",
    };
    match (&first, &again) {
        (Outcome::Refused(one), Outcome::Refused(_)) if one.code == INPUT_MISMATCH => {
            Ended::Untried("the input does not fit the target's path, so nothing was sent".to_owned())
        }
        (Outcome::Refused(one), Outcome::Refused(two)) if one.code == two.code => Ended::Well,
        (Outcome::Refused(_), other) => Ended::badly(
            format!("it was refused, and then the same key was {}", told(other)),
            "store refusals under the key like any other answer",
        ),
        (Outcome::Done(_), _) => Ended::badly(
            "it was done",
            "check the input before anything is changed, or give a --refused-input that must be refused",
        ),
        (other, _) => Ended::badly(format!("it was {}", told(other)), remedy),
    }
}

pub(super) const GARBAGE: Case = Case {
    name: "garbage",
    rule: "garbage is not done, and the service answers as before after it",
    why: "a definition with a mistake sends what the service does not expect; that must cost nobody else anything",
};

pub(super) async fn survives_garbage(subject: &mut Subject) -> Ended {
    const REMEDY: &str =
        "check what arrives before it is used: its syntax, its fields, its types, the action's name";
    let broken = format!("{}{{", subject.plan.input.text());
    let garbage = [
        ("garbage-text", Json::trusted(broken), "a body that is no JSON"),
        ("garbage-empty", Json::trusted("{}".to_owned()), "an input without fields"),
    ];
    let mut has_arrived = false;
    for (step, input, what) in garbage {
        let outcome = subject.act(step, &input).await;
        has_arrived |= !matches!(&outcome, Outcome::Refused(refusal) if refusal.code == INPUT_MISMATCH);
        if is_done(&outcome) && step == "garbage-text" {
            return Ended::badly(format!("{what} was {}", told(&outcome)), REMEDY);
        }
    }
    if subject.protocol() == Protocol::Sagad {
        let nobodys = ActionName::parse(NO_ACTION).expect("a good name");
        let input = subject.plan.input.clone();
        let outcome = subject.act_as("garbage-action", &nobodys, &input).await;
        if is_done(&outcome) {
            return Ended::badly(format!("an action of which it cannot know was {}", told(&outcome)), REMEDY);
        }
    }
    let input = subject.plan.input.clone();
    match subject.settle("after-garbage", &input).await {
        Outcome::Done(_) if has_arrived => Ended::Well,
        Outcome::Done(_) => {
            Ended::Untried("garbage does not fit the target's path, so none was sent".to_owned())
        }
        outcome => Ended::badly(
            format!("after the garbage a good call was {}", told(&outcome)),
            "a bad request must not take the service down with it",
        ),
    }
}

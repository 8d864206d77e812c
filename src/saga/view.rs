//! What people see of a saga beyond its state: what it waits for, what comes next, what to do.

use super::definition::Step;
use super::duties::{Absent, Duties, duties, waits};
use super::ids::{InstanceRef, LockKey, ParticipantName, StepIx, Timestamp};
use super::input::{Obstacle, Reach};
use super::room::JournalLimit;
use super::state::{Action, Compensation, Instance, Saga, Stage, StepState};
use super::words::{Direction, Phase, StepKind};

/// What a saga waits for that is neither a call nor a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitingOn {
    /// A participant that cannot be called: it has no live handler, fails, or is paused.
    Participant(ParticipantName),
    /// A lock that another saga holds.
    Lock(LockKey),
}

/// A call that would follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedCall {
    /// The step instance's name.
    pub step: String,
    /// Which of its calls.
    pub phase: Phase,
    /// Who would be called.
    pub participant: String,
    /// What would be asked.
    pub action: String,
    /// When and why, for people.
    pub note: String,
}

/// Why a saga stands where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Sentences for people.
    pub lines: Vec<String>,
    /// What comes next by itself.
    pub next: Vec<NextMove>,
    /// What an operator would type; `None` when nothing needs one.
    pub suggested_command: Option<String>,
}

/// Something that comes by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextMove {
    /// What it is, for people.
    pub what: String,
    /// The step instance's name; empty for the saga as a whole.
    pub step: String,
    /// Which of its calls, if any.
    pub phase: Option<Phase>,
    /// When; `None` for "when it happens" (an answer, a participant coming back).
    pub at: Option<Timestamp>,
}

/// What `saga` waits for beside calls and times. The key of a lock is the first of its keys; who
/// keeps the lock table knows better.
#[must_use]
pub fn waiting_on(saga: &Saga, reach: &dyn Reach) -> Option<WaitingOn> {
    if let Stage::AwaitingLocks { .. } = saga.stage {
        return saga.locks.first().cloned().map(WaitingOn::Lock);
    }
    waits(saga, reach).parked.into_iter().next().map(|absent| WaitingOn::Participant(absent.participant))
}

/// The calls that follow if everything that is asked is done, in an order the saga may take.
#[must_use]
pub fn plan(saga: &Saga) -> Vec<PlannedCall> {
    let order = saga.definition.plan.order();
    match (saga.is_terminal(), saga.direction()) {
        (true, _) => Vec::new(),
        (false, Direction::Forward) => order.iter().flat_map(|&ix| planned_actions(saga, ix)).collect(),
        (false, Direction::Backward) => order.iter().rev().flat_map(|&ix| planned_undos(saga, ix)).collect(),
    }
}

fn planned_actions(saga: &Saga, ix: StepIx) -> Vec<PlannedCall> {
    let step = saga.definition.step(ix);
    let planned = |name: String, note: &str| PlannedCall {
        step: name,
        phase: Phase::Action,
        participant: step.action.participant.to_string(),
        action: step.action.action.to_string(),
        note: note.to_owned(),
    };
    match &saga.steps[ix.at()] {
        StepState::Skipped => Vec::new(),
        StepState::Unexpanded => vec![planned(step.name.to_string(), "once for each item")],
        StepState::One(_) | StepState::Many(..) => {
            let instances = saga.steps[ix.at()].each(ix);
            let noted = instances.filter_map(|(at, instance)| Some((at, action_note(instance)?)));
            noted.map(|(at, note)| planned(saga.name_of(at), note)).collect()
        }
    }
}

fn action_note(instance: &Instance) -> Option<&'static str> {
    match &instance.action {
        Action::Pending => Some("when what it depends on is done"),
        Action::Running => Some("in flight"),
        Action::Probing { .. } => Some("being probed"),
        Action::Backoff { .. } => Some("a further attempt"),
        Action::Awaiting { .. } => Some("the participant is still working"),
        Action::Blocked { .. } => Some("waits for an operator"),
        Action::Succeeded { .. } | Action::Refused { .. } | Action::Unknown { .. } | Action::Skipped => None,
    }
}

fn planned_undos(saga: &Saga, ix: StepIx) -> Vec<PlannedCall> {
    let step = saga.definition.step(ix);
    let Some(call) = &step.compensation else { return Vec::new() };
    let instances = saga.steps[ix.at()].each(ix);
    let noted = instances.filter_map(|(at, instance)| Some((at, undo_note(instance, step)?)));
    noted
        .map(|(at, note)| PlannedCall {
            step: saga.name_of(at),
            phase: Phase::Compensation,
            participant: call.participant.to_string(),
            action: call.action.to_string(),
            note: note.to_owned(),
        })
        .collect()
}

fn undo_note(instance: &Instance, step: &Step) -> Option<&'static str> {
    match &instance.compensation {
        Compensation::Idle if instance.is_in_flight() => {
            Some("if the call in flight has or may have an effect")
        }
        Compensation::Idle if instance.owes_compensation(step) => Some("when what depends on it is settled"),
        Compensation::Running => Some("in flight"),
        Compensation::Backoff { .. } => Some("a further attempt"),
        Compensation::Awaiting { .. } => Some("the participant is still working"),
        Compensation::Blocked { .. } => Some("waits for an operator"),
        Compensation::Idle | Compensation::Done | Compensation::Waived => None,
    }
}

/// Why `saga` stands where it stands, what comes next, and what an operator would type.
#[must_use]
pub fn explain(saga: &Saga, reach: &dyn Reach, limit: JournalLimit) -> Explanation {
    let mut lines = vec![headline(saga)];
    if let Some(failure) = &saga.failure {
        let whose = if failure.step.is_empty() { "the saga" } else { &failure.step };
        lines.push(format!("First cause: {whose}: {}: {}", failure.code, failure.message));
    }
    for block in saga.blocks() {
        lines.push(format!("Blocked: the {} of {}: {}", block.phase.as_str(), block.step, block.reason));
    }
    if saga.paused.is_some() {
        lines.push("Paused by an operator: no new call is started.".to_owned());
    }
    if saga.uncertain {
        lines.push("Uncertain: something about it was asserted without proof, or came too late.".to_owned());
    }
    if !saga.is_terminal() && !limit.is_roomy(saga) {
        let (used, limit) = (saga.journal_bytes, limit.bytes());
        lines.push(format!(
            "Too large: {used} of {limit} bytes are used. What it has no room for is not tried again; \
             it can be abandoned at any time."
        ));
    }
    let owed = duties(saga, reach);
    let mut next = next_moves(saga, &owed);
    let mut command = suggested_command(saga, limit);
    for Absent { participant, action } in &owed.waits.parked {
        let why = match reach.obstacle(participant, action) {
            Obstacle::NoHandler => format!("it has no live handler for {action}"),
            Obstacle::Paused { by, reason } => {
                command.get_or_insert_with(|| {
                    format!("sagactl participant resume {participant} --reason \"…\"")
                });
                format!("{by} has paused it ({reason})")
            }
            Obstacle::Failing { next_trial } => {
                command.get_or_insert_with(|| format!("sagactl participant list {participant}"));
                next.push(NextMove {
                    what: format!("a trial call of participant {participant}, by a saga that waits for it"),
                    step: String::new(),
                    phase: None,
                    at: next_trial,
                });
                "it failed the latest calls, so they are held back and cost no attempts".to_owned()
            }
            Obstacle::LongLine => "too many calls wait for it already".to_owned(),
        };
        lines.push(format!("Waiting for participant {participant}: {why}."));
    }
    Explanation { lines, next, suggested_command: command }
}

fn headline(saga: &Saga) -> String {
    let what = match saga.stage {
        Stage::AwaitingLocks { .. } => "waits for its locks; nothing was called yet",
        Stage::Forward => "is going forward",
        Stage::Committed => "is committed; side work remains",
        Stage::Backward => "is undoing what ran",
        Stage::Completed => "is done",
        Stage::Compensated => "is undone",
        Stage::Abandoned => "was abandoned by an operator",
    };
    format!("Saga {} ({} version {}) {what}.", saga.id, saga.definition.name, saga.definition.version)
}

fn next_moves(saga: &Saga, owed: &Duties) -> Vec<NextMove> {
    let mut next: Vec<NextMove> = owed
        .calls
        .iter()
        .map(|call| NextMove {
            what: format!("the answer of {}.{}, attempt {}", call.participant, call.action, call.attempt),
            step: call.step.clone(),
            phase: Some(call.phase),
            at: None,
        })
        .collect();
    for (at, instance) in saga.each_instance() {
        let action_at = match &instance.action {
            Action::Backoff { next_at, .. } => Some(("the next attempt", *next_at)),
            Action::Awaiting { check_at } => Some(("the next look at the pending call", *check_at)),
            _ => None,
        };
        let undo_at = match &instance.compensation {
            Compensation::Backoff { next_at: due, .. } => Some(("the next attempt", *due)),
            Compensation::Awaiting { check_at } => Some(("the next look at the pending call", *check_at)),
            _ => None,
        };
        let dated = [(Phase::Action, action_at), (Phase::Compensation, undo_at)];
        for (phase, (what, when)) in dated.into_iter().filter_map(|(phase, due)| Some((phase, due?))) {
            let step = saga.name_of(at);
            next.push(NextMove { what: what.to_owned(), step, phase: Some(phase), at: Some(when) });
        }
    }
    let limit = match saga.stage {
        Stage::AwaitingLocks { until } => Some(("it gives up waiting for its locks", until)),
        Stage::Forward => saga.deadline.map(|deadline| ("its deadline", deadline)),
        _ => None,
    };
    if let Some((what, at)) = limit {
        next.push(NextMove { what: what.to_owned(), step: String::new(), phase: None, at: Some(at) });
    }
    next
}

/// What an operator would type; `None` when nothing needs one.
#[must_use]
pub fn suggested_command(saga: &Saga, limit: JournalLimit) -> Option<String> {
    let id = &saga.id;
    if saga.paused.is_some() && !saga.is_terminal() {
        return Some(format!("sagactl resume {id} --reason \"…\""));
    }
    let block = saga.blocks().into_iter().next()?;
    let (act, settled_as) = match saga.instance_named(&block.step) {
        Some(at) if !limit.is_roomy(saga) => without_another_attempt(saga, at, block.phase),
        Some(_) | None => ("retry", ""),
    };
    Some(format!("sagactl {act} {id} {}{settled_as} --reason \"…\"", block.step))
}

/// How a block is lifted in a saga that is too large to try again. What was found out is left for
/// the operator to fill in: as it stands the command is refused.
fn without_another_attempt(saga: &Saga, at: InstanceRef, phase: Phase) -> (&'static str, &'static str) {
    if phase != Phase::Compensation && saga.step(at).kind == StepKind::Retriable {
        ("skip", "")
    } else {
        ("resolve", " --as FINDING")
    }
}

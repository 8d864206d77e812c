//! The point of no return.

use super::*;

#[test]
fn a_refused_pivot_turns_the_saga_back() {
    check(
        vec![undoable("a", &[]), pivot(&[0])],
        "start        => call a 1
         done a       => a done; call pivot 1
         refuse pivot => pivot refused NO; COMPENSATING NO; undo a 1",
    );
}

#[test]
fn an_unknown_pivot_is_probed_then_blocks_and_is_never_compensated() {
    check(
        vec![undoable("a", &[]), pivot(&[0])],
        "start        => call a 1
         done a       => a done; call pivot 1
         cancel       => no: not now
         lose pivot   => pivot unknown, again in 100ms
         wake         => call pivot 2
         lose pivot   => pivot unknown; probe pivot 1
         unsupported probe pivot => pivot has no probe; pivot blocked
         cancel       => no: not now
         skip pivot   => no: not now
         retry pivot  => act; pivot unblocked; call pivot 3
         done pivot 1 => pivot done; COMMITTED; COMPLETED",
    );
}

#[test]
fn a_pivot_refused_after_an_unknown_attempt_is_asked_for_certain() {
    let until_the_probe = "start        => call a 1
         done a       => a done; call pivot 1
         lose pivot   => pivot unknown, again in 100ms
         wake         => call pivot 2
         refuse pivot => pivot refused NO, again in 0ms; probe pivot 1
         refuse pivot => -\n";
    let steps = || vec![undoable("a", &[]), pivot(&[0])];
    let endings = [
        "refuse probe pivot => pivot refused NO; COMPENSATING NO; undo a 1",
        "done probe pivot   => pivot done; COMMITTED; COMPLETED",
        "lose probe pivot   => pivot blocked
         token refuse pivot => -
         resolve pivot failed => act; pivot unblocked; pivot refused OPERATOR; COMPENSATING OPERATOR; undo a 1
         done undo a        => a undone; COMPENSATED
         status             => COMPENSATED OPERATOR, uncertain",
        "done pivot 1       => pivot done; COMMITTED; COMPLETED",
    ];
    for ending in endings {
        check(steps(), &format!("{until_the_probe}{ending}"));
    }
}

#[test]
fn a_pivot_that_stays_pending_is_asked_once_more_and_then_blocks() {
    check(
        vec![pivot(&[]).with(|step| step.pending.max = Duration::from_millis(500))],
        "start             => call pivot 1
         delay pivot       => pivot pending, look in 500ms
         wake              => pivot unknown; probe pivot 1
         delay probe pivot => pivot blocked
         done pivot        => pivot unblocked; pivot done; COMMITTED; COMPLETED",
    );
}

#[test]
fn a_deadline_behind_the_pivots_call_is_ignored() {
    let mut blueprint = Blueprint::new(vec![undoable("a", &[]), pivot(&[0])]);
    blueprint.deadline = Some(Duration::from_secs(1));
    check_with(
        &blueprint,
        "",
        "start       => call a 1
         done a      => a done; call pivot 1
         wait 2000ms => -
         lose pivot  => pivot unknown, again in 100ms
         wake        => call pivot 2
         done pivot  => pivot done; COMMITTED; COMPLETED",
    );
}

#[test]
fn a_last_question_that_was_never_sent_is_not_taken_for_its_answer() {
    check(
        vec![pivot(&[]).with(|step| step.attempts = 1)],
        "start      => call pivot 1
         lose pivot => pivot unknown; probe pivot 1
         unsent probe pivot => pivot unknown, again in 0ms; call pivot 2
         lose pivot => pivot unknown; probe pivot 2
         lose probe pivot => pivot blocked",
    );
}

#[test]
fn a_last_question_lost_in_a_crash_is_not_taken_for_its_answer() {
    check(
        vec![pivot(&[]).with(|step| step.attempts = 1)],
        "start      => call pivot 1
         lose pivot => pivot unknown; probe pivot 1
         away       => -
         crash      => pivot unknown, again in 0ms
         back       => call pivot 2
         done pivot => pivot done; COMMITTED; COMPLETED",
    );
}

//! Sagas that grow too large: what is not begun any more, and how they still end.

use super::*;

/// Nothing further goes forward, and undoing fits.
const FULL: &str = "2500";
/// Room for another attempt and its undoing, and not for a large output.
const LITTLE: &str = "8000";

fn check_in(steps: Vec<StepPlan>, script: &str) {
    check(steps, &script.replace("LITTLE", LITTLE).replace("FULL", FULL));
}

#[test]
fn an_output_without_room_is_no_answer_and_the_saga_turns_back_when_the_budget_is_spent() {
    check_in(
        vec![undoable("a", &[]), undoable("b", &[0])],
        "start       => call a 1
         done a      => a done; call b 1
         room LITTLE => -
         big b       => b unknown, again in 100ms
         wake        => call b 2
         big b       => b unknown; COMPENSATING UNKNOWN; undo b 1
         done undo b => b undone; undo a 1
         done undo a => a undone; COMPENSATED",
    );
    check_in(
        vec![undoable("a", &[])],
        "start       => call a 1
         room LITTLE => -
         big a       => a unknown, again in 100ms
         wake        => call a 2
         done a      => a done; COMMITTED; COMPLETED",
    );
}

#[test]
fn a_step_for_which_there_is_no_room_fails_without_a_call() {
    check_in(
        vec![undoable("a", &[]), undoable("b", &[0])],
        "start       => call a 1
         room FULL   => -
         done a      => a done; b refused SAGA_TOO_LARGE; COMPENSATING SAGA_TOO_LARGE; undo a 1
         crash       => undo a unknown, again in 0ms; undo a 2
         done undo a => a undone; COMPENSATED
         status      => COMPENSATED SAGA_TOO_LARGE",
    );
}

#[test]
fn a_retry_for_which_there_is_no_room_is_not_made() {
    check_in(
        vec![undoable("a", &[])],
        "start       => call a 1
         room FULL   => -
         lose a      => a unknown, again in 100ms
         wake        => a unknown; COMPENSATING UNKNOWN; undo a 1
         done undo a => a undone; COMPENSATED",
    );
}

#[test]
fn a_pivot_that_was_called_waits_for_an_operator() {
    check_in(
        vec![undoable("a", &[]), pivot(&[0]).with(|step| step.attempts = 1)],
        "start             => call a 1
         done a            => a done; call pivot 1
         room LITTLE       => -
         big pivot         => pivot unknown; probe pivot 1
         big probe pivot   => pivot blocked
         crash             => -
         resolve pivot big => no: not now
         resolve pivot done => act; pivot unblocked; pivot done; COMMITTED; COMPLETED",
    );
    check_in(
        vec![undoable("a", &[]), pivot(&[0])],
        "start             => call a 1
         room FULL         => -
         done a            => a done; pivot refused SAGA_TOO_LARGE; COMPENSATING SAGA_TOO_LARGE; undo a 1",
    );
}

#[test]
fn side_work_waits_for_an_operator_and_a_retry_changes_nothing() {
    check_in(
        vec![side_work(&[]), undoable("a", &[])],
        "start        => call a 1
         room FULL    => -
         done a       => a done; COMMITTED; side blocked
         retry side   => act; side unblocked; side blocked
         skip side    => act; side unblocked; side skipped; COMPLETED",
    );
}

#[test]
fn a_token_with_an_output_without_room_is_refused_and_may_come_again() {
    check_in(
        vec![undoable("a", &[])],
        "start         => call a 1
         delay a       => a pending, look in 500ms
         room LITTLE   => -
         token big a   => no: not now
         token done a  => a done; COMMITTED; COMPLETED",
    );
}

#[test]
fn a_pending_step_that_cannot_be_looked_at_any_more_is_undone() {
    check_in(
        vec![undoable("a", &[])],
        "start         => call a 1
         delay a       => a pending, look in 500ms
         room FULL     => -
         wake          => a unknown; COMPENSATING UNKNOWN; undo a 1",
    );
}

#[test]
fn an_undone_step_need_not_say_more_than_that() {
    check_in(
        vec![undoable("a", &[])],
        "start       => call a 1
         cancel      => cancel; COMPENSATING CANCELLED
         done a      => a done; undo a 1
         room LITTLE => -
         big undo a  => expression_failed; a undone; COMPENSATED",
    );
}

#[test]
fn an_undoing_that_never_answers_leaves_room_to_end_the_saga() {
    let mut story = Story::new();
    let steps = vec![undoable("a", &[]).with(|step| step.undo_attempts = 0), undoable("b", &[0])];
    let blueprint = Blueprint::new(steps);
    for what in ["start", "done a", "cancel", "lose b", "done undo b"] {
        story.happen(&blueprint, "", what);
    }
    story.happen(&blueprint, "", "room 8000");
    let mut told = String::new();
    for _ in 0..1_000 {
        if story.saga().is_blocked() {
            break;
        }
        told = story.happen(&blueprint, "", "lose undo a");
        if !story.saga().is_blocked() {
            told = story.happen(&blueprint, "", "wake");
        }
    }
    assert_eq!(told, "undo a blocked");
    assert!(story.saga().journal_bytes < story.limit.bytes(), "acts still fit");
    assert_eq!(story.happen(&blueprint, "", "pause"), "act");
    assert_eq!(story.happen(&blueprint, "", "abandon a"), "act; ABANDONED with a");
}

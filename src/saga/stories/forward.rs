//! Going forward: order, retries, side work, lists, expressions.

use super::*;

#[test]
fn steps_run_in_their_order_and_side_work_follows_the_commit() {
    check(
        vec![undoable("a", &[]), undoable("b", &[0]), pivot(&[]), side_work(&[])],
        "start      => call a 1
         done a     => a done; call b 1
         done b     => b done; call pivot 1
         done pivot => pivot done; COMMITTED; call side 1
         status     => COMMITTED
         done side  => side done; COMPLETED",
    );
}

#[test]
fn a_saga_without_side_work_passes_its_commit_too() {
    check(vec![undoable("a", &[])], "start => call a 1\n done a => a done; COMMITTED; COMPLETED");
}

#[test]
fn no_answer_is_tried_again_and_a_late_success_of_any_attempt_counts() {
    check(
        vec![undoable("a", &[]).with(|step| step.attempts = 3)],
        "start    => call a 1
         lose a   => a unknown, again in 100ms
         wake     => call a 2
         refuse a 1 => -
         done a 1 => a done; COMMITTED; COMPLETED
         done a 2 => -",
    );
}

#[test]
fn a_refused_side_work_is_tried_again_until_its_budget_is_spent_and_then_blocks() {
    check(
        vec![side_work(&[])],
        "start       => COMMITTED; call side 1
         refuse side => side refused NO, again in 100ms
         refuse side => -
         wake        => call side 2
         refuse side => side refused NO, again in 0ms; side blocked
         status      => BLOCKED, action of side blocked
         retry side  => act; side unblocked; call side 3
         done side 1 => side done; COMPLETED",
    );
}

#[test]
fn one_instance_an_item_under_the_cap_and_none_after_a_refusal() {
    check(
        vec![undoable("each", &[]).with(|step| step.is_fan_out = true)],
        "start         => items [1,2,3]; call each/0 1; call each/1 1
         done each/1   => each/1 done; call each/2 1
         refuse each/0 => each/0 refused NO; COMPENSATING NO; undo each/1 1
         lose each/2   => each/2 unknown; undo each/2 1
         done undo each/1 => each/1 undone
         done undo each/2 => each/2 undone; COMPENSATED",
    );
}

#[test]
fn a_false_condition_skips_and_the_pivot_starts_in_the_same_breath() {
    let skipped = undoable("never", &[]).with(|step| step.when = Some("false"));
    check(
        vec![pivot(&[]), skipped],
        "start => never skipped; call pivot 1\n done pivot => pivot done; COMMITTED; COMPLETED",
    );
}

#[test]
fn an_input_that_cannot_be_made_fails_the_step_without_a_call() {
    check(
        vec![undoable("a", &[]), undoable("b", &[0]).with(|step| step.has_broken_input = true)],
        "start       => call a 1
         done a      => a done; b refused EXPRESSION; COMPENSATING EXPRESSION; undo a 1
         done undo a => a undone; COMPENSATED",
    );
}

#[test]
fn a_side_work_whose_input_cannot_be_made_blocks_and_can_be_skipped() {
    check(
        vec![side_work(&[]).with(|step| step.has_broken_input = true)],
        "start     => COMMITTED; side blocked
         skip side => act; side unblocked; side skipped; COMPLETED",
    );
}

#[test]
fn a_pending_answer_costs_no_budget_and_ends_by_token() {
    check(
        vec![undoable("a", &[]).with(|step| step.attempts = 1)],
        "start              => call a 1
         delay a            => a pending, look in 500ms
         wake               => probe a 1
         unsupported probe a => a has no probe; a pending, look in 0ms; call a 2
         delay a            => a pending, look in 500ms
         token done a       => a done; COMMITTED; COMPLETED
         token done a       => -
         token refuse a     => no: not now",
    );
}

#[test]
fn what_is_pending_too_long_is_unknown_and_compensated() {
    check(
        vec![undoable("a", &[]).with(|step| step.pending.max = Duration::from_millis(600))],
        "start       => call a 1
         delay a     => a pending, look in 500ms
         wake        => probe a 1
         delay probe a => a pending, look in 100ms
         wake        => a unknown; COMPENSATING UNKNOWN; undo a 1
         done undo a => a undone; COMPENSATED",
    );
}

#[test]
fn a_list_that_is_none_fails_the_step_without_a_call() {
    let each = undoable("each", &[0]).with(|step| (step.is_fan_out, step.items) = (true, "input.nothing"));
    check(
        vec![undoable("a", &[]), each],
        "start       => call a 1
         done a      => a done; each refused EXPRESSION; COMPENSATING EXPRESSION; undo a 1
         crash       => undo a unknown, again in 0ms; undo a 2
         done undo a => a undone; COMPENSATED",
    );
}

#[test]
fn side_work_over_a_list_that_is_none_blocks_until_it_is_skipped() {
    let side = || side_work(&[]).with(|step| (step.is_fan_out, step.items) = (true, "input.nothing"));
    check(
        vec![side()],
        "start      => COMMITTED; side blocked
         retry side => act; side unblocked; side blocked
         crash      => -
         skip side  => act; side unblocked; side skipped; COMPLETED",
    );
    check(
        vec![side()],
        "start             => COMMITTED; side blocked
         resolve side done => act; side unblocked; side done; COMPLETED
         crash             => -",
    );
}

#[test]
fn an_empty_list_succeeds_at_once() {
    check(
        vec![undoable("each", &[]).with(|step| (step.is_fan_out, step.items) = (true, "[]")), pivot(&[])],
        "start => items []; call pivot 1\n done pivot => pivot done; COMMITTED; COMPLETED",
    );
}

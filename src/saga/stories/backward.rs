//! Going backward: who is undone, in which order, and what cancels and late replies do.

use super::*;

#[test]
fn a_step_without_an_answer_is_compensated_too() {
    check(
        vec![undoable("a", &[]), undoable("b", &[0]).with(|step| step.attempts = 1)],
        "start       => call a 1
         done a      => a done; call b 1
         lose b      => b unknown; COMPENSATING UNKNOWN; undo b 1
         done undo b => b undone; undo a 1
         done undo a => a undone; COMPENSATED
         status      => COMPENSATED UNKNOWN",
    );
}

#[test]
fn a_refused_step_is_not_compensated_unless_it_asks_for_it_or_is_in_doubt() {
    check(
        vec![undoable("a", &[]), undoable("b", &[0])],
        "start       => call a 1
         done a      => a done; call b 1
         refuse b    => b refused NO; COMPENSATING NO; undo a 1",
    );
    check(
        vec![undoable("a", &[]).with(|step| step.compensate_on_refusal = true)],
        "start       => call a 1
         refuse a    => a refused NO; COMPENSATING NO; undo a 1",
    );
    check(
        vec![undoable("a", &[])],
        "start       => call a 1
         lose a      => a unknown, again in 100ms
         wake        => call a 2
         refuse a    => a refused NO; COMPENSATING NO; undo a 1
         done a 1    => -
         done undo a => a undone; COMPENSATED",
    );
}

#[test]
fn a_late_success_that_will_be_undone_leaves_no_doubt() {
    check(
        vec![undoable("a", &[]), undoable("b", &[0])],
        "start       => call a 1
         done a      => a done; call b 1
         lose b      => b unknown, again in 100ms
         pause       => act
         cancel      => cancel; COMPENSATING CANCELLED
         done b 1    => b done
         resume      => act; undo b 1
         done b 1    => -
         status      => COMPENSATING CANCELLED",
    );
    check(
        vec![undoable("a", &[])],
        "start       => call a 1
         lose a      => a unknown, again in 100ms
         wake        => call a 2
         pause       => act
         refuse a    => a refused NO; COMPENSATING NO
         done a 1    => -
         resume      => act; undo a 1
         done undo a => a undone; COMPENSATED
         status      => COMPENSATED NO",
    );
}

#[test]
fn a_late_success_behind_a_finished_compensation_is_kept_once_and_leaves_a_mark() {
    check(
        vec![undoable("a", &[]).with(|step| step.attempts = 1)],
        "start       => call a 1
         lose a      => a unknown; COMPENSATING UNKNOWN; undo a 1
         done undo a => a undone; COMPENSATED
         done a      => a late, uncertain
         done a      => -
         refuse a    => -
         status      => COMPENSATED UNKNOWN, uncertain",
    );
}

#[test]
fn a_cancel_waits_for_the_call_in_flight_and_only_for_that() {
    check(
        vec![undoable("a", &[]), undoable("b", &[]), undoable("c", &[0])],
        "start       => call a 1; call b 1
         done a      => a done; call c 1
         lose b      => b unknown, again in 100ms
         cancel      => cancel; COMPENSATING CANCELLED; undo b 1
         done undo b => b undone
         cancel      => -
         done c      => c done; undo c 1
         done undo c => c undone; undo a 1
         done undo a => a undone; COMPENSATED
         cancel      => -",
    );
}

#[test]
fn a_cancel_asks_once_about_what_is_pending() {
    check(
        vec![undoable("a", &[])],
        "start         => call a 1
         delay a       => a pending, look in 500ms
         cancel        => cancel; COMPENSATING CANCELLED; probe a 1
         delay probe a => a unknown; undo a 1",
    );
    check(
        vec![undoable("a", &[])],
        "start          => call a 1
         delay a        => a pending, look in 500ms
         cancel         => cancel; COMPENSATING CANCELLED; probe a 1
         refuse probe a => a refused NO; COMPENSATED",
    );
}

#[test]
fn a_cancel_behind_the_commit_is_refused() {
    check(
        vec![side_work(&[])],
        "start => COMMITTED; call side 1\n cancel => no: not now\n operator cancels => no: not now",
    );
}

#[test]
fn a_refused_compensation_blocks_and_its_own_late_success_lifts_the_block() {
    check(
        vec![undoable("a", &[]), undoable("b", &[0])],
        "start         => call a 1
         done a        => a done; call b 1
         cancel        => cancel; COMPENSATING CANCELLED
         done b        => b done; undo b 1
         lose undo b   => undo b unknown, again in 100ms
         wake          => undo b 2
         refuse undo b 1 => -
         refuse undo b => undo b refused; undo b blocked
         status        => BLOCKED CANCELLED, compensation of b blocked
         refuse undo b => -
         done a        => -
         done undo b 1 => undo b unblocked; b undone; undo a 1
         lose undo a   => undo a unknown, again in 100ms
         wake          => undo a 2
         lose undo a   => undo a unknown; undo a blocked
         token done undo a => undo a unblocked; a undone; COMPENSATED",
    );
}

#[test]
fn a_blocked_compensation_holds_back_only_what_must_wait_for_it() {
    check(
        vec![undoable("a", &[]), undoable("b", &[]), undoable("c", &[0])],
        "start         => call a 1; call b 1
         done b        => b done
         done a        => a done; call c 1
         cancel        => cancel; COMPENSATING CANCELLED; undo b 1
         done c        => c done; undo c 1
         refuse undo c => undo c refused; undo c blocked
         done undo b   => b undone
         skip c        => act; undo c unblocked; c waived; undo a 1
         done undo a   => a undone; COMPENSATED
         status        => COMPENSATED CANCELLED, uncertain",
    );
}

#[test]
fn instances_sent_to_try_again_take_turns_under_the_cap() {
    let each = undoable("each", &[]).with(|step| (step.is_fan_out, step.concurrency) = (true, 1));
    check(
        vec![each, undoable("last", &[0])],
        "start              => items [1,2,3]; call each/0 1
         done each/0        => each/0 done; call each/1 1
         done each/1        => each/1 done; call each/2 1
         done each/2        => each/2 done; call last 1
         refuse last        => last refused NO; COMPENSATING NO; undo each/0 1
         refuse undo each/0 => undo each/0 refused; undo each/0 blocked; undo each/1 1
         refuse undo each/1 => undo each/1 refused; undo each/1 blocked; undo each/2 1
         retry all          => act; undo each/0 unblocked; undo each/1 unblocked
         done undo each/2   => each/2 undone; undo each/0 2
         done undo each/0   => each/0 undone; undo each/1 2
         done undo each/1   => each/1 undone; COMPENSATED",
    );
}

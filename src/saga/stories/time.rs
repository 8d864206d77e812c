//! Deadlines, locks, pauses, crashes and participants that are away.

use super::*;

#[test]
fn a_deadline_turns_the_saga_back_and_waits_for_the_call_in_flight() {
    let mut blueprint = Blueprint::new(vec![undoable("a", &[]), undoable("b", &[0])]);
    blueprint.deadline = Some(Duration::from_secs(1));
    check_with(
        &blueprint,
        "",
        "start       => call a 1
         done a      => a done; call b 1
         wake        => deadline; COMPENSATING DEADLINE
         done b      => b done; undo b 1",
    );
}

#[test]
fn a_deadline_does_not_run_while_the_saga_is_paused() {
    let mut blueprint = Blueprint::new(vec![undoable("a", &[])]);
    blueprint.deadline = Some(Duration::from_secs(1));
    check_with(
        &blueprint,
        "",
        "start       => call a 1
         wait 400ms  => -
         pause       => act
         wait 5000ms => -
         resume      => act
         wait 599ms  => -
         wait 1ms    => deadline; COMPENSATING DEADLINE",
    );
}

#[test]
fn only_the_part_of_a_pause_behind_the_locks_moves_the_deadline() {
    let mut blueprint = Blueprint::new(vec![undoable("a", &[])]);
    blueprint.deadline = Some(Duration::from_secs(1));
    check_with(
        &blueprint,
        "key",
        "start       => waits for locks
         pause       => act
         wait 4000ms => -
         granted     => has its locks
         wait 500ms  => -
         resume      => act; call a 1
         wait 999ms  => -
         wait 1ms    => deadline; COMPENSATING DEADLINE",
    );
}

#[test]
fn locks_that_do_not_come_end_the_saga_with_nothing_called() {
    check_with(
        &Blueprint::new(vec![undoable("a", &[])]),
        "key",
        "start   => waits for locks
         wake    => COMPENSATING LOCK_TIMEOUT; COMPENSATED
         granted => -
         status  => COMPENSATED LOCK_TIMEOUT",
    );
    check_with(
        &Blueprint::new(vec![undoable("a", &[])]),
        "key",
        "start   => waits for locks
         pause   => act
         cancel  => cancel; COMPENSATING CANCELLED; COMPENSATED",
    );
}

#[test]
fn a_step_in_flight_at_a_crash_gets_one_more_attempt_and_is_in_doubt() {
    check(
        vec![undoable("a", &[]).with(|step| step.attempts = 1)],
        "start       => call a 1
         crash       => a unknown, again in 0ms; call a 2
         crash       => a unknown, again in 0ms; call a 3
         refuse a    => a refused NO; COMPENSATING NO; undo a 1
         crash       => undo a unknown, again in 0ms; undo a 2
         done undo a => a undone; COMPENSATED
         crash       => -",
    );
}

#[test]
fn time_in_which_the_daemon_is_down_or_the_saga_paused_is_not_spent() {
    let patient = undoable("a", &[]).with(|step| {
        (step.attempts, step.elapsed) = (0, Duration::from_secs(1));
    });
    check(
        vec![patient],
        "start       => call a 1
         crash       => a unknown, again in 0ms; call a 2
         lose a      => a unknown, again in 100ms
         pause       => act
         wait 9000ms => -
         resume      => act; call a 3
         wait 700ms  => -
         lose a      => a unknown, again in 100ms
         wake        => call a 4
         lose a      => a unknown, again in 100ms
         wake        => call a 5
         lose a      => a unknown; COMPENSATING UNKNOWN; undo a 1",
    );
}

#[test]
fn who_cannot_be_reached_is_waited_for_without_spending_anything() {
    check(
        vec![undoable("a", &[]).with(|step| step.attempts = 2)],
        "start       => call a 1
         lose a      => a unknown, again in 100ms
         away        => -
         wait 9000ms => -
         back        => call a 2
         lose a      => a unknown; COMPENSATING UNKNOWN; undo a 1
         away        => -
         lose undo a => undo a unknown, again in 100ms
         wait 9000ms => -
         back        => undo a 2",
    );
}

#[test]
fn a_call_that_was_never_sent_costs_neither_an_attempt_nor_time() {
    check(
        vec![undoable("a", &[]).with(|step| step.attempts = 2)],
        "start       => call a 1
         wait 9000ms => -
         unsent a    => a unsent, again in 0ms; call a 2
         wait 9000ms => -
         unsent a    => a unsent, again in 0ms; call a 3
         lose a      => a unknown, again in 100ms
         away        => -
         wait 9000ms => -
         back        => call a 4
         lose a      => a unknown; COMPENSATING UNKNOWN; undo a 1
         wait 9000ms => -
         unsent undo a => undo a unsent, again in 0ms; undo a 2
         lose undo a => undo a unknown, again in 100ms",
    );
}

#[test]
fn a_refusal_behind_a_call_that_was_never_sent_leaves_nothing_to_undo() {
    check(
        vec![undoable("a", &[])],
        "start    => call a 1
         unsent a => a unsent, again in 0ms; call a 2
         refuse a => a refused NO; COMPENSATING NO; COMPENSATED",
    );
}

#[test]
fn the_deadline_ends_what_waits_behind_a_call_that_was_never_sent() {
    let mut blueprint = Blueprint::new(vec![undoable("a", &[])]);
    blueprint.deadline = Some(Duration::from_secs(1));
    check_with(
        &blueprint,
        "",
        "start    => call a 1
         away     => -
         unsent a => a unsent, again in 0ms
         wait 1000ms => deadline; COMPENSATING DEADLINE
         back     => undo a 1",
    );
}

#[test]
fn a_look_at_a_pending_call_that_was_never_sent_is_made_again() {
    check(
        vec![undoable("a", &[])],
        "start         => call a 1
         hurry a       => a pending, look in 10ms
         wake          => probe a 1
         unsupported probe a => a has no probe; a pending, look in 0ms; call a 2
         unsent a      => a pending, look in 0ms; call a 3
         done a        => a done; COMMITTED; COMPLETED",
    );
}

#[test]
fn a_pause_lets_calls_end_and_starts_none() {
    check(
        vec![undoable("a", &[]), undoable("b", &[0])],
        "start    => call a 1
         pause    => act
         pause    => no: not now
         done a   => a done
         cancel   => cancel; COMPENSATING CANCELLED
         retry a  => no: not now
         resume   => act; undo a 1
         resume   => no: not now",
    );
}

#[test]
fn a_participant_that_is_in_a_hurry_is_not_asked_all_the_time() {
    check(
        vec![undoable("a", &[]), undoable("b", &[0])],
        "start         => call a 1
         hurry a       => a pending, look in 10ms
         wake          => probe a 1
         hurry probe a => a pending, look in 10ms
         wake          => probe a 2
         done probe a  => a done; call b 1
         refuse b      => b refused NO; COMPENSATING NO; undo a 1
         hurry undo a  => undo a pending, look in 10ms",
    );
}

#[test]
fn no_more_calls_are_decided_at_once_than_are_let_through() {
    check(
        vec![undoable("each", &[]).with(|step| (step.is_fan_out, step.concurrency) = (true, 3)), pivot(&[0])],
        "places 0    => -
         start       => items [1,2,3]
         places 2    => -
         wait 10ms   => call each/0 1; call each/1 1
         places 1    => -
         unsent each/1 => each/1 unsent, again in 0ms; call each/1 2
         places all  => call each/2 1
         done each/0 => each/0 done
         done each/1 => each/1 done
         done each/2 => each/2 done; call pivot 1
         places 1    => -
         refuse pivot => pivot refused NO; COMPENSATING NO; undo each/0 1
         places all  => undo each/1 1; undo each/2 1",
    );
}

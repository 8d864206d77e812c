//! What an operator may do when, and what it leaves behind.

use super::*;

/// What an operator tries, and whether it is possible.
const ALL_ACTS: [&str; 6] =
    ["retry a", "skip a", "resolve a done", "resolve a failed", "resolve a compensated", "abandon nothing"];

/// Brings a saga to a point by `script`, then tries every act there.
#[track_caller]
fn possible_after(steps: &[StepPlan], script: &[&str], expected: &[&str]) {
    let blueprint = Blueprint::new(steps.to_vec());
    let mut possible = Vec::new();
    for act in ALL_ACTS {
        let mut story = Story::new();
        for what in script {
            story.happen(&blueprint, "", what);
        }
        if !story.happen(&blueprint, "", act).starts_with("no:") {
            possible.push(act);
        }
    }
    assert_eq!(possible, expected, "after {script:?}");
}

#[test]
fn each_act_is_possible_where_it_makes_sense_and_nowhere_else() {
    let undoable = || undoable("a", &[]);
    let pivot = || pivot(&[]).with(|step| "a".clone_into(&mut step.name));
    let side = || side_work(&[]).with(|step| "a".clone_into(&mut step.name));
    possible_after(&[undoable()], &["start"], &[]);
    possible_after(&[undoable()], &["start", "lose a"], &["retry a", "resolve a done", "resolve a failed"]);
    possible_after(&[undoable()], &["start", "delay a"], &["retry a"]);
    possible_after(&[undoable()], &["start", "done a"], &[]);
    possible_after(&[undoable()], &["start", "cancel", "done a"], &[]);
    possible_after(&[undoable()], &["start", "cancel", "lose a", "lose undo a"], &["retry a"]);
    possible_after(
        &[undoable()],
        &["start", "pause", "cancel", "lose a"],
        &["resolve a done", "resolve a failed"],
    );
    possible_after(
        &[undoable()],
        &["start", "cancel", "done a", "refuse undo a"],
        &["retry a", "skip a", "resolve a compensated"],
    );
    possible_after(
        &[pivot()],
        &["start", "lose a", "wake", "lose a", "lose probe a"],
        &["retry a", "resolve a done", "resolve a failed"],
    );
    possible_after(&[side()], &["start"], &["skip a"]);
    possible_after(&[side()], &["start", "refuse a"], &["retry a", "skip a"]);
    possible_after(&[side()], &["start", "lose a"], &["retry a", "skip a", "resolve a done"]);
    possible_after(
        &[side()],
        &["start", "refuse a", "wake", "refuse a"],
        &["retry a", "skip a", "resolve a done"],
    );
    possible_after(&[side()], &["start", "done a"], &[]);
}

#[test]
fn a_step_nobody_knows_is_the_callers_mistake() {
    check(
        vec![undoable("a", &[])],
        "start       => call a 1
         retry b     => no: step is wrong
         skip b      => no: step is wrong
         resolve a/0 done => no: step is wrong",
    );
}

#[test]
fn what_an_operator_says_counts_and_leaves_a_mark() {
    check(
        vec![undoable("a", &[]), undoable("b", &[0])],
        "start            => call a 1
         lose a           => a unknown, again in 100ms
         resolve a done   => act; a done; call b 1
         status           => RUNNING, uncertain
         refuse b         => b refused NO; COMPENSATING NO; undo a 1
         refuse undo a    => undo a refused; undo a blocked
         resolve a compensated => act; undo a unblocked; a undone; COMPENSATED",
    );
}

#[test]
fn a_skipped_side_work_that_succeeds_later_leaves_a_mark() {
    check(
        vec![side_work(&[])],
        "start     => COMMITTED; call side 1
         skip side => act; side skipped; COMPLETED
         status    => COMPLETED
         done side => side late, uncertain",
    );
}

#[test]
fn abandoning_wants_the_names_of_all_that_is_left_undone() {
    let asks = undoable("c", &[0]).with(|step| step.compensate_on_refusal = true);
    check(
        vec![undoable("a", &[]), undoable("b", &[0]), asks],
        "start         => call a 1
         done a        => a done; call b 1; call c 1
         abandon       => no: not now
         abandon a     => no: not now
         pause         => act
         refuse c      => c refused NO; COMPENSATING NO
         abandon a b   => no: not now
         abandon c b a => act; ABANDONED with a b c
         done b        => b late, uncertain
         cancel        => no: not now
         abandon a b c => no: not now
         status        => ABANDONED NO, uncertain",
    );
}

#[test]
fn a_dry_run_shows_what_would_follow() {
    let mut story = Story::new();
    let blueprint = Blueprint::new(vec![undoable("a", &[])]);
    for what in ["start", "cancel", "done a", "refuse undo a"] {
        story.happen(&blueprint, "", what);
    }
    let input = story.input(&["skip", "a"]);
    let context =
        Context { now: story.now, epoch: story.epoch, reach: &story.reach.away, journal_limit: story.limit };
    let before = story.saga().clone();
    let would = decide(&before, &input, &context).unwrap();
    assert!(*story.saga() == before, "nothing changed");
    assert_eq!(telling::facts(&would.next, &would.facts), story.happen(&blueprint, "", "skip a"));
    assert!(*story.saga() == would.next);
}

#[test]
fn a_step_sent_to_try_again_has_not_ended() {
    let mut story = Story::new();
    let blueprint = Blueprint::new(vec![pivot(&[]).with(|step| step.attempts = 1)]);
    for what in ["start", "lose pivot", "lose probe pivot", "retry pivot"] {
        story.happen(&blueprint, "", what);
    }
    assert_eq!(telling::status(story.saga()), "RUNNING");
    assert_eq!(story.saga().each_instance().next().unwrap().1.tries.ended_at, None);
}

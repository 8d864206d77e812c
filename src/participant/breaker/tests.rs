//! The breaker's tests.

use proptest::prelude::*;

use super::*;

const NOON: Timestamp = Timestamp(1_700_000_000_000);
const MOST: u32 = 64;

fn millis(number: u64) -> Duration {
    Duration::from_millis(number)
}

fn fresh() -> Breaker {
    Breaker::new(0, NOON)
}

/// One call after the other: each saga's number, and whether it was answered.
fn play(breaker: &mut Breaker, now: Timestamp, calls: impl IntoIterator<Item = (u64, bool)>) -> Vec<Turn> {
    let played = calls.into_iter().filter_map(|(saga, answered)| {
        let era = breaker.take(now);
        breaker.judge(era, saga, answered, MOST, now)
    });
    played.collect()
}

/// Fails until it opens; when the next trial is.
fn opened(breaker: &mut Breaker, now: Timestamp) -> Timestamp {
    for saga in 0.. {
        let era = breaker.take(now);
        if let Some(Turn::Opened { next_trial }) = breaker.judge(era, saga, false, MOST, now) {
            return next_trial;
        }
    }
    unreachable!("it opens some time")
}

#[test]
fn calls_go_through_until_several_in_a_row_fail() {
    let mut breaker = fresh();
    assert_eq!(play(&mut breaker, NOON, [(1, false), (2, false), (3, false), (4, false), (5, true)]), []);
    assert_eq!(breaker.room(NOON), u32::MAX);
    let turns = play(&mut breaker, NOON, (0..5).map(|saga| (saga, false)));
    assert_eq!(turns, [Turn::Opened { next_trial: NOON + OPEN_FIRST }]);
    assert_eq!(breaker.room(NOON + OPEN_FIRST - millis(1)), 0);
    assert_eq!(breaker.standing(NOON), Standing::Open { next_trial: NOON + OPEN_FIRST });
}

#[test]
fn one_saga_that_fails_alone_opens_it_for_nobody_else() {
    let mut breaker = fresh();
    play(&mut breaker, NOON, [(1, true)]);
    let poison = (0..500).map(|_| (7, false));
    assert_eq!(play(&mut breaker, NOON + Duration::from_secs(30), poison), []);
    assert!(breaker.is_closed());
}

#[test]
fn one_saga_alone_opens_it_after_a_while_when_nobody_else_speaks_for_the_endpoint() {
    let mut breaker = fresh();
    assert_eq!(play(&mut breaker, NOON, (0..500).map(|_| (7, false))), [], "it retries as it was told to");
    assert_eq!(play(&mut breaker, NOON + FAILS_ALONE, [(7, false)]).len(), 1);
    let mut breaker = fresh();
    play(&mut breaker, NOON, [(1, true)]);
    let later = NOON + Duration::from_mins(2);
    play(&mut breaker, later, (0..5).map(|_| (7, false)));
    assert_eq!(play(&mut breaker, later + FAILS_ALONE, [(7, false)]).len(), 1, "the answer was long ago");
}

#[test]
fn a_share_that_fails_opens_it_though_some_are_answered() {
    let mut breaker = fresh();
    // Never five in a row.
    let calls = (0..100_u64).map(|saga| (saga, saga % 3 == 0));
    let before: Vec<_> = calls.take(19).collect();
    assert_eq!(play(&mut breaker, NOON, before), [], "too few to have a share");
    assert_eq!(play(&mut breaker, NOON, [(50, false)]).len(), 1);
}

#[test]
fn a_third_that_fails_leaves_it_closed() {
    let mut breaker = fresh();
    assert_eq!(play(&mut breaker, NOON, (0..300).map(|saga| (saga, saga % 3 != 0))), []);
}

#[test]
fn one_saga_with_many_failing_calls_among_others_has_no_share() {
    let mut breaker = fresh();
    // Two of three calls fail, and all of them are one saga's.
    let calls = (0..300_u64).map(|n| if n % 3 == 0 { (n + 10, true) } else { (7, false) });
    assert_eq!(play(&mut breaker, NOON, calls), []);
}

#[test]
fn a_trial_at_a_time_goes_through_and_each_that_fails_doubles_the_wait() {
    let mut breaker = fresh();
    let mut now = opened(&mut breaker, NOON);
    let mut waits = Vec::new();
    for _ in 0..9 {
        assert_eq!((breaker.standing(now), breaker.room(now)), (Standing::HalfOpen, 1));
        let trial = breaker.take(now);
        assert_eq!(breaker.room(now), 0, "one at a time");
        let Some(Turn::StaysOpen { next_trial }) = breaker.judge(trial, 1, false, MOST, now) else {
            panic!("a failed trial opens it again")
        };
        waits.push(next_trial.since(now).as_millis());
        now = next_trial;
    }
    assert_eq!(waits, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
    assert_eq!(breaker.openings(), 1);
}

#[test]
fn what_goes_through_doubles_with_each_round_until_it_is_closed() {
    let mut breaker = fresh();
    let now = opened(&mut breaker, NOON);
    let mut rooms = Vec::new();
    let mut turns = Vec::new();
    while !breaker.is_closed() {
        let room = breaker.room(now);
        rooms.push(room);
        let eras: Vec<_> = (0..room).map(|_| breaker.take(now)).collect();
        assert_eq!(breaker.room(now), 0);
        turns.extend(eras.into_iter().filter_map(|era| breaker.judge(era, 1, true, MOST, now)));
    }
    assert_eq!(rooms, [1, 2, 4, 8, 16, 32]);
    assert_eq!(turns, [Turn::Closed]);
}

#[test]
fn a_single_failure_does_not_undo_a_ramp_and_most_of_a_round_does() {
    let mut breaker = fresh();
    let now = opened(&mut breaker, NOON);
    assert_eq!(play(&mut breaker, now, [(1, true), (2, false), (3, true)]), []);
    assert_eq!(breaker.room(now), 4);
    assert_eq!(play(&mut breaker, now, [(4, false), (5, false)]), []);
    assert!(matches!(play(&mut breaker, now, [(6, false)])[..], [Turn::StaysOpen { .. }]));
}

#[test]
fn calls_sent_before_it_opened_say_nothing_new() {
    let mut breaker = fresh();
    let before: Vec<_> = (0..64).map(|_| breaker.take(NOON)).collect();
    let turns = before.iter().zip(0..).filter_map(|(era, saga)| breaker.judge(*era, saga, false, MOST, NOON));
    assert_eq!(turns.count(), 1, "the first five open it, the others come too late");
    let late = NOON + OPEN_FIRST;
    let trial = breaker.take(late);
    assert_eq!(breaker.judge(before[9], 9, true, MOST, late), None);
    breaker.give_back(before[10]);
    assert_eq!(breaker.room(late), 0, "the trial is still under way");
    breaker.judge(trial, 1, true, MOST, late);
    assert_eq!(breaker.room(late), 2);
}

#[test]
fn an_abandoned_trial_leaves_its_place_to_another() {
    let mut breaker = fresh();
    let now = opened(&mut breaker, NOON);
    let trial = breaker.take(now);
    breaker.give_back(trial);
    assert_eq!(breaker.room(now), 1);
}

#[test]
fn who_is_hardly_called_closes_when_it_was_calm_for_a_while() {
    let mut breaker = fresh();
    let now = opened(&mut breaker, NOON);
    assert_eq!(breaker.next_turn(), Some(now));
    assert_eq!(breaker.pass_time(now), None);
    assert_eq!(breaker.next_turn(), None, "nothing is known before a trial");
    play(&mut breaker, now, [(1, true)]);
    assert_eq!(breaker.next_turn(), Some(now + CALM));
    assert_eq!(breaker.pass_time(now + CALM - millis(1)), None);
    let running = breaker.take(now);
    assert_eq!((breaker.pass_time(now + CALM), breaker.next_turn()), (None, None), "it may still fail");
    breaker.give_back(running);
    assert_eq!(breaker.pass_time(now + CALM), Some(Turn::Closed));
}

#[test]
fn who_comes_and_goes_is_neither_forgiven_at_once_nor_given_up() {
    let mut breaker = fresh();
    let mut now = opened(&mut breaker, NOON);
    for _ in 0..4 {
        play(&mut breaker, now, [(1, false)]);
        now = breaker.next_turn().unwrap();
    }
    play(&mut breaker, now, (0..63).map(|saga| (saga, true)));
    assert!(breaker.is_closed());
    assert_eq!(opened(&mut breaker, now).since(now), millis(1_000), "a quarter of the last wait");
    let mut calm = fresh();
    let later = NOON + FORGIVEN;
    assert_eq!(opened(&mut calm, later).since(later), OPEN_FIRST);
}

#[test]
fn a_sign_of_life_brings_the_next_trial_forward_and_nothing_else() {
    let mut breaker = fresh();
    breaker.try_now(NOON);
    assert!(breaker.is_closed());
    opened(&mut breaker, NOON);
    breaker.try_now(NOON);
    assert_eq!(breaker.room(NOON), 1);
}

/// What happens to an endpoint.
#[derive(Debug, Clone, Copy)]
enum Deed {
    /// Takes as many places as there are, at most so many.
    Call(u8),
    /// The oldest call ends.
    End { answered: bool },
    /// The oldest call is abandoned.
    Abandon,
    /// So many milliseconds go by.
    Wait(u16),
}

fn deeds() -> impl Strategy<Value = Deed> {
    prop_oneof![
        3 => (1..20_u8).prop_map(Deed::Call),
        6 => any::<bool>().prop_map(|answered| Deed::End { answered }),
        1 => Just(Deed::Abandon),
        2 => any::<u16>().prop_map(Deed::Wait),
    ]
}

proptest! {
    #[test]
    fn it_never_lets_more_through_than_it_says_and_always_recovers(
        deeds in proptest::collection::vec(deeds(), 0..400),
        most in 1..100_u32,
    ) {
        let mut breaker = fresh();
        let mut now = NOON;
        let mut running = VecDeque::new();
        let mut saga = 0;
        let mut open = false;
        let mut follow = |turn: Option<Turn>| match turn {
            // Each opening is told once, and each closing.
            Some(Turn::Opened { .. }) => assert!(!std::mem::replace(&mut open, true)),
            Some(Turn::StaysOpen { .. }) => assert!(open),
            Some(Turn::Closed) => assert!(std::mem::replace(&mut open, false)),
            None => {}
        };
        for deed in deeds {
            match deed {
                Deed::Call(wanted) => {
                    let room = breaker.room(now).min(most.saturating_sub(u32::try_from(running.len()).unwrap()));
                    for _ in 0..room.min(u32::from(wanted)) {
                        prop_assert!(breaker.room(now) > 0);
                        running.push_back(breaker.take(now));
                    }
                    if let Phase::Ramp(ramp) = breaker.phase {
                        prop_assert!(breaker.running <= ramp.allowed && ramp.allowed <= most.max(1));
                    }
                }
                Deed::End { answered } => {
                    if let Some(era) = running.pop_front() {
                        saga += 1;
                        follow(breaker.judge(era, saga % 7, answered, most, now));
                    }
                }
                Deed::Abandon => {
                    running.pop_front().into_iter().for_each(|era| breaker.give_back(era));
                }
                Deed::Wait(span) => {
                    now = now + millis(u64::from(span));
                    follow(breaker.pass_time(now));
                }
            }
            // There is always something to wait for: room, a time, or a call in flight.
            let something = breaker.room(now) > 0 || breaker.next_turn().is_some() || breaker.running > 0;
            prop_assert!(something);
        }
        // From here on the endpoint answers.
        while let Some(era) = running.pop_front() {
            follow(breaker.judge(era, 1, true, most, now));
        }
        for _ in 0..300 {
            if breaker.is_closed() {
                break;
            }
            now = breaker.next_turn().map_or(now, |turn| turn.max(now));
            follow(breaker.pass_time(now));
            if breaker.room(now) > 0 {
                let era = breaker.take(now);
                follow(breaker.judge(era, 1, true, most, now));
            }
        }
        prop_assert!(breaker.is_closed());
    }
}

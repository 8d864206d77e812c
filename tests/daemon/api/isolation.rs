//! A participant that fails: its sagas wait without losing attempts, nobody else notices, and all of
//! them go on when it is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use sagad::proto::{
    BreakerState, ListParticipantsRequest, Participant, ParticipantHealth, Saga, SagaEvent, SagaStatus,
    WaitFor,
};
use tonic::Code;

use crate::support::daemon::{Daemon, Launch};
use crate::support::participant::{self, Answer, Call};
use crate::support::play::{PATIENCE, Play, failure_code, step};
use crate::support::shared::Shared;

static DAEMON: Shared = Shared::new();

/// Sagas whose participant fails.
const MANY: usize = 150;
/// The pause between two looks.
const LOOK: Duration = Duration::from_millis(25);
/// Each saga may lose three attempts, and no more. Long delays, so that not even a machine with much
/// else to do has one of them use them up before the others have come.
const BODY: &str = "defaults: { timeout: 2s, retry: { initial: 300ms, max: 2s, attempts: 4, elapsed: 0 } }
steps: [{ name: only, action: { call: shop.do }, compensation: { call: shop.undo } }]";

/// Whether a participant is well, for a script that asks.
#[derive(Clone, Default)]
struct Well(Arc<AtomicBool>);

impl Well {
    fn set(&self, is_well: bool) {
        self.0.store(is_well, Ordering::SeqCst);
    }

    /// Answers while it is well, and otherwise like this.
    fn or(&self, otherwise: Answer) -> impl Fn(&Call) -> Answer + Send + Sync + 'static {
        let well = self.clone();
        move |_| if well.0.load(Ordering::SeqCst) { Answer::done() } else { otherwise.clone() }
    }
}

async fn listed(play: &Play<'_>) -> Result<Participant> {
    let request = ListParticipantsRequest { participant: play.participant.clone() };
    let answer = play.daemon.registry().list_participants(request).await?.into_inner();
    answer.participants.into_iter().next().context("it is listed")
}

/// The participant, once it is as `wanted` says.
async fn until_listed(play: &Play<'_>, wanted: impl Fn(&Participant) -> bool) -> Result<Participant> {
    let looking = async {
        loop {
            let participant = listed(play).await?;
            if wanted(&participant) {
                return anyhow::Ok(participant);
            }
            // A short wait at the daemon in place of a sleep here.
            play.wait(&play.id("0"), WaitFor::Ended, LOOK).await?;
        }
    };
    let found = tokio::time::timeout(PATIENCE, looking).await;
    found.with_context(|| format!("{} never got there", play.participant))?
}

async fn start_all(play: &Play<'_>, count: usize) -> Result<Vec<String>> {
    let mut ids = Vec::new();
    for number in 0..count {
        ids.push(play.start(&number.to_string(), "{}").await?);
    }
    Ok(ids)
}

async fn all_complete(play: &Play<'_>, ids: &[String]) -> Result<()> {
    for id in ids {
        let saga = play.ended(id).await?;
        assert_eq!(saga.status(), SagaStatus::Completed, "{saga:#?}");
    }
    Ok(())
}

/// Calls of one saga that the participant saw, most of all.
fn most_calls(play: &Play<'_>, ids: &[String]) -> usize {
    ids.iter().map(|id| play.shop.calls_of(id).len()).max().unwrap_or(0)
}

fn opened_times(participant: &Participant) -> u64 {
    participant.registrations.iter().map(|one| one.openings).sum()
}

/// Nobody else notices anything.
async fn another_is_well() -> Result<()> {
    let other = Play::on(DAEMON.daemon(), BODY, |_| Answer::done()).await?;
    assert_eq!(other.run("a", "{}").await?.status(), SagaStatus::Completed);
    Ok(())
}

#[tokio::test]
async fn sagas_of_one_that_fails_wait_without_losing_attempts_and_go_on_when_it_is_back() -> Result<()> {
    let well = Well::default();
    let play = Play::on(DAEMON.daemon(), BODY, well.or(Answer::Status(Code::Unavailable))).await?;
    let ids = start_all(&play, MANY).await?;
    let open = until_listed(&play, |one| one.breaker() == BreakerState::Open).await?;
    assert_eq!((open.health(), opened_times(&open)), (ParticipantHealth::Down, 1));
    let registration = &open.registrations[0];
    assert_eq!(registration.breaker(), BreakerState::Open);
    assert!(registration.next_trial_at.is_some() && registration.unknown_recent > 0);
    assert!(registration.last_error.contains("UNAVAILABLE"), "{}", registration.last_error);
    another_is_well().await?;

    // A few trials later most have not been called at all, and still none has ended.
    let calls = registration.calls;
    until_listed(&play, |one| one.registrations[0].calls >= calls + 3).await?;
    another_is_well().await?;
    let last = play.get(&ids[MANY - 1]).await?;
    assert_eq!(last.waiting_on, format!("participant {}", play.participant));
    assert_eq!(last.status(), SagaStatus::Running);
    let explained = play.explain(&last.saga_id).await?;
    assert!(explained.summary.iter().any(|line| line.contains("failed the latest calls")), "{explained:?}");
    assert!(explained.suggested_command.starts_with("sagactl participant list"), "{explained:?}");

    well.set(true);
    all_complete(&play, &ids).await?;
    assert!(most_calls(&play, &ids) <= 4, "{}", most_calls(&play, &ids));
    assert!(play.shop.calls().len() < MANY + 100, "{} calls for {MANY} sagas", play.shop.calls().len());
    let closed = until_listed(&play, |one| one.breaker() == BreakerState::Closed).await?;
    assert_eq!((closed.health(), opened_times(&closed)), (ParticipantHealth::Healthy, 1));
    Ok(())
}

#[tokio::test]
async fn calls_in_line_for_one_that_hangs_are_not_lost_attempts() -> Result<()> {
    let well = Well::default();
    let play = Play::unregistered(DAEMON.daemon(), well.or(Answer::Hang)).await?;
    play.define(BODY).await?;
    play.shop.register_narrow(play.daemon, &play.participant, &["do", "undo"], 2).await?;
    let ids = start_all(&play, 40).await?;
    until_listed(&play, |one| one.breaker() == BreakerState::Open).await?;
    // Those that stood in line were turned back, at no cost.
    let mut turned_back = 0;
    for id in &ids {
        let history = play.history(id).await?;
        let unsent = |event: &&SagaEvent| event.detail_json.contains("\"unsent\":true");
        if let Some(event) = history.iter().find(unsent) {
            assert!(event.r#type == "step_unknown" && event.reason.starts_with("not sent"), "{event:?}");
            turned_back += 1;
        }
    }
    assert!(turned_back > 0);
    well.set(true);
    all_complete(&play, &ids).await?;
    assert!(most_calls(&play, &ids) <= 4);
    Ok(())
}

#[tokio::test]
async fn the_deadline_ends_those_that_wait_for_one_that_fails() -> Result<()> {
    let well = Well::default();
    let body = format!("deadline: 10s\n{BODY}");
    let play = Play::on(DAEMON.daemon(), &body, well.or(Answer::Status(Code::Unavailable))).await?;
    let ids = start_all(&play, 10).await?;
    until_listed(&play, |one| one.breaker() == BreakerState::Open).await?;
    let late = play.start("late", "{}").await?;
    // It may have been the one that was let through for a trial; then it is undone later.
    let saga = play.until(&late, |saga| saga.failure.is_some()).await?;
    assert_eq!(failure_code(&saga), "DEADLINE");
    if play.shop.calls_of(&late).is_empty() {
        assert_eq!(play.ended(&late).await?.status(), SagaStatus::Compensated, "nothing has to be undone");
    }
    well.set(true);
    assert_eq!(play.ended(&late).await?.status(), SagaStatus::Compensated);
    for id in &ids {
        let saga = play.ended(id).await?;
        assert!(matches!(saga.status(), SagaStatus::Compensated | SagaStatus::Completed), "{saga:#?}");
    }
    Ok(())
}

#[tokio::test]
async fn one_that_comes_and_goes_is_used_while_it_is_there() -> Result<()> {
    let calls = AtomicUsize::new(0);
    let body = BODY.replace("attempts: 4", "attempts: 0").replace("300ms", "1ms");
    let play = Play::on(DAEMON.daemon(), &body, move |_| {
        // Down for eight calls, so that the breaker surely opens, then up for eighty and down for five: each
        // call more that finds it down while the breaker is half open doubles the time until the next.
        match calls.fetch_add(1, Ordering::SeqCst) {
            0..8 => Answer::Status(Code::Unavailable),
            call if (call - 8) % 85 >= 80 => Answer::Status(Code::Unavailable),
            _ => Answer::done(),
        }
    })
    .await?;
    let ids = start_all(&play, MANY).await?;
    another_is_well().await?;
    all_complete(&play, &ids).await?;
    assert!(opened_times(&listed(&play).await?) > 0);
    Ok(())
}

#[tokio::test]
async fn a_saga_that_always_fails_holds_nobody_else_up() -> Result<()> {
    let body = BODY.replace("attempts: 4", "attempts: 0").replace("300ms, max: 2s", "1ms, max: 20ms");
    let play = Play::on(DAEMON.daemon(), &body, |call| {
        let is_poison = call.saga.ends_with("poison");
        if is_poison && call.phase == "action" { Answer::Status(Code::Internal) } else { Answer::done() }
    })
    .await?;
    assert_eq!(play.run("before", "{}").await?.status(), SagaStatus::Completed);
    let poison = play.start("poison", "{}").await?;
    play.until(&poison, |saga| step(saga, "only").attempts > 12).await?;
    for number in 0..20 {
        assert_eq!(play.run(&number.to_string(), "{}").await?.status(), SagaStatus::Completed);
    }
    assert_eq!(opened_times(&listed(&play).await?), 0);
    play.cancel(&poison).await?;
    assert_eq!(play.ended(&poison).await?.status(), SagaStatus::Compensated);
    Ok(())
}

/// A play on a daemon of its own that can be started again.
struct Stage {
    folder: tempfile::TempDir,
    shop: Option<participant::Participant>,
    participant: String,
    name: String,
}

impl Stage {
    async fn set(script: impl Fn(&Call) -> Answer + Send + Sync + 'static) -> Result<(Self, Daemon)> {
        let folder = tempfile::tempdir()?;
        let daemon = Launch::on(folder.path()).start()?;
        let Play { shop, participant, name, .. } = Play::on(&daemon, BODY, script).await?;
        Ok((Self { folder, shop: Some(shop), participant, name }, daemon))
    }

    async fn act<T>(&mut self, daemon: &Daemon, act: impl AsyncFnOnce(&Play<'_>) -> Result<T>) -> Result<T> {
        let shop = self.shop.take().expect("nobody else acts");
        let play = Play { daemon, shop, participant: self.participant.clone(), name: self.name.clone() };
        let acted = act(&play).await;
        self.shop = Some(play.shop);
        acted
    }

    fn start_again(&self, daemon: Daemon) -> Result<Daemon> {
        daemon.kill()?;
        Launch::on(self.folder.path()).start()
    }
}

#[tokio::test]
async fn a_daemon_killed_while_calls_are_held_back_finds_out_again_and_loses_nothing() -> Result<()> {
    let well = Well::default();
    let (mut stage, daemon) = Stage::set(well.or(Answer::Status(Code::Unavailable))).await?;
    let ids = stage
        .act(&daemon, async |play| {
            let ids = start_all(play, MANY).await?;
            until_listed(play, |one| one.breaker() == BreakerState::Open).await?;
            Ok(ids)
        })
        .await?;
    let daemon = stage.start_again(daemon)?;
    stage
        .act(&daemon, async |play| {
            until_listed(play, |one| one.breaker() == BreakerState::Open).await?;
            well.set(true);
            all_complete(play, &ids).await?;
            // Once more for the restart.
            assert!(most_calls(play, &ids) <= 5, "{}", most_calls(play, &ids));
            Ok(())
        })
        .await
}

#[tokio::test]
async fn an_endpoint_that_fails_is_told_once_and_counted_and_not_for_each_of_its_sagas() -> Result<()> {
    let well = Well::default();
    let (mut stage, daemon) = Stage::set(well.or(Answer::Status(Code::Unavailable))).await?;
    stage
        .act(&daemon, async |play| {
            let ids = start_all(play, MANY).await?;
            until_listed(play, |one| one.breaker() == BreakerState::Open).await?;
            let figures =
                format!("participant=\"{}\",endpoint=\"http://{}\"", play.participant, play.shop.address);
            let is_told = async {
                let wanted = format!("\nsagad_participant_breaker_openings_total{{{figures}}} 1\n");
                while !play.daemon.page("/metrics").await?.1.contains(&wanted) {
                    play.wait(&ids[MANY - 1], WaitFor::Ended, LOOK).await?;
                }
                anyhow::Ok(())
            };
            tokio::time::timeout(PATIENCE, is_told).await.context("no figure tells of it")??;
            well.set(true);
            all_complete(play, &ids).await?;
            until_listed(play, |one| one.breaker() == BreakerState::Closed).await?;
            let log = play.daemon.errors()?;
            let lines = |what: &str| log.lines().filter(|line| line.contains(what)).count();
            assert_eq!((lines("are held back: it fails"), lines("answers again")), (1, 1), "{log}");
            Ok(())
        })
        .await
}

#[tokio::test]
async fn a_paused_participant_is_not_called_before_it_is_resumed_whatever_happens() -> Result<()> {
    let (mut stage, daemon) = Stage::set(|_| Answer::done()).await?;
    let id = stage
        .act(&daemon, async |play| {
            assert_eq!(play.run("before", "{}").await?.status(), SagaStatus::Completed);
            let paused = pause(play, "moving house").await?;
            assert_eq!(paused.pause.as_ref().map(|pause| pause.reason.as_str()), Some("moving house"));
            let again = pause(play, "for another reason").await?;
            assert_eq!(again.pause, paused.pause, "it is paused already");
            let id = play.start("while-paused", "{}").await?;
            is_paused(play, &id).await?;
            Ok(id)
        })
        .await?;
    let daemon = stage.start_again(daemon)?;
    stage
        .act(&daemon, async |play| {
            is_paused(play, &id).await?;
            assert!(play.shop.calls_of(&id).is_empty());
            let resumed = resume(play).await?;
            assert_eq!(resumed.pause, None);
            assert_eq!(play.ended(&id).await?.status(), SagaStatus::Completed);
            assert_eq!(resume(play).await?.pause, None, "it is not paused any more");
            Ok(())
        })
        .await?;
    let daemon = stage.start_again(daemon)?;
    let after = stage.act(&daemon, async |play| play.run("after", "{}").await).await?;
    assert_eq!(after.status(), SagaStatus::Completed, "the end of a pause is kept too");
    Ok(())
}

async fn is_paused(play: &Play<'_>, id: &str) -> Result<Saga> {
    let saga = play.until(id, |saga| !saga.waiting_on.is_empty()).await?;
    assert_eq!(saga.waiting_on, format!("participant {}", play.participant));
    let explained = play.explain(id).await?;
    assert!(
        explained.summary.iter().any(|line| line.contains("has paused it (moving house)")),
        "{explained:?}"
    );
    let command = format!("sagactl participant resume {}", play.participant);
    assert!(explained.suggested_command.starts_with(&command), "{explained:?}");
    Ok(saga)
}

async fn pause(play: &Play<'_>, reason: &str) -> Result<Participant> {
    let request = sagad::proto::PauseParticipantRequest {
        participant: play.participant.clone(),
        reason: reason.to_owned(),
        actor: "mina".to_owned(),
    };
    let answer = play.daemon.operations().pause_participant(request).await?.into_inner();
    answer.participant.context("a participant in the answer")
}

async fn resume(play: &Play<'_>) -> Result<Participant> {
    let request = sagad::proto::ResumeParticipantRequest {
        participant: play.participant.clone(),
        reason: "done".to_owned(),
        actor: String::new(),
    };
    let answer = play.daemon.operations().resume_participant(request).await?.into_inner();
    answer.participant.context("a participant in the answer")
}

#[tokio::test]
async fn who_pauses_says_whom_and_why() -> Result<()> {
    let daemon = DAEMON.daemon();
    let ask = async |participant: &str, reason: &str| {
        let request = sagad::proto::PauseParticipantRequest {
            participant: participant.to_owned(),
            reason: reason.to_owned(),
            actor: String::new(),
        };
        daemon.operations().pause_participant(request).await.map_err(|status| status.code())
    };
    assert_eq!(ask("nobody-knows-it", "why not").await.unwrap_err(), Code::NotFound);
    assert_eq!(ask("", "why not").await.unwrap_err(), Code::InvalidArgument);
    assert_eq!(ask("two.parts", "why not").await.unwrap_err(), Code::InvalidArgument);
    // Whoever a definition calls may be paused before it registers.
    let play = Play::unregistered(daemon, |_| Answer::done()).await?;
    play.define(BODY).await?;
    assert_eq!(ask(&play.participant, "").await.unwrap_err(), Code::InvalidArgument);
    let paused = pause(&play, "moving house").await?;
    assert_eq!(paused.health(), ParticipantHealth::Absent);
    play.register_shop(BODY).await?;
    let id = play.start("a", "{}").await?;
    is_paused(&play, &id).await?;
    resume(&play).await?;
    assert_eq!(play.ended(&id).await?.status(), SagaStatus::Completed);
    Ok(())
}

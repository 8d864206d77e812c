//! Following a saga: its history without gaps, and waits that answer in time.

use std::time::Duration;

use anyhow::{Context as _, Result};
use sagad::proto::{SagaEvent, SagaStatus, WaitFor, WaitSagaRequest, WatchSagaRequest};
use tonic::Code;

use crate::support::daemon::{Daemon, Launch};
use crate::support::participant::{Answer, Gate};
use crate::support::play::{Play, history, ms, nanos, violations};
use crate::support::shared::Shared;

static DAEMON: Shared = Shared::new();

const TWO: &str = "steps:
  - { name: one, action: { call: shop.one }, compensation: { call: shop.undo } }
  - { name: two, action: { call: shop.two }, compensation: none }";

async fn follow(daemon: &Daemon, id: &str, after_seq: u64) -> Result<Vec<SagaEvent>> {
    let request = WatchSagaRequest { saga_id: id.to_owned(), after_seq, follow: true };
    let mut stream = daemon.sagas().watch_saga(request).await?.into_inner();
    let mut events = Vec::new();
    while let Some(message) = stream.message().await? {
        events.push(message.event.context("an event")?);
    }
    Ok(events)
}

#[tokio::test]
async fn the_history_has_no_gaps_and_its_end_is_the_sagas_seq() -> Result<()> {
    let play = Play::on(DAEMON.daemon(), TWO, |call| match call.action.as_str() {
        "two" => Answer::Refused("NO", "no"),
        _ => Answer::done(),
    })
    .await?;
    let saga = play.run("a", "{}").await?;
    let events = play.history(&saga.saga_id).await?;
    let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=saga.seq).collect::<Vec<_>>());
    assert!(events.iter().all(|event| event.saga_id == saga.saga_id && event.at.is_some()));
    assert!(events.is_sorted_by_key(|event| event.at.map(nanos)), "time does not run backward");
    assert_eq!(events[0].r#type, "saga_started");
    assert_eq!(events.last().context("an end")?.r#type, "saga_compensated");
    let started = events.iter().find(|event| event.r#type == "step_started").context("a start")?;
    assert_eq!((started.step.as_str(), started.attempt), ("one", 1));
    assert!(events.iter().filter(|e| !e.detail_json.is_empty()).all(|e| e.detail_json.starts_with('{')));
    assert_eq!(events.last().map(|event| event.at), Some(saga.updated_at));
    Ok(())
}

#[tokio::test]
async fn every_place_to_begin_gives_the_rest() -> Result<()> {
    let play = Play::on(DAEMON.daemon(), TWO, |_| Answer::done()).await?;
    let saga = play.run("a", "{}").await?;
    let whole = play.history(&saga.saga_id).await?;
    for after in 0..=saga.seq + 2 {
        let rest: Vec<SagaEvent> = whole.iter().filter(|event| event.seq > after).cloned().collect();
        assert_eq!(history(play.daemon, &saga.saga_id, after).await?, rest, "after {after}");
        assert_eq!(follow(play.daemon, &saga.saga_id, after).await?, rest, "after {after}, followed");
    }
    Ok(())
}

#[tokio::test]
async fn followers_see_everything_live_and_the_stream_ends_with_the_saga() -> Result<()> {
    let gate = Gate::closed();
    let held = gate.clone();
    let play = Play::on(DAEMON.daemon(), TWO, move |call| match call.action.as_str() {
        "one" => held.then(Answer::done()),
        _ => Answer::done(),
    })
    .await?;
    let id = play.start("a", "{}").await?;
    play.shop.seen(|call| call.step == "one").await;
    let watchers = (0..5).map(|after| follow(play.daemon, &id, after));
    let (seen, ()) = tokio::join!(futures::future::join_all(watchers), async { gate.open() });
    let whole = play.history(&id).await?;
    for (after, events) in seen.into_iter().enumerate() {
        assert_eq!(events?, whole[after..], "after {after}");
    }
    Ok(())
}

#[tokio::test]
async fn without_following_the_stream_ends_with_what_is_stored() -> Result<()> {
    let play = Play::on(DAEMON.daemon(), TWO, |_| Answer::Hang).await?;
    let id = play.start("a", "{}").await?;
    play.shop.seen(|call| call.step == "one").await;
    let words = play.words(&id).await?;
    assert_eq!(words.first().map(String::as_str), Some("saga_started"));
    assert!(words.contains(&"step_started one".to_owned()));
    Ok(())
}

#[tokio::test]
async fn a_saga_with_a_long_history_is_watched_whole_by_a_slow_reader() -> Result<()> {
    let body = "steps:
  - { name: each, for_each: \"${input.items}\", concurrency: 32, action: { call: shop.do, input: {} }, compensation: none }";
    let play = Play::on(DAEMON.daemon(), body, |_| Answer::Done(format!("\"{}\"", "x".repeat(500)))).await?;
    let items: Vec<u32> = (0..300).collect();
    let id = play.start("a", &format!("{{\"items\":{items:?}}}")).await?;
    let request = WatchSagaRequest { saga_id: id.clone(), after_seq: 0, follow: true };
    let mut stream = play.daemon.sagas().watch_saga(request).await?.into_inner();
    let first = stream.message().await?.and_then(|message| message.event).context("the first")?;
    assert_eq!(first.seq, 1);
    // It reads on only once everything has happened.
    let saga = play.ended(&id).await?;
    let mut last = first.seq;
    while let Some(message) = stream.message().await? {
        let event = message.event.context("an event")?;
        assert_eq!(event.seq, last + 1);
        last = event.seq;
    }
    assert_eq!(last, saga.seq);
    assert!(last >= 600);
    Ok(())
}

#[tokio::test]
async fn a_follower_survives_what_the_daemon_does_not_and_resumes_where_it_was() -> Result<()> {
    let data = tempfile::tempdir()?;
    let daemon = Launch::on(data.path()).start()?;
    let gate = Gate::closed();
    let held = gate.clone();
    let play = Play::on(&daemon, TWO, move |call| match call.action.as_str() {
        "two" => held.then(Answer::done()),
        _ => Answer::done(),
    })
    .await?;
    let id = play.start("a", "{}").await?;
    play.shop.seen(|call| call.step == "two").await;
    let before = play.history(&id).await?;
    let Play { shop, participant, name, .. } = play;
    daemon.kill()?;
    let daemon = Launch::on(data.path()).start()?;
    let play = Play { daemon: &daemon, shop, participant, name };
    gate.open();
    let after = follow(&daemon, &id, before.len() as u64).await?;
    assert_eq!(after.first().map(|event| event.seq), Some(before.len() as u64 + 1));
    assert_eq!(after.last().map(|event| event.r#type.as_str()), Some("saga_completed"));
    assert_eq!(play.history(&id).await?, [before, after].concat(), "what was once told never changes");
    Ok(())
}

#[tokio::test]
async fn watching_nothing_is_not_found() -> Result<()> {
    for (id, code) in
        [("never-started", Code::NotFound), ("", Code::InvalidArgument), ("a b", Code::InvalidArgument)]
    {
        let request = WatchSagaRequest { saga_id: id.to_owned(), ..WatchSagaRequest::default() };
        let refused = match DAEMON.daemon().sagas().watch_saga(request).await {
            Ok(answer) => answer.into_inner().message().await.map(drop).unwrap_err(),
            Err(status) => status,
        };
        assert_eq!(refused.code(), code, "{id}");
        let wait = WaitSagaRequest { saga_id: id.to_owned(), ..WaitSagaRequest::default() };
        assert_eq!(DAEMON.daemon().sagas().wait_saga(wait).await.unwrap_err().code(), code, "{id}");
        let get = sagad::proto::GetSagaRequest { saga_id: id.to_owned() };
        assert_eq!(DAEMON.daemon().sagas().get_saga(get).await.unwrap_err().code(), code, "{id}");
    }
    Ok(())
}

#[tokio::test]
async fn a_wait_of_no_time_answers_at_once() -> Result<()> {
    let play = Play::on(DAEMON.daemon(), TWO, |_| Answer::Hang).await?;
    let id = play.start("a", "{}").await?;
    for timeout in [None, Some(ms(0)), Some(ms(1))] {
        let request = WaitSagaRequest { saga_id: id.clone(), wait_for: WaitFor::Ended.into(), timeout };
        let saga = play.daemon.sagas().wait_saga(request).await?.into_inner().saga.context("a saga")?;
        assert_eq!(saga.status(), SagaStatus::Running);
    }
    Ok(())
}

#[tokio::test]
async fn waits_that_make_no_sense_are_refused() -> Result<()> {
    let play = Play::on(DAEMON.daemon(), TWO, |_| Answer::done()).await?;
    let saga_id = play.run("a", "{}").await?.saga_id;
    let wrong = [
        ("wait_for", WaitSagaRequest { wait_for: 7, ..WaitSagaRequest::default() }),
        (
            "timeout",
            WaitSagaRequest {
                timeout: Some(prost_types::Duration { seconds: -1, nanos: 0 }),
                ..Default::default()
            },
        ),
    ];
    for (field, request) in wrong {
        let request = WaitSagaRequest { saga_id: saga_id.clone(), ..request };
        let status = play.daemon.sagas().wait_saga(request).await.unwrap_err();
        assert_eq!((status.code(), violations(&status)), (Code::InvalidArgument, vec![field.to_owned()]));
    }
    Ok(())
}

#[tokio::test]
async fn a_wait_for_the_commit_is_answered_while_side_work_is_down() -> Result<()> {
    let body = "steps:
  - { name: order, action: { call: shop.do }, compensation: none }
  - { name: mail, kind: retriable, action: { call: shop.mail } }";
    let play = Play::on(DAEMON.daemon(), body, |call| match call.action.as_str() {
        "mail" => Answer::Status(Code::Unavailable),
        _ => Answer::done(),
    })
    .await?;
    let id = play.start("a", "{}").await?;
    for wait_for in [WaitFor::Committed, WaitFor::Unspecified] {
        let saga = play.wait(&id, wait_for, Duration::from_secs(30)).await?;
        assert!(saga.committed);
    }
    let saga = play.wait(&id, WaitFor::Ended, Duration::from_millis(100)).await?;
    assert_eq!(saga.status(), SagaStatus::Committed);
    Ok(())
}

#[tokio::test]
async fn a_blocked_saga_does_not_end_a_wait() -> Result<()> {
    let body = "steps: [{ name: only, kind: pivot, action: { call: shop.do, retry: { attempts: 1 } } }]";
    let play = Play::on(DAEMON.daemon(), body, |_| Answer::Status(Code::Unavailable)).await?;
    let id = play.start("a", "{}").await?;
    play.blocked(&id).await?;
    let begun = std::time::Instant::now();
    let saga = play.wait(&id, WaitFor::Committed, Duration::from_millis(200)).await?;
    assert!(begun.elapsed() >= Duration::from_millis(190) && saga.status() == SagaStatus::Blocked);
    Ok(())
}

#[tokio::test]
async fn a_compensated_saga_answers_both_kinds_of_wait() -> Result<()> {
    let play = Play::on(DAEMON.daemon(), TWO, |_| Answer::Refused("NO", "no")).await?;
    let id = play.start("a", "{}").await?;
    for wait_for in [WaitFor::Committed, WaitFor::Ended] {
        let saga = play.wait(&id, wait_for, Duration::from_secs(30)).await?;
        assert_eq!(saga.status(), SagaStatus::Compensated);
    }
    Ok(())
}

#[tokio::test]
async fn a_hundred_clients_may_wait_for_one_saga() -> Result<()> {
    let gate = Gate::closed();
    let held = gate.clone();
    let play = Play::on(DAEMON.daemon(), TWO, move |_| held.then(Answer::done())).await?;
    let id = play.start("a", "{}").await?;
    let mut sagas = play.daemon.sagas();
    let waits = (0..100).map(|_| {
        let request = WaitSagaRequest {
            saga_id: id.clone(),
            wait_for: WaitFor::Ended.into(),
            timeout: Some(prost_types::Duration { seconds: 30, nanos: 0 }),
        };
        let mut sagas = sagas.clone();
        async move { sagas.wait_saga(request).await }
    });
    let waits: Vec<_> = waits.collect();
    let request = WaitSagaRequest { saga_id: id.clone(), ..WaitSagaRequest::default() };
    sagas.wait_saga(request).await?;
    let (answers, ()) = tokio::join!(futures::future::join_all(waits), async { gate.open() });
    for answer in answers {
        assert_eq!(answer?.into_inner().saga.context("a saga")?.status(), SagaStatus::Completed);
    }
    Ok(())
}

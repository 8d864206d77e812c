//! Participants that take their steps over streams they open themselves.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use sagad::demo::worker;
use sagad::proto::worker_step::Call as Asked;
use sagad::proto::{
    DeregisterHandlersRequest, HandlerAction, OpenWorkerRequest, Protocol, RegisterHandlersRequest,
    SagaStatus, WaitFor, WorkerHello,
};
use tonic::Code;

use crate::support::daemon::Launch;
use crate::support::participant::{Answer, Call, Gate, Ledger, Participant};
use crate::support::play::{Play, step, unique, violations};
use crate::support::shared::Shared;
use crate::support::worker::{Bare, Worker, absent, hello, listed, present};

static DAEMON: Shared = Shared::new();

const ORDER: &str = "defaults: { retry: { initial: 5ms, max: 50ms, attempts: 20 } }
steps:
  - { name: deduct-stock, action: { call: shop.deduct }, compensation: { call: shop.restore } }
  - { name: use-point, action: { call: shop.use }, compensation: { call: shop.charge } }
  - { name: create-order, action: { call: shop.create }, compensation: { call: shop.cancel } }
  - { name: clear-cart, kind: retriable, action: { call: shop.clear } }";
const ORDER_ACTIONS: [&str; 7] = ["deduct", "restore", "use", "charge", "create", "cancel", "clear"];

/// One step that is retried at once and often.
const ONE: &str = "defaults: { timeout: 30s, retry: { initial: 1ms, max: 20ms, attempts: 50 } }
steps: [{ name: only, action: { call: shop.do }, compensation: none }]";

/// A play whose participant has not come yet.
async fn play(body: &str) -> Result<Play<'static>> {
    let play = Play::unregistered(DAEMON.daemon(), |_| Answer::Nothing).await?;
    play.define(body).await?;
    Ok(play)
}

async fn join(play: &Play<'_>, name: &str, script: fn(&Call) -> Answer) -> Result<Worker> {
    Worker::join(play.daemon, &play.participant, name, &["do"], script).await
}

#[tokio::test]
async fn an_order_runs_and_is_undone_by_workers_alone() -> Result<()> {
    let play = play(ORDER).await?;
    let ledger = Arc::new(Ledger::default());
    let answers = Arc::clone(&ledger);
    let script =
        move |call: &Call| answers.answer(call, call.action == "create" && call.saga.ends_with("refused"));
    let _worker = Worker::join(play.daemon, &play.participant, "one", &ORDER_ACTIONS, script).await?;
    assert_eq!(play.run("good", "{}").await?.status(), SagaStatus::Completed);
    assert_eq!(play.run("refused", "{}").await?.status(), SagaStatus::Compensated);
    let entries = ledger.entries();
    let of = |end: &str| -> (u32, u32) {
        let sum = entries.iter().filter(|entry| entry.saga.ends_with(end));
        sum.fold((0, 0), |(effects, undos), entry| (effects + entry.effects, undos + entry.undos))
    };
    assert_eq!((of("good"), of("refused")), ((4, 0), (2, 2)));
    let shop = listed(play.daemon, &play.participant).await?.context("it is listed")?;
    assert_eq!(shop.protocol(), Protocol::Worker);
    assert_eq!(shop.registrations[0].endpoint, "worker:one");
    assert!(shop.registrations[0].calls >= 9 && shop.registrations[0].expires_at.is_none());
    Ok(())
}

#[tokio::test]
async fn a_saga_waits_for_a_worker_and_goes_on_when_one_comes() -> Result<()> {
    let play = play(ONE).await?;
    let id = play.start("a", "{}").await?;
    play.until(&id, |saga| !saga.waiting_on.is_empty()).await?;
    let _worker = join(&play, "one", |_| Answer::done()).await?;
    let ended = play.ended(&id).await?;
    assert_eq!((ended.status(), step(&ended, "only").attempts), (SagaStatus::Completed, 1));
    Ok(())
}

#[tokio::test]
async fn two_workers_share_the_load() -> Result<()> {
    let play = play(ONE).await?;
    let one = join(&play, "one", |_| Answer::done()).await?;
    let other = join(&play, "other", |_| Answer::done()).await?;
    let runs = (0..40).map(|n| {
        let play = &play;
        async move { play.run(&n.to_string(), "{}").await }
    });
    for saga in futures::future::join_all(runs).await {
        assert_eq!(saga?.status(), SagaStatus::Completed);
    }
    let (here, there) = (one.calls().len(), other.calls().len());
    assert_eq!(here + there, 40);
    assert!(here >= 5 && there >= 5, "{here} here, {there} there");
    Ok(())
}

#[tokio::test]
async fn a_dropped_stream_makes_the_step_unknown_and_another_worker_gets_it_with_the_same_key() -> Result<()>
{
    let play = play(ONE).await?;
    let first = join(&play, "first", |_| Answer::Hang).await?;
    let id = play.start("a", "{}").await?;
    let lost = first.seen(|_| true).await;
    let second = join(&play, "second", |_| Answer::done()).await?;
    drop(first);
    // Far sooner than its timeout.
    let saga = play.wait(&id, WaitFor::Ended, Duration::from_secs(15)).await?;
    assert_eq!((saga.status(), step(&saga, "only").attempts), (SagaStatus::Completed, 2));
    let again = second.calls().pop().context("it was called")?;
    assert_eq!((&again.key, &again.input), (&lost.key, &lost.input));
    assert_eq!((lost.attempt, again.attempt), (1, 2));
    assert!(play.words(&id).await?.contains(&"step_unknown only".to_owned()));
    Ok(())
}

#[tokio::test]
async fn a_worker_process_that_is_killed_hands_its_step_to_the_next() -> Result<()> {
    let daemon = DAEMON.daemon();
    let play = Play::unregistered(daemon, |_| Answer::Nothing).await?;
    // The process can only be who it is.
    let source = format!("saga: {}\n{}", play.name, ONE.replace("shop.do", "cart.clear"));
    let request = sagad::proto::RegisterDefinitionRequest { source, validate_only: false };
    daemon.definitions().register_definition(request).await?;
    let ledgers = tempfile::tempdir()?;
    let mut process = Command::new(env!("CARGO_BIN_EXE_sagad"))
        .args(["shop", "cart", "--worker", "doomed", "--daemon", &format!("http://{}", daemon.grpc)])
        .args(["--reply-delay", "1h", "--no-sync", "--ledger"])
        .arg(ledgers.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    present(daemon, "cart", "worker:doomed").await?;
    let id = play.start("a", "{}").await?;
    play.until(&id, |saga| step(saga, "only").attempts == 1).await?;
    let busy = async {
        while listed(daemon, "cart").await?.is_some_and(|cart| cart.in_flight == 0) {}
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(20), busy).await.context("it is never called")??;
    process.kill()?;
    process.wait()?;
    absent(daemon, "cart").await?;
    let rescue = Worker::join(daemon, "cart", "rescue", &["clear"], |_| Answer::done()).await?;
    let saga = play.wait(&id, WaitFor::Ended, Duration::from_secs(15)).await?;
    assert_eq!((saga.status(), step(&saga, "only").attempts), (SagaStatus::Completed, 2));
    assert_eq!(rescue.leave().await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn credits_are_never_exceeded() -> Result<()> {
    let play = play(ONE).await?;
    let mut worker = Bare::welcome(play.daemon, &play.participant, &["do"], 3).await?;
    for n in 0..12 {
        play.start(&n.to_string(), "{}").await?;
    }
    let mut held = Vec::new();
    let mut taken = 0;
    while taken < 12 {
        let steps = worker.steps().await?;
        taken += steps.len();
        held.extend(steps);
        assert!(held.len() <= 3, "{} in flight", held.len());
        if held.len() == 3 {
            assert!(worker.hear_within(Duration::from_millis(50)).await.is_none(), "a fourth");
        }
        worker.done(held.swap_remove(0).call_id);
    }
    for step in held {
        worker.done(step.call_id);
    }
    for n in 0..12 {
        assert_eq!(play.ended(&play.id(&n.to_string())).await?.status(), SagaStatus::Completed);
    }
    Ok(())
}

/// A step that may take 300 ms and is tried once more.
const SHORT: &str = "defaults: { timeout: 300ms, retry: { initial: 1ms, attempts: 2, elapsed: 0 } }
steps: [{ name: only, action: { call: shop.do }, compensation: none }]";

#[tokio::test]
async fn a_heartbeat_keeps_a_long_step_alive_beyond_its_timeout() -> Result<()> {
    let play = play(SHORT).await?;
    let mut worker = Bare::welcome(play.daemon, &play.participant, &["do"], 0).await?;
    let id = play.start("a", "{}").await?;
    let call_id = worker.steps().await?[0].call_id;
    for _ in 0..12 {
        let beat = OpenWorkerRequest { heartbeats: vec![call_id], ..OpenWorkerRequest::default() };
        worker.say(beat);
        assert!(worker.hear_within(Duration::from_millis(75)).await.is_none(), "the step is given up");
    }
    worker.done(call_id);
    let saga = play.ended(&id).await?;
    assert_eq!((saga.status(), step(&saga, "only").attempts), (SagaStatus::Completed, 1));
    Ok(())
}

#[tokio::test]
async fn without_a_heartbeat_a_long_step_is_unknown_and_cancelled() -> Result<()> {
    let play = play(SHORT).await?;
    let mut worker = Bare::welcome(play.daemon, &play.participant, &["do"], 1).await?;
    let id = play.start("a", "{}").await?;
    let first = worker.steps().await?.remove(0);
    let mut cancelled = Vec::new();
    let second = loop {
        let message = worker.hear().await?;
        cancelled.extend(message.cancelled);
        if let Some(step) = message.steps.into_iter().next() {
            break step;
        }
    };
    assert_eq!(cancelled, [first.call_id]);
    let (Some(Asked::Execute(one)), Some(Asked::Execute(other))) = (first.call, second.call) else {
        anyhow::bail!("both are the action")
    };
    assert_eq!((one.idempotency_key, other.attempt), (other.idempotency_key, 2));
    // Too late, and dropped; then in time.
    worker.done(first.call_id);
    worker.done(second.call_id);
    let saga = play.ended(&id).await?;
    assert_eq!((saga.status(), step(&saga, "only").attempts), (SagaStatus::Completed, 2));
    let (_, metrics) = play.daemon.page("/metrics").await?;
    assert!(!metrics.contains("sagad_worker_outcomes_dropped_total 0"), "{metrics}");
    Ok(())
}

#[tokio::test]
async fn a_worker_that_leaves_finishes_what_it_has() -> Result<()> {
    let play = play(ONE).await?;
    let gate = Gate::closed();
    let held = gate.clone();
    let leaving =
        Worker::join(play.daemon, &play.participant, "leaving", &["do"], move |_| held.then(Answer::done()))
            .await?;
    let id = play.start("a", "{}").await?;
    leaving.seen(|_| true).await;
    let left = tokio::spawn(leaving.leave());
    absent(play.daemon, &play.participant).await?;
    let next = join(&play, "next", |_| Answer::done()).await?;
    assert_eq!(play.run("b", "{}").await?.status(), SagaStatus::Completed);
    assert_eq!(next.calls().len(), 1);
    gate.open();
    let saga = play.ended(&id).await?;
    assert_eq!((saga.status(), step(&saga, "only").attempts), (SagaStatus::Completed, 1));
    assert_eq!(left.await??.len(), 1, "and took nothing new");
    Ok(())
}

#[tokio::test]
async fn workers_come_back_to_a_daemon_that_was_killed_and_sagas_go_on() -> Result<()> {
    let data = tempfile::tempdir()?;
    let daemon = Launch::on(data.path()).start()?;
    let address = daemon.grpc.clone();
    let play = Play::unregistered(&daemon, |_| Answer::Nothing).await?;
    play.define(ONE).await?;
    let gate = Gate::closed();
    let held = gate.clone();
    let settings = worker::Worker {
        daemon: format!("http://{address}"),
        participant: play.participant.clone(),
        name: "faithful".to_owned(),
        actions: vec!["do".to_owned()],
        max_in_flight: 0,
        heartbeats: false,
    };
    let worker =
        Worker::of(
            settings,
            move |call| {
                if call.attempt == 1 { held.then(Answer::done()) } else { Answer::done() }
            },
        );
    let id = play.start("a", "{}").await?;
    let before = worker.seen(|_| true).await;
    let Play { participant, name, shop, .. } = play;
    daemon.kill()?;
    let daemon = Launch::on(data.path()).arg("--grpc-addr").arg(address).start()?;
    let play = Play { daemon: &daemon, shop, participant, name };
    let saga = play.ended(&id).await?;
    assert_eq!(saga.status(), SagaStatus::Completed);
    let after = worker.seen(|call| call.attempt == 2).await;
    assert_eq!(before.key, after.key);
    assert!(after.epoch > before.epoch);
    gate.open();
    Ok(())
}

#[tokio::test]
async fn a_daemon_that_is_told_to_stop_tells_its_workers() -> Result<()> {
    let data = tempfile::tempdir()?;
    let mut daemon = Launch::on(data.path()).start()?;
    let mut worker = Bare::welcome(&daemon, "shop", &["do"], 0).await?;
    let told = Command::new("kill").args(["-TERM", &daemon.pid().to_string()]).status()?;
    assert!(told.success());
    assert!(worker.hear().await?.draining);
    assert_eq!(worker.end().await.unwrap_err().code(), Code::Unavailable);
    assert!(daemon.ended()?.success());
    Ok(())
}

#[tokio::test]
async fn a_wrong_hello_is_invalid_and_says_where() -> Result<()> {
    let daemon = DAEMON.daemon();
    let good = WorkerHello {
        participant: unique("wrong"),
        worker: "one".to_owned(),
        actions: vec!["do".to_owned()],
        max_in_flight: 0,
    };
    let of = |hello: Option<WorkerHello>| OpenWorkerRequest { hello, ..OpenWorkerRequest::default() };
    let wrong = [
        ("hello", of(None)),
        ("hello", OpenWorkerRequest { heartbeats: vec![1], ..of(None) }),
        ("hello.participant", of(Some(WorkerHello { participant: "a.b".to_owned(), ..good.clone() }))),
        ("hello.worker", of(Some(WorkerHello { worker: "a b".to_owned(), ..good.clone() }))),
        ("hello.actions", of(Some(WorkerHello { actions: vec![], ..good.clone() }))),
        ("hello.actions[0]", of(Some(WorkerHello { actions: vec![String::new()], ..good.clone() }))),
        ("hello.max_in_flight", of(Some(WorkerHello { max_in_flight: 10_001, ..good.clone() }))),
    ];
    for (field, first) in wrong {
        let refused = Bare::open(daemon, first).await.err().context(field)?;
        assert_eq!((refused.code(), violations(&refused)), (Code::InvalidArgument, vec![field.to_owned()]));
    }
    assert!(listed(daemon, &good.participant).await?.is_none());
    Ok(())
}

#[tokio::test]
async fn a_participant_has_workers_or_is_called_and_not_both() -> Result<()> {
    let daemon = DAEMON.daemon();
    let name = unique("one-protocol");
    let called = Participant::scripted(|_| Answer::done()).await?;
    let registration_id = called.register(daemon, &name, &["do"]).await?;
    let refused = Bare::open(daemon, hello(&name, &["do"], 0)).await.err().context("it is called")?;
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("a participant has one protocol"), "{refused}");

    daemon.registry().deregister_handlers(DeregisterHandlersRequest { registration_id }).await?;
    let _worker = Bare::welcome(daemon, &name, &["do"], 0).await?;
    let refused = called.register(daemon, &name, &["do"]).await.unwrap_err();
    let refused = refused.downcast::<tonic::Status>()?;
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let stream = listed(daemon, &name).await?.context("it is listed")?.registrations.remove(0);
    let leave = DeregisterHandlersRequest { registration_id: stream.registration_id };
    let refused = daemon.registry().deregister_handlers(leave).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("ends with its stream"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn a_worker_is_not_registered_by_its_url() -> Result<()> {
    let request = RegisterHandlersRequest {
        participant: unique("url"),
        endpoint: "http://127.0.0.1:9".to_owned(),
        protocol: Protocol::Worker.into(),
        actions: vec![HandlerAction { name: "do".to_owned(), ..HandlerAction::default() }],
        ..RegisterHandlersRequest::default()
    };
    let refused = DAEMON.daemon().registry().register_handlers(request).await.unwrap_err();
    assert_eq!((refused.code(), violations(&refused)), (Code::InvalidArgument, vec!["protocol".to_owned()]));
    assert!(format!("{refused:?}").contains("OpenWorker"), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn the_command_line_lists_workers() -> Result<()> {
    let daemon = DAEMON.daemon();
    let name = unique("on-the-list");
    let _worker = Worker::join(daemon, &name, "pod-1", &["do"], |_| Answer::done()).await?;
    let listed = Command::new(env!("CARGO_BIN_EXE_sagactl"))
        .args(["--addr", &format!("http://{}", daemon.grpc), "participant", "list", &name])
        .output()?;
    let text = String::from_utf8(listed.stdout)?;
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    assert!(text.contains("worker:pod-1"), "{text}");
    Ok(())
}

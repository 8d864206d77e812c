//! Steps over streams, with workers that behave in every way they can.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::{join_all, poll_immediate};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::*;
use crate::clock::{ManualClock, SharedClock, Stopwatch};
use crate::metrics::Metrics;
use crate::participant::Dispatch as _;
use crate::participant::dispatch::Participants;
use crate::participant::dispatch::tests::outgoing;
use crate::participant::handlers::{Handlers, tests::handlers};
use crate::participant::registry::{Registry, RegistryError};
use crate::proto::worker_outcome::Outcome as Wire;
use crate::proto::worker_step::Call;
use crate::proto::{self, OpenWorkerRequest, OpenWorkerResponse, WorkerHello, WorkerOutcome, WorkerStep};
use crate::saga::ids::{ActionName, ParticipantName};
use crate::saga::input::Reach as _;
use crate::saga::json::Json;
use crate::tasks::Tasks;

const NOON: Timestamp = Timestamp(1_700_000_000_000);
/// Long enough never to pass in a test that does not wait for it.
const PATIENT: Duration = Duration::from_mins(1);
const SHORT: Duration = Duration::from_millis(60);

/// Everything a test needs; its streams end with it.
struct Town {
    participants: Participants,
    tasks: Tasks,
    metrics: Metrics,
    habits: Habits,
}

impl Drop for Town {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

/// A worker whose every word is the test's.
struct FakeWorker {
    say: mpsc::Sender<Result<OpenWorkerRequest, Status>>,
    heard: Outbound,
}

impl Town {
    fn new() -> Self {
        let clock: SharedClock = Arc::new(ManualClock::at(NOON));
        let (tasks, metrics) = (Tasks::new(), Metrics::new(NOON));
        let registry = Registry::new(Arc::clone(&clock));
        let participants = Participants::new(registry, clock, metrics.clone(), tasks.clone());
        Self { participants, tasks, metrics, habits: Habits::default() }
    }

    fn registry(&self) -> &Registry {
        self.participants.registry()
    }

    async fn seat(&self, handlers: Handlers) -> Result<Seat, RegistryError> {
        self.registry().attach_with(handlers, self.habits, &self.tasks, &self.metrics).await
    }

    /// A worker of `stock`, which has been welcomed.
    async fn worker(&self, name: &str, max_in_flight: u32) -> FakeWorker {
        let claim = WorkerClaim {
            participant: "stock".into(),
            worker: name.into(),
            actions: vec!["deduct".into()],
            max_in_flight,
        };
        let seat = self.seat(claim.check().unwrap()).await.unwrap();
        let (say, said) = mpsc::channel(100);
        let mut worker = FakeWorker { say, heard: seat.serve(ReceiverStream::new(said)) };
        let first = worker.hear().await;
        assert!(!first.welcome.unwrap().registration_id.is_empty());
        worker
    }

    fn call(&self, timeout: Duration) -> tokio::task::JoinHandle<Outcome> {
        self.call_as(Phase::Action, timeout)
    }

    #[expect(clippy::disallowed_methods, reason = "a test's own task")]
    fn call_as(&self, phase: Phase, timeout: Duration) -> tokio::task::JoinHandle<Outcome> {
        tokio::spawn(self.participants.call(outgoing(phase, timeout)))
    }

    fn can_call(&self) -> bool {
        let (stock, deduct) = (ParticipantName::parse("stock"), ActionName::parse("deduct"));
        self.participants.can_call(&stock.unwrap(), &deduct.unwrap())
    }
}

impl FakeWorker {
    async fn hear(&mut self) -> OpenWorkerResponse {
        self.heard.next().await.expect("the stream goes on").expect("and is well")
    }

    /// How the stream ends, whatever is said before.
    async fn end(&mut self) -> Option<Status> {
        loop {
            match self.heard.next().await {
                Some(Ok(_)) => {}
                Some(Err(status)) => return Some(status),
                None => return None,
            }
        }
    }

    async fn step(&mut self) -> WorkerStep {
        loop {
            let mut steps = self.hear().await.steps;
            assert!(steps.len() < 2, "one at a time");
            if let Some(step) = steps.pop() {
                return step;
            }
        }
    }

    async fn say(&self, message: OpenWorkerRequest) {
        self.say.send(Ok(message)).await.expect("the daemon listens");
    }

    async fn answer(&self, call_id: u64, outcome: Option<Wire>) {
        let outcomes = vec![WorkerOutcome { call_id, outcome, error: String::new() }];
        self.say(OpenWorkerRequest { outcomes, ..OpenWorkerRequest::default() }).await;
    }

    async fn beat(&self, call_id: u64) {
        self.say(OpenWorkerRequest { heartbeats: vec![call_id], ..OpenWorkerRequest::default() }).await;
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as the message has it")]
fn done(output: &str) -> Option<Wire> {
    Some(Wire::Done(proto::Done { output_json: output.to_owned() }))
}

fn is_done(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Done(_))
}

fn cause(outcome: Outcome) -> String {
    match outcome {
        Outcome::Unknown(cause) => cause,
        other => panic!("a certain outcome: {other:?}"),
    }
}

#[tokio::test]
async fn an_answer_on_the_stream_is_the_outcome_it_means() {
    type Check = fn(&Outcome) -> bool;
    let town = Town::new();
    let mut worker = town.worker("one", 0).await;
    let refused = proto::Refused { code: "OUT_OF_STOCK".into(), message: "none".into() };
    let answers: [(Option<Wire>, Check); 5] = [
        (done("{\"n\":9007199254740993}"), |o| {
            *o == Outcome::Done(Json::trusted("{\"n\":9007199254740993}".to_owned()))
        }),
        (Some(Wire::Refused(refused)), |o| matches!(o, Outcome::Refused(r) if r.code == "OUT_OF_STOCK")),
        (Some(Wire::Pending(proto::Pending::default())), |o| *o == Outcome::Pending(None)),
        (done("{"), |o| matches!(o, Outcome::Unknown(_))),
        (None, |o| *o == Outcome::Unknown("the answer has no outcome".to_owned())),
    ];
    for phase in [Phase::Action, Phase::Compensation, Phase::Probe] {
        for (answer, is_expected) in &answers {
            let call = town.call_as(phase, PATIENT);
            let WorkerStep { call_id, call: request } = worker.step().await;
            let asked = match request.unwrap() {
                Call::Execute(request) => (Phase::Action, request.idempotency_key),
                Call::Compensate(request) => (Phase::Compensation, request.idempotency_key),
                Call::Probe(request) => (Phase::Probe, request.idempotency_key),
            };
            assert_eq!(asked, (phase, "key-1".to_owned()));
            worker.answer(call_id, answer.clone()).await;
            let outcome = call.await.unwrap();
            assert!(is_expected(&outcome), "{phase:?}: {outcome:?}");
        }
    }
    let call = town.call_as(Phase::Probe, PATIENT);
    let call_id = worker.step().await.call_id;
    worker.answer(call_id, Some(Wire::Unimplemented(proto::Unimplemented {}))).await;
    assert_eq!(call.await.unwrap(), Outcome::Unsupported);
    let call = town.call(PATIENT);
    let call_id = worker.step().await.call_id;
    let error = "the books are closed".to_owned();
    let outcomes = vec![WorkerOutcome { call_id, outcome: None, error: error.clone() }];
    worker.say(OpenWorkerRequest { outcomes, ..OpenWorkerRequest::default() }).await;
    assert_eq!(cause(call.await.unwrap()), error);
}

#[tokio::test]
async fn no_more_steps_are_in_flight_than_the_worker_takes() {
    let town = Town::new();
    let mut worker = town.worker("one", 2).await;
    let calls: Vec<_> = (0..5).map(|_| town.call(PATIENT)).collect();
    let mut held = Vec::new();
    while held.len() < 2 {
        held.extend(worker.hear().await.steps);
    }
    assert!(poll_immediate(worker.heard.next()).await.is_none(), "a third step");
    worker.answer(held[0].call_id, done("")).await;
    let third = worker.step().await;
    assert!(poll_immediate(worker.heard.next()).await.is_none(), "a fourth step");

    worker.say(OpenWorkerRequest { max_in_flight: 4, ..OpenWorkerRequest::default() }).await;
    let mut more = Vec::new();
    while more.len() < 2 {
        more.extend(worker.hear().await.steps);
    }
    for step in held.into_iter().skip(1).chain([third]).chain(more) {
        worker.answer(step.call_id, done("")).await;
    }
    assert!(join_all(calls).await.into_iter().all(|outcome| is_done(&outcome.unwrap())));
}

#[tokio::test]
async fn what_comes_together_goes_in_one_message() {
    let town = Town::new();
    let mut worker = town.worker("one", 0).await;
    let mut calls: Vec<_> =
        (0..20).map(|_| Box::pin(town.participants.call(outgoing(Phase::Action, PATIENT)))).collect();
    for call in &mut calls {
        assert!(poll_immediate(call).await.is_none());
    }
    let steps = worker.hear().await.steps;
    assert_eq!(steps.len(), 20);
    let outcomes = steps.iter().map(|step| WorkerOutcome {
        call_id: step.call_id,
        outcome: done(""),
        error: String::new(),
    });
    worker.say(OpenWorkerRequest { outcomes: outcomes.collect(), ..OpenWorkerRequest::default() }).await;
    assert!(join_all(calls).await.iter().all(is_done));
}

#[tokio::test]
async fn large_steps_go_in_messages_of_their_own_and_too_large_ones_nowhere() {
    let town = Town::new();
    let mut worker = town.worker("one", 0).await;
    let of = |bytes: usize| {
        let mut outgoing = outgoing(Phase::Action, PATIENT);
        outgoing.duty.input = Json::trusted(format!("\"{}\"", "x".repeat(bytes)));
        Box::pin(town.participants.call(outgoing))
    };
    let mut calls = [of(BATCH_MAX_BYTES / 2), of(BATCH_MAX_BYTES / 3), of(BATCH_MAX_BYTES / 2), of(8)];
    for call in &mut calls {
        assert!(poll_immediate(call).await.is_none());
    }
    for expected in [2, 2] {
        let steps = worker.hear().await.steps;
        assert_eq!(steps.len(), expected);
        for step in steps {
            worker.answer(step.call_id, done("")).await;
        }
    }
    assert!(join_all(calls).await.iter().all(is_done));
    assert!(cause(of(4 * 1024 * 1024).await).contains("over the limit of 4063232"));
}

#[tokio::test]
async fn two_workers_share_the_steps_and_have_names_of_their_own() {
    let town = Town::new();
    let (mut one, mut other) = (town.worker("pod", 1).await, town.worker("pod", 1).await);
    let calls = [town.call(PATIENT), town.call(PATIENT)];
    for worker in [&mut one, &mut other] {
        let call_id = worker.step().await.call_id;
        worker.answer(call_id, done("")).await;
    }
    assert!(join_all(calls).await.into_iter().all(|outcome| is_done(&outcome.unwrap())));
    let stock = town.registry().list(None).pop().unwrap();
    let names: Vec<_> = stock.registrations.iter().map(|one| one.endpoint.as_str().to_owned()).collect();
    assert_eq!(names, ["worker:pod", "worker:pod~2"]);
    assert!(stock.registrations.iter().all(|one| one.expires_at.is_none() && !one.from_config));
}

#[tokio::test]
async fn a_stream_that_drops_makes_its_steps_unknown_at_once() {
    let town = Town::new();
    let mut worker = town.worker("one", 0).await;
    let call = town.call(PATIENT);
    worker.step().await;
    let FakeWorker { say: _silent, heard } = worker;
    drop(heard);
    assert_eq!(cause(call.await.unwrap()), "no answer: worker:one is gone: its connection broke");
    assert!(!town.can_call());
    let again = town.call(PATIENT).await.unwrap();
    assert!(matches!(again, Outcome::Unsent(_)));

    let mut changes = town.registry().changes();
    changes.mark_unchanged();
    let _back = town.worker("one", 0).await;
    assert!(changes.has_changed().unwrap(), "those that wait are told");
    assert!(town.can_call());
}

#[tokio::test]
async fn a_worker_that_ends_its_side_or_breaks_it_is_gone_too() {
    let town = Town::new();
    for breaks in [false, true] {
        let FakeWorker { say, mut heard } = town.worker("one", 0).await;
        let call = town.call(PATIENT);
        heard.next().await.unwrap().unwrap();
        if breaks {
            say.send(Err(Status::internal("bytes"))).await.unwrap();
        }
        drop(say);
        assert!(cause(call.await.unwrap()).starts_with("no answer: worker:one is gone"));
        let end = heard.next().await.map(|end| end.unwrap_err().code());
        assert_eq!(end, breaks.then_some(Code::InvalidArgument));
    }
}

#[tokio::test]
async fn a_step_that_nobody_waits_for_is_cancelled_and_its_late_outcome_is_dropped() {
    let town = Town::new();
    let mut worker = town.worker("one", 1).await;
    let call = town.call(SHORT);
    let call_id = worker.step().await.call_id;
    assert_eq!(cause(call.await.unwrap()), "no answer within 60ms");
    assert_eq!(worker.hear().await.cancelled, [call_id]);
    let next = town.call(PATIENT);
    let next_id = worker.step().await.call_id;
    assert_ne!(next_id, call_id);
    worker.answer(call_id, done("")).await;
    worker.answer(next_id + 1, done("")).await;
    worker.answer(next_id, done("\"mine\"")).await;
    assert_eq!(next.await.unwrap(), Outcome::Done(Json::trusted("\"mine\"".to_owned())));
    assert!(town.metrics.encode().contains("sagad_worker_outcomes_dropped_total 2"));
}

#[tokio::test]
async fn a_step_that_was_taken_back_before_it_was_written_is_never_sent() {
    let town = Town::new();
    let mut worker = town.worker("one", 1).await;
    let mut call = Box::pin(town.participants.call(outgoing(Phase::Action, PATIENT)));
    assert!(poll_immediate(&mut call).await.is_none());
    drop(call);
    assert!(poll_immediate(worker.heard.next()).await.is_none());
    // A guess at what it was not given settles nothing.
    let mut call = Box::pin(town.participants.call(outgoing(Phase::Action, SHORT)));
    assert!(poll_immediate(&mut call).await.is_none());
    worker.answer(2, done("")).await;
    assert!(cause(call.await).starts_with("not sent within 60ms"));
}

#[tokio::test]
async fn heartbeats_keep_a_long_step_alive_and_their_end_is_its_end() {
    let town = Town::new();
    let mut worker = town.worker("one", 0).await;
    let watch = Stopwatch::start();
    let call = town.call(SHORT * 5);
    let call_id = worker.step().await.call_id;
    let mut beats = tokio::time::interval(SHORT);
    while watch.elapsed() < SHORT * 12 {
        beats.tick().await;
        assert!(!call.is_finished());
        worker.beat(call_id).await;
    }
    worker.answer(call_id, done("")).await;
    assert!(is_done(&call.await.unwrap()));

    let call = town.call(SHORT * 2);
    let call_id = worker.step().await.call_id;
    let watch = Stopwatch::start();
    worker.beat(call_id).await;
    assert_eq!(cause(call.await.unwrap()), "no answer within 120ms");
    assert!(watch.elapsed() >= SHORT);
}

#[tokio::test]
async fn a_worker_that_leaves_finishes_what_it_has_and_gets_nothing_new() {
    let town = Town::new();
    let mut worker = town.worker("one", 0).await;
    let call = town.call(PATIENT);
    let call_id = worker.step().await.call_id;
    worker.say(OpenWorkerRequest { draining: true, ..OpenWorkerRequest::default() }).await;
    while town.can_call() {
        tokio::task::yield_now().await;
    }
    assert_eq!(town.registry().list(None)[0].in_flight, 1);
    assert!(poll_immediate(worker.heard.next()).await.is_none(), "the stream waits for it");
    worker.answer(call_id, done("")).await;
    assert!(is_done(&call.await.unwrap()));
    assert!(worker.end().await.is_none(), "it ends well");
}

#[tokio::test]
async fn a_daemon_that_stops_says_so_and_takes_what_comes_in_time() {
    let town = Town::new();
    let mut worker = town.worker("one", 0).await;
    let call = town.call(PATIENT);
    let call_id = worker.step().await.call_id;
    town.tasks.stop();
    assert!(worker.hear().await.draining);
    worker.answer(call_id, done("")).await;
    assert!(is_done(&call.await.unwrap()));
    assert_eq!(worker.end().await.unwrap().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_daemon_that_stops_drops_its_calls_and_cancels_none() {
    let town = Town::new();
    let mut worker = town.worker("one", 0).await;
    let call = town.call(PATIENT);
    worker.step().await;
    town.tasks.stop();
    call.abort();
    let last = worker.hear().await;
    assert!(last.draining && last.cancelled.is_empty());
    assert_eq!(worker.end().await.unwrap().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_daemon_that_stops_does_not_wait_for_ever() {
    let mut town = Town::new();
    town.habits.grace = SHORT;
    let mut worker = town.worker("one", 0).await;
    let call = town.call(PATIENT);
    worker.step().await;
    town.tasks.stop();
    assert!(worker.hear().await.draining);
    assert_eq!(worker.end().await.unwrap().code(), Code::Unavailable);
    assert!(cause(call.await.unwrap()).contains("the daemon is stopping"));
}

#[tokio::test]
async fn a_silent_worker_is_asked_and_then_gone() {
    let mut town = Town::new();
    town.habits = Habits { look_every: SHORT, looks_max: 3, ..Habits::default() };
    let mut worker = town.worker("one", 0).await;
    let call = town.call(PATIENT);
    worker.step().await;
    for _ in 0..2 {
        assert_eq!(worker.hear().await, OpenWorkerResponse::default());
        worker.say(OpenWorkerRequest::default()).await;
    }
    assert!(!call.is_finished(), "an empty message is a sign of life");
    assert_eq!(worker.end().await.unwrap().code(), Code::Unavailable);
    assert!(cause(call.await.unwrap()).contains("it was silent for 180ms"));
}

#[tokio::test]
async fn a_worker_that_says_too_much_or_what_is_wrong_is_sent_away() {
    let town = Town::new();
    let of = OpenWorkerRequest::default;
    let too_many = || vec![1; ENTRIES_MAX + 1];
    let outcome = WorkerOutcome { call_id: 1, outcome: None, error: String::new() };
    let wrong = [
        OpenWorkerRequest { hello: Some(WorkerHello::default()), ..of() },
        OpenWorkerRequest { heartbeats: too_many(), ..of() },
        OpenWorkerRequest { outcomes: vec![outcome; ENTRIES_MAX + 1], ..of() },
        OpenWorkerRequest { max_in_flight: 10_001, ..of() },
    ];
    for message in wrong {
        let mut worker = town.worker("one", 0).await;
        worker.say(message).await;
        assert_eq!(worker.end().await.unwrap().code(), Code::InvalidArgument);
    }
    let mut town = Town::new();
    town.habits.idle_messages_max = 50;
    let mut worker = town.worker("one", 0).await;
    for _ in 0..51 {
        worker.say(of()).await;
    }
    let end = worker.end().await.unwrap();
    assert_eq!(end.code(), Code::ResourceExhausted, "{end}");
    let mut busy = town.worker("one", 0).await;
    for _ in 0..200 {
        let call = town.call(PATIENT);
        let call_id = busy.step().await.call_id;
        busy.answer(call_id, done("")).await;
        assert!(is_done(&call.await.unwrap()), "who works may speak");
    }
}

#[tokio::test]
async fn a_participant_is_called_or_has_workers_and_not_both() {
    let town = Town::new();
    let called = handlers("stock", "http://127.0.0.1:9001", &["deduct"]);
    let worker = town.worker("one", 0).await;
    let both = town.registry().prepare(called.clone()).await.err().unwrap();
    assert!(
        matches!(&both, RegistryError::Precondition(why) if why.contains("PROTOCOL_WORKER at worker:one")),
        "{both}"
    );
    let id = town.registry().list(None)[0].registrations[0].registration_id.clone();
    let ending = town.registry().prepare_end(&id).await.err().unwrap();
    assert!(matches!(ending, RegistryError::Precondition(why) if why.contains("ends with its stream")));
    assert_eq!(town.registry().renew(&id), Ok(None));

    drop(worker);
    while town.can_call() {
        tokio::task::yield_now().await;
    }
    let _registered = town.registry().prepare(called).await.unwrap().activate();
    let claim = WorkerClaim {
        participant: "stock".into(),
        worker: "one".into(),
        actions: vec!["deduct".into()],
        max_in_flight: 0,
    };
    let refused = town.seat(claim.check().unwrap()).await.err().unwrap();
    assert!(
        matches!(&refused, RegistryError::Precondition(why) if why.contains("a participant has one protocol")),
        "{refused}"
    );
}

#[tokio::test]
async fn a_seat_that_is_never_served_is_given_back() {
    let town = Town::new();
    let claim = WorkerClaim {
        participant: "stock".into(),
        worker: "one".into(),
        actions: vec!["deduct".into()],
        max_in_flight: 0,
    };
    let seat = town.seat(claim.check().unwrap()).await.unwrap();
    let call = town.call(PATIENT);
    while town.registry().list(None)[0].in_flight == 0 {
        tokio::task::yield_now().await;
    }
    drop(seat);
    assert!(matches!(call.await.unwrap(), Outcome::Unsent(_)));
    assert!(!town.can_call());
}

#[test]
fn a_step_may_be_at_work_for_an_hour_and_no_longer() {
    let endpoint = Endpoint::worker("one");
    let link = Link::new(&endpoint, proto::WorkerWelcome::default(), Tasks::new().stopping());
    let placed = link.place(outgoing(Phase::Action, PATIENT), NOON).unwrap();
    assert!(matches!(link.patience(placed.call_id, PATIENT), link::Patience::Left(left) if left <= PATIENT));
    assert_eq!(link.patience(placed.call_id, Duration::ZERO), link::Patience::NeverSent);
    drop(placed);
    assert_eq!(link.patience(1, PATIENT), link::Patience::Left(Duration::ZERO));
}

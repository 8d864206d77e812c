//! Workers in the test's own process: scripted ones, and bare streams whose every word is the test's.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use sagad::demo::worker;
use sagad::proto::worker_outcome::Outcome;
use sagad::proto::{
    Done, ListParticipantsRequest, OpenWorkerRequest, OpenWorkerResponse, Participant, WorkerHello,
    WorkerOutcome, WorkerStep,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::daemon::Daemon;
use super::participant::{Answer, Call, Service, State};
use super::play::PATIENCE;

/// A scripted participant that takes its calls over a stream. Dropping it breaks the stream.
pub struct Worker {
    state: Arc<State>,
    leave: CancellationToken,
    run: Option<JoinHandle<Result<()>>>,
}

impl Worker {
    /// A worker for `actions` of `participant`, once the daemon lists it.
    pub async fn join(
        daemon: &Daemon,
        participant: &str,
        name: &str,
        actions: &[&str],
        script: impl Fn(&Call) -> Answer + Send + Sync + 'static,
    ) -> Result<Self> {
        let worker = worker::Worker {
            daemon: format!("http://{}", daemon.grpc),
            participant: participant.to_owned(),
            name: name.to_owned(),
            actions: actions.iter().map(|action| (*action).to_owned()).collect(),
            max_in_flight: 0,
            heartbeats: true,
        };
        let this = Self::of(worker, script);
        present(daemon, participant, &format!("worker:{name}")).await?;
        Ok(this)
    }

    /// One as `worker` says, whether or not a daemon is there.
    pub fn of(worker: worker::Worker, script: impl Fn(&Call) -> Answer + Send + Sync + 'static) -> Self {
        let (state, leave) = (State::by(script), CancellationToken::new());
        let until = leave.clone().cancelled_owned();
        let run = tokio::spawn(worker::run(worker, Service(Arc::clone(&state)), until));
        Self { state, leave, run: Some(run) }
    }

    /// All calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.state.calls()
    }

    /// Waits until a call that `wanted` picks has come.
    pub async fn seen(&self, wanted: impl Fn(&Call) -> bool) -> Call {
        self.state.seen(wanted).await
    }

    /// Takes no more, finishes what it has, and ends.
    pub async fn leave(mut self) -> Result<Vec<Call>> {
        self.leave.cancel();
        let run = self.run.take().context("it runs until it leaves")?;
        tokio::time::timeout(PATIENCE, run).await.context("it never leaves")???;
        Ok(self.calls())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(run) = &self.run {
            run.abort();
        }
    }
}

/// A participant as the daemon lists it.
pub async fn listed(daemon: &Daemon, participant: &str) -> Result<Option<Participant>> {
    let request = ListParticipantsRequest { participant: participant.to_owned() };
    Ok(daemon.registry().list_participants(request).await?.into_inner().participants.pop())
}

/// Waits until the daemon lists this endpoint.
pub async fn present(daemon: &Daemon, participant: &str, endpoint: &str) -> Result<()> {
    let looking = async {
        loop {
            let found = listed(daemon, participant).await?;
            if found.is_some_and(|found| found.registrations.iter().any(|one| one.endpoint == endpoint)) {
                return anyhow::Ok(());
            }
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.with_context(|| format!("{endpoint} never comes"))?
}

/// Waits until the daemon lists nobody for the participant.
pub async fn absent(daemon: &Daemon, participant: &str) -> Result<()> {
    let looking = async {
        while listed(daemon, participant).await?.is_some_and(|found| !found.registrations.is_empty()) {}
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, looking).await.context("somebody stays")?
}

/// A stream whose every word is the test's.
pub struct Bare {
    say: mpsc::Sender<OpenWorkerRequest>,
    heard: Streaming<OpenWorkerResponse>,
}

impl Bare {
    /// Opens one that begins with `first`.
    pub async fn open(daemon: &Daemon, first: OpenWorkerRequest) -> Result<Self, Status> {
        let (say, said) = mpsc::channel(1_000);
        say.try_send(first).expect("the first of many");
        let heard = daemon.registry().open_worker(ReceiverStream::new(said)).await?.into_inner();
        Ok(Self { say, heard })
    }

    /// One that has been welcomed, for so many steps at a time.
    pub async fn welcome(
        daemon: &Daemon,
        participant: &str,
        actions: &[&str],
        max_in_flight: u32,
    ) -> Result<Self> {
        let mut bare = Self::open(daemon, hello(participant, actions, max_in_flight)).await?;
        let first = bare.hear().await?;
        first.welcome.context("the first message is the welcome")?;
        Ok(bare)
    }

    /// The next message.
    pub async fn hear(&mut self) -> Result<OpenWorkerResponse> {
        let heard = tokio::time::timeout(PATIENCE, self.heard.message()).await.context("nothing comes")?;
        heard?.context("the stream has ended")
    }

    /// The next message, if one comes within `span`.
    pub async fn hear_within(&mut self, span: Duration) -> Option<OpenWorkerResponse> {
        let heard = tokio::time::timeout(span, self.heard.message()).await.ok()?;
        heard.ok()?
    }

    /// The next steps.
    pub async fn steps(&mut self) -> Result<Vec<WorkerStep>> {
        loop {
            let steps = self.hear().await?.steps;
            if !steps.is_empty() {
                return Ok(steps);
            }
        }
    }

    /// Says something.
    pub fn say(&self, message: OpenWorkerRequest) {
        self.say.try_send(message).expect("the daemon reads");
    }

    /// Has done a step.
    pub fn done(&self, call_id: u64) {
        let outcome = Some(Outcome::Done(Done { output_json: "{}".to_owned() }));
        let outcomes = vec![WorkerOutcome { call_id, outcome, error: String::new() }];
        self.say(OpenWorkerRequest { outcomes, ..OpenWorkerRequest::default() });
    }

    /// How the stream ends; `Ok` is a good end.
    pub async fn end(&mut self) -> Result<(), Status> {
        while self.heard.message().await?.is_some() {}
        Ok(())
    }
}

/// The first message of a worker.
pub fn hello(participant: &str, actions: &[&str], max_in_flight: u32) -> OpenWorkerRequest {
    let hello = WorkerHello {
        participant: participant.to_owned(),
        worker: "bare".to_owned(),
        actions: actions.iter().map(|action| (*action).to_owned()).collect(),
        max_in_flight,
    };
    OpenWorkerRequest { hello: Some(hello), ..OpenWorkerRequest::default() }
}

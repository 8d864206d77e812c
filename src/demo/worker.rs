//! A worker: serves a participant's calls over a stream that it opens itself.
//!
//! ```text
//! run ─► hello ─► steps ─► ParticipantService ─► outcomes
//!  ▲                                                │
//!  └──────── again, with a growing pause ◄──────────┘ the stream has ended
//! ```
//! The service is the one that `PROTOCOL_SAGAD` calls: whoever has it can be either.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::{AbortHandle, Abortable, BoxFuture};
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::proto;
use crate::proto::participant_service_server::ParticipantService;
use crate::proto::registry_service_client::RegistryServiceClient;
use crate::proto::worker_outcome::Outcome;
use crate::proto::worker_step::Call;
use crate::proto::{OpenWorkerRequest, OpenWorkerResponse, WorkerHello, WorkerOutcome, WorkerStep};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause before another stream is opened: it doubles up to the most, and half of it is by chance,
/// so that the workers of a daemon that was away do not come back all at once.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How often the daemon is told which steps are still at work.
const HEARTBEAT_EVERY: Duration = Duration::from_millis(500);
/// Outputs are put into one message up to this size, in bytes.
const BATCH_MAX_BYTES: usize = 1024 * 1024;
/// Messages that may wait for the connection.
const MESSAGES_MAX: usize = 64;
/// Largest message from the daemon, in bytes: one step with three documents fits.
const MESSAGE_MAX_BYTES: usize = 8 * 1024 * 1024;

/// Who takes steps, and whose.
#[derive(Debug, Clone)]
pub struct Worker {
    /// URL of the daemon.
    pub daemon: String,
    /// Name of the participant.
    pub participant: String,
    /// The worker's own name.
    pub name: String,
    /// What it can do, compensations and probes included.
    pub actions: Vec<String>,
    /// Steps it takes at a time.
    pub max_in_flight: u32,
    /// Whether it says of long steps that they are still at work.
    pub heartbeats: bool,
}

/// Takes steps until `until` completes, then finishes those that it has. Opens another stream whenever
/// one has ended.
///
/// # Errors
/// The URL is none, or the daemon says that the hello is wrong.
pub async fn run<P: ParticipantService>(
    worker: Worker,
    service: P,
    until: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    let channel = Endpoint::from_shared(worker.daemon.clone())
        .with_context(|| format!("{} is no URL", worker.daemon))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .connect_lazy();
    let mut client = RegistryServiceClient::new(channel).max_decoding_message_size(MESSAGE_MAX_BYTES);
    let service = Arc::new(service);
    let until = until.shared();
    let mut pause = PAUSE.0;
    loop {
        let mut shift = Shift::new(&worker, Arc::clone(&service));
        let ended = shift.work(&mut client, until.clone()).await;
        if until.peek().is_some() {
            return Ok(());
        }
        if let Err(status) = ended {
            if status.code() == Code::InvalidArgument {
                return Err(status).context("the daemon does not take this worker");
            }
            let (code, message) = (status.code(), status.message());
            tracing::warn!(%code, message, worker = worker.name, "the stream has ended: opening another");
        }
        if shift.was_welcome {
            pause = PAUSE.0;
        }
        tokio::select! {
            () = tokio::time::sleep(by_chance(pause)) => {}
            () = until.clone() => return Ok(()),
        }
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// Something between half of `pause` and all of it.
fn by_chance(pause: Duration) -> Duration {
    let chance = uuid::Uuid::new_v4().as_u128() % 1_000;
    pause / 2 + pause.mul_f64(chance as f64 / 2_000.0)
}

/// One stream, from the hello to its end.
struct Shift<'w, P> {
    worker: &'w Worker,
    service: Arc<P>,
    /// The steps at work, and what stops each.
    running: FuturesUnordered<BoxFuture<'static, (u64, Option<WorkerOutcome>)>>,
    stops: HashMap<u64, AbortHandle>,
    was_welcome: bool,
}

impl<'w, P: ParticipantService> Shift<'w, P> {
    fn new(worker: &'w Worker, service: Arc<P>) -> Self {
        let (running, stops) = (FuturesUnordered::new(), HashMap::new());
        Self { worker, service, running, stops, was_welcome: false }
    }

    /// Works until the stream ends; from when `until` completes it takes no more steps.
    async fn work(
        &mut self,
        client: &mut RegistryServiceClient<Channel>,
        until: impl Future<Output = ()>,
    ) -> Result<(), Status> {
        let (say, said) = mpsc::channel(MESSAGES_MAX);
        let first = OpenWorkerRequest { hello: Some(self.hello()), ..OpenWorkerRequest::default() };
        // A message that cannot be queued belongs to a stream that has ended, which the other side tells.
        let _ = say.send(first).await;
        let mut heard = client.open_worker(ReceiverStream::new(said)).await?.into_inner();
        let mut beats = tokio::time::interval(HEARTBEAT_EVERY);
        let mut is_leaving = false;
        tokio::pin!(until);
        loop {
            tokio::select! {
                biased;
                Some(done) = self.running.next(), if !self.running.is_empty() => {
                    let outcomes = self.all_done(done);
                    let _ = say.send(OpenWorkerRequest { outcomes, ..OpenWorkerRequest::default() }).await;
                }
                message = heard.message() => match message? {
                    Some(message) => {
                        if self.take(message) {
                            let _ = say.send(OpenWorkerRequest::default()).await;
                        }
                    }
                    None => return Ok(()),
                },
                () = &mut until, if !is_leaving => {
                    is_leaving = true;
                    let _ = say.send(OpenWorkerRequest { draining: true, ..OpenWorkerRequest::default() }).await;
                }
                _ = beats.tick(), if self.worker.heartbeats && !self.stops.is_empty() => {
                    let heartbeats = self.stops.keys().copied().collect();
                    let _ = say.send(OpenWorkerRequest { heartbeats, ..OpenWorkerRequest::default() }).await;
                }
            }
        }
    }

    fn hello(&self) -> WorkerHello {
        WorkerHello {
            participant: self.worker.participant.clone(),
            worker: self.worker.name.clone(),
            actions: self.worker.actions.clone(),
            max_in_flight: self.worker.max_in_flight,
        }
    }

    /// Begins what the daemon asks for. Says whether it wants a sign of life and nothing else.
    fn take(&mut self, message: OpenWorkerResponse) -> bool {
        let OpenWorkerResponse { welcome, cancelled, steps, draining } = message;
        let asks = welcome.is_none() && cancelled.is_empty() && steps.is_empty() && !draining;
        self.was_welcome |= welcome.is_some();
        for call_id in cancelled {
            if let Some(stop) = self.stops.remove(&call_id) {
                stop.abort();
            }
        }
        for WorkerStep { call_id, call } in steps {
            let (stop, stopped) = AbortHandle::new_pair();
            let work = do_step(Arc::clone(&self.service), call_id, call);
            let work = Abortable::new(work, stopped).map(move |done| (call_id, done.ok()));
            self.stops.insert(call_id, stop);
            self.running.push(work.boxed());
        }
        asks
    }

    /// This one and all others that are done, as far as they fit into one message.
    fn all_done(&mut self, first: (u64, Option<WorkerOutcome>)) -> Vec<WorkerOutcome> {
        let mut outcomes = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some((call_id, outcome)) = next {
            self.stops.remove(&call_id);
            // None: it was stopped, and nobody waits for it.
            if let Some(outcome) = outcome {
                if let Some(Outcome::Done(done)) = &outcome.outcome {
                    bytes += done.output_json.len();
                }
                outcomes.push(outcome);
            }
            if bytes > BATCH_MAX_BYTES {
                break;
            }
            next = self.running.next().now_or_never().flatten();
        }
        outcomes
    }
}

/// Answers of the three methods have outcomes of their own types.
macro_rules! outcome_of {
    ($module:ident, $response:expr) => {
        $response.into_inner().outcome.map(|outcome| match outcome {
            proto::$module::Outcome::Done(done) => Outcome::Done(done),
            proto::$module::Outcome::Refused(refused) => Outcome::Refused(refused),
            proto::$module::Outcome::Pending(pending) => Outcome::Pending(pending),
            proto::$module::Outcome::Superseded(superseded) => Outcome::Superseded(superseded),
        })
    };
}

async fn do_step<P: ParticipantService>(service: Arc<P>, call_id: u64, call: Option<Call>) -> WorkerOutcome {
    let done = match call {
        Some(Call::Execute(request)) => {
            let answer = service.execute(Request::new(request)).await;
            answer.map(|response| outcome_of!(execute_response, response))
        }
        Some(Call::Compensate(request)) => {
            let answer = service.compensate(Request::new(request)).await;
            answer.map(|response| outcome_of!(compensate_response, response))
        }
        Some(Call::Probe(request)) => match service.probe(Request::new(request)).await {
            Err(status) if status.code() == Code::Unimplemented => {
                Ok(Some(Outcome::Unimplemented(proto::Unimplemented {})))
            }
            answer => answer.map(|response| outcome_of!(probe_response, response)),
        },
        None => Err(Status::unimplemented("a step of a kind that this worker does not know")),
    };
    match done {
        Ok(outcome) => WorkerOutcome { call_id, outcome, error: String::new() },
        Err(status) => {
            let error = format!("{}: {}", proto::code_name(status.code()), status.message());
            WorkerOutcome { call_id, outcome: None, error }
        }
    }
}

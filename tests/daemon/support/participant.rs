//! A participant service in the test's own process: scripted, or a shop with a ledger.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use parking_lot::Mutex;
use sagad::proto::participant_service_server::{ParticipantService, ParticipantServiceServer};
use sagad::proto::{
    CompensateRequest, CompensateResponse, Done, ExecuteRequest, ExecuteResponse, HandlerAction, Pending,
    ProbeRequest, ProbeResponse, Protocol, Refused, RegisterHandlersRequest, Superseded, compensate_response,
    execute_response, probe_response,
};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};

use super::daemon::Daemon;

/// One call as the participant saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// `action`, `compensation` or `probe`.
    pub phase: &'static str,
    pub saga: String,
    pub step: String,
    pub action: String,
    pub key: String,
    /// The action's key, also in the action itself.
    pub action_key: String,
    pub attempt: u32,
    pub epoch: u64,
    pub input: String,
    pub action_input: String,
    pub action_output: String,
    pub token: String,
    pub labels: BTreeMap<String, String>,
    /// Whether the call named the time at which the caller gives up.
    pub has_deadline: bool,
}

/// What the participant answers.
#[derive(Debug, Clone)]
pub enum Answer {
    Done(String),
    Refused(&'static str, &'static str),
    Pending(Option<Duration>),
    Superseded,
    Nothing,
    Status(Code),
    /// Never, until the caller gives up.
    Hang,
    /// This, but only once the gate is open.
    Behind(Gate, Box<Answer>),
}

/// Holds answers back until a test lets them go.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    /// A closed one.
    pub fn closed() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Lets everything behind it go, now and later.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        *self.0.borrow()
    }

    /// `answer`, once the gate is open.
    pub fn then(&self, answer: Answer) -> Answer {
        Answer::Behind(self.clone(), Box::new(answer))
    }

    async fn passed(&self) {
        let opened = self.0.subscribe().wait_for(|is_open| *is_open).await.map(drop);
        opened.expect("the gate holds its own sender");
    }
}

impl Answer {
    /// Done with `{}`.
    pub fn done() -> Self {
        Self::Done("{}".to_owned())
    }

    /// Done with this JSON.
    pub fn with(json: &str) -> Self {
        Self::Done(json.to_owned())
    }
}

type Script = dyn Fn(&Call) -> Answer + Send + Sync;

/// A participant service that runs until it is dropped.
pub struct Participant {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
    server: tokio::task::JoinHandle<()>,
}

/// What a participant answers by, and what it was asked.
pub(super) struct State {
    script: Box<Script>,
    calls: Mutex<Vec<Call>>,
    count: watch::Sender<usize>,
}

impl Participant {
    /// Starts one that answers by `script`.
    pub async fn scripted(script: impl Fn(&Call) -> Answer + Send + Sync + 'static) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = State::by(script);
        let service = ParticipantServiceServer::new(Service(Arc::clone(&state)));
        let server = tokio::spawn(async move {
            let served = tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener));
            served.await.expect("the participant serves");
        });
        Ok(Self { address, state, server })
    }

    /// Registers it with the daemon under `name` for `actions`.
    pub async fn register(&self, daemon: &Daemon, name: &str, actions: &[&str]) -> Result<String> {
        self.register_narrow(daemon, name, actions, 0).await
    }

    /// The same, for so many calls at a time; 0 for the daemon's default.
    pub async fn register_narrow(
        &self,
        daemon: &Daemon,
        name: &str,
        actions: &[&str],
        max_in_flight: u32,
    ) -> Result<String> {
        let request = RegisterHandlersRequest {
            participant: name.to_owned(),
            endpoint: format!("http://{}", self.address),
            protocol: Protocol::Sagad.into(),
            actions: actions
                .iter()
                .map(|a| HandlerAction { name: (*a).to_owned(), ..Default::default() })
                .collect(),
            max_in_flight,
            ttl: Some(prost_types::Duration { seconds: 3600, nanos: 0 }),
            descriptor_set: Vec::new(),
        };
        Ok(daemon.registry().register_handlers(request).await?.into_inner().registration_id)
    }

    /// All calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.state.calls()
    }

    /// The calls of one saga so far.
    pub fn calls_of(&self, saga: &str) -> Vec<Call> {
        self.state.calls.lock().iter().filter(|call| call.saga == saga).cloned().collect()
    }

    /// Waits until a call that `wanted` picks has come.
    pub async fn seen(&self, wanted: impl Fn(&Call) -> bool) -> Call {
        self.state.seen(wanted).await
    }
}

impl Drop for Participant {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl State {
    pub(super) fn by(script: impl Fn(&Call) -> Answer + Send + Sync + 'static) -> Arc<Self> {
        let script = Box::new(script);
        Arc::new(Self { script, calls: Mutex::default(), count: watch::Sender::new(0) })
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        self.calls.lock().clone()
    }

    pub(super) async fn seen(&self, wanted: impl Fn(&Call) -> bool) -> Call {
        let mut count = self.count.subscribe();
        loop {
            if let Some(call) = self.calls.lock().iter().find(|call| wanted(call)) {
                return call.clone();
            }
            count.changed().await.expect("the participant lives as long as its state");
        }
    }

    async fn answer(&self, call: Call) -> Result<Answer, Status> {
        let mut answer = (self.script)(&call);
        self.calls.lock().push(call);
        self.count.send_modify(|count| *count += 1);
        while let Answer::Behind(gate, behind) = answer {
            gate.passed().await;
            answer = *behind;
        }
        match answer {
            Answer::Hang => std::future::pending().await,
            Answer::Status(code) => Err(Status::new(code, "scripted")),
            other => Ok(other),
        }
    }
}

pub(super) struct Service(pub(super) Arc<State>);

/// Turns an answer into the outcome of one response type.
macro_rules! outcome {
    ($module:ident, $answer:expr) => {
        match $answer {
            Answer::Done(output_json) => Some($module::Outcome::Done(Done { output_json })),
            Answer::Refused(code, message) => Some($module::Outcome::Refused(Refused {
                code: code.to_owned(),
                message: message.to_owned(),
            })),
            Answer::Pending(after) => Some($module::Outcome::Pending(Pending {
                check_after: after.map(|d| prost_types::Duration::try_from(d).expect("a short time")),
            })),
            Answer::Superseded => Some($module::Outcome::Superseded(Superseded {})),
            Answer::Nothing | Answer::Status(_) | Answer::Hang | Answer::Behind(..) => None,
        }
    };
}

#[tonic::async_trait]
impl ParticipantService for Service {
    async fn execute(&self, request: Request<ExecuteRequest>) -> Result<Response<ExecuteResponse>, Status> {
        let r = request.into_inner();
        let call = Call {
            phase: "action",
            saga: r.saga_id,
            step: r.step,
            action: r.action,
            action_key: r.idempotency_key.clone(),
            key: r.idempotency_key,
            attempt: r.attempt,
            epoch: r.epoch,
            input: r.input_json,
            action_input: String::new(),
            action_output: String::new(),
            token: r.token,
            labels: r.labels.into_iter().collect(),
            has_deadline: r.deadline.is_some(),
        };
        let answer = self.0.answer(call).await?;
        Ok(Response::new(ExecuteResponse { outcome: outcome!(execute_response, answer) }))
    }

    async fn compensate(
        &self,
        request: Request<CompensateRequest>,
    ) -> Result<Response<CompensateResponse>, Status> {
        let r = request.into_inner();
        let call = Call {
            phase: "compensation",
            saga: r.saga_id,
            step: r.step,
            action: r.action,
            key: r.idempotency_key,
            action_key: r.action_idempotency_key,
            attempt: r.attempt,
            epoch: r.epoch,
            input: r.input_json,
            action_input: r.action_input_json,
            action_output: r.action_output_json,
            token: r.token,
            labels: r.labels.into_iter().collect(),
            has_deadline: r.deadline.is_some(),
        };
        let answer = self.0.answer(call).await?;
        Ok(Response::new(CompensateResponse { outcome: outcome!(compensate_response, answer) }))
    }

    async fn probe(&self, request: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        let r = request.into_inner();
        let call = Call {
            phase: "probe",
            saga: r.saga_id,
            step: r.step,
            action: r.action,
            key: r.idempotency_key,
            action_key: r.action_idempotency_key,
            attempt: r.attempt,
            epoch: r.epoch,
            input: r.input_json,
            action_input: r.action_input_json,
            action_output: r.action_output_json,
            token: r.token,
            labels: r.labels.into_iter().collect(),
            has_deadline: r.deadline.is_some(),
        };
        let answer = self.0.answer(call).await?;
        Ok(Response::new(ProbeResponse { outcome: outcome!(probe_response, answer) }))
    }
}

/// A barrier in memory: each effect and each undo counted by the action's key.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: Mutex<HashMap<String, Entry>>,
}

/// What a ledger holds of one action.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    pub saga: String,
    pub step: String,
    pub effects: u32,
    pub undos: u32,
    refused: bool,
    is_closed: bool,
    /// The last attempt and its epoch.
    last: (u32, u64),
    /// Attempts or epochs that did not grow: before and after.
    pub repeats: Vec<((u32, u64), (u32, u64))>,
}

impl Ledger {
    /// Answers a call as a participant with the barrier does; `is_refused` is the business check.
    pub fn answer(&self, call: &Call, is_refused: bool) -> Answer {
        let mut entries = self.entries.lock();
        let entry = entries.entry(call.action_key.clone()).or_default();
        entry.saga.clone_from(&call.saga);
        entry.step.clone_from(&call.step);
        match call.phase {
            "action" => {
                let this = (call.attempt, call.epoch);
                if this.0 <= entry.last.0 || this.1 < entry.last.1 {
                    entry.repeats.push((entry.last, this));
                }
                entry.last = this;
                if entry.is_closed {
                    return Answer::Superseded;
                }
                if entry.refused || (entry.effects == 0 && is_refused) {
                    entry.refused = true;
                    return Answer::Refused("OUT_OF_STOCK", "nothing left");
                }
                entry.effects = 1;
                Answer::Done(format!("{{\"key\":\"{}\"}}", call.key))
            }
            "compensation" => {
                if !entry.is_closed {
                    entry.is_closed = true;
                    entry.undos += entry.effects;
                }
                Answer::done()
            }
            _ if entry.effects > entry.undos => Answer::done(),
            _ => {
                entry.is_closed = true;
                Answer::Refused("NO_EFFECT", "it never happened")
            }
        }
    }

    /// Everything in it.
    pub fn entries(&self) -> Vec<Entry> {
        self.entries.lock().values().cloned().collect()
    }
}

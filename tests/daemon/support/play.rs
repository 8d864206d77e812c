//! One test's own definition and participant on a daemon, and what a client asks about its sagas.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use sagad::proto::{
    Block, CancelSagaRequest, Definition, ExplainRequest, ExplainResponse, GetSagaRequest,
    RegisterDefinitionRequest, RepairAct, RepairRequest, RepairResponse, Saga, SagaEvent, SagaStatus,
    StartSagaRequest, StartSagaResponse, Step, StepStatus, WaitFor, WaitSagaRequest, WatchSagaRequest,
};
use tonic::Status;
use tonic_types::StatusExt as _;

use super::daemon::Daemon;
use super::participant::{Answer, Call, Participant};

/// How long anything may take that a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// The longest nap between two looks at a condition that no event announces.
const LOOK: Duration = Duration::from_millis(25);

static COUNTER: AtomicU64 = AtomicU64::new(0);

/// A name that no other test of this process uses.
pub fn unique(stem: &str) -> String {
    format!("{stem}-{}", COUNTER.fetch_add(1, Ordering::Relaxed))
}

/// A definition and a scripted participant with names of their own.
pub struct Play<'d> {
    pub daemon: &'d Daemon,
    /// The participant that `call: shop.…` in the source means.
    pub shop: Participant,
    /// The participant's name.
    pub participant: String,
    /// The definition's name.
    pub name: String,
}

impl<'d> Play<'d> {
    /// Registers a participant for everything that `body` calls at `shop`, and `body` as a
    /// definition; `body` is a definition file without its first line.
    pub async fn on(
        daemon: &'d Daemon,
        body: &str,
        script: impl Fn(&Call) -> Answer + Send + Sync + 'static,
    ) -> Result<Self> {
        let play = Self::unregistered(daemon, script).await?;
        play.register_shop(body).await?;
        play.define(body).await?;
        Ok(play)
    }

    /// Only the participant, not yet known to the daemon.
    pub async fn unregistered(
        daemon: &'d Daemon,
        script: impl Fn(&Call) -> Answer + Send + Sync + 'static,
    ) -> Result<Self> {
        let shop = Participant::scripted(script).await?;
        Ok(Self { daemon, shop, participant: unique("shop"), name: unique("play") })
    }

    /// Registers the participant for everything that `body` calls at `shop`.
    pub async fn register_shop(&self, body: &str) -> Result<String> {
        let calls = body.split("call: shop.").skip(1);
        let names = calls.map(|rest| rest.split([',', ' ', '}', '\n']).next().unwrap_or_default());
        let names: BTreeSet<&str> = names.collect();
        let names: Vec<&str> = names.into_iter().collect();
        self.shop.register(self.daemon, &self.participant, &names).await
    }

    /// The full source that `body` stands for.
    pub fn source(&self, body: &str) -> String {
        format!(
            "saga: {}\n{}",
            self.name,
            body.replace("call: shop.", &format!("call: {}.", self.participant))
        )
    }

    /// Registers a further version.
    pub async fn define(&self, body: &str) -> Result<Definition> {
        let request = RegisterDefinitionRequest { source: self.source(body), validate_only: false };
        let answer = self.daemon.definitions().register_definition(request).await;
        let answer = answer.map_err(|status| refused(&status))?.into_inner();
        answer.definition.context("a definition in the answer")
    }

    /// A saga id of this test's own.
    pub fn id(&self, end: &str) -> String {
        format!("{}/{end}", self.name)
    }

    /// A start of this definition.
    pub fn request(&self, end: &str, input: &str) -> StartSagaRequest {
        StartSagaRequest {
            saga_id: self.id(end),
            definition: self.name.clone(),
            input_json: input.to_owned(),
            ..StartSagaRequest::default()
        }
    }

    /// Sends a start as it is.
    pub async fn send(&self, request: StartSagaRequest) -> Result<StartSagaResponse, Status> {
        Ok(self.daemon.sagas().start_saga(request).await?.into_inner())
    }

    /// Starts a saga and gives its id.
    pub async fn start(&self, end: &str, input: &str) -> Result<String> {
        let answer = self.send(self.request(end, input)).await.map_err(|status| refused(&status))?;
        Ok(answer.saga.context("a saga in the answer")?.saga_id)
    }

    /// Starts a saga and waits for its end.
    pub async fn run(&self, end: &str, input: &str) -> Result<Saga> {
        let id = self.start(end, input).await?;
        self.ended(&id).await
    }

    /// The saga as it stands.
    pub async fn get(&self, id: &str) -> Result<Saga> {
        get(self.daemon, id).await
    }

    /// The saga once it has ended.
    pub async fn ended(&self, id: &str) -> Result<Saga> {
        let saga = self.wait(id, WaitFor::Ended, PATIENCE).await?;
        if !is_terminal(&saga) {
            bail!("{id} does not end: {saga:#?}\n{:#?}", self.words(id).await?);
        }
        Ok(saga)
    }

    /// The saga once it is committed or has ended.
    pub async fn committed(&self, id: &str) -> Result<Saga> {
        self.wait(id, WaitFor::Committed, PATIENCE).await
    }

    /// One `WaitSaga`.
    pub async fn wait(&self, id: &str, wait_for: WaitFor, timeout: Duration) -> Result<Saga> {
        let request = WaitSagaRequest {
            saga_id: id.to_owned(),
            wait_for: wait_for.into(),
            timeout: Some(span(timeout)),
        };
        let answer = self.daemon.sagas().wait_saga(request).await.map_err(|status| refused(&status))?;
        answer.into_inner().saga.context("a saga in the answer")
    }

    /// The saga as soon as it is as `wanted` says.
    pub async fn until(&self, id: &str, wanted: impl Fn(&Saga) -> bool) -> Result<Saga> {
        let looking = async {
            loop {
                let saga = self.get(id).await?;
                if wanted(&saga) {
                    return Ok(saga);
                }
                // A short wait at the daemon in place of a sleep here: an end is seen at once.
                self.wait(id, WaitFor::Ended, LOOK).await?;
            }
        };
        match tokio::time::timeout(PATIENCE, looking).await {
            Ok(found) => found,
            Err(_) => bail!("{id} never got there: {:#?}\n{:#?}", self.get(id).await?, self.words(id).await?),
        }
    }

    /// The saga once something of it waits for an operator.
    pub async fn blocked(&self, id: &str) -> Result<Saga> {
        self.until(id, |saga| saga.status() == SagaStatus::Blocked).await
    }

    /// The stored history.
    pub async fn history(&self, id: &str) -> Result<Vec<SagaEvent>> {
        history(self.daemon, id, 0).await
    }

    /// The history as `type` or `type step`.
    pub async fn words(&self, id: &str) -> Result<Vec<String>> {
        let history = self.history(id).await?;
        Ok(history.iter().map(|e| format!("{} {}", e.r#type, e.step).trim_end().to_owned()).collect())
    }

    /// Cancels it.
    pub async fn cancel(&self, id: &str) -> Result<Saga, Status> {
        let request = CancelSagaRequest { saga_id: id.to_owned(), reason: "a test wants it".to_owned() };
        let answer = self.daemon.sagas().cancel_saga(request).await?.into_inner();
        answer.saga.ok_or_else(|| Status::internal("no saga in the answer"))
    }

    /// An act on a saga with a reason.
    #[expect(clippy::unused_self, reason = "it reads as the play's own act")]
    pub fn act(&self, id: &str, act: RepairAct, step: &str) -> RepairRequest {
        RepairRequest {
            saga_id: id.to_owned(),
            act: act.into(),
            step: step.to_owned(),
            reason: "looked it up".to_owned(),
            actor: "mina".to_owned(),
            ..RepairRequest::default()
        }
    }

    /// Sends an act as it is.
    pub async fn repair(&self, request: RepairRequest) -> Result<RepairResponse, Status> {
        Ok(self.daemon.operations().repair(request).await?.into_inner())
    }

    /// Why it stands where it stands.
    pub async fn explain(&self, id: &str) -> Result<ExplainResponse> {
        let request = ExplainRequest { saga_id: id.to_owned() };
        Ok(self.daemon.operations().explain(request).await?.into_inner())
    }

    /// The calls that came for this saga, as `phase step`.
    pub fn called(&self, id: &str) -> Vec<String> {
        self.shop.calls_of(id).iter().map(|call| format!("{} {}", call.phase, call.step)).collect()
    }
}

/// Reads a saga.
pub async fn get(daemon: &Daemon, id: &str) -> Result<Saga> {
    let answer = daemon.sagas().get_saga(GetSagaRequest { saga_id: id.to_owned() }).await;
    answer.map_err(|status| refused(&status))?.into_inner().saga.context("a saga in the answer")
}

/// What is stored of a saga's history behind `after_seq`.
pub async fn history(daemon: &Daemon, id: &str, after_seq: u64) -> Result<Vec<SagaEvent>> {
    let request = WatchSagaRequest { saga_id: id.to_owned(), after_seq, follow: false };
    let mut stream = daemon.sagas().watch_saga(request).await?.into_inner();
    let mut events = Vec::new();
    while let Some(message) = stream.message().await? {
        events.push(message.event.context("an event in each message")?);
    }
    Ok(events)
}

/// The step called `name`.
pub fn step<'s>(saga: &'s Saga, name: &str) -> &'s Step {
    let found = saga.steps.iter().find(|step| step.name == name);
    found.unwrap_or_else(|| panic!("no step {name} in {saga:#?}"))
}

/// Where each step stands, in order.
pub fn statuses(saga: &Saga) -> Vec<StepStatus> {
    saga.steps.iter().map(Step::status).collect()
}

/// The blocks as `phase step`.
pub fn blocks(saga: &Saga) -> Vec<String> {
    saga.blocked.iter().map(|Block { step, phase, .. }| format!("{phase} {step}")).collect()
}

/// The code of the saga's failure; empty without one.
pub fn failure_code(saga: &Saga) -> &str {
    saga.failure.as_ref().map_or("", |failure| &failure.code)
}

/// Whether it has ended.
pub fn is_terminal(saga: &Saga) -> bool {
    matches!(saga.status(), SagaStatus::Completed | SagaStatus::Compensated | SagaStatus::Abandoned)
}

/// The fields that a status says are wrong.
pub fn violations(status: &Status) -> Vec<String> {
    let details = status.get_details_bad_request();
    details.map(|d| d.field_violations.into_iter().map(|v| v.field).collect()).unwrap_or_default()
}

/// A span as the wire carries it.
pub fn span(span: Duration) -> prost_types::Duration {
    span.try_into().expect("a short time")
}

/// A span of milliseconds as the wire carries it.
pub fn ms(millis: u64) -> prost_types::Duration {
    span(Duration::from_millis(millis))
}

/// A time as one number that can be compared.
pub fn nanos(at: prost_types::Timestamp) -> i128 {
    i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos)
}

fn refused(status: &Status) -> anyhow::Error {
    let fields = status.get_details_bad_request();
    anyhow::anyhow!("{:?}: {} {fields:?}", status.code(), status.message())
}

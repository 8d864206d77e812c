//! The service that is tried out, called as the daemon calls it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Case, Ended, Exchange, Finding, Plan, Verdict};
use crate::clock::{SharedClock, Stopwatch};
use crate::participant::Outgoing;
use crate::participant::client::Client;
use crate::participant::handlers::{Protocol, Target};
use crate::participant::outcome::{cut, no_answer_within};
use crate::saga::ids::{ActionName, DefinitionName, InstanceRef, StepIx};
use crate::saga::input::CallDuty;
use crate::saga::json::Json;
use crate::saga::keys::idempotency_key;
use crate::saga::words::{Outcome, Phase};
use crate::tasks::Tasks;

/// Shortest and longest time between two calls with the same key.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// What is shown of an input or an output, in characters.
const SHOWN_MAX_CHARS: usize = 300;

/// See the module.
pub(super) struct Subject {
    pub(super) plan: Plan,
    clock: SharedClock,
    client: Arc<Client>,
    tasks: Tasks,
    /// The calls of the running case.
    exchanges: Vec<Exchange>,
    /// What each step has done.
    steps: BTreeMap<&'static str, Step>,
    works: bool,
}

/// What is remembered of a step's calls.
#[derive(Debug, Clone, Default)]
struct Step {
    /// Attempts of the action, the compensation and the probe.
    attempts: [u32; 3],
    input: Option<Json>,
    output: Option<Json>,
    /// Whether its effect may be there.
    has_effect: bool,
}

impl Subject {
    pub(super) fn new(plan: Plan, clock: SharedClock) -> Self {
        let tasks = Tasks::new();
        let client = Arc::new(Client::new(plan.handlers.protocol, &plan.handlers.endpoint, &tasks));
        let (exchanges, steps) = (Vec::new(), BTreeMap::new());
        Self { plan, clock, client, tasks, exchanges, steps, works: false }
    }

    /// Closes the connections.
    pub(super) fn stop(&self) {
        self.tasks.stop();
    }

    /// Whether the action has its effect with the plan's input.
    pub(super) fn works(&self) -> bool {
        self.works
    }

    pub(super) fn it_works(&mut self) {
        self.works = true;
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.plan.handlers.protocol
    }

    /// The end of a case with the calls that were made since the last one.
    pub(super) fn finding(&mut self, case: Case, ended: Ended) -> Finding {
        let (verdict, problem, remedy) = match ended {
            Ended::Well => (Verdict::Passed, String::new(), String::new()),
            Ended::Badly { problem, remedy } => (Verdict::Failed, problem, remedy),
            Ended::Untried(why) => (Verdict::NotTested, why, String::new()),
        };
        let exchanges = std::mem::take(&mut self.exchanges);
        let Case { name, rule, why } = case;
        Finding { name, rule, verdict, exchanges, problem, why, remedy }
    }

    /// Calls the action under the key of `step`.
    pub(super) async fn act(&mut self, step: &'static str, input: &Json) -> Outcome {
        let action = self.plan.action.clone();
        self.act_as(step, &action, input).await
    }

    /// The same, whatever action.
    pub(super) async fn act_as(&mut self, step: &'static str, action: &ActionName, input: &Json) -> Outcome {
        let outgoing = self.outgoing(step, Phase::Action, action, input);
        self.call(step, outgoing).await
    }

    /// Calls the action `times` times at once under one key.
    pub(super) async fn act_at_once(
        &mut self,
        step: &'static str,
        input: &Json,
        times: usize,
    ) -> Vec<Outcome> {
        let action = self.plan.action.clone();
        let calls: Vec<_> = (0..times).map(|_| self.outgoing(step, Phase::Action, &action, input)).collect();
        let outcomes = futures::future::join_all(calls.iter().map(|call| self.exchange(call.clone()))).await;
        for (call, outcome) in calls.iter().zip(&outcomes) {
            self.note(step, call, outcome);
        }
        outcomes
    }

    /// Calls the action and hangs up after `patience`, if it has not answered by then.
    pub(super) async fn act_and_abandon(
        &mut self,
        step: &'static str,
        input: &Json,
        patience: Duration,
    ) -> Option<Outcome> {
        let action = self.plan.action.clone();
        let call = self.outgoing(step, Phase::Action, &action, input);
        let outcome = tokio::time::timeout(patience, self.exchange(call.clone())).await.ok();
        let known =
            outcome.clone().unwrap_or_else(|| Outcome::Unknown(format!("abandoned after {patience:?}")));
        self.note(step, &call, &known);
        outcome
    }

    /// Calls the action until its outcome is certain, or as long as the plan's patience lasts.
    pub(super) async fn settle(&mut self, step: &'static str, input: &Json) -> Outcome {
        let action = self.plan.action.clone();
        self.persist(step, Phase::Action, &action, input).await
    }

    /// Calls the compensation of `step` in the same way; `None` when the plan has none.
    pub(super) async fn undo(&mut self, step: &'static str) -> Option<Outcome> {
        let action = self.plan.compensation.clone()?;
        let acted = self.steps.get(step).and_then(|known| known.input.clone());
        let input = self.plan.compensation_input.clone().or(acted).unwrap_or_else(|| self.plan.input.clone());
        Some(self.persist(step, Phase::Compensation, &action, &input).await)
    }

    async fn persist(
        &mut self,
        step: &'static str,
        phase: Phase,
        action: &ActionName,
        input: &Json,
    ) -> Outcome {
        let watch = Stopwatch::start();
        let mut pause = PAUSE_MIN;
        loop {
            let outgoing = self.outgoing(step, phase, action, input);
            let outcome = self.call(step, outgoing).await;
            let wait = match &outcome {
                Outcome::Done(_) | Outcome::Refused(_) | Outcome::Unsupported => return outcome,
                Outcome::Pending(after) => after.unwrap_or(pause).clamp(PAUSE_MIN, PAUSE_MAX),
                Outcome::Unknown(_) | Outcome::Unsent(_) => pause,
            };
            if watch.elapsed() + wait > self.plan.patience {
                return outcome;
            }
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Asks whether the effect of `step` is there.
    pub(super) async fn probe(&mut self, step: &'static str) -> Outcome {
        let action = self.plan.action.clone();
        let input = self.plan.input.clone();
        let mut outgoing = self.outgoing(step, Phase::Probe, &action, &input);
        outgoing.duty.is_named = false;
        self.call(step, outgoing).await
    }

    /// The steps whose effect may be there.
    pub(super) fn with_effect(&self) -> Vec<&'static str> {
        self.steps.iter().filter(|(_, step)| step.has_effect).map(|(name, _)| *name).collect()
    }

    async fn call(&mut self, step: &'static str, outgoing: Outgoing) -> Outcome {
        let outcome = self.exchange(outgoing.clone()).await;
        self.note(step, &outgoing, &outcome);
        outcome
    }

    async fn exchange(&self, outgoing: Outgoing) -> Outcome {
        let timeout = outgoing.duty.timeout;
        // An action that the plan does not offer leads where its first one does.
        let target = self.plan.handlers.actions.get(&outgoing.duty.action);
        let target = target.or_else(|| self.plan.handlers.actions.values().next());
        let Some(target): Option<&Arc<Target>> = target else { return Outcome::Unsupported };
        let call = self.client.call(outgoing, &target.route, self.clock.now());
        tokio::time::timeout(timeout, call).await.unwrap_or_else(|_passed| no_answer_within(timeout))
    }

    fn note(&mut self, step: &'static str, outgoing: &Outgoing, outcome: &Outcome) {
        let known = self.steps.entry(step).or_default();
        match (outgoing.duty.phase, outcome) {
            (Phase::Action, Outcome::Done(output)) => {
                known.output = Some(output.clone());
                known.has_effect = true;
            }
            // Garbage that broke something is not undone with the same garbage.
            (Phase::Action, Outcome::Pending(_) | Outcome::Unknown(_)) => {
                let input = outgoing.duty.input.text();
                let meant = [Some(&self.plan.input), self.plan.refused_input.as_ref()];
                known.has_effect |= meant.into_iter().flatten().any(|meant| meant.text() == input);
            }
            (Phase::Compensation, Outcome::Done(_)) => known.has_effect = false,
            _ => {}
        }
        let duty = &outgoing.duty;
        let sent = format!(
            "{} {}, key {}, attempt {}, input {}",
            duty.phase.as_str(),
            duty.action,
            outgoing.key,
            duty.attempt,
            cut(duty.input.text(), SHOWN_MAX_CHARS)
        );
        self.exchanges.push(Exchange { sent, got: told(outcome) });
    }

    fn outgoing(&mut self, step: &'static str, phase: Phase, action: &ActionName, input: &Json) -> Outgoing {
        let known = self.steps.entry(step).or_default();
        let attempt = match phase {
            Phase::Action => &mut known.attempts[0],
            Phase::Compensation => &mut known.attempts[1],
            Phase::Probe => &mut known.attempts[2],
        };
        *attempt += 1;
        let attempt = *attempt;
        if phase == Phase::Action {
            known.input = Some(input.clone());
        }
        let follows_up = phase != Phase::Action;
        let plan = &self.plan;
        Outgoing {
            saga_id: plan.saga_id.clone(),
            definition: DefinitionName::parse("check").expect("a good name"),
            labels: Arc::default(),
            key: idempotency_key(&plan.saga_id, step, phase),
            action_key: idempotency_key(&plan.saga_id, step, Phase::Action),
            // No daemon has made it: who completes a step by it is told that it is unknown.
            token: format!("check.{step}"),
            duty: CallDuty {
                at: InstanceRef { step: StepIx(0), item: None },
                phase,
                attempt,
                epoch: 1,
                participant: plan.handlers.participant.clone(),
                action: action.clone(),
                is_named: true,
                step: step.to_owned(),
                input: input.clone(),
                action_input: follows_up.then(|| known.input.clone().unwrap_or_else(|| plan.input.clone())),
                action_output: known.output.clone().filter(|_| follows_up),
                timeout: plan.timeout,
            },
        }
    }
}

/// An outcome, for people.
pub(super) fn told(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done(output) => format!("done {}", cut(output.text(), SHOWN_MAX_CHARS)),
        Outcome::Refused(refusal) => format!("refused {}: {}", refusal.code, refusal.message),
        Outcome::Pending(None) => "pending".to_owned(),
        Outcome::Pending(Some(after)) => format!("pending, look again in {after:?}"),
        Outcome::Unknown(cause) | Outcome::Unsent(cause) => format!("unknown: {cause}"),
        Outcome::Unsupported => "there is no probe".to_owned(),
    }
}

//! `PROTOCOL_GRPC`: the daemon as a client of any unary method of a service that never heard of it.
//!
//! ```text
//! route    what an action says: the method, and which statuses mean what
//! learned  the types behind an endpoint ─► reflection (asked there) ─► files (put together)
//! given    the same from a descriptor set that came with the registration
//! request  JSON ─► message        response  message ─► JSON
//! answers  status ─► outcome
//! ```
//! Nothing is generated: a call costs a look at the types, which are kept, and one exchange.

mod answers;
mod editions;
mod files;
mod given;
mod learned;
mod reflection;
mod request;
mod response;
mod route;
mod types;

use std::time::Duration;

use bytes::Bytes;
use prost_reflect::{DynamicMessage, MethodDescriptor};
use tonic::Code;

pub use given::DescriptorSet;
use learned::{Learned, TypesError};
pub(super) use route::Route;

use super::handlers::{Endpoint, FieldProblem, Handlers};
use super::outcome::{MESSAGE_MAX_CHARS, cut, output};
use super::wire::{self, Answer, NoAnswer, Question};
use super::{Outgoing, keys};
use crate::saga::json::Json;
use crate::saga::words::{Outcome, Phase, Refusal, codes};
use crate::tasks::Tasks;

/// Longest time for the types of one registration to be learned.
const CHECK_MAX: Duration = Duration::from_secs(5);

/// The connections to one endpoint, and the types it is known to have.
#[derive(Debug)]
pub(super) struct Client {
    learned: Learned,
}

/// A call that was not sent, and will not be while things are as they are.
enum Unsent {
    /// What the method takes is not known, or not known for certain.
    NoTypes(String),
    /// The input cannot be written as the method's request, as the service itself describes it.
    Mismatch(String),
}

/// Why a registration is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unoffered {
    /// These actions lead nowhere.
    Wrong(Vec<FieldProblem>),
    /// The endpoint could not be asked.
    NotAsked(String),
}

impl Client {
    /// Connects to nothing yet.
    pub(super) fn new(endpoint: &Endpoint, tasks: &Tasks) -> Self {
        Self { learned: Learned::new(endpoint, tasks) }
    }

    /// Has the types learned again before the next call: the service may be another one now.
    pub(super) fn forget_types(&self) {
        self.learned.forget();
    }

    /// Makes the call and says what is known after it, however long it takes: the caller has the clock.
    pub(super) async fn call(&self, outgoing: &Outgoing, route: &Route) -> Outcome {
        let phase = outgoing.duty.phase;
        if phase == Phase::Probe && !outgoing.duty.is_named {
            // Only the definition can say what asks for the effect: to call the action would cause it.
            return Outcome::Unsupported;
        }
        // Opened first: that the connection had to be made again may say that the types are new.
        let (exchange, unanswered) = match self.learned.line().open().await {
            Ok(opened) => opened,
            Err(status) => return Outcome::Unknown(answers::in_words(&status)),
        };
        let made = self.request(route, &outgoing.duty.input).await;
        let (method, request) = match made {
            Ok(made) => made,
            Err(unsent) => {
                unanswered.answered();
                return not_sent(phase, unsent);
            }
        };
        let question = question(outgoing, route, &request);
        drop(request);
        let answer = wire::ask(exchange, self.learned.origin(), question).await;
        unanswered.answered();
        self.meaning(phase, route, &method, answer).await
    }

    /// Whether all actions of a registration lead to methods that there are.
    ///
    /// # Errors
    /// Which do not, or why that cannot be told.
    pub(super) async fn check(&self, handlers: &Handlers) -> Result<(), Unoffered> {
        let asked = tokio::time::timeout(CHECK_MAX, self.wrong_targets(handlers)).await;
        let wrong = asked.unwrap_or_else(|_passed| {
            Err(format!("no answer within {}", humantime::format_duration(CHECK_MAX)))
        });
        match wrong {
            Ok(wrong) if wrong.is_empty() => Ok(()),
            Ok(wrong) => Err(Unoffered::Wrong(wrong)),
            Err(cause) => Err(Unoffered::NotAsked(cause)),
        }
    }

    async fn wrong_targets(&self, handlers: &Handlers) -> Result<Vec<FieldProblem>, String> {
        let mut wrong = Vec::new();
        for (target, route) in handlers.grpc_routes() {
            // What was given was looked at when it was read.
            if route.given.is_some() {
                continue;
            }
            let found = match self.learned.types(&route.method.service, &[]).await {
                Ok(types) => types::unary(&types.pool, &route.method).map(drop),
                Err(TypesError::NoService(problem)) => Err(problem),
                Err(TypesError::NotLearned(cause)) => return Err(cause),
            };
            if let Err(problem) = found {
                wrong.push((target.position, problem));
            }
        }
        wrong.sort();
        let named =
            |(at, problem): (usize, String)| FieldProblem::new(format!("actions[{at}].target"), problem);
        Ok(wrong.into_iter().map(named).collect())
    }

    /// The method and its request. Types that are kept may be old ones: what does not fit is
    /// tried once more with new ones.
    async fn request(
        &self,
        route: &Route,
        input: &Json,
    ) -> Result<(MethodDescriptor, DynamicMessage), Unsent> {
        if let Some(set) = &route.given {
            let method = types::unary(&set.pool, &route.method).map_err(Unsent::NoTypes)?;
            let request = request::message(&method.input(), input).map_err(Unsent::Mismatch)?;
            return Ok((method, request));
        }
        let mentioned = request::any_types(input);
        let known = self.learned.known();
        let first = self.attempt(route, input, &mentioned).await;
        let is_from_before = known.is_some_and(|known| self.learned.is_still(&known));
        if first.is_err() && is_from_before {
            self.learned.forget();
            return self.attempt(route, input, &mentioned).await;
        }
        first
    }

    async fn attempt(
        &self,
        route: &Route,
        input: &Json,
        mentioned: &[String],
    ) -> Result<(MethodDescriptor, DynamicMessage), Unsent> {
        let types = self.learned.types(&route.method.service, mentioned).await;
        let types = types.map_err(|(TypesError::NoService(cause) | TypesError::NotLearned(cause))| {
            Unsent::NoTypes(cause)
        })?;
        let method = types::unary(&types.pool, &route.method).map_err(Unsent::NoTypes)?;
        let request = request::message(&method.input(), input).map_err(|problem| {
            if types.is_confirmed {
                return Unsent::Mismatch(problem);
            }
            Unsent::NoTypes(format!(
                "{problem}; these types are old, and it could not be asked for its newer ones"
            ))
        })?;
        Ok((method, request))
    }

    /// The table, for an answer and for none.
    async fn meaning(
        &self,
        phase: Phase,
        route: &Route,
        method: &MethodDescriptor,
        answer: Result<Answer, NoAnswer>,
    ) -> Outcome {
        match answer {
            Ok(answer) if answer.status.code == Code::Ok => match answer.only() {
                Ok(message) => self.done(route, method, message).await,
                Err(cause) => Outcome::Unknown(cause),
            },
            Ok(answer) => {
                if answer.status.code == Code::Unimplemented {
                    self.learned.forget();
                }
                route.answers.outcome(phase, &answer.status)
            }
            Err(NoAnswer::NotGrpc(cause) | NoAnswer::Broken(cause)) => {
                Outcome::Unknown(cut(&cause, MESSAGE_MAX_CHARS))
            }
        }
    }

    /// The response as the call's output. One that cannot be read is read once more with new types.
    async fn done(&self, route: &Route, method: &MethodDescriptor, message: &Bytes) -> Outcome {
        let mut read = response::read(&method.output(), message);
        let unknown = read.as_ref().map(response::unknown_anys).unwrap_or_default();
        if route.given.is_none() && (read.is_err() || !unknown.is_empty()) {
            if read.is_err() {
                self.learned.forget();
            }
            if let Ok(types) = self.learned.types(&route.method.service, &unknown).await
                && let Ok(method) = types::unary(&types.pool, &route.method)
            {
                read = response::read(&method.output(), message);
            }
        }
        match read.and_then(|response| response::json(&response)) {
            Ok(tree) => output(&tree.to_string()),
            Err(problem) => Outcome::Unknown(cut(&problem, MESSAGE_MAX_CHARS)),
        }
    }
}

fn question(outgoing: &Outgoing, route: &Route, request: &DynamicMessage) -> Question {
    let mut headers = keys::headers(outgoing);
    wire::give_time(&mut headers, outgoing.duty.timeout);
    Question::unary(route.method.path(), headers, request)
}

/// Nothing was sent, so an action has no effect and a compensation undid none; to a probe it is no
/// answer at all.
fn not_sent(phase: Phase, unsent: Unsent) -> Outcome {
    match unsent {
        Unsent::Mismatch(problem) if phase != Phase::Probe => Outcome::Refused(Refusal {
            code: codes::INPUT_MISMATCH.to_owned(),
            message: cut(&format!("not sent: {problem}"), MESSAGE_MAX_CHARS),
        }),
        Unsent::NoTypes(cause) | Unsent::Mismatch(cause) => {
            Outcome::Unknown(cut(&format!("not sent: {cause}"), MESSAGE_MAX_CHARS))
        }
    }
}

#[cfg(test)]
mod tests;

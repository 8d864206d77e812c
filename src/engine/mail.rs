//! What a shard is told, and the two boxes it comes in.
//!
//! Requests of clients come in a bounded box and are refused when it is full. Mail from inside
//! (replies, wake-ups, granted locks, loaded sagas) has a box of its own that never refuses: it is
//! bounded by what is in flight, and losing a reply would lose what is known of an effect.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::error::EngineError;
use super::load::Loaded;
use super::published::Live;
use super::settings::RETRY_AFTER;
use crate::saga::definition::Definition;
use crate::saga::event::Started;
use crate::saga::ids::{LockKey, SagaId, Timestamp};
use crate::saga::input::{Act, Completion, Input};
use crate::saga::json::Json;
use crate::saga::state::Saga;
use crate::saga::words::Phase;

/// One piece of mail.
pub(super) enum Mail {
    /// A client asks.
    Request(Request),
    /// Something happened that concerns one saga.
    Feed { id: SagaId, input: Input },
    /// A saga was read from the store, or could not be.
    Loaded { id: SagaId, result: Loaded },
    /// The recovery wants this saga in memory; the permit is given back when it is.
    Recover { id: SagaId, permit: OwnedSemaphorePermit },
    /// Some participant may be back.
    LookAtParked,
    /// Check that something comes next for every saga.
    Sweep,
}

/// A client's request about one saga.
pub(super) struct Request {
    pub(super) id: SagaId,
    pub(super) ask: Ask,
    pub(super) posted_at: Timestamp,
    pub(super) answer: oneshot::Sender<Result<Accepted, EngineError>>,
}

/// What a client may ask of a saga.
#[derive(Clone)]
pub(super) enum Ask {
    /// Start it.
    Start(Arc<StartOrder>),
    /// Have it in memory, to follow it.
    Follow,
    /// Undo it.
    Cancel { actor: String, reason: String },
    /// Finish a step that answered pending.
    Complete { step: String, phase: Phase, outcome: Completion },
    /// An operator's act.
    Act { act: Act, actor: String, reason: String },
}

/// A start that was checked and can be decided.
pub(super) struct StartOrder {
    pub(super) definition: Arc<Definition>,
    pub(super) same: SameRequest,
    pub(super) locks: Vec<LockKey>,
}

/// The part of a start that tells a repeated one from another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SameRequest {
    pub(super) definition: crate::saga::ids::DefinitionName,
    pub(super) version_asked: u32,
    pub(super) input: Json,
    pub(super) labels: Arc<BTreeMap<String, String>>,
}

impl SameRequest {
    /// What `saga` was started with.
    pub(super) fn of(saga: &Saga) -> Self {
        Self {
            definition: saga.definition.name.clone(),
            version_asked: saga.version_asked,
            input: saga.input.clone(),
            labels: Arc::clone(&saga.labels),
        }
    }

    /// What the first fact of a journal says.
    pub(super) fn of_started(started: &Started) -> Self {
        Self {
            definition: started.definition.clone(),
            version_asked: started.version_asked,
            input: started.input.clone(),
            labels: Arc::clone(&started.labels),
        }
    }
}

/// The answer to a request: the saga as the commit left it, and the means to follow it.
pub(super) struct Accepted {
    pub(super) saga: Arc<Saga>,
    /// The start had been made before.
    pub(super) existed: bool,
    pub(super) live: Live,
}

/// Where a shard's mail is put in.
#[derive(Clone)]
pub(super) struct Mailbox {
    requests: mpsc::Sender<Request>,
    inside: mpsc::UnboundedSender<Mail>,
}

/// Where the shard takes it out.
pub(super) struct Inbox {
    requests: mpsc::Receiver<Request>,
    inside: mpsc::UnboundedReceiver<Mail>,
    batch_max: usize,
}

/// The two ends of a shard's boxes.
pub(super) fn mailbox(mailbox_max: usize, batch_max: usize) -> (Mailbox, Inbox) {
    let (requests, requests_out) = mpsc::channel(mailbox_max);
    let (inside, inside_out) = mpsc::unbounded_channel();
    (Mailbox { requests, inside }, Inbox { requests: requests_out, inside: inside_out, batch_max })
}

impl Mailbox {
    /// Posts a request and waits for its answer.
    pub(super) async fn ask(
        &self,
        id: SagaId,
        ask: Ask,
        posted_at: Timestamp,
    ) -> Result<Accepted, EngineError> {
        let (answer, answered) = oneshot::channel();
        self.requests.try_send(Request { id, ask, posted_at, answer }).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => EngineError::Overloaded {
                reason: format!("{} requests wait already", self.requests.max_capacity()),
                retry_after: RETRY_AFTER,
            },
            mpsc::error::TrySendError::Closed(_) => EngineError::Stopping,
        })?;
        answered.await.unwrap_or(Err(EngineError::Stopping))
    }

    /// Posts mail from inside. A shard that has ended needs none: what is stored is taken up
    /// again by the next daemon.
    pub(super) fn post(&self, mail: Mail) {
        let _ended = self.inside.send(mail);
    }

    /// Requests that wait.
    pub(super) fn depth(&self) -> usize {
        self.requests.max_capacity() - self.requests.capacity()
    }
}

impl Inbox {
    /// Waits for mail and takes what is there, at most one batch.
    pub(super) async fn next(&mut self, batch: &mut Vec<Mail>) {
        tokio::select! {
            biased;
            Some(mail) = self.inside.recv() => batch.push(mail),
            Some(request) = self.requests.recv() => batch.push(Mail::Request(request)),
            else => std::future::pending().await,
        }
        self.take_ready(batch);
    }

    /// Takes what is there without waiting.
    pub(super) fn take_ready(&mut self, batch: &mut Vec<Mail>) {
        // Clients keep a quarter of each batch, so that they are never shut out.
        let inside_max = self.batch_max.div_ceil(4) * 3;
        while batch.len() < inside_max {
            let Ok(mail) = self.inside.try_recv() else { break };
            batch.push(mail);
        }
        while batch.len() < self.batch_max {
            let Ok(request) = self.requests.try_recv() else { break };
            batch.push(Mail::Request(request));
        }
    }

    /// Refuses what is still waiting and what would come.
    pub(super) fn close(&mut self) {
        self.requests.close();
        while let Ok(request) = self.requests.try_recv() {
            let _gone = request.answer.send(Err(EngineError::Stopping));
        }
        self.inside.close();
        while let Ok(mail) = self.inside.try_recv() {
            drop(mail);
        }
    }
}

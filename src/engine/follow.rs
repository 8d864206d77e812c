//! Reading, awaiting and watching sagas.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::sync::OwnedSemaphorePermit;

use super::Engine;
use super::batch::no_saga;
use super::error::EngineError;
use super::mail::Ask;
use super::published::{Live, detached};
use super::request::{FactStream, SagaView, WaitFor};
use super::settings::WATCH_PAGE;
use super::shared::place_in;
use crate::saga::event::{Event, Fact};
use crate::saga::ids::SagaId;
use crate::saga::state::{Saga, Stage};
use crate::saga::view::{self, WaitingOn};

impl Engine {
    /// The saga as its last commit left it.
    ///
    /// # Errors
    /// `NotFound`; `DataLoss` for a quarantined saga; `Unavailable`.
    pub async fn get(&self, id: &SagaId) -> Result<SagaView, EngineError> {
        Ok(self.view(self.saga(id).await?))
    }

    /// Waits until the saga is as far as asked. Answers with the saga as it stands when `timeout`
    /// passes first.
    ///
    /// # Errors
    /// As [`Engine::get`]; `Overloaded` when too many clients wait; `Stopping`.
    pub async fn wait(
        &self,
        id: &SagaId,
        wait_for: WaitFor,
        timeout: Duration,
    ) -> Result<SagaView, EngineError> {
        if timeout.is_zero() {
            return self.get(id).await;
        }
        self.shared.check_taking()?;
        let _place = self.place_to_wait()?;
        let live = self.follow(id).await?;
        let stop = self.shared.tasks.stopping();
        let seen = tokio::select! {
            seen = until(live, wait_for, timeout) => seen,
            () = stop.cancelled() => return Err(EngineError::Stopping),
        };
        match seen {
            Seen::AsAsked(saga) | Seen::TimePassed(saga) => Ok(self.view(saga)),
            Seen::Gone(_) => self.get(id).await,
        }
    }

    /// The history behind `after_seq`, in order and without gaps; with `follow` until the saga
    /// has ended. A slow watcher catches up from the store.
    ///
    /// # Errors
    /// As [`Engine::get`]; `Overloaded` when too many watches are open. The stream itself may end
    /// with an error too.
    pub async fn watch(&self, id: &SagaId, after_seq: u64, follow: bool) -> Result<FactStream, EngineError> {
        self.shared.check_taking()?;
        let place = place_in(&self.shared.watches, "watches")?;
        let live = if follow {
            Some(self.follow_closely(id).await?)
        } else {
            self.saga(id).await?;
            None
        };
        let watch = Watch {
            engine: self.clone(),
            id: id.clone(),
            after: after_seq,
            ready: VecDeque::new(),
            live,
            ended: false,
            _place: place,
        };
        Ok(futures::stream::unfold(Some(watch), |watch| async move {
            let mut watch = watch?;
            match watch.next().await {
                Ok(Some(fact)) => Some((Ok(fact), Some(watch))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed())
    }

    /// The saga's published state, or the stored one of a saga that is not in memory.
    pub(super) async fn saga(&self, id: &SagaId) -> Result<Arc<Saga>, EngineError> {
        if let Some(saga) = self.shared.published(id) {
            return Ok(saga);
        }
        self.read(id).await?.ok_or_else(|| no_saga(id))
    }

    /// Follows the saga; an open one that is not in memory comes back for it. One that has ended
    /// is read past its shard, so that it can be followed however busy that is.
    pub(super) async fn follow(&self, id: &SagaId) -> Result<Live, EngineError> {
        if let Some(live) = self.shared.shard_of(id).published.follow(id) {
            return Ok(live);
        }
        let saga = self.saga(id).await?;
        if saga.is_terminal() {
            return Ok(detached(&saga));
        }
        Ok(self.ask(id, Ask::Follow).await?.live)
    }

    /// As [`Engine::follow`], with a signal for each change.
    async fn follow_closely(&self, id: &SagaId) -> Result<Live, EngineError> {
        let live = self.follow(id).await?;
        self.shared.shard_of(id).published.tell_each_change(id);
        Ok(live)
    }

    /// The saga with what only the running engine knows of it.
    pub(super) fn view(&self, saga: Arc<Saga>) -> SagaView {
        let shared = &self.shared;
        let waits = crate::saga::duties::waits(&saga, shared.dispatch.as_ref());
        let waiting_on = match saga.stage {
            Stage::AwaitingLocks { .. } => shared
                .locks
                .blocked_on(&saga.id)
                .map(WaitingOn::Lock)
                .or_else(|| view::waiting_on(&saga, shared.dispatch.as_ref())),
            _ => waits.parked.first().map(|absent| WaitingOn::Participant(absent.participant.clone())),
        };
        let look = (!waits.parked.is_empty()).then(|| shared.next_parked_look());
        let next_wake_at = waits.wake_at.into_iter().chain(look).min();
        SagaView { saga, waiting_on, next_wake_at }
    }

    pub(super) fn place_to_wait(&self) -> Result<OwnedSemaphorePermit, EngineError> {
        place_in(&self.shared.waits, "waits")
    }
}

/// How a wait for a saga ended, and the saga as it was seen last.
pub(super) enum Seen {
    /// It is as far as asked.
    AsAsked(Arc<Saga>),
    /// The time passed first.
    TimePassed(Arc<Saga>),
    /// It left memory first: it cannot be read any more.
    Gone(Arc<Saga>),
}

impl Seen {
    /// The saga.
    pub(super) fn saga(self) -> Arc<Saga> {
        match self {
            Seen::AsAsked(saga) | Seen::TimePassed(saga) | Seen::Gone(saga) => saga,
        }
    }
}

/// Waits until the saga is as far as asked, or until `timeout` has passed.
pub(super) async fn until(mut live: Live, wait_for: WaitFor, timeout: Duration) -> Seen {
    let is_there = |saga: &Arc<Saga>| match wait_for {
        WaitFor::Committed => saga.committed || saga.is_terminal(),
        WaitFor::Ended => saga.is_terminal(),
    };
    let ended = tokio::time::timeout(timeout, live.wait_for(is_there)).await.map(|seen| seen.is_ok());
    let saga = Arc::clone(&*live.borrow_and_update());
    match ended {
        Ok(true) => Seen::AsAsked(saga),
        Ok(false) => Seen::Gone(saga),
        Err(_) => Seen::TimePassed(saga),
    }
}

/// One open watch.
struct Watch {
    engine: Engine,
    id: SagaId,
    /// The last sequence given out or read.
    after: u64,
    ready: VecDeque<Fact>,
    live: Option<Live>,
    /// The terminal fact was read.
    ended: bool,
    _place: OwnedSemaphorePermit,
}

impl Watch {
    async fn next(&mut self) -> Result<Option<Fact>, EngineError> {
        loop {
            if let Some(fact) = self.ready.pop_front() {
                return Ok(Some(fact));
            }
            if self.read_on().await? {
                continue;
            }
            if self.ended || self.live.is_none() {
                return Ok(None);
            }
            self.wait_for_more().await?;
        }
    }

    /// Reads the next facts; whether there were any.
    async fn read_on(&mut self) -> Result<bool, EngineError> {
        let read = self.engine.shared.store.facts(&self.id, self.after, WATCH_PAGE).await;
        let facts = read.map_err(|error| self.engine.note_damage(&self.id, error))?;
        for fact in facts {
            if fact.seq != self.after + 1 {
                let reason = format!("saga {}: fact {} is missing", self.id, self.after + 1);
                return Err(EngineError::DataLoss(reason));
            }
            self.after = fact.seq;
            self.ended |= is_the_end(&fact.event);
            self.ready.push_back(fact);
        }
        Ok(!self.ready.is_empty())
    }

    /// Waits until more is published than was read.
    async fn wait_for_more(&mut self) -> Result<(), EngineError> {
        let Some(live) = &mut self.live else { return Ok(()) };
        let after = self.after;
        let stop = self.engine.shared.tasks.stopping();
        let seen = tokio::select! {
            seen = live.wait_for(|saga| saga.seq > after) => seen.map(|_| ()),
            () = stop.cancelled() => return Err(EngineError::Stopping),
        };
        if seen.is_err() {
            // Out of memory, and everything published was read: either its end was read before
            // this watch began, or it comes back for us.
            let again = self.engine.follow_closely(&self.id).await?;
            self.ended = again.borrow().is_terminal() && again.borrow().seq <= after;
            self.live = Some(again);
        }
        Ok(())
    }
}

fn is_the_end(event: &Event) -> bool {
    matches!(event, Event::SagaCompleted | Event::SagaCompensated | Event::SagaAbandoned { .. })
}

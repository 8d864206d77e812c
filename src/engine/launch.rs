//! Bringing an engine up over a store, and letting it down again.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{Semaphore, watch};

use super::Engine;
use super::background;
use super::catalog::Catalog;
use super::locks::Locks;
use super::mail::mailbox;
use super::meter::Meter;
use super::published::Published;
use super::settings::{EngineSettings, LOADS_AT_ONCE, WAITS_MAX};
use super::shard::Shard;
use super::shared::{Door, Shared};
use super::stuck::Stuck;
use crate::clock::{SharedClock, Stopwatch};
use crate::metrics::Metrics;
use crate::participant::Dispatch;
use crate::participant::registry::Registry;
use crate::saga::room::JournalLimit;
use crate::store::{Fence, Store, StoreError};
use crate::tasks::{Death, Tasks};

/// How long the commits in hand may take to end when the engine is let down.
const DRAIN_MAX: Duration = Duration::from_secs(4);

/// What an engine is made of.
#[derive(Clone)]
pub struct Parts {
    /// Where sagas are kept; opened, so that its epoch is this engine's own.
    pub store: Arc<dyn Store>,
    /// How participants are called.
    pub dispatch: Arc<dyn Dispatch>,
    /// Who the participants are; what the configuration says is in it already.
    pub registry: Registry,
    /// What time it is.
    pub clock: SharedClock,
    /// The daemon's tasks; the engine stops when they are told to.
    pub tasks: Tasks,
    /// What is counted and measured.
    pub metrics: Metrics,
    /// What an operator may set.
    pub settings: EngineSettings,
}

/// Why an engine did not come up. Starting again can help once the cause is gone.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// The store did not give what every engine needs at its start.
    #[error("start: reading {what} from the store failed")]
    Store {
        what: &'static str,
        #[source]
        source: StoreError,
    },
}

impl Engine {
    /// Reads definitions and lock tickets, starts the shards, and takes up open sagas in the
    /// background. Requests are served at once.
    ///
    /// # Errors
    /// [`LaunchError`] when the store does not answer.
    pub async fn launch(parts: Parts) -> Result<Self, LaunchError> {
        let failed = |what| move |source| LaunchError::Store { what, source };
        let definitions = parts.store.definitions().await.map_err(failed("the definitions"))?;
        let tickets = parts.store.lock_tickets().await.map_err(failed("the lock tickets"))?;
        let registrations = parts.store.registrations().await.map_err(failed("the registrations"))?;
        let pauses = parts.store.pauses().await.map_err(failed("the paused participants"))?;
        let identity = parts.store.identity().clone();
        let settings = parts.settings;
        let (doors, inboxes): (Vec<_>, Vec<_>) = (0..settings.shards.max(1))
            .map(|_| {
                let (mailbox, inbox) = mailbox(settings.mailbox_max, settings.batch_max);
                (
                    Door {
                        mailbox,
                        published: Published::default(),
                        parked: AtomicU64::new(0),
                        mail_waited_ms: AtomicU64::new(0),
                    },
                    inbox,
                )
            })
            .unzip();
        let shared = Arc::new(Shared {
            journal_limit: JournalLimit::of(parts.store.saga_bytes_max()),
            store: parts.store,
            dispatch: parts.dispatch,
            registry: parts.registry,
            clock: parts.clock,
            tasks: parts.tasks,
            fence: Fence { epoch: identity.epoch },
            token_secret: identity.token_secret,
            catalog: Catalog::load(definitions),
            registering: tokio::sync::Mutex::new(()),
            locks: Locks::rebuild(tickets),
            shards: doors,
            stuck: Stuck::default(),
            meter: Meter::default(),
            metrics: parts.metrics,
            loads: Semaphore::new(LOADS_AT_ONCE),
            waits: Arc::new(Semaphore::new(WAITS_MAX)),
            watches: Arc::new(Semaphore::new(settings.watches_max)),
            started: Stopwatch::start(),
            settings,
            recovered: watch::Sender::new(false),
            next_parked_look: AtomicI64::new(0),
        });
        let (working, ended) = watch::channel(());
        let working = Arc::new(working);
        for (ix, inbox) in inboxes.into_iter().enumerate() {
            let running = Shard::new(ix, Arc::clone(&shared)).run(inbox);
            let working = Arc::clone(&working);
            shared.tasks.spawn("shard", Death::Fatal, async move {
                running.await;
                drop(working);
            });
        }
        let engine = Self { shared, ended };
        engine.restore_pauses(pauses);
        engine.restore_registrations(registrations).await;
        background::start(&engine.shared);
        Ok(engine)
    }

    /// Takes no more requests, finishes the commits in hand, drops the calls in flight and closes
    /// the store. A dropped call is unknown to the next daemon, which asks again. Stops the tasks
    /// of the whole daemon.
    ///
    /// # Errors
    /// The store could not be closed cleanly; what was acknowledged is stored all the same.
    pub async fn drain(&self) -> Result<(), StoreError> {
        self.shared.tasks.stop();
        let mut ended = self.ended.clone();
        // An error says that every shard has ended.
        let all_ended = async { while ended.changed().await.is_ok() {} };
        if tokio::time::timeout(DRAIN_MAX, all_ended).await.is_err() {
            tracing::warn!("a commit in hand has not ended; whether it is stored is unknown");
        }
        self.shared.store.close().await
    }
}

//! Wires the rooms into one daemon: opens the store, brings up the engine, serves, and drains.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::callback::{self, Callback};
use crate::api::http::{self, HttpPorts};
use crate::api::{self, Api, Limits, Readiness};
use crate::clock::{SharedClock, SystemClock};
use crate::config::{Config, StoreKind};
use crate::definition;
use crate::engine::participants::Standing;
use crate::engine::settings::EngineSettings;
use crate::engine::{Engine, Parts};
use crate::heap;
use crate::metrics::{EndpointFigures, Metrics};
use crate::participant::dispatch::Participants;
use crate::participant::handlers::Handlers;
use crate::participant::registry::Registry;
use crate::participant::targets;
use crate::proto;
use crate::saga::ids::{DefinitionName, Version};
use crate::saga::words::SagaStatus;
use crate::store::memory::MemoryStore;
use crate::store::sled::{FailureObserver, SledOptions, SledStore, SyncObserver};
use crate::store::{Store, StoreError};
use crate::tasks::{Death, Tasks};

/// Time for RPCs in flight to be answered at a shutdown; the commits in hand end meanwhile.
const DRAIN_MAX: Duration = Duration::from_secs(3);
/// Time for the daemon's tasks to end, the ports with what they drain among them.
const ENDED_MAX: Duration = Duration::from_secs(4);
/// How often the counts by status are read for `/metrics`.
const GAUGES_EVERY: Duration = Duration::from_secs(1);
const MIB: u64 = 1024 * 1024;

/// A daemon that serves.
pub struct Daemon {
    engine: Engine,
    tasks: Tasks,
    readiness: watch::Sender<Readiness>,
    serving: CancellationToken,
    ports: Ports,
}

/// The addresses that were bound.
#[derive(Debug, Clone, Copy)]
struct Ports {
    grpc: std::net::SocketAddr,
    http: std::net::SocketAddr,
}

/// Runs a daemon with a valid configuration until it is told to stop (SIGTERM, Ctrl-C) or cannot go on.
///
/// Prints one line to standard output once it serves: `sagad ready grpc=ADDR http=ADDR`.
///
/// # Errors
/// What kept it from starting, or why it could not go on, with what to do.
#[expect(clippy::print_stdout, reason = "the line that says it is ready is for whoever started it")]
pub async fn serve(config: Config) -> anyhow::Result<()> {
    let daemon = Daemon::start(&config).await?;
    println!("sagad ready grpc={} http={}", daemon.ports.grpc, daemon.ports.http);
    let fatal = daemon.tasks.fatal();
    tokio::select! {
        told = told_to_stop() => {
            told?;
            daemon.stop().await
        }
        () = fatal.cancelled() => {
            let why = daemon.tasks.failure().unwrap_or("the cause is in its log").to_owned();
            daemon.give_up(&why).await;
            bail!(
                "the daemon cannot go on: {why}. Look after the cause, then start it again: it goes on from \
                 what is stored, and what was not acknowledged is safe to repeat with the same id"
            )
        }
    }
}

/// Waits for SIGTERM or Ctrl-C.
///
/// # Errors
/// The operating system does not let it listen.
pub async fn told_to_stop() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed.context("listen for Ctrl-C"),
        _ = terminate.recv() => Ok(()),
    }
}

impl Daemon {
    async fn start(config: &Config) -> anyhow::Result<Self> {
        let tasks = Tasks::new();
        let clock: SharedClock = Arc::new(SystemClock::start());
        let metrics = Metrics::new(clock.now());
        let (readiness, is_ready) = watch::channel(Readiness::Starting("opening the store".to_owned()));
        let (serving, drained) = (CancellationToken::new(), CancellationToken::new());

        let grpc = bind(config.server.grpc_addr, "gRPC", "--grpc-addr").await?;
        let http = bind(config.server.http_addr, "HTTP", "--http-addr").await?;
        let ports = Ports { grpc: grpc.local_addr()?, http: http.local_addr()? };
        let callback = Callback { engine: Arc::new(OnceLock::new()), limits: limits_of(config) };
        let pages = http::router(HttpPorts { readiness: is_ready.clone(), scrape: scrape(&metrics) })
            .merge(callback::router(callback.clone()));
        // It outlives the gRPC port: who asks meanwhile is told that work is not welcome.
        let closing = drained.clone();
        tasks.spawn("http", Death::Logged, async move {
            if let Err(error) = http::serve(http, pages, closing.cancelled_owned()).await {
                tracing::error!(%error, "the HTTP port cannot be served");
            }
        });

        let failed = on_failure(&readiness, &tasks);
        heap::map_large_pieces();
        let store = open_store(config, &metrics, &clock, failed).await?;
        heap::keep_large_pieces();
        let registry = registry_of(config, &clock)?;
        let dispatch =
            Participants::new(registry.clone(), Arc::clone(&clock), metrics.clone(), tasks.clone());
        let engine = Engine::launch(Parts {
            store,
            dispatch: Arc::new(dispatch),
            registry,
            clock,
            tasks: tasks.clone(),
            metrics: metrics.clone(),
            settings: settings_of(config),
        })
        .await?;
        if let Some(folder) = &config.sagas_dir {
            register_folder(&engine, folder).await?;
        }
        let configured = config.participants.iter().filter_map(|participant| participant.handlers().ok());
        let look = check_participants(configured.collect(), tasks.clone());
        tasks.spawn("look at the configured participants", Death::Logged, look);
        tasks.spawn("gauges", Death::Logged, keep_gauges(engine.clone(), metrics.clone(), tasks.stopping()));
        let _ = callback.engine.set(engine.clone());
        let surface = Api {
            engine: engine.clone(),
            readiness: is_ready,
            observe: Arc::new(move |end| metrics.rpc(end.method, proto::code_name(end.code))),
            limits: limits_of(config),
        };
        let closing = serving.clone();
        readiness.send_if_modified(|now| {
            // A store that has failed meanwhile stays so.
            let is_sound = !matches!(now, Readiness::Failed(_));
            if is_sound {
                *now = Readiness::Serving;
            }
            is_sound
        });
        let drained = drained.drop_guard();
        tasks.spawn("grpc", Death::Fatal, async move {
            let _drained = drained;
            if let Err(error) = api::serve(surface, grpc, closing.cancelled_owned()).await {
                tracing::error!(%error, "the gRPC port cannot be served");
            }
        });
        Ok(Self { engine, tasks, readiness, serving, ports })
    }

    /// Takes nothing new, ends the commits in hand and leaves calls in flight: the next daemon makes
    /// them again under the same keys.
    async fn stop(self) -> anyhow::Result<()> {
        tracing::info!("draining");
        self.readiness.send_replace(Readiness::Draining);
        self.tasks.stop();
        self.serving.cancel();
        let closed = self.engine.drain().await;
        self.tasks_ended().await;
        closed.context("the store was not closed in good order; what was acknowledged is stored")
    }

    /// Hands out the answers that are due and acknowledges nothing more. The rest is left as a crash
    /// would leave it.
    async fn give_up(self, why: &str) {
        self.readiness.send_replace(Readiness::Failed(why.to_owned()));
        self.tasks.stop();
        self.serving.cancel();
        self.tasks_ended().await;
        // Closing the store would write to it, and nothing is known of what is in it.
        std::mem::forget(self.engine);
    }

    async fn tasks_ended(&self) {
        if tokio::time::timeout(ENDED_MAX, self.tasks.ended()).await.is_err() {
            tracing::warn!("some tasks did not end in time and are left");
        }
    }
}

async fn bind(addr: std::net::SocketAddr, what: &str, flag: &str) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(addr).await;
    listener.with_context(|| format!("{what}: {addr} cannot be bound; choose another address with {flag}"))
}

/// What a failed store means: the daemon is not ready any more, and ends.
fn on_failure(readiness: &watch::Sender<Readiness>, tasks: &Tasks) -> FailureObserver {
    let (readiness, tasks) = (readiness.clone(), tasks.clone());
    FailureObserver::new(move |error| {
        let advice = match error {
            StoreError::Damaged { .. } => {
                "keep a copy of the files, look at them with `sagad store verify`, then put back a backup copy \
                 of the whole directory"
            }
            _ => "check the disk and its free space",
        };
        let why = format!("{error} ({advice})");
        readiness.send_replace(Readiness::Failed(why.clone()));
        tasks.fail(&why);
    })
}

async fn open_store(
    config: &Config,
    metrics: &Metrics,
    clock: &SharedClock,
    on_failure: FailureObserver,
) -> anyhow::Result<Arc<dyn Store>> {
    let saga_bytes_max = usize::try_from(config.limits.saga_max_bytes).unwrap_or(usize::MAX);
    match config.store.kind {
        StoreKind::Memory => {
            tracing::warn!("the store is in memory: everything is lost when the daemon stops");
            Ok(Arc::new(MemoryStore::bounded(saga_bytes_max)))
        }
        StoreKind::Sled => {
            let (metrics, clock) = (metrics.clone(), Arc::clone(clock));
            let options = SledOptions {
                cache_bytes: config.store.cache_mib * MIB * 3 / 4,
                history_cache_bytes: config.store.cache_mib * MIB / 4,
                wal_bytes: config.store.wal_kib * 1_024,
                saga_bytes_max,
                on_sync: Some(SyncObserver::new(move |took| metrics.synced(took, clock.now()))),
                on_failure: Some(on_failure),
                ..SledOptions::new(&config.store.dir)
            };
            let opened = tokio::task::spawn_blocking(move || SledStore::open(options)).await;
            let store = opened.context("opening the store panicked")?.context("the store was not opened")?;
            Ok(Arc::new(store))
        }
    }
}

/// A registry that knows the participants of the configuration.
fn registry_of(config: &Config, clock: &SharedClock) -> anyhow::Result<Registry> {
    let registry = Registry::new(Arc::clone(clock));
    for participant in &config.participants {
        let place = || format!("participant {} of the configuration", participant.name);
        registry.configure(participant.handlers().with_context(place)?).with_context(place)?;
    }
    Ok(registry)
}

/// Says in the log what the configuration names and a participant does not have. Nobody waits for it:
/// participants may start after the daemon, and a call says the same.
async fn check_participants(configured: Vec<Handlers>, tasks: Tasks) {
    for handlers in configured {
        let checked = tokio::select! {
            () = tasks.stopping().cancelled_owned() => return,
            checked = targets::check(&handlers, &tasks) => checked,
        };
        if let Err(problem) = checked {
            let (participant, endpoint) = (&handlers.participant, &handlers.endpoint);
            tracing::warn!(%participant, %endpoint, %problem, "a participant of the configuration cannot be called so");
        }
    }
}

fn settings_of(config: &Config) -> EngineSettings {
    EngineSettings {
        shards: config.engine.shards as usize,
        mailbox_max: config.limits.mail_queue_max as usize,
        batch_max: config.engine.batch_max as usize,
        watches_max: config.limits.watches_max as usize,
        input_max_bytes: usize::try_from(config.limits.input_max_bytes).unwrap_or(usize::MAX),
        retain: config.store.retain,
        ..EngineSettings::default()
    }
}

fn limits_of(config: &Config) -> Limits {
    Limits {
        input_json_max_bytes: usize::try_from(config.limits.input_max_bytes).unwrap_or(usize::MAX),
        request_timeout: config.limits.request_timeout,
        waits_max: config.limits.requests_max as usize,
        streams_max: config.limits.watches_max as usize,
        connections_max: config.limits.connections_max as usize,
        drain_max: DRAIN_MAX,
        ..Limits::default()
    }
}

/// Registers every definition of a folder, in the order of their names. What an operator retired
/// stays retired: only a registration by hand makes it active again.
async fn register_folder(engine: &Engine, folder: &Path) -> anyhow::Result<()> {
    for path in definition_files(folder)? {
        let file = path.display().to_string();
        let source = std::fs::read_to_string(&path).with_context(|| format!("{file} cannot be read"))?;
        let compiled = definition::compile(&source, Some(&file), Version(1)).map_err(|problems| {
            anyhow!("{file} is not a definition:\n{}", definition::render(&problems, &source, &file))
        })?;
        for warning in &compiled.warnings {
            tracing::warn!(file, warning, "definition");
        }
        let name = compiled.definition.name.clone();
        if is_retired(engine, &source, &name).await? {
            tracing::info!(%name, file, "definition left as it is: this version was retired");
            continue;
        }
        let answer =
            engine.register_definition(&source, false).await.with_context(|| format!("register {file}"))?;
        let (version, known) = (answer.view.definition.version, answer.existed);
        tracing::info!(%name, %version, known, "definition registered");
    }
    Ok(())
}

/// Whether this very text is stored as a version that takes no new sagas.
async fn is_retired(engine: &Engine, source: &str, name: &DefinitionName) -> anyhow::Result<bool> {
    let digest = definition::digest(source);
    let known = engine.definitions().await.context("read the definitions")?;
    Ok(known
        .iter()
        .any(|view| !view.active && view.definition.name == *name && view.definition.digest == digest))
}

fn definition_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| {
        format!("{} cannot be read; name the folder of the definitions with --sagas", folder.display())
    })?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("{} cannot be read", folder.display()))?.path();
        if path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn scrape(metrics: &Metrics) -> http::Scrape {
    let metrics = metrics.clone();
    Arc::new(move || metrics.encode())
}

/// Keeps the figures up to date that are read and not counted along.
async fn keep_gauges(engine: Engine, metrics: Metrics, stopping: CancellationToken) {
    let mut ticks = tokio::time::interval(GAUGES_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let Ok(stats) = engine.stats().await else { continue };
        for status in SagaStatus::ALL {
            let counted = stats.counters.iter().filter(|((_, _, s), _)| *s == status).map(|(_, count)| count);
            metrics.set_sagas(status.as_str(), counted.sum());
        }
        metrics.set_resident(stats.resident);
        metrics.set_parked(stats.parked);
        metrics.set_blocked(stats.stuck);
        metrics.set_quarantined(stats.quarantined);
        set_participants(&engine, &metrics);
        metrics.set_queue_depth("mail", stats.mail_depths.iter().sum());
    }
}

fn set_participants(engine: &Engine, metrics: &Metrics) {
    let participants = engine.list_participants(None);
    let endpoints = participants.iter().flat_map(|participant| {
        participant.registrations.iter().map(|one| EndpointFigures {
            participant: participant.name.to_string(),
            endpoint: one.endpoint.to_string(),
            breaker: match one.breaker {
                Standing::Closed => 0,
                Standing::Open { .. } => 1,
                Standing::HalfOpen => 2,
            },
            openings: one.openings,
        })
    });
    let paused = participants.iter().filter(|one| one.pause.is_some()).map(|one| one.name.to_string());
    metrics.set_participants(endpoints.collect(), paused.collect());
}

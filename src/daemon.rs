//! One daemon: its rooms wired together, and when it ends.
//!
//! ```text
//!  config ─► participants (configured, then restored) ─┐
//!  store ──────────────────────────────────────────────┼─► engine ─► definitions of the folder
//!  clock, tasks, metrics ──────────────────────────────┘
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};

use crate::clock::{SharedClock, SystemClock};
use crate::config::Config;
use crate::engine::error::EngineError;
use crate::engine::settings::EngineSettings;
use crate::engine::{Engine, LaunchError, Parts};
use crate::metrics::Metrics;
use crate::participant::dispatch::Participants;
use crate::participant::registry::{Registry, RegistryError};
use crate::store::{Store, StoreError};
use crate::tasks::Tasks;

/// A running daemon, without its ports.
pub struct Daemon {
    engine: Engine,
    metrics: Metrics,
    tasks: Tasks,
    clock: SharedClock,
}

/// Why a daemon did not come up.
#[derive(Debug, Error)]
pub enum StartError {
    /// An entry of the configuration's participants cannot be.
    #[error("start: participant {name} of the configuration: {source}")]
    Participant {
        name: String,
        #[source]
        source: RegistryError,
    },
    /// The engine did not come up.
    #[error(transparent)]
    Engine(#[from] LaunchError),
    /// A definition file cannot be read.
    #[error("start: {} cannot be read: {source}", .path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// A definition file is not a definition.
    #[error("start: {}: {source}", .path.display())]
    Definition {
        path: PathBuf,
        #[source]
        source: EngineError,
    },
}

/// Why a daemon ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It was asked to, by this signal.
    Asked(&'static str),
    /// It cannot go on; the log says why.
    Failed,
}

impl Daemon {
    /// Brings a daemon up over an opened store. Requests are served at once; open sagas are taken
    /// up in the background.
    ///
    /// # Errors
    /// [`StartError`]: nothing runs then.
    pub async fn over(config: &Config, store: Arc<dyn Store>) -> Result<Self, StartError> {
        let clock: SharedClock = Arc::new(SystemClock::start());
        let (tasks, metrics) = (Tasks::new(), Metrics::new(clock.now()));
        let registry = Registry::new(Arc::clone(&clock));
        for participant in &config.participants {
            let wrong = |source| StartError::Participant { name: participant.name.clone(), source };
            registry.configure(&participant.claim()).map_err(wrong)?;
        }
        let dispatch = Participants::new(registry.clone(), Arc::clone(&clock), metrics.clone());
        let parts = Parts {
            store,
            dispatch: Arc::new(dispatch),
            registry,
            clock: Arc::clone(&clock),
            tasks: tasks.clone(),
            metrics: metrics.clone(),
            settings: settings_of(config),
        };
        let daemon = Self { engine: Engine::launch(parts).await?, metrics, tasks, clock };
        if let Some(folder) = &config.sagas_dir
            && let Err(error) = daemon.register_folder(folder).await
        {
            daemon.stop().await.unwrap_or_else(|error| tracing::warn!(%error, "the store was not closed"));
            return Err(error);
        }
        Ok(daemon)
    }

    /// Sagas and all that is asked of them.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What is counted and measured.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The daemon's tasks: ports are spawned here, and told to stop here.
    #[must_use]
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// What time it is.
    #[must_use]
    pub fn clock(&self) -> &SharedClock {
        &self.clock
    }

    /// Waits for SIGTERM, SIGINT, or for something the daemon cannot go on after.
    ///
    /// # Errors
    /// The signals cannot be listened to.
    pub async fn until_it_should_end(&self) -> std::io::Result<Ending> {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let fatal = self.tasks.fatal();
        Ok(tokio::select! {
            biased;
            () = fatal.cancelled() => Ending::Failed,
            _ = terminate.recv() => Ending::Asked("SIGTERM"),
            _ = interrupt.recv() => Ending::Asked("SIGINT"),
        })
    }

    /// Stops all tasks, finishes the commits in hand and closes the store.
    ///
    /// # Errors
    /// The store could not be closed cleanly; what was acknowledged is stored all the same.
    pub async fn stop(&self) -> Result<(), StoreError> {
        self.engine.drain().await
    }

    /// Registers every definition file of a folder, in the order of their names.
    async fn register_folder(&self, folder: &Path) -> Result<(), StartError> {
        for path in definition_files(folder)? {
            let unreadable = |source| StartError::Unreadable { path: path.clone(), source };
            let source = tokio::fs::read_to_string(&path).await.map_err(unreadable)?;
            let wrong = |source| StartError::Definition { path: path.clone(), source };
            let answer = self.engine.register_definition(&source, false).await.map_err(wrong)?;
            let definition = &answer.view.definition;
            for warning in &answer.warnings {
                tracing::warn!(file = %path.display(), warning, "a definition deserves a look");
            }
            if !answer.existed {
                tracing::info!(
                    file = %path.display(), name = %definition.name, version = %definition.version,
                    "a definition is registered"
                );
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Daemon").field("engine", &self.engine).finish_non_exhaustive()
    }
}

/// The bounds that an operator set.
fn settings_of(config: &Config) -> EngineSettings {
    let size = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    EngineSettings {
        shards: size(config.engine.shards),
        batch_max: size(config.engine.batch_max),
        mailbox_max: size(config.limits.mail_queue_max),
        watches_max: size(config.limits.watches_max),
        input_max_bytes: usize::try_from(config.limits.input_max_bytes).unwrap_or(usize::MAX),
        retain: config.store.retain,
        ..EngineSettings::default()
    }
}

fn definition_files(folder: &Path) -> Result<Vec<PathBuf>, StartError> {
    let unreadable = |source| StartError::Unreadable { path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::ids::DefinitionName;
    use crate::store::memory::MemoryStore;

    const TRANSFER: &str = "
saga: transfer
steps:
  - name: move
    kind: pivot
    action: { call: bank.move }
";

    fn over_folder(folder: &Path) -> Config {
        let mut config = Config::default();
        config.sagas_dir = Some(folder.to_owned());
        config
    }

    #[tokio::test]
    async fn a_daemon_registers_its_folder_and_lets_go_of_its_store() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("transfer.yaml"), TRANSFER).unwrap();
        std::fs::write(folder.path().join("notes.txt"), "not a definition").unwrap();
        let config = over_folder(folder.path());
        let store = MemoryStore::new();
        let daemon = Daemon::over(&config, Arc::new(store.clone())).await.unwrap();
        let name = DefinitionName::parse("transfer").unwrap();
        assert!(daemon.engine().definition(&name, 1).await.unwrap().active);
        daemon.stop().await.unwrap();
        assert!(matches!(store.definitions().await, Err(StoreError::Closed)));
    }

    #[tokio::test]
    async fn a_definition_that_is_wrong_keeps_the_daemon_from_starting_and_names_its_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("wrong.yaml"), "saga: [").unwrap();
        let config = over_folder(folder.path());
        let error = Daemon::over(&config, Arc::new(MemoryStore::new())).await.unwrap_err();
        assert!(error.to_string().contains("wrong.yaml"), "{error}");
    }
}

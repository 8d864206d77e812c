//! Registering, reading and retiring definitions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Engine;
use super::catalog::{Entry, Registration};
use super::error::EngineError;
use super::request::{DefinitionAnswer, DefinitionView};
use crate::saga::definition::{Call, Definition, Probe};
use crate::saga::ids::{ActionName, DefinitionName, ParticipantName};
use crate::saga::input::Obstacle;

impl Engine {
    /// Registers a source as the next version of its definition; durable before it is answered.
    /// The same source again is the same version; a retired one becomes active again.
    ///
    /// # Errors
    /// `Invalid` with one violation for each problem in the source; `Unavailable`.
    pub async fn register_definition(
        &self,
        source: &str,
        validate_only: bool,
    ) -> Result<DefinitionAnswer, EngineError> {
        self.shared.check_taking()?;
        let _turn = self.shared.registering.lock().await;
        let (entry, existed) = match self.check_definition(source).await? {
            Registration::Existing(entry) => (entry, true),
            Registration::New(compiled) => {
                let created_at = self.shared.clock.now();
                (Entry { compiled: Arc::new(compiled), active: true, created_at }, false)
            }
        };
        let warnings = self.warnings(&entry);
        if validate_only {
            let mut view = view_of(&entry);
            if !existed {
                view.created_at = None;
            }
            return Ok(DefinitionAnswer { view, existed, warnings });
        }
        let entry = Entry { active: true, ..entry };
        self.keep(&entry).await?;
        Ok(DefinitionAnswer { view: view_of(&entry), existed, warnings })
    }

    /// One version; 0 for the highest, active or not.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn definition(
        &self,
        name: &DefinitionName,
        version: u32,
    ) -> Result<DefinitionView, EngineError> {
        std::future::ready(self.shared.catalog.get(name, version).map(|entry| view_of(&entry))).await
    }

    /// All versions of all definitions, by name and version.
    ///
    /// # Errors
    /// None so far.
    pub async fn definitions(&self) -> Result<Vec<DefinitionView>, EngineError> {
        std::future::ready(Ok(self.shared.catalog.all().iter().map(view_of).collect())).await
    }

    /// No new sagas start on the version; running ones go on.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable`.
    pub async fn retire_definition(
        &self,
        name: &DefinitionName,
        version: u32,
    ) -> Result<DefinitionView, EngineError> {
        self.shared.check_taking()?;
        let _turn = self.shared.registering.lock().await;
        let entry = Entry { active: false, ..self.shared.catalog.get(name, version)? };
        self.keep(&entry).await?;
        Ok(view_of(&entry))
    }

    /// Compiling takes its time; it is done beside the tasks that drive sagas.
    async fn check_definition(&self, source: &str) -> Result<Registration, EngineError> {
        let (shared, source) = (Arc::clone(&self.shared), source.to_owned());
        match tokio::task::spawn_blocking(move || shared.catalog.check(&source)).await {
            Ok(checked) => checked,
            Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
            Err(_) => Err(EngineError::Stopping),
        }
    }

    async fn keep(&self, entry: &Entry) -> Result<(), EngineError> {
        self.shared.store.put_definition(entry.stored()).await?;
        self.shared.catalog.put(entry.clone());
        Ok(())
    }

    /// The compiler's warnings, and handlers that nobody has registered.
    fn warnings(&self, entry: &Entry) -> Vec<String> {
        let definition = &entry.compiled.definition;
        let reach = self.shared.dispatch.as_ref();
        let absent = handlers_of(definition).into_iter().filter_map(|(participant, mut actions)| {
            actions.retain(|action| {
                !reach.can_call(participant, action)
                    && reach.obstacle(participant, action) == Obstacle::NoHandler
            });
            let actions: Vec<&str> = actions.into_iter().map(ActionName::as_str).collect();
            (!actions.is_empty()).then(|| {
                format!(
                    "participant {participant} has no live handler for {}: sagas that call it wait until it \
                     registers one",
                    actions.join(", ")
                )
            })
        });
        entry.compiled.warnings.iter().cloned().chain(absent).collect()
    }
}

/// Everything that may be called, by participant.
fn handlers_of(definition: &Definition) -> BTreeMap<&ParticipantName, BTreeSet<&ActionName>> {
    let calls = definition.steps.iter().flat_map(|step| {
        let compensation = step.compensation.as_ref().map(Call::handler);
        let probe = step.probe.as_ref().map(Probe::handler);
        [Some(step.action.handler()), compensation, probe]
    });
    let mut handlers: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for (participant, action) in calls.flatten() {
        handlers.entry(participant).or_default().insert(action);
    }
    handlers
}

fn view_of(entry: &Entry) -> DefinitionView {
    DefinitionView {
        definition: Arc::clone(&entry.compiled.definition),
        active: entry.active,
        created_at: Some(entry.created_at),
    }
}

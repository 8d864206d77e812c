//! The definitions that sagas run and start on.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::RwLock;
use thiserror::Error;

use super::error::{EngineError, Violation};
use crate::definition::{self, Compiled, Problem};
use crate::saga::definition::Definition;
use crate::saga::ids::{DefinitionName, Digest, Timestamp, Version};
use crate::store::StoredDefinition;

/// One version of one definition.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) compiled: Arc<Compiled>,
    pub(super) active: bool,
    pub(super) created_at: Timestamp,
}

impl Entry {
    /// The row the store keeps of it.
    pub(super) fn stored(&self) -> StoredDefinition {
        let definition = &self.compiled.definition;
        StoredDefinition {
            name: definition.name.clone(),
            version: definition.version,
            digest: definition.digest,
            source: Arc::clone(&definition.source),
            active: self.active,
            created_at: self.created_at,
        }
    }
}

/// Why a saga's definition is not at hand.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum NoDefinition {
    #[error("definition {0} version {1} is not registered")]
    Unknown(DefinitionName, Version),
    #[error("definition {name} version {version} has digest {stored}, the saga was started on {pinned}")]
    Digest { name: DefinitionName, version: Version, stored: Digest, pinned: Digest },
    #[error("definition {0} version {1} is stored but can no longer be compiled: {2}")]
    Broken(DefinitionName, Version, String),
}

/// All definitions, newest and older versions.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    versions: RwLock<BTreeMap<DefinitionName, BTreeMap<Version, Entry>>>,
    /// Stored sources that do not compile any more; their numbers stay taken.
    broken: RwLock<HashMap<(DefinitionName, Version), String>>,
}

/// What a registration would do.
pub(super) enum Registration {
    /// The source is there already, as this version.
    Existing(Entry),
    /// The source is new, and would be this version.
    New(Compiled),
}

impl Catalog {
    /// Takes up what the store kept.
    pub(super) fn load(stored: Vec<StoredDefinition>) -> Self {
        let catalog = Self::default();
        for row in stored {
            match definition::compile(&row.source, None, row.version) {
                Ok(compiled) => catalog.put(Entry {
                    compiled: Arc::new(compiled),
                    active: row.active,
                    created_at: row.created_at,
                }),
                Err(problems) => {
                    let reason = problems.iter().map(describe).collect::<Vec<_>>().join("; ");
                    tracing::error!(definition = %row.name, version = %row.version, reason, "a stored definition no longer compiles; its sagas are quarantined");
                    catalog.broken.write().insert((row.name, row.version), reason);
                }
            }
        }
        catalog
    }

    /// Makes a version known.
    pub(super) fn put(&self, entry: Entry) {
        let definition = &entry.compiled.definition;
        let (name, version) = (definition.name.clone(), definition.version);
        self.versions.write().entry(name).or_default().insert(version, entry);
    }

    /// The version a saga was pinned to.
    pub(super) fn pinned(
        &self,
        name: &DefinitionName,
        version: Version,
        digest: Digest,
    ) -> Result<Arc<Definition>, NoDefinition> {
        let versions = self.versions.read();
        let Some(entry) = versions.get(name).and_then(|versions| versions.get(&version)) else {
            let broken = self.broken.read().get(&(name.clone(), version)).cloned();
            return Err(match broken {
                Some(reason) => NoDefinition::Broken(name.clone(), version, reason),
                None => NoDefinition::Unknown(name.clone(), version),
            });
        };
        let stored = entry.compiled.definition.digest;
        if stored != digest {
            return Err(NoDefinition::Digest { name: name.clone(), version, stored, pinned: digest });
        }
        Ok(Arc::clone(&entry.compiled.definition))
    }

    /// The version a new saga runs; 0 asks for the newest active one.
    pub(super) fn for_start(&self, name: &DefinitionName, version: u32) -> Result<Entry, EngineError> {
        let versions = self.versions.read();
        let known = versions.get(name).ok_or_else(|| unknown(name, 0))?;
        if version == 0 {
            let newest = known.values().rev().find(|entry| entry.active).cloned();
            return newest.ok_or_else(|| {
                EngineError::Precondition(format!("every version of definition {name} is retired"))
            });
        }
        let entry = known.get(&Version(version)).ok_or_else(|| unknown(name, version))?;
        if !entry.active {
            return Err(EngineError::Precondition(format!(
                "version {version} of definition {name} is retired: start on an active one"
            )));
        }
        Ok(entry.clone())
    }

    /// One version; 0 for the highest, active or not.
    pub(super) fn get(&self, name: &DefinitionName, version: u32) -> Result<Entry, EngineError> {
        let versions = self.versions.read();
        let known = versions.get(name).ok_or_else(|| unknown(name, 0))?;
        let entry = match version {
            0 => known.values().next_back(),
            _ => known.get(&Version(version)),
        };
        entry.cloned().ok_or_else(|| unknown(name, version))
    }

    /// All versions, by name and version.
    pub(super) fn all(&self) -> Vec<Entry> {
        self.versions.read().values().flat_map(BTreeMap::values).cloned().collect()
    }

    /// Checks a source and says what registering it would do.
    pub(super) fn check(&self, source: &str) -> Result<Registration, EngineError> {
        let first = compile(source, Version(1))?;
        let name = first.definition.name.clone();
        let digest = definition::digest(source);
        let same = self.versions.read().get(&name).and_then(|versions| {
            versions.values().find(|entry| entry.compiled.definition.digest == digest).cloned()
        });
        if let Some(entry) = same {
            return Ok(Registration::Existing(entry));
        }
        let next = self.next_version(&name);
        Ok(Registration::New(if next == Version(1) { first } else { compile(source, next)? }))
    }

    fn next_version(&self, name: &DefinitionName) -> Version {
        let readable =
            self.versions.read().get(name).and_then(|versions| versions.keys().next_back().copied());
        let broken = self.broken.read().keys().filter(|(broken, _)| broken == name).map(|(_, v)| *v).max();
        Version(readable.max(broken).map_or(1, |highest| highest.0 + 1))
    }
}

fn unknown(name: &DefinitionName, version: u32) -> EngineError {
    let name = if version == 0 { name.to_string() } else { format!("{name} version {version}") };
    EngineError::NotFound { what: "definition", name }
}

fn compile(source: &str, version: Version) -> Result<Compiled, EngineError> {
    definition::compile(source, None, version).map_err(|problems| {
        EngineError::Invalid(
            problems.iter().map(|problem| Violation::new("source", describe(problem))).collect(),
        )
    })
}

fn describe(problem: &Problem) -> String {
    let place = format!("line {}, column {}: {}", problem.line, problem.column, problem.message);
    match &problem.help {
        Some(help) => format!("{place} ({help})"),
        None => place,
    }
}

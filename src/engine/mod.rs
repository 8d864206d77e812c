//! Drives sagas: mail in, decide, one commit for many, apply, settle what is owed.

pub mod error;
pub mod registry_port;
pub mod request;

use std::time::Duration;

use crate::saga::ids::{DefinitionName, SagaId};
use crate::saga::input::Completion;
use crate::saga::view::Explanation;
use error::EngineError;
use request::{
    DefinitionAnswer, DefinitionView, EngineStats, FactStream, ListAnswer, ListRequest, RepairAnswer,
    RepairRequest, SagaView, StartAnswer, StartRequest, StuckItem, WaitFor,
};

/// The running engine. Clones share it; it is the only way in.
#[derive(Clone)]
pub struct Engine {}

#[allow(unused_variables, clippy::unused_async, reason = "signatures only, until the engine is written")]
impl Engine {
    pub async fn start(&self, request: StartRequest) -> Result<StartAnswer, EngineError> {
        unimplemented!()
    }
    pub async fn get(&self, id: &SagaId) -> Result<SagaView, EngineError> {
        unimplemented!()
    }
    /// Answers with the saga as it stands when `timeout` passes first.
    pub async fn wait(
        &self,
        id: &SagaId,
        wait_for: WaitFor,
        timeout: Duration,
    ) -> Result<SagaView, EngineError> {
        unimplemented!()
    }
    pub async fn watch(&self, id: &SagaId, after_seq: u64, follow: bool) -> Result<FactStream, EngineError> {
        unimplemented!()
    }
    pub async fn list(&self, request: ListRequest) -> Result<ListAnswer, EngineError> {
        unimplemented!()
    }
    pub async fn cancel(&self, id: &SagaId, actor: String, reason: String) -> Result<SagaView, EngineError> {
        unimplemented!()
    }
    /// Finishes a step that answered pending, by its token.
    pub async fn complete(&self, token: &str, outcome: Completion) -> Result<(), EngineError> {
        unimplemented!()
    }
    pub async fn repair(&self, request: RepairRequest) -> Result<RepairAnswer, EngineError> {
        unimplemented!()
    }
    pub async fn explain(&self, id: &SagaId) -> Result<(Explanation, SagaView), EngineError> {
        unimplemented!()
    }
    /// Oldest first; page by (page_size, page_token); the total is exact.
    pub async fn list_stuck(
        &self,
        page_size: usize,
        page_token: &str,
    ) -> Result<(Vec<StuckItem>, String, u64), EngineError> {
        unimplemented!()
    }
    pub async fn stats(&self) -> Result<EngineStats, EngineError> {
        unimplemented!()
    }
    pub async fn register_definition(
        &self,
        source: &str,
        validate_only: bool,
    ) -> Result<DefinitionAnswer, EngineError> {
        unimplemented!()
    }
    /// Version 0: the highest, active or not.
    pub async fn definition(
        &self,
        name: &DefinitionName,
        version: u32,
    ) -> Result<DefinitionView, EngineError> {
        unimplemented!()
    }
    /// All versions of all definitions, by name and version.
    pub async fn definitions(&self) -> Result<Vec<DefinitionView>, EngineError> {
        unimplemented!()
    }
    pub async fn retire_definition(
        &self,
        name: &DefinitionName,
        version: u32,
    ) -> Result<DefinitionView, EngineError> {
        unimplemented!()
    }
    // Participants: register / renew / deregister / list delegate to participant::Registry and keep it durable.
}

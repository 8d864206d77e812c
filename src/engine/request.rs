//! What can be asked of the engine, in types that are already valid, and its answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::saga::event::Fact;
use crate::saga::ids::{DefinitionName, SagaId, Timestamp, Version};
use crate::saga::input::Act;
use crate::saga::json::Json;
use crate::saga::state::Saga;
use crate::saga::view::{PlannedCall, WaitingOn};
use crate::saga::words::{Phase, SagaStatus};

/// A start.
#[derive(Debug, Clone)]
pub struct StartRequest {
    /// The client's own id; `None` to have one made.
    pub id: Option<SagaId>,
    /// What to run.
    pub definition: DefinitionName,
    /// Which version; 0 for the newest active one.
    pub version: u32,
    /// The input: an object.
    pub input: Json,
    /// The client's labels.
    pub labels: BTreeMap<String, String>,
    /// How long to wait for `wait_for`; zero to answer when the start is durable.
    pub wait: Duration,
    /// What to wait for.
    pub wait_for: WaitFor,
}

/// The answer to a start.
#[derive(Debug, Clone)]
pub struct StartAnswer {
    /// The saga as it stands now.
    pub saga: SagaView,
    /// Whether it was there before.
    pub existed: bool,
}

/// What a waiting client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitFor {
    /// Committed, or ended.
    Committed,
    /// Ended.
    Ended,
}

/// A saga and what only the running engine knows of it.
#[derive(Debug, Clone)]
pub struct SagaView {
    /// Its state: always a published one, never ahead of the store.
    pub saga: Arc<Saga>,
    /// What it waits for beside calls and times.
    pub waiting_on: Option<WaitingOn>,
    /// When it is looked at next; `None` when only a reply or an operator moves it.
    pub next_wake_at: Option<Timestamp>,
}

/// A page of a list.
#[derive(Debug, Clone)]
pub struct ListRequest {
    /// The filter's text; empty for all.
    pub filter: String,
    /// 1 to 1000.
    pub page_size: usize,
    /// Where the previous page ended; opaque, bound to filter and order; empty for the first.
    pub page_token: String,
    /// Oldest first instead of newest first.
    pub oldest_first: bool,
    /// Count the total even when no index answers it.
    pub with_total: bool,
}

/// The answer to a list.
#[derive(Debug, Clone)]
pub struct ListAnswer {
    /// The sagas of this page.
    pub sagas: Vec<SagaView>,
    /// Empty behind the last page.
    pub next_page_token: String,
    /// The exact total, when counted.
    pub total: Option<u64>,
}

/// An operator's act on one saga.
#[derive(Debug, Clone)]
pub struct RepairRequest {
    /// Which saga.
    pub id: SagaId,
    /// What to do.
    pub act: Act,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// Only show what would follow.
    pub dry_run: bool,
}

/// The answer to a repair.
#[derive(Debug, Clone)]
pub struct RepairAnswer {
    /// The calls that follow (or would).
    pub plan: Vec<PlannedCall>,
    /// The saga after the act (or as it would be).
    pub saga: SagaView,
}

/// Something that waits for an operator.
#[derive(Debug, Clone)]
pub struct StuckItem {
    /// Which saga.
    pub saga_id: SagaId,
    /// Its definition.
    pub definition: DefinitionName,
    /// Its status.
    pub status: SagaStatus,
    /// The step instance's name; empty for a quarantined saga.
    pub step: String,
    /// Which call is blocked.
    pub phase: Option<Phase>,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// What an operator would type.
    pub suggested_command: String,
}

/// A definition version.
#[derive(Debug, Clone)]
pub struct DefinitionView {
    /// The checked definition, with its source.
    pub definition: Arc<crate::saga::definition::Definition>,
    /// Whether new sagas may start on it.
    pub active: bool,
    /// When it was registered; `None` for a dry check.
    pub created_at: Option<Timestamp>,
}

/// The answer to a registration of a definition.
#[derive(Debug, Clone)]
pub struct DefinitionAnswer {
    /// The version.
    pub view: DefinitionView,
    /// Whether the same digest was there before.
    pub existed: bool,
    /// What deserves a look.
    pub warnings: Vec<String>,
}

/// Exact figures for operators.
#[derive(Debug, Clone, Default)]
pub struct EngineStats {
    /// Sagas by definition, version and status.
    pub counters: BTreeMap<(DefinitionName, Version, SagaStatus), u64>,
    /// Calls in flight.
    pub calls_in_flight: u64,
    /// Mail waiting, by shard, and the capacity of one mailbox.
    pub mail_depths: Vec<u64>,
    /// The capacity of one mailbox.
    pub mail_capacity: u64,
    /// Sagas that hold at least one block, and quarantined ones.
    pub stuck: u64,
    /// Sagas that cannot be read.
    pub quarantined: u64,
    /// Sagas that wait for a participant.
    pub parked: u64,
    /// Sagas in memory.
    pub resident: u64,
    /// Whether recovery has looked at every open saga.
    pub recovered: bool,
    /// Sagas the sweeper found standing still and set going, since the start.
    pub mended: u64,
    /// Sagas that a commit left out because the store had another state, since the start.
    pub conflicts: u64,
    /// Commits that failed since the start.
    pub commits_failed: u64,
    /// Wake-ups that changed nothing, since the start.
    pub idle_wakes: u64,
    /// Open sagas taken out of memory until something comes for them, since the start.
    pub evicted: u64,
    /// Rates and times of the last minute.
    pub last_minute: crate::metrics::LastMinute,
    /// No call of an open saga was made before this time.
    pub oldest_open_started_at: Timestamp,
    /// The store's own figures.
    pub store: crate::store::StoreStats,
    /// Since the start of this daemon.
    pub uptime: Duration,
}

/// What a watcher receives: facts in order, without gaps.
pub type FactStream = futures::stream::BoxStream<'static, Result<Fact, super::error::EngineError>>;

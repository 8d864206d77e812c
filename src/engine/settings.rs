//! How the engine is set up, and the bounds it keeps.

use std::time::Duration;

/// Requests kept for one saga while it is read from the store.
pub const HELD_REQUESTS_MAX: usize = 64;
/// Sagas read from the store at once.
pub const LOADS_AT_ONCE: usize = 64;
/// Sagas being recovered at once after a start of the daemon.
pub const RECOVERIES_AT_ONCE: usize = 128;
/// How long an operator's question about everything waits for recovery to end.
pub const RECOVERY_WAIT_MAX: Duration = Duration::from_secs(2);
/// Sagas in memory over which new starts are refused.
pub const RESIDENT_MAX: usize = 250_000;
/// Clients waiting for a saga at once.
pub const WAITS_MAX: usize = 50_000;
/// Sagas in one page of the recovery's scan.
pub const RECOVERY_PAGE: usize = 256;
/// Facts a watcher reads from the store at once.
pub const WATCH_PAGE: usize = 256;
/// Parked sagas of one shard woken by one look, so that a participant that is back is not stormed.
pub const UNPARK_AT_ONCE: usize = 256;
/// Sagas one shard looks over before it takes other mail again.
pub const SWEEP_AT_ONCE: usize = 2_000;
/// Sagas that cannot be read of which the reasons are kept.
pub const QUARANTINE_MAX: usize = 100_000;
/// The shortest and the longest pause before the store is asked again after it failed.
pub const STORE_RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// When a client that was refused for lack of room should try again.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The longest that such a client is told to stay away.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);
/// A shard is behind once what it takes from its mail box has waited for longer than this, while more
/// than a batch is left there.
pub const MAIL_SLOW: Duration = Duration::from_secs(1);

/// What an operator may set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineSettings {
    /// Tasks that decide sagas; each saga belongs to one by the hash of its id. At least 1.
    pub shards: usize,
    /// Client requests that wait in one shard's mail box; the next one is refused.
    pub mailbox_max: usize,
    /// Mails decided into one commit.
    pub batch_max: usize,
    /// Open watch streams.
    pub watches_max: usize,
    /// Longest input of a saga, in bytes.
    pub input_max_bytes: usize,
    /// How long ended sagas are kept; zero for ever.
    pub retain: Duration,
    /// How often the sweeper looks whether something comes next for every saga.
    pub sweep_every: Duration,
    /// How often parked sagas look for their participant, beside being told.
    pub parked_look_every: Duration,
    /// How often the store is asked for far wake-ups that have come near.
    pub due_every: Duration,
    /// How long an open saga that waits for something far away stays in memory.
    pub evict_after: Duration,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            shards: 2,
            mailbox_max: 4_096,
            batch_max: 256,
            watches_max: 1_024,
            input_max_bytes: 1024 * 1024,
            retain: Duration::ZERO,
            sweep_every: Duration::from_secs(10),
            parked_look_every: Duration::from_secs(5),
            due_every: Duration::from_secs(5),
            evict_after: Duration::from_secs(30),
        }
    }
}

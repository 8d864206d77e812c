//! Every bound of the surface, by name.

use std::time::Duration;

/// Longest wait a client may ask for with a start or a wait.
pub const WAIT_MAX: Duration = Duration::from_hours(1);
/// Most labels of a saga.
pub const LABELS_MAX: usize = 64;
/// Longest label name, in characters.
pub const LABEL_KEY_MAX_CHARS: usize = 128;
/// Longest label value, in bytes.
pub const LABEL_VALUE_MAX_BYTES: usize = 1_024;
/// Entries of a page when none is asked for.
pub const PAGE_SIZE_DEFAULT: u32 = 100;
/// Most entries of a page.
pub const PAGE_SIZE_MAX: u32 = 1_000;
/// Longest page token, in bytes.
pub const PAGE_TOKEN_MAX_BYTES: usize = 4_096;
/// Longest reason given with a cancel or an operator's act, in bytes.
pub const REASON_MAX_BYTES: usize = 4_096;
/// Longest name of whoever acts, in bytes.
pub const ACTOR_MAX_BYTES: usize = 256;
/// Most step names typed back with an abandon.
pub const ABANDON_STEPS_MAX: usize = 20_000;
/// Longest source of a definition, in bytes.
pub const SOURCE_MAX_BYTES: usize = 1024 * 1024;
/// Longest token or registration id, in bytes.
pub const TOKEN_MAX_BYTES: usize = 1_024;
/// Longest code of a refusal, in bytes.
pub const CODE_MAX_BYTES: usize = 256;
/// Longest message of a refusal, in bytes.
pub const MESSAGE_MAX_BYTES: usize = 4_096;

/// Time for a worker to say hello once its stream is open.
pub const HELLO_MAX: Duration = Duration::from_secs(10);

/// Most bytes of a list's answer before the page is cut short: below the 4 MiB that gRPC clients
/// accept by default.
pub const LIST_ANSWER_MAX_BYTES: usize = 3 * 1024 * 1024;

/// A message may be this many times the longest input, so that an input that is too long reaches
/// the check that names the field.
const MESSAGE_PER_INPUT: usize = 4;

/// Bounds an operator can set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Longest `input_json` of a start and `output_json` of an answer, in bytes.
    pub input_json_max_bytes: usize,
    /// Time an RPC may take that does not wait for a saga; a client's own deadline may be shorter.
    pub request_timeout: Duration,
    /// RPCs at a time that do not wait for a saga. More are refused.
    pub calls_max: usize,
    /// Starts and waits at a time. More are refused.
    pub waits_max: usize,
    /// Watch streams at a time. More are refused.
    pub streams_max: usize,
    /// Workers' streams at a time, apart from the others: who only watches must not keep steps from being
    /// done. More are refused.
    pub workers_max: usize,
    /// Connections at a time on the gRPC port. More are closed at once.
    pub connections_max: usize,
    /// RPCs at a time on one connection. A client queues what is over.
    pub streams_per_connection_max: u32,
    /// Request headers, in bytes.
    pub header_list_max_bytes: u32,
    /// Streams a client may reset before they were accepted, after which its connection is closed.
    pub pending_reset_streams_max: usize,
    /// Streams the daemon may reset for a client's mistakes, after which its connection is closed.
    pub local_error_reset_streams_max: usize,
    /// Time between the pings that find a dead client.
    pub keepalive_interval: Duration,
    /// Time a client has to answer a ping.
    pub keepalive_timeout: Duration,
    /// A connection without a byte in either direction for this long is closed; above the interval
    /// of the pings, so that it only meets clients that never spoke.
    pub quiet_max: Duration,
    /// Time for RPCs in flight to finish at a shutdown.
    pub drain_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            input_json_max_bytes: 1024 * 1024,
            request_timeout: Duration::from_secs(30),
            calls_max: 4_096,
            waits_max: 16_384,
            streams_max: 4_096,
            workers_max: 4_096,
            connections_max: 4_096,
            streams_per_connection_max: 4_096,
            header_list_max_bytes: 16 * 1024,
            pending_reset_streams_max: 64,
            local_error_reset_streams_max: 1_024,
            keepalive_interval: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
            quiet_max: Duration::from_mins(1),
            drain_max: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// Longest request message, in bytes, unpacked.
    #[must_use]
    pub fn message_max_bytes(&self) -> usize {
        self.input_json_max_bytes.max(SOURCE_MAX_BYTES).saturating_mul(MESSAGE_PER_INPUT)
    }
}

//! What the daemon counts and measures: for scrapers as `OpenMetrics` text, and over the last minute
//! for its own statistics. Knows nothing of the rooms that report to it.

mod participants;
mod window;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::saga::ids::Timestamp;
pub use participants::EndpointFigures;
use participants::ParticipantHandles;
pub use window::{LatencyWindow, Quantiles, RateWindow, WINDOW_SECONDS};

/// A gauge of things that can be counted.
type Count = Gauge<u64, AtomicU64>;

/// The handles. Clones are the same.
#[derive(Clone)]
pub struct Metrics(Arc<Handles>);

struct Handles {
    registry: Registry,
    sagas: SagaHandles,
    calls: CallHandles,
    store: StoreHandles,
    waits: WaitHandles,
    participants: ParticipantHandles,
    rpcs: Family<RpcLabels, Counter>,
    minute: Minute,
}

struct SagaHandles {
    started: Family<DefinitionLabel, Counter>,
    ended: Family<EndLabels, Counter>,
    by_status: Family<StatusLabel, Count>,
    start_seconds: Histogram,
    committed_seconds: Histogram,
    ended_seconds: Histogram,
}

struct CallHandles {
    seconds: Family<CallLabels, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    late_replies: Counter,
    worker_outcomes_dropped: Counter,
}

struct StoreHandles {
    commit_batch: Histogram,
    commit_seconds: Histogram,
    fsync_seconds: Histogram,
}

struct WaitHandles {
    queue_depth: Family<QueueLabel, Count>,
    resident: Count,
    parked: Count,
    blocked: Count,
    quarantined: Count,
    sweeper_findings: Family<KindLabel, Counter>,
}

/// The last minute as it is collected.
struct Minute {
    started: RateWindow,
    ended: RateWindow,
    commits: RateWindow,
    writes: RateWindow,
    start_took: LatencyWindow,
    commit_reached: LatencyWindow,
    end_reached: LatencyWindow,
    call_took: LatencyWindow,
    fsync_took: LatencyWindow,
}

/// What the last minute was like.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LastMinute {
    /// Sagas started per second.
    pub started_per_second: f64,
    /// Sagas ended per second.
    pub ended_per_second: f64,
    /// A start until it is durable.
    pub start: Quantiles,
    /// Start to commit of a saga.
    pub committed: Quantiles,
    /// Start to end of a saga.
    pub ended: Quantiles,
    /// One call to a participant.
    pub call: Quantiles,
    /// One fsync of the store.
    pub fsync: Quantiles,
    /// Changes per commit of the store; 0 without commits.
    pub commit_batch_size: f64,
}

/// Declares a set of labels; their names are the fields'.
macro_rules! labels {
    ($($name:ident { $($field:ident: $type:ty),* })*) => {$(
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        struct $name { $($field: $type),* }
    )*};
}

labels! {
    DefinitionLabel { definition: String }
    EndLabels { definition: String, status: &'static str }
    StatusLabel { status: &'static str }
    CallLabels { participant: String, outcome: &'static str }
    QueueLabel { queue: &'static str }
    KindLabel { kind: &'static str }
    RpcLabels { method: String, code: &'static str }
}

/// 50 µs to about 26 s.
fn short_times() -> Histogram {
    Histogram::new(exponential_buckets(0.000_05, 2.0, 20))
}

/// 1 ms to about 9 h.
fn long_times() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 26))
}

/// 1 to 1,024.
fn batch_sizes() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 11))
}

impl Metrics {
    /// All at zero; the last minute begins now.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        let mut registry = Registry::with_prefix("sagad");
        let sagas = SagaHandles::new(&mut registry);
        let calls = CallHandles::new(&mut registry);
        let store = StoreHandles::new(&mut registry);
        let waits = WaitHandles::new(&mut registry);
        let participants = ParticipantHandles::new(&mut registry);
        let rpcs = Family::default();
        registry.register("rpcs", "Requests answered, by method and status code", rpcs.clone());
        let minute = Minute::new(now);
        Self(Arc::new(Handles { registry, sagas, calls, store, waits, participants, rpcs, minute }))
    }

    /// Everything as `OpenMetrics` text. The caller sets the gauges first.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut out = String::new();
        text::encode(&mut out, &self.0.registry).expect("writing to a string does not fail");
        out
    }

    /// The last minute.
    #[must_use]
    pub fn last_minute(&self, now: Timestamp) -> LastMinute {
        let minute = &self.0.minute;
        let commits = minute.commits.total(now);
        let writes = minute.writes.total(now);
        LastMinute {
            started_per_second: minute.started.per_second(now),
            ended_per_second: minute.ended.per_second(now),
            start: minute.start_took.quantiles(now),
            committed: minute.commit_reached.quantiles(now),
            ended: minute.end_reached.quantiles(now),
            call: minute.call_took.quantiles(now),
            fsync: minute.fsync_took.quantiles(now),
            commit_batch_size: if commits == 0 { 0.0 } else { writes as f64 / commits as f64 },
        }
    }

    /// A start is durable, so long after its request arrived.
    pub fn saga_started(&self, definition: &str, took: Duration, now: Timestamp) {
        let Handles { sagas, minute, .. } = &*self.0;
        sagas.started.get_or_create(&DefinitionLabel { definition: definition.to_owned() }).inc();
        sagas.start_seconds.observe(took.as_secs_f64());
        minute.started.count(1, now);
        minute.start_took.record(took, now);
    }

    /// A saga has committed, so long after its start.
    pub fn saga_committed(&self, after: Duration, now: Timestamp) {
        self.0.sagas.committed_seconds.observe(after.as_secs_f64());
        self.0.minute.commit_reached.record(after, now);
    }

    /// A saga has ended in `status`, so long after its start.
    pub fn saga_ended(&self, definition: &str, status: &'static str, after: Duration, now: Timestamp) {
        let Handles { sagas, minute, .. } = &*self.0;
        sagas.ended.get_or_create(&EndLabels { definition: definition.to_owned(), status }).inc();
        sagas.ended_seconds.observe(after.as_secs_f64());
        minute.ended.count(1, now);
        minute.end_reached.record(after, now);
    }

    /// The exact number of sagas in a status; set before each scrape.
    pub fn set_sagas(&self, status: &'static str, count: u64) {
        self.0.sagas.by_status.get_or_create(&StatusLabel { status }).set(count);
    }

    /// A call is being sent; it counts as in flight until the answer is dropped.
    #[must_use]
    pub fn call_started(&self) -> InFlight {
        let gauge = self.0.calls.in_flight.clone();
        gauge.inc();
        InFlight(gauge)
    }

    /// A call ended.
    pub fn call_ended(&self, participant: &str, outcome: &'static str, took: Duration, now: Timestamp) {
        let labels = CallLabels { participant: participant.to_owned(), outcome };
        self.0.calls.seconds.get_or_create(&labels).observe(took.as_secs_f64());
        self.0.minute.call_took.record(took, now);
    }

    /// Calls in flight.
    #[must_use]
    pub fn calls_in_flight(&self) -> u64 {
        u64::try_from(self.0.calls.in_flight.get()).unwrap_or(0)
    }

    /// A reply came too late to change anything.
    pub fn late_reply(&self) {
        self.0.calls.late_replies.inc();
    }

    /// A worker sent so many outcomes that nobody waited for.
    pub fn worker_outcomes_dropped(&self, count: usize) {
        self.0.calls.worker_outcomes_dropped.inc_by(count as u64);
    }

    /// The store has committed a batch of so many changes.
    pub fn committed(&self, writes: usize, took: Duration, now: Timestamp) {
        let Handles { store, minute, .. } = &*self.0;
        store.commit_batch.observe(writes as f64);
        store.commit_seconds.observe(took.as_secs_f64());
        minute.commits.count(1, now);
        minute.writes.count(writes as u64, now);
    }

    /// The store has synced to stable storage.
    pub fn synced(&self, took: Duration, now: Timestamp) {
        self.0.store.fsync_seconds.observe(took.as_secs_f64());
        self.0.minute.fsync_took.record(took, now);
    }

    /// Entries in a queue, such as `mail`.
    pub fn set_queue_depth(&self, queue: &'static str, depth: u64) {
        self.0.waits.queue_depth.get_or_create(&QueueLabel { queue }).set(depth);
    }

    /// Open sagas in memory; the others wait in the store for something far away.
    pub fn set_resident(&self, sagas: u64) {
        self.0.waits.resident.set(sagas);
    }

    /// Sagas that wait for a participant to be reachable.
    pub fn set_parked(&self, sagas: u64) {
        self.0.waits.parked.set(sagas);
    }

    /// Every live registration, and the names of the paused participants; set before each scrape.
    pub fn set_participants(&self, endpoints: Vec<EndpointFigures>, paused: Vec<String>) {
        self.0.participants.set(endpoints, paused);
    }

    /// Calls that wait for an operator.
    pub fn set_blocked(&self, calls: u64) {
        self.0.waits.blocked.set(calls);
    }

    /// Sagas that could not be read and are left alone.
    pub fn set_quarantined(&self, sagas: u64) {
        self.0.waits.quarantined.set(sagas);
    }

    /// The sweeper found something that should not be.
    pub fn sweeper_found(&self, kind: &'static str) {
        self.0.waits.sweeper_findings.get_or_create(&KindLabel { kind }).inc();
    }

    /// A request was answered; `method` is a served one, such as `SagaService/StartSaga`.
    pub fn rpc(&self, method: &str, code: &'static str) {
        self.0.rpcs.get_or_create(&RpcLabels { method: method.to_owned(), code }).inc();
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// One call in flight.
#[derive(Debug)]
pub struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl SagaHandles {
    fn new(registry: &mut Registry) -> Self {
        let handles = Self {
            started: Family::default(),
            ended: Family::default(),
            by_status: Family::default(),
            start_seconds: short_times(),
            committed_seconds: long_times(),
            ended_seconds: long_times(),
        };
        registry.register("sagas_started", "Sagas started, by definition", handles.started.clone());
        registry.register(
            "sagas_ended",
            "Sagas ended, by definition and final status",
            handles.ended.clone(),
        );
        registry.register("sagas", "Sagas stored, by status", handles.by_status.clone());
        registry.register("saga_start_seconds", "A start until it is durable", handles.start_seconds.clone());
        let committed = handles.committed_seconds.clone();
        registry.register("saga_committed_seconds", "Start to commit of a saga", committed);
        registry.register("saga_ended_seconds", "Start to end of a saga", handles.ended_seconds.clone());
        handles
    }
}

impl CallHandles {
    fn new(registry: &mut Registry) -> Self {
        let handles = Self {
            seconds: Family::new_with_constructor(short_times as fn() -> Histogram),
            in_flight: Gauge::default(),
            late_replies: Counter::default(),
            worker_outcomes_dropped: Counter::default(),
        };
        let help = "Calls to participants, by participant and outcome";
        registry.register("call_seconds", help, handles.seconds.clone());
        registry.register("calls_in_flight", "Calls to participants in flight", handles.in_flight.clone());
        let help = "Replies that came too late to change anything";
        registry.register("late_replies", help, handles.late_replies.clone());
        let help = "Outcomes from workers that nobody waited for";
        registry.register("worker_outcomes_dropped", help, handles.worker_outcomes_dropped.clone());
        handles
    }
}

impl StoreHandles {
    fn new(registry: &mut Registry) -> Self {
        let handles =
            Self { commit_batch: batch_sizes(), commit_seconds: short_times(), fsync_seconds: short_times() };
        registry.register("commit_batch_size", "Changes per commit", handles.commit_batch.clone());
        registry.register("commit_seconds", "Time of one commit", handles.commit_seconds.clone());
        registry.register("fsync_seconds", "Time of one sync to disk", handles.fsync_seconds.clone());
        handles
    }
}

impl WaitHandles {
    fn new(registry: &mut Registry) -> Self {
        let handles = Self {
            queue_depth: Family::default(),
            resident: Count::default(),
            parked: Count::default(),
            blocked: Count::default(),
            quarantined: Count::default(),
            sweeper_findings: Family::default(),
        };
        registry.register("queue_depth", "Entries in a queue", handles.queue_depth.clone());
        registry.register("sagas_resident", "Open sagas in memory", handles.resident.clone());
        registry.register("sagas_parked", "Sagas waiting for a participant", handles.parked.clone());
        registry.register("calls_blocked", "Calls waiting for an operator", handles.blocked.clone());
        registry.register("sagas_quarantined", "Sagas that could not be read", handles.quarantined.clone());
        let help = "What the sweeper found that should not be, by kind";
        registry.register("sweeper_findings", help, handles.sweeper_findings.clone());
        handles
    }
}

impl Minute {
    fn new(now: Timestamp) -> Self {
        Self {
            started: RateWindow::new(now),
            ended: RateWindow::new(now),
            commits: RateWindow::new(now),
            writes: RateWindow::new(now),
            start_took: LatencyWindow::default(),
            commit_reached: LatencyWindow::default(),
            end_reached: LatencyWindow::default(),
            call_took: LatencyWindow::default(),
            fsync_took: LatencyWindow::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp(1_700_000_000_000);

    fn line<'a>(text: &'a str, start: &str) -> &'a str {
        text.lines()
            .find(|line| line.starts_with(start))
            .unwrap_or_else(|| panic!("{start} is not in\n{text}"))
    }

    #[test]
    fn what_happened_is_in_the_text() {
        let metrics = Metrics::new(NOON);
        metrics.saga_started("order", Duration::from_millis(2), NOON);
        metrics.saga_committed(Duration::from_millis(30), NOON);
        metrics.saga_ended("order", "COMPLETED", Duration::from_millis(40), NOON);
        metrics.set_sagas("RUNNING", 7);
        metrics.call_ended("stock", "done", Duration::from_millis(1), NOON);
        metrics.late_reply();
        metrics.committed(3, Duration::from_millis(1), NOON);
        metrics.set_queue_depth("mail", 5);
        metrics.set_blocked(2);
        metrics.sweeper_found("no_next_step");
        metrics.rpc("SagaService/StartSaga", "OK");

        let text = metrics.encode();
        for (start, value) in [
            ("sagad_sagas_started_total{definition=\"order\"}", " 1"),
            ("sagad_sagas_ended_total{definition=\"order\",status=\"COMPLETED\"}", " 1"),
            ("sagad_sagas{status=\"RUNNING\"}", " 7"),
            ("sagad_saga_start_seconds_count", " 1"),
            ("sagad_saga_committed_seconds_sum", " 0.03"),
            ("sagad_call_seconds_count{participant=\"stock\",outcome=\"done\"}", " 1"),
            ("sagad_late_replies_total", " 1"),
            ("sagad_commit_batch_size_sum", " 3.0"),
            ("sagad_queue_depth{queue=\"mail\"}", " 5"),
            ("sagad_calls_blocked", " 2"),
            ("sagad_sweeper_findings_total{kind=\"no_next_step\"}", " 1"),
            ("sagad_rpcs_total{method=\"SagaService/StartSaga\",code=\"OK\"}", " 1"),
        ] {
            assert_eq!(line(&text, start), format!("{start}{value}"));
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn a_call_is_in_flight_until_its_guard_is_dropped() {
        let metrics = Metrics::new(NOON);
        let first = metrics.call_started();
        let second = metrics.call_started();
        assert_eq!(metrics.calls_in_flight(), 2);
        drop((first, second));
        assert_eq!(metrics.calls_in_flight(), 0);
    }

    #[test]
    fn the_last_minute_knows_rates_latencies_and_the_batch_size() {
        let metrics = Metrics::new(NOON);
        let later = NOON + Duration::from_mins(2);
        for _ in 0..120 {
            metrics.saga_started("order", Duration::from_millis(1), later);
        }
        metrics.committed(10, Duration::from_millis(1), later);
        metrics.committed(20, Duration::from_millis(1), later);
        metrics.synced(Duration::from_millis(1), later);

        let minute = metrics.last_minute(later + Duration::from_secs(1));
        assert!((minute.started_per_second - 2.0).abs() < 1e-9);
        assert!((minute.commit_batch_size - 15.0).abs() < 1e-9);
        assert_eq!((minute.start.samples, minute.fsync.samples), (120, 1));
        assert_eq!(minute.ended, Quantiles::default());
        assert_eq!(metrics.last_minute(later + Duration::from_mins(2)), LastMinute::default());
    }
}

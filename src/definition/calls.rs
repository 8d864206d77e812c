//! Calls, their timeouts and their retries.

use std::time::Duration;

use super::flow::{Flow, Site};
use super::located::{At, Place};
use super::problem::Findings;
use super::raw::{DurationText, RawCall, RawDefaults, RawPending, RawProbe, RawRetry};
use crate::saga::definition::{Call, PendingPolicy, Probe, RetryPolicy};
use crate::saga::ids::{ActionName, ParticipantName};

/// How long one attempt may take, where nobody says.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// Longest span a file may name.
const DURATION_MAX: Duration = Duration::from_hours(10 * 365 * 24);

/// Actions of compensatable steps: a short budget, for a client is waiting and there is a way back.
const FORWARD: RetryPolicy = RetryPolicy {
    initial: Duration::from_millis(100),
    factor: 2.0,
    max: Duration::from_secs(10),
    jitter: 0.2,
    attempts: 8,
    elapsed: Duration::from_mins(1),
};

/// Pivots, retriable steps and compensations: there is no other way, so they are tried for a day
/// before they wait for an operator.
const PERSISTENT: RetryPolicy = RetryPolicy {
    initial: Duration::from_millis(100),
    factor: 2.0,
    max: Duration::from_mins(1),
    jitter: 0.2,
    attempts: 0,
    elapsed: Duration::from_hours(24),
};

/// Which budget a call has by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Persistence {
    /// There is a way back.
    Forward,
    /// There is none.
    Persistent,
}

/// What `defaults:` says.
#[derive(Debug)]
pub(super) struct Defaults {
    timeout: Duration,
    retry: RetryFields,
}

/// The fields of a `retry:` that are there.
#[derive(Debug, Default)]
struct RetryFields {
    initial: Option<Duration>,
    factor: Option<f64>,
    max: Option<Duration>,
    jitter: Option<f64>,
    attempts: Option<u32>,
    elapsed: Option<Duration>,
}

impl Defaults {
    pub(super) fn read(raw: &RawDefaults, findings: &mut Findings) -> Self {
        let timeout = optional_duration(raw.timeout.as_ref(), findings).unwrap_or(TIMEOUT_DEFAULT);
        let retry =
            raw.retry.as_ref().map(|retry| RetryFields::read(&retry.value, findings)).unwrap_or_default();
        if let Some(at) = &raw.retry {
            check_order(&retry.over(&FORWARD), at.place, findings);
        }
        Self { timeout, retry }
    }

    /// The policy of a call: its own `retry`, over `defaults.retry`, over what is built in.
    fn policy(
        &self,
        persistence: Persistence,
        own: Option<&At<RawRetry>>,
        findings: &mut Findings,
    ) -> RetryPolicy {
        let inherited = match persistence {
            Persistence::Forward => self.retry.over(&FORWARD),
            // The budget in `defaults` is meant for what has a way back.
            Persistence::Persistent => {
                let budget = (PERSISTENT.attempts, PERSISTENT.elapsed);
                let mut policy = self.retry.over(&PERSISTENT);
                (policy.attempts, policy.elapsed) = budget;
                policy.max = policy.max.max(policy.initial);
                policy
            }
        };
        let Some(own) = own else { return inherited };
        let policy = RetryFields::read(&own.value, findings).over(&inherited);
        check_order(&policy, own.place, findings);
        policy
    }
}

fn check_order(policy: &RetryPolicy, place: Place, findings: &mut Findings) {
    if policy.initial > policy.max {
        findings.problem(
            place,
            format!(
                "the first delay ({}) is longer than the longest ({})",
                humantime::format_duration(policy.initial),
                humantime::format_duration(policy.max)
            ),
        );
    }
}

impl RetryFields {
    fn read(raw: &RawRetry, findings: &mut Findings) -> Self {
        if let Some(factor) = &raw.factor
            && !(1.0..=1000.0).contains(&factor.value)
        {
            findings.problem(factor.place, "`factor` is a number from 1 to 1000");
        }
        if let Some(jitter) = &raw.jitter
            && !(0.0..=1.0).contains(&jitter.value)
        {
            findings.problem(jitter.place, "`jitter` is a number from 0 to 1");
        }
        Self {
            initial: optional_duration(raw.initial.as_ref(), findings),
            factor: raw.factor.as_ref().map(|factor| factor.value),
            max: optional_duration(raw.max.as_ref(), findings),
            jitter: raw.jitter.as_ref().map(|jitter| jitter.value),
            attempts: raw.attempts.as_ref().map(|attempts| attempts.value),
            elapsed: raw.elapsed.as_ref().and_then(|elapsed| duration(elapsed, findings)),
        }
    }

    fn over(&self, base: &RetryPolicy) -> RetryPolicy {
        RetryPolicy {
            initial: self.initial.unwrap_or(base.initial),
            factor: self.factor.unwrap_or(base.factor),
            max: self.max.unwrap_or(base.max),
            jitter: self.jitter.unwrap_or(base.jitter),
            attempts: self.attempts.unwrap_or(base.attempts),
            elapsed: self.elapsed.unwrap_or(base.elapsed),
        }
    }
}

/// Reads a call; `None` when a problem was noted that leaves nothing to call.
pub(super) fn read_call(
    site: Site,
    raw: &RawCall,
    persistence: Persistence,
    defaults: &Defaults,
    flow: &mut Flow,
    findings: &mut Findings,
) -> Option<Call> {
    let target = target(&raw.call, findings);
    let timeout = optional_duration(raw.timeout.as_ref(), findings).unwrap_or(defaults.timeout);
    let retry = defaults.policy(persistence, raw.retry.as_ref(), findings);
    let input = raw.input.as_ref().and_then(|input| flow.tree(site, input, findings));
    let (participant, action) = target?;
    Some(Call { participant, action, input, timeout, retry })
}

pub(super) fn read_probe(
    site: Site,
    raw: &RawProbe,
    flow: &mut Flow,
    findings: &mut Findings,
) -> Option<Probe> {
    let target = target(&raw.call, findings);
    let input = raw.input.as_ref().and_then(|input| flow.tree(site, input, findings));
    let (participant, action) = target?;
    Some(Probe { participant, action, input })
}

pub(super) fn read_pending(raw: Option<&RawPending>, findings: &mut Findings) -> PendingPolicy {
    let built_in = PendingPolicy::default();
    let Some(raw) = raw else { return built_in };
    let interval = optional_duration(raw.interval.as_ref(), findings);
    let max = optional_duration(raw.max.as_ref(), findings);
    let policy =
        PendingPolicy { interval: interval.unwrap_or(built_in.interval), max: max.unwrap_or(built_in.max) };
    if policy.interval > policy.max
        && let Some(place) = raw.interval.as_ref().or(raw.max.as_ref()).map(|text| text.place)
    {
        findings.problem(place, "the interval is longer than the longest wait");
    }
    policy
}

/// `participant.action`, split at the first dot.
fn target(call: &At<String>, findings: &mut Findings) -> Option<(ParticipantName, ActionName)> {
    let Some((participant, action)) = call.as_str().split_once('.') else {
        findings.problem_with_help(
            call.place,
            format!("`{}` names no action", call.as_str()),
            "write participant.action",
        );
        return None;
    };
    let participant = ParticipantName::parse(participant);
    let action = ActionName::parse(action);
    match (participant, action) {
        (Ok(participant), Ok(action)) => Some((participant, action)),
        (Err(error), _) | (_, Err(error)) => {
            findings.problem(call.place, error.to_string());
            None
        }
    }
}

/// A span longer than zero, where there is one.
pub(super) fn optional_duration(
    text: Option<&At<DurationText>>,
    findings: &mut Findings,
) -> Option<Duration> {
    let text = text?;
    let span = duration(text, findings)?;
    if span.is_zero() {
        findings.problem(text.place, "the span must be longer than zero");
        return None;
    }
    Some(span)
}

/// A span of whole milliseconds; `0` needs no unit.
pub(super) fn duration(text: &At<DurationText>, findings: &mut Findings) -> Option<Duration> {
    const HELP: &str = "write a span such as 250ms, 10s, 1m 30s or 24h";
    let DurationText(written) = &text.value;
    let span = if written == "0" { Ok(Duration::ZERO) } else { humantime::parse_duration(written) };
    match span {
        Ok(span) if span > DURATION_MAX => {
            findings.problem(text.place, "the span is longer than ten years");
            None
        }
        Ok(span) if span.subsec_nanos() % 1_000_000 != 0 => {
            findings.problem(text.place, "the span is not a whole number of milliseconds");
            None
        }
        Ok(span) => Some(span),
        Err(error) => {
            findings.problem_with_help(
                text.place,
                format!("`{written}` is not a span of time: {error}"),
                HELP,
            );
            None
        }
    }
}

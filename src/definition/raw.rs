//! The definition file as it is written. Doc comments here are what an editor shows.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::located::{At, Tree};

/// A saga definition for sagad.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "A saga definition for sagad", rename = "Saga")]
pub(super) struct RawDefinition {
    /// The definition's name: 1 to 128 characters of A-Z a-z 0-9 _ -
    pub(super) saga: At<String>,
    /// For people.
    #[serde(default)]
    pub(super) description: Option<String>,
    /// How long the saga may take until it is committed, counted from the moment it holds its
    /// locks; then it is undone. Left out: no limit.
    #[serde(default)]
    pub(super) deadline: Option<At<DurationText>>,
    /// A JSON Schema for the input; a start whose input breaks it is refused.
    #[serde(default)]
    pub(super) input_schema: Option<At<Tree>>,
    /// Lock keys, held from before the first step until the saga is committed or undone. An
    /// expression that gives a list gives one key each.
    #[serde(default)]
    pub(super) locks: Vec<At<String>>,
    /// Longest wait for the locks; then the saga ends with nothing called. Left out: 30s.
    #[serde(default)]
    pub(super) lock_wait: Option<At<DurationText>>,
    /// What applies to every call that does not say otherwise.
    #[serde(default)]
    pub(super) defaults: RawDefaults,
    /// The steps.
    pub(super) steps: At<Vec<At<RawStep>>>,
    /// Records for the outbox, written in the same commit as what they tell of.
    #[serde(default)]
    pub(super) events: Vec<RawEvent>,
    /// The saga's output, evaluated when it is committed. It cannot read retriable steps.
    #[serde(default)]
    pub(super) output: Option<At<Tree>>,
}

/// What applies to every call that does not say otherwise.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Defaults")]
pub(super) struct RawDefaults {
    /// How long one attempt may take. Left out: 10s.
    #[serde(default)]
    pub(super) timeout: Option<At<DurationText>>,
    /// Backoff and budget. The budget (`attempts`, `elapsed`) is for compensatable steps; the
    /// others, and compensations, are retried for 24h unless their own `retry` says otherwise.
    #[serde(default)]
    pub(super) retry: Option<At<RawRetry>>,
}

/// One step.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Step")]
pub(super) struct RawStep {
    /// Unique in the file: 1 to 128 characters of a-z 0-9 _ -
    pub(super) name: At<String>,
    /// What may follow it, and what its failure means.
    #[serde(default)]
    pub(super) kind: Option<At<RawKind>>,
    /// The steps it waits for. Left out: the step above it. [] : none.
    #[serde(default)]
    pub(super) after: Option<Vec<At<String>>>,
    /// An expression for a list: the step runs once for each entry, as `item` and `index`.
    #[serde(default)]
    pub(super) for_each: Option<At<String>>,
    /// Entries of `for_each` in flight at once. Left out: 16.
    #[serde(default)]
    pub(super) concurrency: Option<At<u32>>,
    /// An expression; the step is skipped when it is false.
    #[serde(default)]
    pub(super) when: Option<At<String>>,
    /// What the step does.
    pub(super) action: At<RawCall>,
    /// What undoes it, or `none` for a step that needs no undoing.
    #[serde(default)]
    pub(super) compensation: Option<At<RawCompensation>>,
    /// Compensate the step even when its participant refused it.
    #[serde(default)]
    pub(super) compensate_on_refusal: Option<At<bool>>,
    /// A call that says whether the action's effect exists.
    #[serde(default)]
    pub(super) probe: Option<RawProbe>,
    /// How an action that answered "pending" is followed up.
    #[serde(default)]
    pub(super) pending: Option<RawPending>,
}

/// What may follow a step, and what its failure means.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Kind")]
pub(super) enum RawKind {
    /// Can be undone. The default.
    Compensatable,
    /// The point of no return; at most one.
    Pivot,
    /// Side work after the commit; retried until it is done.
    Retriable,
}

/// A call to a participant.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Call")]
pub(super) struct RawCall {
    /// `participant.action`
    pub(super) call: At<String>,
    /// The call's input. Left out: the saga's input for an action, the action's input for a
    /// compensation.
    #[serde(default)]
    pub(super) input: Option<At<Tree>>,
    /// How long one attempt may take.
    #[serde(default)]
    pub(super) timeout: Option<At<DurationText>>,
    /// Backoff and budget, field by field over the defaults.
    #[serde(default)]
    pub(super) retry: Option<At<RawRetry>>,
}

/// A call, or the word `none`.
#[derive(Debug)]
pub(super) enum RawCompensation {
    None,
    Call(Box<RawCall>),
}

/// A call that says whether an action's effect exists.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Probe")]
pub(super) struct RawProbe {
    /// `participant.action`
    pub(super) call: At<String>,
    /// The call's input. Left out: the action's input.
    #[serde(default)]
    pub(super) input: Option<At<Tree>>,
}

/// How an action that answered "pending" is followed up.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Pending")]
pub(super) struct RawPending {
    /// Time to the next look, unless the participant names one. Left out: 5s.
    #[serde(default)]
    pub(super) interval: Option<At<DurationText>>,
    /// How long it may stay pending; then its outcome is unknown. Left out: 24h.
    #[serde(default)]
    pub(super) max: Option<At<DurationText>>,
}

/// Backoff and budget of a call.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Retry")]
pub(super) struct RawRetry {
    /// The first delay.
    #[serde(default)]
    pub(super) initial: Option<At<DurationText>>,
    /// What each delay is multiplied by for the next; at least 1.
    #[serde(default)]
    pub(super) factor: Option<At<f64>>,
    /// The longest delay.
    #[serde(default)]
    pub(super) max: Option<At<DurationText>>,
    /// The share of a delay that is spread, 0 to 1.
    #[serde(default)]
    pub(super) jitter: Option<At<f64>>,
    /// Attempts in all, the first counted. 0: no limit.
    #[serde(default)]
    pub(super) attempts: Option<At<u32>>,
    /// Time spent in attempts and between them. 0: no limit.
    #[serde(default)]
    pub(super) elapsed: Option<At<DurationText>>,
}

/// A record for the outbox.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Event")]
pub(super) struct RawEvent {
    /// `started`, `committed`, `completed`, `compensating`, `compensated`, `blocked`, `abandoned`,
    /// or `step:NAME` for a step that succeeded.
    pub(super) on: At<String>,
    /// Where it is published.
    pub(super) topic: At<String>,
    /// The ordering key.
    #[serde(default)]
    pub(super) key: Option<At<String>>,
    /// The payload.
    #[serde(default)]
    pub(super) data: Option<At<Tree>>,
}

/// A span of time such as `250ms`, `10s`, `1m 30s`, `24h`.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub(super) struct DurationText(pub(super) String);

impl JsonSchema for DurationText {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "description": "A span of time such as `250ms`, `10s`, `1m 30s`, `24h`; `0` where it means no limit.",
            "pattern": "^(0|([0-9]+ *[a-zµ]+ *)+)$",
            "maximum": 0,
        })
    }
}

impl<'de> Deserialize<'de> for RawCompensation {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_any(CompensationVisitor)
    }
}

struct CompensationVisitor;

impl<'de> Visitor<'de> for CompensationVisitor {
    type Value = RawCompensation;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a call, or the word `none`")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<RawCompensation, E> {
        match text {
            "none" => Ok(RawCompensation::None),
            other => {
                Err(E::custom(format_args!("a compensation is a call or the word `none`, not `{other}`")))
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<RawCompensation, A::Error> {
        RawCall::deserialize(MapAccessDeserializer::new(entries))
            .map(|call| RawCompensation::Call(Box::new(call)))
    }
}

impl JsonSchema for RawCompensation {
    fn schema_name() -> Cow<'static, str> {
        "Compensation".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let call = generator.subschema_for::<RawCall>();
        json_schema!({
            "description": "A call that undoes the action, or `none`.",
            "anyOf": [{ "const": "none" }, call],
        })
    }
}

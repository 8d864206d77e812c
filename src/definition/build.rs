//! The order of the checks, and the definition put together.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::calls::{Defaults, duration, optional_duration};
use super::flow::{Flow, Site};
use super::input_check::InputCheck;
use super::located::{At, Tree};
use super::problem::{Findings, Problem};
use super::raw::{RawDefinition, RawEvent};
use super::steps::{Names, read_steps};
use super::{Compiled, digest, order, yaml};
use crate::saga::definition::{Definition, EventRule, Step, Trigger};
use crate::saga::ids::{DefinitionName, Version};
use crate::saga::plan::Plan;
use crate::saga::suggest::did_you_mean;

const LOCK_WAIT_DEFAULT: Duration = Duration::from_secs(30);
/// Longest topic name; Kafka's own limit.
const TOPIC_MAX_BYTES: usize = 249;

/// What `on:` may say beside `step:NAME`.
const TRIGGERS: [(&str, Trigger); 7] = [
    ("started", Trigger::Started),
    ("committed", Trigger::Committed),
    ("completed", Trigger::Completed),
    ("compensating", Trigger::Compensating),
    ("compensated", Trigger::Compensated),
    ("blocked", Trigger::Blocked),
    ("abandoned", Trigger::Abandoned),
];

pub(super) fn build(source: &str, file: Option<&str>, version: Version) -> Result<Compiled, Vec<Problem>> {
    let mut findings = Findings::of(file);
    match yaml::read(source, &mut findings) {
        Some(raw) => {
            let built = put_together(&raw, source, version, &mut findings);
            match built {
                Some((definition, input_check)) if findings.is_clean() => Ok(Compiled {
                    definition: Arc::new(definition),
                    input_check,
                    warnings: findings.warnings,
                }),
                Some(_) | None => Err(findings.into_problems()),
            }
        }
        None => Err(findings.into_problems()),
    }
}

/// The definition; worth something only if nothing was found: what could not be read is left out.
fn put_together(
    raw: &RawDefinition,
    source: &str,
    version: Version,
    findings: &mut Findings,
) -> Option<(Definition, Option<InputCheck>)> {
    let name = definition_name(&raw.saga, findings);
    let deadline = optional_duration(raw.deadline.as_ref(), findings);
    let lock_wait = lock_wait(raw, findings);
    let input_check = input_check(raw.input_schema.as_ref(), findings);
    let defaults = Defaults::read(&raw.defaults, findings);

    let mut flow = Flow::default();
    let names = Names::read(&raw.steps, findings);
    let locks = raw.locks.iter().filter_map(|lock| flow.text(Site::Locks, lock, findings)).collect();
    let steps = read_steps(&raw.steps, &defaults, &mut flow, findings);
    let events =
        raw.events.iter().filter_map(|event| read_event(event, &names, &mut flow, findings)).collect();
    let output = raw.output.as_ref().and_then(|output| flow.tree(Site::Output, output, findings));

    let plan = order::plan(&raw.steps, &names, findings)?;
    order::check_kinds(&raw.steps, &plan, findings);
    flow.check(&raw.steps, &names, &plan, findings);

    let definition = Definition {
        name: name?,
        version,
        digest: digest(source),
        description: raw.description.clone().unwrap_or_default(),
        source: Arc::from(source),
        deadline,
        locks,
        lock_wait: lock_wait?,
        steps: complete(steps, &plan)?,
        plan,
        events,
        output,
        places: OnceLock::new(),
    };
    Some((definition, input_check))
}

/// The steps, unless one of them could not be read.
fn complete(steps: Vec<Option<Step>>, plan: &Plan) -> Option<Vec<Step>> {
    debug_assert_eq!(steps.len(), plan.order().len(), "the plan covers all steps");
    steps.into_iter().collect()
}

fn definition_name(name: &At<String>, findings: &mut Findings) -> Option<DefinitionName> {
    DefinitionName::parse(name.as_str()).map_err(|error| findings.problem(name.place, error.to_string())).ok()
}

fn lock_wait(raw: &RawDefinition, findings: &mut Findings) -> Option<Duration> {
    let Some(text) = &raw.lock_wait else { return Some(LOCK_WAIT_DEFAULT) };
    if raw.locks.is_empty() {
        findings.warning(text.place, "`lock_wait` without `locks` has no meaning");
    }
    duration(text, findings)
}

fn input_check(schema: Option<&At<Tree>>, findings: &mut Findings) -> Option<InputCheck> {
    let schema = schema?;
    InputCheck::compile(&schema.value.to_json())
        .map_err(|problem| findings.problem(schema.place, format!("not a JSON Schema: {problem}")))
        .ok()
}

fn read_event(raw: &RawEvent, names: &Names, flow: &mut Flow, findings: &mut Findings) -> Option<EventRule> {
    let on = trigger(&raw.on, names, findings);
    let topic = raw.topic.as_str();
    if topic.is_empty() || topic.len() > TOPIC_MAX_BYTES || topic.contains("${") {
        findings.problem(
            raw.topic.place,
            format!("a topic is a fixed text of 1 to {TOPIC_MAX_BYTES} bytes, without expressions"),
        );
    }
    let key = raw.key.as_ref().and_then(|key| flow.text(Site::Events, key, findings));
    let data = raw.data.as_ref().and_then(|data| flow.tree(Site::Events, data, findings));
    Some(EventRule { on: on?, topic: topic.to_owned(), key, data })
}

fn trigger(on: &At<String>, names: &Names, findings: &mut Findings) -> Option<Trigger> {
    if let Some(step) = on.as_str().strip_prefix("step:") {
        return names.find(step, on.place, findings).map(Trigger::Step);
    }
    let found = TRIGGERS.iter().find(|(word, _)| *word == on.as_str()).map(|(_, trigger)| trigger.clone());
    if found.is_none() {
        let words = || TRIGGERS.iter().map(|(word, _)| *word);
        let help = did_you_mean(on.as_str(), words()).unwrap_or_else(|| {
            format!("it is one of {}, or step:NAME", words().collect::<Vec<_>>().join(", "))
        });
        findings.problem_with_help(on.place, format!("nothing happens `on: {}`", on.as_str()), help);
    }
    found
}

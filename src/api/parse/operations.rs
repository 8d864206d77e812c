//! Requests of `OperationsService`.

use super::violations::Violations;
use crate::api::limits::{ABANDON_STEPS_MAX, ACTOR_MAX_BYTES, Limits, REASON_MAX_BYTES};
use crate::engine::error::EngineError;
use crate::engine::request::RepairRequest;
use crate::proto;
use crate::saga::ids::{NAME_MAX_CHARS, ParticipantName, StepName};
use crate::saga::input::{Act, Resolution};

/// Longest name of a step instance: the step's name, a slash and a number.
const INSTANCE_NAME_MAX_BYTES: usize = NAME_MAX_CHARS + 11;

/// Checks a list of what is stuck: its page's size and token.
pub fn list_stuck(request: proto::ListStuckRequest) -> Result<(usize, String), EngineError> {
    let mut bad = Violations::default();
    let page_size = bad.page_size(request.page_size);
    let page_token = bad.page_token(request.page_token);
    bad.finish(|| page_size.zip(page_token))
}

/// Checks an operator's act. `peer` is who asks when the request does not say.
pub fn repair(
    request: proto::RepairRequest,
    peer: &str,
    limits: &Limits,
) -> Result<RepairRequest, EngineError> {
    let mut bad = Violations::default();
    let dry_run = request.dry_run;
    let id = bad.saga_id(&request.saga_id);
    let reason = if dry_run {
        bad.text("reason", request.reason, REASON_MAX_BYTES)
    } else {
        bad.required("reason", request.reason, REASON_MAX_BYTES)
    };
    let actor = if request.actor.is_empty() { peer.to_owned() } else { request.actor };
    let actor = bad.text("actor", actor, ACTOR_MAX_BYTES);
    let act = match bad.known::<proto::RepairAct>("act", request.act) {
        Some(proto::RepairAct::Unspecified) => {
            bad.add("act", "is required");
            None
        }
        Some(proto::RepairAct::RetryNow) => match request.step.as_str() {
            "" => Some(Act::RetryNow { step: None }),
            _ => step(&mut bad, &request.step).map(|step| Act::RetryNow { step: Some(step) }),
        },
        Some(proto::RepairAct::Skip) => step(&mut bad, &request.step).map(|step| Act::Skip { step }),
        Some(proto::RepairAct::Resolve) => {
            let step = step(&mut bad, &request.step);
            let resolution = resolution(&mut bad, request.outcome, &request.output_json, limits);
            step.zip(resolution).map(|(step, resolution)| Act::Resolve { step, resolution })
        }
        Some(proto::RepairAct::Pause) => Some(Act::Pause),
        Some(proto::RepairAct::Resume) => Some(Act::Resume),
        Some(proto::RepairAct::Cancel) => Some(Act::Cancel),
        Some(proto::RepairAct::Abandon) => abandon(&mut bad, &request.abandon_steps),
        None => None,
    };
    bad.finish(|| Some(RepairRequest { id: id?, act: act?, actor: actor?, reason: reason?, dry_run }))
}

/// Checks an act on a participant: who it is, why, and who asks.
pub fn participant_act(
    participant: &str,
    reason: String,
    actor: String,
    peer: &str,
) -> Result<(ParticipantName, String, String), EngineError> {
    let mut bad = Violations::default();
    let participant = bad.name("participant", participant, ParticipantName::parse);
    let reason = bad.required("reason", reason, REASON_MAX_BYTES);
    let actor = if actor.is_empty() { peer.to_owned() } else { actor };
    let actor = bad.text("actor", actor, ACTOR_MAX_BYTES);
    bad.finish(|| Some((participant?, reason?, actor?)))
}

fn resolution(bad: &mut Violations, outcome: i32, output: &str, limits: &Limits) -> Option<Resolution> {
    match bad.known::<proto::ResolveOutcome>("outcome", outcome)? {
        proto::ResolveOutcome::Unspecified => {
            bad.add("outcome", "is required with REPAIR_ACT_RESOLVE");
            None
        }
        proto::ResolveOutcome::Done => {
            bad.json("output_json", output, limits.input_json_max_bytes).map(Resolution::Done)
        }
        proto::ResolveOutcome::Failed => Some(Resolution::Failed),
        proto::ResolveOutcome::Compensated => Some(Resolution::Compensated),
    }
}

fn abandon(bad: &mut Violations, steps: &[String]) -> Option<Act> {
    if steps.len() > ABANDON_STEPS_MAX {
        bad.add("abandon_steps", format!("{} names are over the limit of {ABANDON_STEPS_MAX}", steps.len()));
        return None;
    }
    let checked: Vec<Option<String>> = steps
        .iter()
        .enumerate()
        .map(|(place, name)| instance_name(bad, &format!("abandon_steps[{place}]"), name))
        .collect();
    checked.into_iter().collect::<Option<Vec<_>>>().map(|steps| Act::Abandon { steps })
}

fn step(bad: &mut Violations, name: &str) -> Option<String> {
    instance_name(bad, "step", name)
}

/// `deduct-stock` or `deduct-stock/0`. Whether the saga has it, only the saga knows.
fn instance_name(bad: &mut Violations, field: &str, name: &str) -> Option<String> {
    if name.is_empty() {
        bad.add(field, "is required");
        return None;
    }
    let (step, item) = match name.split_once('/') {
        Some((step, item)) => (step, Some(item)),
        None => (name, None),
    };
    let well_formed = name.len() <= INSTANCE_NAME_MAX_BYTES
        && StepName::parse(step).is_ok()
        && item.is_none_or(|item| item.bytes().all(|b| b.is_ascii_digit()) && item.parse::<u32>().is_ok());
    if !well_formed {
        let shown: String = name.chars().take(64).collect();
        bad.add(field, format!("{shown:?} is not the name of a step (`name`) or an instance (`name/0`)"));
        return None;
    }
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use proto::{RepairAct, ResolveOutcome};

    use super::super::violations::fields_of;
    use super::*;

    fn request(act: RepairAct) -> proto::RepairRequest {
        proto::RepairRequest {
            saga_id: "o-1".into(),
            act: act.into(),
            reason: "the shop called".into(),
            ..Default::default()
        }
    }

    fn parsed(request: proto::RepairRequest) -> Result<RepairRequest, EngineError> {
        repair(request, "127.0.0.1:9", &Limits::default())
    }

    #[test]
    fn each_act_takes_what_it_needs() {
        let step = || "deduct/0".to_owned();
        let resolve = |outcome: ResolveOutcome, output: &str| proto::RepairRequest {
            step: step(),
            outcome: outcome.into(),
            output_json: output.into(),
            ..request(RepairAct::Resolve)
        };
        let done = Resolution::Done(crate::saga::json::Json::parse(r#"{"id":1}"#).unwrap());
        let cases = [
            (request(RepairAct::RetryNow), Act::RetryNow { step: None }),
            (
                proto::RepairRequest { step: step(), ..request(RepairAct::RetryNow) },
                Act::RetryNow { step: Some(step()) },
            ),
            (proto::RepairRequest { step: step(), ..request(RepairAct::Skip) }, Act::Skip { step: step() }),
            (resolve(ResolveOutcome::Done, r#"{"id":1}"#), Act::Resolve { step: step(), resolution: done }),
            (
                resolve(ResolveOutcome::Failed, ""),
                Act::Resolve { step: step(), resolution: Resolution::Failed },
            ),
            (
                resolve(ResolveOutcome::Compensated, ""),
                Act::Resolve { step: step(), resolution: Resolution::Compensated },
            ),
            (request(RepairAct::Pause), Act::Pause),
            (request(RepairAct::Resume), Act::Resume),
            (request(RepairAct::Cancel), Act::Cancel),
            (
                proto::RepairRequest { abandon_steps: vec![step()], ..request(RepairAct::Abandon) },
                Act::Abandon { steps: vec![step()] },
            ),
        ];
        for (request, act) in cases {
            assert_eq!(parsed(request).unwrap().act, act);
        }
    }

    #[test]
    fn each_wrong_field_of_an_act_is_named() {
        let blank = |act| proto::RepairRequest { reason: " ".into(), ..request(act) };
        let cases: Vec<(Vec<&str>, proto::RepairRequest)> = vec![
            (vec!["saga_id", "reason", "act"], proto::RepairRequest::default()),
            (vec!["act"], request(RepairAct::Unspecified)),
            (vec!["act"], proto::RepairRequest { act: 99, ..request(RepairAct::Pause) }),
            (vec!["reason"], blank(RepairAct::Pause)),
            (vec!["step"], request(RepairAct::Skip)),
            (vec!["step", "outcome"], request(RepairAct::Resolve)),
            (vec!["step"], proto::RepairRequest { step: "UP".into(), ..request(RepairAct::RetryNow) }),
            (vec!["step"], proto::RepairRequest { step: "a/-1".into(), ..request(RepairAct::Skip) }),
            (vec!["step"], proto::RepairRequest { step: "a/".into(), ..request(RepairAct::Skip) }),
            (
                vec!["outcome"],
                proto::RepairRequest { step: "a".into(), outcome: 9, ..request(RepairAct::Resolve) },
            ),
            (
                vec!["output_json"],
                proto::RepairRequest {
                    step: "a".into(),
                    outcome: 1,
                    output_json: "{".into(),
                    ..request(RepairAct::Resolve)
                },
            ),
            (
                vec!["abandon_steps[1]"],
                proto::RepairRequest {
                    abandon_steps: vec!["a".into(), "B".into()],
                    ..request(RepairAct::Abandon)
                },
            ),
        ];
        for (fields, request) in cases {
            let shown = format!("{request:?}");
            assert_eq!(fields_of(parsed(request)), fields, "{shown}");
        }
    }

    #[test]
    fn a_dry_run_needs_no_reason() {
        let dry = proto::RepairRequest { reason: String::new(), dry_run: true, ..request(RepairAct::Cancel) };
        assert!(parsed(dry).unwrap().dry_run);
    }

    #[test]
    fn who_acts_is_the_peer_unless_the_request_says() {
        assert_eq!(parsed(request(RepairAct::Pause)).unwrap().actor, "127.0.0.1:9");
        let named = proto::RepairRequest { actor: "jin".into(), ..request(RepairAct::Pause) };
        assert_eq!(parsed(named).unwrap().actor, "jin");
    }
}

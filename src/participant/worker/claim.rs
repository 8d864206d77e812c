//! What a worker says of itself, as it arrives and checked.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::participant::client::Route;
use crate::participant::handlers::{
    ACTIONS_MAX, Endpoint, FieldProblem, Handlers, InvalidClaim, MAX_IN_FLIGHT_DEFAULT, MAX_IN_FLIGHT_MAX,
    Protocol, TTL_DEFAULT, Target,
};
use crate::saga::ids::{ActionName, ParticipantName};

/// Longest name of a worker, in characters.
const NAME_MAX_CHARS: usize = 128;

/// Who wants to take steps, as it arrived: nothing in it is checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkerClaim {
    /// The participant's name.
    pub participant: String,
    /// The worker's own name.
    pub worker: String,
    /// What it can do.
    pub actions: Vec<String>,
    /// Most steps in flight; 0 for [`MAX_IN_FLIGHT_DEFAULT`].
    pub max_in_flight: u32,
}

impl WorkerClaim {
    /// Checks it. The endpoint still has to be told from those of other streams of the same name.
    ///
    /// # Errors
    /// Every field that is wrong.
    pub fn check(&self) -> Result<Handlers, InvalidClaim> {
        let mut problems = Vec::new();
        let mut wrong = |field: &str, problem: String| problems.push(FieldProblem::new(field, problem));
        let participant = ParticipantName::parse(&self.participant)
            .map_err(|invalid| wrong("participant", format!("must be {}", invalid.rule)));
        if !is_worker_name(&self.worker) {
            let rule = format!("must be 1 to {NAME_MAX_CHARS} characters of A-Z a-z 0-9 . _ : / @ -");
            wrong("worker", rule);
        }
        let mut actions = BTreeMap::new();
        match self.actions.len() {
            0 => wrong("actions", "name at least one action".to_owned()),
            1..=ACTIONS_MAX => {
                for (ix, name) in self.actions.iter().enumerate() {
                    let field = format!("actions[{ix}]");
                    match ActionName::parse(name) {
                        Ok(name) => {
                            if actions.insert(name, target()).is_some() {
                                wrong(&field, "stands twice in this hello".to_owned());
                            }
                        }
                        Err(invalid) => wrong(&field, format!("must be {}", invalid.rule)),
                    }
                }
            }
            _ => wrong("actions", format!("name at most {ACTIONS_MAX} actions")),
        }
        if self.max_in_flight > MAX_IN_FLIGHT_MAX {
            wrong("max_in_flight", format!("must be at most {MAX_IN_FLIGHT_MAX}"));
        }
        match participant {
            Ok(participant) if problems.is_empty() => Ok(Handlers {
                participant,
                endpoint: Endpoint::worker(&self.worker),
                protocol: Protocol::Worker,
                actions,
                max_in_flight: match self.max_in_flight {
                    0 => MAX_IN_FLIGHT_DEFAULT,
                    asked => asked,
                },
                // Means nothing: it lasts as long as its stream.
                ttl: TTL_DEFAULT,
                descriptor_set: None,
            }),
            Ok(_) | Err(()) => Err(InvalidClaim(problems)),
        }
    }
}

fn target() -> Arc<Target> {
    let (refused_on, done_on) = (Vec::new(), Vec::new());
    Arc::new(Target { target: String::new(), refused_on, done_on, route: Route::Worker, position: 0 })
}

fn is_worker_name(text: &str) -> bool {
    (1..=NAME_MAX_CHARS).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:/@-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> WorkerClaim {
        WorkerClaim {
            participant: "stock".into(),
            worker: "pod-7d9f/1@eu".into(),
            actions: vec!["deduct".into(), "restore".into()],
            max_in_flight: 0,
        }
    }

    #[test]
    fn a_good_hello_is_a_registration_without_a_url() {
        let handlers = good().check().unwrap();
        assert_eq!((handlers.endpoint.as_str(), handlers.max_in_flight), ("worker:pod-7d9f/1@eu", 64));
        assert_eq!((handlers.protocol, handlers.actions.len()), (Protocol::Worker, 2));
    }

    #[test]
    fn each_wrong_field_is_named() {
        type Spoil = fn(&mut WorkerClaim);
        let cases: [(&str, &str, Spoil); 9] = [
            ("participant", "1 to 128", |c| c.participant = "a.b".into()),
            ("worker", "1 to 128", |c| c.worker.clear()),
            ("worker", "1 to 128", |c| c.worker = "a b".into()),
            ("worker", "1 to 128", |c| c.worker = "x".repeat(129)),
            ("actions", "at least one", |c| c.actions.clear()),
            ("actions", "at most 256", |c| c.actions = vec!["a".into(); 257]),
            ("actions[1]", "1 to 128", |c| c.actions[1] = "a b".into()),
            ("actions[1]", "stands twice", |c| c.actions[1] = "deduct".into()),
            ("max_in_flight", "at most 10000", |c| c.max_in_flight = 10_001),
        ];
        for (field, expected, spoil) in cases {
            let mut claim = good();
            spoil(&mut claim);
            let InvalidClaim(problems) = claim.check().unwrap_err();
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert_eq!(problems[0].field, field);
            assert!(problems[0].problem.contains(expected), "{:?}", problems[0]);
        }
    }

    #[test]
    fn all_wrong_fields_are_named_at_once() {
        let InvalidClaim(problems) = WorkerClaim::default().check().unwrap_err();
        let fields: Vec<_> = problems.iter().map(|p| p.field.as_str()).collect();
        assert_eq!(fields, ["participant", "worker", "actions"]);
    }
}

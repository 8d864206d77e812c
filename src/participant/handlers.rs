//! What a participant says of itself when it registers: the claim as it arrives, and the same
//! thing checked.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use thiserror::Error;

use super::client::Route;
use super::grpc::{self, DescriptorSet};
use crate::saga::ids::{ActionName, InvalidName, ParticipantName};

/// How long a registration lasts when it names no time of its own.
pub const TTL_DEFAULT: Duration = Duration::from_secs(30);
/// The longest a registration may last without being renewed.
pub const TTL_MAX: Duration = Duration::from_hours(1);
/// Calls at a time to one endpoint when it names no number of its own.
pub const MAX_IN_FLIGHT_DEFAULT: u32 = 64;
/// Most calls at a time that one endpoint may ask for.
pub const MAX_IN_FLIGHT_MAX: u32 = 10_000;
/// Most actions in one registration.
pub const ACTIONS_MAX: usize = 256;
/// Longest endpoint, target and `refused_on`/`done_on` entry, in bytes.
pub const TEXT_MAX_BYTES: usize = 1_024;
/// Most entries in one `refused_on` or `done_on`.
pub const ANSWERS_MAX: usize = 64;

/// Largest descriptor set of a registration, in bytes.
pub const DESCRIPTOR_SET_MAX_BYTES: usize = 1024 * 1024;

/// How the daemon talks to a participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// The participant implements `sagad.v1.ParticipantService`.
    Sagad,
    /// Unary methods of an existing gRPC service.
    Grpc,
    /// Requests with a JSON body.
    Http,
    /// Steps are taken over a stream that the participant opened.
    Worker,
}

impl Protocol {
    /// The name in the interface.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Sagad => "PROTOCOL_SAGAD",
            Protocol::Grpc => "PROTOCOL_GRPC",
            Protocol::Http => "PROTOCOL_HTTP",
            Protocol::Worker => "PROTOCOL_WORKER",
        }
    }
}

/// The protocols, for messages.
const PROTOCOLS: &str = "PROTOCOL_SAGAD, PROTOCOL_GRPC or PROTOCOL_HTTP";

/// One field of a claim that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldProblem {
    /// The field's path, such as `actions[1].name`.
    pub field: String,
    /// What is wrong with it and what would be right.
    pub problem: String,
}

impl FieldProblem {
    pub(super) fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }

    fn name(field: impl Into<String>, invalid: &InvalidName) -> Self {
        Self::new(field, format!("must be {}", invalid.rule))
    }
}

impl fmt::Display for FieldProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

/// Everything that is wrong with a claim, in the order of its fields. It has to be corrected.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the registration is not valid: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct InvalidClaim(pub Vec<FieldProblem>);

/// What somebody wants to register, as it arrived: nothing in it is checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claim {
    /// The participant's name.
    pub participant: String,
    /// The URL to call.
    pub endpoint: String,
    /// How to call it; `None` when it was not said.
    pub protocol: Option<Protocol>,
    /// What it offers.
    pub actions: Vec<ClaimedAction>,
    /// Most calls at a time; 0 for [`MAX_IN_FLIGHT_DEFAULT`].
    pub max_in_flight: u32,
    /// How long it lasts; zero for [`TTL_DEFAULT`].
    pub ttl: Duration,
    /// An encoded `FileDescriptorSet` with the types of its methods; empty: the service is asked.
    pub descriptor_set: Vec<u8>,
}

/// One action of a claim.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClaimedAction {
    /// Its name.
    pub name: String,
    /// What to call, where the protocol needs it.
    pub target: String,
    /// Answers that count as refused.
    pub refused_on: Vec<String>,
    /// Answers that count as done.
    pub done_on: Vec<String>,
}

/// Where an action leads: as it was claimed, and as its protocol reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// What to call; means nothing with [`Protocol::Sagad`].
    pub target: String,
    /// Answers that count as refused.
    pub refused_on: Vec<String>,
    /// Answers that count as done.
    pub done_on: Vec<String>,
    /// The same, read.
    pub(super) route: Route,
    /// Where it stood among the claimed actions.
    pub(super) position: usize,
}

/// `http://host:port`, and nothing behind it; `worker:NAME` for a worker's stream.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint(Arc<str>);

impl Endpoint {
    /// Checks `text` and writes it in its one form: lower case, no slash at the end.
    ///
    /// # Errors
    /// What is wrong and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "write it as http://host:port, such as http://127.0.0.1:9001";
        if text.is_empty() {
            return Err(format!("must not be empty; {FORM}"));
        }
        if text.len() > TEXT_MAX_BYTES {
            return Err(format!("is longer than {TEXT_MAX_BYTES} bytes"));
        }
        let uri = Uri::from_str(text).map_err(|cause| format!("is not a URL ({cause}); {FORM}"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err("https is not served by this version; use http:// on a trusted network".into());
            }
            Some(other) => return Err(format!("the scheme {other:?} is not served; {FORM}")),
            None => return Err(format!("has no scheme; {FORM}")),
        }
        let authority = uri.authority().ok_or_else(|| format!("has no host; {FORM}"))?;
        if authority.host().is_empty() || authority.as_str().contains('@') {
            return Err(format!("must name a host without user or password; {FORM}"));
        }
        let stated = authority.as_str().rsplit_once(':').map(|(_, port)| port);
        let stated = stated.filter(|port| !port.is_empty() && !port.ends_with(']'));
        let stated = stated.ok_or_else(|| format!("has no port; {FORM}"))?;
        let Some(port) = stated.parse::<u16>().ok().filter(|&port| port != 0) else {
            return Err(format!("the port {stated:?} is no number from 1 to 65535; {FORM}"));
        };
        if uri.path() != "/" || uri.query().is_some() || text.contains('#') {
            return Err(format!("must end behind the port, without path or query; {FORM}"));
        }
        Ok(Self(format!("http://{}:{port}", authority.host().to_ascii_lowercase()).into()))
    }

    /// A worker's stream: no URL, and nobody connects to it.
    pub(super) fn worker(name: &str) -> Self {
        Self(format!("worker:{name}").into())
    }

    /// Another stream of a worker with the same name.
    pub(super) fn numbered(&self, nth: u32) -> Self {
        Self(format!("{self}~{nth}").into())
    }

    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same, taken apart.
    #[must_use]
    pub fn uri(&self) -> Uri {
        self.0.parse().expect("an endpoint is a URL that was taken apart and put together again")
    }

    /// Host and port.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.0.trim_start_matches("http://")
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// One endpoint of a participant and what it offers; everything in it is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handlers {
    /// Whose it is.
    pub participant: ParticipantName,
    /// Where it is.
    pub endpoint: Endpoint,
    /// How it is called.
    pub protocol: Protocol,
    /// What it offers; at least one.
    pub actions: BTreeMap<ActionName, Arc<Target>>,
    /// Most calls at a time; at least 1.
    pub max_in_flight: u32,
    /// How long it lasts unless renewed.
    pub ttl: Duration,
    /// The types of its methods, where they came with it.
    pub(super) descriptor_set: Option<Arc<DescriptorSet>>,
}

impl Handlers {
    /// Checks a claim.
    ///
    /// # Errors
    /// Every field that is wrong.
    pub fn check(claim: &Claim) -> Result<Self, InvalidClaim> {
        let mut problems = Vec::new();
        let participant = ParticipantName::parse(&claim.participant)
            .map_err(|invalid| problems.push(FieldProblem::name("participant", &invalid)));
        let endpoint = Endpoint::parse(&claim.endpoint)
            .map_err(|problem| problems.push(FieldProblem::new("endpoint", problem)));
        let protocol = check_protocol(claim.protocol)
            .map_err(|problem| problems.push(FieldProblem::new("protocol", problem)));
        let descriptor_set = check_descriptor_set(claim)
            .map_err(|problem| problems.push(FieldProblem::new("descriptor_set", problem)));
        let given = descriptor_set.as_ref().ok().and_then(Option::as_ref);
        let actions = check_actions(claim.protocol, &claim.actions, given, &mut problems);
        if claim.max_in_flight > MAX_IN_FLIGHT_MAX {
            problems.push(FieldProblem::new("max_in_flight", format!("must be at most {MAX_IN_FLIGHT_MAX}")));
        }
        if claim.ttl > TTL_MAX {
            problems.push(FieldProblem::new("ttl", "must be at most 1 h; renew the registration instead"));
        }
        let (Ok(participant), Ok(endpoint), Ok(protocol), Ok(descriptor_set), true) =
            (participant, endpoint, protocol, descriptor_set, problems.is_empty())
        else {
            return Err(InvalidClaim(problems));
        };
        let max_in_flight =
            if claim.max_in_flight == 0 { MAX_IN_FLIGHT_DEFAULT } else { claim.max_in_flight };
        let ttl = if claim.ttl.is_zero() { TTL_DEFAULT } else { claim.ttl };
        Ok(Self { participant, endpoint, protocol, actions, max_in_flight, ttl, descriptor_set })
    }

    /// The actions in the order in which they were claimed.
    pub(super) fn in_order(&self) -> Vec<(&ActionName, &Target)> {
        let mut actions: Vec<_> = self.actions.iter().map(|(name, target)| (name, &**target)).collect();
        actions.sort_by_key(|(_, target)| target.position);
        actions
    }

    /// The actions that lead to methods of a gRPC service.
    pub(super) fn grpc_routes(&self) -> impl Iterator<Item = (&Target, &grpc::Route)> {
        self.in_order().into_iter().filter_map(|(_, target)| match &target.route {
            Route::Grpc(route) => Some((target, route)),
            Route::Sagad | Route::Http(_) | Route::Worker => None,
        })
    }

    /// The first action that both offer with another target.
    pub(super) fn differing_target(&self, other: &Handlers) -> Option<&ActionName> {
        let differs = |name: &ActionName, target: &Arc<Target>| {
            other.actions.get(name).is_some_and(|theirs| theirs.target != target.target)
        };
        self.actions.iter().find(|(name, target)| differs(name, target)).map(|(name, _)| name)
    }
}

fn check_protocol(protocol: Option<Protocol>) -> Result<Protocol, String> {
    match protocol {
        None => Err(format!("is required: {PROTOCOLS}")),
        Some(Protocol::Worker) => {
            Err("PROTOCOL_WORKER is not registered: a worker opens a stream with OpenWorker".to_owned())
        }
        Some(protocol) => Ok(protocol),
    }
}

fn check_descriptor_set(claim: &Claim) -> Result<Option<Arc<DescriptorSet>>, String> {
    match (claim.descriptor_set.as_slice(), claim.protocol) {
        ([], _) => Ok(None),
        (bytes, Some(Protocol::Grpc)) => DescriptorSet::read(bytes).map(|set| Some(Arc::new(set))),
        (_, _) => Err(format!("is for {} only", Protocol::Grpc.as_str())),
    }
}

fn check_actions(
    protocol: Option<Protocol>,
    claimed: &[ClaimedAction],
    given: Option<&Arc<DescriptorSet>>,
    problems: &mut Vec<FieldProblem>,
) -> BTreeMap<ActionName, Arc<Target>> {
    let mut actions = BTreeMap::new();
    if claimed.is_empty() {
        problems.push(FieldProblem::new("actions", "name at least one action"));
    }
    if claimed.len() > ACTIONS_MAX {
        problems.push(FieldProblem::new("actions", format!("name at most {ACTIONS_MAX} actions")));
        return actions;
    }
    for (ix, action) in claimed.iter().enumerate() {
        let field = |name: &str| format!("actions[{ix}].{name}");
        if action.target.len() > TEXT_MAX_BYTES {
            let problem = format!("is longer than {TEXT_MAX_BYTES} bytes");
            problems.push(FieldProblem::new(field("target"), problem));
        }
        for (name, answers) in [("refused_on", &action.refused_on), ("done_on", &action.done_on)] {
            if answers.len() > ANSWERS_MAX || answers.iter().any(|answer| answer.len() > TEXT_MAX_BYTES) {
                let problem = format!("takes at most {ANSWERS_MAX} entries of {TEXT_MAX_BYTES} bytes");
                problems.push(FieldProblem::new(field(name), problem));
            }
        }
        let name = match ActionName::parse(&action.name) {
            Ok(name) => name,
            Err(invalid) => {
                problems.push(FieldProblem::name(field("name"), &invalid));
                continue;
            }
        };
        // A missing protocol is reported by itself.
        let Some(protocol) = protocol else { continue };
        let route = match Route::read(protocol, action, given) {
            Ok(route) => route,
            Err(found) => {
                let named = |found: FieldProblem| FieldProblem::new(field(&found.field), found.problem);
                problems.extend(found.into_iter().map(named));
                continue;
            }
        };
        let target = Target {
            target: action.target.clone(),
            refused_on: action.refused_on.clone(),
            done_on: action.done_on.clone(),
            route,
            position: ix,
        };
        if actions.insert(name, Arc::new(target)).is_some() {
            problems.push(FieldProblem::new(field("name"), "stands twice in this registration"));
        }
    }
    actions
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A claim in which nothing is wrong.
    pub(in crate::participant) fn claim(participant: &str, endpoint: &str, actions: &[&str]) -> Claim {
        let action = |name: &&str| ClaimedAction { name: (*name).to_owned(), ..ClaimedAction::default() };
        Claim {
            participant: participant.to_owned(),
            endpoint: endpoint.to_owned(),
            protocol: Some(Protocol::Sagad),
            actions: actions.iter().map(action).collect(),
            max_in_flight: 0,
            ttl: Duration::ZERO,
            descriptor_set: Vec::new(),
        }
    }

    /// The same, checked.
    pub(in crate::participant) fn handlers(participant: &str, endpoint: &str, actions: &[&str]) -> Handlers {
        Handlers::check(&claim(participant, endpoint, actions)).unwrap()
    }

    fn good() -> Claim {
        claim("stock", "http://127.0.0.1:9001", &["deduct", "restore"])
    }

    #[test]
    fn what_is_left_out_gets_its_default() {
        let handlers = Handlers::check(&good()).unwrap();
        assert_eq!(handlers.max_in_flight, 64);
        assert_eq!(handlers.ttl, Duration::from_secs(30));
        assert_eq!(handlers.actions.len(), 2);
    }

    #[test]
    fn an_endpoint_has_one_form() {
        for text in ["http://Shop.local:9001", "http://shop.local:9001/", "http://SHOP.local:9001"] {
            assert_eq!(Endpoint::parse(text).unwrap().as_str(), "http://shop.local:9001");
        }
        assert_eq!(Endpoint::parse("http://[::1]:80").unwrap().as_str(), "http://[::1]:80");
    }

    #[test]
    fn a_wrong_endpoint_is_told_what_is_wrong() {
        let cases = [
            ("", "must not be empty"),
            ("https://shop:9001", "https is not served by this version"),
            ("ftp://shop:9001", "the scheme \"ftp\" is not served"),
            ("shop:9001", "has no scheme"),
            ("http://shop", "has no port"),
            ("http://shop:", "has no port"),
            ("http://[::1]", "has no port"),
            ("http://shop:0", "the port \"0\" is no number from 1 to 65535"),
            ("http://shop:99999", "the port \"99999\" is no number from 1 to 65535"),
            ("http://me:secret@shop:9001", "without user or password"),
            ("http://me:secret@shop", "without user or password"),
            ("http://shop:9001/api", "without path or query"),
            ("http://shop:9001?x=1", "without path or query"),
            ("http://shop:9001#x", "without path or query"),
            ("http://:9001", "must name a host"),
            ("not a url", "is not a URL"),
        ];
        for (text, expected) in cases {
            let problem = Endpoint::parse(text).unwrap_err();
            assert!(problem.contains(expected), "{text:?} said {problem:?}");
        }
    }

    #[test]
    fn each_wrong_field_is_named() {
        type Spoil = fn(&mut Claim);
        let cases: [(&str, &str, Spoil); 10] = [
            ("participant", "1 to 128 characters", |c| c.participant = "a.b".into()),
            ("endpoint", "must not be empty", |c| c.endpoint.clear()),
            ("protocol", "is required: PROTOCOL_SAGAD, PROTOCOL_GRPC or", |c| c.protocol = None),
            ("actions", "at least one", |c| c.actions.clear()),
            ("actions[1].name", "1 to 128 characters", |c| c.actions[1].name.clear()),
            ("actions[1].name", "stands twice", |c| c.actions[1].name = "deduct".into()),
            ("max_in_flight", "at most 10000", |c| c.max_in_flight = 10_001),
            ("descriptor_set", "is for PROTOCOL_GRPC only", |c| c.descriptor_set = vec![1]),
            ("descriptor_set", "is no descriptor set", |c| {
                c.protocol = Some(Protocol::Grpc);
                c.actions.iter_mut().for_each(|action| action.target = "a.B/C".into());
                c.descriptor_set = b"garbage".to_vec();
            }),
            ("ttl", "at most 1 h", |c| c.ttl = Duration::from_secs(3_601)),
        ];
        for (field, expected, spoil) in cases {
            let mut claim = good();
            spoil(&mut claim);
            let InvalidClaim(problems) = Handlers::check(&claim).unwrap_err();
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert_eq!(problems[0].field, field);
            assert!(problems[0].problem.contains(expected), "{:?}", problems[0]);
        }
    }

    #[test]
    fn all_wrong_fields_are_named_at_once() {
        let InvalidClaim(problems) = Handlers::check(&Claim::default()).unwrap_err();
        let fields: Vec<_> = problems.iter().map(|p| p.field.as_str()).collect();
        assert_eq!(fields, ["participant", "endpoint", "protocol", "actions"]);
    }
}

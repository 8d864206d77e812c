//! `participant check`: a conformance run against a service, without a daemon.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use uuid::Uuid;

use super::args::{self, Document};
use super::exit::Exit;
use super::participants::{Answers, Spoken, offered};
use super::render::{check as told, text};
use super::session::{self, Session};
use super::trouble::Trouble;
use crate::clock::SystemClock;
use crate::participant::check::{self, Finding, Plan, Verdict};
use crate::participant::handlers::{Claim, ClaimedAction, Handlers, Protocol};
use crate::proto::HandlerAction;
use crate::saga::ids::{ActionName, SagaId};
use crate::saga::json::Json;

/// What to try out.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The URL of the service
    endpoint: String,
    /// How to call it
    #[arg(long, value_enum, default_value_t = Spoken::Sagad)]
    protocol: Spoken,
    /// The action to try, and what to call for it (`deduct=POST /stock/deduct`; left out with sagad)
    #[arg(long, value_name = "NAME[=TARGET]")]
    action: String,
    /// What undoes it; without one only the way forward is tried
    #[arg(long, value_name = "NAME[=TARGET]")]
    compensation: Option<String>,
    /// An input with which the action has its effect: JSON, `@FILE`, or `-`
    #[arg(long, value_name = "JSON")]
    input: Document,
    /// The compensation's input, where it is not the action's
    #[arg(long, value_name = "JSON")]
    compensation_input: Option<Document>,
    /// An input that the action must refuse
    #[arg(long, value_name = "JSON")]
    refused_input: Option<Document>,
    /// Answers of an action to count as refused, as in `register`
    #[arg(long, value_name = "NAME=ANSWERS")]
    refused_on: Vec<Answers>,
    /// Answers of an action to count as done, as in `register`
    #[arg(long, value_name = "NAME=ANSWERS")]
    done_on: Vec<Answers>,
    /// How long one call may take
    #[arg(long, default_value = "5s", value_name = "SPAN", value_parser = args::span)]
    timeout: Duration,
    /// How long a call is repeated that is pending or has no definite answer
    #[arg(long, default_value = "10s", value_name = "SPAN", value_parser = args::span)]
    patience: Duration,
    /// Do not ask whether the service may be used for this
    #[arg(long)]
    yes: bool,
}

/// Tries everything, telling each finding as it comes.
pub async fn check(args: CheckArgs, session: &Session) -> Result<Exit, Trouble> {
    let is_agreed = args.yes;
    let plan = plan(args)?;
    if !is_agreed {
        let warning = told::warning(&plan);
        if !session::somebody_is_there() {
            return Err(Trouble::Usage(format!("{warning}nobody is there to confirm it; pass --yes")));
        }
        if !session::asks(&warning, "go on?")? {
            return Err(Trouble::Declined);
        }
    }
    let (mut findings, mut written) = (Vec::new(), Ok(()));
    check::run(plan, Arc::new(SystemClock::start()), |finding: Finding| {
        if written.is_ok() && session.form() == session::Form::Table {
            written = session.entry(&told::view(&finding), || told::finding(&finding));
        }
        findings.push(finding);
    })
    .await;
    written?;
    let report = told::report(&findings);
    session.answer(&report, |_| told::summary(&findings), String::new)?;
    let is_bad = findings.iter().any(|finding| finding.verdict == Verdict::Failed);
    Ok(if is_bad { Exit::Failed } else { Exit::Done })
}

fn plan(args: CheckArgs) -> Result<Plan, Trouble> {
    let flags = "--action or --compensation";
    let texts = std::iter::once(&args.action).chain(&args.compensation);
    let actions = offered(flags, texts, args.refused_on, args.done_on)?;
    let actions: Vec<_> = actions.into_iter().map(claimed).collect();
    let names: Vec<_> = actions.iter().map(|action| ActionName::parse(&action.name)).collect();
    let claim = Claim {
        participant: "check".to_owned(),
        endpoint: args.endpoint,
        protocol: Some(match args.protocol {
            Spoken::Sagad => Protocol::Sagad,
            Spoken::Grpc => Protocol::Grpc,
            Spoken::Http => Protocol::Http,
        }),
        actions,
        ..Claim::default()
    };
    let handlers = Handlers::check(&claim).map_err(|invalid| Trouble::Usage(invalid.to_string()))?;
    let mut names = names.into_iter().flatten();
    let action = names.next().expect("the claim's check has read the names");
    Ok(Plan {
        handlers,
        action,
        compensation: names.next(),
        input: document("--input", args.input)?,
        compensation_input: args
            .compensation_input
            .map(|it| document("--compensation-input", it))
            .transpose()?,
        refused_input: args.refused_input.map(|it| document("--refused-input", it)).transpose()?,
        timeout: args.timeout,
        patience: args.patience,
        saga_id: SagaId::parse(&format!("check-{}", Uuid::now_v7())).expect("a good id"),
    })
}

fn claimed(action: HandlerAction) -> ClaimedAction {
    let HandlerAction { name, target, refused_on, done_on } = action;
    ClaimedAction { name, target, refused_on, done_on }
}

/// A document as a saga's steps have them: an object.
fn document(flag: &str, given: Document) -> Result<Json, Trouble> {
    let given = given.text()?;
    let json = Json::parse(given.trim()).map_err(|error| {
        Trouble::Usage(format!("{flag} is no JSON: {}", text::printable(&error.to_string())))
    })?;
    if json.value().is_object() { Ok(json) } else { Err(Trouble::Usage(format!("{flag} must be an object"))) }
}

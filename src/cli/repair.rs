//! `cancel`, `retry`, `skip`, `resolve`, `pause`, `resume`, `abandon`: an operator moves a saga.
//!
//! ```text
//!  --dry-run            plan, nothing done
//!  on a terminal        plan ─► question ─► act
//!  --yes                act
//!  neither              usage error: nobody is there to ask
//! ```

use clap::{Args, ValueEnum};

use super::args::Document;
use super::client::{Daemon, answer};
use super::exit::Exit;
use super::render::{repair as told, text, view};
use super::session::{self, Session};
use super::trouble::Trouble;
use crate::proto::{RepairAct, RepairRequest, RepairResponse, ResolveOutcome};

/// What every act takes.
#[derive(Debug, Args)]
struct Consent {
    /// Why, for the saga's history
    #[arg(long, value_name = "TEXT", required_unless_present = "dry_run")]
    reason: Option<String>,
    /// Who acts, for the saga's history
    #[arg(long, value_name = "NAME", env = "SAGAD_ACTOR")]
    actor: Option<String>,
    /// Only show what would follow
    #[arg(long)]
    dry_run: bool,
    /// Act without asking
    #[arg(short, long, conflicts_with = "dry_run")]
    yes: bool,
}

/// An act on a whole saga.
#[derive(Debug, Args)]
pub struct SagaArgs {
    /// The saga
    saga_id: String,
    #[command(flatten)]
    consent: Consent,
}

/// Which steps to attempt again.
#[derive(Debug, Args)]
pub struct RetryArgs {
    /// The saga
    saga_id: String,
    /// The step or step instance; left out: every waiting or blocked one
    step: Option<String>,
    #[command(flatten)]
    consent: Consent,
}

/// An act on one step.
#[derive(Debug, Args)]
pub struct StepArgs {
    /// The saga
    saga_id: String,
    /// The step or step instance
    step: String,
    #[command(flatten)]
    consent: Consent,
}

/// What was found out about a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Finding {
    /// The action has its effect
    Done,
    /// The action has no effect and will have none
    Failed,
    /// The effect is undone
    Compensated,
}

impl From<Finding> for ResolveOutcome {
    fn from(finding: Finding) -> Self {
        match finding {
            Finding::Done => ResolveOutcome::Done,
            Finding::Failed => ResolveOutcome::Failed,
            Finding::Compensated => ResolveOutcome::Compensated,
        }
    }
}

/// How to settle a step.
#[derive(Debug, Args)]
pub struct ResolveArgs {
    /// The saga
    saga_id: String,
    /// The step or step instance
    step: String,
    /// What was found out
    #[arg(long = "as", value_enum, value_name = "FINDING")]
    finding: Finding,
    /// The action's output when it is done: JSON, `@FILE`, or `-` for the standard input
    #[arg(long, value_name = "JSON|@FILE|-")]
    output: Option<Document>,
    #[command(flatten)]
    consent: Consent,
}

/// What to leave behind.
#[derive(Debug, Args)]
pub struct AbandonArgs {
    /// The saga
    saga_id: String,
    /// A step whose effect stays behind; all of them must be named. Left out: prints which they are
    #[arg(long = "step", value_name = "STEP")]
    steps: Vec<String>,
    #[command(flatten)]
    consent: Consent,
}

/// Undoes a saga.
pub async fn cancel(args: SagaArgs, session: &Session) -> Result<Exit, Trouble> {
    whole_saga(args, RepairAct::Cancel, "cancel", session).await
}

/// Holds a saga still.
pub async fn pause(args: SagaArgs, session: &Session) -> Result<Exit, Trouble> {
    whole_saga(args, RepairAct::Pause, "pause", session).await
}

/// Lets a paused saga go on.
pub async fn resume(args: SagaArgs, session: &Session) -> Result<Exit, Trouble> {
    whole_saga(args, RepairAct::Resume, "resume", session).await
}

async fn whole_saga(
    args: SagaArgs,
    act: RepairAct,
    verb: &'static str,
    session: &Session,
) -> Result<Exit, Trouble> {
    let request = RepairRequest { saga_id: args.saga_id, act: act.into(), ..RepairRequest::default() };
    repair(request, verb, args.consent, session).await
}

/// Attempts steps again at once.
pub async fn retry(args: RetryArgs, session: &Session) -> Result<Exit, Trouble> {
    let request = RepairRequest {
        saga_id: args.saga_id,
        act: RepairAct::RetryNow.into(),
        step: args.step.unwrap_or_default(),
        ..RepairRequest::default()
    };
    repair(request, "retry", args.consent, session).await
}

/// Leaves a step out.
pub async fn skip(args: StepArgs, session: &Session) -> Result<Exit, Trouble> {
    let request = RepairRequest {
        saga_id: args.saga_id,
        act: RepairAct::Skip.into(),
        step: args.step,
        ..RepairRequest::default()
    };
    repair(request, "skip a step of", args.consent, session).await
}

/// Settles a step by word.
pub async fn resolve(args: ResolveArgs, session: &Session) -> Result<Exit, Trouble> {
    if args.output.is_some() && args.finding != Finding::Done {
        return Err(Trouble::Usage("only a step resolved as done has an output".to_owned()));
    }
    let request = RepairRequest {
        saga_id: args.saga_id,
        act: RepairAct::Resolve.into(),
        step: args.step,
        outcome: ResolveOutcome::from(args.finding).into(),
        output_json: args.output.map_or(Ok(String::new()), Document::text)?,
        ..RepairRequest::default()
    };
    repair(request, "resolve a step of", args.consent, session).await
}

/// Ends a saga as it stands.
pub async fn abandon(args: AbandonArgs, session: &Session) -> Result<Exit, Trouble> {
    let request = RepairRequest {
        saga_id: args.saga_id,
        act: RepairAct::Abandon.into(),
        abandon_steps: args.steps,
        ..RepairRequest::default()
    };
    if request.abandon_steps.is_empty() {
        // The daemon refuses and names them, unless there is nothing to leave behind.
        let daemon = session.daemon().await?;
        let question = RepairRequest { dry_run: true, ..request.clone() };
        let asked = format!("{} without naming each step with --step", asked("abandon", &request));
        answer(&asked, daemon.operations().repair(question)).await?;
    }
    repair(request, "abandon", args.consent, session).await
}

/// Shows, asks, acts, as far as `consent` goes.
async fn repair(
    mut request: RepairRequest,
    verb: &'static str,
    consent: Consent,
    session: &Session,
) -> Result<Exit, Trouble> {
    if !consent.dry_run && !consent.yes && !session::somebody_is_there() {
        return Err(Trouble::Usage(format!(
            "{verb}: nobody is there to confirm it; pass --yes to act, or --dry-run to see what would follow"
        )));
    }
    request.reason = consent.reason.unwrap_or_default();
    request.actor = consent.actor.or_else(login_name).unwrap_or_default();
    let daemon = session.daemon().await?;
    if !consent.yes {
        let plan = ask(&daemon, verb, RepairRequest { dry_run: true, ..request.clone() }).await?;
        if consent.dry_run {
            session.answer(&view::repaired(&plan, true), |page| told::plan(&plan, page), String::new)?;
            return Ok(Exit::Done);
        }
        let question = format!("{verb} {}?", text::printable(&request.saga_id));
        if !session::asks(&told::plan(&plan, &session.page()), &question)? {
            return Err(Trouble::Declined);
        }
    }
    let outcome = ask(&daemon, verb, request).await?;
    session.answer(&view::repaired(&outcome, false), |page| told::outcome(&outcome, page), String::new)?;
    Ok(Exit::Done)
}

async fn ask(daemon: &Daemon, verb: &str, request: RepairRequest) -> Result<RepairResponse, Trouble> {
    answer(&asked(verb, &request), daemon.operations().repair(request)).await
}

fn asked(verb: &str, request: &RepairRequest) -> String {
    format!("{verb} saga {}", text::printable(&request.saga_id))
}

/// Who is logged in, where the system says so.
fn login_name() -> Option<String> {
    std::env::var("USER").ok().filter(|name| !name.is_empty())
}

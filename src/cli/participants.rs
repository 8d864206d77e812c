//! `participant …`: who is called, and where.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::args::{self, on_the_wire};
use super::client::answer;
use super::exit::Exit;
use super::participant_check;
use super::render::{participants as told, registry, text};
use super::session::Session;
use super::trouble::Trouble;
use crate::proto::{
    HandlerAction, ListParticipantsRequest, Participant, PauseParticipantRequest, Protocol,
    RegisterHandlersRequest, ResumeParticipantRequest,
};

/// What to do with participants.
#[derive(Debug, Subcommand)]
pub enum ParticipantVerb {
    /// List participants with their registrations
    List(ListArgs),
    /// Register one endpoint of a participant
    Register(RegisterArgs),
    /// Try out whether a service keeps what sagas need of it; makes real effects
    Check(participant_check::CheckArgs),
    /// Call a participant no more: calls in flight finish, its sagas wait
    Pause(ActArgs),
    /// End a participant's pause
    Resume(ActArgs),
}

/// Whom to pause or resume, and why.
#[derive(Debug, Args)]
pub struct ActArgs {
    /// The participant
    name: String,
    /// Why, for those who wonder
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Who acts
    #[arg(long, value_name = "NAME", env = "SAGAD_ACTOR")]
    actor: Option<String>,
}

/// Which participants to list.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only this participant
    name: Option<String>,
}

/// What to register.
#[derive(Debug, Args)]
pub struct RegisterArgs {
    /// The participant: what stands before the first dot of a definition's `call`
    name: String,
    /// The URL to call
    #[arg(long, value_name = "URL")]
    endpoint: String,
    /// How to call it
    #[arg(long, value_enum, default_value_t = Spoken::Sagad)]
    protocol: Spoken,
    /// An action it offers, what follows the first dot, and what to call for it
    /// (`deduct=shop.stock.v1.StockService/Deduct`, `deduct=POST /stock/deduct`; left out with sagad);
    /// may be repeated
    #[arg(long = "action", required = true, value_name = "NAME[=TARGET]")]
    actions: Vec<String>,
    /// Answers of an action to count as refused in place of the protocol's own, such as
    /// `deduct=NOT_FOUND,FAILED_PRECONDITION` or `deduct=404,409`; may be repeated
    #[arg(long, value_name = "NAME=ANSWERS")]
    refused_on: Vec<Answers>,
    /// Answers of an action to count as done, such as `restore=NOT_FOUND`; may be repeated
    #[arg(long, value_name = "NAME=ANSWERS")]
    done_on: Vec<Answers>,
    /// Most calls at a time; 0: the daemon's default
    #[arg(long, default_value_t = 0, value_name = "N")]
    max_in_flight: u32,
    /// How long it lasts without being renewed, at most 1 h; 0: the daemon's default
    #[arg(long, default_value = "0", value_name = "SPAN", value_parser = args::span)]
    ttl: Duration,
    /// A file with the types of its methods, for a gRPC service without server reflection; made by
    /// `protoc --include_imports -o FILE` or `buf build -o FILE`
    #[arg(long, value_name = "FILE")]
    descriptor_set: Option<PathBuf>,
}

const REFUSED_ON: &str = "--refused-on";
const DONE_ON: &str = "--done-on";

/// How a participant is called.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Spoken {
    /// It implements sagad.v1.ParticipantService
    Sagad,
    /// Unary methods of an existing gRPC service
    Grpc,
    /// Requests with a JSON body
    Http,
}

impl From<Spoken> for Protocol {
    fn from(spoken: Spoken) -> Self {
        match spoken {
            Spoken::Sagad => Protocol::Sagad,
            Spoken::Grpc => Protocol::Grpc,
            Spoken::Http => Protocol::Http,
        }
    }
}

/// `NAME=ANSWER,ANSWER`: some answers of one action.
#[derive(Debug, Clone)]
pub(super) struct Answers {
    action: String,
    answers: Vec<String>,
}

impl FromStr for Answers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (action, answers) = text.split_once('=').ok_or("write it as ACTION=ANSWER,ANSWER")?;
        let answers = answers.split(',').map(|answer| answer.trim().to_owned()).collect();
        Ok(Self { action: action.to_owned(), answers })
    }
}

/// Actions written as `NAME[=TARGET]`, each with its answers. `flags` are those that name an action.
pub(super) fn offered<'a>(
    flags: &str,
    actions: impl IntoIterator<Item = &'a String>,
    refused_on: Vec<Answers>,
    done_on: Vec<Answers>,
) -> Result<Vec<HandlerAction>, Trouble> {
    let offer = |action: &String| {
        let (name, target) = action.split_once('=').unwrap_or((action, ""));
        let (name, target) = (name.trim().to_owned(), target.trim().to_owned());
        HandlerAction { name, target, ..HandlerAction::default() }
    };
    let mut actions: Vec<_> = actions.into_iter().map(offer).collect();
    let mut add = |flag: &str, Answers { action, answers }: Answers| {
        let known = actions.iter_mut().find(|known| known.name == action);
        let known =
            known.ok_or_else(|| Trouble::Usage(format!("{flag} {action}=…: no {flags} has this name")))?;
        let list = if flag == REFUSED_ON { &mut known.refused_on } else { &mut known.done_on };
        list.extend(answers);
        Ok::<_, Trouble>(())
    };
    refused_on.into_iter().try_for_each(|answers| add(REFUSED_ON, answers))?;
    done_on.into_iter().try_for_each(|answers| add(DONE_ON, answers))?;
    Ok(actions)
}

fn descriptor_set(path: &Path) -> Result<Vec<u8>, Trouble> {
    std::fs::read(path).map_err(|source| Trouble::Local { what: format!("read {}", path.display()), source })
}

/// Runs one of the verbs.
pub async fn run(verb: ParticipantVerb, session: &Session) -> Result<Exit, Trouble> {
    match verb {
        ParticipantVerb::List(args) => list(args, session).await,
        ParticipantVerb::Register(args) => register(args, session).await,
        ParticipantVerb::Check(args) => participant_check::check(args, session).await,
        ParticipantVerb::Pause(args) => pause(args, session).await,
        ParticipantVerb::Resume(args) => resume(args, session).await,
    }
}

async fn pause(args: ActArgs, session: &Session) -> Result<Exit, Trouble> {
    let asked = format!("pause participant {}", text::printable(&args.name));
    let mut client = session.daemon().await?.operations();
    let actor = args.actor.unwrap_or_default();
    let request = PauseParticipantRequest { participant: args.name, reason: args.reason, actor };
    let answer = answer(&asked, client.pause_participant(request)).await?;
    show(answer.participant.unwrap_or_default(), session)
}

async fn resume(args: ActArgs, session: &Session) -> Result<Exit, Trouble> {
    let asked = format!("resume participant {}", text::printable(&args.name));
    let mut client = session.daemon().await?.operations();
    let actor = args.actor.unwrap_or_default();
    let request = ResumeParticipantRequest { participant: args.name, reason: args.reason, actor };
    let answer = answer(&asked, client.resume_participant(request)).await?;
    show(answer.participant.unwrap_or_default(), session)
}

fn show(participant: Participant, session: &Session) -> Result<Exit, Trouble> {
    let participants = [participant];
    session.answer(
        &told::participant_view(&participants[0]),
        |page| told::participants(&participants, page),
        || text::a_line_each([&participants[0].name]),
    )?;
    Ok(Exit::Done)
}

async fn list(args: ListArgs, session: &Session) -> Result<Exit, Trouble> {
    let mut client = session.daemon().await?.registry();
    let request = ListParticipantsRequest { participant: args.name.unwrap_or_default() };
    let participants = answer("list participants", client.list_participants(request)).await?.participants;
    let views: Vec<_> = participants.iter().map(told::participant_view).collect();
    session.answer(
        &views,
        |page| told::participants(&participants, page),
        || text::a_line_each(participants.iter().map(|one| &one.name)),
    )?;
    Ok(Exit::Done)
}

async fn register(args: RegisterArgs, session: &Session) -> Result<Exit, Trouble> {
    let actions = offered("--action", &args.actions, args.refused_on, args.done_on)?;
    let descriptor_set = args.descriptor_set.as_deref().map_or(Ok(Vec::new()), descriptor_set)?;
    let asked = format!("register participant {}", text::printable(&args.name));
    let mut client = session.daemon().await?.registry();
    let request = RegisterHandlersRequest {
        participant: args.name,
        endpoint: args.endpoint,
        protocol: Protocol::from(args.protocol).into(),
        actions,
        max_in_flight: args.max_in_flight,
        ttl: Some(on_the_wire(args.ttl)),
        descriptor_set,
    };
    let answer = answer(&asked, client.register_handlers(request)).await?;
    session.answer(
        &registry::registered_view(&answer),
        |page| {
            format!(
                "registered as {}, runs out {} unless renewed\n",
                text::printable(&answer.registration_id),
                text::until(answer.expires_at.as_ref(), page.now)
            )
        },
        || text::a_line_each([&answer.registration_id]),
    )?;
    Ok(Exit::Done)
}

//! `participant …`: who is called, and where.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::args::{self, on_the_wire};
use super::client::answer;
use super::exit::Exit;
use super::render::{registry as told, text};
use super::session::Session;
use super::trouble::Trouble;
use crate::proto::{HandlerAction, ListParticipantsRequest, Protocol, RegisterHandlersRequest};

/// What to do with participants.
#[derive(Debug, Subcommand)]
pub enum ParticipantVerb {
    /// List participants with their registrations
    List(ListArgs),
    /// Register one endpoint of a participant that implements sagad.v1.ParticipantService
    Register(RegisterArgs),
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
    /// An action it offers: what follows the first dot; may be repeated
    #[arg(long = "action", required = true, value_name = "NAME")]
    actions: Vec<String>,
    /// Most calls at a time; 0: the daemon's default
    #[arg(long, default_value_t = 0, value_name = "N")]
    max_in_flight: u32,
    /// How long it lasts without being renewed, at most 1 h; 0: the daemon's default
    #[arg(long, default_value = "0", value_name = "SPAN", value_parser = args::span)]
    ttl: Duration,
}

/// Runs one of the verbs.
pub async fn run(verb: ParticipantVerb, session: &Session) -> Result<Exit, Trouble> {
    match verb {
        ParticipantVerb::List(args) => list(args, session).await,
        ParticipantVerb::Register(args) => register(args, session).await,
    }
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
    let asked = format!("register participant {}", text::printable(&args.name));
    let mut client = session.daemon().await?.registry();
    let actions = args.actions.into_iter().map(|name| HandlerAction { name, ..HandlerAction::default() });
    let request = RegisterHandlersRequest {
        participant: args.name,
        endpoint: args.endpoint,
        protocol: Protocol::Sagad.into(),
        actions: actions.collect(),
        max_in_flight: args.max_in_flight,
        ttl: Some(on_the_wire(args.ttl)),
    };
    let answer = answer(&asked, client.register_handlers(request)).await?;
    session.answer(
        &told::registered_view(&answer),
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

//! `watch` and `wait`: staying with a saga while it moves.

use std::time::Duration;

use clap::Args;

use super::args::{self, Awaited, on_the_wire};
use super::client::{Daemon, answer, answer_after};
use super::exit::{Exit, verdict};
use super::render::timeline::Layout;
use super::render::{saga as told, text, view};
use super::session::Session;
use super::trouble::Trouble;
use crate::clock::Stopwatch;
use crate::proto::{GetSagaRequest, Saga, WaitFor, WaitSagaRequest, WatchSagaRequest};
use crate::saga::ids::Timestamp;

/// Longest single wait asked of the daemon. A block does not end the daemon's wait, so the saga is
/// looked at this often to see one.
pub const WAIT_SLICE: Duration = Duration::from_secs(1);

/// Which history to print.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// The saga
    saga_id: String,
    /// Only what came after this event's number
    #[arg(long, value_name = "N", default_value_t = 0)]
    after: u64,
    /// End after the last stored event
    #[arg(long)]
    no_follow: bool,
}

/// Prints a saga's events.
pub async fn watch(args: WatchArgs, session: &Session) -> Result<Exit, Trouble> {
    let daemon = session.daemon().await?;
    let mut layout = None;
    if args.after > 0 {
        layout = Some(Layout::live(started_at(&daemon, &args.saga_id).await?, &session.page()));
    }
    let asked = format!("watch saga {}", text::printable(&args.saga_id));
    let request = WatchSagaRequest { saga_id: args.saga_id, after_seq: args.after, follow: !args.no_follow };
    let mut stream = answer(&asked, daemon.sagas().watch_saga(request)).await?;
    let mut last = args.after;
    loop {
        let message = stream.message().await.map_err(|status| {
            Trouble::refused(
                format!("go on watching after event {last} (resume with --after {last})"),
                status,
            )
        })?;
        let Some(message) = message else { return Ok(Exit::Done) };
        let event = message.event.ok_or(Trouble::Incomplete("event"))?;
        let layout =
            *layout.get_or_insert_with(|| Layout::live(text::instant(event.at.as_ref()), &session.page()));
        session.entry(&view::event(&event), || layout.line(&event))?;
        last = event.seq;
    }
}

async fn started_at(daemon: &Daemon, saga_id: &str) -> Result<Option<Timestamp>, Trouble> {
    let asked = format!("read saga {}", text::printable(saga_id));
    let request = GetSagaRequest { saga_id: saga_id.to_owned() };
    let saga = answer(&asked, daemon.sagas().get_saga(request)).await?.saga;
    Ok(text::instant(saga.and_then(|saga| saga.created_at).as_ref()))
}

/// Which saga to wait for.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// The saga
    saga_id: String,
    /// How far to wait
    #[arg(long = "for", value_enum, default_value = "committed", value_name = "STATE")]
    awaited: Awaited,
    /// Longest time to wait; 0: look once
    #[arg(long, value_name = "SPAN", default_value = "30s", value_parser = args::span)]
    timeout: Duration,
}

/// Waits for a saga.
pub async fn wait(args: WaitArgs, session: &Session) -> Result<Exit, Trouble> {
    let daemon = session.daemon().await?;
    let (saga, exit) = until(&daemon, &args.saga_id, args.awaited.into(), args.timeout).await?;
    session.answer(&view::saga(&saga), |_| told::line(&saga), || told::ids(std::slice::from_ref(&saga)))?;
    Ok(exit)
}

/// Waits until the saga is as far as asked, has ended, waits for an operator, or `limit` has
/// passed; always looks at least once.
///
/// # Errors
/// As the calls to the daemon.
pub async fn until(
    daemon: &Daemon,
    saga_id: &str,
    awaited: WaitFor,
    limit: Duration,
) -> Result<(Saga, Exit), Trouble> {
    let asked = format!("wait for saga {}", text::printable(saga_id));
    let watch = Stopwatch::start();
    // The first look does not wait: a saga that is blocked already is told at once.
    let mut slice = Duration::ZERO;
    loop {
        let request = WaitSagaRequest {
            saga_id: saga_id.to_owned(),
            wait_for: awaited.into(),
            timeout: Some(on_the_wire(slice)),
        };
        let saga = answer_after(slice, &asked, daemon.sagas().wait_saga(request))
            .await?
            .saga
            .ok_or(Trouble::Incomplete("saga"))?;
        if let Some(exit) = verdict(&saga, awaited) {
            return Ok((saga, exit));
        }
        let left = limit.saturating_sub(watch.elapsed());
        if left.is_zero() {
            return Ok((saga, Exit::TimedOut));
        }
        slice = left.min(WAIT_SLICE);
    }
}

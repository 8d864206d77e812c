//! `start`: a saga begins, and perhaps is waited for.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use uuid::Uuid;

use super::args::{self, Awaited, Document, on_the_wire};
use super::client::answer_after;
use super::exit::{Exit, verdict};
use super::follow::{self, WAIT_SLICE};
use super::render::{saga as told, text, view};
use super::session::Session;
use super::trouble::Trouble;
use crate::clock::Stopwatch;
use crate::proto::{Saga, StartSagaRequest, WaitFor};
use crate::saga::ids::Timestamp;

/// What to start.
#[derive(Debug, Args)]
pub struct StartArgs {
    /// Name of the definition
    definition: String,
    /// The input, a JSON object: the text itself, `@FILE`, or `-` for the standard input
    #[arg(short, long, value_name = "JSON|@FILE|-")]
    input: Option<Document>,
    /// The saga's id; repeating a start with the same id is safe. Left out: a new one is made
    #[arg(long)]
    id: Option<String>,
    /// Version of the definition; 0: the newest active one
    #[arg(long, default_value_t = 0, value_name = "N")]
    version: u32,
    /// A label to find the saga by; may be repeated
    #[arg(short, long = "label", value_name = "NAME=VALUE", value_parser = args::label)]
    labels: Vec<(String, String)>,
    /// Wait for the saga, at most this long
    #[arg(long, value_name = "SPAN", num_args = 0..=1, require_equals = true, default_missing_value = "30s",
          value_parser = args::span)]
    wait: Option<Duration>,
    /// How far to wait
    #[arg(long, value_enum, default_value = "committed", requires = "wait")]
    wait_for: Awaited,
}

/// Starts a saga.
pub async fn start(args: StartArgs, session: &Session) -> Result<Exit, Trouble> {
    let awaited = WaitFor::from(args.wait_for);
    // The id is made here, so that a start whose answer was lost can be repeated by its id.
    let saga_id = args.id.unwrap_or_else(|| new_id(session.page().now));
    let first_wait = args.wait.map_or(Duration::ZERO, |wait| wait.min(WAIT_SLICE));
    let request = StartSagaRequest {
        saga_id: saga_id.clone(),
        definition: args.definition,
        version: args.version,
        input_json: args.input.map_or(Ok(String::new()), Document::text)?,
        labels: labels(args.labels)?,
        wait: Some(on_the_wire(first_wait)),
        wait_for: awaited.into(),
    };
    let daemon = session.daemon().await?;
    let watch = Stopwatch::start();
    let asked = format!("start saga {}", text::printable(&saga_id));
    let started = answer_after(first_wait, &asked, daemon.sagas().start_saga(request)).await?;
    let mut saga = started.saga.ok_or(Trouble::Incomplete("saga"))?;
    let mut exit = Exit::Done;
    if let Some(limit) = args.wait {
        (saga, exit) = match verdict(&saga, awaited) {
            Some(exit) => (saga, exit),
            None => {
                follow::until(&daemon, &saga.saga_id, awaited, limit.saturating_sub(watch.elapsed())).await?
            }
        };
    }
    session.answer(
        &view::started(&saga, started.existed),
        |page| {
            if args.wait.is_some() { told::whole(&saga, page) } else { one_line(&saga, started.existed) }
        },
        || told::ids(std::slice::from_ref(&saga)),
    )?;
    Ok(exit)
}

fn one_line(saga: &Saga, existed: bool) -> String {
    let how = if existed { "existed already: " } else { "started: " };
    format!("{how}{}", told::line(saga))
}

fn labels(pairs: Vec<(String, String)>) -> Result<BTreeMap<String, String>, Trouble> {
    let mut labels = BTreeMap::new();
    for (name, value) in pairs {
        if labels.insert(name.clone(), value).is_some() {
            return Err(Trouble::Usage(format!("--label {name} was given twice")));
        }
    }
    Ok(labels)
}

/// A UUIDv7.
fn new_id(now: Timestamp) -> String {
    let millis = u64::try_from(now.0).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &random_bytes()).into_uuid().to_string()
}

/// Ten random bytes, from the generator behind version 4.
fn random_bytes() -> [u8; 10] {
    let random = Uuid::new_v4().into_bytes();
    let mut bytes = [0; 10];
    // The first six carry no version or variant bits; nor do the last seven.
    bytes[..4].copy_from_slice(&random[..4]);
    bytes[4..].copy_from_slice(&random[10..]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_made_here_is_a_version_7_uuid_of_its_own() {
        let now = Timestamp(1_767_225_600_000);
        let (one, other) = (new_id(now), new_id(now));
        assert_ne!(one, other);
        assert_eq!(Uuid::parse_str(&one).unwrap().get_version_num(), 7);
        assert_eq!(one.split('-').next(), other.split('-').next());
    }

    #[test]
    fn a_label_given_twice_is_a_usage_error() {
        let twice = vec![("a".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())];
        assert_eq!(labels(twice).unwrap_err().exit(), Exit::Usage);
    }
}

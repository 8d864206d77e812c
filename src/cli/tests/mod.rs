//! The command line itself, and what the rooms' tests share: samples and a page of eighty columns.

pub mod sample;

use clap::{CommandFactory as _, Parser as _, error::ErrorKind};

use super::render::Page;
use super::{Cli, Exit};
use crate::saga::ids::Timestamp;

/// A terminal of eighty columns, ten minutes after the samples began.
pub fn narrow_page() -> Page {
    Page { width: Some(80), now: Timestamp((sample::BEGAN_SECONDS + 600) * 1_000) }
}

/// A text as it is read: without colours, and without the blanks before a line's end.
pub fn drawn(text: &str) -> String {
    let plain = anstream::adapter::strip_str(text).to_string();
    plain.lines().flat_map(|line| [line.trim_end(), "\n"]).collect()
}

fn parsed(line: &str) -> Result<Cli, ErrorKind> {
    Cli::try_parse_from(line.split(' ')).map_err(|error| error.kind())
}

#[test]
fn the_command_line_contradicts_itself_nowhere() {
    Cli::command().debug_assert();
}

#[test]
fn every_verb_is_read_as_it_is_documented() {
    let lines = [
        "sagactl start order --input {} --id order-17 --version 2 --label region=kr --label tier=gold",
        "sagactl start order --wait",
        "sagactl start order --wait=5s --wait-for ended",
        "sagactl get order-17 -o json",
        "sagactl -o yaml get order-17",
        "sagactl list --filter status=BLOCKED --order oldest --limit 0 --quiet",
        "sagactl count --filter paused=true",
        "sagactl watch order-17 --after 3 --no-follow",
        "sagactl wait order-17 --for ended --timeout 2m",
        "sagactl why order-17",
        "sagactl stuck --limit 5",
        "sagactl cancel order-17 --reason asked --yes",
        "sagactl retry order-17 --reason fixed --dry-run",
        "sagactl retry order-17 use-point --reason fixed",
        "sagactl skip order-17 clear-cart --reason gone",
        "sagactl resolve order-17 use-point --as done --output {} --reason seen -o json",
        "sagactl pause order-17 --reason look",
        "sagactl resume order-17 --dry-run",
        "sagactl abandon order-17 --step a --step b/0 --reason lost",
        "sagactl def check sagas a.yaml",
        "sagactl def apply sagas --dry-run",
        "sagactl def list order --active",
        "sagactl def show order --version 3 --source",
        "sagactl def graph order --as dot",
        "sagactl def graph --file a.yaml",
        "sagactl def retire order 3",
        "sagactl participant list stock",
        "sagactl participant register stock --endpoint http://h:1 --action deduct --action restore --ttl 1m",
        "sagactl stats --addr http://127.0.0.1:1",
        "sagactl completions bash",
    ];
    for line in lines {
        assert!(parsed(line).is_ok(), "{line}: {:?}", parsed(line).err());
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let table = [
        ("sagactl cancel order-17 --yes", ErrorKind::MissingRequiredArgument),
        ("sagactl cancel order-17 --reason r --yes --dry-run", ErrorKind::ArgumentConflict),
        ("sagactl resolve order-17 a --reason r", ErrorKind::MissingRequiredArgument),
        ("sagactl start order --wait-for ended", ErrorKind::MissingRequiredArgument),
        ("sagactl start order --label kr", ErrorKind::ValueValidation),
        ("sagactl wait order-17 --timeout 30", ErrorKind::ValueValidation),
        ("sagactl def retire order 0", ErrorKind::ValueValidation),
        ("sagactl def graph order --file a.yaml", ErrorKind::ArgumentConflict),
        ("sagactl def graph", ErrorKind::MissingRequiredArgument),
        ("sagactl get order-17 -o xml", ErrorKind::InvalidValue),
        ("sagactl participant register stock --endpoint http://h:1", ErrorKind::MissingRequiredArgument),
        ("sagactl top", ErrorKind::InvalidSubcommand),
    ];
    for (line, expected) in table {
        assert_eq!(parsed(line).err(), Some(expected), "{line}");
    }
}

#[test]
fn a_wrong_command_line_ends_with_the_code_for_usage_and_help_with_none() {
    let exit = |line: &str| super::run(line.split(' ').map(Into::into));
    assert_eq!(exit("sagactl get"), Exit::Usage);
    assert_eq!(exit("sagactl --help"), Exit::Done);
}

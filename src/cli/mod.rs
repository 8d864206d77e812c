//! `sagactl`: the verbs that clients and operators type. It knows the daemon only over gRPC.
//!
//! ```text
//!  words ─► clap tree ─► verb ─► client ─── gRPC ───► daemon
//!                          └───► session ─► render ─► terminal, JSON, YAML
//! ```
//!
//! One file a family of verbs; each verb ends in an [`Exit`] or a [`Trouble`].

pub mod args;
pub mod client;
pub mod definition_check;
pub mod definitions;
pub mod exit;
pub mod follow;
pub mod participant_check;
pub mod participants;
pub mod read;
pub mod render;
pub mod repair;
pub mod session;
pub mod start;
pub mod stats;
pub mod trouble;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::Write as _;

use clap::{CommandFactory as _, Parser, Subcommand};

pub use exit::Exit;
use session::{Global, Session};
use trouble::Trouble;

/// Starts, watches and repairs sagas.
#[derive(Debug, Parser)]
#[command(name = "sagactl", version, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 done, 1 refused or failed, 2 usage, 3 the awaited saga ended \
                        compensated, 4 it is blocked, 5 the wait timed out.")]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start a saga
    Start(start::StartArgs),
    /// Show one saga with its steps
    Get(read::GetArgs),
    /// List sagas
    List(read::ListArgs),
    /// Count the sagas that match a filter, exactly
    Count(read::CountArgs),
    /// Print a saga's history, then what happens next, a line an event
    Watch(follow::WatchArgs),
    /// Wait until a saga is committed or has ended
    Wait(follow::WaitArgs),
    /// Say why a saga stands where it stands and what to do about it
    Why(read::WhyArgs),
    /// List what waits for an operator
    Stuck(read::StuckArgs),
    /// Undo a saga that has not passed its pivot
    Cancel(repair::SagaArgs),
    /// Attempt a waiting or blocked step again at once
    Retry(repair::RetryArgs),
    /// Leave out a retriable step, or let a blocked compensation be
    Skip(repair::StepArgs),
    /// Settle a step by what you found out
    Resolve(repair::ResolveArgs),
    /// Start no new call of a saga
    Pause(repair::SagaArgs),
    /// End a pause
    Resume(repair::SagaArgs),
    /// End a saga as it stands, its effects left behind
    Abandon(repair::AbandonArgs),
    /// Check, register and show definitions
    #[command(subcommand)]
    Def(definitions::DefVerb),
    /// List, register, check, pause and resume participants
    #[command(subcommand)]
    Participant(participants::ParticipantVerb),
    /// Show the daemon's counts and figures
    Stats,
    /// Print the completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Runs the command line `args`, the program's name first, and says how it ended.
pub fn run(args: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(answer) => {
            // Also the way of --help and --version, which end well.
            let exit = if answer.exit_code() == 0 { Exit::Done } else { Exit::Usage };
            let _ = answer.print();
            return exit;
        }
    };
    let session = Session::new(cli.global);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(dispatch(cli.verb, &session)),
        Err(source) => Err(Trouble::Local { what: "start the runtime".to_owned(), source }),
    };
    ended.unwrap_or_else(|trouble| {
        if !matches!(trouble, Trouble::OutputClosed) {
            // Nothing is left to try when even this cannot be written.
            let _ = writeln!(anstream::stderr(), "sagactl: {trouble}");
        }
        trouble.exit()
    })
}

async fn dispatch(verb: Verb, session: &Session) -> Result<Exit, Trouble> {
    match verb {
        Verb::Start(args) => start::start(args, session).await,
        Verb::Get(args) => read::get(args, session).await,
        Verb::List(args) => read::list(args, session).await,
        Verb::Count(args) => read::count(args, session).await,
        Verb::Watch(args) => follow::watch(args, session).await,
        Verb::Wait(args) => follow::wait(args, session).await,
        Verb::Why(args) => read::why(args, session).await,
        Verb::Stuck(args) => read::stuck(args, session).await,
        Verb::Cancel(args) => repair::cancel(args, session).await,
        Verb::Retry(args) => repair::retry(args, session).await,
        Verb::Skip(args) => repair::skip(args, session).await,
        Verb::Resolve(args) => repair::resolve(args, session).await,
        Verb::Pause(args) => repair::pause(args, session).await,
        Verb::Resume(args) => repair::resume(args, session).await,
        Verb::Abandon(args) => repair::abandon(args, session).await,
        Verb::Def(verb) => definitions::run(verb, session).await,
        Verb::Participant(verb) => participants::run(verb, session).await,
        Verb::Stats => stats::stats(session).await,
        Verb::Completions { shell } => completions(shell),
    }
}

fn completions(shell: clap_complete::Shell) -> Result<Exit, Trouble> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "sagactl", &mut script);
    session::write_exactly(&script)?;
    Ok(Exit::Done)
}

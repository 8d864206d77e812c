//! The daemon, and the shop to try it with.

#![expect(clippy::print_stderr, clippy::print_stdout, reason = "a binary talks to its terminal")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use sagad::config::{Config, Overrides, half_the_cores};
use sagad::daemon;
use sagad::demo::catalogue::CATALOGUE;
use sagad::demo::ledger::Durability;
use sagad::demo::processes;
use sagad::demo::shop::{self, Faults, ShopOptions};
use sagad::demo::{self, DemoOptions, DevOptions};
use sagad::store::sled::{self as store, VerifyReport};
use sagad::telemetry::{self, LogFormat};

/// A saga orchestration engine: one daemon that does all of it, or undoes all of it.
#[derive(Debug, Parser)]
#[command(name = "sagad", version, arg_required_else_help = true)]
struct Sagad {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon
    Serve(ServeArgs),
    /// Run a daemon and the sample shop, and stay: for trying things out
    Dev(DevArgs),
    /// Place hundreds of orders while things are killed, then check that every figure is right
    Demo(DemoArgs),
    /// Say whether a configuration can work
    CheckConfig(ConfigArgs),
    /// Look after the files of a store whose daemon is stopped
    #[command(subcommand)]
    Store(StoreCommand),
    /// Run one service of the sample shop
    #[command(hide = true)]
    Shop(ShopArgs),
}

#[derive(Debug, Args)]
struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// End when standard input ends
    #[arg(long, hide = true)]
    end_with_parent: bool,
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// Configuration file (TOML); the flags and the environment win over it
    #[arg(long, env = "SAGAD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    overrides: Overrides,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Read every record and say what is wrong, if anything; changes nothing
    Verify(StoreArgs),
    /// Write the store anew, without the space that deleted sagas left
    Compact(StoreArgs),
}

#[derive(Debug, Args)]
struct StoreArgs {
    /// Folder of the store
    #[arg(long = "data", env = "SAGAD_DATA", value_name = "DIR", default_value = "sagad-data")]
    dir: PathBuf,
}

#[derive(Debug, Args)]
struct DevArgs {
    /// Address of the gRPC services
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7420")]
    grpc_addr: SocketAddr,
    /// Address of /healthz, /readyz and /metrics
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7421")]
    http_addr: SocketAddr,
    /// Folder to keep everything in; without it, all is gone at the end
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Leave this service out, for one of your own to take its part; may be repeated
    #[arg(long, value_name = "SERVICE", value_parser = CATALOGUE.map(|(name, _)| name))]
    without: Vec<String>,
}

/// More than this is a benchmark and not a show.
const DEMO_ORDERS_MAX: i64 = 5_000;

#[derive(Debug, Args)]
struct DemoArgs {
    /// Orders that are placed at once in act one
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=DEMO_ORDERS_MAX))]
    orders: u32,
    /// Pieces there are of the item they are for
    #[arg(long, default_value_t = 100)]
    stock: u32,
    /// Orders of act two, in which things go wrong
    #[arg(long, default_value_t = 240, value_parser = clap::value_parser!(u32).range(8..=DEMO_ORDERS_MAX))]
    mixed: u32,
    /// Keep store, ledgers and logs also when all is well
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, Args)]
struct ShopArgs {
    /// The service: stock, point, order, cart, `data_platform`, …
    name: String,
    /// Take steps over a stream opened at the daemon, as the worker of this name, and listen nowhere
    #[arg(long, value_name = "NAME", requires = "daemon", conflicts_with = "listen")]
    worker: Option<String>,
    /// Where to listen; port 0 for any free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Folder of the ledger
    #[arg(long, value_name = "DIR")]
    ledger: PathBuf,
    /// Answer before the ledger is on stable storage
    #[arg(long)]
    no_sync: bool,
    /// Daemon to register at
    #[arg(long, value_name = "URL")]
    daemon: Option<String>,
    /// How long a registration lasts unless it is renewed
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// What an account holds at first; may be repeated
    #[arg(long = "balance", value_name = "ACCOUNT=AMOUNT", value_parser = parse_balance)]
    balances: Vec<(String, i64)>,
    /// What every other account holds at first
    #[arg(long, value_name = "AMOUNT", default_value_t = 0)]
    default_balance: i64,
    /// Wait this long before looking at a call
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    delay: Duration,
    /// Wait this long with an answer whose effect is in the ledger
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    reply_delay: Duration,
    /// End when standard input ends
    #[arg(long, hide = true)]
    end_with_parent: bool,
}

fn parse_balance(text: &str) -> Result<(String, i64), String> {
    let (account, amount) = text.split_once('=').ok_or("expected ACCOUNT=AMOUNT")?;
    let amount = amount.parse().map_err(|error| format!("{amount:?} is not an amount: {error}"))?;
    Ok((account.to_owned(), amount))
}

fn main() -> ExitCode {
    let command = Sagad::parse().command;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(half_the_cores()).enable_all().build();
    let ended = runtime.context("start the async runtime").and_then(|runtime| {
        let ended = runtime.block_on(run(command));
        // What blocks on a broken disk must not keep the process.
        runtime.shutdown_background();
        ended
    });
    match ended {
        Ok(code) => code,
        Err(error) => {
            eprintln!("sagad: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(args) => serve(args).await,
        Command::Dev(DevArgs { grpc_addr, http_addr, data, without }) => {
            demo::dev(DevOptions { grpc_addr, http_addr, data, without }).await
        }
        Command::Demo(DemoArgs { orders, stock, mixed, keep }) => {
            demo::run(DemoOptions { orders, stock, mixed, keep }).await
        }
        Command::CheckConfig(args) => check_config(args),
        Command::Store(StoreCommand::Verify(args)) => verify(&args),
        Command::Store(StoreCommand::Compact(args)) => compact(&args),
        Command::Shop(args) => run_shop(args).await,
    }
}

async fn run_shop(args: ShopArgs) -> anyhow::Result<ExitCode> {
    telemetry::init("info", LogFormat::Text).context("set up the log")?;
    if args.end_with_parent {
        processes::end_with_parent().context("watch standard input")?;
    }
    let options = ShopOptions {
        name: args.name,
        listen: args.listen,
        ledger_dir: args.ledger,
        durability: if args.no_sync { Durability::Written } else { Durability::Synced },
        daemon: args.daemon,
        ttl: args.ttl,
        balances: BTreeMap::from_iter(args.balances),
        default_balance: args.default_balance,
        faults: Faults { delay: args.delay, reply_delay: args.reply_delay },
    };
    let until = async {
        if let Err(error) = daemon::told_to_stop().await {
            tracing::error!(%error, "signals cannot be heard");
        }
    };
    match args.worker {
        Some(worker) => shop::run_worker(options, worker, until).await?,
        None => shop::run(options, until).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs the daemon until it is told to stop.
async fn serve(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let config = read_config(args.config)?;
    telemetry::init(&config.log.filter, config.log.format).context("set up the log")?;
    if args.end_with_parent {
        processes::end_with_parent().context("watch standard input")?;
    }
    daemon::serve(config).await?;
    Ok(ExitCode::SUCCESS)
}

/// Reads a whole store; fails when anything in it is wrong.
fn verify(args: &StoreArgs) -> anyhow::Result<ExitCode> {
    let report = store::verify(&args.dir).context("the store cannot be read")?;
    for problem in &report.problems {
        let whose = problem.saga.as_ref().map_or_else(String::new, |saga| format!("saga {saga}: "));
        println!("{whose}{}", problem.what);
    }
    let VerifyReport { open_sagas, ended_sagas, rows, problems } = &report;
    println!("{open_sagas} open sagas, {ended_sagas} ended, {rows} rows read, {} problems", problems.len());
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Rewrites both databases, with progress on standard error.
fn compact(args: &StoreArgs) -> anyhow::Result<ExitCode> {
    let bar = indicatif::ProgressBar::new_spinner();
    let (mut before, mut after) = (0, 0);
    store::compact(&args.dir, |progress| {
        bar.set_message(format!("{}: {} rows copied", progress.database, progress.rows));
        bar.tick();
        if let Some(bytes) = progress.bytes_after {
            before += progress.bytes_before;
            after += bytes;
        }
    })
    .context("the store is as it was")?;
    bar.finish_and_clear();
    println!("{before} bytes before, {after} bytes after");
    Ok(ExitCode::SUCCESS)
}

/// Says whether a daemon could run with this configuration.
fn check_config(args: ConfigArgs) -> anyhow::Result<ExitCode> {
    let config = read_config(args)?;
    let (server, store) = (config.server, config.store);
    println!("good: gRPC {}, HTTP {}, store {}", server.grpc_addr, server.http_addr, store.dir.display());
    Ok(ExitCode::SUCCESS)
}

/// The file, with flags and environment laid over it; fails with everything that cannot work.
fn read_config(args: ConfigArgs) -> anyhow::Result<Config> {
    let mut config = args.config.map_or_else(|| Ok(Config::default()), |file| Config::load(&file))?;
    config.override_with(args.overrides);
    let problems: Vec<String> = config.validate().iter().map(ToString::to_string).collect();
    anyhow::ensure!(problems.is_empty(), "the configuration cannot work:\n  {}", problems.join("\n  "));
    Ok(config)
}

//! `sagad dev`: the shop and a daemon that stay, to play with.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

use super::acts::ORDER_SAGA;
use super::book::Opening;
use super::cast::{Cast, Places, Service};
use super::catalogue::CATALOGUE;
use super::show::say;

/// The definitions that come with the program.
const SHIPPED_SAGAS: [&str; 3] =
    [ORDER_SAGA, include_str!("../../sagas/transfer.yaml"), include_str!("../../sagas/trip.yaml")];

/// The services listen so many ports behind the daemon's own, one after the other: at the same place
/// each time, because registrations outlive a restart.
const SERVICE_PORT_OFFSET: u16 = 10;

/// What every account of every service holds at first.
const OPENING_BALANCE: i64 = 1_000;

/// What `sagad dev` was asked for.
#[derive(Debug, Clone)]
pub struct DevOptions {
    /// The daemon's gRPC address.
    pub grpc_addr: SocketAddr,
    /// The daemon's HTTP address.
    pub http_addr: SocketAddr,
    /// Where store and ledgers live; `None`: in a folder that is gone afterwards.
    pub data: Option<PathBuf>,
    /// Services that are left out, for others to take their part.
    pub without: Vec<String>,
}

/// Runs the shop and a daemon until Ctrl-C.
pub async fn dev(options: DevOptions) -> anyhow::Result<ExitCode> {
    let Some(dir) = options.data else {
        let fresh = tempfile::Builder::new().prefix("sagad-dev-").tempdir().context("make a folder")?;
        let outcome =
            stay(Places::below(fresh.path(), options.grpc_addr, options.http_addr)?, &options.without).await;
        if outcome.is_err() {
            // The error names a log in there.
            let _ = fresh.keep();
        }
        return outcome;
    };
    stay(Places::below(&dir, options.grpc_addr, options.http_addr)?, &options.without).await
}

async fn stay(places: Places, without: &[String]) -> anyhow::Result<ExitCode> {
    let mut cast = tokio::select! {
        cast = raise(places, without) => cast?,
        stopped = crate::daemon::told_to_stop() => return stopped.map(|()| ExitCode::from(130)),
    };
    welcome(&cast, without);
    let lost = tokio::select! {
        lost = cast.somebody_lost() => Some(lost),
        stopped = crate::daemon::told_to_stop() => { stopped?; None }
    };
    match lost {
        Some(lost) => Err(lost),
        None => cast.stop().await.map(|()| ExitCode::SUCCESS),
    }
}

/// Starts everybody who is not left out and registers what is shipped.
async fn raise(places: Places, without: &[String]) -> anyhow::Result<Cast> {
    let first_port = places.grpc.port().saturating_add(SERVICE_PORT_OFFSET);
    let opening = Opening { default_balance: OPENING_BALANCE, ..Opening::default() };
    let service = |(port, (name, _)): (u16, &(&'static str, _))| Service {
        name,
        addr: (Ipv4Addr::LOCALHOST, port).into(),
        opening: opening.clone(),
    };
    let services = (first_port..).zip(&CATALOGUE).map(service);
    let services = services.filter(|service| without.iter().all(|name| name != service.name)).collect();
    let cast = Cast::start(places, services).await?;
    for source in SHIPPED_SAGAS {
        let definition = cast.register_definition(source).await?;
        say(&format!("definition   {} version {}", definition.name, definition.version));
    }
    Ok(cast)
}

fn welcome(cast: &Cast, without: &[String]) {
    let Places { grpc, http, store, ledgers, logs, .. } = cast.places();
    for service in cast.services() {
        say(&format!("participant  {:14} http://{}", service.name, service.addr));
    }
    for name in without {
        say(&format!("participant  {name:14} left out: its steps wait for one that registers itself"));
    }
    say(&format!("daemon       gRPC {grpc}, HTTP http://{http}"));
    say(&format!("store        {}", store.display()));
    say(&format!("ledgers      {}", ledgers.display()));
    say(&format!("logs         {}", logs.display()));
    let input = r#"{"user_id": 7, "items": [{"item_id": 1, "amount": 2}], "total": 300}"#;
    let request = r#"{"saga_id": "order-2", "definition": "order", "input_json": "{\"user_id\": 7, \"items\": [{\"item_id\": 1, \"amount\": 5000}], \"total\": 300}", "wait": "5s"}"#;
    say(&format!(
        "
Try, in another terminal (every item has {OPENING_BALANCE} pieces, every user {OPENING_BALANCE} points):
  sagactl --addr http://{grpc} start order --id order-1 --input '{input}' --wait
  sagactl --addr http://{grpc} get order-1
  sagactl --addr http://{grpc} list
  sagactl --addr http://{grpc} watch order-1
  sagactl --addr http://{grpc} def graph trip
  grpcurl -plaintext -d '{request}' {grpc} sagad.v1.SagaService/StartSaga
  curl http://{http}/metrics

Ctrl-C ends all of it."
    ));
}

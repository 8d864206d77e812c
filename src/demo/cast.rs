//! The daemon and the services of the shop, as processes that can be killed and brought back.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::book::Opening;
use super::customers::endpoint;
use super::processes::{Process, Program};
use super::shop::Faults;
use crate::clock::Stopwatch;
use crate::proto;
use crate::proto::definition_service_client::DefinitionServiceClient;
use crate::proto::operations_service_client::OperationsServiceClient;
use crate::proto::registry_service_client::RegistryServiceClient;

/// How long the daemon or a service may take to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// The pause between two looks at whether something is ready.
const READY_PAUSE: Duration = Duration::from_millis(10);
/// The pause between two looks at whether everybody is still there.
const WATCH_PAUSE: Duration = Duration::from_millis(500);
/// How long the services' registrations last: short, so that a forgotten one is soon noticed.
const REGISTRATION_TTL: &str = "10s";

/// Where everything is.
#[derive(Debug, Clone)]
pub struct Places {
    /// The `sagad` binary.
    pub binary: PathBuf,
    /// The daemon's gRPC address.
    pub grpc: SocketAddr,
    /// The daemon's HTTP address.
    pub http: SocketAddr,
    /// The daemon's store.
    pub store: PathBuf,
    /// The services' ledgers.
    pub ledgers: PathBuf,
    /// What the processes write.
    pub logs: PathBuf,
}

impl Places {
    /// This very binary and the usual folders below `dir`; makes those that are missing.
    pub fn below(dir: &Path, grpc: SocketAddr, http: SocketAddr) -> anyhow::Result<Self> {
        let [store, ledgers, logs] = ["store", "ledgers", "logs"].map(|name| dir.join(name));
        for folder in [&store, &ledgers, &logs] {
            std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        }
        let binary = std::env::current_exe().context("find this binary")?;
        Ok(Self { binary, grpc, http, store, ledgers, logs })
    }

    /// The daemon's URL for gRPC.
    pub fn url(&self) -> String {
        format!("http://{}", self.grpc)
    }
}

/// A service of the shop: where it is and what it owns at first.
#[derive(Debug, Clone)]
pub struct Service {
    /// Name of the participant.
    pub name: &'static str,
    /// Where it listens, also after it was killed.
    pub addr: SocketAddr,
    /// What it owns at first.
    pub opening: Opening,
}

/// Everybody on the stage.
#[derive(Debug)]
pub struct Cast {
    places: Places,
    daemon: Option<Process>,
    services: Vec<(Service, Option<Process>)>,
}

impl Cast {
    /// Starts the daemon, then the services, and waits until all are ready.
    pub async fn start(places: Places, services: Vec<Service>) -> anyhow::Result<Self> {
        let services = services.into_iter().map(|service| (service, None)).collect();
        let mut cast = Self { places, daemon: None, services };
        cast.start_daemon()?;
        let names: Vec<&str> = cast.services.iter().map(|(service, _)| service.name).collect();
        for name in names {
            cast.start_service(name, Faults::default())?;
        }
        cast.daemon_ready().await?;
        cast.services_registered().await?;
        Ok(cast)
    }

    /// Where everything is.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// The services and where they listen.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.iter().map(|(service, _)| service)
    }

    /// Starts the daemon on its store and addresses.
    pub fn start_daemon(&mut self) -> anyhow::Result<()> {
        let places = &self.places;
        let args: Vec<OsString> = vec![
            "serve".into(),
            "--data".into(),
            places.store.clone().into(),
            "--grpc-addr".into(),
            places.grpc.to_string().into(),
            "--http-addr".into(),
            places.http.to_string().into(),
        ];
        let program = Program {
            name: "the daemon".to_owned(),
            binary: places.binary.clone(),
            args,
            log: places.logs.join("daemon.log"),
        };
        self.daemon = Some(program.start()?);
        Ok(())
    }

    /// Starts a service on its ledger and address.
    pub fn start_service(&mut self, name: &str, faults: Faults) -> anyhow::Result<()> {
        let (binary, url) = (self.places.binary.clone(), self.places.url());
        let (ledgers, log) = (self.places.ledgers.clone(), self.places.logs.join(format!("{name}.log")));
        let (service, process) = self.service(name)?;
        let mut args: Vec<OsString> = vec![
            "shop".into(),
            name.into(),
            "--listen".into(),
            service.addr.to_string().into(),
            "--ledger".into(),
            ledgers.into(),
            // Here processes are killed and not machines: what is written survives.
            "--no-sync".into(),
            "--daemon".into(),
            url.into(),
            "--ttl".into(),
            REGISTRATION_TTL.into(),
            "--default-balance".into(),
            service.opening.default_balance.to_string().into(),
            "--delay".into(),
            humantime::format_duration(faults.delay).to_string().into(),
            "--reply-delay".into(),
            humantime::format_duration(faults.reply_delay).to_string().into(),
        ];
        for (account, balance) in &service.opening.balances {
            args.extend(["--balance".into(), format!("{account}={balance}").into()]);
        }
        let program = Program { name: format!("the {name} service"), binary, args, log };
        *process = Some(program.start()?);
        Ok(())
    }

    /// Kills the daemon with SIGKILL.
    pub async fn kill_daemon(&mut self) -> anyhow::Result<()> {
        self.daemon.take().context("the daemon is not running")?.kill().await
    }

    /// Kills a service with SIGKILL.
    pub async fn kill_service(&mut self, name: &str) -> anyhow::Result<()> {
        let (_, process) = self.service(name)?;
        process.take().with_context(|| format!("{name} is not running"))?.kill().await
    }

    /// Ends everybody in an orderly way: the daemon must drain and end well.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop().await?;
        }
        for (_, process) in &mut self.services {
            if let Some(process) = process.take() {
                process.kill().await?;
            }
        }
        Ok(())
    }

    /// Completes when somebody ended who was not told to, and says who.
    pub async fn somebody_lost(&mut self) -> anyhow::Error {
        loop {
            if let Err(lost) = self.still_run() {
                return lost;
            }
            tokio::time::sleep(WATCH_PAUSE).await;
        }
    }

    /// Waits until the daemon says that it serves.
    pub async fn daemon_ready(&mut self) -> anyhow::Result<()> {
        let mut health = HealthClient::new(self.channel()?);
        let watch = Stopwatch::start();
        loop {
            let answer = health.check(HealthCheckRequest::default()).await;
            if answer.is_ok_and(|answer| answer.into_inner().status() == ServingStatus::Serving) {
                return Ok(());
            }
            self.patience(watch, "the daemon is not ready")?;
            tokio::time::sleep(READY_PAUSE).await;
        }
    }

    /// Waits until every service is registered.
    pub async fn services_registered(&mut self) -> anyhow::Result<()> {
        let mut registry = RegistryServiceClient::new(self.channel()?);
        let watch = Stopwatch::start();
        loop {
            let answer = registry.list_participants(proto::ListParticipantsRequest::default()).await;
            let registered: Vec<String> = answer.map_or_else(
                |_| Vec::new(),
                |answer| {
                    let known = answer.into_inner().participants.into_iter();
                    known.filter(|one| !one.registrations.is_empty()).map(|one| one.name).collect()
                },
            );
            if self.services().all(|service| registered.iter().any(|name| name == service.name)) {
                return Ok(());
            }
            self.patience(watch, "not every service has registered")?;
            tokio::time::sleep(READY_PAUSE).await;
        }
    }

    /// Registers a definition; gives its version.
    pub async fn register_definition(&self, source: &str) -> anyhow::Result<proto::Definition> {
        let request = proto::RegisterDefinitionRequest { source: source.to_owned(), validate_only: false };
        let mut definitions = DefinitionServiceClient::new(self.channel()?);
        let answer = definitions.register_definition(request).await.context("register a definition")?;
        answer.into_inner().definition.context("the answer names no definition")
    }

    /// The daemon's own figures.
    pub async fn stats(&self) -> anyhow::Result<proto::GetStatsResponse> {
        let mut operations = OperationsServiceClient::new(self.channel()?);
        let answer = operations.get_stats(proto::GetStatsRequest {}).await.context("read the figures")?;
        Ok(answer.into_inner())
    }

    fn channel(&self) -> anyhow::Result<Channel> {
        Ok(endpoint(&self.places.url())?.connect_lazy())
    }

    fn service(&mut self, name: &str) -> anyhow::Result<&mut (Service, Option<Process>)> {
        let known = self.services.iter_mut().find(|(service, _)| service.name == name);
        known.with_context(|| format!("there is no {name} service here"))
    }

    fn still_run(&mut self) -> anyhow::Result<()> {
        let services = self.services.iter_mut().filter_map(|(_, process)| process.as_mut());
        self.daemon.iter_mut().chain(services).try_for_each(Process::still_runs)
    }

    fn patience(&mut self, watch: Stopwatch, what: &str) -> anyhow::Result<()> {
        self.still_run()?;
        anyhow::ensure!(
            watch.elapsed() < READY_TIMEOUT,
            "{what} after {READY_TIMEOUT:?}: see {}",
            self.places.logs.display()
        );
        Ok(())
    }
}

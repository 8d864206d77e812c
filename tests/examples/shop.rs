//! `sagad dev --without stock`, an example's stock service in its place, and the clients' orders.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};
use sagad::proto::registry_service_client::RegistryServiceClient;
use sagad::proto::saga_service_client::SagaServiceClient;
use sagad::proto::{DeregisterHandlersRequest, GetSagaRequest, ListParticipantsRequest, Registration};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tonic::transport::{Channel, Endpoint};

use crate::languages::{Language, root};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(90);
/// The pause between two looks at something that gives no sign of its own.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// The ports of one shop: `sagad dev` uses two, and from the tenth on one for each of its services.
const SHOP_PORTS: u16 = 32;
/// The stock service's, behind them.
const SERVICE_PORT: u16 = 30;

/// Everything but the clients. What still runs is killed when it is dropped.
pub struct Shop {
    /// The daemon's address.
    pub daemon: String,
    /// The stock service's URL.
    pub service_url: String,
    language: &'static Language,
    dir: tempfile::TempDir,
    channel: Channel,
    service: Option<Child>,
    _dev: Child,
}

/// A client that has ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    /// Its standard output.
    pub said: String,
    /// Its standard error.
    pub wrote: String,
}

/// A client at work.
pub struct Order(Child);

impl Shop {
    /// Starts the daemon, the other services and the stock service; returns when all are registered.
    pub async fn open(language: &'static Language) -> Result<Self> {
        let first = free_ports()?;
        let addr = |port: u16| format!("127.0.0.1:{}", first + port);
        let dir = tempfile::tempdir()?;
        let mut dev = Command::new(env!("CARGO_BIN_EXE_sagad"))
            .args(["dev", "--without", "stock", "--grpc-addr", &addr(0), "--http-addr", &addr(1), "--data"])
            .arg(dir.path().join("dev"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("start sagad dev")?;
        let mut lines = BufReader::new(dev.stdout.take().context("its output is piped")?).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await? {
                if line.starts_with("daemon ") {
                    return Ok(());
                }
            }
            bail!("sagad dev ended at its start")
        };
        tokio::time::timeout(PATIENCE, ready).await.context("sagad dev is not ready")??;
        // Whatever else it says goes nowhere, and must not stop it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });

        let mut shop = Self {
            daemon: addr(0),
            service_url: format!("http://{}", addr(SERVICE_PORT)),
            language,
            dir,
            channel: Endpoint::from_shared(format!("http://{}", addr(0)))?.connect_lazy(),
            service: None,
            _dev: dev,
        };
        shop.start_service().await?;
        Ok(shop)
    }

    /// Starts the stock service on its database and port; returns when it is registered.
    pub async fn start_service(&mut self) -> Result<()> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_path())?;
        let mut service = command(self.language.service, &self.daemon);
        service.env("LISTEN", self.service_url.trim_start_matches("http://"));
        service.env("DATABASE", self.database_path()).stdout(log.try_clone()?).stderr(log);
        // A killed one is registered for a while yet: what counts is that this one has said so.
        let starts = self.registrations_logged() + 1;
        self.service = Some(service.spawn().context("start the stock service")?);
        until("the stock service has not registered", async || {
            Ok((self.registrations_logged() >= starts).then_some(()))
        })
        .await
    }

    pub async fn kill_service(&mut self) -> Result<()> {
        self.service.take().context("the service runs")?.kill().await.context("kill the service")
    }

    /// Asks the service to end, with SIGTERM, and waits until it has.
    pub async fn stop_service(&mut self) -> Result<ExitStatus> {
        let mut service = self.service.take().context("the service runs")?;
        let pid = service.id().and_then(|id| Pid::from_raw(id.cast_signed())).context("it has an id")?;
        kill_process(pid, Signal::TERM)?;
        Ok(tokio::time::timeout(PATIENCE, service.wait()).await.context("the service does not end")??)
    }

    /// What the service has written.
    pub fn service_log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The service's own database.
    pub fn database(&self) -> Result<Connection> {
        let database = Connection::open(self.database_path())?;
        database.busy_timeout(Duration::from_secs(10))?;
        Ok(database)
    }

    /// Pieces of the items 1, 2 and 3.
    pub fn stock(&self) -> Result<[i64; 3]> {
        let database = self.database()?;
        let mut query = database.prepare("SELECT amount FROM stock WHERE item_id <= 3 ORDER BY item_id")?;
        let amounts = query.query_map([], |row| row.get(0))?.collect::<Result<Vec<_>, _>>()?;
        amounts.try_into().map_err(|found| anyhow::anyhow!("three items, not {found:?}"))
    }

    /// Places an order and waits until the client has ended.
    pub async fn order(&self, client: &Language, id: &str, item_id: i64, amount: i64) -> Result<Ended> {
        Order::place(client, &self.daemon, id, item_id, amount)?.ended().await
    }

    /// Waits until a step of a saga has been attempted.
    pub async fn step_is_under_way(&self, saga_id: &str, step: &str) -> Result<()> {
        let mut sagas = SagaServiceClient::new(self.channel.clone());
        until("the step is not attempted", async || {
            let asked = sagas.get_saga(GetSagaRequest { saga_id: saga_id.to_owned() }).await;
            let saga = asked.ok().and_then(|answer| answer.into_inner().saga);
            let attempted =
                saga.is_some_and(|saga| saga.steps.iter().any(|one| one.name == step && one.attempts > 0));
            Ok(attempted.then_some(()))
        })
        .await
    }

    /// The stock service's registration, if it has one.
    pub async fn registration(&self) -> Result<Option<Registration>> {
        let request = ListParticipantsRequest { participant: "stock".to_owned() };
        let listed = RegistryServiceClient::new(self.channel.clone()).list_participants(request).await?;
        let mut registrations: Vec<_> =
            listed.into_inner().participants.into_iter().flat_map(|one| one.registrations).collect();
        ensure!(registrations.len() <= 1, "one service, not {registrations:?}");
        Ok(registrations.pop())
    }

    /// Waits until the registration is as it should be.
    pub async fn registered_otherwise(&self, expected: impl Fn(Option<&Registration>) -> bool) -> Result<()> {
        until("the registration has not changed", async || {
            Ok(expected(self.registration().await?.as_ref()).then_some(()))
        })
        .await
    }

    /// Ends a registration behind the service's back.
    pub async fn deregister(&self, registration_id: &str) -> Result<()> {
        let request = DeregisterHandlersRequest { registration_id: registration_id.to_owned() };
        RegistryServiceClient::new(self.channel.clone()).deregister_handlers(request).await?;
        Ok(())
    }

    fn database_path(&self) -> PathBuf {
        self.dir.path().join("stock.db")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("stock.log")
    }

    fn registrations_logged(&self) -> usize {
        self.service_log().matches("registered at the daemon").count()
    }
}

impl Order {
    /// Places an order at a daemon's address.
    pub fn place(client: &Language, daemon: &str, id: &str, item_id: i64, amount: i64) -> Result<Self> {
        let mut command = command(client.client, daemon);
        command.args([id, &item_id.to_string(), &amount.to_string()]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(Self(command.spawn().context("start the client")?))
    }

    /// Waits until the client has ended.
    pub async fn ended(self) -> Result<Ended> {
        let ended = tokio::time::timeout(PATIENCE, self.0.wait_with_output());
        let output = ended.await.context("the client does not end")??;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Ended { code: output.status.code(), said: text(output.stdout), wrote: text(output.stderr) })
    }
}

/// A program of the examples that is told where the daemon is. It dies with its handle.
fn command(program: &[&str], daemon: &str) -> Command {
    let mut command = Command::new(program[0]);
    command.args(&program[1..]).current_dir(root()).env("SAGAD_ADDR", format!("http://{daemon}"));
    command.env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn until<T>(otherwise: &str, mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let looking = async {
        loop {
            if let Some(found) = look().await? {
                return Ok(found);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.with_context(|| otherwise.to_owned())?
}

/// The first of so many free ports in a row, below those that outgoing connections get. They are given to
/// one shop each.
fn free_ports() -> Result<u16> {
    static NEXT: Mutex<Option<u16>> = Mutex::new(None);
    let mut next = NEXT.lock().expect("nobody panics with it");
    // Two runs at the same time begin at different places.
    let begin = 20_000 + u16::try_from(std::process::id() % 300).unwrap_or(0) * SHOP_PORTS;
    let blocks = (next.unwrap_or(begin)..32_000).step_by(SHOP_PORTS.into());
    let free = |first: &u16| {
        (*first..first + SHOP_PORTS).all(|port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok())
    };
    let first = blocks.into_iter().find(free).context("there are no free ports")?;
    *next = Some(first + SHOP_PORTS);
    Ok(first)
}

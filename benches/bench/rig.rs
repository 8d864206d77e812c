//! The daemon and the participants as processes of their own, on a fresh store on the real disk.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use sagad::clock::Stopwatch;
use sagad::demo::processes::{Process, Program, free_addresses};
use sagad::proto;
use sagad::proto::definition_service_client::DefinitionServiceClient;
use sagad::proto::operations_service_client::OperationsServiceClient;
use sagad::proto::participant_service_client::ParticipantServiceClient;
use sagad::proto::saga_service_client::SagaServiceClient;
use tonic::transport::{Channel, Endpoint};

/// Connections of the client: callers are dealt out among them.
pub const CHANNELS: usize = 4;
/// How long a process may take to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// The pause between two looks at whether it is.
const READY_PAUSE: Duration = Duration::from_millis(10);
/// Every action that a definition of the bench calls.
const PARTICIPANTS: [(&str, &[&str]); 5] = [
    ("stock", &["deduct", "restore"]),
    ("point", &["use", "charge"]),
    ("order", &["create", "cancel"]),
    ("cart", &["clear"]),
    ("data_platform", &["send"]),
];

/// The participants' process.
pub struct Participants {
    process: Process,
    url: String,
}

impl Participants {
    /// Starts this binary once more, as the participants.
    pub async fn start(dir: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        let listen = free_addresses(1)?[0];
        let program = Program {
            name: "the participants".to_owned(),
            binary: std::env::current_exe().context("find this binary")?,
            args: vec!["--shop".into(), listen.to_string().into()],
            log: dir.join("participants.log"),
        };
        let mut participants = Self { process: program.start()?, url: format!("http://{listen}") };
        connect(&participants.url, 1, &mut participants.process).await?;
        Ok(participants)
    }

    /// Its process id.
    pub fn pid(&self) -> anyhow::Result<u32> {
        self.process.pid().context("the participants have ended")
    }

    /// Clients of it, for calls without a daemon in between.
    pub async fn clients(&mut self) -> anyhow::Result<Vec<ParticipantServiceClient<Channel>>> {
        let channels = connect(&self.url, CHANNELS, &mut self.process).await?;
        Ok(channels.into_iter().map(ParticipantServiceClient::new).collect())
    }

    /// Ends it.
    pub async fn end(self) -> anyhow::Result<()> {
        self.process.kill().await
    }
}

/// A daemon that serves, and connections to it.
pub struct Rig {
    process: Process,
    channels: Vec<Channel>,
    dir: PathBuf,
}

impl Rig {
    /// Starts the daemon on an empty store below `dir`, which is made anew, and registers the
    /// definition `source`.
    pub async fn start(dir: &Path, participants: &Participants, source: &str) -> anyhow::Result<Self> {
        if dir.exists() {
            std::fs::remove_dir_all(dir).with_context(|| format!("empty {}", dir.display()))?;
        }
        std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        let config = dir.join("sagad.toml");
        std::fs::write(&config, configuration(&participants.url)).context("write the configuration")?;
        let [grpc, http] = free_addresses(2)?[..] else { anyhow::bail!("no two free addresses") };
        let program = Program {
            name: "the daemon".to_owned(),
            binary: PathBuf::from(env!("CARGO_BIN_EXE_sagad")),
            args: vec![
                "serve".into(),
                "--config".into(),
                config.into(),
                "--data".into(),
                dir.join("store").into(),
                "--grpc-addr".into(),
                grpc.to_string().into(),
                "--http-addr".into(),
                http.to_string().into(),
            ],
            log: dir.join("daemon.log"),
        };
        let mut process = program.start()?;
        let url = format!("http://{grpc}");
        let channels = connect(&url, CHANNELS, &mut process).await?;
        let rig = Self { process, channels, dir: dir.to_owned() };
        let request = proto::RegisterDefinitionRequest { source: source.to_owned(), validate_only: false };
        let mut definitions = DefinitionServiceClient::new(rig.channels[0].clone());
        registered(&mut definitions, request).await?;
        Ok(rig)
    }

    /// The daemon's process id.
    pub fn pid(&self) -> anyhow::Result<u32> {
        self.process.pid().context("the daemon has ended")
    }

    /// A client for each connection.
    pub fn clients(&self) -> Vec<SagaServiceClient<Channel>> {
        self.channels.iter().cloned().map(SagaServiceClient::new).collect()
    }

    /// The daemon's own figures.
    pub async fn stats(&self) -> anyhow::Result<proto::GetStatsResponse> {
        let mut operations = OperationsServiceClient::new(self.channels[0].clone());
        let stats = operations.get_stats(proto::GetStatsRequest {}).await.context("ask for the figures")?;
        Ok(stats.into_inner())
    }

    /// Ends the daemon and takes its store away.
    pub async fn end(self) -> anyhow::Result<()> {
        self.process.kill().await?;
        std::fs::remove_dir_all(&self.dir).with_context(|| format!("remove {}", self.dir.display()))
    }
}

/// A port that is bound takes connections before everything behind it is ready.
async fn registered(
    definitions: &mut DefinitionServiceClient<Channel>,
    request: proto::RegisterDefinitionRequest,
) -> anyhow::Result<()> {
    let waiting = Stopwatch::start();
    loop {
        match definitions.register_definition(request.clone()).await {
            Ok(_) => return Ok(()),
            Err(status) if status.code() == tonic::Code::Unavailable && waiting.elapsed() < READY_TIMEOUT => {
                tokio::time::sleep(READY_PAUSE).await;
            }
            Err(status) => return Err(status).context("register the definition"),
        }
    }
}

async fn connect(url: &str, count: usize, process: &mut Process) -> anyhow::Result<Vec<Channel>> {
    let endpoint = Endpoint::from_shared(url.to_owned())?.tcp_nodelay(true);
    let waiting = Stopwatch::start();
    let mut channels = Vec::new();
    while channels.len() < count {
        match endpoint.connect().await {
            Ok(channel) => channels.push(channel),
            Err(error) => {
                process.still_runs()?;
                anyhow::ensure!(waiting.elapsed() < READY_TIMEOUT, "{url} cannot be reached: {error}");
                tokio::time::sleep(READY_PAUSE).await;
            }
        }
    }
    Ok(channels)
}

fn configuration(participants_url: &str) -> String {
    let one = |(name, actions): &(&str, &[&str])| {
        format!(
            "[[participants]]\nname = \"{name}\"\nendpoint = \"{participants_url}\"\n\
             actions = {actions:?}\nmax_in_flight = 4096\n\n"
        )
    };
    let participants: String = PARTICIPANTS.iter().map(one).collect();
    format!("[log]\nfilter = \"warn\"\n\n{participants}")
}

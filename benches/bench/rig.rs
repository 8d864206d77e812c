//! The daemon and the participants as processes of their own, with the store on the real disk.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use sagad::clock::Stopwatch;
use sagad::demo::processes::{Process, Program, free_addresses};
use sagad::proto;
use sagad::proto::definition_service_client::DefinitionServiceClient;
use sagad::proto::operations_service_client::OperationsServiceClient;
use sagad::proto::participant_service_client::ParticipantServiceClient;
use sagad::proto::registry_service_client::RegistryServiceClient;
use sagad::proto::saga_service_client::SagaServiceClient;
use tonic::transport::{Channel, Endpoint};

use crate::usage::cpu;

/// Connections of the client: callers are dealt out among them.
pub const CHANNELS: usize = 4;
/// How long a process may take to be ready.
const READY_TIMEOUT: Duration = Duration::from_mins(2);
/// The pause between two looks at whether it is.
const READY_PAUSE: Duration = Duration::from_millis(2);
/// Longest answer that a client takes: sagas of thousands of steps are told whole.
const ANSWER_MAX_BYTES: usize = 64 * 1024 * 1024;
/// Every action that a definition of the bench calls.
pub const PARTICIPANTS: [(&str, &[&str]); 5] = [
    ("stock", &["deduct", "restore"]),
    ("point", &["use", "charge"]),
    ("order", &["create", "cancel"]),
    ("cart", &["clear"]),
    ("data_platform", &["send"]),
];
/// A participant that takes its time.
const DEPOT: (&str, &[&str]) = ("depot", &["take", "hold", "restore"]);
/// Calls in flight to a participant that is not to be the limit.
pub const IN_FLIGHT: u32 = 4096;

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

    /// Where it listens, as `HOST:PORT`.
    pub fn authority(&self) -> &str {
        self.url.trim_start_matches("http://")
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

/// A process with a worker for each participant of the order saga.
pub struct Workers(Process);

impl Workers {
    /// Starts this binary once more, as the workers of the daemon at `url`.
    pub fn start(dir: &Path, url: &str) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        let program = Program {
            name: "the workers".to_owned(),
            binary: std::env::current_exe().context("find this binary")?,
            args: vec!["--work-for".into(), url.into()],
            log: dir.join("workers.log"),
        };
        Ok(Self(program.start()?))
    }

    /// Its process id.
    pub fn pid(&self) -> anyhow::Result<u32> {
        self.0.pid().context("the workers have ended")
    }

    /// Ends it.
    pub async fn end(self) -> anyhow::Result<()> {
        self.0.kill().await
    }
}

/// What is said to a daemon beside the defaults.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// Sections of its configuration.
    pub settings: &'static str,
    /// Calls that the depot takes at once.
    pub depot_in_flight: u32,
    /// Whether the participants of the order saga come as workers, and are not called.
    pub workers: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self { settings: "", depot_in_flight: IN_FLIGHT, workers: false }
    }
}

/// A place where a daemon can be started again and again on the same store; none runs now.
pub struct Home {
    program: Program,
    url: String,
    dir: PathBuf,
}

impl Home {
    /// An empty place at `dir`, which is made anew.
    pub fn fresh(dir: &Path, participants: &Participants, setup: Setup) -> anyhow::Result<Self> {
        if dir.exists() {
            std::fs::remove_dir_all(dir).with_context(|| format!("empty {}", dir.display()))?;
        }
        std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        let config = dir.join("sagad.toml");
        std::fs::write(&config, configuration(&participants.url, setup))
            .context("write the configuration")?;
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
        Ok(Self { program, url: format!("http://{grpc}"), dir: dir.to_owned() })
    }

    /// Where its store lies.
    pub fn store(&self) -> PathBuf {
        self.dir.join("store")
    }

    /// Starts the daemon and waits until it answers.
    pub async fn start(self) -> anyhow::Result<Rig> {
        let started = Stopwatch::start();
        let mut process = self.program.start()?;
        let channels = connect(&self.url, CHANNELS, &mut process).await?;
        let mut definitions = DefinitionServiceClient::new(channels[0].clone());
        // A port that is bound takes connections before everything behind it is ready.
        while let Err(status) = definitions.list_definitions(proto::ListDefinitionsRequest::default()).await {
            process.still_runs()?;
            let waits = status.code() == tonic::Code::Unavailable && started.elapsed() < READY_TIMEOUT;
            anyhow::ensure!(waits, "the daemon does not answer: {status}");
            tokio::time::sleep(READY_PAUSE).await;
        }
        process.still_runs()?;
        let answered_after = started.elapsed();
        let answered_cpu = cpu(process.pid().context("the daemon has ended")?)?;
        Ok(Rig { process, channels, started, answered_after, answered_cpu, home: self })
    }

    /// Takes the store away.
    pub fn remove(self) -> anyhow::Result<()> {
        std::fs::remove_dir_all(&self.dir).with_context(|| format!("remove {}", self.dir.display()))
    }
}

/// A daemon that serves, and connections to it.
pub struct Rig {
    process: Process,
    channels: Vec<Channel>,
    home: Home,
    /// Since its process was started.
    pub started: Stopwatch,
    /// The time from then until it answered, and the processor time that it used for it: what a
    /// machine with others on it distorts less.
    pub answered_after: Duration,
    pub answered_cpu: Duration,
}

impl Rig {
    /// Starts the daemon on an empty store below `dir`, which is made anew, and registers the
    /// definition `source`.
    pub async fn start(dir: &Path, participants: &Participants, source: &str) -> anyhow::Result<Self> {
        Self::start_as(dir, participants, Setup::default(), source).await
    }

    /// The same, with a setup of its own.
    pub async fn start_as(
        dir: &Path,
        participants: &Participants,
        setup: Setup,
        source: &str,
    ) -> anyhow::Result<Self> {
        let rig = Home::fresh(dir, participants, setup)?.start().await?;
        rig.register(source).await?;
        Ok(rig)
    }

    /// Registers a definition.
    pub async fn register(&self, source: &str) -> anyhow::Result<()> {
        let request = proto::RegisterDefinitionRequest { source: source.to_owned(), validate_only: false };
        let mut definitions = DefinitionServiceClient::new(self.channels[0].clone());
        definitions.register_definition(request).await.context("register a definition")?;
        Ok(())
    }

    /// Registers a participant beside those of the configuration.
    pub async fn register_handlers(
        &self,
        participant: &str,
        endpoint: &str,
        actions: &[&str],
    ) -> anyhow::Result<()> {
        let named = |name: &&str| proto::HandlerAction { name: (*name).to_owned(), ..Default::default() };
        let request = proto::RegisterHandlersRequest {
            participant: participant.to_owned(),
            endpoint: endpoint.to_owned(),
            protocol: proto::Protocol::Sagad.into(),
            actions: actions.iter().map(named).collect(),
            max_in_flight: 0,
            ttl: Some(prost_types::Duration { seconds: 3_600, nanos: 0 }),
            descriptor_set: Vec::new(),
        };
        let mut registry = RegistryServiceClient::new(self.channels[0].clone());
        registry.register_handlers(request).await.context("register a participant")?;
        Ok(())
    }

    /// The daemon's process id.
    pub fn pid(&self) -> anyhow::Result<u32> {
        self.process.pid().context("the daemon has ended")
    }

    /// Where it is reached.
    pub fn url(&self) -> &str {
        &self.home.url
    }

    /// Waits until `count` participants have registered beside those of the configuration.
    pub async fn have_come(&mut self, count: usize) -> anyhow::Result<()> {
        let mut registry = RegistryServiceClient::new(self.channels[0].clone());
        let waiting = Stopwatch::start();
        loop {
            let request = proto::ListParticipantsRequest::default();
            let listed = registry.list_participants(request).await.context("list the participants")?;
            let come = |one: &proto::Participant| one.registrations.iter().any(|place| !place.from_config);
            if listed.into_inner().participants.iter().filter(|one| come(one)).count() >= count {
                return Ok(());
            }
            self.process.still_runs()?;
            anyhow::ensure!(waiting.elapsed() < READY_TIMEOUT, "the workers do not come");
            tokio::time::sleep(READY_PAUSE).await;
        }
    }

    /// A client for each connection.
    pub fn clients(&self) -> Vec<SagaServiceClient<Channel>> {
        let client = |channel| SagaServiceClient::new(channel).max_decoding_message_size(ANSWER_MAX_BYTES);
        self.channels.iter().cloned().map(client).collect()
    }

    /// The daemon's own figures.
    pub async fn stats(&self) -> anyhow::Result<proto::GetStatsResponse> {
        let mut operations = OperationsServiceClient::new(self.channels[0].clone());
        let stats = operations.get_stats(proto::GetStatsRequest {}).await.context("ask for the figures")?;
        Ok(stats.into_inner())
    }

    /// Kills the daemon with SIGKILL; its store stays.
    pub async fn kill(self) -> anyhow::Result<Home> {
        self.process.kill().await?;
        Ok(self.home)
    }

    /// Where its store lies.
    pub fn store(&self) -> PathBuf {
        self.home.store()
    }

    /// Ends the daemon and takes its store away.
    pub async fn end(self) -> anyhow::Result<()> {
        self.kill().await?.remove()
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

fn configuration(participants_url: &str, setup: Setup) -> String {
    let one = |(name, actions): &(&str, &[&str]), in_flight: u32| {
        format!(
            "[[participants]]\nname = \"{name}\"\nendpoint = \"{participants_url}\"\n\
             actions = {actions:?}\nmax_in_flight = {in_flight}\n\n"
        )
    };
    let quick: String = PARTICIPANTS.iter().map(|participant| one(participant, IN_FLIGHT)).collect();
    let quick = if setup.workers { String::new() } else { quick };
    let depot = one(&DEPOT, setup.depot_in_flight);
    format!("[log]\nfilter = \"warn\"\n\n{}\n{quick}{depot}", setup.settings)
}

//! The real binary as a child process, which can be killed, cut off and started again.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use parking_lot::Mutex;
use sagad::proto::definition_service_client::DefinitionServiceClient;
use sagad::proto::operations_service_client::OperationsServiceClient;
use sagad::proto::registry_service_client::RegistryServiceClient;
use sagad::proto::saga_service_client::SagaServiceClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

/// How long a daemon may take to say that it is ready.
const READY_WITHIN: Duration = Duration::from_mins(1);

/// How long a daemon may take to end that cannot go on.
const ENDED_WITHIN: Duration = Duration::from_mins(1);
/// How long a client waits for an answer to begin: longer than any test asks the daemon to wait. Without
/// it a call may wait for ever for a daemon that was killed under it, which the client library may miss.
const ANSWER_WITHIN: Duration = Duration::from_secs(90);
/// Largest answer a client takes: a saga is shown with all its outputs.
const ANSWER_MAX_BYTES: usize = 64 * 1024 * 1024;

/// A running daemon. Dropping it kills it.
pub struct Daemon {
    child: Child,
    log: tempfile::NamedTempFile,
    /// Its standard output, line by line; closed when it has ended.
    output: Mutex<mpsc::Receiver<String>>,
    /// Its gRPC address.
    pub grpc: String,
    /// Its HTTP address.
    pub http: String,
}

/// How to start a daemon.
#[derive(Default)]
pub struct Launch {
    data: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
}

impl Launch {
    /// On the store in `data`.
    pub fn on(data: &Path) -> Self {
        Self { data: data.to_owned(), ..Self::default() }
    }

    /// With a further argument to `sagad serve`.
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// With an environment variable.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// With a write-ahead log that is folded every few sagas; `folder` takes the configuration that says so.
    pub fn folding_often(self, folder: &Path) -> Result<Self> {
        let config = folder.join("small-log.toml");
        std::fs::write(&config, "[store]\nwal_kib = 64\n")?;
        Ok(self.arg("--config").arg(config.display().to_string()))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sagad"));
        command.arg("serve").arg("--data").arg(&self.data);
        if !self.args.iter().any(|arg| arg == "--grpc-addr") {
            command.args(["--grpc-addr", "127.0.0.1:0"]);
        }
        command.args(["--http-addr", "127.0.0.1:0"]).args(&self.args);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts it and waits until it says that it serves.
    pub fn start(&self) -> Result<Daemon> {
        match self.try_start()? {
            Ok(daemon) => Ok(daemon),
            Err((status, output)) => bail!("the daemon ended at its start ({status}): {output}"),
        }
    }

    /// Starts it; if it ends before it serves, its exit status and what it wrote to stderr.
    pub fn try_start(&self) -> Result<Result<Daemon, (ExitStatus, String)>> {
        let log = tempfile::NamedTempFile::new()?;
        let mut child =
            self.command().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log.reopen()?).spawn()?;
        let stdout = child.stdout.take().context("the child's stdout is piped")?;
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    break;
                }
            }
        });
        loop {
            match told.recv_timeout(READY_WITHIN) {
                Ok(line) if line.starts_with("sagad ready") => {
                    let address = |name: &str| {
                        let found = line.split_whitespace().find_map(|word| word.strip_prefix(name));
                        found.map(str::to_owned).with_context(|| format!("{name} is missing in {line:?}"))
                    };
                    let (grpc, http) = (address("grpc=")?, address("http=")?);
                    return Ok(Ok(Daemon { child, log, output: Mutex::new(told), grpc, http }));
                }
                Ok(_) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    let status = child.wait()?;
                    return Ok(Err((status, std::fs::read_to_string(log.path())?)));
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    child.kill()?;
                    child.wait()?;
                    bail!("the daemon was not ready in time: {}", std::fs::read_to_string(log.path())?);
                }
            }
        }
    }
}

impl Daemon {
    /// A channel to its gRPC port; connects on first use.
    pub fn channel(&self) -> Channel {
        channel_to(&self.grpc)
    }

    /// A client of `SagaService`.
    pub fn sagas(&self) -> SagaServiceClient<Channel> {
        SagaServiceClient::new(self.channel()).max_decoding_message_size(ANSWER_MAX_BYTES)
    }

    /// A client of `DefinitionService`.
    pub fn definitions(&self) -> DefinitionServiceClient<Channel> {
        DefinitionServiceClient::new(self.channel())
    }

    /// A client of `RegistryService`.
    pub fn registry(&self) -> RegistryServiceClient<Channel> {
        RegistryServiceClient::new(self.channel())
    }

    /// A client of `OperationsService`.
    pub fn operations(&self) -> OperationsServiceClient<Channel> {
        OperationsServiceClient::new(self.channel()).max_decoding_message_size(ANSWER_MAX_BYTES)
    }

    /// The status and the body of a page on its HTTP port.
    pub async fn page(&self, path: &str) -> Result<(u16, String)> {
        self.exchange(&format!("GET {path} HTTP/1.1\r\nhost: sagad\r\nconnection: close\r\n\r\n")).await
    }

    /// The status and the body of what its HTTP port answers to a POST.
    pub async fn post(&self, path: &str, body: &str) -> Result<(u16, String)> {
        let length = body.len();
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: sagad\r\nconnection: close\r\ncontent-length: {length}");
        self.exchange(&format!("{head}\r\n\r\n{body}")).await
    }

    async fn exchange(&self, request: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect(&self.http).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let code = answer.split(' ').nth(1).context("a status")?.parse()?;
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
        Ok((code, body))
    }

    /// Kills it as hard as can be and waits until it is gone.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait()?)
    }

    /// Waits until it ends by itself, and not for ever.
    pub fn ended(&mut self) -> Result<ExitStatus> {
        let output = self.output.get_mut();
        loop {
            match output.recv_timeout(ENDED_WITHIN) {
                Ok(_) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(self.child.wait()?),
                Err(mpsc::RecvTimeoutError::Timeout) => bail!("the daemon goes on: {}", self.errors()?),
            }
        }
    }

    /// What it has written to standard error so far.
    pub fn errors(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.log.path())?)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A channel to a gRPC address, which connects on first use.
pub fn channel_to(address: &str) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    endpoint.timeout(ANSWER_WITHIN).connect_lazy()
}

//! `sagad.toml`: what the daemon can be told, with a default for everything.
//!
//! Reading finds what is not TOML, not a field or not of its type; [`Config::validate`] finds what
//! cannot work. Both name file, line, field and what to do. Flags and the environment are laid over
//! the file with [`Overrides`].

mod source;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::participant::handlers::{Claim, ClaimedAction, FieldProblem, Handlers, InvalidClaim, Protocol};
use crate::telemetry::{self, LogFormat};
use source::Source;

const MIB: u64 = 1024 * 1024;

/// Everything the daemon can be told.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// A folder of definitions that are registered at the start; none by default.
    pub sagas_dir: Option<PathBuf>,
    /// Where clients and operators reach the daemon.
    pub server: ServerConfig,
    /// Where sagas are kept.
    pub store: StoreConfig,
    /// The bounds of everything that could grow.
    pub limits: LimitsConfig,
    /// How sagas are run.
    pub engine: EngineConfig,
    /// What is logged.
    pub log: LogConfig,
    /// Participants that need not register themselves.
    pub participants: Vec<ParticipantConfig>,
    /// Where the fields stand, for messages.
    #[serde(skip)]
    source: Source,
}

/// `[server]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// gRPC: `127.0.0.1:7420`.
    pub grpc_addr: SocketAddr,
    /// HTTP (metrics, health): `127.0.0.1:7421`.
    pub http_addr: SocketAddr,
    /// Allows addresses that others can reach although nothing is encrypted or authenticated.
    pub allow_insecure: bool,
}

/// The kinds of stores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// On disk, in `dir`.
    #[default]
    Sled,
    /// In memory: everything is lost when the daemon stops. For tests and trials.
    Memory,
}

/// `[store]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// Which store.
    pub kind: StoreKind,
    /// Its folder: `sagad-data`.
    pub dir: PathBuf,
    /// Memory for its cache, in MiB: 128.
    pub cache_mib: u64,
    /// The write-ahead log is folded into the database whenever it has grown by so many KiB: 16,384. It is
    /// two files, each of them of this size and at most twice that. What a kill leaves in them is read at the
    /// next start.
    pub wal_kib: u64,
    /// How long ended sagas are kept: 30 days.
    #[serde(with = "humantime_serde")]
    pub retain: Duration,
}

/// `[limits]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Largest input of a saga, in bytes: 1 MiB.
    pub input_max_bytes: u64,
    /// Largest journal of a saga, in bytes: 16 MiB. A saga that has used three quarters of it goes
    /// no further forward: the rest is kept for undoing and ending it.
    pub saga_max_bytes: u64,
    /// Most requests being answered at a time, those that wait included: 10,000.
    pub requests_max: u32,
    /// Most open watch streams: 1,024.
    pub watches_max: u32,
    /// Most entries in a shard's mail queue; a start that finds it full is refused: 4,096.
    pub mail_queue_max: u32,
    /// Most client connections: 1,024.
    pub connections_max: u32,
    /// Longest time for one request; a longer `wait` is answered with the saga as it stands: 5 min.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
}

/// `[engine]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineConfig {
    /// Parts that sagas are divided into, each with a loop of its own: one for two cores.
    pub shards: u32,
    /// Most mails that one shard decides on before it commits: 256.
    pub batch_max: u32,
}

/// `[log]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// What is logged: `info`.
    pub filter: String,
    /// How a line is written: `text`.
    pub format: LogFormat,
}

/// `[[participants]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParticipantConfig {
    /// Its name: the part of `call` before the first dot.
    pub name: String,
    /// The URL to call, such as `http://127.0.0.1:9001`.
    pub endpoint: String,
    /// How to call it: `sagad`.
    #[serde(default)]
    pub protocol: ProtocolName,
    /// What it offers.
    pub actions: Vec<ActionConfig>,
    /// Most calls at a time; 0 is 64.
    #[serde(default)]
    pub max_in_flight: u32,
    /// A file with the types of its methods (`protoc --include_imports -o FILE`), for a gRPC service
    /// without server reflection; none by default.
    pub descriptor_set: Option<PathBuf>,
}

/// One of `actions`: a name alone, or a table.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "neither a name nor a table with `name`, `target`, `refused_on`, `done_on`")]
pub enum ActionConfig {
    /// The request says which action is meant, or its name says what to call.
    Name(String),
    /// An action that leads to a target.
    Table(ActionTable),
}

/// An action that leads to a target.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActionTable {
    /// Its name: the part of `call` behind the first dot.
    pub name: String,
    /// What to call: `shop.stock.v1.StockService/Deduct` or `POST /path`.
    #[serde(default)]
    pub target: String,
    /// Answers that count as refused, in place of the protocol's own.
    #[serde(default)]
    pub refused_on: Vec<String>,
    /// Answers that count as done.
    #[serde(default)]
    pub done_on: Vec<String>,
}

/// The protocols by their short names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProtocolName {
    /// The participant implements `sagad.v1.ParticipantService`.
    #[default]
    Sagad,
    /// An existing gRPC service.
    Grpc,
    /// An existing HTTP service.
    Http,
}

/// What flags and the environment say; it wins over the file.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Overrides {
    /// Address for gRPC
    #[arg(long, env = "SAGAD_GRPC_ADDR", value_name = "HOST:PORT")]
    pub grpc_addr: Option<SocketAddr>,
    /// Address for HTTP: metrics and health
    #[arg(long, env = "SAGAD_HTTP_ADDR", value_name = "HOST:PORT")]
    pub http_addr: Option<SocketAddr>,
    /// Allow addresses that others can reach, without encryption or authentication
    #[arg(long, env = "SAGAD_ALLOW_INSECURE")]
    pub allow_insecure: bool,
    /// Kind of store
    #[arg(long, env = "SAGAD_STORE", value_name = "KIND")]
    pub store: Option<StoreKind>,
    /// Folder of the store
    #[arg(long = "data", env = "SAGAD_DATA", value_name = "DIR")]
    pub store_dir: Option<PathBuf>,
    /// Folder of definitions to register at the start
    #[arg(long = "sagas", env = "SAGAD_SAGAS", value_name = "DIR")]
    pub sagas_dir: Option<PathBuf>,
    /// What to log, such as `info,sagad=debug`
    #[arg(long, env = "SAGAD_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// How a log line is written
    #[arg(long, env = "SAGAD_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The file, where the field stands in one.
    pub file: Option<PathBuf>,
    /// Line and column there, from 1.
    pub place: Option<(usize, usize)>,
    /// The field's path, such as `server.grpc_addr`; empty when it is not about one.
    pub field: String,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}", file.display())?;
            if let Some((line, column)) = self.place {
                write!(f, ":{line}:{column}")?;
            }
            write!(f, ": ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{}; {}", self.problem, self.remedy)
    }
}

impl std::error::Error for ConfigProblem {}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, is not TOML, or has a field that is unknown or of another type. What
    /// cannot work is [`Config::validate`]'s to find.
    pub fn load(path: &Path) -> Result<Self, ConfigProblem> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigProblem {
            file: Some(path.to_owned()),
            place: None,
            field: String::new(),
            problem: format!("cannot be read: {error}"),
            remedy: "name a readable file, or none to run with the defaults".to_owned(),
        })?;
        Self::parse(&text, path)
    }

    /// Reads a text; `file` is its name in messages.
    ///
    /// # Errors
    /// Like [`Config::load`].
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigProblem> {
        let source = Source::new(text, file);
        match toml::from_str::<Self>(text) {
            Ok(config) => Ok(Self { source, ..config }),
            Err(error) => Err(source.unreadable(&error)),
        }
    }

    /// Lays flags and the environment over what the file says.
    pub fn override_with(&mut self, overrides: Overrides) {
        let Overrides { grpc_addr, http_addr, allow_insecure, store, store_dir, sagas_dir, log, log_format } =
            overrides;
        self.take("server.grpc_addr", grpc_addr, |config, addr| config.server.grpc_addr = addr);
        self.take("server.http_addr", http_addr, |config, addr| config.server.http_addr = addr);
        self.take("server.allow_insecure", allow_insecure.then_some(true), |config, allow| {
            config.server.allow_insecure = allow;
        });
        self.take("store.kind", store, |config, kind| config.store.kind = kind);
        self.take("store.dir", store_dir, |config, dir| config.store.dir = dir);
        self.take("sagas_dir", sagas_dir, |config, dir| config.sagas_dir = Some(dir));
        self.take("log.filter", log, |config, filter| config.log.filter = filter);
        self.take("log.format", log_format, |config, format| config.log.format = format);
    }

    /// What cannot work, in the order of the fields; empty when all is well.
    #[must_use]
    pub fn validate(&self) -> Vec<ConfigProblem> {
        let mut problems = Vec::new();
        self.check_server(&mut problems);
        self.check_numbers(&mut problems);
        self.check_store_and_log(&mut problems);
        self.check_participants(&mut problems);
        problems
    }

    fn take<T>(&mut self, field: &'static str, given: Option<T>, set: impl FnOnce(&mut Self, T)) {
        if let Some(given) = given {
            set(self, given);
            self.source.forget(field);
        }
    }

    fn check_server(&self, problems: &mut Vec<ConfigProblem>) {
        let server = &self.server;
        let addresses = [("server.grpc_addr", server.grpc_addr), ("server.http_addr", server.http_addr)];
        for (field, addr) in addresses {
            if !addr.ip().is_loopback() && !server.allow_insecure {
                problems.push(self.source.problem(
                    field,
                    format!("{addr} can be reached from other machines, and nothing is encrypted or authenticated"),
                    "use a loopback address such as 127.0.0.1, or set server.allow_insecure = true on a network \
                     you trust",
                ));
            }
        }
        if server.grpc_addr == server.http_addr && server.grpc_addr.port() != 0 {
            let problem = format!("{} is server.grpc_addr too", server.http_addr);
            problems.push(self.source.problem("server.http_addr", problem, "give each a port of its own"));
        }
    }

    fn check_numbers(&self, problems: &mut Vec<ConfigProblem>) {
        let (limits, engine) = (&self.limits, &self.engine);
        let ranges = [
            ("store.cache_mib", self.store.cache_mib, 8, 65_536),
            ("store.wal_kib", self.store.wal_kib, 64, 262_144),
            ("limits.input_max_bytes", limits.input_max_bytes, 1_024, 16 * MIB),
            ("limits.saga_max_bytes", limits.saga_max_bytes, 64 * 1_024, 256 * MIB),
            ("limits.requests_max", limits.requests_max.into(), 1, 1_000_000),
            ("limits.watches_max", limits.watches_max.into(), 1, 100_000),
            ("limits.mail_queue_max", limits.mail_queue_max.into(), 16, 1_000_000),
            ("limits.connections_max", limits.connections_max.into(), 1, 100_000),
            ("engine.shards", engine.shards.into(), 1, 64),
            ("engine.batch_max", engine.batch_max.into(), 1, 4_096),
        ];
        for (field, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                let problem = format!("{value} is out of range");
                problems.push(self.source.problem(field, problem, &format!("choose from {least} to {most}")));
            }
        }
        if limits.saga_max_bytes < limits.input_max_bytes {
            let problem = "is less than limits.input_max_bytes".to_owned();
            let remedy = "a saga holds its input and more: choose several times as much";
            problems.push(self.source.problem("limits.saga_max_bytes", problem, remedy));
        }
        for (field, span) in
            [("store.retain", self.store.retain), ("limits.request_timeout", limits.request_timeout)]
        {
            if span.is_zero() {
                let remedy = "choose a time such as \"30d\" or \"60s\"";
                problems.push(self.source.problem(field, "is zero".to_owned(), remedy));
            }
        }
    }

    fn check_store_and_log(&self, problems: &mut Vec<ConfigProblem>) {
        if self.store.kind == StoreKind::Sled && self.store.dir.as_os_str().is_empty() {
            let remedy = "name a folder, such as \"/var/lib/sagad\"";
            problems.push(self.source.problem("store.dir", "is empty".to_owned(), remedy));
        }
        if let Some(dir) = &self.sagas_dir
            && !dir.is_dir()
        {
            let problem = format!("{} is not a folder", dir.display());
            let remedy = "create it, or leave sagas_dir out and register definitions later";
            problems.push(self.source.problem("sagas_dir", problem, remedy));
        }
        if telemetry::parse_filter(&self.log.filter).is_err() {
            let problem = format!("{:?} is not a filter", self.log.filter);
            let remedy = "write it as \"info\" or \"info,sagad=debug\"";
            problems.push(self.source.problem("log.filter", problem, remedy));
        }
    }

    fn check_participants(&self, problems: &mut Vec<ConfigProblem>) {
        let mut seen = std::collections::BTreeSet::new();
        for (ix, participant) in self.participants.iter().enumerate() {
            match participant.handlers() {
                Ok(handlers) => {
                    if !seen.insert((handlers.participant.clone(), handlers.endpoint.clone())) {
                        let field = format!("participants[{ix}].endpoint");
                        let problem =
                            format!("{} has an entry for {}", handlers.participant, handlers.endpoint);
                        problems.push(self.source.problem(&field, problem, "leave one of them out"));
                    }
                }
                Err(InvalidClaim(found)) => problems.extend(found.into_iter().map(|found| {
                    let field = format!("participants[{ix}].{}", participant.in_file(&found.field));
                    self.source.problem(&field, found.problem, "correct the entry or leave it out")
                })),
            }
        }
    }
}

impl ActionConfig {
    fn claimed(&self) -> ClaimedAction {
        match self.clone() {
            ActionConfig::Name(name) => ClaimedAction { name, ..ClaimedAction::default() },
            ActionConfig::Table(ActionTable { name, target, refused_on, done_on }) => {
                ClaimedAction { name, target, refused_on, done_on }
            }
        }
    }
}

impl ParticipantConfig {
    /// The name a claim's field has in this entry.
    fn in_file(&self, field: &str) -> String {
        let of_named = |ix: usize| matches!(self.actions.get(ix), Some(ActionConfig::Name(_)));
        let action = field.strip_prefix("actions[").and_then(|rest| rest.split(']').next()?.parse().ok());
        match (field, action) {
            ("participant", _) => "name".to_owned(),
            (_, Some(ix)) if of_named(ix) => format!("actions[{ix}]"),
            _ => field.to_owned(),
        }
    }

    /// The same, checked.
    pub fn handlers(&self) -> Result<Handlers, InvalidClaim> {
        let protocol = match self.protocol {
            ProtocolName::Sagad => Protocol::Sagad,
            ProtocolName::Grpc => Protocol::Grpc,
            ProtocolName::Http => Protocol::Http,
        };
        let descriptor_set = self.descriptor_set.as_deref().map_or(Ok(Vec::new()), read_descriptor_set)?;
        Handlers::check(&Claim {
            participant: self.name.clone(),
            endpoint: self.endpoint.clone(),
            protocol: Some(protocol),
            actions: self.actions.iter().map(ActionConfig::claimed).collect(),
            max_in_flight: self.max_in_flight,
            ttl: Duration::ZERO,
            descriptor_set,
        })
    }
}

fn read_descriptor_set(path: &Path) -> Result<Vec<u8>, InvalidClaim> {
    std::fs::read(path).map_err(|error| {
        let problem = format!("{} cannot be read: {error}", path.display());
        InvalidClaim(vec![FieldProblem { field: "descriptor_set".to_owned(), problem }])
    })
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            grpc_addr: SocketAddr::from(([127, 0, 0, 1], 7420)),
            http_addr: SocketAddr::from(([127, 0, 0, 1], 7421)),
            allow_insecure: false,
        }
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            kind: StoreKind::default(),
            dir: PathBuf::from("sagad-data"),
            cache_mib: 128,
            wal_kib: 16 * 1_024,
            retain: Duration::from_hours(30 * 24),
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            input_max_bytes: MIB,
            saga_max_bytes: 16 * MIB,
            requests_max: 10_000,
            watches_max: 1_024,
            mail_queue_max: 4_096,
            connections_max: 1_024,
            request_timeout: Duration::from_mins(5),
        }
    }
}

/// One for two cores: shards of the engine, and threads of the runtime that they and the ports run on. The
/// store's threads have the other cores. With a thread more, the runtime wakes it for each piece of work that
/// comes to an idle one, to no use; with a shard more, commits are smaller (docs/performance.md).
#[must_use]
pub fn half_the_cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).div_ceil(2)
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self { shards: u32::try_from(half_the_cores()).unwrap_or(1), batch_max: 256 }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::Text }
    }
}

#[cfg(test)]
mod tests;

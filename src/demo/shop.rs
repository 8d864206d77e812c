//! One service of the shop as a gRPC server of its own: what `sagad shop NAME` runs.
//!
//! ```text
//! Execute ─┐             ┌ rule, enter (book) ┐
//! Compensate ─► counter ─┤ of many calls      ├─ append once (ledger) ─► answers
//! Probe ───┘             └────────────────────┘
//! ```
//!
//! As a worker it takes the same calls over a stream that it opens at the daemon.
//!
//! Nothing is answered before its line is in the ledger, so a service that is killed at any point
//! comes back with the same answers.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use super::book::{Answer, Book, Caller, Entry, Opening, Phase};
use super::catalogue::{self, Offer};
use super::ledger::{Durability, LedgerFile};
use super::registration::{self, Registration};
use super::worker::{self, Worker};
use crate::proto;
use crate::proto::participant_service_server::{ParticipantService, ParticipantServiceServer};
use crate::tasks::{self, Death, Tasks};

/// Calls that may wait at the counter.
const COUNTER_QUEUE_MAX: usize = 1_024;
/// Calls that share one write to the ledger.
const COUNTER_BATCH_MAX: usize = 256;
/// Calls the daemon may have in flight to one service of the shop.
pub const MAX_IN_FLIGHT: u32 = 256;

/// How a service of the shop misbehaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// Waits this long before it looks at a call.
    pub delay: Duration,
    /// Waits this long with an answer whose effect is in the ledger.
    pub reply_delay: Duration,
}

/// How one service of the shop is run.
#[derive(Debug, Clone)]
pub struct ShopOptions {
    /// Which of the catalogue's participants it is.
    pub name: String,
    /// Where it listens; port 0 for any free one.
    pub listen: SocketAddr,
    /// The folder of its ledger.
    pub ledger_dir: PathBuf,
    /// When a line of the ledger counts as written.
    pub durability: Durability,
    /// The daemon to register at, such as `http://127.0.0.1:7420`; `None`: nobody is told.
    pub daemon: Option<String>,
    /// How long a registration lasts unless it is renewed.
    pub ttl: Duration,
    /// Balances before the first call, by account.
    pub balances: BTreeMap<String, i64>,
    /// The balance of every account that is not named.
    pub default_balance: i64,
    /// How it misbehaves.
    pub faults: Faults,
}

/// A service of the shop that is bound to its port and has read its ledger.
#[derive(Debug)]
pub struct Shop {
    incoming: TcpIncoming,
    addr: SocketAddr,
    counter: Counter,
    registration: Option<Registration>,
}

/// Runs a service of the shop as a worker of this name until `until` completes. It listens nowhere.
pub async fn run_worker(
    options: ShopOptions,
    name: String,
    until: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    let (counter, offers) = open_counter(&options)?;
    let lost = counter.calls.clone();
    let worker = Worker {
        daemon: options.daemon.context("a worker needs a daemon to take steps from")?,
        participant: options.name,
        name,
        actions: catalogue::action_names(offers).map(str::to_owned).collect(),
        max_in_flight: MAX_IN_FLIGHT,
        heartbeats: true,
    };
    let stopped = {
        let lost = lost.clone();
        async move {
            tokio::select! { () = until => {}, () = lost.closed() => {} }
        }
    };
    worker::run(worker, counter, stopped).await?;
    anyhow::ensure!(!lost.is_closed(), "the ledger could not be written");
    Ok(())
}

/// Reads the ledger and starts the counter.
fn open_counter(options: &ShopOptions) -> anyhow::Result<(Counter, &'static [Offer])> {
    let ShopOptions { name, ledger_dir, durability, faults, .. } = options;
    let opening = Opening { balances: options.balances.clone(), default_balance: options.default_balance };
    let (ledger, book) = LedgerFile::open(ledger_dir, name, &opening, *durability)?;
    let counter = Counter::start(name, book, ledger, *faults).context("start the counter's thread")?;
    let offers = catalogue::offers(name).expect("the ledger was opened for a known participant");
    Ok((counter, offers))
}

/// Runs a service of the shop until `until` completes. Prints the address it listens on.
pub async fn run(options: ShopOptions, until: impl Future<Output = ()> + Send) -> anyhow::Result<()> {
    let name = options.name.clone();
    let shop = Shop::open(options).await?;
    announce(&name, shop.addr());
    shop.serve(until).await
}

#[expect(clippy::print_stdout, reason = "the one line a parent process or a person waits for")]
fn announce(name: &str, addr: SocketAddr) {
    println!("{name} listens on {addr}");
}

impl Shop {
    /// Reads the ledger and binds the port.
    pub async fn open(options: ShopOptions) -> anyhow::Result<Self> {
        let (counter, offers) = open_counter(&options)?;
        let ShopOptions { name, listen, .. } = options;
        let listener =
            TcpListener::bind(listen).await.with_context(|| format!("listen on {listen} for {name}"))?;
        let addr = listener.local_addr().context("read the bound address")?;
        let registration = options.daemon.map(|daemon| Registration {
            daemon,
            participant: name,
            endpoint: format!("http://{addr}"),
            actions: catalogue::action_names(offers).map(str::to_owned).collect(),
            max_in_flight: MAX_IN_FLIGHT,
            ttl: options.ttl,
        });
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        Ok(Self { incoming, addr, counter, registration })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until `until` completes, and stays registered meanwhile.
    pub async fn serve(self, until: impl Future<Output = ()> + Send) -> anyhow::Result<()> {
        let tasks = Tasks::new();
        if let Some(registration) = self.registration {
            let daemon = registration.daemon.clone();
            let keep = registration::keep(registration)
                .with_context(|| format!("{daemon:?} is not the URL of a daemon"))?;
            let stopping = tasks.stopping();
            tasks.spawn("registration", Death::Fatal, async move {
                tokio::select! { () = keep => {}, () = stopping.cancelled() => {} }
            });
        }
        let stopped = {
            let (fatal, lost) = (tasks.fatal(), self.counter.calls.clone());
            async move {
                tokio::select! { () = until => {}, () = fatal.cancelled() => {}, () = lost.closed() => {} }
            }
        };
        let served = Server::builder()
            .add_service(ParticipantServiceServer::new(self.counter.clone()))
            .serve_with_incoming_shutdown(self.incoming, stopped)
            .await;
        tasks.stop();
        tasks.ended().await;
        served.context("serve calls")?;
        anyhow::ensure!(!self.counter.calls.is_closed(), "the ledger could not be written");
        anyhow::ensure!(!tasks.fatal().is_cancelled(), "the registration's task died");
        Ok(())
    }
}

/// A call at the counter.
struct Visit {
    caller: Caller,
    input_json: String,
    answer: oneshot::Sender<Answer>,
}

/// Where calls queue. Clones share the queue.
#[derive(Debug, Clone)]
struct Counter {
    calls: mpsc::Sender<Visit>,
    faults: Faults,
}

impl Counter {
    /// Starts the thread that owns book and ledger. It ends when the last counter is gone, or when
    /// the ledger cannot be written: then nothing more is answered.
    fn start(name: &str, mut book: Book, mut ledger: LedgerFile, faults: Faults) -> io::Result<Self> {
        let (calls, mut queue) = mpsc::channel(COUNTER_QUEUE_MAX);
        tasks::thread(&format!("ledger of {name}"), move || {
            let mut batch = Vec::with_capacity(COUNTER_BATCH_MAX);
            while queue.blocking_recv_many(&mut batch, COUNTER_BATCH_MAX) > 0 {
                if let Err(error) = attend(&mut book, &mut ledger, &mut batch) {
                    tracing::error!(%error, "the ledger cannot be written: no call is answered any more");
                    return;
                }
            }
        })?;
        Ok(Self { calls, faults })
    }

    async fn ask(&self, caller: Caller, input_json: String) -> Result<Answer, Status> {
        tokio::time::sleep(self.faults.delay).await;
        let (answer, answered) = oneshot::channel();
        let lost = || Status::unavailable("the ledger cannot be written");
        self.calls.send(Visit { caller, input_json, answer }).await.map_err(|_| lost())?;
        let answer = answered.await.map_err(|_| lost())?;
        tokio::time::sleep(self.faults.reply_delay).await;
        Ok(answer)
    }
}

/// Rules on a batch of calls in order, writes the rulings with one append, then answers.
fn attend(book: &mut Book, ledger: &mut LedgerFile, batch: &mut Vec<Visit>) -> anyhow::Result<()> {
    let mut entries = Vec::with_capacity(batch.len());
    let mut answers = Vec::with_capacity(batch.len());
    for Visit { caller, input_json, answer } in batch.drain(..) {
        let (verdict, given) = book.rule(&caller, &input_json);
        let entry = Entry { caller, verdict };
        book.enter(&entry);
        entries.push(entry);
        answers.push((answer, given));
    }
    ledger.append(&entries)?;
    for (waiting, answer) in answers {
        // A caller that has gone away asks again with the same key.
        let _ = waiting.send(answer);
    }
    Ok(())
}

/// Who asks for what, out of a request. In the action itself both keys are the same.
macro_rules! caller {
    ($request:expr, $phase:expr, $action_key:expr) => {
        Caller {
            saga: $request.saga_id,
            step: $request.step,
            phase: $phase,
            action: $request.action,
            action_key: $action_key,
            key: $request.idempotency_key,
            attempt: $request.attempt,
            epoch: $request.epoch,
        }
    };
}

/// An answer as the response of one method: each has an outcome type of its own.
macro_rules! respond {
    ($response:ident, $module:ident, $answer:expr) => {{
        use proto::$module::Outcome;
        let outcome = match $answer {
            Answer::Done(output_json) => Outcome::Done(proto::Done { output_json }),
            Answer::Refused { code, message } => Outcome::Refused(proto::Refused { code, message }),
            Answer::Superseded => Outcome::Superseded(proto::Superseded {}),
        };
        Ok(Response::new(proto::$response { outcome: Some(outcome) }))
    }};
}

#[tonic::async_trait]
impl ParticipantService for Counter {
    async fn execute(
        &self,
        request: Request<proto::ExecuteRequest>,
    ) -> Result<Response<proto::ExecuteResponse>, Status> {
        let r = request.into_inner();
        let caller = caller!(r, Phase::Action, r.idempotency_key.clone());
        respond!(ExecuteResponse, execute_response, self.ask(caller, r.input_json).await?)
    }

    async fn compensate(
        &self,
        request: Request<proto::CompensateRequest>,
    ) -> Result<Response<proto::CompensateResponse>, Status> {
        let r = request.into_inner();
        let caller = caller!(r, Phase::Compensation, r.action_idempotency_key);
        respond!(CompensateResponse, compensate_response, self.ask(caller, r.input_json).await?)
    }

    async fn probe(
        &self,
        request: Request<proto::ProbeRequest>,
    ) -> Result<Response<proto::ProbeResponse>, Status> {
        let r = request.into_inner();
        let caller = caller!(r, Phase::Probe, r.action_idempotency_key);
        respond!(ProbeResponse, probe_response, self.ask(caller, r.input_json).await?)
    }
}

#[cfg(test)]
mod tests;

//! Killing the daemon in the middle of things, and what it takes until it is as if nothing had been.

use std::time::Duration;

use anyhow::Context as _;
use sagad::proto;
use sagad::proto::saga_service_client::SagaServiceClient;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::parts::count;
use crate::rig::{Home, Rig};
use crate::sagas::{Kind, check, request};
use crate::usage::cpu;

/// The pause between two looks at whether everything has settled.
const LOOK_PAUSE: Duration = Duration::from_millis(5);
/// How long that may take before the bench gives up.
const SETTLE_TIMEOUT: Duration = Duration::from_mins(2);

/// What a start after a crash took, from the start of the process on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Recovery {
    /// Until it answered at all.
    pub answered: Duration,
    /// Until a saga that was started then had ended.
    pub first_ended: Duration,
    /// Until nothing was open any more but what waits for something far away.
    pub settled: Duration,
    /// The daemon's processor time until it answered, and until all of this was over.
    pub answered_cpu: Duration,
    pub settled_cpu: Duration,
}

impl Recovery {
    /// The longer of each.
    pub fn worse(self, other: Self) -> Self {
        Self {
            answered: self.answered.max(other.answered),
            first_ended: self.first_ended.max(other.first_ended),
            settled: self.settled.max(other.settled),
            answered_cpu: self.answered_cpu.max(other.answered_cpu),
            settled_cpu: self.settled_cpu.max(other.settled_cpu),
        }
    }
}

/// Has `callers` clients run sagas for `span` and kills the daemon under them; the sagas whose
/// clients were not answered.
pub async fn kill_under_load(
    rig: Rig,
    callers: usize,
    span: Duration,
) -> anyhow::Result<(Home, Vec<String>)> {
    let clients = rig.clients();
    let mut running = JoinSet::new();
    for caller in 0..callers {
        let client = clients[caller % clients.len()].clone();
        running.spawn(until_refused(client, caller as u64));
    }
    tokio::time::sleep(span).await;
    let home = rig.kill().await?;
    let mut interrupted = Vec::new();
    while let Some(id) = running.join_next().await {
        interrupted.push(id.context("a caller panicked")??);
    }
    Ok((home, interrupted))
}

/// Runs one saga after the other until there is no answer; the id of the last.
async fn until_refused(mut client: SagaServiceClient<Channel>, caller: u64) -> anyhow::Result<String> {
    loop {
        let request = request(Kind::ORDER3, caller);
        let id = request.saga_id.clone();
        match client.start_saga(request).await {
            Ok(answer) => check(Kind::ORDER3, caller, &answer.into_inner())?,
            Err(_) => return Ok(id),
        }
    }
}

/// Starts the daemon and waits until no more than `left` sagas are open. Nobody asks for the
/// interrupted sagas meanwhile: being asked for is a reason to be taken up.
pub async fn recover(home: Home, left: u64) -> anyhow::Result<(Rig, Recovery)> {
    let rig = home.start().await?;
    let mut client = rig.clients()[0].clone();
    let first = async {
        let answer = client.start_saga(request(Kind::ORDER3, 0)).await;
        check(Kind::ORDER3, 0, &answer.context("start a saga after the crash")?.into_inner())?;
        anyhow::Ok(rig.started.elapsed())
    };
    let settled = async {
        while count(&rig, "RUNNING").await? > left {
            anyhow::ensure!(rig.started.elapsed() < SETTLE_TIMEOUT, "not settled after {SETTLE_TIMEOUT:?}");
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        anyhow::Ok(rig.started.elapsed())
    };
    let (first_ended, settled) = tokio::join!(first, settled);
    let (first_ended, settled) = (first_ended?, settled?);
    let (answered, answered_cpu) = (rig.answered_after, rig.answered_cpu);
    let settled_cpu = cpu(rig.pid()?)?;
    Ok((rig, Recovery { answered, first_ended, settled, answered_cpu, settled_cpu }))
}

/// Fails unless each of these sagas has completed or was never stored.
pub async fn ensure_settled(rig: &Rig, ids: &[String]) -> anyhow::Result<()> {
    let mut client = rig.clients()[0].clone();
    for id in ids {
        let request = proto::GetSagaRequest { saga_id: id.clone() };
        match client.get_saga(request).await {
            Ok(answer) => {
                let status = answer.into_inner().saga.context("an answer without a saga")?.status();
                let completed = status == proto::SagaStatus::Completed;
                anyhow::ensure!(completed, "saga {id} is {status:?} after the restart");
            }
            Err(status) if status.code() == tonic::Code::NotFound => {}
            Err(status) => return Err(status).context("ask for an interrupted saga"),
        }
    }
    Ok(())
}

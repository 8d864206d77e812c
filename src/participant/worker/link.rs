//! What both directions of a worker's stream have in common.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::Stream;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{BATCH_MAX_BYTES, WORK_MAX};
use crate::clock::Stopwatch;
use crate::participant::Outgoing;
use crate::participant::handlers::Endpoint;
use crate::participant::outcome::Answer;
use crate::participant::sagad::{REQUEST_MAX_BYTES, compensate, execute, probe};
use crate::proto::worker_outcome::Outcome as Wire;
use crate::proto::worker_step::Call as Request;
use crate::proto::{OpenWorkerResponse, WorkerOutcome, WorkerStep, WorkerWelcome};
use crate::saga::ids::Timestamp;
use crate::saga::json::Json;
use crate::saga::words::{Outcome, Phase};

/// What a step weighs beside its documents, in bytes: ids, keys, labels of the usual size.
const STEP_BYTES: usize = 1_024;
/// Room for labels of the largest size, in bytes.
const LABELS_BYTES: usize = 128 * 1024;

/// How a call ended.
#[derive(Debug)]
pub(super) enum Said {
    /// The worker's answer, and what it says beside one without an outcome.
    Answer(Answer, String),
    /// It has no such probe.
    Unimplemented,
    /// No answer will come, and why.
    Lost(String),
    /// The step was never written, and why.
    Unsent(String),
}

/// What is left of the time for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// So much.
    Left(Duration),
    /// None, and the step was never written.
    NeverSent,
    /// None since the last sign of work.
    Silent,
    /// None, whatever the worker says: this is the longest there is.
    TooLong(Duration),
}

/// How a stream ends.
#[derive(Debug)]
pub(super) struct Ending {
    /// What the worker is told; `None` is OK.
    pub(super) status: Option<Status>,
    /// Why its steps are unknown, for people.
    pub(super) cause: String,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Link {
    state: Mutex<State>,
    /// Fires when the daemon's side of the stream is gone.
    dropped: CancellationToken,
    /// Fires when the daemon stops: what it drops then is not cancelled, the next daemon asks again.
    stopping: CancellationToken,
}

#[derive(Debug)]
struct State {
    endpoint: Endpoint,
    calls: HashMap<u64, Call>,
    last_id: u64,
    /// Steps to write, and what each weighs.
    steps: VecDeque<(WorkerStep, usize)>,
    /// All else there is to write.
    message: OpenWorkerResponse,
    /// Whether there is something to write beside steps, be it an empty message.
    speaks: bool,
    end: Option<Ending>,
    writer: Option<Waker>,
}

#[derive(Debug)]
struct Call {
    answer: oneshot::Sender<Said>,
    /// Since it was written.
    sent: Option<Stopwatch>,
    /// Since it was put in line, written, or the worker last said that it is at work on it.
    alive: Stopwatch,
}

/// A call in a link. Dropping it takes the call back.
pub(super) struct Placed<'l> {
    link: &'l Link,
    pub(super) call_id: u64,
    pub(super) answer: oneshot::Receiver<Said>,
}

impl Drop for Placed<'_> {
    fn drop(&mut self) {
        self.link.take_back(self.call_id);
    }
}

impl Link {
    /// A stream that begins with `welcome`.
    pub(crate) fn new(endpoint: &Endpoint, welcome: WorkerWelcome, stopping: CancellationToken) -> Arc<Self> {
        let message = OpenWorkerResponse { welcome: Some(welcome), ..OpenWorkerResponse::default() };
        Self::of(endpoint, message, None, stopping)
    }

    /// A stream that is over.
    pub(super) fn ended(endpoint: &Endpoint) -> Arc<Self> {
        let end = Ending { status: None, cause: "its stream has ended".to_owned() };
        Self::of(endpoint, OpenWorkerResponse::default(), Some(end), CancellationToken::new())
    }

    fn of(
        endpoint: &Endpoint,
        message: OpenWorkerResponse,
        end: Option<Ending>,
        stopping: CancellationToken,
    ) -> Arc<Self> {
        let state = State {
            endpoint: endpoint.clone(),
            calls: HashMap::new(),
            last_id: 0,
            steps: VecDeque::new(),
            speaks: message.welcome.is_some(),
            message,
            end,
            writer: None,
        };
        Arc::new(Self { state: Mutex::new(state), dropped: CancellationToken::new(), stopping })
    }

    /// Fires when the daemon's side of the stream is gone.
    pub(super) fn dropped(&self) -> &CancellationToken {
        &self.dropped
    }

    /// Puts a call in line to be written.
    ///
    /// # Errors
    /// What is known of a call that cannot be sent.
    pub(super) fn place(&self, outgoing: Outgoing, now: Timestamp) -> Result<Placed<'_>, Outcome> {
        // No worker takes it: that uses up its attempts.
        let weight = weight(&outgoing).map_err(Outcome::Unknown)?;
        let request = match outgoing.duty.phase {
            Phase::Action => Request::Execute(execute(outgoing, now)),
            Phase::Compensation => Request::Compensate(compensate(outgoing, now)),
            Phase::Probe => Request::Probe(probe(outgoing, now)),
        };
        let (sender, answer) = oneshot::channel();
        let alive = Stopwatch::start();
        let mut state = self.state.lock();
        if let Some(end) = &state.end {
            return Err(Outcome::Unsent(format!("not sent: {} is gone: {}", state.endpoint, end.cause)));
        }
        state.last_id += 1;
        let call_id = state.last_id;
        state.calls.insert(call_id, Call { answer: sender, sent: None, alive });
        state.steps.push_back((WorkerStep { call_id, call: Some(request) }, weight));
        let writer = state.writer.take();
        drop(state);
        wake(writer);
        Ok(Placed { link: self, call_id, answer })
    }

    /// Nobody waits for the call any more; the worker is told if it has it.
    fn take_back(&self, call_id: u64) {
        let mut state = self.state.lock();
        let Some(call) = state.calls.remove(&call_id) else { return };
        let writer = if call.sent.is_none() {
            state.steps.retain(|(step, _)| step.call_id != call_id);
            None
        } else if self.stopping.is_cancelled() {
            None
        } else {
            state.message.cancelled.push(call_id);
            state.speaks = true;
            state.writer.take()
        };
        drop(state);
        wake(writer);
    }

    /// What is left of the time for a call whose timeout is `timeout`.
    pub(super) fn patience(&self, call_id: u64, timeout: Duration) -> Patience {
        let state = self.state.lock();
        // Settled at this very moment: the answer is there.
        let Some(call) = state.calls.get(&call_id) else { return Patience::Left(Duration::ZERO) };
        let left = timeout.saturating_sub(call.alive.elapsed());
        let Some(sent) = &call.sent else {
            return if left.is_zero() { Patience::NeverSent } else { Patience::Left(left) };
        };
        let max = WORK_MAX.max(timeout);
        let left_of_all = max.saturating_sub(sent.elapsed());
        if left.is_zero() {
            Patience::Silent
        } else if left_of_all.is_zero() {
            Patience::TooLong(max)
        } else {
            Patience::Left(left.min(left_of_all))
        }
    }

    /// Settles calls. Says how many were settled and how many outcomes nobody waited for.
    pub(super) fn settle(&self, outcomes: Vec<WorkerOutcome>) -> (usize, usize) {
        let told = outcomes.len();
        let mut settled = Vec::with_capacity(told);
        let mut state = self.state.lock();
        for WorkerOutcome { call_id, outcome, error } in outcomes {
            // An id that is guessed right belongs to nobody either.
            if state.calls.get(&call_id).is_some_and(|call| call.sent.is_some())
                && let Some(call) = state.calls.remove(&call_id)
            {
                settled.push((call.answer, said(outcome, error)));
            }
        }
        drop(state);
        let count = settled.len();
        for (answer, said) in settled {
            // Whoever gave up at this moment will ask again.
            let _ = answer.send(said);
        }
        (count, told - count)
    }

    /// The worker is still at work on these.
    pub(super) fn beat(&self, call_ids: &[u64]) {
        if call_ids.is_empty() {
            return;
        }
        let now = Stopwatch::start();
        let mut state = self.state.lock();
        for call_id in call_ids {
            if let Some(call) = state.calls.get_mut(call_id)
                && call.sent.is_some()
            {
                call.alive = now;
            }
        }
    }

    /// Asks for a sign of life.
    pub(super) fn ask(&self) {
        self.say(|_| {});
    }

    /// Says that the daemon is stopping.
    pub(super) fn tell_draining(&self) {
        self.say(|message| message.draining = true);
    }

    fn say(&self, add: impl FnOnce(&mut OpenWorkerResponse)) {
        let mut state = self.state.lock();
        add(&mut state.message);
        state.speaks = true;
        let writer = state.writer.take();
        drop(state);
        wake(writer);
    }

    /// Ends the stream: what is in flight is unknown at once. Only the first end counts.
    pub(super) fn end(&self, end: Ending) {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return;
        }
        let (calls, cause) = (std::mem::take(&mut state.calls), end.cause.clone());
        let endpoint = state.endpoint.clone();
        state.steps.clear();
        state.message.cancelled.clear();
        state.end = Some(end);
        let writer = state.writer.take();
        drop(state);
        wake(writer);
        for call in calls.into_values() {
            let said = match call.sent {
                Some(_) => Said::Lost(format!("no answer: {endpoint} is gone: {cause}")),
                None => Said::Unsent(format!("not sent: {endpoint} is gone: {cause}")),
            };
            let _ = call.answer.send(said);
        }
    }

    /// All that is to be written now, in one message; then the end.
    fn poll_message(&self, cx: &mut Context<'_>) -> Poll<Option<Result<OpenWorkerResponse, Status>>> {
        let mut state = self.state.lock();
        let state = &mut *state;
        if state.speaks || !state.steps.is_empty() {
            let mut message = std::mem::take(&mut state.message);
            state.speaks = false;
            let now = Stopwatch::start();
            let mut bytes = 0;
            while let Some((step, weight)) = state.steps.pop_front() {
                if bytes > 0 && bytes + weight > BATCH_MAX_BYTES {
                    state.steps.push_front((step, weight));
                    break;
                }
                bytes += weight;
                if let Some(call) = state.calls.get_mut(&step.call_id) {
                    (call.sent, call.alive) = (Some(now), now);
                    message.steps.push(step);
                }
            }
            return Poll::Ready(Some(Ok(message)));
        }
        if let Some(end) = &mut state.end {
            return Poll::Ready(end.status.take().map(Err));
        }
        match &mut state.writer {
            Some(writer) => writer.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

fn wake(writer: Option<Waker>) {
    if let Some(writer) = writer {
        writer.wake();
    }
}

/// What a step weighs in a message, in bytes.
///
/// # Errors
/// It is more than a worker takes.
fn weight(outgoing: &Outgoing) -> Result<usize, String> {
    let duty = &outgoing.duty;
    let of = |document: &Json| document.text().len();
    let documents = of(&duty.input)
        + duty.action_input.as_ref().map_or(0, of)
        + duty.action_output.as_ref().map_or(0, of);
    if documents + LABELS_BYTES > REQUEST_MAX_BYTES {
        let most = REQUEST_MAX_BYTES - LABELS_BYTES;
        return Err(format!(
            "not sent: the request's documents have {documents} bytes, over the limit of {most}"
        ));
    }
    Ok(documents + STEP_BYTES)
}

fn said(outcome: Option<Wire>, error: String) -> Said {
    match outcome {
        Some(Wire::Done(done)) => Said::Answer(Answer::Done(done), error),
        Some(Wire::Refused(refused)) => Said::Answer(Answer::Refused(refused), error),
        Some(Wire::Pending(pending)) => Said::Answer(Answer::Pending(pending), error),
        Some(Wire::Superseded(_)) => Said::Answer(Answer::Superseded, error),
        Some(Wire::Unimplemented(_)) => Said::Unimplemented,
        None => Said::Answer(Answer::Nothing, error),
    }
}

/// The daemon's side of a worker's stream.
#[derive(Debug)]
pub struct Outbound(pub(super) Arc<Link>);

impl Stream for Outbound {
    type Item = Result<OpenWorkerResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_message(cx)
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        self.0.dropped.cancel();
    }
}

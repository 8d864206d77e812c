//! A worker's side of its stream, read by one task from the hello to the end.

use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};
use tonic::Status;

use super::link::{Ending, Link, Outbound};
use super::{ENTRIES_MAX, Habits};
use crate::metrics::Metrics;
use crate::participant::handlers::MAX_IN_FLIGHT_MAX;
use crate::participant::registry::Attached;
use crate::proto::OpenWorkerRequest;
use crate::tasks::{Death, Tasks};

/// How often a stream that takes no more steps is looked at for whether all are settled.
const SETTLED_LOOK: std::time::Duration = std::time::Duration::from_millis(20);

/// A worker's registration, before its stream is served. Dropping it ends the registration.
#[derive(Debug)]
#[must_use = "nobody takes the steps before it is served"]
pub struct Seat {
    attached: Attached,
    link: Arc<Link>,
    habits: Habits,
    tasks: Tasks,
    metrics: Metrics,
}

impl Seat {
    pub(in crate::participant) fn new(
        attached: Attached,
        link: Arc<Link>,
        habits: Habits,
        tasks: &Tasks,
        metrics: &Metrics,
    ) -> Self {
        Self { attached, link, habits, tasks: tasks.clone(), metrics: metrics.clone() }
    }

    /// Reads what the worker says from `inbound` on a task of its own, until either side ends the stream
    /// or the daemon stops. The answer is what to say to the worker.
    pub fn serve<S>(self, inbound: S) -> Outbound
    where
        S: Stream<Item = Result<OpenWorkerRequest, Status>> + Send + Unpin + 'static,
    {
        let outbound = Outbound(Arc::clone(&self.link));
        let tasks = self.tasks.clone();
        let session = Session { seat: self, idle_messages: 0, has_told_of_dropped: false, leaving: None };
        tasks.spawn("worker's stream", Death::Logged, session.run(inbound));
        outbound
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // First nobody new comes, then those that wait are told.
        self.attached.detach();
        let cause = "its stream was dropped".to_owned();
        self.link.end(Ending { status: None, cause });
    }
}

/// Who wants the stream to end once all is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    Worker,
    Daemon,
}

/// See the module.
pub(super) struct Session {
    seat: Seat,
    /// Messages since the last look that settled nothing.
    idle_messages: u32,
    has_told_of_dropped: bool,
    leaving: Option<Leaving>,
}

impl Session {
    async fn run(mut self, inbound: impl Stream<Item = Result<OpenWorkerRequest, Status>> + Unpin) {
        let (participant, worker) = (self.seat.attached.participant(), self.seat.attached.endpoint());
        tracing::info!(%participant, %worker, "a worker has come");
        let end = self.read(inbound).await;
        self.seat.attached.detach();
        let (participant, worker) = (self.seat.attached.participant(), self.seat.attached.endpoint());
        tracing::info!(%participant, %worker, cause = end.cause, "a worker has gone");
        self.seat.link.end(end);
    }

    async fn read(
        &mut self,
        mut inbound: impl Stream<Item = Result<OpenWorkerRequest, Status>> + Unpin,
    ) -> Ending {
        let (link, habits) = (Arc::clone(&self.seat.link), self.seat.habits);
        let stopping = self.seat.tasks.stopping();
        let mut looks = every(habits.look_every);
        let mut settled_looks = every(SETTLED_LOOK);
        let (mut quiet_looks, mut heard) = (0, false);
        let stopped = stopping.cancelled();
        let dropped = link.dropped().cancelled();
        let grace = sleep(habits.grace);
        tokio::pin!(stopped, dropped, grace);
        loop {
            tokio::select! {
                message = inbound.next() => match message {
                    Some(Ok(message)) => {
                        heard = true;
                        if let Err(end) = self.hear(message) {
                            return end;
                        }
                    }
                    Some(Err(status)) => return broken(&status),
                    None => return left(),
                },
                () = &mut dropped => return lost(),
                () = &mut stopped, if self.leaving != Some(Leaving::Daemon) => {
                    self.leaving = Some(Leaving::Daemon);
                    self.seat.attached.detach();
                    link.tell_draining();
                    grace.set(sleep(habits.grace));
                }
                () = &mut grace, if self.leaving == Some(Leaving::Daemon) => return stopping_now(),
                _ = settled_looks.tick(), if self.leaving.is_some() => {
                    if !self.seat.attached.has_calls() {
                        return if self.leaving == Some(Leaving::Daemon) { stopping_now() } else { left() };
                    }
                }
                _ = looks.tick() => {
                    self.idle_messages = 0;
                    quiet_looks = if std::mem::take(&mut heard) { 0 } else { quiet_looks + 1 };
                    if quiet_looks >= habits.looks_max {
                        return silent(&habits);
                    }
                    if quiet_looks > 0 {
                        link.ask();
                    }
                }
            }
        }
    }

    /// Takes one message.
    fn hear(&mut self, message: OpenWorkerRequest) -> Result<(), Ending> {
        let OpenWorkerRequest { hello, outcomes, heartbeats, max_in_flight, draining } = message;
        if hello.is_some() {
            return Err(wrong("hello: only the first message has one"));
        }
        if outcomes.len() > ENTRIES_MAX || heartbeats.len() > ENTRIES_MAX {
            let problem = format!("outcomes, heartbeats: at most {ENTRIES_MAX} in one message");
            return Err(wrong(&problem));
        }
        if max_in_flight > MAX_IN_FLIGHT_MAX {
            return Err(wrong(&format!("max_in_flight: must be at most {MAX_IN_FLIGHT_MAX}")));
        }
        let (settled, dropped) = self.seat.link.settle(outcomes);
        if dropped > 0 {
            self.drop_outcomes(dropped);
        }
        self.seat.link.beat(&heartbeats);
        if max_in_flight > 0 {
            self.seat.attached.set_max_in_flight(max_in_flight);
        }
        if draining && self.leaving.is_none() {
            self.leaving = Some(Leaving::Worker);
            self.seat.attached.detach();
        }
        if settled == 0 {
            self.idle_messages += 1;
            if self.idle_messages > self.seat.habits.idle_messages_max {
                return Err(flood(&self.seat.habits));
            }
        }
        Ok(())
    }

    /// Outcomes of steps that were cancelled, timed out, settled or never given: nobody waits for them.
    fn drop_outcomes(&mut self, count: usize) {
        self.seat.metrics.worker_outcomes_dropped(count);
        if !std::mem::replace(&mut self.has_told_of_dropped, true) {
            let (participant, worker) = (self.seat.attached.participant(), self.seat.attached.endpoint());
            tracing::warn!(
                %participant, %worker,
                "an outcome that nobody waits for was dropped: its step timed out, was cancelled or was \
                 never given to this worker; further ones on this stream are only counted"
            );
        }
    }
}

fn every(span: std::time::Duration) -> Interval {
    let mut ticks = interval(span);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick would come at once.
    ticks.reset();
    ticks
}

fn left() -> Ending {
    Ending { status: None, cause: "it ended its stream".to_owned() }
}

fn lost() -> Ending {
    Ending { status: None, cause: "its connection broke".to_owned() }
}

fn broken(status: &Status) -> Ending {
    let cause = format!("its stream broke: {}", status.message());
    // What the codec says of a message that cannot be read; nobody hears it when the connection is gone.
    let status = Status::invalid_argument(format!("message: cannot be read: {}", status.message()));
    Ending { status: Some(status), cause }
}

fn silent(habits: &Habits) -> Ending {
    let cause = format!("silent for {}", humantime::format_duration(habits.silence_max()));
    let text = format!("the worker was {cause}: answer every message of the daemon, or send heartbeats");
    Ending { status: Some(Status::unavailable(text)), cause: format!("it was {cause}") }
}

fn stopping_now() -> Ending {
    let status = Status::unavailable("the daemon is stopping; open another stream");
    Ending { status: Some(status), cause: "the daemon is stopping".to_owned() }
}

fn wrong(problem: &str) -> Ending {
    Ending {
        status: Some(Status::invalid_argument(problem)),
        cause: format!("it sent what is wrong: {problem}"),
    }
}

fn flood(habits: &Habits) -> Ending {
    let (most, span) = (habits.idle_messages_max, humantime::format_duration(habits.look_every));
    let problem = format!("over {most} messages within {span} that settle no step; put more into one");
    Ending { status: Some(Status::resource_exhausted(problem.clone())), cause: format!("it sent {problem}") }
}

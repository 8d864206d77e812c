//! One shard: takes mail, decides it, commits once for all of it, publishes, settles what is owed.
//!
//! ```text
//!  mail ──► take ──► Batch ──► store.commit ──► publish ──► answer ──► settle (calls, timers)
//!            │                      │ failed
//!            └─ not in memory:      └─► nothing published; reload, decide again
//!               hold, load
//! ```
//!
//! Recovery is this same loop: a saga that was read from the store is fed `Recovered` and settled.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::batch::{Batch, Verdict, Work, Working, no_saga};
use super::calls::InFlight;
use super::error::EngineError;
use super::load::load_for_shard;
use super::loading::Loading;
use super::mail::{Ask, Inbox, Mail, Request};
use super::parked::Parked;
use super::settings::{HELD_REQUESTS_MAX, RETRY_AFTER, STORE_RETRY, SWEEP_AT_ONCE, UNPARK_AT_ONCE};
use super::shared::{Door, Shared};
use super::timers::Timers;
use crate::saga::ids::{SagaId, Timestamp};
use crate::saga::input::{CallId, Input};
use crate::saga::state::Saga;

/// A shard and all it owns.
pub(super) struct Shard {
    pub(super) ix: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) residents: HashMap<SagaId, Resident>,
    pub(super) loading: HashMap<SagaId, Loading>,
    pub(super) timers: Timers,
    pub(super) parked: Parked,
    /// Sagas the sweeper still has to look at.
    pub(super) sweep: VecDeque<SagaId>,
    /// The pause before the store is asked again; grows while commits fail.
    pub(super) store_pause: Duration,
}

/// A saga in memory.
pub(super) struct Resident {
    /// As the last commit left it.
    pub(super) saga: Arc<Saga>,
    pub(super) calls: BTreeMap<CallId, InFlight>,
    /// The far wake-up that the store has of it.
    pub(super) stored_wake: Option<Timestamp>,
    /// When it last did something.
    pub(super) busy_at: Timestamp,
    /// Nothing more of it could be stored: nothing of it runs, and only requests are decided.
    pub(super) outgrown: bool,
}

impl Shard {
    /// An empty shard.
    pub(super) fn new(ix: usize, shared: Arc<Shared>) -> Self {
        Self {
            ix,
            shared,
            residents: HashMap::new(),
            loading: HashMap::new(),
            timers: Timers::default(),
            parked: Parked::default(),
            sweep: VecDeque::new(),
            store_pause: STORE_RETRY.0,
        }
    }

    /// Works until the daemon stops; the commit in hand is finished first.
    pub(super) async fn run(mut self, mut inbox: Inbox) {
        let stop = self.shared.tasks.stopping();
        let mut mails = Vec::with_capacity(self.shared.settings.batch_max);
        while !stop.is_cancelled() {
            if !self.parked.is_looking() && self.sweep.is_empty() {
                let until_timer = self.until_next_timer();
                tokio::select! {
                    biased;
                    () = stop.cancelled() => break,
                    () = inbox.next(&mut mails) => {}
                    () = tokio::time::sleep(until_timer) => {}
                }
            } else {
                inbox.take_ready(&mut mails);
            }
            let batch = self.decide_all(&mut mails);
            self.commit(batch).await;
            self.door().parked.store(self.parked.len() as u64, Ordering::Relaxed);
            tokio::task::consume_budget().await;
        }
        inbox.close();
        for (_, loading) in self.loading.drain() {
            loading.refuse_requests(&EngineError::Stopping);
        }
    }

    /// Its door, as others see it.
    pub(super) fn door(&self) -> &Door {
        &self.shared.shards[self.ix]
    }

    fn until_next_timer(&self) -> Duration {
        /// Without a timer it looks again after this long, which nothing relies on.
        const IDLE: Duration = Duration::from_mins(5);
        let now = self.shared.clock.now();
        self.timers.next().map_or(IDLE, |at| at.since(now).min(IDLE))
    }

    fn decide_all(&mut self, mails: &mut Vec<Mail>) -> Batch {
        let mut batch = Batch::new(self.shared.clock.now());
        self.note_wait(mails, batch.now);
        for mail in mails.drain(..) {
            self.take(mail, &mut batch);
        }
        for id in self.timers.due(batch.now, self.shared.settings.batch_max) {
            self.take_work(id, Work::Input(Input::Wake), &mut batch);
        }
        for id in self.parked.next_to_wake(self.shared.dispatch.as_ref(), UNPARK_AT_ONCE) {
            self.take_work(id, Work::Input(Input::Wake), &mut batch);
        }
        let swept = self.sweep.len().min(SWEEP_AT_ONCE);
        for id in self.sweep.drain(..swept).collect::<Vec<_>>() {
            self.sweep_one(&id, &mut batch);
        }
        batch
    }

    /// Tells starts how long they would wait.
    fn note_wait(&self, mails: &[Mail], now: Timestamp) {
        let waited = mails.iter().rev().find_map(|mail| match mail {
            Mail::Request(request) => Some(now.since(request.posted_at)),
            _ => None,
        });
        let door = self.door();
        let waited = waited.filter(|_| door.mailbox.depth() > 0).unwrap_or_default();
        let millis = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        door.mail_waited_ms.store(millis, Ordering::Relaxed);
    }

    fn take(&mut self, mail: Mail, batch: &mut Batch) {
        match mail {
            Mail::Request(request) => self.take_work(request.id.clone(), Work::Request(request), batch),
            Mail::Feed { id, input } => self.take_work(id, Work::Input(input), batch),
            Mail::Loaded { id, result } => self.adopt(id, result, batch),
            Mail::Recover { id, permit } => {
                let known = self.residents.contains_key(&id)
                    || self.loading.contains_key(&id)
                    || batch.working.contains_key(&id)
                    || self.shared.stuck.quarantined(&id).is_some();
                if !known {
                    self.begin_load(
                        id,
                        Loading { permit: Some(permit), ..Loading::default() },
                        Duration::ZERO,
                    );
                }
            }
            Mail::LookAtParked => self.parked.look(),
            Mail::Sweep => {
                if self.sweep.is_empty() {
                    self.sweep.extend(self.residents.keys().cloned());
                }
            }
        }
    }

    /// Decides a piece of work on its saga's working copy, or holds it until the saga is read.
    pub(super) fn take_work(&mut self, id: SagaId, work: Work, batch: &mut Batch) {
        if let Work::Input(Input::Reply(reply)) = &work
            && let Some(resident) = self.residents.get_mut(&id)
        {
            resident.calls.remove(&CallId { at: reply.at, phase: reply.phase, attempt: reply.attempt });
        }
        if let Some(working) = batch.working.get_mut(&id) {
            working.decide(work, &self.shared, batch.now);
        } else if let Some(loading) = self.loading.get_mut(&id) {
            loading.hold(work);
        } else if let Some(resident) = self.residents.get(&id) {
            if resident.outgrown && matches!(work, Work::Input(_)) {
                return;
            }
            let mut working = Working::on(Arc::clone(&resident.saga));
            working.decide(work, &self.shared, batch.now);
            batch.working.insert(id, working);
        } else if let Some(reason) = self.shared.stuck.quarantined(&id) {
            refuse(work, EngineError::DataLoss(reason));
        } else if matches!(&work, Work::Request(Request { ask: Ask::Start(_), .. }))
            && self.shared.locks.ticket_of(&id).is_none()
        {
            // Nobody here knows the id. Should the store know it, the commit leaves it out and
            // says so, and the start is decided again on what is there.
            self.start_new(id, work, batch);
        } else {
            let mut loading = Loading::default();
            loading.hold(work);
            self.begin_load(id, loading, Duration::ZERO);
        }
    }

    /// Decides work for a saga that is known not to be stored.
    pub(super) fn take_work_without_saga(&mut self, id: &SagaId, work: Work, batch: &mut Batch) {
        if let Some(working) = batch.working.get_mut(id) {
            working.decide(work, &self.shared, batch.now);
        } else if matches!(&work, Work::Request(Request { ask: Ask::Start(_), .. })) {
            self.start_new(id.clone(), work, batch);
        } else {
            refuse(work, no_saga(id));
        }
    }

    fn start_new(&mut self, id: SagaId, work: Work, batch: &mut Batch) {
        let mut working = Working::default();
        working.decide(work, &self.shared, batch.now);
        batch.working.insert(id, working);
    }

    /// Reads a saga from the store; work for it is held meanwhile.
    pub(super) fn begin_load(&mut self, id: SagaId, loading: Loading, delay: Duration) {
        self.timers.clear(&id);
        self.loading.insert(id.clone(), loading);
        load_for_shard(&self.shared, id, delay);
    }
}

/// Answers a request with a refusal; an input that nobody waits for is dropped.
pub(super) fn refuse(work: Work, refusal: EngineError) {
    if let Work::Request(request) = work {
        let _gone = request.answer.send(Err(refusal));
    }
}

impl Loading {
    /// Keeps work until the saga is read; requests over the bound are refused.
    pub(super) fn hold(&mut self, work: Work) {
        if matches!(work, Work::Input(Input::Wake)) && !self.held.is_empty() {
            return; // Every saga that was read is looked at anyway.
        }
        let requests = self.held.iter().filter(|held| matches!(held, Work::Request(_))).count();
        if matches!(work, Work::Request(_)) && requests >= HELD_REQUESTS_MAX {
            let reason = format!("{HELD_REQUESTS_MAX} requests wait for this saga already");
            refuse(work, EngineError::Overloaded { reason, retry_after: RETRY_AFTER });
            return;
        }
        self.held.push(work);
    }
}

/// Tells the clients of a piece of work what came of it.
pub(super) fn answer(work: Work, verdict: Verdict, saga: &Arc<Saga>, live: &super::published::Live) {
    let Work::Request(request) = work else { return };
    let accepted = |existed| super::mail::Accepted { saga: Arc::clone(saga), existed, live: live.clone() };
    let told = match verdict {
        Verdict::Done => Ok(accepted(false)),
        Verdict::Existed => Ok(accepted(true)),
        Verdict::Refused(refusal) => Err(refusal),
    };
    let _gone = request.answer.send(told);
}

//! One participant: its registrations, who is called next, and the calls that wait for their turn.
//!
//! ```text
//! call ─► pick a lane with room ─────────────► Grant ─► (given back) ─► hand over to the first
//!            └─ none has room: wait in line ◄─────────────────────────  in line that fits
//! ```
//! A grant passes straight from the call that gives it back to the first one waiting, so nobody
//! overtakes. An endpoint that fails gets no call ([`Breaker`]); when no other is left, those in line
//! are turned back, and whoever would call is parked. Nothing here waits or locks: the registry does.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::oneshot;

use super::Backlog;
use super::breaker::{Breaker, Era, Standing, Turn};
use super::client::Client;
use super::handlers::{Endpoint, Handlers, Protocol, Target};
use super::pause::Pause;
use super::recent::Minute;
use crate::saga::ids::{ActionName, Timestamp};
use crate::saga::input::Obstacle;

/// With this many calls in line the participant counts as unreachable, so that further ones are
/// parked, until the line is half as long.
pub const WAITING_PARK: usize = 8_192;
/// Most calls in line for one participant.
pub const WAITING_MAX: usize = 65_536;
/// A line of this length is a backlog once its first call has waited for longer than [`LINE_SLOW`].
pub const LINE_LONG: usize = 1_000;
/// See [`LINE_LONG`]. A line that moves faster is a burst, whatever its length.
pub const LINE_SLOW: Duration = Duration::from_secs(1);
/// A call that was decided and has not asked for its turn after this long is not coming any more: its
/// commit failed.
const COMING_MAX: Duration = Duration::from_secs(5);

/// The connections to an endpoint, made at its first call. Lanes that lead to the same endpoint in the
/// same way share them, whoever's they are: the more calls share a connection, the fewer writes and reads there are.
pub(super) type SharedClient = Arc<OnceLock<Client>>;

/// What the end of a call says about the endpoint that was called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It answered.
    Answered,
    /// No definite answer, and why.
    Unknown(String),
}

/// A breaker that opened or closed, as it is told once for all the calls that it concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Turned {
    pub(super) endpoint: Endpoint,
    pub(super) turn: Turn,
    /// Why the last call had no definite answer.
    pub(super) cause: String,
    /// Calls that were in line and turned back.
    pub(super) sent_back: usize,
}

/// One registration at run time.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) id: Arc<str>,
    pub(super) handlers: Handlers,
    /// `None`: it comes from the configuration and never runs out, or ends with a worker's stream.
    pub(super) expires_at: Option<Timestamp>,
    pub(super) client: SharedClient,
    pub(super) breaker: Breaker,
    pub(super) minute: Minute,
    pub(super) in_flight: u32,
    pub(super) calls: u64,
    pub(super) unknown_outcomes: u64,
    pub(super) last_error: String,
    /// When it was last picked, counted in picks.
    picked: u64,
}

impl Lane {
    pub(super) fn is_configured(&self) -> bool {
        self.expires_at.is_none() && !self.is_worker()
    }

    pub(super) fn is_worker(&self) -> bool {
        self.handlers.protocol == Protocol::Worker
    }

    pub(super) fn is_live(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|expires_at| now < expires_at)
    }

    /// How many further calls it takes now.
    fn room(&self, now: Timestamp) -> u32 {
        self.handlers.max_in_flight.saturating_sub(self.in_flight).min(self.breaker.room(now))
    }

    fn offers(&self, action: &ActionName) -> bool {
        self.handlers.actions.contains_key(action)
    }

    fn judge(&mut self, era: Era, saga: u64, verdict: Verdict, now: Timestamp) -> Option<Turn> {
        let is_answered = verdict == Verdict::Answered;
        self.minute.count(!is_answered, now);
        if let Verdict::Unknown(cause) = verdict {
            self.unknown_outcomes += 1;
            self.last_error = cause;
        }
        self.breaker.judge(era, saga, is_answered, self.handlers.max_in_flight, now)
    }
}

/// The right to make one call to one endpoint; must be given back.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) endpoint: Endpoint,
    pub(super) protocol: Protocol,
    pub(super) target: Arc<Target>,
    pub(super) client: SharedClient,
    era: Era,
}

/// What a call gets that asks for a grant.
#[derive(Debug)]
pub(super) enum Asked {
    /// It may be made now.
    Granted(Grant),
    /// It is in line. Whoever drops this must give back what is in it.
    InLine(oneshot::Receiver<Result<Grant, NoGrant>>),
}

/// A call in line.
#[derive(Debug)]
struct Waiter {
    action: ActionName,
    since: Timestamp,
    turn: oneshot::Sender<Result<Grant, NoGrant>>,
}

/// One participant.
#[derive(Debug)]
pub(super) struct Roster {
    pub(super) lanes: Vec<Lane>,
    /// Calls still in flight to endpoints whose registration has ended.
    pub(super) draining: BTreeMap<Endpoint, u32>,
    /// An operator lets nobody call it.
    pub(super) pause: Option<Pause>,
    /// Calls that were decided while few were let through and have not asked for their turn yet, and
    /// when the last of them was.
    coming: (usize, Timestamp),
    waiting: VecDeque<Waiter>,
    /// The line was too long and is not yet short again.
    parking: bool,
    /// How many participants have a long line, and whether this one is counted.
    long_lines: Arc<AtomicUsize>,
    is_long: bool,
    /// How many participants hold calls back, and whether this one is counted.
    holding_back: Arc<AtomicUsize>,
    is_holding_back: bool,
    picks: u64,
    /// Since when there is no lane.
    pub(super) empty_since: Option<Timestamp>,
}

/// Why no grant can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoGrant {
    /// There is no live registration.
    Absent,
    /// No live registration offers the action.
    NoAction,
    /// Too many calls are in line.
    Crowded,
    /// Its endpoints failed the latest calls.
    Failing,
    /// An operator has paused it.
    Paused,
}

impl Roster {
    /// A participant without registrations. While its line is long it counts among `long_lines`, while
    /// not all its endpoints are open to calls among `holding_back`.
    pub(super) fn new(long_lines: &Arc<AtomicUsize>, holding_back: &Arc<AtomicUsize>) -> Self {
        Self {
            lanes: Vec::new(),
            draining: BTreeMap::new(),
            pause: None,
            coming: (0, Timestamp(0)),
            waiting: VecDeque::new(),
            parking: false,
            long_lines: Arc::clone(long_lines),
            is_long: false,
            holding_back: Arc::clone(holding_back),
            is_holding_back: false,
            picks: 0,
            empty_since: None,
        }
    }

    pub(super) fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    pub(super) fn lane_mut(&mut self, id: &str) -> Option<&mut Lane> {
        self.lanes.iter_mut().find(|lane| &*lane.id == id)
    }

    /// Whether an endpoint is in use, be it by calls whose registration has ended.
    pub(super) fn knows(&self, endpoint: &Endpoint) -> bool {
        self.lanes.iter().any(|lane| lane.handlers.endpoint == *endpoint) || self.is_draining(endpoint)
    }

    /// Whether calls are in flight to an endpoint whose registration has ended.
    pub(super) fn is_draining(&self, endpoint: &Endpoint) -> bool {
        self.draining.contains_key(endpoint)
    }

    pub(super) fn is_live(&self, now: Timestamp) -> bool {
        self.lanes.iter().any(|lane| lane.is_live(now))
    }

    /// How many calls of the action may be decided now; more than any limit while nothing is held back.
    pub(super) fn places(&self, action: &ActionName, now: Timestamp) -> usize {
        if self.pause.is_some() || self.parking {
            return 0;
        }
        let mut places = 0;
        for lane in self.lanes.iter().filter(|lane| lane.is_live(now) && lane.offers(action)) {
            if lane.breaker.is_closed() {
                return usize::MAX;
            }
            places += lane.room(now) as usize;
        }
        let (coming, last) = self.coming;
        let coming = if now.since(last) > COMING_MAX { 0 } else { coming };
        places.saturating_sub(self.waiting.len() + coming)
    }

    /// A call was decided that will ask for its turn behind its commit.
    pub(super) fn expect(&mut self, now: Timestamp) {
        let (coming, last) = self.coming;
        let coming = if now.since(last) > COMING_MAX { 0 } else { coming };
        self.coming = (coming + 1, now);
    }

    /// Why calls of the action cannot be decided now.
    pub(super) fn obstacle(&self, action: &ActionName, now: Timestamp) -> Obstacle {
        if let Some(pause) = &self.pause {
            return Obstacle::Paused { by: pause.actor.clone(), reason: pause.reason.clone() };
        }
        if !self.offers(action, now) {
            return Obstacle::NoHandler;
        }
        if self.parking {
            return Obstacle::LongLine;
        }
        let lanes = self.lanes.iter().filter(|lane| lane.is_live(now) && lane.offers(action));
        let trials = lanes.map(|lane| match lane.breaker.standing(now) {
            Standing::Open { next_trial } => next_trial,
            Standing::Closed | Standing::HalfOpen => now,
        });
        Obstacle::Failing { next_trial: trials.min().filter(|at| *at > now) }
    }

    /// Whether nothing would be lost by forgetting it.
    pub(super) fn is_idle(&self) -> bool {
        self.lanes.is_empty() && self.draining.is_empty() && self.waiting.is_empty() && self.pause.is_none()
    }

    /// Adds a registration, or replaces the one with the same endpoint.
    pub(super) fn put(
        &mut self,
        id: Arc<str>,
        handlers: Handlers,
        expires_at: Option<Timestamp>,
        client: SharedClient,
        now: Timestamp,
    ) {
        self.empty_since = None;
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.handlers.endpoint == handlers.endpoint) {
            lane.id = id;
            lane.client = client;
            lane.handlers = handlers;
            lane.expires_at = expires_at;
            // Whoever registers is alive: what its predecessor there did is no reason to wait, only to
            // begin with one call.
            lane.breaker.try_now(now);
            return;
        }
        // An era of this endpoint's earlier breaker, if it had one, was a number of picks too.
        let breaker = Breaker::new(self.picks, now);
        self.picks += 1;
        self.lanes.push(Lane {
            id,
            expires_at,
            client,
            in_flight: self.draining.remove(&handlers.endpoint).unwrap_or(0),
            calls: 0,
            unknown_outcomes: 0,
            last_error: String::new(),
            breaker,
            minute: Minute::default(),
            picked: 0,
            handlers,
        });
    }

    /// Removes the registrations that `ends` says so of; their ids.
    pub(super) fn remove(&mut self, now: Timestamp, ends: impl Fn(&Lane) -> bool) -> Vec<Arc<str>> {
        let mut ended = Vec::new();
        let draining = &mut self.draining;
        self.lanes.retain(|lane| {
            let ends = ends(lane);
            if ends {
                ended.push(Arc::clone(&lane.id));
                if lane.in_flight > 0 {
                    draining.insert(lane.handlers.endpoint.clone(), lane.in_flight);
                }
            }
            !ends
        });
        if self.lanes.is_empty() && self.empty_since.is_none() {
            self.empty_since = Some(now);
        }
        self.gate_changed();
        ended
    }

    /// A grant at once, or a place in line.
    pub(super) fn ask(&mut self, action: &ActionName, now: Timestamp) -> Result<Asked, NoGrant> {
        self.coming.0 = self.coming.0.saturating_sub(1);
        if self.pause.is_some() {
            return Err(NoGrant::Paused);
        }
        if !self.is_live(now) {
            return Err(NoGrant::Absent);
        }
        if !self.offers(action, now) {
            return Err(NoGrant::NoAction);
        }
        // A lane with room while others wait means that those wait for another action.
        if let Some(ix) = self.pick(action, now) {
            return Ok(Asked::Granted(self.grant(ix, action, now)));
        }
        if !self.lets_through(action, now) {
            return Err(NoGrant::Failing);
        }
        if self.waiting.len() >= WAITING_PARK {
            self.waiting.retain(|waiter| !waiter.turn.is_closed());
        }
        if self.waiting.len() >= WAITING_MAX {
            return Err(NoGrant::Crowded);
        }
        let (turn, in_line) = oneshot::channel();
        self.waiting.push_back(Waiter { action: action.clone(), since: now, turn });
        self.parking |= self.waiting.len() >= WAITING_PARK;
        self.line_changed();
        Ok(Asked::InLine(in_line))
    }

    /// A call ended; `verdict` is `None` for one that was abandoned, else what its end says and of which
    /// saga. Those in line are turned back when nobody is left to call.
    pub(super) fn give_back(
        &mut self,
        grant: &Grant,
        verdict: Option<(u64, Verdict)>,
        now: Timestamp,
    ) -> Option<Turned> {
        let endpoint = &grant.endpoint;
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.handlers.endpoint == *endpoint) else {
            if let Some(left) = self.draining.get_mut(endpoint) {
                *left -= 1;
                if *left == 0 {
                    self.draining.remove(endpoint);
                }
            }
            return None;
        };
        lane.in_flight = lane.in_flight.saturating_sub(1);
        let Some((saga, verdict)) = verdict else {
            lane.breaker.give_back(grant.era);
            return None;
        };
        let turn = lane.judge(grant.era, saga, verdict, now)?;
        let (endpoint, cause) = (endpoint.clone(), lane.last_error.clone());
        Some(self.turned(endpoint, turn, cause, now))
    }

    /// What time alone changes in its breakers.
    pub(super) fn pass_time(&mut self, now: Timestamp) -> Vec<Turned> {
        let turns = self.lanes.iter_mut().filter_map(|lane| {
            let turn = lane.breaker.pass_time(now)?;
            Some((lane.handlers.endpoint.clone(), turn, lane.last_error.clone()))
        });
        let turns: Vec<_> = turns.collect();
        turns.into_iter().map(|(endpoint, turn, cause)| self.turned(endpoint, turn, cause, now)).collect()
    }

    fn turned(&mut self, endpoint: Endpoint, turn: Turn, cause: String, now: Timestamp) -> Turned {
        let sent_back = match turn {
            Turn::Closed => 0,
            Turn::Opened { .. } | Turn::StaysOpen { .. } => {
                self.coming = (0, now);
                self.turn_back(now)
            }
        };
        self.gate_changed();
        Turned { endpoint, turn, cause, sent_back }
    }

    /// When time alone changes one of its breakers next.
    pub(super) fn next_turn(&self) -> Option<Timestamp> {
        self.lanes.iter().filter_map(|lane| lane.breaker.next_turn()).min()
    }

    /// Lets nobody call it any more, or ends that. Calls in flight finish, those in line are turned back.
    pub(super) fn set_pause(&mut self, pause: Option<Pause>, now: Timestamp) {
        self.pause = pause;
        self.turn_back(now);
        self.gate_changed();
    }

    /// Turns back those in line whom no endpoint lets through; how many. Their calls were never made.
    fn turn_back(&mut self, now: Timestamp) -> usize {
        let paused = self.pause.is_some();
        let (stay, go): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|waiter| !paused && self.lets_through(&waiter.action, now));
        self.waiting = stay;
        let why = if paused { NoGrant::Paused } else { NoGrant::Failing };
        let turned_back = go.into_iter().filter_map(|waiter| waiter.turn.send(Err(why)).ok()).count();
        self.line_changed();
        turned_back
    }

    /// Whether some endpoint for the action is not open, so that a place in line leads somewhere.
    fn lets_through(&self, action: &ActionName, now: Timestamp) -> bool {
        let is_open = |lane: &Lane| matches!(lane.breaker.standing(now), Standing::Open { .. });
        self.lanes.iter().any(|lane| lane.is_live(now) && lane.offers(action) && !is_open(lane))
    }

    /// Whether further calls are let through that were not, while not all are.
    pub(super) fn has_trials(&self, now: Timestamp) -> bool {
        self.pause.is_none()
            && self
                .lanes
                .iter()
                .any(|lane| !lane.breaker.is_closed() && lane.is_live(now) && lane.room(now) > 0)
    }

    fn gate_changed(&mut self) {
        let is_holding = self.pause.is_some() || self.lanes.iter().any(|lane| !lane.breaker.is_closed());
        match (self.is_holding_back, is_holding) {
            (false, true) => _ = self.holding_back.fetch_add(1, Ordering::Relaxed),
            (true, false) => _ = self.holding_back.fetch_sub(1, Ordering::Relaxed),
            (true, true) | (false, false) => {}
        }
        self.is_holding_back = is_holding;
    }

    /// Gives what is free to those in line, first come first served; true when the line has become
    /// short enough for the participant to count as reachable again.
    pub(super) fn hand_over(&mut self, now: Timestamp) -> bool {
        let mut at = 0;
        while at < self.waiting.len() && self.lanes.iter().any(|lane| lane.room(now) > 0 && lane.is_live(now))
        {
            if self.waiting[at].turn.is_closed() {
                self.waiting.remove(at);
                continue;
            }
            let Some(ix) = self.pick(&self.waiting[at].action, now) else {
                at += 1;
                continue;
            };
            let waiter = self.waiting.remove(at).expect("the place in line was just looked at");
            let grant = self.grant(ix, &waiter.action, now);
            if let Err(Ok(grant)) = waiter.turn.send(Ok(grant)) {
                self.lanes[ix].in_flight -= 1;
                self.lanes[ix].calls -= 1;
                self.lanes[ix].breaker.give_back(grant.era);
            }
        }
        self.line_changed();
        let short_again = self.parking && self.waiting.len() < WAITING_PARK / 2;
        self.parking &= !short_again;
        short_again
    }

    /// Turns away those in line for what no live registration offers any more.
    pub(super) fn turn_away(&mut self, now: Timestamp) {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain(|waiter| self.offers(&waiter.action, now));
        self.waiting = waiting;
        self.line_changed();
    }

    /// What it is behind with, if its line is long and slow. Nobody is in line for a participant that
    /// is not there.
    pub(super) fn backlog(&mut self, now: Timestamp) -> Option<Backlog> {
        // Those that were abandoned wait no more.
        while self.waiting.front().is_some_and(|first| first.turn.is_closed()) {
            self.waiting.pop_front();
        }
        self.line_changed();
        let calls_waiting = self.waiting.len();
        let first_waits = now.since(self.waiting.front()?.since);
        (self.is_long && first_waits > LINE_SLOW).then_some(Backlog { calls_waiting, first_waits })
    }

    fn line_changed(&mut self) {
        let is_long = self.waiting.len() >= LINE_LONG;
        match (self.is_long, is_long) {
            (false, true) => _ = self.long_lines.fetch_add(1, Ordering::Relaxed),
            (true, false) => _ = self.long_lines.fetch_sub(1, Ordering::Relaxed),
            (true, true) | (false, false) => {}
        }
        self.is_long = is_long;
    }

    pub(super) fn offers(&self, action: &ActionName, now: Timestamp) -> bool {
        self.lanes.iter().any(|lane| lane.is_live(now) && lane.offers(action))
    }

    /// The lane with the most room, one that is tried before all others; of equal ones the one not used
    /// longest.
    fn pick(&self, action: &ActionName, now: Timestamp) -> Option<usize> {
        let fits = |lane: &Lane| lane.is_live(now) && lane.offers(action) && lane.room(now) > 0;
        let rank = |lane: &Lane| (lane.breaker.is_closed(), Reverse(lane.room(now)), lane.picked);
        let fitting = self.lanes.iter().enumerate().filter(|(_, lane)| fits(lane));
        fitting.min_by_key(|(_, lane)| rank(lane)).map(|(ix, _)| ix)
    }

    /// The right to call `action` through a lane that offers it.
    fn grant(&mut self, ix: usize, action: &ActionName, now: Timestamp) -> Grant {
        self.picks += 1;
        let lane = &mut self.lanes[ix];
        lane.in_flight += 1;
        lane.calls += 1;
        lane.picked = self.picks;
        Grant {
            endpoint: lane.handlers.endpoint.clone(),
            protocol: lane.handlers.protocol,
            target: Arc::clone(&lane.handlers.actions[action]),
            client: Arc::clone(&lane.client),
            era: lane.breaker.take(now),
        }
    }
}

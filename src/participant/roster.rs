//! One participant: its registrations, who is called next, and the calls that wait for their turn.
//!
//! ```text
//! call ─► pick a lane with room ─────────────► Grant ─► (given back) ─► hand over to the first
//!            └─ none has room: wait in line ◄─────────────────────────  in line that fits
//! ```
//! A grant passes straight from the call that gives it back to the first one waiting, so nobody
//! overtakes. Nothing here waits or locks: the registry does.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::oneshot;

use super::Backlog;
use super::client::Client;
use super::handlers::{Endpoint, Handlers, Protocol, Target};
use super::listing::{Health, ParticipantView, RegistrationView};
use crate::saga::ids::{ActionName, ParticipantName, Timestamp};

/// With this many calls in line the participant counts as unreachable, so that further ones are
/// parked, until the line is half as long.
pub const WAITING_PARK: usize = 8_192;
/// Most calls in line for one participant.
pub const WAITING_MAX: usize = 65_536;
/// A line of this length is a backlog once its first call has waited for longer than [`LINE_SLOW`].
pub const LINE_LONG: usize = 1_000;
/// See [`LINE_LONG`]. A line that moves faster is a burst, whatever its length.
pub const LINE_SLOW: Duration = Duration::from_secs(1);
/// After so many unknown outcomes in a row a registration is called only when no other has room,
/// but for a trial now and then.
const FAILING_AFTER: u32 = 3;
/// The time between two trials of a failing registration.
const TRIAL_INTERVAL: Duration = Duration::from_secs(5);

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

/// One registration at run time.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) id: Arc<str>,
    pub(super) handlers: Handlers,
    /// `None`: it comes from the configuration and never runs out, or ends with a worker's stream.
    pub(super) expires_at: Option<Timestamp>,
    pub(super) client: SharedClient,
    in_flight: u32,
    calls: u64,
    unknown_outcomes: u64,
    last_error: String,
    unknown_in_a_row: u32,
    next_trial: Timestamp,
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

    fn has_room(&self) -> bool {
        self.in_flight < self.handlers.max_in_flight
    }

    fn offers(&self, action: &ActionName) -> bool {
        self.handlers.actions.contains_key(action)
    }

    fn is_failing(&self) -> bool {
        self.unknown_in_a_row >= FAILING_AFTER
    }

    /// Failing, and no trial is due.
    fn is_resting(&self, now: Timestamp) -> bool {
        self.is_failing() && (now < self.next_trial || self.in_flight > 0)
    }

    fn judge(&mut self, verdict: Verdict, now: Timestamp) {
        match verdict {
            Verdict::Answered => self.unknown_in_a_row = 0,
            Verdict::Unknown(cause) => {
                self.unknown_outcomes += 1;
                self.unknown_in_a_row = self.unknown_in_a_row.saturating_add(1);
                self.next_trial = now + TRIAL_INTERVAL;
                self.last_error = cause;
            }
        }
    }
}

/// The right to make one call to one endpoint; must be given back.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) endpoint: Endpoint,
    pub(super) protocol: Protocol,
    pub(super) target: Arc<Target>,
    pub(super) client: SharedClient,
}

/// What a call gets that asks for a grant.
#[derive(Debug)]
pub(super) enum Asked {
    /// It may be made now.
    Granted(Grant),
    /// It is in line. Whoever drops this must give back what is in it.
    InLine(oneshot::Receiver<Grant>),
}

/// A call in line.
#[derive(Debug)]
struct Waiter {
    action: ActionName,
    since: Timestamp,
    turn: oneshot::Sender<Grant>,
}

/// One participant.
#[derive(Debug)]
pub(super) struct Roster {
    lanes: Vec<Lane>,
    /// Calls still in flight to endpoints whose registration has ended.
    draining: BTreeMap<Endpoint, u32>,
    waiting: VecDeque<Waiter>,
    /// The line was too long and is not yet short again.
    parking: bool,
    /// How many participants have a long line, and whether this one is counted.
    long_lines: Arc<AtomicUsize>,
    is_long: bool,
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
}

impl Roster {
    /// A participant without registrations. While its line is long it counts among `long_lines`.
    pub(super) fn new(long_lines: &Arc<AtomicUsize>) -> Self {
        Self {
            lanes: Vec::new(),
            draining: BTreeMap::new(),
            waiting: VecDeque::new(),
            parking: false,
            long_lines: Arc::clone(long_lines),
            is_long: false,
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

    /// Whether calls of the action can be sent to it.
    pub(super) fn can_call(&self, action: &ActionName, now: Timestamp) -> bool {
        !self.parking && self.offers(action, now)
    }

    /// Whether nothing would be lost by forgetting it.
    pub(super) fn is_idle(&self) -> bool {
        self.lanes.is_empty() && self.draining.is_empty() && self.waiting.is_empty()
    }

    /// Adds a registration, or replaces the one with the same endpoint.
    pub(super) fn put(
        &mut self,
        id: Arc<str>,
        handlers: Handlers,
        expires_at: Option<Timestamp>,
        client: SharedClient,
    ) {
        self.empty_since = None;
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.handlers.endpoint == handlers.endpoint) {
            lane.id = id;
            lane.client = client;
            lane.handlers = handlers;
            lane.expires_at = expires_at;
            // Whoever registers is alive: what its predecessor there did is no reason to wait.
            lane.unknown_in_a_row = 0;
            return;
        }
        self.lanes.push(Lane {
            id,
            expires_at,
            client,
            in_flight: self.draining.remove(&handlers.endpoint).unwrap_or(0),
            calls: 0,
            unknown_outcomes: 0,
            last_error: String::new(),
            unknown_in_a_row: 0,
            next_trial: Timestamp(0),
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
        ended
    }

    /// A grant at once, or a place in line.
    pub(super) fn ask(&mut self, action: &ActionName, now: Timestamp) -> Result<Asked, NoGrant> {
        if !self.is_live(now) {
            return Err(NoGrant::Absent);
        }
        if !self.offers(action, now) {
            return Err(NoGrant::NoAction);
        }
        // A lane with room while others wait means that those wait for another action.
        if let Some(ix) = self.pick(action, now) {
            return Ok(Asked::Granted(self.grant(ix, action)));
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

    /// A call to `endpoint` ended; `verdict` is `None` for one that was abandoned.
    pub(super) fn give_back(&mut self, endpoint: &Endpoint, verdict: Option<Verdict>, now: Timestamp) {
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.handlers.endpoint == *endpoint) {
            lane.in_flight = lane.in_flight.saturating_sub(1);
            if let Some(verdict) = verdict {
                lane.judge(verdict, now);
            }
        } else if let Some(left) = self.draining.get_mut(endpoint) {
            *left -= 1;
            if *left == 0 {
                self.draining.remove(endpoint);
            }
        }
    }

    /// Gives what is free to those in line, first come first served; true when the line has become
    /// short enough for the participant to count as reachable again.
    pub(super) fn hand_over(&mut self, now: Timestamp) -> bool {
        let mut at = 0;
        while at < self.waiting.len() && self.lanes.iter().any(|lane| lane.has_room() && lane.is_live(now)) {
            if self.waiting[at].turn.is_closed() {
                self.waiting.remove(at);
                continue;
            }
            let Some(ix) = self.pick(&self.waiting[at].action, now) else {
                at += 1;
                continue;
            };
            let waiter = self.waiting.remove(at).expect("the place in line was just looked at");
            let grant = self.grant(ix, &waiter.action);
            if waiter.turn.send(grant).is_err() {
                self.lanes[ix].in_flight -= 1;
                self.lanes[ix].calls -= 1;
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

    /// The participant as operators see it.
    pub(super) fn view(&self, name: &ParticipantName, now: Timestamp) -> ParticipantView {
        let live: Vec<&Lane> = self.lanes.iter().filter(|lane| lane.is_live(now)).collect();
        let mut actions = BTreeMap::new();
        for lane in &live {
            actions.extend(lane.handlers.actions.clone());
        }
        let health = if live.is_empty() {
            Health::Absent
        } else if live.iter().all(|lane| lane.is_failing()) {
            Health::Down
        } else if live.iter().any(|lane| lane.unknown_in_a_row > 0) {
            Health::Degraded
        } else {
            Health::Healthy
        };
        let mut registrations: Vec<RegistrationView> = live.iter().map(|lane| registration(lane)).collect();
        registrations.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
        let in_lanes: u32 = self.lanes.iter().map(|lane| lane.in_flight).sum();
        ParticipantView {
            name: name.clone(),
            protocol: self.lanes.first().map(|lane| lane.handlers.protocol),
            health,
            in_flight: in_lanes + self.draining.values().sum::<u32>(),
            actions,
            registrations,
        }
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

    fn offers(&self, action: &ActionName, now: Timestamp) -> bool {
        self.lanes.iter().any(|lane| lane.is_live(now) && lane.offers(action))
    }

    /// The lane with the most room, those that fail last; of equal ones the one not used longest.
    fn pick(&self, action: &ActionName, now: Timestamp) -> Option<usize> {
        let fits = |lane: &Lane| lane.is_live(now) && lane.has_room() && lane.offers(action);
        let rank = |lane: &Lane| {
            let room = lane.handlers.max_in_flight - lane.in_flight;
            (lane.is_resting(now), Reverse(room), lane.picked)
        };
        let fitting = self.lanes.iter().enumerate().filter(|(_, lane)| fits(lane));
        fitting.min_by_key(|(_, lane)| rank(lane)).map(|(ix, _)| ix)
    }

    /// The right to call `action` through a lane that offers it.
    fn grant(&mut self, ix: usize, action: &ActionName) -> Grant {
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
        }
    }
}

fn registration(lane: &Lane) -> RegistrationView {
    RegistrationView {
        registration_id: lane.id.to_string(),
        endpoint: lane.handlers.endpoint.clone(),
        max_in_flight: lane.handlers.max_in_flight,
        in_flight: lane.in_flight,
        expires_at: lane.expires_at,
        from_config: lane.is_configured(),
        last_error: lane.last_error.clone(),
        calls: lane.calls,
        unknown_outcomes: lane.unknown_outcomes,
    }
}

//! Who takes part in sagas, where, and until when.
//!
//! Registrations are durable, and the store is the caller's: each change is made in two steps, so
//! that the caller can store it before it takes effect.
//!
//! ```text
//! prepare(handlers) ─► store Prepared::to_store() ─► Prepared::activate() ─► answer
//! prepare_end(id) ─► delete the row            ─► Ending::finish()     ─► answer
//! take_expired()  ─► delete the rows (they have lost their effect already)
//! at the start:  configure(handlers), then restore(rows)
//! ```
//! One change is under way at a time; dropping a prepared one changes nothing.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::{OwnedMutexGuard, oneshot, watch};

use super::client::{Client, Route};
use super::handlers::Handlers;
use super::listing::ParticipantView;
use super::roster::{Asked, Grant, Lane, NoGrant, Roster, SharedClient, Verdict};
use super::turns::tell;
use super::{Backlog, stored};
use crate::clock::SharedClock;
use crate::saga::ids::{ActionName, ParticipantName, Timestamp};
use crate::tasks::Tasks;

/// Most participants known at a time.
pub const PARTICIPANTS_MAX: usize = 1_024;
/// Most registrations of one participant.
pub const REGISTRATIONS_MAX: usize = 64;
/// How long a participant without registrations stays in the list.
pub const ABSENT_KEPT: Duration = Duration::from_hours(1);

/// Why the registry says no. None of these is cured by repeating the same request.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RegistryError {
    /// It contradicts what is registered already, or the configuration.
    #[error("{0}")]
    Precondition(String),
    /// There is no such registration, or it ran out: register again.
    #[error("registration {id:?} is not known or has run out; register again")]
    NotFound { id: String },
    /// A limit is reached; it helps to end registrations that are not needed.
    #[error("register: {0}")]
    Full(String),
    /// A stored registration does not read back.
    #[error("restore: registration {id:?} is damaged ({cause}); its participant has to register again")]
    Damaged { id: String, cause: String },
}

/// A registration that is in effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// To renew and end it by.
    pub registration_id: String,
    /// When it runs out unless renewed. One that the configuration holds never does; its service
    /// may renew it all the same.
    pub expires_at: Timestamp,
}

/// A registration as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToStore {
    /// Its identity: the row's key.
    pub registration_id: String,
    /// The row's content.
    pub body: Vec<u8>,
}

/// Knows all participants. Clones share the same knowledge.
#[derive(Clone)]
pub struct Registry {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) clock: SharedClock,
    pub(super) state: Mutex<State>,
    /// Participants with a long line, so that nobody has to look for them while there are none.
    pub(super) long_lines: Arc<AtomicUsize>,
    /// Participants that do not let every call through, for the same reason.
    pub(super) holding_back: Arc<AtomicUsize>,
    changes: watch::Sender<u64>,
    /// Held while a change is being stored.
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) rosters: BTreeMap<ParticipantName, Roster>,
    by_id: HashMap<Arc<str>, ParticipantName>,
}

/// Where handlers would go.
enum Place {
    /// A registration of its own, under this id.
    Own(Arc<str>),
    /// The configuration says the same already.
    Configured(Arc<str>),
}

impl Place {
    fn id(&self) -> &str {
        match self {
            Place::Own(id) | Place::Configured(id) => id,
        }
    }
}

impl Registry {
    /// A registry that knows nobody.
    #[must_use]
    pub fn new(clock: SharedClock) -> Self {
        let (changes, _) = watch::channel(0);
        let (state, long_lines, holding_back) = (Mutex::default(), Arc::default(), Arc::default());
        let turn = Arc::default();
        Self { shared: Arc::new(Shared { clock, state, long_lines, holding_back, changes, turn }) }
    }

    /// Takes an entry of the configuration. It never runs out and cannot be ended.
    ///
    /// # Errors
    /// The entry contradicts another one, or a limit is reached.
    pub fn configure(&self, handlers: Handlers) -> Result<(), RegistryError> {
        let id = format!("config:{}:{}", handlers.participant, handlers.endpoint);
        let now = self.shared.clock.now();
        if let Place::Configured(_) = self.shared.state.lock().admit(&handlers, now)? {
            let Handlers { participant, endpoint, .. } = handlers;
            return Err(RegistryError::Precondition(format!(
                "{participant} at {endpoint} stands there twice"
            )));
        }
        self.shared.put(id.into(), handlers, None, None);
        Ok(())
    }

    /// Takes a stored registration back at the start, with its full time from now.
    ///
    /// # Errors
    /// It does not read back, or contradicts the configuration: its row can be deleted.
    pub fn restore(&self, registration_id: &str, body: &[u8]) -> Result<(), RegistryError> {
        let damaged = |cause| RegistryError::Damaged { id: registration_id.to_owned(), cause };
        let handlers = stored::decode(body).map_err(damaged)?;
        let now = self.shared.clock.now();
        if let Place::Configured(id) = self.shared.state.lock().admit(&handlers, now)? {
            return Err(RegistryError::Precondition(format!("the configuration holds the same as {id}")));
        }
        let expires_at = now + handlers.ttl;
        self.shared.put(registration_id.into(), handlers, Some(expires_at), None);
        Ok(())
    }

    /// Reserves a place for the handlers. Nothing is changed until [`Prepared::activate`].
    ///
    /// # Errors
    /// They contradict what is registered, or a limit is reached.
    pub async fn prepare(&self, handlers: Handlers) -> Result<Prepared, RegistryError> {
        let turn = Arc::clone(&self.shared.turn).lock_owned().await;
        let now = self.shared.clock.now();
        let place = self.shared.state.lock().admit(&handlers, now)?;
        Ok(Prepared { registry: self.clone(), handlers, place, _turn: turn })
    }

    /// Gives a registration its full time from now; when it runs out after that. Nothing has to be
    /// stored: what is in the store had not run out.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`].
    pub fn renew(&self, registration_id: &str) -> Result<Option<Timestamp>, RegistryError> {
        let now = self.shared.clock.now();
        let mut state = self.shared.state.lock();
        let lane = state.live_lane(registration_id, now)?;
        if let Some(expires_at) = &mut lane.expires_at {
            *expires_at = now + lane.handlers.ttl;
        }
        Ok(lane.expires_at)
    }

    /// Prepares the end of a registration; it has its effect until [`Ending::finish`].
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], or [`RegistryError::Precondition`] for the configuration's own.
    pub async fn prepare_end(&self, registration_id: &str) -> Result<Ending, RegistryError> {
        let turn = Arc::clone(&self.shared.turn).lock_owned().await;
        let now = self.shared.clock.now();
        let mut state = self.shared.state.lock();
        let lane = state.live_lane(registration_id, now)?;
        if lane.is_configured() {
            return Err(RegistryError::Precondition(format!(
                "registration {registration_id:?} stands in the configuration file; take it out there"
            )));
        }
        if lane.is_worker() {
            return Err(RegistryError::Precondition(format!(
                "registration {registration_id:?} is a worker's and ends with its stream; stop the worker"
            )));
        }
        let id = Arc::clone(&lane.id);
        drop(state);
        Ok(Ending { registry: self.clone(), id, _turn: turn })
    }

    /// Drops what ran out. No call goes to those since they did; the rows of the ids are to be
    /// deleted while the answer is held. A row that stays comes back at the next start, and runs
    /// out again.
    pub async fn take_expired(&self) -> Expired {
        let turn = Arc::clone(&self.shared.turn).lock_owned().await;
        let now = self.shared.clock.now();
        let mut registration_ids = Vec::new();
        let mut state = self.shared.state.lock();
        let State { rosters, by_id } = &mut *state;
        for roster in rosters.values_mut() {
            for id in roster.remove(now, |lane| !lane.is_live(now)) {
                by_id.remove(&id);
                registration_ids.push(id.to_string());
            }
            roster.turn_away(now);
        }
        rosters.retain(|_, roster| !is_forgotten(roster, now));
        drop(state);
        Expired { registration_ids, _turn: turn }
    }

    /// When the next registration runs out, if none is renewed before.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Timestamp> {
        let state = self.shared.state.lock();
        state.rosters.values().flat_map(Roster::lanes).filter_map(|lane| lane.expires_at).min()
    }

    /// Changes its value whenever some participant may have become reachable that was not.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// All participants by name, or the one called `only`; also those that are absent.
    #[must_use]
    pub fn list(&self, only: Option<&str>) -> Vec<ParticipantView> {
        let now = self.shared.clock.now();
        let state = self.shared.state.lock();
        let wanted = |name: &ParticipantName| only.is_none_or(|only| name.as_str() == only);
        let listed = state.rosters.iter().filter(|(name, roster)| wanted(name) && !is_forgotten(roster, now));
        listed.map(|(name, roster)| ParticipantView::of(name, roster, now)).collect()
    }

    /// Whether calls of the action can be decided now: somebody offers it, answers, is not paused, and has
    /// a line that is not too long.
    #[must_use]
    pub fn can_call(&self, participant: &ParticipantName, action: &ActionName) -> bool {
        self.places(participant, action) > 0
    }

    /// The first of `participants` whose line is long and slow, if there is one.
    #[must_use]
    pub fn first_behind<'p>(
        &self,
        participants: &'p [ParticipantName],
    ) -> Option<(&'p ParticipantName, Backlog)> {
        if self.shared.long_lines.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let now = self.shared.clock.now();
        let rosters = &mut self.shared.state.lock().rosters;
        participants.iter().find_map(|name| Some((name, rosters.get_mut(name)?.backlog(now)?)))
    }

    /// Waits for the right to make one call. The waits end first come first served.
    pub(super) async fn slot(
        &self,
        participant: &ParticipantName,
        action: &ActionName,
    ) -> Result<Slot, NoGrant> {
        let asked = {
            let now = self.shared.clock.now();
            let mut state = self.shared.state.lock();
            let roster = state.rosters.get_mut(participant).ok_or(NoGrant::Absent)?;
            roster.ask(action, now)?
        };
        let (shared, participant) = (Arc::clone(&self.shared), participant.clone());
        let grant = match asked {
            Asked::Granted(grant) => grant,
            Asked::InLine(turn) => {
                let mut place = PlaceInLine { registry: self, participant: &participant, turn };
                // Nobody says anything when the last registration that offered it is gone.
                (&mut place.turn).await.unwrap_or_else(|_| Err(self.turned_away(&participant)))?
            }
        };
        Ok(Slot { shared, participant, grant, verdict: None })
    }

    fn turned_away(&self, participant: &ParticipantName) -> NoGrant {
        let now = self.shared.clock.now();
        let live =
            self.shared.state.lock().rosters.get(participant).is_some_and(|roster| roster.is_live(now));
        if live { NoGrant::NoAction } else { NoGrant::Absent }
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

fn is_forgotten(roster: &Roster, now: Timestamp) -> bool {
    roster.is_idle() && roster.empty_since.is_none_or(|since| now.since(since) > ABSENT_KEPT)
}

impl Shared {
    /// Puts a registration into effect; without a `client` it has its endpoint's.
    fn put(
        &self,
        id: Arc<str>,
        handlers: Handlers,
        expires_at: Option<Timestamp>,
        client: Option<SharedClient>,
    ) {
        let now = self.clock.now();
        let participant = handlers.participant.clone();
        let mut state = self.state.lock();
        state.by_id.insert(Arc::clone(&id), participant.clone());
        let client = client.unwrap_or_else(|| state.client_of(&handlers));
        if let Some(client) = client.get() {
            client.registered_again();
        }
        let roster = state.rosters.entry(participant);
        let roster = roster.or_insert_with(|| Roster::new(&self.long_lines, &self.holding_back));
        roster.put(id, handlers, expires_at, client, now);
        roster.turn_away(now);
        roster.hand_over(now);
        drop(state);
        self.changed();
    }

    /// No new call goes to a registration; those in flight finish.
    fn take_out(&self, id: &Arc<str>) {
        let now = self.clock.now();
        let mut state = self.state.lock();
        if let Some(participant) = state.by_id.remove(id)
            && let Some(roster) = state.rosters.get_mut(&participant)
        {
            roster.remove(now, |lane| lane.id == *id);
            roster.turn_away(now);
        }
    }

    fn give_back(&self, participant: &ParticipantName, grant: &Grant, verdict: Option<(u64, Verdict)>) {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let Some(roster) = state.rosters.get_mut(participant) else { return };
        let turned = roster.give_back(grant, verdict, now);
        if !roster.is_live(now) {
            roster.turn_away(now);
        }
        let reachable_again = roster.hand_over(now) | turned.is_some() | roster.has_trials(now);
        drop(state);
        if let Some(turned) = turned {
            tell(participant, &turned, now);
        }
        if reachable_again {
            self.changed();
        }
    }

    pub(super) fn changed(&self) {
        self.changes.send_modify(|change| *change += 1);
    }
}

impl State {
    /// The connections for `handlers`: those of any lane that leads there in the same way already, or
    /// new ones.
    fn client_of(&self, handlers: &Handlers) -> SharedClient {
        let mut lanes = self.rosters.values().flat_map(Roster::lanes);
        let same = |lane: &&Lane| {
            lane.handlers.endpoint == handlers.endpoint && lane.handlers.protocol == handlers.protocol
        };
        let known = lanes.find(same);
        known.map(|lane| Arc::clone(&lane.client)).unwrap_or_default()
    }

    fn live_lane(&mut self, id: &str, now: Timestamp) -> Result<&mut Lane, RegistryError> {
        let participant = self.by_id.get(id);
        let roster = participant.and_then(|participant| self.rosters.get_mut(participant));
        let lane = roster.and_then(|roster| roster.lane_mut(id)).filter(|lane| lane.is_live(now));
        lane.ok_or_else(|| RegistryError::NotFound { id: id.to_owned() })
    }

    /// Whether the handlers fit what is there, and where they would go.
    fn admit(&mut self, handlers: &Handlers, now: Timestamp) -> Result<Place, RegistryError> {
        let Some(roster) = self.rosters.get(&handlers.participant) else {
            if self.rosters.len() >= PARTICIPANTS_MAX {
                self.rosters.retain(|_, roster| !roster.is_idle());
            }
            if self.rosters.len() >= PARTICIPANTS_MAX {
                return Err(RegistryError::Full(format!(
                    "{PARTICIPANTS_MAX} participants are known already"
                )));
            }
            return Ok(Place::Own(new_id()));
        };
        let mut same = None;
        for lane in roster.lanes() {
            if lane.handlers.endpoint == handlers.endpoint {
                same = Some(lane);
            } else if lane.is_live(now) {
                must_agree(handlers, lane)?;
            }
        }
        match same {
            Some(lane) if lane.is_configured() => {
                must_agree(handlers, lane)?;
                if let Some(new) =
                    handlers.actions.keys().find(|name| !lane.handlers.actions.contains_key(name))
                {
                    return Err(RegistryError::Precondition(format!(
                        "the configuration file holds {} at {} without the action {new}; add it there",
                        handlers.participant, handlers.endpoint
                    )));
                }
                Ok(Place::Configured(Arc::clone(&lane.id)))
            }
            Some(lane) => Ok(Place::Own(Arc::clone(&lane.id))),
            None if roster.lanes().len() >= REGISTRATIONS_MAX => Err(RegistryError::Full(format!(
                "{} has {REGISTRATIONS_MAX} registrations already",
                handlers.participant
            ))),
            None => Ok(Place::Own(new_id())),
        }
    }
}

fn new_id() -> Arc<str> {
    uuid::Uuid::new_v4().to_string().into()
}

fn must_agree(handlers: &Handlers, lane: &Lane) -> Result<(), RegistryError> {
    let participant = &handlers.participant;
    if handlers.protocol != lane.handlers.protocol {
        return Err(RegistryError::Precondition(format!(
            "{participant} is registered with {} at {}; a participant has one protocol",
            lane.handlers.protocol.as_str(),
            lane.handlers.endpoint
        )));
    }
    if let Some(action) = handlers.differing_target(&lane.handlers) {
        return Err(RegistryError::Precondition(format!(
            "{participant}.{action} leads to another target at {}; an action has one target",
            lane.handlers.endpoint
        )));
    }
    Ok(())
}

/// A registration that is checked and not yet in effect. While it is held no other change is made.
#[must_use = "nothing is registered before it is activated"]
pub struct Prepared {
    registry: Registry,
    handlers: Handlers,
    place: Place,
    _turn: OwnedMutexGuard<()>,
}

impl Prepared {
    /// What to store durably before it is activated; `None` when there is nothing to store, because
    /// the configuration says the same.
    #[must_use]
    pub fn to_store(&self) -> Option<ToStore> {
        match &self.place {
            Place::Own(id) => {
                Some(ToStore { registration_id: id.to_string(), body: stored::encode(&self.handlers) })
            }
            Place::Configured(_) => None,
        }
    }

    /// Puts it into effect.
    #[must_use]
    pub fn activate(self) -> Registered {
        let Prepared { registry, handlers, place, _turn } = self;
        let expires_at = registry.shared.clock.now() + handlers.ttl;
        let registration_id = place.id().to_string();
        if let Place::Own(id) = place {
            registry.shared.put(id, handlers, Some(expires_at), None);
        }
        Registered { registration_id, expires_at }
    }
}

/// A registration about to end. While it is held no other change is made.
#[must_use = "nothing has ended before it is finished"]
pub struct Ending {
    registry: Registry,
    id: Arc<str>,
    _turn: OwnedMutexGuard<()>,
}

impl Ending {
    /// The row to delete durably before it is finished.
    #[must_use]
    pub fn registration_id(&self) -> &str {
        &self.id
    }

    /// No new call goes to it; those in flight finish.
    pub fn finish(self) {
        self.registry.shared.take_out(&self.id);
    }
}

/// Registrations that ran out. While it is held no other change is made.
pub struct Expired {
    /// The rows to delete.
    pub registration_ids: Vec<String>,
    _turn: OwnedMutexGuard<()>,
}

/// A call's place in line. A grant that arrives for a call that was abandoned goes back.
struct PlaceInLine<'a> {
    registry: &'a Registry,
    participant: &'a ParticipantName,
    turn: oneshot::Receiver<Result<Grant, NoGrant>>,
}

impl Drop for PlaceInLine<'_> {
    fn drop(&mut self) {
        self.turn.close();
        if let Ok(Ok(grant)) = self.turn.try_recv() {
            self.registry.shared.give_back(self.participant, &grant, None);
        }
    }
}

/// The right to make one call to one endpoint; given back when dropped.
pub(super) struct Slot {
    shared: Arc<Shared>,
    participant: ParticipantName,
    grant: Grant,
    verdict: Option<(u64, Verdict)>,
}

impl Slot {
    /// The connections; made at the first call.
    pub(super) fn client(&self, tasks: &Tasks) -> &Client {
        let Grant { endpoint, protocol, client, .. } = &self.grant;
        client.get_or_init(|| Client::new(*protocol, endpoint, tasks))
    }

    /// What to call there.
    pub(super) fn route(&self) -> &Route {
        &self.grant.target.route
    }

    /// Gives it back with what the call, by the saga of this number, says about the endpoint.
    pub(super) fn finish(mut self, saga: u64, verdict: Verdict) {
        self.verdict = Some((saga, verdict));
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.shared.give_back(&self.participant, &self.grant, self.verdict.take());
    }
}

mod workers;

pub(super) use workers::Attached;

#[cfg(test)]
mod held_back_tests;
#[cfg(test)]
mod tests;

//! What operators and time change of who may be called: pauses, and breakers that open and close. Each
//! change of a breaker is told once, for the endpoint and not for the calls that it concerns.

use std::sync::atomic::Ordering;

use tokio::sync::OwnedMutexGuard;

use super::breaker::Turn;
use super::pause::Pause;
use super::registry::{PARTICIPANTS_MAX, Registry, RegistryError};
use super::roster::{Roster, Turned};
use crate::saga::ids::{ActionName, ParticipantName, Timestamp};
use crate::saga::input::Obstacle;

impl Registry {
    /// How many calls of the action may be decided now; more than any limit while nothing is held back.
    #[must_use]
    pub fn places(&self, participant: &ParticipantName, action: &ActionName) -> usize {
        let now = self.shared.clock.now();
        let state = self.shared.state.lock();
        state.rosters.get(participant).map_or(0, |roster| roster.places(action, now))
    }

    /// Why calls of the action cannot be decided now.
    #[must_use]
    pub fn obstacle(&self, participant: &ParticipantName, action: &ActionName) -> Obstacle {
        let now = self.shared.clock.now();
        let state = self.shared.state.lock();
        state.rosters.get(participant).map_or(Obstacle::NoHandler, |roster| roster.obstacle(action, now))
    }

    /// Whether some participant does not let every call through.
    #[must_use]
    pub fn is_holding_back(&self) -> bool {
        self.shared.holding_back.load(Ordering::Relaxed) > 0
    }

    /// A call was decided that asks for its turn behind its commit.
    pub fn expect_call(&self, participant: &ParticipantName) {
        let now = self.shared.clock.now();
        if let Some(roster) = self.shared.state.lock().rosters.get_mut(participant) {
            roster.expect(now);
        }
    }

    /// When time alone lets calls through next that are held back.
    #[must_use]
    pub fn next_turn(&self) -> Option<Timestamp> {
        if !self.is_holding_back() {
            return None;
        }
        self.shared.state.lock().rosters.values().filter_map(Roster::next_turn).min()
    }

    /// Does what time alone changes. Whoever is parked may look again.
    pub fn pass_time(&self) {
        let now = self.shared.clock.now();
        let mut state = self.shared.state.lock();
        let mut told = Vec::new();
        for (name, roster) in &mut state.rosters {
            told.extend(roster.pass_time(now).into_iter().map(|turned| (name.clone(), turned)));
            roster.hand_over(now);
        }
        drop(state);
        for (participant, turned) in told {
            tell(&participant, &turned, now);
        }
        self.shared.changed();
    }

    /// Whether it knows the participant: registered, registered a while ago, or paused.
    #[must_use]
    pub fn knows(&self, participant: &ParticipantName) -> bool {
        self.shared.state.lock().rosters.contains_key(participant)
    }

    /// Takes a stored pause back at the start.
    pub fn restore_pause(&self, participant: ParticipantName, pause: Pause) {
        self.set_pause(participant, Some(pause));
    }

    /// Prepares a pause, or its end (`None`). Nothing is changed until [`Pausing::activate`].
    ///
    /// # Errors
    /// [`RegistryError::Full`].
    pub async fn prepare_pause(
        &self,
        participant: ParticipantName,
        wanted: Option<Pause>,
    ) -> Result<Pausing, RegistryError> {
        let turn = std::sync::Arc::clone(&self.shared.turn).lock_owned().await;
        let state = self.shared.state.lock();
        let known = state.rosters.get(&participant);
        if wanted.is_some() && known.is_none() && state.rosters.len() >= PARTICIPANTS_MAX {
            return Err(RegistryError::Full(format!("{PARTICIPANTS_MAX} participants are known already")));
        }
        let stands = known.is_some_and(|roster| roster.pause.is_some());
        drop(state);
        Ok(Pausing { registry: self.clone(), participant, wanted, stands, _turn: turn })
    }

    fn set_pause(&self, participant: ParticipantName, pause: Option<Pause>) {
        let shared = &self.shared;
        let now = shared.clock.now();
        let mut state = shared.state.lock();
        if pause.is_some() || state.rosters.contains_key(&participant) {
            let roster = state.rosters.entry(participant);
            let roster = roster.or_insert_with(|| Roster::new(&shared.long_lines, &shared.holding_back));
            if roster.lanes().is_empty() {
                // A participant without registrations is kept for a while from here on.
                roster.empty_since = Some(now);
            }
            roster.set_pause(pause, now);
            roster.hand_over(now);
        }
        drop(state);
        shared.changed();
    }
}

/// A pause, or its end, that is not yet in effect. While it is held no other change is made.
#[must_use = "nothing is paused before it is activated"]
pub struct Pausing {
    registry: Registry,
    participant: ParticipantName,
    wanted: Option<Pause>,
    stands: bool,
    _turn: OwnedMutexGuard<()>,
}

impl Pausing {
    /// Whether anything changes: a pause that stands is kept as it is, with its first reason.
    #[must_use]
    pub fn changes_anything(&self) -> bool {
        self.stands != self.wanted.is_some()
    }

    /// Puts it into effect, once it is stored.
    pub fn activate(self) {
        if self.changes_anything() {
            self.registry.set_pause(self.participant, self.wanted);
        }
    }
}

/// One line for each opening and each closing of an endpoint's breaker, whoever's calls are concerned.
/// Trials that fail are told to those who look closer.
pub(super) fn tell(participant: &ParticipantName, turned: &Turned, now: Timestamp) {
    let Turned { endpoint, turn, cause, sent_back } = turned;
    match turn {
        Turn::Opened { next_trial } => tracing::warn!(
            %participant,
            %endpoint,
            cause,
            sent_back,
            next_trial_ms = u64::try_from(next_trial.since(now).as_millis()).unwrap_or(u64::MAX),
            "calls to an endpoint of a participant are held back: it fails; its sagas wait without losing attempts"
        ),
        Turn::StaysOpen { next_trial } => tracing::debug!(
            %participant,
            %endpoint,
            cause,
            sent_back,
            next_trial_ms = u64::try_from(next_trial.since(now).as_millis()).unwrap_or(u64::MAX),
            "a trial call failed; calls are held back for longer"
        ),
        Turn::Closed => {
            tracing::info!(%participant, %endpoint, "an endpoint of a participant answers again: calls go through");
        }
    }
}

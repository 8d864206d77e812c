//! What waits for an operator: every block of every open saga, the sagas that have outgrown the
//! store, and those that cannot be read.
//!
//! Kept in memory beside the published states; recovery fills it, every publication updates it.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use parking_lot::Mutex;

use super::error::{EngineError, Violation};
use super::request::StuckItem;
use super::settings::QUARANTINE_MAX;
use crate::saga::ids::{DefinitionName, SagaId, Timestamp};
use crate::saga::room::JournalLimit;
use crate::saga::state::Saga;
use crate::saga::view;
use crate::saga::words::{Phase, SagaStatus};

/// What a quarantined saga's definition is called when even that could not be read.
const UNREADABLE: &str = "unreadable";

/// All that waits for an operator.
#[derive(Debug, Default)]
pub(super) struct Stuck(Mutex<Lists>);

#[derive(Debug, Default)]
struct Lists {
    /// Longest wait first.
    items: BTreeMap<Place, StuckItem>,
    places: HashMap<SagaId, Vec<Place>>,
    quarantined: HashMap<SagaId, String>,
    outgrown: HashMap<SagaId, String>,
}

/// What an operator types to end a saga; without the steps it prints which they are.
pub(super) fn abandoning(id: &SagaId) -> String {
    format!("sagactl abandon {id} --reason \"…\"")
}

/// An item's place in the list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    since: Timestamp,
    saga: SagaId,
    step: String,
    phase: Option<Phase>,
}

impl Stuck {
    /// Takes note of a newly published state.
    pub(super) fn note(&self, saga: &Saga, limit: JournalLimit) {
        let blocked = saga.is_blocked();
        let mut lists = self.0.lock();
        if !blocked && !lists.places.contains_key(&saga.id) {
            return;
        }
        lists.forget(&saga.id);
        lists.outgrown.remove(&saga.id);
        if blocked {
            let suggested = view::suggested_command(saga, limit).unwrap_or_default();
            for block in saga.blocks() {
                lists.add(StuckItem {
                    saga_id: saga.id.clone(),
                    definition: saga.definition.name.clone(),
                    status: saga.status(),
                    step: block.step,
                    phase: Some(block.phase),
                    reason: block.reason,
                    since: block.since,
                    suggested_command: suggested.clone(),
                });
            }
        }
    }

    /// Lists a saga of which nothing more can be stored but its end. The next state of it that is
    /// published takes it off.
    pub(super) fn outgrown(&self, saga: &Saga, reason: &str, limit: JournalLimit) {
        self.note(saga, limit);
        let mut lists = self.0.lock();
        lists.outgrown.insert(saga.id.clone(), reason.to_owned());
        lists.add(StuckItem {
            saga_id: saga.id.clone(),
            definition: saga.definition.name.clone(),
            status: saga.status(),
            step: String::new(),
            phase: None,
            reason: reason.to_owned(),
            since: saga.updated_at,
            suggested_command: abandoning(&saga.id),
        });
    }

    /// Why nothing more of the saga can be stored, if so.
    pub(super) fn why_outgrown(&self, id: &SagaId) -> Option<String> {
        self.0.lock().outgrown.get(id).cloned()
    }

    /// Sets a saga aside that cannot be read; whether that is news.
    pub(super) fn quarantine(&self, id: &SagaId, reason: &str, now: Timestamp) -> bool {
        let mut lists = self.0.lock();
        if lists.quarantined.contains_key(id) || lists.quarantined.len() >= QUARANTINE_MAX {
            return false;
        }
        lists.forget(id);
        lists.quarantined.insert(id.clone(), reason.to_owned());
        lists.add(StuckItem {
            saga_id: id.clone(),
            definition: DefinitionName::parse(UNREADABLE).expect("the word has the form of a name"),
            status: SagaStatus::Blocked,
            step: String::new(),
            phase: None,
            reason: reason.to_owned(),
            since: now,
            suggested_command: "sagad store verify".to_owned(),
        });
        true
    }

    /// Why the saga is set aside, if it is.
    pub(super) fn quarantined(&self, id: &SagaId) -> Option<String> {
        self.0.lock().quarantined.get(id).cloned()
    }

    /// How many items wait, and how many of them are sagas that cannot be read.
    pub(super) fn counts(&self) -> (u64, u64) {
        let lists = self.0.lock();
        (lists.items.len() as u64, lists.quarantined.len() as u64)
    }

    /// A page, longest wait first; the next page's token and the exact total.
    pub(super) fn page(
        &self,
        page_size: usize,
        page_token: &str,
    ) -> Result<(Vec<StuckItem>, String, u64), EngineError> {
        let after = match page_token {
            "" => Bound::Unbounded,
            token => Bound::Excluded(Place::parse(token).ok_or_else(|| {
                EngineError::Invalid(vec![Violation::new(
                    "page_token",
                    "is not a token of this list: use next_page_token of the page before as it is",
                )])
            })?),
        };
        let lists = self.0.lock();
        let mut behind = lists.items.range((after, Bound::Unbounded));
        let page: Vec<(&Place, &StuckItem)> = behind.by_ref().take(page_size).collect();
        let token = match (page.last(), behind.next()) {
            (Some((place, _)), Some(_)) => place.token(),
            _ => String::new(),
        };
        let items = page.into_iter().map(|(_, item)| item.clone()).collect();
        Ok((items, token, lists.items.len() as u64))
    }
}

impl Lists {
    fn add(&mut self, item: StuckItem) {
        let place = Place {
            since: item.since,
            saga: item.saga_id.clone(),
            step: item.step.clone(),
            phase: item.phase,
        };
        self.places.entry(item.saga_id.clone()).or_default().push(place.clone());
        self.items.insert(place, item);
    }

    fn forget(&mut self, id: &SagaId) {
        for place in self.places.remove(id).unwrap_or_default() {
            self.items.remove(&place);
        }
    }
}

impl Place {
    /// `SINCE|PHASE|STEP|SAGA`; neither steps nor saga ids contain the bar.
    fn token(&self) -> String {
        let phase = self.phase.map_or("", Phase::as_str);
        format!("{}|{phase}|{}|{}", self.since.0, self.step, self.saga)
    }

    fn parse(token: &str) -> Option<Self> {
        let mut parts = token.splitn(4, '|');
        let since = Timestamp(parts.next()?.parse().ok()?);
        let phase = match parts.next()? {
            "" => None,
            "action" => Some(Phase::Action),
            "compensation" => Some(Phase::Compensation),
            "probe" => Some(Phase::Probe),
            _ => return None,
        };
        let step = parts.next()?.to_owned();
        let saga = SagaId::parse(parts.next()?).ok()?;
        Some(Self { since, saga, step, phase })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> SagaId {
        SagaId::parse(text).unwrap()
    }

    #[test]
    fn pages_show_every_item_once_and_the_longest_wait_first() {
        let stuck = Stuck::default();
        for (name, since) in [("c", 3), ("a", 1), ("b", 2)] {
            stuck.quarantine(&id(name), "cannot be read", Timestamp(since));
        }
        let (first, token, total) = stuck.page(2, "").unwrap();
        let (second, end, _) = stuck.page(2, &token).unwrap();
        let names: Vec<_> = first.iter().chain(&second).map(|item| item.saga_id.to_string()).collect();
        assert_eq!((names, end, total), (vec!["a".into(), "b".into(), "c".into()], String::new(), 3));
    }

    #[test]
    fn a_token_of_another_list_is_refused() {
        assert!(matches!(Stuck::default().page(1, "nonsense"), Err(EngineError::Invalid(_))));
    }
}

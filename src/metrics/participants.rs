//! Whether the participants can be called. Set as a whole before each scrape, so that an endpoint that
//! is not registered any more leaves no series behind: there are never more than there are registrations.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// One registration's figures.
#[derive(Debug, Clone)]
pub struct EndpointFigures {
    /// Whose it is.
    pub participant: String,
    /// Where it is.
    pub endpoint: String,
    /// 0: calls go through; 1: none does; 2: a few do.
    pub breaker: u64,
    /// How often calls came to be held back.
    pub openings: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointLabels {
    participant: String,
    endpoint: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ParticipantLabel {
    participant: String,
}

/// The handles.
pub(super) struct ParticipantHandles {
    breaker: Family<EndpointLabels, Gauge<u64, AtomicU64>>,
    openings: Family<EndpointLabels, Counter>,
    paused: Family<ParticipantLabel, Gauge<u64, AtomicU64>>,
}

impl ParticipantHandles {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let handles =
            Self { breaker: Family::default(), openings: Family::default(), paused: Family::default() };
        let help = "Whether calls to an endpoint go through: 0 all, 1 none, 2 a few";
        registry.register("participant_breaker", help, handles.breaker.clone());
        let help = "How often calls to an endpoint came to be held back";
        registry.register("participant_breaker_openings", help, handles.openings.clone());
        let help = "Participants that an operator has paused: 1 each";
        registry.register("participant_paused", help, handles.paused.clone());
        handles
    }

    pub(super) fn set(&self, endpoints: Vec<EndpointFigures>, paused: Vec<String>) {
        self.breaker.clear();
        self.openings.clear();
        self.paused.clear();
        for EndpointFigures { participant, endpoint, breaker, openings } in endpoints {
            let labels = EndpointLabels { participant, endpoint };
            self.breaker.get_or_create(&labels).set(breaker);
            self.openings.get_or_create(&labels).inner().store(openings, Ordering::Relaxed);
        }
        for participant in paused {
            self.paused.get_or_create(&ParticipantLabel { participant }).set(1);
        }
    }
}

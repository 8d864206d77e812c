//! Domain values become messages. JSON texts pass through unread, byte for byte.

mod definition;
mod detail;
mod event;
mod operations;
mod participant;
mod saga;
mod step;

use crate::proto;
use crate::saga::words::{Failure, SagaStatus};

pub use crate::proto::timestamp;
pub use definition::{definition, definition_row};
pub use event::event;
pub use operations::{explanation, planned_call, stats, stuck_item};
pub use participant::participant;
pub use saga::{saga, saga_row};

/// A span of time; one too long for the wire is cut to the longest.
fn duration(span: std::time::Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(span.subsec_nanos()).expect("below a billion"),
    }
}

fn status(status: SagaStatus) -> proto::SagaStatus {
    match status {
        SagaStatus::Running => proto::SagaStatus::Running,
        SagaStatus::Committed => proto::SagaStatus::Committed,
        SagaStatus::Completed => proto::SagaStatus::Completed,
        SagaStatus::Compensating => proto::SagaStatus::Compensating,
        SagaStatus::Compensated => proto::SagaStatus::Compensated,
        SagaStatus::Blocked => proto::SagaStatus::Blocked,
        SagaStatus::Abandoned => proto::SagaStatus::Abandoned,
    }
}

fn failure(failure: &Failure) -> proto::Failure {
    proto::Failure {
        step: failure.step.clone(),
        code: failure.code.clone(),
        message: failure.message.clone(),
    }
}

#[cfg(test)]
pub(super) mod test_values;
#[cfg(test)]
mod tests;

//! What a command's end means to the shell that called it.

use std::process::ExitCode;

use crate::proto::{Saga, SagaStatus, WaitFor};

/// How a command ended. Scripts rely on these numbers; they never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It did what was asked.
    Done,
    /// The daemon refused it, could not be reached, or it failed here.
    Failed,
    /// The command line asked for something that cannot be.
    Usage,
    /// The awaited saga ended compensated.
    Compensated,
    /// The awaited saga waits for an operator.
    Blocked,
    /// The time to wait passed first.
    TimedOut,
}

impl Exit {
    /// The number the process ends with.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Compensated => 3,
            Exit::Blocked => 4,
            Exit::TimedOut => 5,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

/// What a saga as it stands means to somebody who waits for it; `None`: go on waiting.
///
/// A committed saga answers a wait for the commit with success even while its side work is blocked
/// or was abandoned: what the client asked for holds.
#[must_use]
pub fn verdict(saga: &Saga, awaited: WaitFor) -> Option<Exit> {
    if saga.committed && awaited != WaitFor::Ended {
        return Some(Exit::Done);
    }
    match saga.status() {
        SagaStatus::Completed => Some(Exit::Done),
        SagaStatus::Compensated => Some(Exit::Compensated),
        SagaStatus::Abandoned => Some(Exit::Failed),
        SagaStatus::Blocked => Some(Exit::Blocked),
        SagaStatus::Unspecified | SagaStatus::Running | SagaStatus::Committed | SagaStatus::Compensating => {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saga(status: SagaStatus, committed: bool) -> Saga {
        Saga { status: status.into(), committed, ..Saga::default() }
    }

    #[test]
    fn each_end_has_its_own_number() {
        let all = [Exit::Done, Exit::Failed, Exit::Usage, Exit::Compensated, Exit::Blocked, Exit::TimedOut];
        assert_eq!(all.map(Exit::code), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_wait_ends_as_the_saga_stands() {
        use SagaStatus as S;
        use WaitFor::{Committed, Ended};
        let table = [
            (S::Running, false, Committed, None),
            (S::Running, false, Ended, None),
            (S::Committed, true, Committed, Some(Exit::Done)),
            (S::Committed, true, Ended, None),
            (S::Completed, true, Committed, Some(Exit::Done)),
            (S::Completed, true, Ended, Some(Exit::Done)),
            (S::Compensating, false, Committed, None),
            (S::Compensating, false, Ended, None),
            (S::Compensated, false, Committed, Some(Exit::Compensated)),
            (S::Compensated, false, Ended, Some(Exit::Compensated)),
            (S::Blocked, false, Committed, Some(Exit::Blocked)),
            (S::Blocked, true, Committed, Some(Exit::Done)),
            (S::Blocked, true, Ended, Some(Exit::Blocked)),
            (S::Abandoned, false, Ended, Some(Exit::Failed)),
            (S::Abandoned, true, Committed, Some(Exit::Done)),
            (S::Abandoned, true, Ended, Some(Exit::Failed)),
        ];
        for (status, committed, awaited, expected) in table {
            assert_eq!(
                verdict(&saga(status, committed), awaited),
                expected,
                "{status:?}, committed {committed}, waiting for {awaited:?}"
            );
        }
    }
}

//! Whether the daemon can be given work.

/// What the probes of a load balancer or an orchestrator want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Not yet: what it is still busy with, for people.
    Starting(String),
    /// Yes.
    Serving,
    /// Not any more: it is shutting down.
    Draining,
    /// It cannot go on: why, for people.
    Failed(String),
}

impl Readiness {
    /// Whether work is welcome.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        match self {
            Readiness::Serving => true,
            Readiness::Starting(_) | Readiness::Draining | Readiness::Failed(_) => false,
        }
    }

    /// One line for people.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Readiness::Starting(busy_with) => format!("starting: {busy_with}"),
            Readiness::Serving => "serving".to_owned(),
            Readiness::Draining => "draining: the daemon is shutting down".to_owned(),
            Readiness::Failed(why) => format!("failed: {why}"),
        }
    }
}

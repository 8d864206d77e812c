//! Whether what a registration names is there: asked of the endpoint itself, before it is registered.

use thiserror::Error;

use super::client::Client;
use super::grpc::Unoffered;
use super::handlers::{FieldProblem, Handlers};
use crate::tasks::Tasks;

/// Why a registration that is valid in itself is not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TargetsError {
    /// The endpoint does not offer what these fields name. The claim has to be corrected.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    NotOffered(Vec<FieldProblem>),
    /// The endpoint could not be asked. It helps to try again once it serves.
    #[error("{0}")]
    NotAsked(String),
}

/// Asks the endpoint. Protocols whose targets only show when they are called have nothing to ask.
///
/// # Errors
/// See [`TargetsError`].
pub async fn check(handlers: &Handlers, tasks: &Tasks) -> Result<(), TargetsError> {
    // Connections of their own: the handlers may never come into effect.
    let Client::Grpc(client) = Client::new(handlers.protocol, &handlers.endpoint, tasks) else {
        return Ok(());
    };
    client.check(handlers).await.map_err(|unoffered| match unoffered {
        Unoffered::Wrong(fields) => TargetsError::NotOffered(fields),
        Unoffered::NotAsked(cause) => TargetsError::NotAsked(format!(
            "the methods of {} at {} could not be learned: {cause}. Register it once it serves, or with its \
             descriptor set",
            handlers.participant, handlers.endpoint
        )),
    })
}

//! Keeps a service of the shop registered: registers, renews, and registers again when the daemon
//! has forgotten it or was away.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::proto;
use crate::proto::registry_service_client::RegistryServiceClient;

/// Renewals within one ttl: two may be lost without the registration running out.
const RENEWALS_PER_TTL: u32 = 3;
/// The pause after an attempt that got no answer.
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// What is registered, and where.
#[derive(Debug, Clone)]
pub struct Registration {
    /// URL of the daemon.
    pub daemon: String,
    /// Name of the participant.
    pub participant: String,
    /// URL at which the daemon finds it.
    pub endpoint: String,
    /// What it offers, compensations included.
    pub actions: Vec<String>,
    /// Calls it takes at a time.
    pub max_in_flight: u32,
    /// How long a registration lasts unless renewed.
    pub ttl: Duration,
}

/// Stays registered for as long as it is polled; never completes. Fails at once when the URL of the
/// daemon is none.
pub fn keep(registration: Registration) -> Result<impl Future<Output = ()> + Send, tonic::transport::Error> {
    let channel = Endpoint::from_shared(registration.daemon.clone())?
        .connect_timeout(REQUEST_TIMEOUT)
        .timeout(REQUEST_TIMEOUT)
        .connect_lazy();
    let mut client = RegistryServiceClient::new(channel);
    Ok(async move {
        let mut id = None;
        let mut well = true;
        loop {
            let pause = match attend(&mut client, &registration, &mut id).await {
                Ok(()) => {
                    well = true;
                    registration.ttl / RENEWALS_PER_TTL
                }
                Err(status) => {
                    // Once for each time the daemon is away, not once for each attempt.
                    if std::mem::take(&mut well) {
                        let (code, message) = (status.code(), status.message());
                        tracing::warn!(%code, message, daemon = registration.daemon, "no answer: trying again");
                    }
                    RETRY_PAUSE
                }
            };
            tokio::time::sleep(pause).await;
        }
    })
}

/// Renews the registration of this id, or makes one when there is none (any more).
async fn attend(
    client: &mut RegistryServiceClient<Channel>,
    registration: &Registration,
    id: &mut Option<String>,
) -> Result<(), Status> {
    if let Some(registration_id) = id.clone() {
        match client.renew_registration(proto::RenewRegistrationRequest { registration_id }).await {
            Ok(_) => return Ok(()),
            Err(status) if status.code() == Code::NotFound => *id = None,
            Err(status) => return Err(status),
        }
    }
    let request = request(registration);
    *id = Some(client.register_handlers(request).await?.into_inner().registration_id);
    tracing::info!(participant = registration.participant, endpoint = registration.endpoint, "registered");
    Ok(())
}

fn request(registration: &Registration) -> proto::RegisterHandlersRequest {
    let action = |name: &String| proto::HandlerAction { name: name.clone(), ..Default::default() };
    proto::RegisterHandlersRequest {
        participant: registration.participant.clone(),
        endpoint: registration.endpoint.clone(),
        protocol: proto::Protocol::Sagad.into(),
        actions: registration.actions.iter().map(action).collect(),
        max_in_flight: registration.max_in_flight,
        ttl: prost_types::Duration::try_from(registration.ttl).ok(),
        descriptor_set: Vec::new(),
    }
}

#[cfg(test)]
mod tests;

//! Tells the daemon where this service is, for as long as it is there.

use std::pin::pin;
use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::sagad::registry_service_client::RegistryServiceClient;
use crate::sagad::{
    DeregisterHandlersRequest, HandlerAction, Protocol, RegisterHandlersRequest, RenewRegistrationRequest,
};

/// A service that ends without a word is forgotten after this time.
const TTL: Duration = Duration::from_secs(15);
/// Two renewals may be lost.
const RENEW_EVERY: Duration = Duration::from_secs(5);
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Stays registered until `stop` completes, then says good-bye: no new call comes after that.
pub async fn keep(daemon: Channel, endpoint: &str, stop: impl Future<Output = ()>) {
    let mut registry = RegistryServiceClient::new(daemon);
    let mut id: Option<String> = None;
    let mut stop = pin!(stop);
    loop {
        let pause = match renew(&mut registry, endpoint, id.as_deref()).await {
            Ok(renewed) => {
                id = Some(renewed);
                RENEW_EVERY
            }
            Err(status) => {
                // The daemon is away. It may come back with this registration or without it.
                eprintln!("stock: not registered, trying again: {}", status.message());
                RETRY_AFTER
            }
        };
        tokio::select! {
            () = &mut stop => break,
            () = tokio::time::sleep(pause) => {}
        }
    }
    if let Some(registration_id) = id
        && let Err(status) = registry.deregister_handlers(DeregisterHandlersRequest { registration_id }).await
    {
        eprintln!("stock: the registration is left to run out: {}", status.message());
    }
}

/// Renews the registration, or makes it; gives its id.
async fn renew(
    registry: &mut RegistryServiceClient<Channel>,
    endpoint: &str,
    id: Option<&str>,
) -> Result<String, Status> {
    if let Some(id) = id {
        let request = RenewRegistrationRequest { registration_id: id.to_owned() };
        match registry.renew_registration(request).await {
            Ok(_) => return Ok(id.to_owned()),
            Err(status) if status.code() == Code::NotFound => {} // it ran out: make another
            Err(status) => return Err(status),
        }
    }
    let action = |name: &str| HandlerAction { name: name.to_owned(), ..Default::default() };
    let request = RegisterHandlersRequest {
        participant: "stock".to_owned(),
        endpoint: endpoint.to_owned(),
        protocol: Protocol::Sagad.into(),
        actions: vec![action("deduct"), action("restore")],
        ttl: prost_types::Duration::try_from(TTL).ok(),
        ..Default::default()
    };
    let registration = registry.register_handlers(request).await?.into_inner();
    println!("stock: registered at the daemon as {endpoint}");
    Ok(registration.registration_id)
}

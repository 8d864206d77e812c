//! The gRPC port: which services, under which limits, from its first connection to its last.

use std::future::Future;

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding::Gzip;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::definition_service::DefinitionApi;
use super::gate::{GateLayer, RpcObserver};
use super::net::Door;
use super::operations_service::OperationsApi;
use super::registry_service::RegistryApi;
use super::saga_service::SagaApi;
use super::{Context, Limits, Readiness};
use crate::engine::Engine;
use crate::proto;
use proto::definition_service_server::DefinitionServiceServer;
use proto::operations_service_server::OperationsServiceServer;
use proto::registry_service_server::RegistryServiceServer;
use proto::saga_service_server::SagaServiceServer;

/// What the gRPC port is made of.
pub struct Api {
    /// Starts, reads and moves sagas.
    pub engine: Engine,
    /// Whether work is welcome; told to clients by the health service.
    pub readiness: watch::Receiver<Readiness>,
    /// Hears of every RPC's end.
    pub observe: RpcObserver,
    /// The bounds.
    pub limits: Limits,
}

/// The gRPC port could not be served. Starting again may help.
#[derive(Debug, Error)]
#[error("the gRPC port cannot be served: {0}")]
pub struct ServeError(#[from] tonic::transport::Error);

/// Serves `api` on `listener` until `shutdown` is done. Then waiting clients are answered, streams
/// are ended, and RPCs in flight have [`Limits::drain_max`] to finish.
pub async fn serve(
    api: Api,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let draining = CancellationToken::new();
    let context = Context { engine: api.engine, limits: api.limits.clone(), draining: draining.clone() };
    let routes = services(context);
    let port = Port { limits: api.limits, observe: api.observe, readiness: api.readiness, draining };
    port.serve(routes, listener, shutdown).await
}

fn services(context: Context) -> Routes {
    let message_max = context.limits.message_max_bytes();
    macro_rules! bounded {
        ($server:ident, $api:expr) => {
            $server::new($api)
                .max_decoding_message_size(message_max)
                .accept_compressed(Gzip)
                .send_compressed(Gzip)
        };
    }
    Routes::new(bounded!(SagaServiceServer, SagaApi::new(context.clone())))
        .add_service(bounded!(DefinitionServiceServer, DefinitionApi::new(context.clone())))
        .add_service(bounded!(RegistryServiceServer, RegistryApi::new(context.clone())))
        .add_service(bounded!(OperationsServiceServer, OperationsApi::new(context)))
}

/// A port without its services: what is the same whatever is served.
pub(super) struct Port {
    pub limits: Limits,
    pub observe: RpcObserver,
    pub readiness: watch::Receiver<Readiness>,
    pub draining: CancellationToken,
}

impl Port {
    /// Serves `routes` with health and reflection beside them.
    pub(super) async fn serve(
        self,
        routes: Routes,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServeError> {
        let limits = &self.limits;
        let (reporter, health) = tonic_health::server::health_reporter();
        let serving_now = self.readiness.borrow().is_serving();
        report(&reporter, serving_now).await;
        let routes = with_reflection(routes.add_service(health));
        let gate = GateLayer::new(limits, self.draining.clone(), self.observe);
        let door = Door::new(listener, limits.connections_max, limits.quiet_max);
        let signal = async {
            shutdown.await;
            self.draining.cancel();
        };
        let serving = Server::builder()
            .max_concurrent_streams(limits.streams_per_connection_max)
            .http2_keepalive_interval(Some(limits.keepalive_interval))
            .http2_keepalive_timeout(Some(limits.keepalive_timeout))
            .http2_max_header_list_size(limits.header_list_max_bytes)
            .http2_max_pending_accept_reset_streams(Some(limits.pending_reset_streams_max))
            .http2_max_local_error_reset_streams(Some(limits.local_error_reset_streams_max))
            .layer(gate)
            .add_routes(routes)
            .serve_with_incoming_shutdown(door.incoming(), signal);
        let overdue = async {
            self.draining.cancelled().await;
            tokio::time::sleep(limits.drain_max).await;
        };
        tokio::select! {
            served = serving => Ok(served?),
            () = follow(&reporter, self.readiness, &self.draining) => Ok(()),
            () = overdue => {
                tracing::warn!("some requests did not finish in time and were cut off by the shutdown");
                Ok(())
            }
        }
    }
}

/// Keeps the health service in step with the daemon. Never ends.
async fn follow(
    reporter: &HealthReporter,
    mut readiness: watch::Receiver<Readiness>,
    draining: &CancellationToken,
) {
    loop {
        let serving = readiness.borrow_and_update().is_serving();
        report(reporter, serving).await;
        tokio::select! {
            changed = readiness.changed() => if changed.is_err() { break },
            () = draining.cancelled() => break,
        }
    }
    draining.cancelled().await;
    report(reporter, false).await;
    std::future::pending::<()>().await;
}

async fn report(reporter: &HealthReporter, serving: bool) {
    let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    let services = [
        "",
        <SagaServiceServer<SagaApi> as NamedService>::NAME,
        <DefinitionServiceServer<DefinitionApi> as NamedService>::NAME,
        <RegistryServiceServer<RegistryApi> as NamedService>::NAME,
        <OperationsServiceServer<OperationsApi> as NamedService>::NAME,
    ];
    for service in services {
        reporter.set_service_status(service, status).await;
    }
}

fn with_reflection(routes: Routes) -> Routes {
    let configured = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let sound = "the descriptor sets were made by the same compiler that made the services";
    routes
        .add_service(configured().build_v1().expect(sound))
        .add_service(configured().build_v1alpha().expect(sound))
}

#[cfg(test)]
mod tests;

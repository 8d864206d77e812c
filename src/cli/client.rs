//! The way to the daemon: one channel, a client for each service, one door for all calls.

use std::future::Future;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

use super::trouble::Trouble;
use crate::proto::definition_service_client::DefinitionServiceClient;
use crate::proto::operations_service_client::OperationsServiceClient;
use crate::proto::registry_service_client::RegistryServiceClient;
use crate::proto::saga_service_client::SagaServiceClient;

/// Longest time to reach the daemon.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time for an answer, on top of what the daemon was asked to wait itself.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer that is read: a page of sagas carries their inputs.
const ANSWER_MAX_BYTES: usize = 64 * 1024 * 1024;
/// A connection that stays silent this long is asked whether it is alive.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long it may take to say so.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// A daemon that was reached.
#[derive(Debug, Clone)]
pub struct Daemon {
    channel: Channel,
}

impl Daemon {
    /// Connects to `addr`, a URL or `HOST:PORT`.
    ///
    /// # Errors
    /// [`Trouble::Usage`]: not an address. [`Trouble::Unreachable`]: nobody answers there.
    pub async fn connect(addr: &str) -> Result<Self, Trouble> {
        let url = url_of(addr)?;
        let endpoint = Endpoint::from_shared(url)
            .map_err(|source| Trouble::Usage(format!("--addr {addr:?} is not an address: {source}")))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        let channel = endpoint
            .connect()
            .await
            .map_err(|source| Trouble::Unreachable { addr: addr.to_owned(), source })?;
        Ok(Self { channel })
    }

    /// Starts, reads and follows sagas.
    #[must_use]
    pub fn sagas(&self) -> SagaServiceClient<Channel> {
        SagaServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_MAX_BYTES)
    }

    /// Explains and repairs them.
    #[must_use]
    pub fn operations(&self) -> OperationsServiceClient<Channel> {
        OperationsServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_MAX_BYTES)
    }

    /// Keeps definitions.
    #[must_use]
    pub fn definitions(&self) -> DefinitionServiceClient<Channel> {
        DefinitionServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_MAX_BYTES)
    }

    /// Knows participants.
    #[must_use]
    pub fn registry(&self) -> RegistryServiceClient<Channel> {
        RegistryServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_MAX_BYTES)
    }
}

/// Waits for the answer to one call; `asked` is read after "cannot".
///
/// # Errors
/// [`Trouble::Refused`] with the daemon's status, [`Trouble::NoAnswer`] when it stays silent.
pub async fn answer<T>(
    asked: &str,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Trouble> {
    answer_after(Duration::ZERO, asked, call).await
}

/// The same for a call that lets the daemon itself wait for up to `wait`.
///
/// # Errors
/// As [`answer`].
pub async fn answer_after<T>(
    wait: Duration,
    asked: &str,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Trouble> {
    let limit = wait.saturating_add(ANSWER_TIMEOUT);
    // Our own timer around the call: the transport reports its own as CANCELLED, which would read
    // as if somebody had cancelled something.
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(Trouble::refused(asked, status)),
        Err(_elapsed) => Err(Trouble::NoAnswer { asked: asked.to_owned(), after: limit }),
    }
}

/// Completes `HOST:PORT` to a URL.
fn url_of(addr: &str) -> Result<String, Trouble> {
    match addr.split_once("://") {
        None => Ok(format!("http://{addr}")),
        Some(("http", _)) => Ok(addr.to_owned()),
        Some((scheme, _)) => {
            Err(Trouble::Usage(format!("--addr {addr:?}: this version speaks http:// only, not {scheme}://")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_leave_out_the_scheme() {
        assert_eq!(url_of("127.0.0.1:7420").unwrap(), "http://127.0.0.1:7420");
        assert_eq!(url_of("http://h:1").unwrap(), "http://h:1");
    }

    #[test]
    fn a_scheme_that_is_not_spoken_is_a_usage_error() {
        let trouble = url_of("https://h:1").unwrap_err();
        assert!(matches!(trouble, Trouble::Usage(_)), "{trouble}");
    }
}

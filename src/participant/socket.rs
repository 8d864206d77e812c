//! A TCP connection to an endpoint, as every protocol makes it.

use std::io;
use std::time::Duration;

use http::HeaderValue;
use rustix::net::sockopt;
use tokio::net::TcpStream;

use super::handlers::Endpoint;
use crate::cork::Corked;

/// Longest time for a connection to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The operating system asks a silent peer for a sign of life after this time, and gives it up after
/// [`KEEP_ALIVE_PROBES`] further ones without an answer. Pings of HTTP/2 would do the same faster,
/// but gRPC servers take more than one in five minutes for abuse and close the connection under the
/// calls in flight.
const KEEP_ALIVE_TIME: Duration = Duration::from_secs(10);
/// The time between two such questions.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// How many of them go without an answer.
const KEEP_ALIVE_PROBES: u32 = 3;
/// What participants read of their caller.
pub(super) const AGENT: HeaderValue = HeaderValue::from_static(concat!("sagad/", env!("CARGO_PKG_VERSION")));

/// Connects, directly: no proxy is asked for or used.
///
/// # Errors
/// What the operating system says, with the endpoint.
pub(super) async fn connect(endpoint: &Endpoint) -> Result<Corked<TcpStream>, String> {
    let made = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(endpoint.authority())).await;
    let socket = made.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let socket = socket.and_then(|socket| set_up(&socket).map(|()| socket));
    socket.map(Corked::new).map_err(|error| format!("connect to {endpoint}: {error}"))
}

fn set_up(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, KEEP_ALIVE_TIME)?;
    sockopt::set_tcp_keepintvl(socket, KEEP_ALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(socket, KEEP_ALIVE_PROBES)?;
    Ok(())
}

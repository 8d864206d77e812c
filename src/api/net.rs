//! The doors of both ports: so many connections at a time, none of them silent for ever.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::cork::Corked;

/// Pause after the machine had no more files or memory for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Lets connections in.
pub(super) struct Door {
    listener: TcpListener,
    seats: Arc<Semaphore>,
    quiet_max: Duration,
}

impl Door {
    /// At most `connections_max` at a time, each closed when not a byte went either way for
    /// `quiet_max` (at the latest after twice that).
    pub(super) fn new(listener: TcpListener, connections_max: usize, quiet_max: Duration) -> Self {
        Self { listener, seats: Arc::new(Semaphore::new(connections_max)), quiet_max }
    }

    /// The next connection. One over the cap is closed at once: its client learns that at once.
    async fn next(&self) -> (Corked<Connection>, SocketAddr) {
        loop {
            let (stream, peer) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) if is_the_clients_doing(&error) => continue,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(seat) = self.seats.clone().try_acquire_owned() else {
                tracing::debug!(%peer, "a connection over the cap was closed");
                continue;
            };
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%peer, %error, "the connection is gone already");
                continue;
            }
            return (Corked::new(Connection::new(stream, seat, self.quiet_max)), peer);
        }
    }

    /// All connections from now on.
    pub(super) fn incoming(self) -> impl Stream<Item = io::Result<Corked<Connection>>> {
        futures::stream::unfold(self, |door| async move {
            let (connection, _) = door.next().await;
            Some((Ok(connection), door))
        })
    }
}

impl axum::serve::Listener for Door {
    type Io = Corked<Connection>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Corked<Connection>, SocketAddr) {
        self.next().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

fn is_the_clients_doing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// A client's connection, which holds its seat until it is dropped.
pub(super) struct Connection {
    stream: TcpStream,
    quiet_max: Duration,
    look: Pin<Box<Sleep>>,
    /// Whether a byte went either way since the last look.
    moved: bool,
    _seat: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: TcpStream, seat: OwnedSemaphorePermit, quiet_max: Duration) -> Self {
        let look = Box::pin(tokio::time::sleep(quiet_max));
        Self { stream, quiet_max, look, moved: false, _seat: seat }
    }

    fn note<T>(&mut self, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.moved |= matches!(done, Poll::Ready(Ok(_)));
        done
    }

    /// Looks whether the connection moved since the last look. A timer that is read now and then
    /// costs nothing on the way of each byte.
    fn check_quiet(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.look.as_mut().poll(cx).is_ready() {
            if !std::mem::take(&mut self.moved) {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the connection was silent too long"));
            }
            self.look.set(tokio::time::sleep(self.quiet_max));
        }
        Ok(())
    }
}

impl Connected for Corked<Connection> {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.get_ref().stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_pending() {
            self.check_quiet(cx)?;
        }
        self.note(read)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

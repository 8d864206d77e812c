//! A socket that holds what is written to it for one turn of the scheduler.
//!
//! A commit sets many calls and answers free at once, each a task of its own. Each would wake the task
//! of its connection, which would write what that one had to say: a system call, and a wake-up of
//! whoever reads it, for each message. Held for a turn, all that is ready to be said goes in one write.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// As much is held, in bytes, before it is written whatever else there is.
const HELD_MAX_BYTES: usize = 32 * 1024;

/// Behind a turn that was waited for in vain the next flush waits for none, behind two of them the next
/// three, and so on up to this power of two: where little is said at a time the wait itself is what costs,
/// because the runtime wakes a thread for a task that gives up its turn.
const IN_VAIN_MAX: u32 = 4;

/// See the module.
#[derive(Debug)]
pub struct Corked<T> {
    socket: T,
    held: Vec<u8>,
    /// Bytes of `held` that are written already.
    written: usize,
    /// Whether the turn is over that a flush waits for.
    has_waited: bool,
    /// Bytes held when the turn began.
    held_at_first: usize,
    /// Turns waited for in vain, one behind the other.
    in_vain: u32,
    /// Flushes to come that wait for no turn, because of those.
    at_once: u32,
}

impl<T> Corked<T> {
    /// Holds nothing yet.
    pub fn new(socket: T) -> Self {
        Self {
            socket,
            held: Vec::new(),
            written: 0,
            has_waited: false,
            held_at_first: 0,
            in_vain: 0,
            at_once: 0,
        }
    }

    /// The socket.
    pub fn get_ref(&self) -> &T {
        &self.socket
    }
}

impl<T: AsyncWrite + Unpin> Corked<T> {
    fn poll_write_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.held.len() {
            let count = ready!(Pin::new(&mut self.socket).poll_write(cx, &self.held[self.written..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
        }
        self.held.clear();
        (self.written, self.has_waited) = (0, false);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Corked<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Corked<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.held.len() + bytes.len() > HELD_MAX_BYTES {
            ready!(self.poll_write_held(cx))?;
            if bytes.len() > HELD_MAX_BYTES {
                return Pin::new(&mut self.socket).poll_write(cx, bytes);
            }
        }
        self.held.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    /// It is not: what is held lies in one piece.
    fn is_write_vectored(&self) -> bool {
        false
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.held.is_empty() && !self.has_waited {
            self.has_waited = true;
            if self.at_once == 0 {
                self.held_at_first = self.held.len();
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.at_once -= 1;
        } else if self.has_waited && self.held_at_first > 0 {
            let has_gained = self.held.len() > self.held_at_first;
            self.in_vain = if has_gained { 0 } else { (self.in_vain + 1).min(IN_VAIN_MAX) };
            (self.held_at_first, self.at_once) = (0, (1 << self.in_vain) - 1);
        }
        ready!(self.poll_write_held(cx))?;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_held(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Counts the writes that reach it.
    struct Counted(Vec<Vec<u8>>);

    impl AsyncWrite for Counted {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            // No more than five bytes at a time, as a full socket would.
            let taken = bytes.len().min(5);
            self.0.push(bytes[..taken].to_vec());
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn said(corked: &Corked<Counted>) -> Vec<&str> {
        corked.get_ref().0.iter().map(|bytes| std::str::from_utf8(bytes).unwrap()).collect()
    }

    #[test]
    fn what_is_said_within_a_turn_goes_in_one_write() {
        let mut corked = Corked::new(Counted(Vec::new()));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut corked).poll_write(&mut cx, b"ab").is_ready());
        assert!(Pin::new(&mut corked).poll_flush(&mut cx).is_pending());
        assert!(Pin::new(&mut corked).poll_write(&mut cx, b"cd").is_ready());
        assert_eq!(said(&corked), Vec::<&str>::new());
        assert!(Pin::new(&mut corked).poll_flush(&mut cx).is_ready());
        assert_eq!(said(&corked), ["abcd"]);
        assert!(Pin::new(&mut corked).poll_flush(&mut cx).is_ready(), "nothing is held: nothing to wait for");
        assert!(Pin::new(&mut corked).poll_write(&mut cx, b"efghijkl").is_ready());
        assert!(Pin::new(&mut corked).poll_flush(&mut cx).is_pending(), "each turn is waited for");
        assert!(Pin::new(&mut corked).poll_shutdown(&mut cx).is_ready(), "an end waits for none");
        assert_eq!(said(&corked), ["abcd", "efghi", "jkl"]);
    }

    #[test]
    fn a_turn_is_not_waited_for_where_that_was_in_vain() {
        let mut corked = Corked::new(Counted(Vec::new()));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut waits = |said_meanwhile: bool| {
            assert!(Pin::new(&mut corked).poll_write(&mut cx, b"a").is_ready());
            let waits = Pin::new(&mut corked).poll_flush(&mut cx).is_pending();
            if waits && said_meanwhile {
                assert!(Pin::new(&mut corked).poll_write(&mut cx, b"b").is_ready());
            }
            assert!(!waits || Pin::new(&mut corked).poll_flush(&mut cx).is_ready());
            waits
        };
        let alone: Vec<bool> = (0..40).map(|_| waits(false)).collect();
        let waited: Vec<usize> = (0..40).filter(|n| alone[*n]).collect();
        assert_eq!(waited, [0, 2, 6, 14, 30]);
        (0..6).for_each(|_| assert!(!waits(true)));
        assert!((0..20).all(|_| waits(true)), "each turn that brings something is waited for");
    }

    #[tokio::test]
    async fn every_byte_arrives_in_order_however_much_it_is() {
        let (near, mut far) = tokio::io::duplex(1_000);
        let sent: Vec<u8> = (0..=u8::MAX).cycle().take(5 * HELD_MAX_BYTES + 7).collect();
        let writing = async {
            let mut corked = Corked::new(near);
            for piece in [10, HELD_MAX_BYTES, 3, 2 * HELD_MAX_BYTES, 40_000].iter().scan(0, |from, length| {
                let piece = *from..(*from + length).min(sent.len());
                *from = piece.end;
                Some(piece)
            }) {
                corked.write_all(&sent[piece]).await.unwrap();
            }
            corked.flush().await.unwrap();
            corked.shutdown().await.unwrap();
        };
        let mut read = Vec::new();
        let ((), count) = tokio::join!(writing, far.read_to_end(&mut read));
        assert_eq!(count.unwrap(), 10 + HELD_MAX_BYTES + 3 + 2 * HELD_MAX_BYTES + 40_000);
        assert_eq!(read, sent[..read.len()]);
    }
}

//! The timeout of writes: a client that does not read its answer loses its connection.
//!
//! An answer that is not taken would hold its memory and its place for ever. Never here: the content of an answer.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::connection::ConnectionState;
use crate::metrics::METRICS;

/// A write without progress for this long ends the connection.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The same once the stop of the process has begun.
const TIMEOUT_AT_STOP: Duration = Duration::from_secs(2);

type Wait = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A stream whose peer has to read in time.
pub struct TimedStream<S> {
    stream: S,
    connection: Arc<ConnectionState>,
    stop: CancellationToken,
    /// The timeout of a write that makes no progress.
    wait: Option<Wait>,
    has_timed_out: bool,
}

impl<S> TimedStream<S> {
    pub fn new(stream: S, connection: Arc<ConnectionState>, stop: CancellationToken) -> TimedStream<S> {
        TimedStream { stream, connection, stop, wait: None, has_timed_out: false }
    }

    /// Return the result of a write, or the error of its timeout.
    fn watched<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            if self.wait.take().is_some() {
                self.connection.set_unread(false);
            }
            return written;
        }
        if !self.has_timed_out {
            let wait = self.wait.get_or_insert_with(|| {
                self.connection.set_unread(true);
                Box::pin(timeout(self.stop.clone()))
            });
            ready!(wait.as_mut().poll(context));
            self.wait = None;
            self.has_timed_out = true;
            METRICS.http.unread.increment(1);
        }
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its answer")))
    }
}

async fn timeout(stop: CancellationToken) {
    let of_stop = async {
        stop.cancelled().await;
        tokio::time::sleep(TIMEOUT_AT_STOP).await;
    };
    tokio::select! {
        () = tokio::time::sleep(TIMEOUT) => {}
        () = of_stop => {}
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watched(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.watched(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.watched(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watched(context, closed)
    }
}

/// Prepare an accepted connection: small answers do not wait for more bytes to send, and the system keeps bytes
/// that the client does not take no longer than this program does.
pub fn prepare(stream: &TcpStream) {
    // A connection that is gone already fails at its first read.
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(stream).set_tcp_user_timeout(Some(TIMEOUT));
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    use super::*;

    /// A stream with room for four bytes, and the client at its other end.
    fn stream(stop: &CancellationToken) -> (TimedStream<tokio::io::DuplexStream>, tokio::io::DuplexStream) {
        let (server, client) = duplex(4);
        (TimedStream::new(server, Arc::default(), stop.clone()), client)
    }

    /// The clock has steps of a millisecond.
    fn assert_took(begun: Instant, expected: Duration) {
        let took = begun.elapsed();
        assert!((expected..expected + Duration::from_millis(10)).contains(&took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn client_that_never_reads_is_cut() {
        let (mut stream, _client) = stream(&CancellationToken::new());
        let begun = Instant::now();
        let error = stream.write_all(b"eight by").await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_took(begun, TIMEOUT);
        let again = stream.write_all(b"x").await.expect_err("it stays given up");
        assert_eq!(again.kind(), io::ErrorKind::TimedOut);
        assert_took(begun, TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn client_that_reads_slowly_is_served() {
        let (mut stream, mut client) = stream(&CancellationToken::new());
        let reading = async {
            for _ in 0..10 {
                tokio::time::sleep(TIMEOUT - Duration::from_secs(1)).await;
                client.read_exact(&mut [0; 4]).await.expect("bytes");
            }
        };
        let (written, ()) = tokio::join!(stream.write_all(&[7; 40]), reading);
        written.expect("it makes progress");
    }

    #[tokio::test(start_paused = true)]
    async fn stop_shortens_the_timeout() {
        let stop = CancellationToken::new();
        let (mut stream, _client) = stream(&stop);
        let begun = Instant::now();
        let stopping = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            stop.cancel();
        };
        let (written, ()) = tokio::join!(stream.write_all(b"eight by"), stopping);
        assert!(written.is_err());
        assert_took(begun, Duration::from_secs(5) + TIMEOUT_AT_STOP);
    }

    #[tokio::test(start_paused = true)]
    async fn unread_answer_is_noted() {
        let (mut stream, mut client) = stream(&CancellationToken::new());
        let connection = stream.connection.clone();
        let reading = async {
            tokio::task::yield_now().await;
            assert!(!connection.waits_for_head());
            client.read_exact(&mut [0; 8]).await.expect("bytes");
        };
        let (written, ()) = tokio::join!(stream.write_all(b"eight by"), reading);
        written.expect("it is read");
        assert!(connection.waits_for_head());
    }
}

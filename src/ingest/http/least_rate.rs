//! The least rate at which the body of a batch has to arrive: a body of any length may take any time, and a
//! client that sends a byte now and then would hold its connection for ever.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::time::{Instant, Sleep, sleep};

use super::super::batch::BodyCut;

/// Bytes that have to arrive while the server waits for them for this long.
const LEAST_BYTES: usize = 1_024;
const WITHIN: Duration = Duration::from_secs(60);

/// A body that ends with an error where it comes too slowly.
pub struct LeastRate<S> {
    body: S,
    /// Bytes since the count began anew.
    bytes: usize,
    /// How long the server has waited for these bytes. The time in which it did not ask for any is not counted.
    waited: Duration,
    waits_since: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl<S> LeastRate<S> {
    pub fn new(body: S) -> LeastRate<S> {
        let timer = Box::pin(sleep(WITHIN));
        LeastRate { body, bytes: 0, waited: Duration::ZERO, waits_since: None, timer }
    }

    fn arrived(&mut self, bytes: usize) {
        self.waited += self.waits_since.take().map_or(Duration::ZERO, |since| since.elapsed());
        self.bytes += bytes;
        if self.bytes >= LEAST_BYTES {
            self.bytes = 0;
            self.waited = Duration::ZERO;
        }
    }
}

impl<S, E> Stream for LeastRate<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    type Item = Result<Bytes, BodyCut>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Poll::Ready(frame) = self.body.poll_next_unpin(context) {
            return Poll::Ready(frame.map(|frame| {
                let bytes = frame.map_err(|_| BodyCut)?;
                self.arrived(bytes.len());
                Ok(bytes)
            }));
        }
        if self.waits_since.is_none() {
            let now = Instant::now();
            let left = WITHIN.saturating_sub(self.waited);
            self.waits_since = Some(now);
            self.timer.as_mut().reset(now + left);
        }
        ready!(self.timer.as_mut().poll(context));
        Poll::Ready(Some(Err(BodyCut)))
    }
}

#[cfg(test)]
mod tests {
    use futures::stream::unfold;
    use rstest::rstest;

    use super::*;

    /// A body of pieces of `size` bytes, each of which comes after a pause.
    fn body(size: usize, pause: Duration) -> impl Stream<Item = Result<Bytes, BodyCut>> + Unpin {
        Box::pin(unfold(0, move |sent| async move {
            tokio::time::sleep(pause).await;
            (sent < 20).then(|| (Ok(Bytes::from(vec![b'x'; size])), sent + 1))
        }))
    }

    /// The pieces that are read before the end or the cut, and whether the body is whole.
    async fn read(
        mut body: impl Stream<Item = Result<Bytes, BodyCut>> + Unpin,
        pause: Duration,
    ) -> (usize, bool) {
        let mut pieces = 0;
        while let Some(piece) = body.next().await {
            if piece.is_err() {
                return (pieces, false);
            }
            pieces += 1;
            tokio::time::sleep(pause).await;
        }
        (pieces, true)
    }

    #[rstest]
    #[case::a_byte_now_and_then(1, 25, (2, false))]
    #[case::silent_from_the_beginning(2_000, 61, (0, false))]
    #[case::slow_but_fast_enough(600, 25, (20, true))]
    #[case::fast(100_000, 0, (20, true))]
    #[tokio::test(start_paused = true)]
    async fn slow_body_is_cut(#[case] size: usize, #[case] pause: u64, #[case] expected: (usize, bool)) {
        let body = LeastRate::new(body(size, Duration::from_secs(pause)));
        assert_eq!(read(body, Duration::ZERO).await, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn pause_of_the_reader_is_not_counted() {
        let body = LeastRate::new(body(100, Duration::from_millis(1)));
        assert_eq!(read(body, Duration::from_secs(90)).await, (20, true));
    }
}

//! The answering connection: outcomes and refusals to the addresses that producers named.
//!
//! A connection of its own, because a producer names any address it likes, and RabbitMQ itself ends the connection that
//! publishes to some: of direct reply-to, but nothing it can read, or of a node that has left its cluster. That costs
//! the answers on their way and nothing else. They are not written again: an answer comes at most once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use lapin::{Channel, Event};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::connection::{Link, Session, SessionError};
use super::outgoing::Outgoing;
use crate::metrics::METRICS;

const CHECK_EVERY: Duration = Duration::from_millis(500);
/// Answers written at a time; the others wait in their channel.
const AT_ONCE: usize = 256;
/// How long the last ones may take when the process stops.
const LAST_TIMEOUT: Duration = Duration::from_secs(5);
/// A session that could write is begun again soon, whatever ended it: other producers wait for their answers.
const SOON: Duration = Duration::from_secs(1);
const SAY_EVERY: Duration = Duration::from_secs(60);

/// Writes answers to producers.
pub(super) struct Answers {
    waiting: mpsc::Receiver<Outgoing>,
    dropped: Arc<Dropped>,
    could_write: bool,
}

impl Answers {
    pub(super) fn new(waiting: mpsc::Receiver<Outgoing>, dropped: Arc<Dropped>) -> Answers {
        Answers { waiting, dropped, could_write: false }
    }
}

#[async_trait]
impl Session for Answers {
    const PURPOSE: &'static str = "answering";

    async fn run(&mut self, link: &Link, stop: &CancellationToken) -> Result<(), SessionError> {
        let mut writing = Writing::on(link.channel().await?);
        self.could_write = true;
        let ended = self.write_until(link, &mut writing, stop).await;
        self.dropped.add(writing.failed + writing.futures.len());
        ended
    }

    /// Answers wait while it is away: nothing else does.
    fn connected(&self, _connected: bool) {}

    fn longest_delay(&mut self) -> Option<Duration> {
        std::mem::take(&mut self.could_write).then_some(SOON)
    }
}

impl Answers {
    async fn write_until(
        &mut self,
        link: &Link,
        writing: &mut Writing,
        stop: &CancellationToken,
    ) -> Result<(), SessionError> {
        let mut events = link.events();
        let mut check = interval(CHECK_EVERY);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return self.write_last(writing).await,
                Some(event) = events.next() => match event {
                    Event::ConnectionBlocked(_) => writing.is_blocked = true,
                    Event::ConnectionUnblocked => writing.is_blocked = false,
                    Event::Error(error) => return Err(error.into()),
                    _ => {}
                },
                Some(written) = writing.futures.next() => writing.is_done(written)?,
                Some(answer) = self.waiting.recv(), if writing.may_write() => writing.write(answer),
                _ = check.tick() => writing.check(link)?,
            }
        }
    }

    /// Answers that were handed over before the end was asked for.
    async fn write_last(&mut self, writing: &mut Writing) -> Result<(), SessionError> {
        if writing.is_blocked {
            writing.failed += self.waiting.len();
            return Ok(());
        }
        while let Ok(answer) = self.waiting.try_recv() {
            writing.write(answer);
        }
        let written = async {
            while let Some(written) = writing.futures.next().await {
                writing.is_done(written)?;
            }
            Ok(())
        };
        timeout(LAST_TIMEOUT, written).await.map_err(|_| SessionError::Timeout("an answer"))?
    }
}

/// What one session has on its way.
struct Writing {
    channel: Channel,
    futures: FuturesUnordered<BoxFuture<'static, lapin::Result<()>>>,
    failed: usize,
    is_blocked: bool,
}

impl Writing {
    fn on(channel: Channel) -> Writing {
        Writing { channel, futures: FuturesUnordered::new(), failed: 0, is_blocked: false }
    }

    fn may_write(&self) -> bool {
        !self.is_blocked && self.futures.len() < AT_ONCE
    }

    fn write(&mut self, answer: Outgoing) {
        self.futures.push(Box::pin(answer.publish(self.channel.clone())));
    }

    fn is_done(&mut self, written: lapin::Result<()>) -> Result<(), SessionError> {
        self.failed += usize::from(written.is_err());
        written.map_err(SessionError::from)
    }

    fn check(&self, link: &Link) -> Result<(), SessionError> {
        match link.is_open() && self.channel.status().connected() {
            true => Ok(()),
            false => Err(SessionError::Closed),
        }
    }
}

/// Counts answers that will not come, and says so in the log, once a minute at most.
#[derive(Default)]
pub(super) struct Dropped(Mutex<Unsaid>);

#[derive(Default)]
struct Unsaid {
    answers: usize,
    said: Option<Instant>,
}

impl Dropped {
    pub(super) fn add(&self, answers: usize) {
        METRICS.broker.answers_dropped.increment(answers as u64);
        let to_be_said = self.0.lock().unwrap_or_else(PoisonError::into_inner).add(answers);
        if let Some(answers) = to_be_said {
            tracing::warn!(
                answers,
                "answers to producers dropped: read outcomes in the log, refusals in cdls.rejected"
            );
        }
    }
}

impl Unsaid {
    /// How many are to be said now.
    fn add(&mut self, answers: usize) -> Option<usize> {
        self.answers += answers;
        if self.answers == 0 || self.said.is_some_and(|said| said.elapsed() < SAY_EVERY) {
            return None;
        }
        self.said = Some(Instant::now());
        Some(std::mem::take(&mut self.answers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn dropped_answers_are_said_once_a_minute_and_none_is_left_out() {
        let mut unsaid = Unsaid::default();
        assert_eq!(unsaid.add(0), None, "nothing to be said");
        assert_eq!(unsaid.add(1), Some(1));
        assert_eq!([unsaid.add(2), unsaid.add(0), unsaid.add(3)], [None; 3]);
        tokio::time::advance(SAY_EVERY).await;
        assert_eq!(unsaid.add(1), Some(6));
        assert_eq!(unsaid.add(1), None);
    }
}

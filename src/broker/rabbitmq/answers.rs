//! The answering connection: outcomes and refusals to the queues that producers named.
//!
//! A connection of its own, because a producer names any queue it likes: jobs and replies to processes do not
//! wait for its answers. An answer is not written again: it comes at most once. Never here: addresses of direct
//! reply-to, some of which end the connection that publishes to them (`direct_answers`).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use lapin::{Channel, Event};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::connection::{Link, Session, SessionError};
use super::outgoing::Outgoing;
use crate::metrics::METRICS;

const CHECK_EVERY: Duration = Duration::from_millis(500);
/// Answers written at a time; the others wait in their channel.
const MAX_IN_FLIGHT: usize = 256;
/// How long the last answers may take when the process stops.
const LAST_TIMEOUT: Duration = Duration::from_secs(5);
/// A session that could write is soon begun again, whatever ended it: other producers wait for their answers.
const RECONNECT_DELAY: Duration = Duration::from_secs(1);
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The writer of answers to producers.
pub(super) struct AnswerPublisher {
    waiting: mpsc::Receiver<Outgoing>,
    dropped: Arc<DroppedAnswers>,
    could_write: bool,
}

impl AnswerPublisher {
    pub(super) fn new(waiting: mpsc::Receiver<Outgoing>, dropped: Arc<DroppedAnswers>) -> AnswerPublisher {
        AnswerPublisher { waiting, dropped, could_write: false }
    }
}

#[async_trait]
impl Session for AnswerPublisher {
    fn purpose(&self) -> Cow<'static, str> {
        "answering".into()
    }

    async fn run(&mut self, link: &Link, stop: &CancellationToken) -> Result<(), SessionError> {
        let mut in_flight = AnswersInFlight::on(link.channel().await?);
        self.could_write = true;
        let ended = self.write_until(link, &mut in_flight, stop).await;
        self.dropped.add(in_flight.failed + in_flight.futures.len());
        ended
    }

    /// Answers wait while the connection is away: nothing else does.
    fn connected(&self, _connected: bool) {}

    fn longest_delay(&mut self) -> Option<Duration> {
        std::mem::take(&mut self.could_write).then_some(RECONNECT_DELAY)
    }
}

impl AnswerPublisher {
    async fn write_until(
        &mut self,
        link: &Link,
        in_flight: &mut AnswersInFlight,
        stop: &CancellationToken,
    ) -> Result<(), SessionError> {
        let mut events = link.events();
        let mut check = interval(CHECK_EVERY);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return self.write_last(in_flight).await,
                Some(event) = events.next() => match event {
                    Event::ConnectionBlocked(_) => in_flight.is_blocked = true,
                    Event::ConnectionUnblocked => in_flight.is_blocked = false,
                    Event::Error(error) => return Err(error.into()),
                    _ => {}
                },
                Some(written) = in_flight.futures.next() => in_flight.is_done(written)?,
                Some(answer) = self.waiting.recv(), if in_flight.may_write() => in_flight.write(answer),
                _ = check.tick() => in_flight.check(link)?,
            }
        }
    }

    /// Write the answers that were handed over before the stop.
    async fn write_last(&mut self, in_flight: &mut AnswersInFlight) -> Result<(), SessionError> {
        if in_flight.is_blocked {
            in_flight.failed += self.waiting.len();
            return Ok(());
        }
        while let Ok(answer) = self.waiting.try_recv() {
            in_flight.write(answer);
        }
        let written = async {
            while let Some(written) = in_flight.futures.next().await {
                in_flight.is_done(written)?;
            }
            Ok(())
        };
        timeout(LAST_TIMEOUT, written).await.map_err(|_| SessionError::Timeout("an answer"))?
    }
}

/// The answers that one session has on their way.
struct AnswersInFlight {
    channel: Channel,
    futures: FuturesUnordered<BoxFuture<'static, lapin::Result<()>>>,
    failed: usize,
    is_blocked: bool,
}

impl AnswersInFlight {
    fn on(channel: Channel) -> AnswersInFlight {
        AnswersInFlight { channel, futures: FuturesUnordered::new(), failed: 0, is_blocked: false }
    }

    fn may_write(&self) -> bool {
        !self.is_blocked && self.futures.len() < MAX_IN_FLIGHT
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

/// The count of lost answers, logged once a minute at most.
#[derive(Default)]
pub(super) struct DroppedAnswers(Mutex<UnreportedDrops>);

#[derive(Default)]
struct UnreportedDrops {
    answers: usize,
    reported_at: Option<Instant>,
}

impl DroppedAnswers {
    pub(super) fn add(&self, answers: usize) {
        METRICS.broker.answers_dropped.increment(answers as u64);
        let to_be_said = self.0.lock().add(answers);
        if let Some(answers) = to_be_said {
            tracing::warn!(
                answers,
                "answers to producers dropped: read outcomes in the log, refusals in cdls.rejected"
            );
        }
    }
}

impl UnreportedDrops {
    /// Return how many are to be logged now.
    fn add(&mut self, answers: usize) -> Option<usize> {
        self.answers += answers;
        if self.answers == 0 || self.reported_at.is_some_and(|reported_at| reported_at.elapsed() < WARN_EVERY)
        {
            return None;
        }
        self.reported_at = Some(Instant::now());
        Some(std::mem::take(&mut self.answers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn logs_dropped_answers_once_a_minute() {
        let mut unreported = UnreportedDrops::default();
        assert_eq!(unreported.add(0), None, "nothing to be said");
        assert_eq!(unreported.add(1), Some(1));
        assert_eq!([unreported.add(2), unreported.add(0), unreported.add(3)], [None; 3]);
        tokio::time::advance(WARN_EVERY).await;
        assert_eq!(unreported.add(1), Some(6));
        assert_eq!(unreported.add(1), None);
    }
}

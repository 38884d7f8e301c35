//! The answering connections for addresses of direct reply-to.
//!
//! RabbitMQ itself ends the connection that publishes to some of these addresses: those that it cannot read, and
//! those of a node that has left its cluster. A producer chooses its address, so these answers have connections of
//! their own, opened with the first one. Answers are written together and confirmed; where the broker ends that
//! connection, the unconfirmed ones are written again one by one, on a second connection. The answer that ends
//! this one is given up, and its account watched: its further answers go one by one, and after the next end it
//! receives none for a while (`quarantine`). Never here: answers to queues.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, ErrorKind, Event};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::answers::DroppedAnswers;
use super::connection::{Link, Session, SessionError, first_of};
use super::outgoing::addressed;
use super::quarantine::Quarantine;
use super::reconnects::ReconnectBudget;
use crate::domain::{AccountId, ReplyTo};
use crate::metrics::METRICS;

/// Answers that wait to be written, on either connection; more are dropped.
const MAX_QUEUED: usize = 4096;
/// Answers written together; the others wait in their channel.
const MAX_IN_FLIGHT: usize = 256;
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);
const CHECK_EVERY: Duration = Duration::from_millis(500);
/// The pause before the next connection where many have followed at once.
const RECONNECT_DELAY: Duration = Duration::from_secs(1);
/// AMQP's code of an end that the broker did not mean: the process of the channel failed.
const INTERNAL_ERROR: u16 = 541;

/// The two connections' queues of direct answers, and the quarantine that chooses between them.
pub(super) struct DirectAnswers {
    together: mpsc::Sender<Arc<DirectAnswer>>,
    one_by_one: mpsc::Sender<Arc<DirectAnswer>>,
    quarantine: Arc<Quarantine>,
}

impl DirectAnswers {
    /// Create the queues and their sessions.
    pub(super) fn new(
        dropped: &Arc<DroppedAnswers>,
    ) -> (DirectAnswers, TogetherPublisher, OneByOnePublisher) {
        let (together, for_together) = mpsc::channel(MAX_QUEUED);
        let (one_by_one, for_one_by_one) = mpsc::channel(MAX_QUEUED);
        let quarantine = Arc::<Quarantine>::default();
        let first = TogetherPublisher {
            waiting: for_together,
            next: None,
            one_by_one: one_by_one.clone(),
            dropped: dropped.clone(),
            could_write: false,
            reconnects: ReconnectBudget::default(),
        };
        let second = OneByOnePublisher {
            waiting: for_one_by_one,
            next: None,
            quarantine: quarantine.clone(),
            dropped: dropped.clone(),
            could_write: false,
            reconnects: ReconnectBudget::default(),
        };
        (DirectAnswers { together, one_by_one, quarantine }, first, second)
    }

    /// Take an answer on its way, or withhold it from an account in quarantine; return false if it is dropped.
    pub(super) fn send(&self, to: &ReplyTo, body: Vec<u8>) -> bool {
        if self.quarantine.holds(to.account) {
            METRICS.broker.answers_withheld.increment(1);
            return true;
        }
        let Some((address, properties)) = addressed(to) else { return false };
        let answer = DirectAnswer { account: to.account, address, properties, body };
        let queue = if self.quarantine.watches(to.account) { &self.one_by_one } else { &self.together };
        queue.try_send(Arc::new(answer)).is_ok()
    }
}

pub(super) struct DirectAnswer {
    account: Option<AccountId>,
    address: ShortString,
    properties: BasicProperties,
    body: Vec<u8>,
}

impl DirectAnswer {
    /// Resolve when the broker has dealt with the answer; false if it refused it.
    async fn publish(self: Arc<Self>, channel: Channel) -> lapin::Result<bool> {
        let confirm = channel
            .basic_publish(
                "".into(),
                self.address.clone(),
                BasicPublishOptions::default(),
                &self.body,
                self.properties.clone(),
            )
            .await?;
        Ok(matches!(confirm.await?, Confirmation::Ack(_)))
    }
}

/// The session that writes direct answers together.
pub(super) struct TogetherPublisher {
    waiting: mpsc::Receiver<Arc<DirectAnswer>>,
    next: Option<Arc<DirectAnswer>>,
    one_by_one: mpsc::Sender<Arc<DirectAnswer>>,
    dropped: Arc<DroppedAnswers>,
    could_write: bool,
    reconnects: ReconnectBudget,
}

#[async_trait]
impl Session for TogetherPublisher {
    fn purpose(&self) -> Cow<'static, str> {
        "direct answers".into()
    }

    async fn needed(&mut self) {
        first_of(&mut self.next, &mut self.waiting).await;
    }

    async fn run(&mut self, link: &Link, stop: &CancellationToken) -> Result<(), SessionError> {
        let mut unconfirmed = UnconfirmedAnswers::on(confirming(link).await?);
        self.could_write = true;
        let ended = self.write_until(link, &mut unconfirmed, stop).await;
        self.dropped.add(unconfirmed.refused);
        for (answer, _) in unconfirmed.answers.into_values() {
            let is_written_again =
                ended.as_ref().is_err_and(is_of_the_broker) && self.one_by_one.try_send(answer).is_ok();
            self.dropped.add(usize::from(!is_written_again));
        }
        ended
    }

    /// Answers wait while the connection is away: nothing else does.
    fn connected(&self, _connected: bool) {}

    fn longest_delay(&mut self) -> Option<Duration> {
        std::mem::take(&mut self.could_write).then(|| self.reconnects.pause(RECONNECT_DELAY))
    }
}

impl TogetherPublisher {
    async fn write_until(
        &mut self,
        link: &Link,
        unconfirmed: &mut UnconfirmedAnswers,
        stop: &CancellationToken,
    ) -> Result<(), SessionError> {
        let mut events = link.events();
        let mut check = interval(CHECK_EVERY);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if let Some(first) = self.next.take() {
            unconfirmed.write(first);
        }
        loop {
            tokio::select! {
                () = stop.cancelled() => return self.write_last(unconfirmed).await,
                Some(event) = events.next() => match event {
                    Event::ConnectionBlocked(_) => unconfirmed.is_blocked = true,
                    Event::ConnectionUnblocked => unconfirmed.unblock(),
                    Event::Error(error) => return Err(error.into()),
                    _ => {}
                },
                Some((id, written)) = unconfirmed.futures.next() => unconfirmed.settle(id, written)?,
                Some(answer) = self.waiting.recv(), if unconfirmed.may_write() => unconfirmed.write(answer),
                _ = check.tick() => unconfirmed.check(link)?,
            }
        }
    }

    /// Write the answers that were handed over before the stop.
    async fn write_last(&mut self, unconfirmed: &mut UnconfirmedAnswers) -> Result<(), SessionError> {
        if unconfirmed.is_blocked {
            unconfirmed.refused += self.waiting.len();
            return Ok(());
        }
        while let Ok(answer) = self.waiting.try_recv() {
            unconfirmed.write(answer);
        }
        let written = async {
            while let Some((id, written)) = unconfirmed.futures.next().await {
                unconfirmed.settle(id, written)?;
            }
            Ok(())
        };
        timeout(CONFIRM_TIMEOUT, written).await.map_err(|_| SessionError::Timeout("an answer"))?
    }
}

/// The answers that one session has written and the broker has not confirmed.
struct UnconfirmedAnswers {
    channel: Channel,
    futures: FuturesUnordered<BoxFuture<'static, (u64, lapin::Result<bool>)>>,
    /// In the order in which they were written, with the time at which each was, or at which the broker last
    /// unblocked.
    answers: BTreeMap<u64, (Arc<DirectAnswer>, Instant)>,
    next_id: u64,
    refused: usize,
    is_blocked: bool,
}

impl UnconfirmedAnswers {
    fn on(channel: Channel) -> UnconfirmedAnswers {
        UnconfirmedAnswers {
            channel,
            futures: FuturesUnordered::new(),
            answers: BTreeMap::new(),
            next_id: 0,
            refused: 0,
            is_blocked: false,
        }
    }

    fn may_write(&self) -> bool {
        !self.is_blocked && self.answers.len() < MAX_IN_FLIGHT
    }

    fn write(&mut self, answer: Arc<DirectAnswer>) {
        let id = self.next_id;
        self.next_id += 1;
        self.answers.insert(id, (answer.clone(), Instant::now()));
        let written = answer.publish(self.channel.clone());
        self.futures.push(Box::pin(async move { (id, written.await) }));
    }

    /// Forget an answer that the broker has dealt with. One that failed stays: its connection has ended.
    fn settle(&mut self, id: u64, written: lapin::Result<bool>) -> Result<(), SessionError> {
        let is_taken = written?;
        self.answers.remove(&id);
        self.refused += usize::from(!is_taken);
        Ok(())
    }

    fn unblock(&mut self) {
        self.is_blocked = false;
        let now = Instant::now();
        self.answers.values_mut().for_each(|(_, since)| *since = now);
    }

    fn check(&self, link: &Link) -> Result<(), SessionError> {
        if !link.is_open() || !self.channel.status().connected() {
            return Err(SessionError::Closed);
        }
        let oldest = self.answers.values().next();
        if !self.is_blocked && oldest.is_some_and(|(_, since)| since.elapsed() > CONFIRM_TIMEOUT) {
            return Err(SessionError::Timeout("an answer"));
        }
        Ok(())
    }
}

/// The session that writes one direct answer at a time, so that the one that ends the connection is known.
pub(super) struct OneByOnePublisher {
    waiting: mpsc::Receiver<Arc<DirectAnswer>>,
    next: Option<Arc<DirectAnswer>>,
    quarantine: Arc<Quarantine>,
    dropped: Arc<DroppedAnswers>,
    could_write: bool,
    reconnects: ReconnectBudget,
}

#[async_trait]
impl Session for OneByOnePublisher {
    fn purpose(&self) -> Cow<'static, str> {
        "direct answers one by one".into()
    }

    async fn needed(&mut self) {
        first_of(&mut self.next, &mut self.waiting).await;
    }

    async fn run(&mut self, link: &Link, stop: &CancellationToken) -> Result<(), SessionError> {
        let channel = confirming(link).await?;
        self.could_write = true;
        let mut events = link.events();
        let mut check = interval(CHECK_EVERY);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if let Some(first) = self.next.take() {
            self.write(first, &channel).await?;
        }
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    self.dropped.add(self.waiting.len());
                    return Ok(());
                }
                Some(answer) = self.waiting.recv() => self.write(answer, &channel).await?,
                Some(event) = events.next() => if let Event::Error(error) = event {
                    return Err(error.into());
                },
                _ = check.tick() => if !link.is_open() || !channel.status().connected() {
                    return Err(SessionError::Closed);
                },
            }
        }
    }

    fn connected(&self, _connected: bool) {}

    fn longest_delay(&mut self) -> Option<Duration> {
        std::mem::take(&mut self.could_write).then(|| self.reconnects.pause(RECONNECT_DELAY))
    }
}

impl OneByOnePublisher {
    /// Write an answer and wait until the broker has dealt with it. An answer that fails is given up.
    async fn write(&self, answer: Arc<DirectAnswer>, channel: &Channel) -> Result<(), SessionError> {
        let account = answer.account;
        if self.quarantine.holds(account) {
            METRICS.broker.answers_withheld.increment(1);
            return Ok(());
        }
        let written = timeout(CONFIRM_TIMEOUT, answer.publish(channel.clone())).await;
        self.dropped.add(usize::from(!matches!(written, Ok(Ok(true)))));
        if let Ok(Err(error)) = &written
            && matches!(error.kind(), ErrorKind::ProtocolError(end) if end.get_id() == INTERNAL_ERROR)
            && let Some(account) = account
        {
            self.quarantine.note_end(account);
        }
        written.map_err(|_| SessionError::Timeout("an answer"))??;
        Ok(())
    }
}

/// Open a channel with confirms.
async fn confirming(link: &Link) -> Result<Channel, SessionError> {
    let channel = link.channel().await?;
    timeout(CONFIRM_TIMEOUT, channel.confirm_select(ConfirmSelectOptions::default()))
        .await
        .map_err(|_| SessionError::Timeout("confirm.select"))??;
    Ok(channel)
}

/// Whether the broker ended the connection, and not the network: one of the answers may be the reason, and most
/// of the unconfirmed ones were not looked at.
fn is_of_the_broker(error: &SessionError) -> bool {
    match error {
        SessionError::Amqp(error) => {
            !error.is_io_error() && !matches!(error.kind(), ErrorKind::MissingHeartbeatError)
        }
        SessionError::Closed => true,
        _ => false,
    }
}

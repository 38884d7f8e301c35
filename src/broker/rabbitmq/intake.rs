//! An intake connection: producers' submissions from one queue, in order, a batch at a time.
//!
//! Each queue of submissions has a connection of its own: a submission that lapin cannot read (a short text that
//! is no UTF-8 ends the whole connection) interrupts no other queue. After such an end, the next connection
//! follows at once, and submissions are taken one by one for a while. Each unsettled delivery counts against its
//! message, and after `x-delivery-limit` of them the broker puts the message aside: the unreadable one, not its
//! neighbours. Twenty connections take about a second. For the same reason a session
//! begins with one submission: while the database is away nothing is settled, and the submissions held then
//! count a delivery each time a connection or a process ends.
//!
//! A batch that ingest gives back, as nothing can be logged, is not held until the broker's consumer timeout: its
//! channel is closed, and the queue is consumed again when ingest has room. Each return counts as a delivery too, so
//! the pauses grow while nothing is logged in between: twenty of them last for days.
//!
//! Exchange, queue and bindings are declared again at intervals, since an operator may have removed one: the
//! broker confirms submissions that it cannot route. Never here: whether a submission is accepted.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, ErrorKind, Event};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::super::intake::{IntakeBatch, Settlement};
use super::super::{IntakeState, public};
use super::connection::{Link, Session, SessionError};
use super::reconnects::ReconnectBudget;
use super::rest::{Rest, pause, rest_over};
use super::submissions::{ReadSubmission, read_on};
use super::submit_queue::SubmitQueue;

/// Largest batch, in bytes. Submissions that arrive meanwhile, as many as the broker delivers, form the next
/// batches.
const BATCH_BYTES: usize = 8 << 20;
const SETUP_TIMEOUT: Duration = Duration::from_secs(15);
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// How often exchange, queue and bindings are declared again.
const DECLARE_EVERY: Duration = Duration::from_secs(20);
/// A session that consumed is begun again soon, whatever ended it, and at once after an unreadable submission: the
/// broker counts deliveries, and until the count reaches the limit the submission holds up the ones behind it.
const RECONNECT_DELAY: Duration = Duration::from_millis(250);
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The session that hands batches of one queue to ingest.
pub(super) struct Intake {
    queue: SubmitQueue,
    batches: mpsc::Sender<IntakeBatch>,
    longest_body: usize,
    health: Arc<IntakeHealth>,
    /// How many more submissions are taken one by one.
    careful: usize,
    consumed: bool,
    declared_at: Option<Instant>,
    /// Whether the last session ended with a submission that cannot be read.
    met_unreadable: bool,
    warned_at: Option<Instant>,
    reconnects: ReconnectBudget,
    /// Batches given back since a submission was last settled.
    given_back: u32,
    rest: Option<Rest>,
}

/// Whether submissions arrive, as the process shows it.
#[derive(Default)]
pub(super) struct IntakeHealth(Mutex<IntakeState>);

impl IntakeHealth {
    pub(super) fn state(&self) -> IntakeState {
        self.0.lock().clone()
    }

    /// Record that submissions cannot arrive. Return whether the reason is new.
    pub(super) fn shut(&self, reason: &str) -> bool {
        let shut = IntakeState::Shut(reason.to_owned());
        let was = std::mem::replace(&mut *self.0.lock(), shut.clone());
        was != shut
    }

    fn open(&self) {
        *self.0.lock() = IntakeState::Open;
    }
}

impl Intake {
    /// Create the session. Bodies longer than `longest_body` are not kept.
    pub(super) fn new(
        queue: SubmitQueue,
        batches: mpsc::Sender<IntakeBatch>,
        longest_body: usize,
        health: Arc<IntakeHealth>,
    ) -> Intake {
        Intake {
            queue,
            batches,
            longest_body,
            health,
            careful: 0,
            consumed: false,
            declared_at: None,
            met_unreadable: false,
            warned_at: None,
            reconnects: ReconnectBudget::default(),
            given_back: 0,
            rest: None,
        }
    }
}

#[async_trait]
impl Session for Intake {
    fn purpose(&self) -> Cow<'static, str> {
        self.queue.purpose()
    }

    async fn run(&mut self, link: &Link, stop: &CancellationToken) -> Result<(), SessionError> {
        self.careful = self.careful.max(1);
        // Cancelled with the session: its unsettled batches are delivered again.
        let gone = CancellationToken::new();
        let _gone_with_us = gone.clone().drop_guard();
        let mut events = link.events();
        let lost = async {
            while let Some(event) = events.next().await {
                if let Event::Error(error) = event {
                    return SessionError::from(error);
                }
            }
            SessionError::Closed
        };
        let ended = tokio::select! {
            ended = self.take_in(link, &gone) => ended,
            error = lost => {
                self.careful = usize::from(self.queue.prefetch());
                Err(error)
            }
            () = stop.cancelled() => Ok(()),
        };
        self.met_unreadable = ended.as_ref().is_err_and(is_unreadable);
        if self.met_unreadable {
            self.tell_of_unreadable();
        } else {
            self.declared_at = None;
        }
        if let Err(error) = &ended
            && self.health.shut(&error.to_string())
            && !self.consumed
        {
            // A session that consumed is begun again at once.
            tracing::warn!(
                %error,
                queue = self.queue.name(),
                "submissions cannot arrive: the broker may confirm and drop those that are not `mandatory`"
            );
        }
        ended
    }

    fn connected(&self, _connected: bool) {}

    fn longest_delay(&mut self) -> Option<Duration> {
        std::mem::take(&mut self.consumed).then(|| match self.met_unreadable {
            true => self.reconnects.pause(RECONNECT_DELAY),
            false => RECONNECT_DELAY,
        })
    }
}

/// Whether the client could not read what the broker sent.
fn is_unreadable(error: &SessionError) -> bool {
    matches!(error, SessionError::Amqp(error) if matches!(error.kind(), ErrorKind::ParsingError(_)))
}

impl Intake {
    fn tell_of_unreadable(&mut self) {
        if self.warned_at.is_some_and(|warned_at| warned_at.elapsed() < WARN_EVERY) {
            return;
        }
        self.warned_at = Some(Instant::now());
        tracing::warn!(
            queue = self.queue.name(),
            aside = public::UNREADABLE,
            "submission cannot be read: submissions of its queue are taken one by one until the broker has put it aside; \
             find its producer by the message in `cdls.unreadable`"
        );
    }

    /// Take submissions until ingest takes no more, or until the first failure.
    async fn take_in(&mut self, link: &Link, gone: &CancellationToken) -> Result<(), SessionError> {
        let queue = self.queue.name();
        loop {
            let at_a_time = if self.careful > 0 { 1 } else { self.queue.prefetch() };
            let channel = link.channel().await?;
            if self.declared_at.is_none_or(|declared_at| declared_at.elapsed() >= DECLARE_EVERY) {
                self.queue.declare(&channel).await?;
                self.declared_at = Some(Instant::now());
            }
            if self.rest.is_some() {
                tokio::select! {
                    () = rest_over(&mut self.rest) => {}
                    () = self.batches.closed() => return Ok(()),
                    error = keep_declared(&self.queue, &channel) => return Err(error),
                }
            }
            let setup = async {
                channel.basic_qos(at_a_time, BasicQosOptions::default()).await?;
                let tag = Uuid::now_v7().to_string();
                let options = BasicConsumeOptions::default();
                channel.basic_consume(queue.as_str().into(), tag.into(), options, FieldTable::default()).await
            };
            let consumer = timeout(SETUP_TIMEOUT, setup)
                .await
                .map_err(|_| SessionError::Timeout("the intake queue"))??;
            self.consumed = true;
            self.health.open();
            let at_a_time = usize::from(at_a_time);
            let (read, submissions) = mpsc::channel(at_a_time);
            let reading = read_on(consumer, self.longest_body, read);
            let batches = BatchReader { channel: channel.clone(), queue: &queue, submissions, gone };
            let declared = self.queue.clone();
            let ended = tokio::select! {
                ended = self.hand_over(batches, at_a_time) => ended,
                never = reading => match never {},
                error = keep_declared(&declared, &channel) => {
                    self.consumed = false;
                    Err(error)
                }
            };
            match ended {
                Ok(BatchEnd::WithMore) => close(&channel).await?,
                Ok(BatchEnd::NoMore) => return Ok(()),
                Err(error) => {
                    self.careful = usize::from(self.queue.prefetch());
                    return Err(error);
                }
            }
        }
    }

    /// Hand batches over, each after the one before is settled.
    async fn hand_over(
        &mut self,
        mut batches: BatchReader<'_>,
        most: usize,
    ) -> Result<BatchEnd, SessionError> {
        loop {
            let (batch, tags, settled) = tokio::select! {
                batch = batches.next(most) => batch?,
                () = self.batches.closed() => return Ok(BatchEnd::NoMore),
            };
            let taken = batch.submitted.len();
            if self.batches.send(batch).await.is_err() {
                return Ok(BatchEnd::NoMore);
            }
            match settled.await {
                Ok(Settlement::Done) => {}
                Ok(Settlement::GivenBack { unsettled, room }) => {
                    self.give_back(&batches.channel, &tags, &unsettled, room).await?;
                    return Ok(BatchEnd::WithMore);
                }
                // Given up unsettled: the process stops.
                Err(_) => return Ok(BatchEnd::NoMore),
            }
            self.given_back = 0;
            let last = tags.last().copied().unwrap_or_default();
            let options = BasicAckOptions { multiple: true };
            timeout(ACK_TIMEOUT, batches.channel.basic_ack(last, options))
                .await
                .map_err(|_| SessionError::Timeout("basic.ack"))??;
            if self.careful > 0 {
                self.careful = self.careful.saturating_sub(taken);
                if self.careful == 0 {
                    return Ok(BatchEnd::WithMore);
                }
            }
        }
    }
}

impl Intake {
    /// Acknowledge the settled submissions of a batch, and rest. The others go back when the channel is closed.
    async fn give_back(
        &mut self,
        channel: &Channel,
        tags: &[u64],
        unsettled: &[u64],
        room: watch::Receiver<bool>,
    ) -> Result<(), SessionError> {
        if unsettled.len() < tags.len() {
            self.given_back = 0;
        }
        let pause = pause(self.given_back);
        self.given_back += 1;
        self.rest = Some(Rest { until: Instant::now() + pause, room });
        // The next session takes them one by one: only the first one of the queue counts further deliveries.
        self.careful = usize::from(self.queue.prefetch());
        tracing::warn!(
            queue = self.queue.name(),
            submissions = unsettled.len(),
            pause_in_seconds = pause.as_secs(),
            "submissions cannot be logged: given back to their queue, which is consumed again when there is room"
        );
        for tag in tags.iter().filter(|tag| !unsettled.contains(tag)) {
            timeout(ACK_TIMEOUT, channel.basic_ack(*tag, BasicAckOptions::default()))
                .await
                .map_err(|_| SessionError::Timeout("basic.ack"))??;
        }
        Ok(())
    }
}

/// Repeat the declarations until one fails. Existing objects stay as they are.
async fn keep_declared(queue: &SubmitQueue, channel: &Channel) -> SessionError {
    loop {
        sleep(DECLARE_EVERY).await;
        if let Err(error) = queue.declare(channel).await {
            return error;
        }
    }
}

enum BatchEnd {
    WithMore,
    NoMore,
}

async fn close(channel: &Channel) -> Result<(), SessionError> {
    timeout(ACK_TIMEOUT, channel.close(200, "OK".into()))
        .await
        .map_err(|_| SessionError::Timeout("channel.close"))??;
    Ok(())
}

struct BatchReader<'s> {
    channel: Channel,
    queue: &'s str,
    submissions: mpsc::Receiver<ReadSubmission>,
    gone: &'s CancellationToken,
}

impl BatchReader<'_> {
    /// Return the waiting submissions, at least one and at most `most`, with their delivery tags.
    async fn next(
        &mut self,
        most: usize,
    ) -> Result<(IntakeBatch, Vec<u64>, oneshot::Receiver<Settlement>), SessionError> {
        let ended = || SessionError::ConsumerEnded(self.queue.to_owned());
        let (tag, first) = self.submissions.recv().await.ok_or_else(ended)??;
        let mut bytes = first.body.len();
        let (mut tags, mut submitted) = (vec![tag], vec![first]);
        while submitted.len() < most
            && bytes < BATCH_BYTES
            && let Ok(read) = self.submissions.try_recv()
        {
            let (tag, submission) = read?;
            tags.push(tag);
            bytes += submission.body.len();
            submitted.push(submission);
        }
        let (settled, is_settled) = oneshot::channel();
        let batch = IntakeBatch::new(submitted, self.gone.clone(), settled);
        Ok((batch.from_own_queue(self.queue != public::SUBMIT), tags, is_settled))
    }
}

//! The intake connection: producers' submissions from `cdls.submit`, in order, a batch at a time.
//!
//! The intake has a connection of its own: a submission that lapin cannot read (a short text that is no UTF-8
//! ends the whole connection) interrupts nothing else. After such an end, submissions are taken one by one
//! for a while. Each unsettled delivery counts against its message, and after `x-delivery-limit` of them the
//! broker puts the message aside: the unreadable one, not its neighbours. For the same reason a session
//! begins with one submission: while the database is away nothing is settled, and the submissions held then
//! count a delivery each time a connection or a process ends.
//!
//! Exchange, queue and bindings are declared again at intervals, since an operator may have removed one: the
//! broker confirms submissions that it cannot route. Never here: whether a submission is accepted.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Event};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::super::intake::IntakeBatch;
use super::super::{IntakeState, public};
use super::connection::{Link, Session, SessionError};
use super::submissions::{ReadSubmission, read_on};
use super::topology;

/// Submissions delivered and not acknowledged; also the largest batch.
const PREFETCH: u16 = 500;
/// Largest batch, in bytes. Submissions that arrive meanwhile, as many as the broker delivers, form the next
/// batches.
const BATCH_BYTES: usize = 8 << 20;
const SETUP_TIMEOUT: Duration = Duration::from_secs(15);
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// How often exchange, queue and bindings are declared again.
const DECLARE_EVERY: Duration = Duration::from_secs(20);
/// A session that consumed is begun again soon, whatever ended it: the broker counts deliveries, and until
/// the count reaches the limit an unreadable submission holds up the ones behind it.
const RECONNECT_DELAY: Duration = Duration::from_millis(250);

/// The session that hands batches to ingest.
pub(super) struct Intake {
    batches: mpsc::Sender<IntakeBatch>,
    longest_body: usize,
    health: Arc<IntakeHealth>,
    /// How many more submissions are taken one by one.
    careful: usize,
    consumed: bool,
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
        batches: mpsc::Sender<IntakeBatch>,
        longest_body: usize,
        health: Arc<IntakeHealth>,
    ) -> Intake {
        Intake { batches, longest_body, health, careful: 0, consumed: false }
    }
}

#[async_trait]
impl Session for Intake {
    const PURPOSE: &'static str = "intake";

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
                self.careful = usize::from(PREFETCH);
                Err(error)
            }
            () = stop.cancelled() => Ok(()),
        };
        if let Err(error) = &ended
            && self.health.shut(&error.to_string())
            && !self.consumed
        {
            // A session that consumed is begun again at once.
            tracing::warn!(
                %error,
                "submissions cannot arrive: the broker may confirm and drop those that are not `mandatory`"
            );
        }
        ended
    }

    fn connected(&self, _connected: bool) {}

    fn longest_delay(&mut self) -> Option<Duration> {
        std::mem::take(&mut self.consumed).then_some(RECONNECT_DELAY)
    }
}

impl Intake {
    /// Take submissions until ingest takes no more, or until the first failure.
    async fn take_in(&mut self, link: &Link, gone: &CancellationToken) -> Result<(), SessionError> {
        loop {
            let at_a_time = if self.careful > 0 { 1 } else { PREFETCH };
            let channel = link.channel().await?;
            declare(&channel).await?;
            let setup = async {
                channel.basic_qos(at_a_time, BasicQosOptions::default()).await?;
                let tag = Uuid::now_v7().to_string();
                let options = BasicConsumeOptions::default();
                channel.basic_consume(public::SUBMIT.into(), tag.into(), options, FieldTable::default()).await
            };
            let consumer = timeout(SETUP_TIMEOUT, setup)
                .await
                .map_err(|_| SessionError::Timeout("the intake queue"))??;
            self.consumed = true;
            self.health.open();
            let at_a_time = usize::from(at_a_time);
            let (read, submissions) = mpsc::channel(at_a_time);
            let reading = read_on(consumer, self.longest_body, read);
            let batches = BatchReader { channel: channel.clone(), submissions, gone };
            let ended = tokio::select! {
                ended = self.hand_over(batches, at_a_time) => ended,
                never = reading => match never {},
                error = keep_declared(&channel) => {
                    self.consumed = false;
                    Err(error)
                }
            };
            match ended {
                Ok(BatchEnd::WithMore) => close(&channel).await?,
                Ok(BatchEnd::NoMore) => return Ok(()),
                Err(error) => {
                    self.careful = usize::from(PREFETCH);
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
            let (batch, last, settled) = tokio::select! {
                batch = batches.next(most) => batch?,
                () = self.batches.closed() => return Ok(BatchEnd::NoMore),
            };
            let taken = batch.submitted.len();
            if self.batches.send(batch).await.is_err() {
                return Ok(BatchEnd::NoMore);
            }
            // Given up unsettled: the process stops.
            if settled.await.is_err() {
                return Ok(BatchEnd::NoMore);
            }
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

/// Declare exchange, queue and bindings where they are missing.
async fn declare(channel: &Channel) -> Result<(), SessionError> {
    timeout(SETUP_TIMEOUT, topology::declare_public(channel))
        .await
        .map_err(|_| SessionError::Timeout("the declaration of the intake"))??;
    Ok(())
}

/// Repeat the declarations until one fails. Existing objects stay as they are.
async fn keep_declared(channel: &Channel) -> SessionError {
    loop {
        sleep(DECLARE_EVERY).await;
        if let Err(error) = declare(channel).await {
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
    submissions: mpsc::Receiver<ReadSubmission>,
    gone: &'s CancellationToken,
}

impl BatchReader<'_> {
    /// Return the waiting submissions, at least one and at most `most`, with the delivery tag of the last.
    async fn next(&mut self, most: usize) -> Result<(IntakeBatch, u64, oneshot::Receiver<()>), SessionError> {
        let ended = || SessionError::ConsumerEnded(public::SUBMIT.to_owned());
        let (mut last, first) = self.submissions.recv().await.ok_or_else(ended)??;
        let mut bytes = first.body.len();
        let mut submitted = vec![first];
        while submitted.len() < most
            && bytes < BATCH_BYTES
            && let Ok(read) = self.submissions.try_recv()
        {
            let (tag, submission) = read?;
            last = tag;
            bytes += submission.body.len();
            submitted.push(submission);
        }
        let (settled, is_settled) = oneshot::channel();
        Ok((IntakeBatch::new(submitted, self.gone.clone(), settled), last, is_settled))
    }
}

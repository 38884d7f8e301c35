//! The intake connection: takes producers' submissions from `cdls.submit`, in order, a batch at a time.
//!
//! A connection of its own, so that a submission that lapin cannot read (a short text that is no UTF-8 ends the whole
//! connection) interrupts nothing else. After such an end, submissions are taken one by one for a while: each delivery
//! that is not settled counts against its message, and after `x-delivery-limit` of them the broker puts it aside. So
//! the one that cannot be read is put aside, and not its neighbours. For the same reason a session begins with one
//! submission: while the database is away nothing is settled, and what is held then counts a delivery each time a
//! connection or a process ends. Never here: whether a submission is accepted.

use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Event};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::super::intake::IntakeBatch;
use super::super::public;
use super::connection::{Link, Session, SessionError};
use super::submissions::{Read, read_on};
use super::topology;

/// Submissions delivered and not acknowledged; also how many make a batch at most.
const PREFETCH: u16 = 500;
/// What arrives meanwhile, as many as the broker delivers, makes the next batches.
const BATCH_BYTES: usize = 8 << 20;
const SETUP_TIMEOUT: Duration = Duration::from_secs(15);
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// A session that consumed is begun again soon, whatever ended it: the broker counts deliveries, and until it has
/// counted enough a submission that cannot be read holds up those behind it.
const SOON: Duration = Duration::from_millis(250);

/// Hands batches to whoever takes submissions in.
pub(super) struct Intake {
    batches: mpsc::Sender<IntakeBatch>,
    longest_body: usize,
    /// How many more submissions are taken one by one.
    careful: usize,
    consumed: bool,
}

impl Intake {
    /// Longer bodies than `longest_body` are not kept.
    pub(super) fn new(batches: mpsc::Sender<IntakeBatch>, longest_body: usize) -> Intake {
        Intake { batches, longest_body, careful: 0, consumed: false }
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
        tokio::select! {
            ended = self.take_in(link, &gone) => ended,
            error = lost => {
                self.careful = usize::from(PREFETCH);
                Err(error)
            }
            () = stop.cancelled() => Ok(()),
        }
    }

    fn connected(&self, _connected: bool) {}

    fn longest_delay(&mut self) -> Option<Duration> {
        std::mem::take(&mut self.consumed).then_some(SOON)
    }
}

impl Intake {
    /// Until nobody takes submissions in any more, or the first failure.
    async fn take_in(&mut self, link: &Link, gone: &CancellationToken) -> Result<(), SessionError> {
        loop {
            let at_a_time = if self.careful > 0 { 1 } else { PREFETCH };
            let channel = link.channel().await?;
            let setup = async {
                topology::declare_public(&channel).await?;
                channel.basic_qos(at_a_time, BasicQosOptions::default()).await?;
                let tag = Uuid::now_v7().to_string();
                let options = BasicConsumeOptions::default();
                channel.basic_consume(public::SUBMIT.into(), tag.into(), options, FieldTable::default()).await
            };
            let consumer = timeout(SETUP_TIMEOUT, setup)
                .await
                .map_err(|_| SessionError::Timeout("the intake queue"))??;
            self.consumed = true;
            let at_a_time = usize::from(at_a_time);
            let (read, submissions) = mpsc::channel(at_a_time);
            let reading = read_on(consumer, self.longest_body, read);
            let batches = Batches { channel: channel.clone(), submissions, gone };
            let ended = tokio::select! {
                ended = self.hand_over(batches, at_a_time) => ended,
                never = reading => match never {},
            };
            match ended {
                Ok(GoOn::WithMore) => close(&channel).await?,
                Ok(GoOn::NoMore) => return Ok(()),
                Err(error) => {
                    self.careful = usize::from(PREFETCH);
                    return Err(error);
                }
            }
        }
    }

    /// Hands batches over, one after the other is settled.
    async fn hand_over(&mut self, mut batches: Batches<'_>, most: usize) -> Result<GoOn, SessionError> {
        loop {
            let (batch, last, settled) = tokio::select! {
                batch = batches.next(most) => batch?,
                () = self.batches.closed() => return Ok(GoOn::NoMore),
            };
            let taken = batch.submitted.len();
            if self.batches.send(batch).await.is_err() {
                return Ok(GoOn::NoMore);
            }
            // Given up unsettled: the process stops.
            if settled.await.is_err() {
                return Ok(GoOn::NoMore);
            }
            let options = BasicAckOptions { multiple: true };
            timeout(ACK_TIMEOUT, batches.channel.basic_ack(last, options))
                .await
                .map_err(|_| SessionError::Timeout("basic.ack"))??;
            if self.careful > 0 {
                self.careful = self.careful.saturating_sub(taken);
                if self.careful == 0 {
                    return Ok(GoOn::WithMore);
                }
            }
        }
    }
}

enum GoOn {
    WithMore,
    NoMore,
}

async fn close(channel: &Channel) -> Result<(), SessionError> {
    timeout(ACK_TIMEOUT, channel.close(200, "OK".into()))
        .await
        .map_err(|_| SessionError::Timeout("channel.close"))??;
    Ok(())
}

struct Batches<'s> {
    channel: Channel,
    submissions: mpsc::Receiver<Read>,
    gone: &'s CancellationToken,
}

impl Batches<'_> {
    /// What is there, at least one and at most `most`, with the delivery tag of the last.
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

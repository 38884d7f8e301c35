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
use futures::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Consumer, Event};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::super::intake::{IntakeBatch, Submitted, TokenHeader};
use super::super::public;
use super::connection::{Link, Session, SessionError};
use super::topology;

/// Submissions delivered and not acknowledged; also how many make a batch at most.
const PREFETCH: u16 = 500;
/// Texts that arrive meanwhile wait in the queue.
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
        self.consumed = false;
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

    fn longest_delay(&self) -> Option<Duration> {
        self.consumed.then_some(SOON)
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
            let batches = Batches { channel: channel.clone(), consumer, gone };
            match self.hand_over(batches, usize::from(at_a_time)).await {
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
                batch = batches.next(most, self.longest_body) => batch?,
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
    consumer: Consumer,
    gone: &'s CancellationToken,
}

impl Batches<'_> {
    /// What is there, at least one and at most `most`, with the delivery tag of the last.
    async fn next(
        &mut self,
        most: usize,
        longest_body: usize,
    ) -> Result<(IntakeBatch, u64, oneshot::Receiver<()>), SessionError> {
        let ended = || SessionError::ConsumerEnded(public::SUBMIT.to_owned());
        let delivery = self.consumer.next().await.ok_or_else(ended)??;
        let mut last = delivery.delivery_tag;
        let mut submitted = vec![read(delivery, longest_body)];
        let mut bytes = submitted[0].body.len();
        while submitted.len() < most
            && bytes < BATCH_BYTES
            && let Some(delivery) = self.consumer.next().now_or_never()
        {
            let delivery = delivery.ok_or_else(ended)??;
            last = delivery.delivery_tag;
            let submission = read(delivery, longest_body);
            bytes += submission.body.len();
            submitted.push(submission);
        }
        let (settled, is_settled) = oneshot::channel();
        Ok((IntakeBatch::new(submitted, self.gone.clone(), settled), last, is_settled))
    }
}

fn read(delivery: Delivery, longest_body: usize) -> Submitted {
    let Delivery { routing_key, redelivered, properties, data, .. } = delivery;
    let header = |name: &str| properties.headers().as_ref().and_then(|headers| headers.inner().get(name));
    let text = |text: &Option<lapin::types::ShortString>| {
        text.as_ref().map(|text| text.as_str().to_owned()).filter(|text| !text.is_empty())
    };
    Submitted {
        routing_key: routing_key.as_str().to_owned(),
        body_bytes: data.len(),
        content_type: text(properties.content_type()),
        content_encoding: text(properties.content_encoding()),
        message_id: text(properties.message_id()),
        correlation_id: text(properties.correlation_id()),
        reply_to: text(properties.reply_to()),
        user_id: text(properties.user_id()),
        tsid: token(header("tsid")),
        version: version(header("v")),
        redelivered,
        // Not kept, so that the longest submissions cannot fill the memory while others wait for the database.
        body: if data.len() > longest_body { Vec::new() } else { data },
    }
}

fn token(header: Option<&AMQPValue>) -> TokenHeader {
    let bytes = match header {
        None | Some(AMQPValue::Void) => return TokenHeader::Absent,
        Some(AMQPValue::LongString(text)) => text.as_bytes(),
        Some(AMQPValue::ShortString(text)) => text.as_str().as_bytes(),
        Some(AMQPValue::ByteArray(bytes)) => bytes.as_slice(),
        Some(_) => return TokenHeader::WrongType,
    };
    match str::from_utf8(bytes) {
        Ok(text) if text.trim().is_empty() => TokenHeader::Absent,
        Ok(text) => TokenHeader::Text(text.into()),
        Err(_) => TokenHeader::WrongType,
    }
}

fn version(header: Option<&AMQPValue>) -> i64 {
    match header {
        None | Some(AMQPValue::Void) => 1,
        Some(AMQPValue::ShortShortInt(v)) => i64::from(*v),
        Some(AMQPValue::ShortShortUInt(v)) => i64::from(*v),
        Some(AMQPValue::ShortInt(v)) => i64::from(*v),
        Some(AMQPValue::ShortUInt(v)) => i64::from(*v),
        Some(AMQPValue::LongInt(v)) => i64::from(*v),
        Some(AMQPValue::LongUInt(v)) => i64::from(*v),
        Some(AMQPValue::LongLongInt(v)) => *v,
        Some(AMQPValue::LongString(text)) => {
            str::from_utf8(text.as_bytes()).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
        }
        Some(_) => 0,
    }
}

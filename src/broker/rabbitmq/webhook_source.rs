//! The connection that takes bodies of webhooks out of their queue, a batch at a time, in every process that applies them.
//!
//! A body is acknowledged when it is applied. Bodies whose batch is dropped go back, as do those of a connection or a
//! process that ends: each return counts, and the broker sets a body aside that has come back too often. The number of
//! waiting bodies is looked at in between. Never here: the meaning of a body.

use std::borrow::Cow;
use std::time::Duration;

use async_trait::async_trait;
use futures::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, BasicRejectOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Consumer};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::super::{KeptWebhook, WebhookBatch};
use super::connection::{Link, Session, SessionError};
use super::topology;
use crate::metrics::METRICS;

/// Bodies that are delivered and not acknowledged; also the largest batch.
const PREFETCH: u16 = 128;
/// Bodies behind this many bytes form the next batch.
const BATCH_BYTES: usize = 8 << 20;
const SETUP_TIMEOUT: Duration = Duration::from_secs(15);
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
const CHECK_EVERY: Duration = Duration::from_millis(500);
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// The session that hands batches of bodies over.
pub(super) struct WebhookSource {
    batches: mpsc::Sender<WebhookBatch>,
}

impl WebhookSource {
    pub(super) fn new(batches: mpsc::Sender<WebhookBatch>) -> WebhookSource {
        WebhookSource { batches }
    }
}

#[async_trait]
impl Session for WebhookSource {
    fn purpose(&self) -> Cow<'static, str> {
        "applying webhooks".into()
    }

    async fn run(&mut self, link: &Link, stop: &CancellationToken) -> Result<(), SessionError> {
        let (channel, counting) = (link.channel().await?, link.channel().await?);
        let consumer = timeout(SETUP_TIMEOUT, consume(&channel))
            .await
            .map_err(|_| SessionError::Timeout("the queue of webhooks"))??;
        tokio::select! {
            ended = self.hand_over(consumer, &channel) => ended,
            error = count(&counting) => Err(error),
            error = lost(link, &channel) => Err(error),
            () = stop.cancelled() => Ok(()),
        }
    }

    fn connected(&self, _connected: bool) {}
}

impl WebhookSource {
    /// Hand batches over, each after the one before is settled, until the reader takes no more.
    async fn hand_over(&self, mut bodies: Consumer, channel: &Channel) -> Result<(), SessionError> {
        loop {
            let (webhooks, tags) = tokio::select! {
                batch = next(&mut bodies) => batch?,
                () = self.batches.closed() => return Ok(()),
            };
            let (settled, is_settled) = oneshot::channel();
            if self.batches.send(WebhookBatch::new(webhooks, settled)).await.is_err() {
                return Ok(());
            }
            let aside = is_settled.await.ok();
            timeout(ACK_TIMEOUT, settle(channel, &tags, aside.as_deref()))
                .await
                .map_err(|_| SessionError::Timeout("basic.ack"))??;
        }
    }
}

/// Declare the queue and consume it.
async fn consume(channel: &Channel) -> lapin::Result<Consumer> {
    topology::declare_webhooks(channel).await?;
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let (queue, tag) = (topology::WEBHOOKS.into(), Uuid::now_v7().to_string());
    channel.basic_consume(queue, tag.into(), BasicConsumeOptions::default(), FieldTable::default()).await
}

/// Return the bodies that are there, at least one, with their delivery tags.
async fn next(bodies: &mut Consumer) -> Result<(Vec<KeptWebhook>, Vec<u64>), SessionError> {
    let ended = || SessionError::ConsumerEnded(topology::WEBHOOKS.to_owned());
    let first = bodies.next().await.ok_or_else(ended)??;
    let mut bytes = first.data.len();
    let (mut tags, mut webhooks) = (vec![first.delivery_tag], vec![kept(first)]);
    while webhooks.len() < usize::from(PREFETCH)
        && bytes < BATCH_BYTES
        && let Some(Some(delivery)) = bodies.next().now_or_never()
    {
        let delivery = delivery?;
        bytes += delivery.data.len();
        tags.push(delivery.delivery_tag);
        webhooks.push(kept(delivery));
    }
    Ok((webhooks, tags))
}

fn kept(delivery: Delivery) -> KeptWebhook {
    let Delivery { properties, data, .. } = delivery;
    let app = properties.headers().as_ref().and_then(|headers| headers.inner().get("meta_app_id"));
    let app = match app {
        Some(AMQPValue::LongString(app)) => Some(String::from_utf8_lossy(app.as_bytes()).into_owned()),
        _ => None,
    };
    KeptWebhook { app, received_at: *properties.timestamp(), body: data }
}

/// Settle the bodies of a batch: all are applied but those at the places `aside`. Without these places the batch was given
/// up, and another process may have more luck, or this one later.
async fn settle(channel: &Channel, tags: &[u64], aside: Option<&[usize]>) -> lapin::Result<()> {
    let last = tags.last().copied().unwrap_or_default();
    let Some(aside) = aside else {
        let options = BasicNackOptions { multiple: true, requeue: true };
        return channel.basic_nack(last, options).await;
    };
    let is_aside = |place: usize| aside.contains(&place);
    for tag in aside.iter().filter_map(|place| tags.get(*place)) {
        channel.basic_reject(*tag, BasicRejectOptions { requeue: false }).await?;
    }
    // The highest one that is applied: an acknowledgement of a rejected one would end the channel.
    let applied = tags.iter().enumerate().filter(|(place, _)| !is_aside(*place));
    match applied.map(|(_, tag)| *tag).max() {
        Some(applied) => channel.basic_ack(applied, BasicAckOptions { multiple: true }).await,
        None => Ok(()),
    }
}

/// Show the numbers of bodies that wait and that are set aside, until that fails.
async fn count(channel: &Channel) -> SessionError {
    let mut tick = interval(COUNT_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        match timeout(SETUP_TIMEOUT, topology::count_webhooks(channel)).await {
            Ok(Ok((waiting, aside))) => METRICS.webhooks.waits(f64::from(waiting), f64::from(aside)),
            Ok(Err(error)) => return error.into(),
            Err(_) => return SessionError::Timeout("queue.declare"),
        }
    }
}

/// Wait for the end of the connection or of its channel.
async fn lost(link: &Link, channel: &Channel) -> SessionError {
    let mut check = interval(CHECK_EVERY);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while link.is_open() && channel.status().connected() {
        check.tick().await;
    }
    SessionError::Closed
}

//! The connection that keeps bodies of webhooks: each is persistent, and confirmed by a quorum of the queue's replicas.
//! Opened with the first one.
//!
//! The caller has given up by the time that a connection is open again, and Meta repeats the body: a body whose caller is
//! gone is not published. A body that no queue takes comes back, and its caller hears that it is not kept. lapin hands a
//! waiting return out with whichever confirm is processed next; the confirms that are there are therefore read together,
//! and a return is recognised by its own `message_id`. Never here: taking bodies out of the queue.

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Event};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::super::Webhook;
use super::connection::{Link, Session, SessionError, first_of};
use super::topology;

const SETUP_TIMEOUT: Duration = Duration::from_secs(5);
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);
const CHECK_EVERY: Duration = Duration::from_millis(500);
/// Bodies written at a time; further ones wait in their channel.
const MAX_IN_FLIGHT: usize = 256;
/// How often the queue is declared again, as an operator may have deleted it.
const DECLARE_EVERY: Duration = Duration::from_secs(20);
const PERSISTENT: u8 = 2;

/// A body on its way into the queue.
pub(super) struct OutgoingWebhook {
    pub(super) webhook: Webhook,
    /// Receives whether the broker has the body.
    pub(super) kept: oneshot::Sender<bool>,
}

/// The publisher of bodies.
pub(super) struct WebhookOutlet {
    waiting: mpsc::Receiver<OutgoingWebhook>,
    next: Option<OutgoingWebhook>,
}

impl WebhookOutlet {
    pub(super) fn new(waiting: mpsc::Receiver<OutgoingWebhook>) -> WebhookOutlet {
        WebhookOutlet { waiting, next: None }
    }
}

#[async_trait]
impl Session for WebhookOutlet {
    fn purpose(&self) -> Cow<'static, str> {
        "webhooks".into()
    }

    async fn needed(&mut self) {
        first_of(&mut self.next, &mut self.waiting).await;
    }

    async fn run(&mut self, link: &Link, stop: &CancellationToken) -> Result<(), SessionError> {
        let channel = link.channel().await?;
        timeout(SETUP_TIMEOUT, channel.confirm_select(ConfirmSelectOptions::default()))
            .await
            .map_err(|_| SessionError::Timeout("confirm.select"))??;
        let declaring = link.channel().await?;
        declare(&declaring).await?;
        let mut publishes = Publishes { channel, in_flight: FuturesUnordered::new() };
        let mut events = link.events();
        let mut check = interval(CHECK_EVERY);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut declared_at = Instant::now();
        let mut is_blocked = false;
        loop {
            if !is_blocked && let Some(outgoing) = self.next.take() {
                publishes.begin(outgoing);
            }
            let may_write = !is_blocked && self.next.is_none() && publishes.in_flight.len() < MAX_IN_FLIGHT;
            tokio::select! {
                () = stop.cancelled() => return publishes.end().await,
                Some(event) = events.next() => match event {
                    Event::ConnectionBlocked(reason) => {
                        tracing::warn!(reason, "RabbitMQ blocked the connection: webhooks are answered 503");
                        is_blocked = true;
                    }
                    Event::ConnectionUnblocked => is_blocked = false,
                    Event::Error(error) => return Err(error.into()),
                    _ => {}
                },
                Some(published) = publishes.in_flight.next() => publishes.settle(published)?,
                Some(outgoing) = self.waiting.recv(), if may_write => self.next = Some(outgoing),
                _ = check.tick() => {
                    if !link.is_open() || !publishes.channel.status().connected() {
                        return Err(SessionError::Closed);
                    }
                    if declared_at.elapsed() >= DECLARE_EVERY {
                        declare(&declaring).await?;
                        declared_at = Instant::now();
                    }
                }
            }
        }
    }

    fn connected(&self, _connected: bool) {}
}

async fn declare(channel: &Channel) -> Result<(), SessionError> {
    timeout(SETUP_TIMEOUT, topology::declare_webhooks(channel))
        .await
        .map_err(|_| SessionError::Timeout("the declaration of the webhooks' queue"))??;
    Ok(())
}

/// A publish that the broker has answered.
struct Published {
    id: Uuid,
    kept: oneshot::Sender<bool>,
    is_acknowledged: bool,
    /// The `message_id` of a body that came back with this confirm.
    returned: Option<Uuid>,
}

struct Publishes {
    channel: Channel,
    in_flight: FuturesUnordered<BoxFuture<'static, Result<Published, SessionError>>>,
}

impl Publishes {
    fn begin(&mut self, outgoing: OutgoingWebhook) {
        if outgoing.kept.is_closed() {
            return;
        }
        let channel = self.channel.clone();
        self.in_flight.push(Box::pin(async move {
            let published = publish(channel, outgoing);
            timeout(CONFIRM_TIMEOUT, published)
                .await
                .map_err(|_| SessionError::Timeout("a published webhook"))?
        }));
    }

    /// Answer the callers of all publishes that are confirmed by now. A caller whose answer is dropped with the session
    /// hears that its body is not kept.
    fn settle(&mut self, first: Result<Published, SessionError>) -> Result<(), SessionError> {
        let mut confirmed = vec![first?];
        while let Some(Some(published)) = self.in_flight.next().now_or_never() {
            confirmed.push(published?);
        }
        let returned: HashSet<Uuid> = confirmed.iter().filter_map(|published| published.returned).collect();
        for Published { id, kept, is_acknowledged, .. } in confirmed {
            // The caller may have given up.
            let _ = kept.send(is_acknowledged && !returned.contains(&id));
        }
        if returned.is_empty() {
            return Ok(());
        }
        tracing::warn!(
            bodies = returned.len(),
            "queue of webhooks missing: bodies answered 503; queue declared again"
        );
        // A body that came back may be confirmed later than the return was seen: its caller hears that it is not kept.
        Err(SessionError::Closed)
    }

    /// Wait for the confirms of the bodies that are on their way.
    async fn end(mut self) -> Result<(), SessionError> {
        let ended = async {
            while let Some(published) = self.in_flight.next().await {
                self.settle(published)?;
            }
            Ok(())
        };
        timeout(CONFIRM_TIMEOUT, ended).await.map_err(|_| SessionError::Timeout("a published webhook"))?
    }
}

async fn publish(channel: Channel, outgoing: OutgoingWebhook) -> Result<Published, SessionError> {
    let OutgoingWebhook { webhook, kept } = outgoing;
    let id = Uuid::now_v7();
    let mut headers = FieldTable::default();
    headers.insert("object".into(), AMQPValue::LongString(webhook.object.into()));
    if let Some(app) = webhook.app {
        headers.insert("meta_app_id".into(), AMQPValue::LongString(app.into()));
    }
    let properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_content_type("application/json".into())
        .with_message_id(id.to_string().into())
        .with_timestamp(webhook.received_at)
        .with_headers(headers);
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let queue = topology::WEBHOOKS.into();
    let confirm = channel.basic_publish("".into(), queue, options, &webhook.body, properties).await?;
    let (is_acknowledged, returned) = match confirm.await? {
        Confirmation::Ack(returned) => (true, returned),
        Confirmation::Nack(returned) => (false, returned),
        Confirmation::NotRequested => (false, None),
    };
    let returned = returned.and_then(|message| {
        let id = message.properties.message_id().as_ref()?;
        id.as_str().parse::<Uuid>().ok()
    });
    Ok(Published { id, kept, is_acknowledged, returned })
}

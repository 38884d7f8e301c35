//! The broker over RabbitMQ: its connections, and the channels that lead to them.
//!
//! Never here: the work of a connection, which is in its session.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::interface::MAX_QUEUED_REPLIES;
use super::super::{
    Arrivals, Broker, BrokerError, BrokerState, IntakeBatch, IntakeState, JobDelivery, Rejected, Webhook,
    WebhookBatch, reply_to,
};
use super::answers::{AnswerPublisher, DroppedAnswers};
use super::connection::{Endpoint, Session, supervise};
use super::consumer::JobConsumer;
use super::direct_answers::DirectAnswers;
use super::events::{EventOutlet, OutgoingEvent};
use super::health::ConnectionHealth;
use super::intake::IntakeHealth;
use super::intakes::Intakes;
use super::outbox::Outbox;
use super::outgoing::Outgoing;
use super::publisher::Publisher;
use super::replies::ReplyListener;
use super::topology;
use super::webhook_outlet::{OutgoingWebhook, WebhookOutlet};
use super::webhook_source::WebhookSource;
use crate::domain::{AccountId, Job, Partition, Reply, ReplyTo};
use crate::metrics::METRICS;
use crate::settings::BrokerSettings;

/// Jobs read from the broker that wait for the dispatcher.
const MAX_QUEUED_JOBS: usize = 64;
/// Answers to producers that wait to be published; more are dropped.
const MAX_QUEUED_ANSWERS: usize = 4096;
/// Events that wait to be published; more are dropped.
const MAX_QUEUED_EVENTS: usize = 10_000;
/// Bodies of webhooks that wait to be published; further ones wait for a place, and their callers have a limit.
const MAX_QUEUED_WEBHOOKS: usize = 256;
/// Refused submissions that wait to be published; further ones wait for a place.
const MAX_QUEUED_REJECTED: usize = 256;
/// How long the broker may take to confirm a refused submission.
const REJECTED_TIMEOUT: Duration = Duration::from_secs(10);
/// The part of the time for closing that is reserved for the connections, where jobs stay unpublished.
const CLOSE_RESERVE: Duration = Duration::from_millis(500);

/// The RabbitMQ broker. Dropping it stops its connections without publishing what is pending; see
/// [`Broker::close`].
pub struct RabbitBroker {
    address: String,
    outbox: Arc<Outbox>,
    wanted: watch::Sender<BTreeSet<Partition>>,
    own_replies: mpsc::Sender<Reply>,
    other_replies: mpsc::Sender<Outgoing>,
    answers: mpsc::Sender<Outgoing>,
    direct_answers: DirectAnswers,
    dropped_answers: Arc<DroppedAnswers>,
    events: mpsc::Sender<OutgoingEvent>,
    rejected: mpsc::Sender<Outgoing>,
    webhooks: mpsc::Sender<OutgoingWebhook>,
    endpoint: Endpoint,
    health: Arc<ConnectionHealth>,
    /// Of the shared queue.
    intake: Arc<IntakeHealth>,
    /// `None` until submissions are taken in.
    intakes: Mutex<Option<Intakes>>,
    stop_consuming: CancellationToken,
    stop_publishing: CancellationToken,
    /// Ends the connections at once, whatever they wait for: a silent server would delay each of their steps
    /// for seconds.
    cut: CancellationToken,
    connections: TaskTracker,
}

impl RabbitBroker {
    /// Start to connect in the background, and retry for ever. Fails only if the URL or the authorities cannot be
    /// used.
    pub fn open(settings: &BrokerSettings) -> Result<(Arc<RabbitBroker>, Arrivals), BrokerError> {
        let endpoint = Endpoint::of(settings)?;
        let (jobs_out, jobs) = mpsc::channel::<JobDelivery>(MAX_QUEUED_JOBS);
        let (own_replies, replies) = mpsc::channel(MAX_QUEUED_REPLIES);
        let (other_replies, outgoing_replies) = mpsc::channel(MAX_QUEUED_REPLIES);
        let (answers, outgoing_answers) = mpsc::channel(MAX_QUEUED_ANSWERS);
        let (events, outgoing_events) = mpsc::channel(MAX_QUEUED_EVENTS);
        let (rejected, outgoing_rejected) = mpsc::channel(MAX_QUEUED_REJECTED);
        let (webhooks, outgoing_webhooks) = mpsc::channel(MAX_QUEUED_WEBHOOKS);
        let (wanted, wanted_now) = watch::channel(BTreeSet::new());
        let dropped_answers = Arc::<DroppedAnswers>::default();
        let (direct_answers, together, one_by_one) = DirectAnswers::new(&dropped_answers);
        let broker = Arc::new(RabbitBroker {
            address: topology::new_reply_queue(),
            outbox: Arc::default(),
            wanted,
            own_replies: own_replies.clone(),
            other_replies,
            answers,
            direct_answers,
            dropped_answers,
            events,
            rejected,
            webhooks,
            endpoint,
            health: Arc::default(),
            intake: Arc::default(),
            intakes: Mutex::default(),
            stop_consuming: CancellationToken::new(),
            stop_publishing: CancellationToken::new(),
            cut: CancellationToken::new(),
            connections: TaskTracker::new(),
        });
        let publisher = Publisher {
            outbox: broker.outbox.clone(),
            replies: outgoing_replies,
            rejected: outgoing_rejected,
            health: broker.health.clone(),
        };
        let answers = AnswerPublisher::new(outgoing_answers, broker.dropped_answers.clone());
        let consumer = JobConsumer {
            wanted: wanted_now,
            jobs: jobs_out,
            replies: ReplyListener { queue: broker.address.clone(), replies: own_replies },
            health: broker.health.clone(),
        };
        broker.connect(publisher, &broker.stop_publishing);
        broker.connect(answers, &broker.stop_publishing);
        broker.connect(together, &broker.stop_publishing);
        broker.connect(one_by_one, &broker.stop_publishing);
        broker.connect(EventOutlet::new(outgoing_events), &broker.stop_publishing);
        broker.connect(WebhookOutlet::new(outgoing_webhooks), &broker.stop_publishing);
        broker.connect(consumer, &broker.stop_consuming);
        broker.connections.close();
        Ok((broker, Arrivals { jobs, replies }))
    }

    /// Keep a session running until `stop`, and at the longest until all are cut.
    fn connect(&self, session: impl Session + 'static, stop: &CancellationToken) {
        let supervised = supervise(self.endpoint.clone(), session, stop.clone());
        self.connections.spawn(self.cut.clone().run_until_cancelled_owned(supervised));
    }
}

#[async_trait]
impl Broker for RabbitBroker {
    fn publish(&self, partition: Partition, job: Job) {
        self.outbox.add(partition, job);
    }

    fn consume(&self, partitions: &[Partition]) {
        self.wanted.send_replace(partitions.iter().copied().collect());
    }

    fn reply_address(&self) -> &str {
        &self.address
    }

    fn reply(&self, address: &str, reply: Reply) {
        let taken = if address == self.address {
            self.own_replies.try_send(reply).is_ok()
        } else {
            Outgoing::reply(address, &reply)
                .is_some_and(|outgoing| self.other_replies.try_send(outgoing).is_ok())
        };
        if !taken {
            tracing::debug!(address, "a reply was dropped; its outcome stands in the log");
        }
    }

    fn take_in(&self, longest_body: usize) -> Option<mpsc::Receiver<IntakeBatch>> {
        // One batch waits while one is committed; further submissions stay with the broker.
        let (batches_out, batches) = mpsc::channel(1);
        self.intake.shut("not connected to RabbitMQ yet");
        let intakes = Intakes::new(batches_out, longest_body, self.stop_consuming.clone());
        self.connect(intakes.shared(self.intake.clone()), &self.stop_consuming);
        *self.intakes.lock() = Some(intakes);
        Some(batches)
    }

    fn take_in_from(&self, users: &[String]) {
        let missing = self.intakes.lock().as_mut().map(|intakes| intakes.of_users(users));
        for (intake, end) in missing.into_iter().flatten() {
            self.connect(intake, &end);
        }
    }

    fn answer(&self, to: &ReplyTo, envelope: Vec<u8>) {
        let taken = if reply_to::is_direct(&to.queue) {
            self.direct_answers.send(to, envelope)
        } else {
            Outgoing::answer(to, envelope).is_some_and(|outgoing| self.answers.try_send(outgoing).is_ok())
        };
        if !taken {
            tracing::debug!(queue = to.queue, "an answer to a producer was dropped");
            self.dropped_answers.add(1);
        }
    }

    async fn reject(&self, rejected: Rejected) -> bool {
        let (confirmed, is_confirmed) = oneshot::channel();
        let outgoing = Outgoing::rejected(rejected, confirmed);
        let published = async {
            self.rejected.send(outgoing).await.ok()?;
            is_confirmed.await.ok()
        };
        timeout(REJECTED_TIMEOUT, published).await.ok().flatten().unwrap_or(false)
    }

    fn event(&self, account: AccountId, key: &str, event: Vec<u8>) {
        let event = OutgoingEvent::new(account, key, event);
        let taken = event.is_some_and(|event| self.events.try_send(event).is_ok());
        if !taken {
            tracing::debug!(key, "an event was dropped; the log has what it told");
        }
    }

    fn keeps_webhooks(&self) -> bool {
        true
    }

    async fn keep_webhook(&self, webhook: Webhook) -> bool {
        let (kept, is_kept) = oneshot::channel();
        // An error: the connection ended before the broker confirmed the body.
        self.webhooks.send(OutgoingWebhook { webhook, kept }).await.is_ok() && is_kept.await.unwrap_or(false)
    }

    fn take_webhooks(&self) -> Option<mpsc::Receiver<WebhookBatch>> {
        // One batch waits while one is applied; further bodies stay with the broker.
        let (batches_out, batches) = mpsc::channel(1);
        self.connect(WebhookSource::new(batches_out), &self.stop_consuming);
        Some(batches)
    }

    fn inbound(&self, key: &str, event: Vec<u8>) {
        let event = OutgoingEvent::inbound(key, event);
        if event.is_none_or(|event| self.events.try_send(event).is_err()) {
            METRICS.webhooks.inbound_dropped.increment(1);
            tracing::debug!(key, "an event of a webhook was dropped; other programs do not hear it");
        }
    }

    fn state(&self) -> BrokerState {
        self.health.state()
    }

    fn intake(&self) -> IntakeState {
        self.intake.state()
    }

    async fn close(&self, grace: Duration) {
        let until = Instant::now() + grace;
        self.stop_consuming.cancel();
        if timeout(grace.saturating_sub(CLOSE_RESERVE), self.outbox.emptied()).await.is_err() {
            tracing::warn!("jobs not published before the stop: scans find their work");
        }
        self.stop_publishing.cancel();
        if timeout_at(until, self.connections.wait()).await.is_err() {
            tracing::warn!("RabbitMQ connections exceeded the grace: cut");
        }
        self.cut.cancel();
    }
}

impl Drop for RabbitBroker {
    fn drop(&mut self) {
        self.stop_consuming.cancel();
        self.stop_publishing.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn dropped_answers() -> u64 {
        let text = METRICS.render();
        let shown = text.lines().find_map(|line| line.strip_prefix("meta_dispatch_answers_dropped_total "));
        shown.expect("it is shown").parse().expect("a number")
    }

    #[tokio::test]
    async fn dropped_answers_are_counted() {
        let nobody = vec![("broker.url".to_owned(), "amqp://127.0.0.1:1/%2f".to_owned())];
        let settings = Settings::load_with(None, nobody).unwrap().broker;
        let (broker, _arrivals) = RabbitBroker::open(&settings).unwrap();
        let to = |queue: &str| ReplyTo { queue: queue.into(), correlation_id: None, account: None };
        let before = dropped_answers();
        for _ in 0..MAX_QUEUED_ANSWERS {
            broker.answer(&to("answers"), b"{}".to_vec());
        }
        assert_eq!(dropped_answers(), before, "they wait");
        broker.answer(&to("answers"), b"{}".to_vec());
        broker.answer(&to("amq.rabbitmq.reply-to.%%%.x"), b"{}".to_vec());
        assert_eq!(dropped_answers(), before + 2);
    }
}

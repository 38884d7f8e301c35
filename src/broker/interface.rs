//! The trait of a broker, and the data that it exchanges with the other parts.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::intake::{IntakeBatch, Rejected};
use super::webhooks::{Webhook, WebhookBatch};
use crate::domain::{AccountId, Job, Partition, Reply, ReplyTo};

/// How many outcomes for this process's waiters are held until they are read; more are dropped.
pub(super) const MAX_QUEUED_REPLIES: usize = 4096;

/// A broker behind its trait. Cheap to clone.
pub type SharedBroker = Arc<dyn Broker>;

/// The state of the broker at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BrokerState {
    /// Publishing and consuming.
    Up,
    /// Connected, but the broker takes no messages (memory or disk alarm).
    Blocked,
    /// Not connected; reconnecting for ever.
    Down,
}

/// Whether producers' submissions can reach this process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum IntakeState {
    /// This process takes no submissions in.
    #[default]
    Off,
    Open,
    /// Submissions cannot arrive, with the reason: a producer's publish is refused, or waits.
    Shut(String),
}

/// A job taken from the queue of a partition. Dropping it without [`JobDelivery::ack`] leaves it to
/// redelivery.
pub struct JobDelivery {
    pub partition: Partition,
    pub job: Job,
    acknowledge: Option<Box<dyn FnOnce() + Send>>,
}

impl JobDelivery {
    pub fn new(partition: Partition, job: Job, acknowledge: impl FnOnce() + Send + 'static) -> JobDelivery {
        JobDelivery { partition, job, acknowledge: Some(Box::new(acknowledge)) }
    }

    /// Acknowledge the job to the broker. Never blocks; without effect when the connection it came over is
    /// gone.
    pub fn ack(mut self) {
        if let Some(acknowledge) = self.acknowledge.take() {
            acknowledge();
        }
    }
}

/// The arrivals from the broker; handed out once, when a broker is opened.
pub struct Arrivals {
    /// Jobs of the consumed partitions. Bounded: an unread channel stops deliveries, not the broker.
    pub jobs: mpsc::Receiver<JobDelivery>,
    /// Outcomes for this process's own waiters.
    pub replies: mpsc::Receiver<Reply>,
}

/// The broker, with the methods that ingest, dispatch and webhooks need. Only `reject`, `keep_webhook` and `close` wait for
/// the network.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// Announce new work of a partition: persistent, mandatory, confirmed in the background. While a job of
    /// the partition is not confirmed yet, or the broker is away, further ones are merged into the next.
    fn publish(&self, partition: Partition, job: Job);

    /// Consume these partitions from now on, and no others. Takes effect again after each reconnect.
    fn consume(&self, partitions: &[Partition]);

    /// Return the address for outcomes of this process's waiters; it goes into `cdls.waiter` before the
    /// slash.
    fn reply_address(&self) -> &str;

    /// Send an outcome to the process that waits for it. At most once; the log has it anyway.
    fn reply(&self, address: &str, reply: Reply);

    /// Take producers' submissions in from now on, until the receiver is dropped. To be called once. Longer
    /// bodies come without their content. `None`: this broker has no producers.
    fn take_in(&self, longest_body: usize) -> Option<mpsc::Receiver<IntakeBatch>>;

    /// Consume the queues of these users of the broker besides the shared one, and of no other users. Without
    /// effect before [`Broker::take_in`], and where a broker has no users.
    fn take_in_from(&self, _users: &[String]) {}

    /// Send an envelope to the queue that a producer named. At most once; never to a queue of the program.
    /// Counted where it is dropped.
    fn answer(&self, to: &ReplyTo, envelope: Vec<u8>);

    /// Put a refused submission where operators find it; return whether the broker has it.
    async fn reject(&self, rejected: Rejected) -> bool;

    /// Publish an event of an account for listeners. At most once; the log has the same data.
    fn event(&self, account: AccountId, key: &str, event: Vec<u8>);

    /// Whether this broker keeps bodies of webhooks. Where it does not, the database keeps them.
    fn keeps_webhooks(&self) -> bool {
        false
    }

    /// Keep a body of a webhook until it is applied; return whether the broker has it, replicated and on disk.
    async fn keep_webhook(&self, _webhook: Webhook) -> bool {
        false
    }

    /// Take kept bodies out from now on, until the receiver is dropped. To be called once. `None`: this broker keeps none.
    fn take_webhooks(&self) -> Option<mpsc::Receiver<WebhookBatch>> {
        None
    }

    /// Publish an event of a webhook, as it came, for other programs. At most once.
    fn inbound(&self, _key: &str, _event: Vec<u8>) {}

    fn state(&self) -> BrokerState;

    /// Return whether producers' submissions can arrive.
    fn intake(&self) -> IntakeState {
        IntakeState::Off
    }

    /// Publish pending jobs, for at most `grace`, and disconnect.
    async fn close(&self, grace: Duration);
}

//! The queue: carries jobs from ingest to the worker that owns a partition, and outcomes back to those who wait.
//!
//! [`Broker`] has two implementations: `rabbitmq` for production and `embedded` (channels of this process) for
//! `serve` on a machine with nothing installed. One contract suite (`tests/it/broker_contract.rs`) runs on both.
//!
//! The log is the truth and a job is only a hint, so nothing here blocks or fails a caller: what cannot be
//! published is merged, kept within bounds and published later, or dropped and found by a scan. A job may carry
//! messages with their texts, as submissions do; no token is in any of them. On RabbitMQ it is also a way in: producers' submissions come as [`intake`]
//! says, through names that are [`public`].

pub mod embedded;
mod intake;
mod open;
pub mod public;
pub mod rabbitmq;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

pub use intake::{IntakeBatch, Rejected, Submitted, TokenHeader};
pub use open::{BrokerError, open};

use crate::message::{Job, Partition, Reply, ReplyTo};

/// How many outcomes for this process's waiters are held until they are read; more are dropped.
const REPLIES_HELD: usize = 4096;

/// A broker behind its trait. Cheap to clone.
pub type SharedBroker = Arc<dyn Broker>;

/// What the broker can do at this moment.
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

/// A job taken from the queue of a partition. Dropping it without [`JobDelivery::ack`] leaves it to redelivery.
pub struct JobDelivery {
    pub partition: Partition,
    pub job: Job,
    acknowledge: Option<Box<dyn FnOnce() + Send>>,
}

impl JobDelivery {
    pub fn new(partition: Partition, job: Job, acknowledge: impl FnOnce() + Send + 'static) -> JobDelivery {
        JobDelivery { partition, job, acknowledge: Some(Box::new(acknowledge)) }
    }

    /// Tells the broker that the job is done with. Never blocks; without effect when the connection it came over
    /// is gone.
    pub fn ack(mut self) {
        if let Some(acknowledge) = self.acknowledge.take() {
            acknowledge();
        }
    }
}

/// What arrives from the broker; handed out once, when a broker is opened.
pub struct Arrivals {
    /// Jobs of the consumed partitions. Bounded: an unread channel stops deliveries, not the broker.
    pub jobs: mpsc::Receiver<JobDelivery>,
    /// Outcomes for this process's own waiters.
    pub replies: mpsc::Receiver<Reply>,
}

/// The queue, as ingest and dispatch need it. No method waits for the network but `reject` and `close`.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// Announces new work of a partition: persistent, mandatory, confirmed in the background. While a job of the
    /// partition is not confirmed yet, or the broker is away, further ones are merged into the next.
    fn publish(&self, partition: Partition, job: Job);

    /// Consumes these partitions from now on, and no others. Takes effect again after each reconnect.
    fn consume(&self, partitions: &[Partition]);

    /// Where outcomes for this process's waiters are to be sent; goes into `cdls.waiter` before the slash.
    fn reply_address(&self) -> &str;

    /// Sends an outcome to the process that waits for it. At most once; the log has it anyway.
    fn reply(&self, address: &str, reply: Reply);

    /// Takes producers' submissions in from now on, until the receiver is dropped. To be asked once. Bodies that are
    /// longer come without their content. `None`: this broker has no producers.
    fn take_in(&self, longest_body: usize) -> Option<mpsc::Receiver<IntakeBatch>>;

    /// Sends an envelope to the queue that a producer named. At most once; never to a queue of ours. Counted where it
    /// is dropped.
    fn answer(&self, to: &ReplyTo, envelope: Vec<u8>);

    /// Puts a refused submission where its operators find it. Whether the broker has it.
    async fn reject(&self, rejected: Rejected) -> bool;

    /// Publishes an event for listeners. At most once; the log has what it tells.
    fn event(&self, key: &str, event: Vec<u8>);

    fn state(&self) -> BrokerState;

    /// Publishes what is still pending, for at most `grace`, and disconnects.
    async fn close(&self, grace: Duration);
}

//! The broker carries jobs from ingest to the worker that owns a partition, and outcomes back to their waiters.
//!
//! [`Broker`] has two implementations: `rabbitmq` for production and `embedded` (channels of this process)
//! for `serve` on a machine with nothing installed. One contract suite (`tests/it/broker_contract.rs`) runs
//! on both.
//!
//! The log is the truth and a job is only a hint, so no method blocks or fails a caller: a job that cannot be
//! published is merged, kept within bounds and published later, or dropped and found by a scan. A job may
//! carry messages with their texts, as submissions do; no token is in any of them. RabbitMQ is also a way in:
//! producers' submissions come through [`intake`], by names that are [`public`]. Bodies of Meta's webhooks are kept here until
//! they are applied.

pub mod embedded;
pub mod grants;
mod intake;
mod interface;
mod open;
pub mod public;
pub mod rabbitmq;
pub mod reply_to;
mod webhooks;

pub use intake::{IntakeBatch, Rejected, Submitted, TokenHeader};
pub use interface::{Arrivals, Broker, BrokerState, IntakeState, JobDelivery, SharedBroker};
pub use open::{BrokerError, open};
pub use webhooks::{KeptWebhook, Webhook, WebhookBatch};

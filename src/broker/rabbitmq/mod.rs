//! The broker over RabbitMQ.
//!
//! Connections, each with a supervisor of its own (`connection` connects and reconnects): `publisher` (a connection
//! that the broker has blocked carries nothing, not even acknowledgements), `consumer`, and `answers` to producers'
//! queues. A process that takes submissions has an `intake` for the shared queue and for each user's (`intakes`,
//! `submit_queue`); connections for `direct_answers`, `events` and the `webhook_outlet` are opened when they are first
//! needed, and a process that applies webhooks has a `webhook_source`. `broker` puts them together. `outbox` and `outgoing` hold messages to publish, `topology` declares exchanges and queues,
//! `jobs` reads jobs, `acks` and `replies` serve the consumer, `submissions` the intakes; `quarantine` and
//! `reconnects` bound the cost of producers whose messages end connections. No other module uses lapin.

mod acks;
mod answers;
mod broker;
mod connection;
mod consumer;
mod direct_answers;
mod events;
mod health;
mod intake;
mod intakes;
pub(crate) mod jobs;
mod outbox;
mod outgoing;
mod publisher;
mod quarantine;
pub mod reach;
mod reconnects;
pub mod rejected;
pub(crate) mod replies;
mod rest;
pub(crate) mod submissions;
mod submit_queue;
mod topology;
mod webhook_outlet;
mod webhook_source;

pub use broker::RabbitBroker;

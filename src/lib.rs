//! meta-dispatch: accepts messages over HTTP, logs each as a row of `cdls`, announces it over RabbitMQ, and sends it
//! through Meta's Graph API under its line's rate limit.
//!
//! The flow, in reading order:
//! `ingest` checks a request and commits its row → `broker` carries a job that names the line → `dispatch` owns the
//! line, paces, claims the row in the `store`, calls `graph`, asks `policy` what the answer means, and records the
//! outcome → the waiting request, the log and dashboards see it.

pub mod api;
pub mod app;
pub mod batch;
pub mod broker;
pub mod channel;
pub mod cli;
pub mod dispatch;
pub mod domain;
pub mod edge;
pub mod failpoint;
pub mod feedback;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod graph;
pub mod ingest;
pub mod metrics;
pub mod ops;
pub mod policy;
pub mod reconcile;
pub mod rehearsal;
pub mod seal;
pub mod settings;
pub mod shutdown;
pub mod simulator;
pub mod store;
pub mod tasks;
pub mod telemetry;
pub mod text;
pub mod webhooks;

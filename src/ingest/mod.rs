//! The way in: a request is checked, its row committed, a job published, and the request answered.
//!
//! `pipeline` is the way of one submission; `http`, `amqp` and `batch` lead into it.

mod accept;
mod amqp;
mod batch;
mod body;
mod dest;
pub mod http;
mod parameters;
mod pipeline;
mod rejected;
mod validate;
mod waiters;

pub use parameters::LONGEST_BODY;
pub use pipeline::Ingest;

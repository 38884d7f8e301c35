//! The way in: a request is checked, its row committed, a job published, and the request answered.
//!
//! `pipeline` is the way of one submission; `http`, `amqp` and `batch` lead into it.

mod accept;
mod account_queue;
mod admissions;
mod amqp;
pub(crate) mod batch;
pub(crate) mod body;
mod dest;
mod held_lines;
pub mod http;
pub(crate) mod parameters;
pub(crate) mod pipeline;
mod quotas;
pub(crate) mod rejected;
mod submission;
pub(crate) mod validate;
mod waiters;

pub use batch::try_temporary_folder;
pub use parameters::LONGEST_BODY;
pub use pipeline::Ingest;

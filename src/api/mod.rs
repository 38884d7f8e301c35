//! The HTTP calls by which callers read and change their messages, lines and campaigns (contract: "HTTP:
//! everything else"), and the document of all calls.
//!
//! Authenticates as the send endpoints do, and refuses in the same envelope. Every query of the log carries
//! the account. Never here: a query or a header in the process log, as both may hold tokens.

mod campaigns;
mod cancel;
mod documented;
pub mod export;
mod lines;
mod messages;
pub(crate) mod parameters;
mod progress;
mod recipients;
mod service;

pub use lines::{Obstacle, obstacle};
pub use service::{document, router};

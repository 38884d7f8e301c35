//! The edge: the common parts of all listeners and ways in. Authentication, refusals, the form of answers,
//! and the HTTP server itself.
//!
//! Never here: the purpose of a request.

mod auth;
mod envelope;
pub mod http;
pub mod openapi;
mod query;
mod refusal;
mod refused;
mod server;
pub mod tokens;

pub use auth::Directory;
pub use envelope::Envelope;
pub use query::known_only;
pub use refusal::{Refusal, unavailable};
pub use refused::{Refused, misspelled, shown};
pub use server::serve;

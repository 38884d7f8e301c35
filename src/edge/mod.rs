//! The edge: the common parts of all listeners and ways in. Authentication, refusals, the form of answers,
//! and the HTTP server itself.
//!
//! Never here: the purpose of a request.

mod auth;
mod authenticator;
mod caller;
mod client_address;
mod envelope;
mod gate;
mod guard;
pub mod http;
pub mod openapi;
mod query;
mod refusal;
mod refused;
mod server;
mod tls;
pub mod tokens;
mod turns;

pub use auth::Directory;
pub use caller::Caller;
pub use client_address::ClientAddress;
pub use envelope::Envelope;
pub use gate::gated;
pub use guard::{Guard, GuardOptions};
pub use query::known_only;
pub use refusal::{Refusal, unavailable};
pub use refused::{Refused, misspelled, shown};
pub use server::{ConnectionLimits, ConnectionPhase, Listening, OTHER_FILES, ServeOptions, serve};
pub use tls::{Look, Tls, TlsError};
pub use turns::{Turn, Turns};

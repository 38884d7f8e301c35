//! The only module that calls Meta: builds the request of a message, sends it once, and hands back what came of it.
//!
//! Never here: retries, redirects, limits, or what an answer means. A page token stands in the `Authorization` header
//! and nowhere else.

mod client;
mod request;

pub use client::{GraphClient, GraphClientError};
pub use request::Call;

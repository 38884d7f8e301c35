//! The client of Meta's Graph API: builds the request of one message, sends it once, and reports what came back.
//!
//! The only module that speaks HTTP to Meta. It never judges an answer (`policy::classify` does), never sends a
//! request twice, never follows a redirect, and lets no token into a URL, an error text or a log line.

mod client;
mod egress;
mod request;
mod withheld;

pub use client::{GraphClient, GraphClientError};
pub use egress::egress;
pub use request::Call;
pub use withheld::Withheld;

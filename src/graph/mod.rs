//! The client of Meta's Graph API: builds the request of one message, sends it once, and reports the result.
//!
//! No other module speaks HTTP to Meta. The client never judges an answer (`policy::classify` does), never
//! sends a request twice, never follows a redirect, and never puts a token into a URL, an error text or a log
//! line.

mod client;
mod egress;
mod inflate;
mod names;
mod request;
mod withheld;

pub use client::{GraphClient, GraphClientError};
pub use egress::egress;
pub use names::CheckedNames;
pub use request::Call;
pub use withheld::Withheld;

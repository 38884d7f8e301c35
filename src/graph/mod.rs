//! The client of Meta's Graph API: builds the request of one message, sends it once, and reports the result.
//!
//! No other module speaks HTTP to Meta. The client never judges an answer (`policy::classify` does), never
//! sends a request twice, never follows a redirect, and never puts a token into an error text or a log line. A token
//! stands in a URL only where Meta knows no other place: see `tokens`.

mod attachments;
mod client;
mod conversations;
mod egress;
mod endpoint;
mod identity;
mod inflate;
mod names;
mod request;
mod subscriptions;
mod tokens;
mod withheld;

pub use attachments::Upload;
pub use client::{GraphClient, GraphClientError};
pub use egress::egress;
pub use endpoint::{AppSecret, Endpoint, Host};
pub use names::CheckedNames;
pub use request::{Call, Caller};
pub use tokens::AskingApp;
pub use withheld::Withheld;

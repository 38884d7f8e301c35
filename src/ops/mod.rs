//! The admin listener: health for supervisors and load balancers, metrics for Prometheus, and the documents
//! that describe the interfaces; `access` decides which requests are answered. Never here: the tokens of accounts,
//! and secrets in an answer.

mod access;
mod health;
mod hosts;
mod page_tokens;
mod router;
mod rows;
mod socket;
mod tokens;

pub use access::Access;
pub use health::Health;
pub use page_tokens::watch_page_tokens;
pub use router::router;
pub use rows::watch_rows;
pub use socket::AdminListener;

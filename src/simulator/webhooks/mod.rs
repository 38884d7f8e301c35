//! Webhooks: what Meta tells about messages, persons and policy, signed and POSTed to one URL.
//!
//! `rules` says how events come, `event` makes them, `outbox` keeps them until they are due, `post` puts them
//! into signed bodies, and `pump` sends these and repeats what was not answered with 200.

mod event;
mod outbox;
mod post;
mod pump;
mod rules;

pub(super) use event::{InboundKind, MessageFacts, enforcement, inbound, of_message};
pub(super) use outbox::Outbox;
pub(super) use pump::{pump, verify};
pub use rules::{EventKind, RetryRules, WebhookRules};

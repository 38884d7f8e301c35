//! The channels that messages are sent over.
//!
//! A new channel is a file like `messenger.rs`, a line in [`Class::ALL`], fixtures in `testdata`, limits in
//! `config/default.toml`, and a migration that admits its word in `cd_v8_line`. Endpoints, documents,
//! commands, checks, limits and request bodies come from the table. `testdata/sample.rs` is such a channel,
//! for the unit tests alone.

mod class;
mod instagram;
mod kind;
mod login;
mod messenger;
mod properties;
#[cfg(test)]
#[path = "testdata/sample.rs"]
mod sample;
mod send_api;
#[cfg(test)]
mod tests;

pub use class::Class;
pub use kind::{FILE_ALIAS, Medium, MessageKind, Rates};
pub use login::Login;
pub use properties::{Channel, Example, TextLimit};
pub use send_api::{Asset, Content, upload_body};

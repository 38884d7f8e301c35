//! The channels that messages are sent over.
//!
//! A new channel is a file like `messenger.rs`, a line in [`Class::ALL`], fixtures in `testdata`, limits in
//! `config/default.toml`, and a migration that admits its word in `cd_v8_line`. Endpoints, documents,
//! commands, checks, limits and request bodies come from the table. `testdata/sample.rs` is such a channel,
//! for the unit tests alone.

mod class;
mod instagram;
mod kind;
mod messenger;
#[cfg(test)]
#[path = "testdata/sample.rs"]
mod sample;
mod send_api;
#[cfg(test)]
mod tests;

pub use class::Class;
pub use kind::{FILE_ALIAS, Medium, MessageKind, Rates};
pub use send_api::Content;

/// The properties of a channel.
pub struct Channel {
    /// The word of SQL, JSON, routing keys and commands.
    pub name: &'static str,
    /// The name as people write it.
    pub title: &'static str,
    /// The send endpoint, below `/api/v2/`.
    pub endpoint: &'static str,
    /// The kinds of message that the channel carries.
    pub kinds: &'static [MessageKind],
    pub text_limit: TextLimit,
    /// The highest rates that Meta publishes for one line.
    pub ceiling: Rates,
    /// A line without `v8l_fb_page_id` cannot send.
    pub needs_page_id: bool,
    /// The JSON body of a request to Graph.
    pub body: fn(&Content<'_>) -> Vec<u8>,
    pub example: Example,
}

/// The line and the recipient of the examples in documents.
pub struct Example {
    pub line: i64,
    pub dest: &'static str,
}

/// The longest text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextLimit {
    /// Unicode code points.
    Characters(usize),
    /// Bytes of UTF-8.
    Bytes(usize),
}

impl TextLimit {
    pub fn fits(self, text: &str) -> bool {
        match self {
            TextLimit::Characters(most) => text.chars().count() <= most,
            TextLimit::Bytes(most) => text.len() <= most,
        }
    }
}

impl std::fmt::Display for TextLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TextLimit::Characters(most) => write!(f, "{most} characters"),
            TextLimit::Bytes(most) => write!(f, "{most} bytes of UTF-8"),
        }
    }
}

impl Channel {
    pub fn supports(&self, kind: MessageKind) -> bool {
        self.kinds.contains(&kind)
    }
}

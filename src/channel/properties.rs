//! The properties of a channel, as the table of channels holds them.

use std::fmt;

use super::kind::{MessageKind, Rates};
use super::send_api::Content;

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
    /// Whether Meta returns the metadata of a message with its echo.
    pub returns_metadata: bool,
    /// The platform that an upload of an asset names; none is Messenger.
    pub upload_platform: Option<&'static str>,
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

impl fmt::Display for TextLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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

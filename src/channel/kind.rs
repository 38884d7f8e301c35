//! The kinds of message, and the medium that decides which of a line's two limits a message counts against.

use crate::text::words;

/// The content of a message (`mtype`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MessageKind {
    Text,
    Image,
    Audio,
    Video,
    File,
}
words!(MessageKind, "mtype", {
    Text => "text", Image => "image", Audio => "audio", Video => "video", File => "file",
});

impl MessageKind {
    /// Read `mtype`: its own words, and `document`, which means `file`.
    pub fn read(word: &str) -> Option<MessageKind> {
        if word == FILE_ALIAS { Some(MessageKind::File) } else { word.parse().ok() }
    }

    /// Return the medium that the message counts against.
    pub fn medium(self) -> Medium {
        if self == MessageKind::Text { Medium::Text } else { Medium::Media }
    }
}

/// The other name of [`MessageKind::File`] on the documented endpoint.
pub const FILE_ALIAS: &str = "document";

/// Text and media (everything but text) have limits of their own; waiting media never holds text up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Medium {
    Text,
    Media,
}
words!(Medium, "medium", { Text => "text", Media => "media" });

/// Messages a second, text and media apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    pub text: u32,
    pub media: u32,
}

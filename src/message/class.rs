//! Class (the channel), kind of message, and the two properties that decide how a message is paced.

use super::words;

/// The channel of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    Messenger,
    Instagram,
}
words!(Class, "class", { Messenger => "messenger", Instagram => "instagram" });

/// What a message carries (`mtype`).
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
    /// Which of a line's two limits the message counts against.
    pub fn medium(self) -> Medium {
        if self == MessageKind::Text { Medium::Text } else { Medium::Media }
    }
}

/// Text and media (everything but text) have limits of their own; waiting media never holds text up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Medium {
    Text,
    Media,
}
words!(Medium, "medium", { Text => "text", Media => "media" });

/// `priority`: a line serves `high` first, and keeps a share for `bulk`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    High,
    Bulk,
}
words!(Lane, "priority", { High => "high", Bulk => "bulk" });

impl Class {
    /// The kinds this class can send. Instagram takes PDF files too (Meta, Instagram messaging, "Send a
    /// Message"), but the documented endpoint does not offer them.
    pub fn supports(self, kind: MessageKind) -> bool {
        !(self == Class::Instagram && kind == MessageKind::File)
    }
}

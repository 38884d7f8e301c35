//! Facebook Messenger.

use super::kind::{MessageKind, Rates};
use super::properties::{Channel, Example, TextLimit};
use super::send_api;

pub static MESSENGER: Channel = Channel {
    name: "messenger",
    title: "Messenger",
    endpoint: "MakeMessenger.php",
    kinds: &[
        MessageKind::Text,
        MessageKind::Image,
        MessageKind::Audio,
        MessageKind::Video,
        MessageKind::File,
    ],
    // Meta, "Send API Reference": `message.text`.
    text_limit: TextLimit::Characters(2_000),
    // Meta, Messenger Platform, "Rate Limits": 300 calls a second for text, 10 for audio and video.
    ceiling: Rates { text: 300, media: 10 },
    needs_page_id: true,
    // Meta, "Send API Reference": `message.metadata`.
    returns_metadata: true,
    upload_platform: None,
    body: send_api::body,
    example: Example { line: 1, dest: "2531927391" },
};

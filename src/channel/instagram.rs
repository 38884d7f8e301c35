//! Instagram Direct.

use super::kind::{MessageKind, Rates};
use super::properties::{Channel, Example, TextLimit};
use super::send_api;

pub static INSTAGRAM: Channel = Channel {
    name: "instagram",
    title: "Instagram",
    endpoint: "MakeInstagram.php",
    // Instagram also takes PDF files (Meta, Instagram messaging, "Send a Message"), but the documented
    // endpoint does not offer them.
    kinds: &[MessageKind::Text, MessageKind::Image, MessageKind::Audio, MessageKind::Video],
    // Meta, Instagram Messaging, "Send a Message".
    text_limit: TextLimit::Bytes(1_000),
    // Meta, Instagram Platform, "Rate Limiting": 100 calls a second for text, 10 for audio and video.
    ceiling: Rates { text: 100, media: 10 },
    needs_page_id: false,
    returns_metadata: false,
    upload_platform: Some("instagram"),
    body: send_api::body,
    example: Example { line: 2, dest: "17841400000000001" },
};

//! A third channel, for the unit tests: this file, its fixtures beside it, and a line in `Class::ALL`.

use crate::channel::{Channel, Content, Example, MessageKind, Rates, TextLimit};

pub static SAMPLE: Channel = Channel {
    name: "sample",
    title: "Sample",
    endpoint: "MakeSample.php",
    kinds: &[MessageKind::Text],
    text_limit: TextLimit::Characters(5),
    ceiling: Rates { text: 7, media: 1 },
    needs_page_id: false,
    returns_metadata: false,
    upload_platform: None,
    body,
    example: Example { line: 3, dest: "5531999990000" },
};

fn body(content: &Content<'_>) -> Vec<u8> {
    serde_json::json!({"to": content.dest, "text": content.mdata}).to_string().into_bytes()
}

//! The properties of a submission as the bytes of a frame, as the AMQP client reads them. `nested` and a number stand for
//! that many tables, each in the one before.
//!
//! Properties: bytes of any kind are refused or read, within a bounded multiple of their length, and within the stacks of
//! the program however deep they nest; of what is read, no text is empty, and a token is a text that is not blank.

use lapin::message::Delivery;
use lapin::protocol::basic::parse_properties;
use meta_dispatch::broker::{Submitted, TokenHeader};
use meta_dispatch::fuzzing::read_submission;
use secrecy::ExposeSecret;

use crate::memory::peak;
use crate::shape::note;

pub const WORDS: &[&str] = &[
    "\x04tsid",
    "\x04tsidS\0\0\0\nsecret1234",
    "\x01vI\0\0\0\x01",
    "\x01vS\0\0\0\x011",
    "F\0\0\0\x05",
    "A\0\0\0\x01",
    "V",
    "t\x01",
    "\x07shop.eu",
    "\x10application/json",
    " \0",
    "\0\0\0\0",
    "nested5000",
    "x\0\0\0\x02",
    "\0\0\0\x10",
];

/// As deep as the tests of the program nest; six bytes each, a frame of RabbitMQ holds few more.
const DEEPEST: usize = 18_000;
/// The flag of the headers, which stand alone behind the flags.
const HEADERS_ALONE: [u8; 2] = [0x20, 0];

pub fn target(input: &[u8]) {
    let nested = input.strip_prefix(b"nested").map(|depth| nested(&String::from_utf8_lossy(depth)));
    let frame = nested.as_deref().unwrap_or(input);
    let (parsed, held) = peak(|| parse_properties(frame));
    // The shortest table of one entry has six bytes, and a node of a map in memory.
    let most = 64 * 1024 + 256 * frame.len() as u64;
    assert!(held <= most, "{held} bytes for {} bytes of properties", frame.len());
    let Ok((rest, properties)) = parsed else { return note("refused") };
    note((rest.len().min(2), properties.headers().as_ref().map(|headers| headers.inner().len().min(4))));
    for longest_body in [0, 64 * 1024] {
        let mut delivery = Delivery::mock(1, "cdls.submit".into(), "messenger".into(), false, rest.to_vec());
        delivery.properties = properties.clone();
        is_in_order(&read_submission(delivery, longest_body), rest, longest_body);
    }
}

/// Return headers of tables, each the one entry of the table before.
fn nested(depth: &str) -> Vec<u8> {
    let digits: String = depth.chars().take_while(char::is_ascii_digit).collect();
    let depth = digits.parse::<usize>().unwrap_or(1).min(DEEPEST);
    let mut frame = HEADERS_ALONE.to_vec();
    for level in (0..depth).rev() {
        // The length of the table, then an empty name and the type of a table.
        let length = u32::try_from(level * 6).expect("a frame is short");
        frame.extend(length.to_be_bytes());
        if level > 0 {
            frame.extend([0, b'F']);
        }
    }
    frame
}

fn is_in_order(submitted: &Submitted, data: &[u8], longest_body: usize) {
    let Submitted { content_type, content_encoding, message_id, correlation_id, reply_to, user_id, .. } =
        submitted;
    for text in
        [content_type, content_encoding, message_id, correlation_id, reply_to, user_id].into_iter().flatten()
    {
        assert!(!text.is_empty() && text.len() <= 255);
    }
    assert_eq!(submitted.body_bytes, data.len());
    let kept: &[u8] = if data.len() > longest_body { b"" } else { data };
    assert_eq!(submitted.body, kept);
    match &submitted.tsid {
        TokenHeader::Text(token) => assert!(!token.expose_secret().trim().is_empty()),
        TokenHeader::Absent | TokenHeader::WrongType => {}
    }
    note((std::mem::discriminant(&submitted.tsid), submitted.version.clamp(-1, 3)));
}

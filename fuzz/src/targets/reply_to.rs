//! The address for a producer's answer: a text as it comes, and addresses of direct reply-to that are put together.
//!
//! Properties: an address that is taken is no queue of the program; one of direct reply-to is taken exactly if it has the
//! broker's form; an address belongs to no other user than the one that it begins with.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use meta_dispatch::broker::reply_to::{belongs_to, is_direct, takes_answers};

use crate::shape::note;
use crate::source::Source;

pub const WORDS: &[&str] = &[
    "amq.rabbitmq.reply-to",
    "amq.rabbitmq.reply-to.",
    "amq.gen-",
    "cdls.",
    "cdls.submit",
    "shop.answers",
    "shop",
    "g1h2AA1yZXBseUA5MjQ4ODg0AAAfNwAAAABrCaCc",
    ".kW5WDtHPIzvrWKuZaV3vLw==",
    "=",
    ".",
    "amq.rabbitmq.reply-to.g2c=.a2V5",
];

const DIRECT: &str = "amq.rabbitmq.reply-to";

pub fn target(input: &[u8]) {
    let queue = String::from_utf8_lossy(input);
    let is_taken = takes_answers(&queue);
    note((is_taken, is_direct(&queue), queue.starts_with("amq.gen-")));
    if is_taken {
        assert!(!queue.starts_with("cdls."), "{queue:?}");
    }
    if let Some(rest) = queue.strip_prefix(DIRECT) {
        assert!(is_direct(&queue));
        assert_eq!(is_taken, has_the_form_of_the_broker(rest), "{queue:?}");
    }
    let user = queue.split('.').next().unwrap_or_default();
    assert!(belongs_to(&format!("{user}.answers"), Some(user)));
    let is_own_by_name = is_direct(&queue) || queue.starts_with("amq.gen-");
    assert_eq!(belongs_to(&queue, None), is_own_by_name, "{queue:?}");
    let of_another = format!("{user}x");
    let is_of_another = queue.starts_with(&format!("{of_another}."));
    assert_eq!(belongs_to(&queue, Some(of_another.as_str())), is_own_by_name || is_of_another, "{queue:?}");
    put_together(&mut Source::new(input));
}

/// `.<process>.<key>`, both in the one way in which base64 writes them; the process is a pid of Erlang.
fn has_the_form_of_the_broker(rest: &str) -> bool {
    let parts: Vec<&str> = rest.split('.').collect();
    let ["", process, key] = parts[..] else { return false };
    let decoded = |text: &str| STANDARD.decode(text).ok().filter(|bytes| STANDARD.encode(bytes) == text);
    let (Some(process), Some(key)) = (decoded(process), decoded(key)) else { return false };
    !key.is_empty() && is_pid(&process)
}

/// Whether these bytes are version 131, a tag, a node, and as many bytes as the tag says.
fn is_pid(bytes: &[u8]) -> bool {
    let numbers = match bytes {
        [131, 88, ..] => 12,
        [131, 103, ..] => 9,
        _ => return false,
    };
    let (length, begins) = match bytes[2..] {
        [100 | 118, high, low, ..] => (usize::from(high) * 256 + usize::from(low), 5),
        [115 | 119, length, ..] => (usize::from(length), 4),
        _ => return false,
    };
    let Some(node) = bytes.get(begins..begins + length) else { return false };
    let Ok(node) = str::from_utf8(node) else { return false };
    let is_node = node.split_once('@').is_some_and(|(name, host)| !name.is_empty() && !host.is_empty());
    is_node && bytes.len() == begins + length + numbers
}

fn put_together(source: &mut Source<'_>) {
    let tags: [&[u8]; 5] = [&[131, 88], &[131, 103], &[130, 88], &[131, 109], &[131]];
    let mut process = source.one_of(&tags).to_vec();
    let node = format!("{}@{}", source.text(100), source.text(100));
    let length = u16::try_from(node.len()).expect("it is short");
    match (source.one_of(&[100_u8, 115, 118, 119, 120]), u8::try_from(length)) {
        (tag @ (115 | 119), Ok(short)) => process.extend([tag, short]),
        (tag, _) => process.extend([tag, length.to_be_bytes()[0], length.to_be_bytes()[1]]),
    }
    process.extend_from_slice(node.as_bytes());
    process.extend(vec![7; source.one_of(&[12, 9, 11, 13, 0])]);
    let (process, key) = (STANDARD.encode(process), STANDARD.encode(source.bytes(32)));
    let rest = format!(".{process}.{key}");
    let is_taken = takes_answers(&format!("{DIRECT}{rest}"));
    note(is_taken);
    assert_eq!(is_taken, has_the_form_of_the_broker(&rest), "{rest}");
}

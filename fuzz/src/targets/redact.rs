//! A text from outside, on its way into the log. The parts before and behind the first line end are also put around a
//! secret with each of the known signs.
//!
//! Properties: the result is bounded and printable; a secret behind a sign is gone, whatever stands around it.

use meta_dispatch::text::{MAX_ERROR_CHARS, printable_id, redact};

use crate::shape::{note, number_of};
use crate::source::first_line;

pub const WORDS: &[&str] = &[
    "EAAG",
    "EAAGm0PX4ZCpsBAKZCx9",
    "IGQV",
    "IGAA",
    "access_token",
    "access_token=",
    "appsecret_proof",
    "client_secret",
    "%3D",
    "\\\"",
    ": ",
    "Bearer ",
    "basic ",
    "bearer  x",
    "Authorization: ",
    "fb_exchange_token=",
    "[redacted]",
    "…",
    "Error validating access token",
    "\u{1b}[31m",
    "\u{7f}",
];

/// Letters and digits, as in every token of Meta.
const SECRET: &str = "m0PX4ZCpsBAKZCx9hUnTeR2";
/// The beginnings of Meta's tokens.
const PREFIXES: [&str; 3] = ["EAAG", "IGQV", "IGAAx"];
/// Names and schemes, as they stand before a secret.
const NAMES: [&str; 7] = [
    "access_token=",
    "access_token%3D",
    "\"appsecret_proof\":\"",
    "client_secret: ",
    "\\\"app_secret\\\": \\\"",
    " Bearer ",
    " basic ",
];

pub fn target(input: &[u8]) {
    let longest = [MAX_ERROR_CHARS, 160, 100, 64, 1][(number_of(input) % 5) as usize];
    let text = String::from_utf8_lossy(input);
    let redacted = redact(&text, longest);
    is_clean(&redacted, longest);
    is_clean(&printable_id(&text, longest), longest);
    note((redacted.matches("[redacted]").count().min(8), redacted.ends_with('…')));
    if text.contains(SECRET) {
        return;
    }
    let (before, behind) = first_line(input);
    let (before, behind) = (String::from_utf8_lossy(before), String::from_utf8_lossy(behind));
    for prefix in PREFIXES {
        is_gone(&format!("{before}{prefix}{SECRET}{behind}"));
    }
    for name in NAMES {
        // Apart from the text before it, of which it would else be a part.
        is_gone(&format!("{before}, {name}{SECRET}{behind}"));
        for first in NAMES {
            is_gone(&format!("{before}, {first}{name}{SECRET}{behind}"));
        }
    }
}

fn is_clean(text: &str, longest: usize) {
    assert!(text.chars().count() <= longest, "{text:?}");
    assert!(!text.contains(char::is_control), "{text:?}");
    assert_eq!(text.trim_start(), text);
}

fn is_gone(text: &str) {
    for longest in [usize::MAX, MAX_ERROR_CHARS] {
        let redacted = redact(text, longest);
        assert!(!redacted.contains(SECRET), "{redacted:?} of {text:?}");
    }
}

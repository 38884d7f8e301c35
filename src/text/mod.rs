//! The reading, writing and cleaning of texts: encodings, trimming, the words of enums, times, and texts from
//! outside without their secrets.
//!
//! Never here: an import of another module of the program, or I/O.

mod charset;
mod form;
mod redact;
mod similar;
mod timestamp;
mod trim;
mod words;

pub use charset::{CHARSETS, Charset, Decoded, Utf8Body, decoded, utf8_body, without_c1};
pub use form::form_pairs;
pub use redact::{MAX_ERROR_CHARS, printable_id, redact};
pub use similar::meant;
pub use timestamp::{time, time_or_null, timestamp};
pub use trim::{is_blank, is_unseen, seen, trimmed};
pub use words::UnknownWord;
pub(crate) use words::words;

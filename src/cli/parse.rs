//! How arguments are read: ids, words of the domain, durations, and texts that must say something.

use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::message::{Class, Status};

/// Longest campaign label.
const MAX_CP_ID_CHARS: usize = 128;

/// The largest id that JavaScript and most JSON readers keep exactly; far above any that is ever reached by counting.
const LARGEST_ID: i64 = (1 << 53) - 1;

/// An id: a positive integer, made into its type.
pub fn id<T: Clone + Send + Sync + 'static>(make: fn(i64) -> T) -> impl TypedValueParser<Value = T> {
    clap::value_parser!(i64).range(1..=LARGEST_ID).map(make)
}

/// `messenger` or `instagram`.
pub fn class() -> impl TypedValueParser<Value = Class> {
    PossibleValuesParser::new(Class::ALL.iter().map(|class| class.as_str()))
        .map(|word| word.parse().expect("it is one of the possible values"))
}

/// A status, in capitals or not.
pub fn status() -> impl TypedValueParser<Value = Status> {
    PossibleValuesParser::new(Status::ALL.iter().map(|status| status.as_str()))
        .map(|word| word.to_uppercase().parse().expect("it is one of the possible values"))
}

/// A duration above zero, and short enough to be added to a time.
pub fn duration(text: &str) -> Result<Duration, String> {
    let length = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; durations are written 30s, 5m, 24h, 7d"))?;
    if length < Duration::from_millis(1) {
        return Err("must be longer than zero".into());
    }
    if length > Duration::from_secs(3650 * 86_400) {
        return Err("must be at most 3650d".into());
    }
    Ok(length)
}

/// A campaign's label, as ingest takes it.
pub fn campaign(text: &str) -> Result<String, String> {
    if text.chars().count() > MAX_CP_ID_CHARS {
        return Err(format!("must be at most {MAX_CP_ID_CHARS} characters"));
    }
    name(text)
}

/// A text without white space around it, that is not empty and holds no control characters.
pub fn name(text: &str) -> Result<String, String> {
    let name = text.trim();
    if name.is_empty() {
        return Err("must not be empty".into());
    }
    if name.contains(char::is_control) {
        return Err("must not hold control characters".into());
    }
    Ok(name.to_owned())
}

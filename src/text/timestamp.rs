//! The notation of times in JSON and in SQLite: RFC 3339 in UTC with milliseconds and `Z`.

use serde::Serializer;
use time::{OffsetDateTime, UtcOffset, format_description::FormatItem, macros::format_description};

const FORMAT: &[FormatItem<'static>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Return the time in the form `2026-11-23T14:15:20.000Z`.
pub fn timestamp(at: OffsetDateTime) -> String {
    at.to_offset(UtcOffset::UTC).format(FORMAT).expect("years of log rows have four digits")
}

/// Serialize a time, for `serde(serialize_with)`.
pub fn time<S: Serializer>(at: &OffsetDateTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&timestamp(*at))
}

/// Serialize a time, for `serde(serialize_with)`: an absent time is `null`.
pub fn time_or_null<S: Serializer>(at: &Option<OffsetDateTime>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => time(at, serializer),
        None => serializer.serialize_none(),
    }
}

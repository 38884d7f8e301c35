//! Times as this database holds them: RFC 3339 text in UTC with exactly milliseconds and `Z`, so that the
//! order of the texts is the order of the times.
//!
//! Rows that other programs wrote may have the same time in another notation; [`parse`] reads the notations
//! that people write.

use std::time::Duration;

use time::format_description::FormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime, UtcOffset};

use crate::text::timestamp;

/// The latest time the text can hold: "until an operator ends it".
pub const FOREVER: &str = "9999-12-31T23:59:59.999Z";

/// The earliest time, before every stored one.
const NEVER: &str = "";

/// The notation of SQLite's own `datetime()` and CURRENT_TIMESTAMP, in UTC.
const SQLITE: &[FormatItem<'static>] = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");

/// The time of one statement or transaction. Read inside a write transaction, so that waiting for the lock
/// does not make it stale.
#[derive(Debug, Clone, Copy)]
pub struct Now(OffsetDateTime);

impl Now {
    pub fn read() -> Now {
        Now(OffsetDateTime::now_utc())
    }

    pub fn time(self) -> OffsetDateTime {
        self.0
    }

    pub fn text(self) -> String {
        timestamp(self.0)
    }

    /// Return now + this long.
    pub fn after(self, length: Duration) -> String {
        later(self.0, length)
    }

    /// Return now − this long.
    pub fn before(self, length: Duration) -> String {
        let length = time::Duration::try_from(length).ok();
        length
            .and_then(|length| self.0.checked_sub(length))
            .filter(|at| at.year() >= 0)
            .map_or_else(|| NEVER.to_owned(), timestamp)
    }

    /// Return the time left until then; negative if that has passed.
    pub fn until(self, at: OffsetDateTime) -> time::Duration {
        at - self.0
    }

    pub fn is_before(self, at: OffsetDateTime) -> bool {
        self.0 < at
    }
}

/// Return `at` + `length`, or [`FOREVER`] where that lies beyond the calendar.
pub fn later(at: OffsetDateTime, length: Duration) -> String {
    let length = time::Duration::try_from(length).ok();
    length
        .and_then(|length| at.checked_add(length))
        .and_then(|at| at.checked_to_offset(UtcOffset::UTC))
        .map_or_else(|| FOREVER.to_owned(), timestamp)
}

/// Read RFC 3339 of any precision and offset, and the notation of SQLite's `datetime()`.
pub fn parse(text: &str) -> Option<OffsetDateTime> {
    let text = text.trim();
    OffsetDateTime::parse(text, &Rfc3339)
        .or_else(|_| PrimitiveDateTime::parse(text, SQLITE).map(PrimitiveDateTime::assume_utc))
        .ok()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn reads_other_notations_of_a_time() {
        let noon = Some(datetime!(2026-11-23 12:00:00 UTC));
        for text in [
            "2026-11-23T12:00:00.000Z",
            "2026-11-23T12:00:00Z",
            " 2026-11-23t12:00:00.000000z",
            "2026-11-23T09:00:00-03:00",
            "2026-11-23 12:00:00",
        ] {
            assert_eq!(parse(text), noon, "{text}");
        }
        for broken in ["", "tomorrow", "2026-11-23", "1700000000", "2026-13-01T00:00:00Z"] {
            assert_eq!(parse(broken), None, "{broken}");
        }
    }

    #[test]
    fn limits_times_to_the_calendar() {
        assert_eq!(Now::read().after(Duration::MAX), FOREVER);
        assert_eq!(later(datetime!(9999-12-31 23:00:00 -3), Duration::ZERO), FOREVER);
        assert!(Now::read().before(Duration::MAX) < Now::read().text());
        assert_eq!(parse(FOREVER).map(timestamp).as_deref(), Some(FOREVER));
    }
}

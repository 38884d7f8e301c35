//! The page tokens that end within 14 days, or have ended, as `check` shows them.
//!
//! Never here: a page access token.

use serde::Serialize;
use time::OffsetDateTime;

use super::output::printable;
use crate::domain::LineId;
use crate::policy::token_life::{TokenAlarm, WARN_BELOW, alarm};
use crate::store::{EndingToken, Store, StoreError};
use crate::text::timestamp;

/// Lines that a text names at most, and that are read.
const SHOWN: usize = 10;
const MOST: u32 = 10_000;

/// A page token that ends soon.
#[derive(Debug, Serialize)]
pub struct Ending {
    v8l_id: LineId,
    #[serde(serialize_with = "crate::text::time")]
    expires_at: OffsetDateTime,
    /// `soon` within 14 days, `near` within 3, `ended`.
    alarm: &'static str,
    /// The failure of the last try to refresh the token.
    error: Option<String>,
}

/// Return the tokens that end soon, the first to end first.
pub async fn ending(store: &dyn Store) -> Result<Vec<Ending>, StoreError> {
    let tokens = store.ending_tokens(WARN_BELOW, MOST).await?;
    Ok(tokens.into_iter().filter_map(Ending::of).collect())
}

impl Ending {
    fn of(token: EndingToken) -> Option<Ending> {
        let EndingToken { line, expires_at, left, error } = token;
        let alarm = match alarm(left)? {
            TokenAlarm::Soon => "soon",
            TokenAlarm::Near => "near",
            TokenAlarm::Ended => "ended",
        };
        Some(Ending { v8l_id: line, expires_at, alarm, error })
    }
}

/// Return the tokens as a text, with the remedy.
pub fn told(tokens: &[Ending]) -> String {
    if tokens.is_empty() {
        return "No page token is known to end within 14 days.".to_owned();
    }
    let mut text = format!(
        "Warning: page tokens that end within 14 days: {}. Connect their lines again, and use `line set-pat`.",
        tokens.len()
    );
    for Ending { v8l_id, expires_at, alarm, error } in tokens.iter().take(SHOWN) {
        let verb = if *alarm == "ended" { "has ended at" } else { "ends at" };
        let error = error.as_deref().map(|error| format!(" (not refreshed: {})", printable(error)));
        text.push_str(&format!(
            "\n  line {v8l_id}: {verb} {}{}",
            timestamp(*expires_at),
            error.unwrap_or_default()
        ));
    }
    if tokens.len() > SHOWN {
        text.push_str("\n  … (all with --json)");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use time::macros::datetime;

    use super::*;

    #[test]
    fn ends_are_named_with_the_failure() {
        let token = |line, days: u64, error: Option<&str>| EndingToken {
            line: LineId(line),
            expires_at: datetime!(2026-12-01 12:00 UTC),
            left: Duration::from_secs(days * 86_400),
            error: error.map(str::to_owned),
        };
        let tokens = [token(7, 0, None), token(8, 2, Some("Graph code 190")), token(9, 20, None)];
        let tokens: Vec<Ending> = tokens.into_iter().filter_map(Ending::of).collect();
        let text = told(&tokens);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].contains("14 days: 2."), "{text}");
        let expected = [
            "  line 7: has ended at 2026-12-01T12:00:00.000Z",
            "  line 8: ends at 2026-12-01T12:00:00.000Z (not refreshed: Graph code 190)",
        ];
        assert_eq!(lines[1..], expected, "{text}");
        assert!(told(&[]).starts_with("No page token"));
    }
}

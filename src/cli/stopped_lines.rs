//! The lines that do not send at this moment, and what to do, as `check` shows them.
//!
//! Never here: a page access token.

use serde::Serialize;
use time::OffsetDateTime;

use super::output::printable;
use crate::api::{Obstacle, obstacle};
use crate::domain::LineId;
use crate::store::LineSummary;
use crate::text::timestamp;

/// Lines that a text names at most.
const SHOWN: usize = 10;

/// A line that does not send.
#[derive(Debug, Serialize)]
pub struct StoppedLine {
    v8l_id: LineId,
    state: &'static str,
    reason: Option<String>,
    /// End of a pause; null without an end.
    #[serde(serialize_with = "crate::text::time_or_null")]
    until: Option<OffsetDateTime>,
    /// Action that lets the line send again, if a person has to act.
    action: Option<&'static str>,
}

/// Return the lines that do not send.
pub fn stopped(lines: &[LineSummary], now: OffsetDateTime) -> Vec<StoppedLine> {
    let stopped = |line: &LineSummary| {
        let Obstacle { state, reason, until, action } = obstacle(line, now)?;
        Some(StoppedLine { v8l_id: line.id, state, reason, until, action })
    };
    lines.iter().filter_map(stopped).collect()
}

/// Return the lines as a text, with the remedy for each.
pub fn told(lines: &[StoppedLine]) -> String {
    if lines.is_empty() {
        return "Every line that is switched on sends.".to_owned();
    }
    let mut text = format!("Lines that are switched on and do not send: {}.", lines.len());
    for StoppedLine { v8l_id, state, reason, until, action } in lines.iter().take(SHOWN) {
        let until = until.map(|until| format!(" until {}", timestamp(until))).unwrap_or_default();
        let reason = reason.as_deref().map(|reason| format!(" ({})", printable(reason))).unwrap_or_default();
        let action = action.map(|action| format!(": {action}")).unwrap_or_default();
        text.push_str(&format!("\n  line {v8l_id}: {}{until}{reason}{action}", state.replace('_', " ")));
    }
    if lines.len() > SHOWN {
        text.push_str("\n  … (all with --json)");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use time::macros::datetime;

    use super::*;
    use crate::channel::Class;
    use crate::domain::AccountId;

    #[test]
    fn stopped_line_names_reason_and_remedy() {
        let now = datetime!(2026-11-25 12:00 UTC);
        let sending = LineSummary {
            id: LineId(1),
            account: AccountId(1),
            name: None,
            class: Class::INSTAGRAM,
            active: true,
            account_active: true,
            has_token: true,
            page_id: None,
            instagram_account_id: None,
            login: None,
            token_expires_at: None,
            rate_text: None,
            rate_media: None,
            paused_until: None,
            pause_left: None,
            pause_reason: None,
        };
        let refused = LineSummary {
            id: LineId(7),
            paused_until: Some(now + time::Duration::minutes(30)),
            pause_left: Some(Duration::from_secs(1_800)),
            pause_reason: Some("Graph: cannot send: Graph code 190".into()),
            ..sending.clone()
        };
        let without_token = LineSummary { id: LineId(8), has_token: false, ..sending.clone() };
        assert_eq!(
            told(&stopped(std::slice::from_ref(&sending), now)),
            "Every line that is switched on sends."
        );
        let text = told(&stopped(&[sending, refused, without_token], now));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "Lines that are switched on and do not send: 2.");
        let paused = "  line 7: paused until 2026-11-25T12:30:00.000Z (Graph: cannot send: Graph code 190): set a new page token";
        assert!(lines[1].starts_with(paused) && lines[1].contains("`line set-pat`"), "{text}");
        assert!(lines[2].starts_with("  line 8: no token (") && lines.len() == 3, "{text}");
    }
}

//! The pauses that answers demand, and the time that a usage header names instead.

use std::time::Duration;

use serde_json::Value;

use super::envelope::integer;
use super::{PauseDemand, PauseTarget};
use crate::message::redact;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// Meta's longest window is a rolling day (200 calls × engaged users in 24 h): no limit outlasts it.
const LONGEST_NAMED: Duration = Duration::from_secs(24 * 60 * 60);

/// `v8l_pause_reason` is read in lists.
const MAX_REASON_CHARS: usize = 160;

/// The kinds of pause (contract: "What goes to Graph").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ladder {
    /// 613, 32, 17, HTTP 429.
    RateLine,
    /// 8000x, the business use case limits: windows of an hour or a day, so a short pause only prolongs them.
    RateUseCase,
    /// 4, 341: a rolling hour of the whole app.
    RateApp,
    /// The line itself is refused: token, permission, restriction.
    LineRefused,
}

impl Ladder {
    /// The demand for the pause, with the time that Graph named, if it did.
    pub fn demand(self, named: Option<Duration>, reason: &str) -> PauseDemand {
        let (target, first, cap, words) = match self {
            Ladder::RateLine => (PauseTarget::Line, Duration::from_secs(1), MINUTE, "slowed down"),
            Ladder::RateUseCase => (PauseTarget::Line, 15 * MINUTE, HOUR, "over Meta's limit for the line"),
            Ladder::RateApp => (PauseTarget::App, 5 * MINUTE, 5 * MINUTE, "over Meta's limit for the app"),
            Ladder::LineRefused => (PauseTarget::Line, 30 * MINUTE, 4 * HOUR, "cannot send"),
        };
        let reason = redact(&format!("{words}: {reason}"), MAX_REASON_CHARS);
        PauseDemand { target, first, cap, named, reason }
    }
}

/// The longest `estimated_time_to_regain_access`, in minutes, of any object in `X-Business-Use-Case-Usage`
/// (`{"<id>":[{"type":"messenger",…}]}`; Meta, Graph API, "Rate Limits"). Zero and less name no time.
pub(super) fn named_by(business_usage: Option<&str>) -> Option<Duration> {
    let usage: Value = serde_json::from_str(business_usage?).ok()?;
    let minutes = u64::try_from(longest(&usage)?).ok().filter(|&minutes| minutes > 0)?;
    Some(Duration::from_secs(minutes.saturating_mul(60)).min(LONGEST_NAMED))
}

/// Recursion is bounded by the depth that the JSON parser admits.
fn longest(usage: &Value) -> Option<i64> {
    match usage {
        Value::Object(fields) => {
            let own = fields.get("estimated_time_to_regain_access").and_then(integer);
            own.max(fields.values().filter_map(longest).max())
        }
        Value::Array(entries) => entries.iter().filter_map(longest).max(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn minutes(count: u64) -> Option<Duration> {
        Some(Duration::from_secs(60 * count))
    }

    #[rstest]
    #[case(r#"{"1":[{"type":"messenger","estimated_time_to_regain_access":7}]}"#, minutes(7))]
    #[case(
        r#"{"1":[{"estimated_time_to_regain_access":3},{"estimated_time_to_regain_access":19}],
            "2":[{"estimated_time_to_regain_access":5}]}"#,
        minutes(19)
    )]
    #[case(r#"{"1":[{"estimated_time_to_regain_access":"12"}]}"#, minutes(12))]
    #[case(r#"{"1":{"estimated_time_to_regain_access":4}}"#, minutes(4))]
    #[case(r#"{"1":[{"estimated_time_to_regain_access":9223372036854775807}]}"#, minutes(24 * 60))]
    #[case(r#"{"1":[{"estimated_time_to_regain_access":0}]}"#, None)]
    #[case(r#"{"1":[{"estimated_time_to_regain_access":-5}]}"#, None)]
    #[case(r#"{"1":[{"call_count":107}]}"#, None)]
    #[case("{'call_count':85}", None)]
    #[case("", None)]
    fn the_usage_header_names_the_longest_time(#[case] header: &str, #[case] named: Option<Duration>) {
        assert_eq!(named_by(Some(header)), named);
    }

    #[test]
    fn without_a_usage_header_no_time_is_named() {
        assert_eq!(named_by(None), None);
    }
}

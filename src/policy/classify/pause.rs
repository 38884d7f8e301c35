//! The pauses that answers demand, and the time that a usage header names instead.

use std::time::Duration;

use serde_json::{Map, Value};

use super::envelope::integer;
use super::{PauseDemand, PauseTarget, Subject};
use crate::message::redact;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// Meta's longest window is a rolling day (200 calls × engaged users in 24 h): no limit of a line outlasts it.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// `v8l_pause_reason` is read in lists.
const MAX_REASON_CHARS: usize = 160;

/// Types of objects in a usage header that speak of messages.
const OF_MESSAGES: [&str; 3] = ["messenger", "instagram", "pages"];

/// The kinds of pause (contract: "What goes to Graph").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ladder {
    /// 613, 32, 17, 9, HTTP 429.
    RateLine,
    /// 8000x, the business use case limits: windows of an hour or a day, so a short pause only prolongs them.
    RateUseCase,
    /// 4, 341: a rolling hour of the whole app.
    RateApp,
    /// The line itself is refused: token, permission, restriction.
    LineRefused,
    /// An answer that is not Graph's, or none that can be read: a proxy's page, a login page, nothing. Long enough that
    /// no backlog becomes UNKNOWN over it, short enough that lines go on soon after somebody has mended the way.
    NotGraphs,
}

impl Ladder {
    /// The demand for the pause. `named`: the time that Graph named for the line.
    pub fn demand(self, named: Option<Duration>, reason: &str) -> PauseDemand {
        let (target, first, cap, words) = match self {
            Ladder::RateLine => (PauseTarget::Line, SECOND, MINUTE, "slowed down"),
            Ladder::RateUseCase => (PauseTarget::Line, 15 * MINUTE, HOUR, "over Meta's limit for the line"),
            Ladder::RateApp => (PauseTarget::App, 5 * MINUTE, 5 * MINUTE, "over Meta's limit for the app"),
            Ladder::LineRefused => (PauseTarget::Line, 30 * MINUTE, 4 * HOUR, "cannot send"),
            Ladder::NotGraphs => (PauseTarget::Line, 30 * SECOND, 30 * MINUTE, "no answer of its own"),
        };
        let named = self.longest_named().and_then(|longest| named.map(|named| named.min(longest)));
        let reason = redact(&format!("{words}: {reason}"), MAX_REASON_CHARS);
        PauseDemand { target, first, cap, named, reason }
    }

    /// The longest time that a usage header may name for such a pause; it says nothing of others than those of rates.
    /// The header speaks of one line, so it does not stop the whole app for longer than the app's own window.
    fn longest_named(self) -> Option<Duration> {
        match self {
            Ladder::RateLine | Ladder::RateUseCase => Some(DAY),
            Ladder::RateApp => Some(HOUR),
            Ladder::LineRefused | Ladder::NotGraphs => None,
        }
    }
}

/// The longest `estimated_time_to_regain_access`, in minutes, that `X-Business-Use-Case-Usage` names for messages of this
/// subject (`{"<id>":[{"type":"messenger",…}]}`, up to 32 objects; Meta, Graph API, "Rate Limits"). Zero and less name no
/// time.
pub(super) fn named_by(business_usage: Option<&str>, subject: &Subject) -> Option<Duration> {
    let usage: Map<String, Value> = serde_json::from_str(business_usage?).ok()?;
    let minutes = usage
        .iter()
        .filter(|(id, _)| subject.is(id))
        .flat_map(|(_, entries)| match entries {
            Value::Array(entries) => entries.as_slice(),
            entry => std::slice::from_ref(entry),
        })
        .filter(|entry| entry["type"].as_str().is_some_and(|kind| OF_MESSAGES.contains(&kind)))
        .filter_map(|entry| integer(&entry["estimated_time_to_regain_access"]))
        .max()?;
    let minutes = u64::try_from(minutes).ok().filter(|&minutes| minutes > 0)?;
    Some(Duration::from_secs(minutes.saturating_mul(60)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn minutes(count: u64) -> Duration {
        Duration::from_secs(60 * count)
    }

    fn subject() -> Subject {
        Subject { page_id: Some("1".into()), instagram_account_id: Some("17".into()) }
    }

    #[rstest]
    #[case::of_the_page(r#"{"1":[{"type":"messenger","estimated_time_to_regain_access":7}]}"#, 7)]
    #[case::of_the_instagram_account(
        r#"{"17":[{"type":"instagram","estimated_time_to_regain_access":8}]}"#,
        8
    )]
    #[case::of_the_pages_type(r#"{"1":[{"type":"pages","estimated_time_to_regain_access":9}]}"#, 9)]
    #[case::the_longest_of_several(
        r#"{"1":[{"type":"pages","estimated_time_to_regain_access":3},{"type":"messenger","estimated_time_to_regain_access":19}],
            "17":[{"type":"instagram","estimated_time_to_regain_access":5}]}"#,
        19
    )]
    #[case::as_a_text(r#"{"1":[{"type":"pages","estimated_time_to_regain_access":"12"}]}"#, 12)]
    #[case::without_a_list(r#"{"1":{"type":"pages","estimated_time_to_regain_access":4}}"#, 4)]
    fn the_usage_header_names_the_longest_time_of_the_lines_own_objects(
        #[case] header: &str,
        #[case] named: u64,
    ) {
        assert_eq!(named_by(Some(header), &subject()), Some(minutes(named)));
    }

    #[rstest]
    #[case::of_another_page(r#"{"2":[{"type":"messenger","estimated_time_to_regain_access":7}]}"#)]
    #[case::of_advertisements(r#"{"1":[{"type":"ads_management","estimated_time_to_regain_access":7}]}"#)]
    #[case::of_no_type(r#"{"1":[{"estimated_time_to_regain_access":7}]}"#)]
    #[case::of_no_object(r#"{"type":"messenger","estimated_time_to_regain_access":7}"#)]
    #[case::zero(r#"{"1":[{"type":"messenger","estimated_time_to_regain_access":0}]}"#)]
    #[case::below_zero(r#"{"1":[{"type":"messenger","estimated_time_to_regain_access":-5}]}"#)]
    #[case::no_time(r#"{"1":[{"type":"messenger","call_count":107}]}"#)]
    #[case::nothing_in_it(r#"{"1":[7,null]}"#)]
    #[case::no_json("{'call_count':85}")]
    #[case::empty("")]
    fn any_other_usage_header_names_no_time(#[case] header: &str) {
        assert_eq!(named_by(Some(header), &subject()), None);
    }

    #[test]
    fn without_a_usage_header_or_a_known_id_no_time_is_named() {
        assert_eq!(named_by(None, &subject()), None);
        let header = r#"{"":[{"type":"messenger","estimated_time_to_regain_access":7}]}"#;
        assert_eq!(named_by(Some(header), &Subject::default()), None);
    }

    #[rstest]
    #[case(Ladder::RateLine, Some(minutes(24 * 60)))]
    #[case(Ladder::RateUseCase, Some(minutes(24 * 60)))]
    #[case(Ladder::RateApp, Some(minutes(60)))]
    #[case(Ladder::LineRefused, None)]
    #[case(Ladder::NotGraphs, None)]
    fn a_named_time_counts_for_rates_alone_and_is_bounded(
        #[case] ladder: Ladder,
        #[case] longest: Option<Duration>,
    ) {
        assert_eq!(ladder.demand(Some(Duration::MAX), "x").named, longest);
        assert_eq!(ladder.demand(Some(minutes(7)), "x").named, longest.map(|_| minutes(7)));
        assert_eq!(ladder.demand(None, "x").named, None);
    }
}

//! The pauses that answers demand, and the times that headers of an answer name instead.

use std::time::Duration;

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::answer::Subject;
use super::body::integer;
use super::judgement::{PauseDemand, PauseTarget};
use crate::text::redact;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// Meta's longest window is a rolling day (200 calls × engaged users in 24 h): no limit of a line outlasts
/// it.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest time that a `Retry-After` may ask for: servers other than Graph write it too.
const LONGEST_ASKED: Duration = Duration::from_secs(60 * 60);
/// The same with HTTP 503, which is no statement about the line.
pub(super) const LONGEST_UNAVAILABLE: Duration = Duration::from_secs(5 * 60);

/// Longest reason: `v8l_pause_reason` is a column of lists.
const MAX_REASON_CHARS: usize = 160;

/// The beginning of the reason of a pause that ends only after a person has acted.
pub const CANNOT_SEND: &str = "cannot send";

/// The kinds of pause (contract: "What goes to Graph").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PauseKind {
    /// 613, 32, 17, 9, HTTP 429.
    RateLine,
    /// 8000x, the business use case limits: windows of an hour or a day, so a short pause only prolongs them.
    RateUseCase,
    /// 4, 341: a rolling hour of the whole app.
    RateApp,
    /// The line itself is refused: token, permission, restriction.
    LineRefused,
    /// An answer that is not Graph's, or cannot be read: a proxy's page, a login page, nothing. The pause is
    /// long enough that no backlog becomes UNKNOWN over it, and short enough that lines go on soon after the
    /// way is repaired.
    NotGraphs,
}

impl PauseKind {
    /// Return the demand for the pause. `named`: the time that Graph named for the line.
    pub fn demand(self, named: Option<Duration>, reason: &str) -> PauseDemand {
        let (target, first, cap, words) = match self {
            PauseKind::RateLine => (PauseTarget::Line, SECOND, MINUTE, "slowed down"),
            PauseKind::RateUseCase => {
                (PauseTarget::Line, 15 * MINUTE, HOUR, "over Meta's limit for the line")
            }
            PauseKind::RateApp => (PauseTarget::App, 5 * MINUTE, 5 * MINUTE, "over Meta's limit for the app"),
            PauseKind::LineRefused => (PauseTarget::Line, 30 * MINUTE, 4 * HOUR, CANNOT_SEND),
            PauseKind::NotGraphs => (PauseTarget::Line, 30 * SECOND, 30 * MINUTE, "no answer of its own"),
        };
        let named = self.longest_named().and_then(|longest| named.map(|named| named.min(longest)));
        let reason = redact(&format!("{words}: {reason}"), MAX_REASON_CHARS);
        let ends_with_trial = matches!(self, PauseKind::LineRefused | PauseKind::NotGraphs);
        PauseDemand { target, first, cap, named, ends_with_trial, reason }
    }

    /// Return the longest time that a usage header may name for such a pause; `None` unless the pause is
    /// about a rate. The header is about one line, so that it does not stop the whole app for longer than the
    /// app's own window.
    fn longest_named(self) -> Option<Duration> {
        match self {
            PauseKind::RateLine | PauseKind::RateUseCase => Some(DAY),
            PauseKind::RateApp => Some(HOUR),
            PauseKind::LineRefused | PauseKind::NotGraphs => None,
        }
    }
}

/// Return the longest `estimated_time_to_regain_access`, in minutes, that `X-Business-Use-Case-Usage` names
/// for messages of this subject (`{"<id>":[{"type":"messenger",…}]}`, up to 32 objects; Meta, Graph API,
/// "Rate Limits"). Zero and less name no time. Several header lines come joined by commas.
pub(super) fn named_by(business_usage: Option<&str>, subject: &Subject) -> Option<Duration> {
    let usages: Vec<Map<String, Value>> = serde_json::from_str(&format!("[{}]", business_usage?)).ok()?;
    let entries = usages.iter().flatten().flat_map(|(id, entries)| {
        let entries = match entries {
            Value::Array(entries) => entries.as_slice(),
            entry => std::slice::from_ref(entry),
        };
        entries.iter().filter_map(move |entry| Some((subject.rank(id, entry["type"].as_str()?)?, entry)))
    });
    let named: Vec<(u8, i64)> = entries
        .filter_map(|(rank, entry)| Some((rank, integer(&entry["estimated_time_to_regain_access"])?)))
        .collect();
    let best = named.iter().map(|(rank, _)| *rank).min()?;
    let minutes = named.into_iter().filter(|(rank, _)| *rank == best).map(|(_, minutes)| minutes).max()?;
    let minutes = u64::try_from(minutes).ok().filter(|&minutes| minutes > 0)?;
    Some(Duration::from_secs(minutes.saturating_mul(60)))
}

/// Return the time that `Retry-After` asks for, in seconds or as a date. A date is compared with the answer's
/// own `Date`, so that no clock of this machine matters. Zero asks for nothing.
pub(super) fn asked_by(retry_after: Option<&str>, date: Option<&str>) -> Option<Duration> {
    let text = retry_after?.trim();
    let asked = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => (http_date(text)? - http_date(date?)?).try_into().ok()?,
    };
    Some(asked.min(LONGEST_ASKED)).filter(|asked| !asked.is_zero())
}

fn http_date(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text.trim(), &Rfc2822).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn minutes(count: u64) -> Duration {
        Duration::from_secs(60 * count)
    }

    fn subject() -> Subject {
        Subject { class: None, page_id: Some("1".into()), instagram_account_id: Some("17".into()) }
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
    fn usage_header_names_the_lines_longest_time(#[case] header: &str, #[case] named: u64) {
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
    fn several_usage_headers_are_read_together() {
        let entry = |id: &str, minutes: u64| {
            format!(r#"{{"{id}":[{{"type":"messenger","estimated_time_to_regain_access":{minutes}}}]}}"#)
        };
        let joined = format!("{}, {}", entry("2", 900), entry("1", 7));
        assert_eq!(named_by(Some(&joined), &subject()), Some(minutes(7)));
    }

    #[rstest]
    #[case::in_seconds("90", None, Some(90))]
    #[case::with_blanks(" 120 ", None, Some(120))]
    #[case::longer_than_is_believed("86400", None, Some(3_600))]
    #[case::zero("0", None, None)]
    #[case::below_zero("-5", None, None)]
    #[case::words("soon", None, None)]
    #[case::a_date("Wed, 21 Oct 2026 07:30:00 GMT", Some("Wed, 21 Oct 2026 07:28:30 GMT"), Some(90))]
    #[case::a_date_that_has_passed(
        "Wed, 21 Oct 2026 07:28:00 GMT",
        Some("Wed, 21 Oct 2026 07:28:30 GMT"),
        None
    )]
    #[case::a_date_without_the_answers_own("Wed, 21 Oct 2026 07:28:00 GMT", None, None)]
    fn retry_after_asks_for_a_bounded_time(
        #[case] retry_after: &str,
        #[case] date: Option<&str>,
        #[case] seconds: Option<u64>,
    ) {
        assert_eq!(asked_by(Some(retry_after), date), seconds.map(Duration::from_secs));
    }

    #[test]
    fn no_time_without_usage_header_or_known_id() {
        assert_eq!(named_by(None, &subject()), None);
        let header = r#"{"":[{"type":"messenger","estimated_time_to_regain_access":7}]}"#;
        assert_eq!(named_by(Some(header), &Subject::default()), None);
    }

    #[rstest]
    #[case(PauseKind::RateLine, Some(minutes(24 * 60)))]
    #[case(PauseKind::RateUseCase, Some(minutes(24 * 60)))]
    #[case(PauseKind::RateApp, Some(minutes(60)))]
    #[case(PauseKind::LineRefused, None)]
    #[case(PauseKind::NotGraphs, None)]
    fn a_named_time_counts_for_rates_alone_and_is_bounded(
        #[case] pause_kind: PauseKind,
        #[case] longest: Option<Duration>,
    ) {
        assert_eq!(pause_kind.demand(Some(Duration::MAX), "x").named, longest);
        assert_eq!(pause_kind.demand(Some(minutes(7)), "x").named, longest.map(|_| minutes(7)));
        assert_eq!(pause_kind.demand(None, "x").named, None);
    }
}

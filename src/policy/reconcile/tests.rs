//! Rows and messages, case by case. Times are seconds after a common moment.

use rstest::rstest;
use time::macros::datetime;

use super::*;

const START: OffsetDateTime = datetime!(2026-11-28 12:00 UTC);
const LENGTH: CallLength = CallLength { text: Duration::from_secs(32), media: Duration::from_secs(97) };
const DEST: &str = "2531";

fn at(seconds: i64) -> OffsetDateTime {
    START + time::Duration::seconds(seconds)
}

fn row(id: i64, text: &str, sent: i64) -> SentRow {
    SentRow {
        id: RowId(id),
        kind: MessageKind::Text,
        mdata: text.to_owned(),
        created_at: at(sent - 1),
        sent_at: Some(at(sent)),
        ambiguous_calls: 1,
        standing: Standing::Unknown,
    }
}

fn image(id: i64, sent: i64) -> SentRow {
    SentRow { kind: MessageKind::Image, ..row(id, "https://example.com/a.png", sent) }
}

fn standing(row: SentRow, standing: Standing) -> SentRow {
    SentRow { standing, ..row }
}

fn message(id: &str, text: &str, seconds: i64) -> FoundMessage {
    FoundMessage {
        id: id.to_owned(),
        at: at(seconds),
        from: "900".to_owned(),
        text: text.to_owned(),
        attachments: None,
    }
}

fn picture(id: &str, seconds: i64) -> FoundMessage {
    FoundMessage { attachments: Some(vec!["image/jpeg".to_owned()]), ..message(id, "", seconds) }
}

fn found(id: &str) -> Finding {
    Finding::Found { message_id: id.to_owned() }
}

#[rstest]
#[case::the_message(vec![row(1, "hi", 0)], vec![message("m", "hi", 0)], vec![found("m")])]
#[case::trimmed_by_meta(vec![row(1, " hi\n", 0)], vec![message("m", "hi", 0)], vec![found("m")])]
#[case::by_a_clock_that_is_late(vec![row(1, "hi", 0)], vec![message("m", "hi", -2)], vec![found("m")])]
#[case::at_the_end_of_the_call(vec![row(1, "hi", 0)], vec![message("m", "hi", 42)], vec![found("m")])]
#[case::before_the_call(vec![row(1, "hi", 0)], vec![message("m", "hi", -3)], vec![Finding::NotFound])]
#[case::long_after_the_call(vec![row(1, "hi", 0)], vec![message("m", "hi", 43)], vec![Finding::NotFound])]
#[case::another_text(vec![row(1, "hi", 0)], vec![message("m", "hello", 0)], vec![Finding::NotFound])]
#[case::of_the_recipient(
    vec![row(1, "hi", 0)],
    vec![FoundMessage { from: DEST.into(), ..message("m", "hi", 0) }],
    vec![Finding::NotFound]
)]
#[case::nothing(vec![row(1, "hi", 0)], vec![], vec![Finding::NotFound])]
#[case::known_as_that_of_another_row(
    vec![row(1, "hi", 0), standing(row(2, "hi", 5), Standing::Taken("m".into()))],
    vec![message("m", "hi", 5)],
    vec![Finding::NotFound]
)]
#[case::two_rows_in_order(
    vec![row(1, "hi", 0), row(2, "hi", 10)],
    vec![message("second", "hi", 10), message("first", "hi", 1)],
    vec![found("first"), found("second")]
)]
#[case::one_message_of_two_rows(
    vec![row(1, "hi", 0), row(2, "hi", 10)],
    vec![message("m", "hi", 10)],
    vec![Finding::Unclear, Finding::Unclear]
)]
#[case::two_messages_of_one_call(
    vec![row(1, "hi", 0)],
    vec![message("m", "hi", 0), message("n", "hi", 3)],
    vec![Finding::Unclear]
)]
#[case::two_messages_of_two_calls(
    vec![SentRow { ambiguous_calls: 2, ..row(1, "hi", 0) }],
    vec![message("m", "hi", 0), message("n", "hi", 3)],
    vec![found("m")]
)]
#[case::while_another_row_is_sent(
    vec![row(1, "hi", 0), standing(row(2, "hi", 5), Standing::Open)],
    vec![message("m", "hi", 5)],
    vec![Finding::Unclear]
)]
#[case::where_another_row_may_have_sent_it(
    vec![row(1, "hi", 0), standing(row(2, "hi", 5), Standing::MaybeTaken)],
    vec![message("m", "hi", 5)],
    vec![Finding::Unclear]
)]
#[case::beside_a_row_that_was_refused(
    vec![row(1, "hi", 0), standing(row(2, "hi", 5), Standing::NotTaken)],
    vec![message("m", "hi", 5)],
    vec![found("m")]
)]
#[case::beside_rows_with_other_texts(
    vec![row(1, "hi", 0), row(2, "hello", 1)],
    vec![message("m", "hi", 0), message("n", "hello", 1)],
    vec![found("m"), found("n")]
)]
#[case::a_picture(vec![image(1, 0)], vec![picture("m", 80), message("n", "hi", 1)], vec![found("m")])]
#[case::a_picture_without_its_type(vec![image(1, 0)], vec![message("m", "", 3)], vec![found("m")])]
#[case::a_text_for_a_picture(vec![image(1, 0)], vec![message("m", "hi", 3)], vec![Finding::NotFound])]
#[case::a_picture_for_a_text(vec![row(1, "", 0)], vec![picture("m", 0)], vec![Finding::NotFound])]
#[case::without_a_call(
    vec![SentRow { sent_at: None, ..row(1, "hi", 0) }],
    vec![message("m", "hi", 0)],
    vec![Finding::TooEarly]
)]
fn message_is_that_of_a_row_only_if_counts_fit(
    #[case] rows: Vec<SentRow>,
    #[case] messages: Vec<FoundMessage>,
    #[case] expected: Vec<Finding>,
) {
    let mut findings = reconcile(&rows, &messages, DEST, LENGTH, at(3_600));
    findings.sort_by_key(|(id, _)| *id);
    let findings: Vec<Finding> = findings.into_iter().map(|(_, finding)| finding).collect();
    assert_eq!(findings, expected);
}

#[rstest]
#[case::while_the_call_may_be_answered(91, Finding::TooEarly)]
#[case::a_minute_later(92, Finding::NotFound)]
fn missing_message_says_nothing_before_the_calls_end(#[case] now: i64, #[case] expected: Finding) {
    let findings = reconcile(&[row(1, "hi", 0)], &[], DEST, LENGTH, at(now));
    assert_eq!(findings, [(RowId(1), expected)]);
}

#[rstest]
#[case::one_row(vec![row(1, "hi", 0)], EchoMatch::Row(RowId(1)))]
#[case::two_rows(vec![row(1, "hi", 0), row(2, "hi", 1)], EchoMatch::None)]
#[case::a_row_on_its_way(vec![row(1, "hi", 0), standing(row(2, "hi", 1), Standing::Open)], EchoMatch::Wait)]
#[case::a_known_message(
    vec![row(1, "hi", 0), standing(row(2, "hi", 1), Standing::Taken("m".into()))],
    EchoMatch::None
)]
#[case::beside_another_known_message(
    vec![row(1, "hi", 0), standing(row(2, "hi", 1), Standing::Taken("n".into()))],
    EchoMatch::Row(RowId(1))
)]
#[case::beside_a_row_that_may_have_sent_it(
    vec![row(1, "hi", 0), standing(row(2, "hi", 1), Standing::MaybeTaken)],
    EchoMatch::None
)]
#[case::sent_long_before(vec![row(1, "hi", -601)], EchoMatch::None)]
#[case::sent_after_it(vec![row(1, "hi", 3)], EchoMatch::None)]
#[case::no_row(vec![], EchoMatch::None)]
fn echo_is_about_a_row_only_if_it_is_the_only_one(#[case] rows: Vec<SentRow>, #[case] expected: EchoMatch) {
    assert_eq!(match_echo(&rows, "m", at(0)), expected);
}

#[test]
fn looks_end_after_a_day() {
    let pauses: Vec<Duration> = (0..).map_while(look_again).collect();
    assert!(pauses.is_sorted() && pauses.iter().sum::<Duration>() < Duration::from_secs(86_400));
    assert_eq!(look_again(u32::MAX), None);
}

//! The error of the row, and the times and reasons of pauses.

use rstest::rstest;

use super::*;
use crate::domain::ErrorDetail;
use crate::policy::classify::judgement::PauseDemand;
use crate::text::MAX_ERROR_CHARS;

#[test]
fn an_error_keeps_status_codes_text_and_trace() {
    let judgement = error(403, 10, 2534022);
    let expected = ErrorDetail {
        http_status: Some(403),
        code: Some(10),
        subcode: Some(2534022),
        message: "(#1) no".into(),
        fbtrace_id: Some("Atrace".into()),
    };
    assert_eq!(judgement.error, expected);
}

#[test]
fn an_error_text_is_clean_and_bounded() {
    let message = format!("a\u{0}b\nMalformed access token EAAGm0PX4ZCpsBAKZCx9 {}", "x".repeat(70_000));
    let judgement = answer_json(400, json!({"error": {"code": 190, "message": message}}));
    assert!(judgement.error.message.starts_with("ab Malformed access token [redacted] xxx"));
    assert_eq!(judgement.error.message.chars().count(), MAX_ERROR_CHARS);
    let reason = judgement.pause.expect("190 pauses the line").reason;
    assert!(
        reason.starts_with("cannot send: Graph code 190: ab Malformed access token [redacted]"),
        "{reason}"
    );
    assert!(reason.chars().count() <= 160);
}

#[test]
fn a_gateways_page_is_not_quoted() {
    let judgement = answer(502, "<html>POST {\"text\":\"private\"}</html>");
    assert_eq!(judgement.error.message, "HTTP 502 without an error text of Graph");
}

/// Return the demand on a line of page 9 by a code and a usage header that names 120 minutes for page 9 and
/// 500 for page 8.
fn demanded(code: i64) -> PauseDemand {
    let answer = GraphAnswer {
        http_status: 400,
        body: json!({"error": {"code": code, "message": "wait"}}).to_string().into_bytes(),
        business_usage: Some(
            r#"{"8":[{"type":"messenger","estimated_time_to_regain_access":500}],
                "9":[{"type":"messenger","estimated_time_to_regain_access":120},
                     {"type":"ads_management","estimated_time_to_regain_access":900}]}"#
                .to_owned(),
        ),
        ..GraphAnswer::default()
    };
    let subject = Subject { page_id: Some("9".into()), ..Subject::default() };
    classify(&CallResult::Answer(answer), &subject).pause.expect("the code pauses the line")
}

#[rstest]
#[case(613, Some(minutes(120)))]
#[case(80006, Some(minutes(120)))]
#[case(4, Some(minutes(60)))]
#[case(190, None)]
#[case(10, None)]
#[case(200, None)]
fn demand_of_a_rate_code_has_the_named_time(#[case] code: i64, #[case] named: Option<Duration>) {
    assert_eq!(demanded(code).named, named);
}

#[test]
fn a_pause_says_its_reason_with_the_code() {
    assert_eq!(demanded(80006).reason, "over Meta's limit for the line: Graph code 80006: wait");
    let reason = answer(403, "<html>Forbidden</html>").pause.expect("it pauses the line").reason;
    assert!(reason.starts_with("no answer of its own: HTTP 403: a proxy or gateway"), "{reason}");
}

#[rstest]
#[case(json!("Not allowed"), json!("Ask the owner."), "(#1) no (Not allowed: Ask the owner.)")]
#[case(json!(null), json!("Ask the owner."), "(#1) no (Ask the owner.)")]
#[case(json!(""), json!(""), "(#1) no")]
fn text_of_graph_for_people_is_kept(#[case] title: Value, #[case] text: Value, #[case] kept: &str) {
    let error = json!({
        "code": 100, "type": "OAuthException", "message": "(#1) no", "error_user_title": title, "error_user_msg": text,
    });
    assert_eq!(answer_json(400, json!({ "error": error })).error.message, kept);
}

#[rstest]
#[case(429, "", "90", Some(90))]
#[case(429, "", "86400", Some(3_600))]
#[case(400, r#"{"error":{"code":613}}"#, "120", Some(120))]
#[case(503, "<html>", "20", Some(20))]
#[case(503, "<html>", "3000", Some(300))]
#[case(400, r#"{"error":{"code":190}}"#, "20", None)]
fn retry_after_names_the_length_of_a_pause(
    #[case] http_status: u16,
    #[case] body: &str,
    #[case] retry_after: &str,
    #[case] named: Option<u64>,
) {
    let retry_after = Some(retry_after.to_owned());
    let body = body.as_bytes().to_vec();
    let answer = GraphAnswer { http_status, body, retry_after, ..GraphAnswer::default() };
    let pause = classify(&CallResult::Answer(answer), &Subject::default()).pause.expect("it pauses the line");
    assert_eq!(pause.named, named.map(Duration::from_secs));
}

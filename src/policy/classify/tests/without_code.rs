//! Answers without a code that is known, and calls without an answer.

use rstest::rstest;

use super::*;

#[rstest]
#[case("")]
#[case("<html>429</html>")]
#[case(r#"{"message_id":"m_1"}"#)]
#[case(r#"{"error":{"code":100}}"#)]
#[case(r#"{"error":{"code":190}}"#)]
#[case(r#"{"error":{"code":77777}}"#)]
fn http_429_with_any_body_slows_the_line_down(#[case] body: &str) {
    let judgement = answer(429, body);
    assert_eq!(judgement.verdict, Verdict::TryAgain);
    assert_eq!(pause(&judgement), slowed_down());
}

#[test]
fn http_429_slows_down_beside_a_final_code() {
    assert_eq!(pause(&error(429, 10, 2018278)), slowed_down());
    assert_eq!(pause(&error(429, 2, 0)), slowed_down());
    assert_eq!(pause(&error(429, 10, 0)), line_refused());
}

#[rstest]
fn http_5xx_without_known_code_is_a_server_failure(
    #[values(408, 500, 502, 503, 504, 599)] status: u16,
    #[values(
        "",
        "<html>Bad Gateway</html>",
        "{}",
        r#"{"error":null}"#,
        r#"{"error":"x"}"#,
        r#"{"error":{"code":77777}}"#,
        r#"{"message_id":"m_1"}"#
    )]
    body: &str,
) {
    let judgement = answer(status, body);
    assert_eq!((judgement.verdict, judgement.pause), (Verdict::ServerFailed, None));
}

#[rstest]
fn refusal_of_graph_without_known_code_is_unlisted(
    #[values(301, 400, 401, 403, 404, 405, 413, 422, 499)] status: u16,
    #[values(r#"{"error":{"code":77777}}"#, r#"{"error":{"type":"OAuthException"}}"#)] body: &str,
) {
    let judgement = answer(status, body);
    assert_eq!(judgement.verdict, Verdict::Unlisted);
    assert_eq!(pause(&judgement), line_refused(), "after too many of them in a row");
    assert!(judgement.by_graph);
}

#[rstest]
fn an_unknown_code_that_passes_is_tried_three_times(
    #[values(200, 302, 400, 403)] status: u16,
    #[values(
        r#"{"error":{"code":-1,"error_subcode":2018012,"type":"OAuthException"}}"#,
        r#"{"error":{"code":-2,"type":"OAuthException"}}"#,
        r#"{"error":{"code":-3,"type":"OAuthException"}}"#,
        r#"{"error":{"code":1357045,"is_transient":true,"type":"OAuthException"}}"#,
        r#"{"error":{"code":1357045,"is_transient":"true"}}"#
    )]
    body: &str,
) {
    let judgement = answer(status, body);
    assert_eq!(judgement.verdict, Verdict::RetryCounted { at_most: Some(3), not_before: None });
    assert_eq!(judgement.pause, None);
}

#[rstest]
#[case(508, Verdict::Refused)]
#[case(4, Verdict::TryAgain)]
#[case(100, Verdict::Refused)]
fn listed_code_marked_transient_keeps_its_meaning(#[case] code: i64, #[case] verdict: Verdict) {
    let body = json!({"error": {"code": code, "is_transient": true, "type": "OAuthException"}});
    assert_eq!(answer_json(400, body).verdict, verdict);
}

#[rstest]
#[case(CallResult::NotSent { reason: "refused".into() }, Verdict::TryAgain, None)]
#[case(CallResult::NoFile { reason: "too many open files".into() }, Verdict::TryAgain, None)]
#[case(CallResult::Cut { reason: "reset".into() }, Verdict::Ambiguous, None)]
#[case(CallResult::Unsendable { reason: "token".into() }, Verdict::WaitForLine, line_refused())]
fn without_an_answer_the_transport_decides(
    #[case] result: CallResult,
    #[case] verdict: Verdict,
    #[case] demanded: Option<(PauseTarget, Duration, Duration)>,
) {
    let judgement = classify(&result, &Subject::default());
    assert_eq!(judgement.verdict, verdict);
    assert_eq!(pause(&judgement), demanded);
    assert_eq!(judgement.error.http_status, None);
    assert!(!judgement.error.message.is_empty());
}

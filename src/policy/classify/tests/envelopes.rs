//! Bodies in any form: another envelope, a challenge in its place, or none of Graph's.

use rstest::rstest;

use super::*;

#[rstest]
#[case::a_byte_order_mark("\u{feff}{\"error\":{\"code\":190}}", Some(190), Verdict::WaitForLine)]
#[case::a_guard(r#"for (;;);{"error":{"code":190}}"#, Some(190), Verdict::WaitForLine)]
#[case::a_list_of_one(r#"[{"error":{"code":10,"error_subcode":2018278}}]"#, Some(10), Verdict::Refused)]
#[case::an_older_name(r#"{"error_code":190,"error_msg":"expired"}"#, Some(190), Verdict::WaitForLine)]
#[case::an_older_type(
    r#"{"error_type":"OAuthException","code":400,"error_message":"Invalid access token"}"#,
    Some(400),
    Verdict::Suspect
)]
#[case::a_word_about_the_token(
    r#"{"error":"invalid_token","error_description":"expired"}"#,
    None,
    Verdict::WaitForLine
)]
fn an_envelope_in_another_form_is_read(
    #[case] body: &str,
    #[case] code: Option<i32>,
    #[case] verdict: Verdict,
) {
    let judgement = answer(400, body);
    assert_eq!((judgement.error.code, judgement.by_graph), (code, true));
    assert_eq!(judgement.verdict, verdict);
}

fn challenged(http_status: u16, body: &str, challenge: &str) -> Judgement {
    let challenge = Some(challenge.to_owned());
    let body = body.as_bytes().to_vec();
    let answer = GraphAnswer { http_status, body, challenge, ..GraphAnswer::default() };
    classify(&CallResult::Answer(answer), &Subject::default())
}

#[test]
fn challenge_of_graph_replaces_an_empty_body() {
    let header = r#"OAuth "Facebook Platform" "invalid_token" "(#190) Error validating access token""#;
    let judgement = challenged(401, "", header);
    assert_eq!((judgement.error.code, judgement.by_graph), (Some(190), true));
    assert_eq!((judgement.verdict.clone(), pause(&judgement)), (Verdict::WaitForLine, line_refused()));
    let limited =
        challenged(403, "", r#"OAuth "Facebook Platform" "invalid_request" "(#10) outside the window""#);
    assert_eq!((limited.error.code, limited.verdict), (Some(10), Verdict::Refused));
    let body = r#"{"error":{"code":613}}"#;
    assert_eq!(challenged(400, body, header).error.code, Some(613), "the body says more");
    for unread in ["Basic realm=\"proxy\"", r#"OAuth "Facebook Platform" "invalid_request" "no number""#] {
        assert!(!challenged(401, "", unread).by_graph, "{unread}");
    }
    assert!(matches!(challenged(200, r#"{"message_id":"m_1"}"#, header).verdict, Verdict::Sent { .. }));
}

#[rstest]
#[case(401, Verdict::WaitForLine)]
#[case(200, Verdict::Ambiguous)]
#[case(502, Verdict::ServerFailed)]
fn an_answer_in_an_unread_encoding_ends_no_message(#[case] http_status: u16, #[case] verdict: Verdict) {
    let answer = GraphAnswer { http_status, is_unreadable: true, ..GraphAnswer::default() };
    let judgement = classify(&CallResult::Answer(answer), &Subject::default());
    assert_eq!((judgement.verdict, judgement.by_graph), (verdict, false));
    assert!(judgement.error.message.contains("encoding"), "{}", judgement.error.message);
}

#[rstest]
fn answer_without_envelope_only_pauses_the_line(
    #[values(300, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 407, 413, 422, 499)] status: u16,
    #[values(
        "",
        "<html>Log in to the network</html>",
        "{}",
        "null",
        r#"{"message_id":"m_1"}"#,
        r#"{"error":null}"#,
        r#"{"error":"Forbidden"}"#,
        r#"{"error":"invalid_request","error_description":"no"}"#,
        r#"{"error":[{"code":4}]}"#,
        r#"[{"error":{"code":4}},{"error":{"code":4}}]"#,
        r#"{"error":{"message":"blocked by policy"}}"#
    )]
    body: &str,
) {
    let judgement = answer(status, body);
    assert_eq!((&judgement.verdict, judgement.by_graph), (&Verdict::WaitForLine, false));
    assert_eq!(pause(&judgement), not_graphs());
    let text = judgement.error.message;
    assert!(text.contains(&status.to_string()) && text.contains("graph.base_url"), "{text}");
    assert!(!text.contains("Log in") && !text.contains("Forbidden") && !text.contains("blocked"), "{text}");
}

#[rstest]
#[case(429, "<html>Too many</html>", false)]
#[case(429, r#"{"error":{"code":613}}"#, true)]
#[case(502, "<html>Bad Gateway</html>", false)]
#[case(400, r#"{"error":{"code":190}}"#, true)]
#[case(403, r#"{"error":{"code":403,"message":"Forbidden"}}"#, false)]
#[case(403, r#"{"error":{"code":403,"type":"OAuthException"}}"#, true)]
fn an_answer_is_graphs_if_it_has_its_envelope(
    #[case] status: u16,
    #[case] body: &str,
    #[case] by_graph: bool,
) {
    assert_eq!(answer(status, body).by_graph, by_graph);
    let is_suspect = answer(status, body).verdict == Verdict::Suspect;
    assert_eq!(is_suspect, by_graph && status == 403, "its type says that it is about the token");
}

#[rstest]
#[case(json!("10"), Some(10))]
#[case(json!(" 10 "), Some(10))]
#[case(json!(10.0), Some(10))]
#[case(json!(-10), Some(-10))]
#[case(json!("ten"), None)]
#[case(json!(10.5), None)]
#[case(json!(1e300), None)]
#[case(json!(i64::MIN), None)]
#[case(json!(u64::MAX), None)]
#[case(json!([10]), None)]
#[case(json!({"code": 10}), None)]
#[case(json!(true), None)]
#[case(json!(null), None)]
fn a_code_in_any_shape_is_read_or_left_out(#[case] code: Value, #[case] stored: Option<i32>) {
    let error = json!({"type": "OAuthException", "code": code, "error_subcode": code});
    let judgement = answer_json(400, json!({ "error": error }));
    assert_eq!(judgement.error.code, stored);
    assert!(judgement.by_graph);
}

#[rstest]
#[case(b"\xff\xfe{}".as_slice(), Verdict::WaitForLine)]
#[case(b"\xef\xbb\xbf{\"error\":{\"code\":10}}", Verdict::Refused)]
#[case(b"{\"error\":{\"code\":10,\"message\":\"caf\xe9\"}}", Verdict::Refused)]
#[case(b"{\"error\":{\"code\":\"\\u0000\"}}", Verdict::WaitForLine)]
fn bytes_that_are_no_clean_json_never_panic(#[case] body: &[u8], #[case] verdict: Verdict) {
    assert_eq!(answer(400, body).verdict, verdict);
}

#[test]
fn deeply_nested_json_never_panics() {
    let body = format!("{}1{}", r#"{"error":"#.repeat(5_000), "}".repeat(5_000));
    assert_eq!(answer(400, body).verdict, Verdict::WaitForLine);
}

#[test]
fn a_body_with_a_broken_encoding_still_shows_its_code() {
    let judgement = answer(500, b"{\"error\":{\"code\":10,\"message\":\"caf\xe9\"}}".as_slice());
    assert_eq!(judgement.verdict, Verdict::Refused);
    assert_eq!(judgement.error.code, Some(10));
}

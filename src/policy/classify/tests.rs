use rstest::rstest;
use serde_json::{Value, json};

use super::*;

const NO_LIMIT: Verdict = Verdict::RetryCounted { at_most: None, not_before: None };

fn answer(http_status: u16, body: impl Into<Vec<u8>>) -> Judgement {
    let answer = GraphAnswer { http_status, body: body.into(), ..GraphAnswer::default() };
    classify(&CallResult::Answer(answer), &Subject::default())
}

fn answer_json(http_status: u16, body: Value) -> Judgement {
    answer(http_status, body.to_string())
}

/// Judge an error body with a code and, unless it is 0, a subcode.
fn error(http_status: u16, code: i64, subcode: i64) -> Judgement {
    let mut error =
        json!({"message": "(#1) no", "type": "OAuthException", "code": code, "fbtrace_id": "Atrace"});
    if subcode != 0 {
        error["error_subcode"] = json!(subcode);
    }
    answer_json(http_status, json!({ "error": error }))
}

fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

/// Return the target, the first and the longest pause.
fn pause(judgement: &Judgement) -> Option<(PauseTarget, Duration, Duration)> {
    judgement.pause.as_ref().map(|pause| (pause.target, pause.first, pause.cap))
}

fn slowed_down() -> Option<(PauseTarget, Duration, Duration)> {
    Some((PauseTarget::Line, Duration::from_secs(1), Duration::from_secs(60)))
}

fn not_graphs() -> Option<(PauseTarget, Duration, Duration)> {
    Some((PauseTarget::Line, Duration::from_secs(30), minutes(30)))
}

fn line_refused() -> Option<(PauseTarget, Duration, Duration)> {
    Some((PauseTarget::Line, minutes(30), minutes(240)))
}

// ---- success -------------------------------------------------------------------------------------------------

#[rstest]
#[case(200)]
#[case(201)]
fn a_success_with_a_message_id_is_sent(#[case] status: u16) {
    let judgement = answer_json(status, json!({"recipient_id": "1", "message_id": "m_1"}));
    assert_eq!(judgement.verdict, Verdict::Sent { graph_id: "m_1".into() });
    assert_eq!(judgement.error, ErrorDetail::default());
    assert_eq!((judgement.pause, judgement.by_graph), (None, true));
}

#[test]
fn message_id_is_kept_to_the_letter() {
    let id = "m_AG5Hz2UqEAAGm0PX4ZCpsBAKZCx9IGQVJxyz12345";
    let judgement = answer_json(200, json!({"recipient_id": "1", "message_id": id}));
    assert_eq!(judgement.verdict, Verdict::Sent { graph_id: id.into() });
}

#[rstest]
#[case("")]
#[case("<html>ok</html>")]
#[case("{}")]
#[case(r#"{"message_id":""}"#)]
#[case(r#"{"message_id":7}"#)]
#[case(r#"{"message_id":null}"#)]
#[case(r#"{"message_id":"m_1""#)]
#[case(r#"["m_1"]"#)]
#[case(r#""m_1""#)]
#[case(r#"[{"message_id":"m_1"}]"#)]
#[case(r#"{"message_id":"m_1"} trailing"#)]
#[case(r#"{"message_id":"m_1","error":"odd"}"#)]
#[case(r#"{"message_id":"m_1","error":[]}"#)]
#[case(r#"{"message_id":"m_1","error":{"message":"no code"}}"#)]
fn any_other_success_is_ambiguous_and_pauses_the_line(#[case] body: &str) {
    let judgement = answer(200, body);
    assert_eq!((&judgement.verdict, judgement.by_graph), (&Verdict::Ambiguous, false));
    assert_eq!(pause(&judgement), not_graphs());
    assert_eq!(judgement.error.http_status, Some(200));
    assert!(!judgement.error.message.is_empty());
}

#[rstest]
#[case(10, 2018278, Verdict::Refused)]
#[case(1, 0, Verdict::ServerFailed)]
#[case(613, 0, Verdict::TryAgain)]
#[case(77777, 0, Verdict::Unlisted)]
fn a_success_with_an_error_is_judged_by_the_error(
    #[case] code: i64,
    #[case] subcode: i64,
    #[case] verdict: Verdict,
) {
    assert_eq!(error(200, code, subcode).verdict, verdict);
}

#[rstest]
#[case(10, Verdict::Refused)]
#[case(613, Verdict::Ambiguous)]
#[case(190, Verdict::Ambiguous)]
#[case(368, Verdict::Ambiguous)]
#[case(1200, Verdict::Ambiguous)]
#[case(2, Verdict::ServerFailed)]
fn error_with_message_id_counts_as_maybe_taken(#[case] code: i64, #[case] verdict: Verdict) {
    let judgement = answer_json(200, json!({"message_id": "m_1", "error": {"code": code}}));
    assert_eq!(judgement.verdict, verdict);
    assert_eq!(pause(&judgement), pause(&error(400, code, 0)), "it still says what the line may do");
}

// ---- codes 10 and 551 ----------------------------------------------------------------------------------------

#[rstest]
fn a_code_10_or_551_is_error_at_the_first_answer(
    #[values(10, 551)] code: i64,
    #[values(0, 1, 99, 2018278, 2534022, 2534077, 1893063, 1545041, 2018300, 2018344, 1357046, 33)]
    subcode: i64,
    #[values(200, 301, 400, 403, 404, 408, 429, 500, 503)] status: u16,
) {
    assert_eq!(error(status, code, subcode).verdict, Verdict::Refused);
}

#[rstest]
#[case(2018278)]
#[case(2534022)]
#[case(2018065)]
#[case(2018108)]
#[case(2018336)]
#[case(1893015)]
#[case(1404170)]
fn a_code_10_about_the_recipient_pauses_nothing(#[case] subcode: i64) {
    assert_eq!(error(400, 10, subcode).pause, None);
}

#[rstest]
#[case(0)]
#[case(2534077)]
#[case(1893063)]
#[case(4242)]
fn a_code_10_about_the_line_pauses_the_line_too(#[case] subcode: i64) {
    assert_eq!(pause(&error(400, 10, subcode)), line_refused());
}

#[rstest]
#[case(200)]
#[case(551)]
#[case(100)]
fn unavailable_person_ends_only_the_message(#[case] code: i64) {
    let judgement = error(400, code, 1545041);
    assert_eq!((judgement.verdict, judgement.pause), (Verdict::Refused, None));
}

// ---- the other codes, row by row -----------------------------------------------------------------------------

#[rstest]
#[case(1, 0)]
#[case(1, 99)]
#[case(2, 0)]
#[case(1, 1545041)]
#[case(2, 2018300)]
fn codes_1_and_2_are_always_server_failures(
    #[case] code: i64,
    #[case] subcode: i64,
    #[values(200, 302, 400, 403, 408, 429, 500, 503)] status: u16,
) {
    assert_eq!(error(status, code, subcode).verdict, Verdict::ServerFailed);
}

#[rstest]
fn error_of_delivered_messages_is_held(#[values(200, 400, 429, 500)] status: u16) {
    assert_eq!(error(status, 1, 1357046).verdict, Verdict::Hold);
}

#[rstest]
#[case(2, 2018344)]
#[case(4, 2018354)]
#[case(9, 2018352)]
#[case(613, 1893016)]
#[case(613, 2018338)]
#[case(100, 0)]
#[case(100, 33)]
#[case(100, 2018001)]
#[case(100, 2018047)]
#[case(100, 2018074)]
#[case(100, 2018109)]
#[case(100, 2018014)]
#[case(100, 2018034)]
#[case(100, 2018164)]
#[case(100, 1893061)]
#[case(100, 2534014)]
#[case(100, 2534015)]
#[case(100, 2534025)]
#[case(100, 10900)]
#[case(100, 2534037)]
#[case(200, 2018021)]
#[case(506, 0)]
#[case(508, 2534122)]
#[case(546, 0)]
#[case(9000001, 0)]
fn refusal_of_the_message_is_final_without_pause(
    #[case] code: i64,
    #[case] subcode: i64,
    #[values(400, 403, 500)] status: u16,
) {
    let judgement = error(status, code, subcode);
    assert_eq!((judgement.verdict, judgement.pause), (Verdict::Refused, None));
}

#[rstest]
#[case(3, 0)]
#[case(5, 0)]
#[case(11, 0)]
#[case(12, 0)]
#[case(15, 0)]
#[case(101, 0)]
#[case(102, 0)]
#[case(104, 0)]
#[case(100, 2534013)]
#[case(100, 2534029)]
#[case(190, 0)]
#[case(190, 458)]
#[case(190, 459)]
#[case(190, 460)]
#[case(190, 463)]
#[case(190, 464)]
#[case(190, 467)]
#[case(190, 492)]
#[case(190, 4242)]
#[case(200, 2534041)]
#[case(412, 0)]
#[case(450, 0)]
#[case(459, 0)]
#[case(464, 0)]
#[case(467, 0)]
#[case(492, 0)]
#[case(900, 0)]
#[case(2500, 0)]
#[case(36103, 0)]
fn refusal_of_the_line_pauses_it_and_message_waits(
    #[case] code: i64,
    #[case] subcode: i64,
    #[values(400, 403, 500)] status: u16,
) {
    let judgement = error(status, code, subcode);
    assert_eq!(judgement.verdict, Verdict::WaitForLine);
    assert_eq!(pause(&judgement), line_refused());
}

#[rstest]
#[case(200, 0)]
#[case(200, 2018027)]
#[case(200, 2018028)]
#[case(200, 4242)]
#[case(230, 0)]
#[case(299, 0)]
#[case(368, 0)]
#[case(368, 1346003)]
#[case(803, 0)]
#[case(2022, 0)]
fn refusal_of_line_or_message_is_suspect(
    #[case] code: i64,
    #[case] subcode: i64,
    #[values(400, 403, 500)] status: u16,
) {
    let judgement = error(status, code, subcode);
    assert_eq!(judgement.verdict, Verdict::Suspect);
    assert_eq!(pause(&judgement), line_refused());
    assert!(judgement.pause.is_some_and(|pause| pause.ends_with_trial));
}

#[rstest]
#[case(9, 0)]
#[case(9, 4242)]
#[case(17, 0)]
#[case(32, 0)]
#[case(613, 0)]
#[case(613, 2534040)]
#[case(613, 4242)]
fn a_rate_code_of_the_line_pauses_it_for_seconds(
    #[case] code: i64,
    #[case] subcode: i64,
    #[values(400, 403, 429, 500)] status: u16,
) {
    let judgement = error(status, code, subcode);
    assert_eq!(judgement.verdict, Verdict::TryAgain);
    assert_eq!(pause(&judgement), slowed_down());
}

#[rstest]
#[case(4, 0)]
#[case(4, 2018022)]
#[case(341, 0)]
#[case(613, 1996)]
fn a_rate_code_of_the_app_pauses_every_line(
    #[case] code: i64,
    #[case] subcode: i64,
    #[values(400, 403, 429)] status: u16,
) {
    let judgement = error(status, code, subcode);
    assert_eq!(judgement.verdict, Verdict::TryAgain);
    assert_eq!(pause(&judgement), Some((PauseTarget::App, minutes(5), minutes(5))));
}

#[rstest]
fn business_limit_pauses_the_line_for_minutes(
    #[values(80001, 80002, 80006)] code: i64,
    #[values(400, 429)] status: u16,
) {
    let judgement = error(status, code, 0);
    assert_eq!(judgement.verdict, Verdict::TryAgain);
    assert_eq!(pause(&judgement), Some((PauseTarget::Line, minutes(15), minutes(60))));
}

#[rstest]
#[case(1200, 0, NO_LIMIT)]
#[case(1200, 2018024, NO_LIMIT)]
#[case(100, 2018008, Verdict::RetryCounted { at_most: Some(3), not_before: None })]
#[case(100, 2018294, Verdict::RetryCounted { at_most: Some(2), not_before: None })]
#[case(389, 0, Verdict::RetryCounted { at_most: Some(3), not_before: None })]
#[case(100, 2018300, Verdict::RetryCounted { at_most: Some(6), not_before: Some(minutes(5)) })]
#[case(100, 2018321, Verdict::RetryCounted { at_most: Some(6), not_before: Some(minutes(5)) })]
#[case(2018300, 0, Verdict::RetryCounted { at_most: Some(6), not_before: Some(minutes(5)) })]
fn passing_failure_is_counted_without_a_pause(
    #[case] code: i64,
    #[case] subcode: i64,
    #[case] verdict: Verdict,
    #[values(400, 500)] status: u16,
) {
    let judgement = error(status, code, subcode);
    assert_eq!((judgement.verdict, judgement.pause), (verdict, None));
}

#[rstest]
#[case("OAuthException", json!(null), "API calls from the server require an appsecret_proof argument", Verdict::WaitForLine)]
#[case("GraphMethodException", json!(null), "Invalid appsecret_proof provided in the API argument", Verdict::WaitForLine)]
#[case("", json!(null), "Unsupported post request. Object with ID 'me' does not exist", Verdict::WaitForLine)]
#[case("GraphMethodException", json!(null), "任何文字", Verdict::Suspect)]
#[case("GraphMethodException", json!(33), "任何文字", Verdict::Suspect)]
fn a_code_100_about_the_caller_pauses_the_line(
    #[case] kind: &str,
    #[case] subcode: Value,
    #[case] message: &str,
    #[case] verdict: Verdict,
) {
    let body = json!({"error": {"code": 100, "error_subcode": subcode, "type": kind, "message": message}});
    let judgement = answer_json(400, body);
    assert_eq!(judgement.verdict, verdict);
    assert_eq!(pause(&judgement), line_refused());
}

#[test]
fn the_text_decides_nothing_beside_a_subcode() {
    let body = json!({"error": {"code": 100, "error_subcode": 2018001, "message": "Object with ID 'me'"}});
    assert_eq!(answer_json(400, body).verdict, Verdict::Refused);
}

// ---- no code, or none that is known --------------------------------------------------------------------------

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

// ---- other forms of an envelope ------------------------------------------------------------------------------

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

// ---- details and pauses --------------------------------------------------------------------------------------

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
    let subject = Subject { page_id: Some("9".into()), instagram_account_id: None };
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

// ---- no answer -----------------------------------------------------------------------------------------------

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

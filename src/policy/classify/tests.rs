use rstest::rstest;
use serde_json::{Value, json};

use super::*;

const NO_LIMIT: Verdict = Verdict::RetryCounted { at_most: None, not_before: None };

fn answer(http_status: u16, body: impl Into<Vec<u8>>) -> Judgement {
    let answer = Answer { http_status, body: body.into(), ..Answer::default() };
    classify(&CallResult::Answer(answer), &Subject::default())
}

fn answer_json(http_status: u16, body: Value) -> Judgement {
    answer(http_status, body.to_string())
}

/// Judges an error body with a code and, unless it is 0, a subcode.
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

/// Target, first and longest pause.
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
    assert_eq!(judgement.verdict, Verdict::Sent { message_id: "m_1".into() });
    assert_eq!(judgement.error, ErrorDetail::default());
    assert_eq!((judgement.pause, judgement.by_graph), (None, true));
}

#[test]
fn a_message_id_is_kept_to_the_letter_whatever_it_looks_like() {
    let id = "m_AG5Hz2UqEAAGm0PX4ZCpsBAKZCx9IGQVJxyz12345";
    let judgement = answer_json(200, json!({"recipient_id": "1", "message_id": id}));
    assert_eq!(judgement.verdict, Verdict::Sent { message_id: id.into() });
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
#[case(77777, 0, Verdict::Refused)]
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
#[case(1200, Verdict::Ambiguous)]
#[case(2, Verdict::ServerFailed)]
fn an_error_beside_a_message_id_is_never_sent_again_as_if_not_taken(
    #[case] code: i64,
    #[case] verdict: Verdict,
) {
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
fn a_person_who_is_not_available_ends_the_message_alone(#[case] code: i64) {
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
fn codes_1_and_2_are_server_failures_whatever_the_status(
    #[case] code: i64,
    #[case] subcode: i64,
    #[values(200, 302, 400, 403, 408, 429, 500, 503)] status: u16,
) {
    assert_eq!(error(status, code, subcode).verdict, Verdict::ServerFailed);
}

#[rstest]
fn the_error_that_meta_sends_with_delivered_messages_is_held(#[values(200, 400, 429, 500)] status: u16) {
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
fn a_refusal_of_the_message_is_final_and_pauses_nothing(
    #[case] code: i64,
    #[case] subcode: i64,
    #[values(400, 403, 500)] status: u16,
) {
    let judgement = error(status, code, subcode);
    assert_eq!((judgement.verdict, judgement.pause), (Verdict::Refused, None));
}

#[rstest]
#[case(3, 0)]
#[case(102, 0)]
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
#[case(200, 0)]
#[case(200, 2018027)]
#[case(200, 2018028)]
#[case(200, 2534041)]
#[case(200, 4242)]
#[case(230, 0)]
#[case(299, 0)]
#[case(368, 0)]
#[case(412, 0)]
#[case(803, 0)]
#[case(900, 0)]
#[case(2022, 0)]
#[case(2500, 0)]
#[case(36103, 0)]
fn a_refusal_of_the_line_leaves_the_message_waiting_and_pauses_the_line(
    #[case] code: i64,
    #[case] subcode: i64,
    #[values(400, 403, 500)] status: u16,
) {
    let judgement = error(status, code, subcode);
    assert_eq!(judgement.verdict, Verdict::WaitForLine);
    assert_eq!(pause(&judgement), line_refused());
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
fn a_business_use_case_limit_pauses_the_line_for_minutes(
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
fn a_passing_failure_of_the_message_is_counted_and_pauses_nothing(
    #[case] code: i64,
    #[case] subcode: i64,
    #[case] verdict: Verdict,
    #[values(400, 500)] status: u16,
) {
    let judgement = error(status, code, subcode);
    assert_eq!((judgement.verdict, judgement.pause), (verdict, None));
}

#[rstest]
#[case("OAuthException", json!(null), "API calls from the server require an appsecret_proof argument")]
#[case("OAuthException", json!(null), "Invalid appsecret_proof provided in the API argument")]
#[case("", json!(null), "Unsupported post request. Object with ID 'me' does not exist")]
#[case("GraphMethodException", json!(null), "任何文字")]
#[case("GraphMethodException", json!(33), "任何文字")]
fn a_code_100_about_the_caller_is_the_lines(
    #[case] kind: &str,
    #[case] subcode: Value,
    #[case] message: &str,
) {
    let body = json!({"error": {"code": 100, "error_subcode": subcode, "type": kind, "message": message}});
    let judgement = answer_json(400, body);
    assert_eq!(judgement.verdict, Verdict::WaitForLine);
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
fn http_429_slows_the_line_down_whatever_the_body(#[case] body: &str) {
    let judgement = answer(429, body);
    assert_eq!(judgement.verdict, Verdict::TryAgain);
    assert_eq!(pause(&judgement), slowed_down());
}

#[test]
fn http_429_slows_the_line_down_also_when_its_code_ends_the_message() {
    assert_eq!(pause(&error(429, 10, 2018278)), slowed_down());
    assert_eq!(pause(&error(429, 2, 0)), slowed_down());
    assert_eq!(pause(&error(429, 10, 0)), line_refused());
}

#[rstest]
fn a_server_error_without_a_known_code_is_a_server_failure(
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
fn a_refusal_of_graph_without_a_known_code_is_final(
    #[values(400, 401, 403, 404, 405, 413, 422, 499)] status: u16,
    #[values(
        r#"{"error":{"code":77777}}"#,
        r#"{"error":{"code":-1}}"#,
        r#"{"error":{"type":"OAuthException"}}"#
    )]
    body: &str,
) {
    let judgement = answer(status, body);
    assert_eq!((judgement.verdict, judgement.pause), (Verdict::Refused, None));
    assert!(judgement.by_graph);
}

#[rstest]
fn an_answer_without_graphs_envelope_ends_no_message_and_pauses_the_line(
    #[values(300, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 407, 413, 422, 499)] status: u16,
    #[values(
        "",
        "<html>Log in to the network</html>",
        "{}",
        "null",
        r#"{"message_id":"m_1"}"#,
        r#"{"error":null}"#,
        r#"{"error":"Forbidden"}"#,
        r#"{"error":[{"code":4}]}"#,
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
    let is_final = answer(status, body).verdict == Verdict::Refused;
    assert_eq!(is_final, by_graph && status == 403);
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
    assert_eq!(judgement.verdict, Verdict::Refused);
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

/// The demand on a line of page 9 by a code and a usage header that names 120 minutes for page 9 and 500 for page 8.
fn demanded(code: i64) -> PauseDemand {
    let answer = Answer {
        http_status: 400,
        body: json!({"error": {"code": code, "message": "wait"}}).to_string().into_bytes(),
        business_usage: Some(
            r#"{"8":[{"type":"messenger","estimated_time_to_regain_access":500}],
                "9":[{"type":"messenger","estimated_time_to_regain_access":120},
                     {"type":"ads_management","estimated_time_to_regain_access":900}]}"#
                .to_owned(),
        ),
        app_usage: None,
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
fn the_time_that_graph_names_for_the_line_stands_in_the_demand_of_a_rate_code(
    #[case] code: i64,
    #[case] named: Option<Duration>,
) {
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

//! Codes that Meta documents, row by row.

use rstest::rstest;

use super::*;

const NO_LIMIT: Verdict = Verdict::RetryCounted { at_most: None, not_before: None };

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
#[case(100, 2018074, Verdict::RetryCounted { at_most: Some(3), not_before: None })]
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

#[test]
fn a_failed_fetch_is_tried_again_without_a_subcode_too() {
    let message = "(#100) Failed to fetch the file from the url";
    let body = json!({"error": {"code": 100, "type": "OAuthException", "message": message}});
    let verdict = Verdict::RetryCounted { at_most: Some(3), not_before: None };
    assert_eq!(answer_json(400, body).verdict, verdict);
}

/// Instagram Login has a type of its own for most errors; the codes are the same.
#[rstest]
#[case::outside_the_window(10, 2534022, Verdict::Refused)]
#[case::unknown_recipient(100, 2534014, Verdict::Refused)]
#[case::ended_token(190, 463, Verdict::WaitForLine)]
#[case::access_turned_off(200, 2534041, Verdict::WaitForLine)]
#[case::app_limit(4, 0, Verdict::TryAgain)]
#[case::limit_of_the_account(80002, 0, Verdict::TryAgain)]
fn type_of_instagram_login_changes_no_meaning(
    #[case] code: i64,
    #[case] subcode: i64,
    #[case] verdict: Verdict,
    #[values("OAuthException", "IGApiException")] kind: &str,
) {
    let body = json!({"error": {"code": code, "error_subcode": subcode, "type": kind, "message": "(#1) no"}});
    assert_eq!(answer_json(403, body).verdict, verdict);
}

//! Answers with a status of success.

use rstest::rstest;

use super::*;
use crate::domain::ErrorDetail;

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

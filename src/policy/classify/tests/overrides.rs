//! Codes to which the settings give a meaning.

use rstest::rstest;

use super::*;
use crate::policy::classify::{CodeOverrides, classify_with};

fn judge(overrides: &str, http_status: u16, code: i64, subcode: i64) -> Judgement {
    let overrides: CodeOverrides = overrides.parse().expect("it is well formed");
    let error = json!({"code": code, "error_subcode": subcode, "type": "OAuthException", "message": "no"});
    let body = json!({ "error": error }).to_string().into_bytes();
    let answer = GraphAnswer { http_status, body, ..GraphAnswer::default() };
    classify_with(&CallResult::Answer(answer), &Subject::default(), &overrides)
}

#[rstest]
#[case::refuse("4242=refuse", Verdict::Refused, None)]
#[case::retry("4242=retry", Verdict::RetryCounted { at_most: None, not_before: None }, None)]
#[case::slow_line("4242=slow-line", Verdict::TryAgain, slowed_down())]
#[case::pause_line("4242=pause-line", Verdict::WaitForLine, line_refused())]
#[case::pause_app("4242=pause-app", Verdict::TryAgain, Some((PauseTarget::App, minutes(5), minutes(5))))]
#[case::ambiguous("4242=ambiguous", Verdict::Ambiguous, None)]
fn word_has_its_effect(
    #[case] overrides: &str,
    #[case] verdict: Verdict,
    #[case] expected: Option<(PauseTarget, Duration, Duration)>,
    #[values(400, 500)] status: u16,
) {
    let judgement = judge(overrides, status, 4242, 7);
    assert_eq!((judgement.verdict.clone(), pause(&judgement)), (verdict, expected));
}

#[test]
fn setting_goes_before_the_table() {
    assert_eq!(judge("190/463=refuse", 400, 190, 463).verdict, Verdict::Refused);
    assert_eq!(judge("190/463=refuse", 400, 190, 460).verdict, Verdict::WaitForLine);
    assert_eq!(judge("100/2018001=pause-line", 400, 100, 2018001).verdict, Verdict::WaitForLine);
    assert_eq!(judge("", 400, 4242, 7).verdict, Verdict::Unlisted);
}

#[rstest]
#[case(200)]
#[case(400)]
#[case(429)]
#[case(503)]
fn code_10_still_ends_its_message(#[case] status: u16) {
    let judgement = judge("10/99=pause-line, 551=refuse", status, 10, 99);
    assert_eq!((judgement.verdict.clone(), pause(&judgement)), (Verdict::Refused, line_refused()));
    assert_eq!(judge("10/99=refuse", status, 10, 99).verdict, Verdict::Refused);
}

#[test]
fn ambiguous_answer_stays_so_when_it_names_a_message() {
    let overrides: CodeOverrides = "4242=ambiguous".parse().expect("it is well formed");
    let body = json!({"message_id": "m_1", "error": {"code": 4242, "type": "OAuthException"}});
    let answer =
        GraphAnswer { http_status: 200, body: body.to_string().into_bytes(), ..GraphAnswer::default() };
    let judgement = classify_with(&CallResult::Answer(answer), &Subject::default(), &overrides);
    assert_eq!(judgement.verdict, Verdict::Ambiguous);
}

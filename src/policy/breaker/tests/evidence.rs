//! The evidence of a call's result about the host, and about its line.

use rstest::rstest;

use super::*;
use crate::domain::ErrorDetail;
use crate::policy::classify::GraphAnswer;

fn judged(verdict: Verdict, by_graph: bool) -> Judgement {
    Judgement { verdict, error: ErrorDetail::default(), pause: None, by_graph }
}

#[rstest]
#[case(CallResult::NotSent { reason: "refused".into() }, Verdict::TryAgain, Some(HostHealth::Unreachable))]
#[case(CallResult::NoFile { reason: "too many open files".into() }, Verdict::TryAgain, None)]
#[case(CallResult::Cut { reason: "timeout".into() }, Verdict::Ambiguous, Some(HostHealth::Failing))]
#[case(CallResult::Unsendable { reason: "token".into() }, Verdict::WaitForLine, None)]
fn silence_is_a_failure_and_no_call_no_evidence(
    #[case] result: CallResult,
    #[case] verdict: Verdict,
    #[case] health: Option<HostHealth>,
) {
    assert_eq!(HostHealth::of(&result, &judged(verdict.clone(), false)), health);
    assert_eq!(is_failure(&result, &judged(verdict, false)), health.map(|_| true));
}

#[rstest]
#[case(Verdict::ServerFailed, true)]
#[case(Verdict::Ambiguous, true)]
#[case(Verdict::Refused, false)]
#[case(Verdict::WaitForLine, false)]
#[case(Verdict::TryAgain, false)]
#[case(Verdict::Hold, false)]
fn graph_answers_are_life_and_some_fail_their_line(#[case] verdict: Verdict, #[case] fails_its_line: bool) {
    let result = CallResult::Answer(GraphAnswer::default());
    let by_graph = judged(verdict.clone(), true);
    assert_eq!(HostHealth::of(&result, &by_graph), Some(HostHealth::Alive));
    assert_eq!(is_failure(&result, &by_graph), Some(fails_its_line));
    let by_another = judged(verdict, false);
    assert_eq!(HostHealth::of(&result, &by_another), Some(HostHealth::Failing));
    assert_eq!(is_failure(&result, &by_another), Some(true));
}

//! The next state of a message, and the delays of its tries.

use rstest::rstest;

use super::*;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MIDDLE: f64 = 0.5;

fn policy() -> RetryPolicy {
    RetryPolicy {
        base: Duration::from_secs(1),
        cap: Duration::from_secs(300),
        max_attempts: 12,
        line_trials: 3,
        retry_ambiguous: false,
        retry_5xx: true,
    }
}

fn judged(verdict: Verdict) -> Judgement {
    Judgement { verdict, error: ErrorDetail::default(), pause: None, by_graph: true }
}

fn after(verdict: Verdict, attempts: u32, tries: u32) -> Next {
    decide(&judged(verdict), RetryHistory { attempts, tries, valid_for: DAY }, &policy(), MIDDLE)
}

fn seconds(next: Next) -> f64 {
    match next {
        Next::Retry { after, .. } => after.as_secs_f64(),
        other => panic!("expected a retry, got {other:?}"),
    }
}

const COUNTED: Verdict = Verdict::RetryCounted { at_most: None, not_before: None };

#[test]
fn an_accepted_message_is_sent() {
    let sent = after(Verdict::Sent { graph_id: "m_1".into() }, 1, 0);
    assert_eq!(sent, Next::Sent { graph_id: "m_1".into() });
}

#[test]
fn a_refused_message_fails_at_the_first_answer() {
    let refused = after(Verdict::Refused, 1, 0);
    assert_eq!(refused, Next::Fail { kind: ErrorKind::Refused, ambiguous: false });
}

#[test]
fn a_message_of_a_refused_line_waits_with_it() {
    assert_eq!(after(Verdict::WaitForLine, 40, 11), Next::WaitForLine { ambiguous: false });
}

#[test]
fn suspect_outwaits_its_line_and_ends_with_trials() {
    let suspect = |tries, valid_for, paused_for| {
        let history = RetryHistory { attempts: tries + 1, tries, valid_for };
        decide_suspect(&judged(Verdict::Suspect), history, &policy(), paused_for)
    };
    let pause = Duration::from_secs(1_800);
    for tries in [0, 1] {
        let next = suspect(tries, DAY, pause);
        assert!(matches!(next, Next::Suspected { after, ambiguous: false } if after > pause), "{next:?}");
    }
    let refused = Next::Fail { kind: ErrorKind::Refused, ambiguous: false };
    assert_eq!(suspect(2, DAY, pause), refused);
    let short = Duration::from_secs(60);
    assert_eq!(suspect(0, short, pause), Next::Suspected { after: short, ambiguous: false });
    assert_eq!(after(Verdict::Suspect, 3, 2), refused);
    assert!(matches!(after(Verdict::Suspect, 1, 0), Next::Suspected { after, .. } if !after.is_zero()));
}

#[test]
fn an_unlisted_refusal_ends_its_message() {
    let refused = Next::Fail { kind: ErrorKind::Refused, ambiguous: false };
    assert_eq!(after(Verdict::Unlisted, 1, 0), refused);
}

#[test]
fn http_5xx_with_any_code_is_counted() {
    let history = RetryHistory { attempts: 1, tries: 0, valid_for: DAY };
    let decided = |verdict: &Verdict, http_status, policy: &RetryPolicy| {
        let error = ErrorDetail { http_status: Some(http_status), ..ErrorDetail::default() };
        decide(&Judgement { error, ..judged(verdict.clone()) }, history, policy, MIDDLE)
    };
    let holding = RetryPolicy { retry_5xx: false, ..policy() };
    for verdict in [Verdict::TryAgain, COUNTED] {
        for (http_status, counts) in [(400, false), (429, false), (500, true), (503, true)] {
            let next = decided(&verdict, http_status, &policy());
            assert!(
                matches!(next, Next::Retry { ambiguous, .. } if ambiguous == counts),
                "{http_status}: {next:?}"
            );
        }
        assert_eq!(decided(&verdict, 500, &holding), Next::Unknown);
        assert!(matches!(decided(&verdict, 400, &holding), Next::Retry { .. }));
    }
    assert_eq!(decided(&Verdict::WaitForLine, 500, &policy()), Next::WaitForLine { ambiguous: true });
}

#[test]
fn answer_by_another_server_may_hide_a_success() {
    let history = RetryHistory { attempts: 1, tries: 0, valid_for: DAY };
    let error = ErrorDetail { http_status: Some(403), ..ErrorDetail::default() };
    for (by_graph, ambiguous) in [(true, false), (false, true)] {
        let judgement = Judgement { error: error.clone(), by_graph, ..judged(Verdict::WaitForLine) };
        assert_eq!(decide(&judgement, history, &policy(), MIDDLE), Next::WaitForLine { ambiguous });
    }
}

#[test]
fn unknown_outcome_is_held_unless_set_to_retry() {
    let history = RetryHistory { attempts: 1, tries: 0, valid_for: DAY };
    let retried = Next::Retry { after: Duration::from_secs(1), counted: true, ambiguous: true };
    let retrying = RetryPolicy { retry_ambiguous: true, retry_5xx: true, ..policy() };
    let holding = RetryPolicy { retry_ambiguous: false, retry_5xx: false, ..policy() };
    for verdict in [Verdict::Ambiguous, Verdict::ServerFailed] {
        assert_eq!(decide(&judged(verdict.clone()), history, &retrying, MIDDLE), retried);
        assert_eq!(decide(&judged(verdict), history, &holding, MIDDLE), Next::Unknown);
    }
    assert_eq!(decide(&judged(Verdict::Hold), history, &retrying, MIDDLE), Next::Unknown);
}

#[test]
fn orphan_is_held_or_retried_until_poison() {
    let retrying = RetryPolicy { retry_ambiguous: true, ..policy() };
    let history = |tries| RetryHistory { attempts: tries + 1, tries, valid_for: DAY };
    let orphan =
        |policy: &RetryPolicy, tries, crashes| decide_orphan(history(tries), crashes, policy, MIDDLE);
    for crashes in [1, 3, 50] {
        assert_eq!(orphan(&policy(), 0, crashes), Next::Unknown, "held after {crashes}");
    }
    for crashes in [1, 2] {
        let next = orphan(&retrying, crashes - 1, crashes);
        assert!(matches!(next, Next::Retry { counted: true, ambiguous: true, .. }), "{next:?}");
    }
    let poison = Next::Fail { kind: ErrorKind::Poison, ambiguous: true };
    assert_eq!(orphan(&retrying, 2, 3), poison);
    assert_eq!(orphan(&retrying, 11, 1), Next::Unknown, "its tries are used up");
    let late = RetryHistory { attempts: 1, tries: 0, valid_for: Duration::ZERO };
    assert_eq!(decide_orphan(late, 1, &retrying, MIDDLE), Next::Unknown, "too late for another try");
}

#[test]
fn tries_that_are_the_lines_fault_are_never_used_up() {
    let next = after(Verdict::TryAgain, 5_000, 11);
    assert!(matches!(next, Next::Retry { counted: false, ambiguous: false, .. }), "{next:?}");
}

#[rstest]
#[case(None, 12)]
#[case(Some(3), 3)]
#[case(Some(2), 2)]
#[case(Some(40), 12)]
fn counted_tries_end_at_the_lower_of_both_bounds(#[case] at_most: Option<u32>, #[case] calls: u32) {
    let verdict = Verdict::RetryCounted { at_most, not_before: None };
    for tries in 0..calls - 1 {
        let next = after(verdict.clone(), tries + 1, tries);
        assert!(matches!(next, Next::Retry { counted: true, ambiguous: false, .. }), "{next:?}");
    }
    let last = after(verdict, calls, calls - 1);
    assert_eq!(last, Next::Fail { kind: ErrorKind::Exhausted, ambiguous: false });
}

#[test]
fn maybe_taken_message_stays_marked_at_its_end() {
    let exhausted = after(Verdict::ServerFailed, 12, 11);
    assert_eq!(exhausted, Next::Fail { kind: ErrorKind::Exhausted, ambiguous: true });
    let short = RetryHistory { attempts: 1, tries: 0, valid_for: Duration::from_millis(10) };
    let expired = decide(&judged(Verdict::ServerFailed), short, &policy(), MIDDLE);
    assert_eq!(expired, Next::Fail { kind: ErrorKind::Expired, ambiguous: true });
}

#[rstest]
#[case(Verdict::TryAgain)]
#[case(COUNTED)]
fn a_retry_that_would_start_too_late_ends_the_message(#[case] verdict: Verdict) {
    for valid_for in [Duration::ZERO, Duration::from_secs(1)] {
        let history = RetryHistory { attempts: 1, tries: 0, valid_for };
        let next = decide(&judged(verdict.clone()), history, &policy(), MIDDLE);
        assert_eq!(next, Next::Fail { kind: ErrorKind::Expired, ambiguous: false });
    }
}

#[test]
fn delays_double_from_the_base_and_stop_at_the_cap() {
    let delays: Vec<f64> = (0..11).map(|tries| seconds(after(COUNTED, 1, tries))).collect();
    assert_eq!(delays, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 250.0, 250.0, 250.0]);
}

#[test]
fn uncounted_delays_double_with_the_calls() {
    assert_eq!(seconds(after(Verdict::TryAgain, 1, 0)), 1.0);
    assert_eq!(seconds(after(Verdict::TryAgain, 4, 0)), 8.0);
}

#[rstest]
fn delay_is_within_four_fifths_of_step_and_cap(
    #[values(0.0, 0.25, 0.5, 0.999_999, 1.0, -7.0, 9.0, f64::NAN, f64::INFINITY)] jitter: f64,
    #[values(0, 1, 7, 8, 9, 10)] tries: u32,
) {
    let history = RetryHistory { attempts: 1, tries, valid_for: DAY };
    let delay = seconds(decide(&judged(COUNTED), history, &policy(), jitter));
    let step = f64::from(2u32.pow(tries)).min(250.0);
    assert!((step * 0.8 - 1e-6..=300.0).contains(&delay), "{delay}");
    assert!(delay <= step * 1.2 + 1e-6, "{delay}");
}

#[test]
fn delays_at_the_cap_differ_too() {
    let history = RetryHistory { attempts: 1, tries: 10, valid_for: DAY };
    let at = |jitter| seconds(decide(&judged(COUNTED), history, &policy(), jitter));
    assert!(at(0.9) > at(0.5) && at(0.5) > at(0.1));
}

#[rstest]
#[case::after_the_first(1, 1.0, 1.0)]
#[case::after_five(5, 16.0, 16.0)]
#[case::after_many(40, 250.0, 50.0)]
fn after_a_rate_code_the_delay_is_a_minute_at_most(
    #[case] attempts: u32,
    #[case] not_sent: f64,
    #[case] rate: f64,
) {
    let history = RetryHistory { attempts, tries: 0, valid_for: DAY };
    let error = ErrorDetail { http_status: Some(400), ..ErrorDetail::default() };
    let limited = Judgement { error, ..judged(Verdict::TryAgain) };
    assert_eq!(seconds(after(Verdict::TryAgain, attempts, 0)), not_sent);
    assert_eq!(seconds(decide(&limited, history, &policy(), MIDDLE)), rate);
    assert!(seconds(decide(&limited, history, &policy(), 1.0)) <= 60.0);
    let short = RetryPolicy { cap: Duration::from_secs(6), ..policy() };
    assert!(seconds(decide(&limited, history, &short, 1.0)) <= 6.0, "nor above the cap");
}

#[test]
fn least_delay_may_exceed_the_cap() {
    let not_before = Duration::from_secs(600);
    let verdict = Verdict::RetryCounted { at_most: None, not_before: Some(not_before) };
    let expected = Next::Retry { after: not_before, counted: true, ambiguous: false };
    assert_eq!(after(verdict, 1, 0), expected);
}

#[test]
fn extreme_settings_and_counts_never_overflow() {
    let policy = RetryPolicy { base: Duration::MAX, cap: Duration::MAX, max_attempts: u32::MAX, ..policy() };
    let history = RetryHistory { attempts: u32::MAX, tries: u32::MAX - 2, valid_for: Duration::MAX };
    for verdict in [Verdict::TryAgain, COUNTED] {
        decide(&judged(verdict), history, &policy, 1.0);
    }
}

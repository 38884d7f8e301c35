//! Whether and when a message is tried again.
//!
//! The only place that knows the `backoff` crate: it does the arithmetic of the exponential delay and nothing else.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;

use super::classify::{Judgement, Verdict};
use crate::message::ErrorKind;

/// How far jitter moves a delay, up and down.
const JITTER: f64 = 0.2;

/// The settings this decision needs.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    pub base: Duration,
    pub cap: Duration,
    pub max_attempts: u32,
    /// `dispatch.on_ambiguous = "retry"`.
    pub retry_ambiguous: bool,
    /// `dispatch.on_5xx = "retry"`.
    pub retry_5xx: bool,
}

/// The message as it stands after the call that was just judged.
#[derive(Debug, Clone, Copy)]
pub struct Tried {
    /// Calls begun, this one included.
    pub attempts: u32,
    /// Counted tries before this one.
    pub tries: u32,
    /// How long the message is still valid.
    pub valid_for: Duration,
}

/// What becomes of the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    Sent { message_id: String },
    Fail { kind: ErrorKind, ambiguous: bool },
    Retry { after: Duration, counted: bool, ambiguous: bool },
    Unknown,
    WaitForLine,
}

/// Decides what becomes of a message after a judged call. `jitter` is uniform in 0.0..1.0.
pub fn decide(judgement: &Judgement, tried: Tried, policy: &RetryPolicy, jitter: f64) -> Next {
    let counted = |most: u32, not_before: Duration, ambiguous: bool| {
        if tried.tries + 1 >= most.min(policy.max_attempts) {
            return Next::Fail { kind: ErrorKind::Exhausted, ambiguous };
        }
        let after = delay(policy, tried.tries, jitter).max(not_before);
        retry(after, true, ambiguous, tried.valid_for)
    };
    match &judgement.verdict {
        Verdict::Sent { message_id } => Next::Sent { message_id: message_id.clone() },
        Verdict::Refused => Next::Fail { kind: ErrorKind::Refused, ambiguous: false },
        Verdict::TryAgain => {
            retry(delay(policy, tried.attempts.saturating_sub(1), jitter), false, false, tried.valid_for)
        }
        Verdict::RetryCounted { at_most, not_before } => {
            counted(at_most.unwrap_or(u32::MAX), *not_before, false)
        }
        Verdict::ServerFailed if policy.retry_5xx => counted(u32::MAX, Duration::ZERO, true),
        Verdict::Ambiguous if policy.retry_ambiguous => counted(u32::MAX, Duration::ZERO, true),
        Verdict::ServerFailed | Verdict::Ambiguous | Verdict::Hold => Next::Unknown,
        Verdict::WaitForLine => Next::WaitForLine,
    }
}

/// A retry, unless the message would have expired by then.
fn retry(after: Duration, counted: bool, ambiguous: bool, valid_for: Duration) -> Next {
    if after >= valid_for {
        return Next::Fail { kind: ErrorKind::Expired, ambiguous };
    }
    Next::Retry { after, counted, ambiguous }
}

/// The delay before try `n` + 2: base · 2ⁿ, jittered, never above the cap.
fn delay(policy: &RetryPolicy, n: u32, jitter: f64) -> Duration {
    let grown = policy.base.saturating_mul(2_u32.saturating_pow(n)).min(policy.cap);
    let mut backoff = ExponentialBackoff {
        current_interval: grown,
        initial_interval: policy.base,
        max_interval: policy.cap,
        max_elapsed_time: None,
        randomization_factor: 0.0,
        ..ExponentialBackoff::default()
    };
    let plain = backoff.next_backoff().unwrap_or(policy.cap);
    plain.mul_f64(1.0 - JITTER + 2.0 * JITTER * jitter).min(policy.cap)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::ErrorDetail;

    fn policy() -> RetryPolicy {
        RetryPolicy {
            base: Duration::from_secs(1),
            cap: Duration::from_secs(300),
            max_attempts: 12,
            retry_ambiguous: false,
            retry_5xx: true,
        }
    }

    const DAY: Duration = Duration::from_secs(86_400);

    fn judged(verdict: Verdict) -> Judgement {
        Judgement { verdict, error: ErrorDetail::default(), pause: None }
    }

    fn after(verdict: Verdict, tries: u32, policy: &RetryPolicy) -> Next {
        decide(&judged(verdict), Tried { attempts: tries + 1, tries, valid_for: DAY }, policy, 0.5)
    }

    fn temporary() -> Verdict {
        Verdict::RetryCounted { at_most: None, not_before: Duration::ZERO }
    }

    fn seconds(seconds: u64, counted: bool, ambiguous: bool) -> Next {
        Next::Retry { after: Duration::from_secs(seconds), counted, ambiguous }
    }

    #[test]
    fn each_verdict_leads_where_the_settings_say() {
        let fail = |kind| Next::Fail { kind, ambiguous: false };
        let sent = Verdict::Sent { message_id: "m_1".into() };
        let hold_5xx = RetryPolicy { retry_5xx: false, ..policy() };
        let retry_ambiguous = RetryPolicy { retry_ambiguous: true, ..policy() };
        for (verdict, policy, expected) in [
            (sent, policy(), Next::Sent { message_id: "m_1".into() }),
            (Verdict::Refused, policy(), fail(ErrorKind::Refused)),
            (Verdict::TryAgain, policy(), seconds(1, false, false)),
            (temporary(), policy(), seconds(1, true, false)),
            (Verdict::ServerFailed, policy(), seconds(1, true, true)),
            (Verdict::ServerFailed, hold_5xx, Next::Unknown),
            (Verdict::Ambiguous, policy(), Next::Unknown),
            (Verdict::Ambiguous, retry_ambiguous.clone(), seconds(1, true, true)),
            (Verdict::Hold, retry_ambiguous, Next::Unknown),
            (Verdict::WaitForLine, policy(), Next::WaitForLine),
        ] {
            assert_eq!(after(verdict.clone(), 0, &policy), expected, "{verdict:?}");
        }
    }

    #[test]
    fn delays_double_to_the_cap() {
        let delays: Vec<u64> = (0..11)
            .map(|tries| match after(temporary(), tries, &policy()) {
                Next::Retry { after, .. } => after.as_secs(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    }

    #[test]
    fn jitter_moves_a_delay_by_a_fifth_and_never_above_the_cap() {
        assert_eq!(delay(&policy(), 3, 0.0), Duration::from_millis(6_400));
        assert_eq!(delay(&policy(), 3, 1.0), Duration::from_millis(9_600));
        assert_eq!(delay(&policy(), 30, 1.0), Duration::from_secs(300));
        assert_eq!(delay(&policy(), u32::MAX, 0.0), Duration::from_secs(240));
    }

    #[test]
    fn tries_are_used_up_at_the_maximum_or_below_it_where_the_code_says_so() {
        let exhausted = Next::Fail { kind: ErrorKind::Exhausted, ambiguous: false };
        assert!(matches!(after(temporary(), 10, &policy()), Next::Retry { .. }));
        assert_eq!(after(temporary(), 11, &policy()), exhausted);
        let fetch_failed = Verdict::RetryCounted { at_most: Some(3), not_before: Duration::ZERO };
        assert!(matches!(after(fetch_failed.clone(), 1, &policy()), Next::Retry { .. }));
        assert_eq!(after(fetch_failed, 2, &policy()), exhausted);
        let server = Next::Fail { kind: ErrorKind::Exhausted, ambiguous: true };
        assert_eq!(after(Verdict::ServerFailed, 11, &policy()), server, "Graph may have taken it");
        assert!(matches!(after(Verdict::TryAgain, 500, &policy()), Next::Retry { counted: false, .. }));
    }

    #[test]
    fn a_retry_that_would_come_too_late_is_expired() {
        let tried = Tried { attempts: 1, tries: 0, valid_for: Duration::from_millis(500) };
        let expired = Next::Fail { kind: ErrorKind::Expired, ambiguous: false };
        assert_eq!(decide(&judged(Verdict::TryAgain), tried, &policy(), 0.5), expired);
    }

    #[test]
    fn a_code_that_needs_time_is_not_tried_before_it() {
        let later = Verdict::RetryCounted { at_most: None, not_before: Duration::from_secs(120) };
        assert_eq!(after(later, 0, &policy()), seconds(120, true, false));
    }
}

//! Decides whether and when a message is tried again. The message's own validity ends its tries.
//!
//! Never here: the meaning of an answer, which `classify` decides.

use std::time::Duration;

use super::classify::{Judgement, Verdict};
use super::{Backoff, spread};
use crate::domain::{ErrorDetail, ErrorKind};

/// Delays differ by up to this share, either way, so that messages which failed together do not return
/// together.
const SPREAD: f64 = 0.2;

/// The longest delay after a rate code: the line's pause holds its message back, and the message goes out
/// soon after the pause.
const LONGEST_AFTER_RATE: Duration = Duration::from_secs(60);

/// A suspect message waits this much longer than its line pauses, so that another message goes first.
const SUSPECT_SLACK: Duration = Duration::from_secs(5);

/// The settings this decision needs.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    pub base: Duration,
    pub cap: Duration,
    pub max_attempts: u32,
    /// Refusals after which a message ends, the first included, if each may be about its line.
    pub line_trials: u32,
    /// `dispatch.on_ambiguous = "retry"`.
    pub retry_ambiguous: bool,
    /// `dispatch.on_5xx = "retry"`.
    pub retry_5xx: bool,
}

/// A message in whose calls this many workers died is poison.
pub const POISON_AFTER: u32 = 3;

/// The message after the call that was just judged.
#[derive(Debug, Clone, Copy)]
pub struct RetryHistory {
    /// Calls begun, this one included.
    pub attempts: u32,
    /// Counted tries before this one.
    pub tries: u32,
    /// The rest of the message's validity.
    pub valid_for: Duration,
}

/// The next state of the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    Sent {
        graph_id: String,
    },
    Fail {
        kind: ErrorKind,
        ambiguous: bool,
    },
    Retry {
        after: Duration,
        counted: bool,
        ambiguous: bool,
    },
    Unknown,
    WaitForLine {
        ambiguous: bool,
    },
    /// Waits until another message of its line has been tried; counted.
    Suspected {
        after: Duration,
        ambiguous: bool,
    },
}

/// Decide the next state of a message after a judged call. `jitter` is uniform in 0.0..1.0.
pub fn decide(judgement: &Judgement, history: RetryHistory, policy: &RetryPolicy, jitter: f64) -> Next {
    let counted = |at_most: Option<u32>, not_before: Option<Duration>, ambiguous: bool| {
        let limit = at_most.map_or(policy.max_attempts, |at_most| at_most.min(policy.max_attempts));
        if history.tries.saturating_add(1) >= limit {
            return Next::Fail { kind: ErrorKind::Exhausted, ambiguous };
        }
        let after = delay(policy.base, policy.cap, history.tries, jitter).max(not_before.unwrap_or_default());
        retry(after, history.valid_for, true, ambiguous)
    };
    // For every code: Graph may have taken a message that it answers with a 5xx.
    let server_failed = judgement.error.http_status.is_some_and(|status| status >= 500);
    // A proxy may have replaced an answer of Graph by its own page.
    let by_another = judgement.error.http_status.is_some() && !judgement.by_graph;
    match &judgement.verdict {
        Verdict::TryAgain | Verdict::RetryCounted { .. } if server_failed && !policy.retry_5xx => {
            Next::Unknown
        }
        Verdict::Sent { graph_id } => Next::Sent { graph_id: graph_id.clone() },
        Verdict::Refused | Verdict::Unlisted => Next::Fail { kind: ErrorKind::Refused, ambiguous: false },
        Verdict::TryAgain => {
            let is_rate = judgement.error.http_status.is_some();
            let cap = if is_rate { policy.cap.min(LONGEST_AFTER_RATE) } else { policy.cap };
            let after = delay(policy.base, cap, history.attempts.saturating_sub(1), jitter);
            retry(after, history.valid_for, false, server_failed)
        }
        Verdict::RetryCounted { at_most, not_before } => counted(*at_most, *not_before, server_failed),
        Verdict::ServerFailed if policy.retry_5xx => counted(None, None, true),
        // Bounded like the others; but a call with an unknown outcome does not make an ERROR of the message.
        Verdict::Ambiguous if policy.retry_ambiguous => match counted(None, None, true) {
            Next::Fail { .. } => Next::Unknown,
            next => next,
        },
        Verdict::ServerFailed | Verdict::Ambiguous | Verdict::Hold => Next::Unknown,
        Verdict::WaitForLine => Next::WaitForLine { ambiguous: server_failed || by_another },
        Verdict::Suspect => decide_suspect(judgement, history, policy, Duration::ZERO),
    }
}

/// Decide the next state of a message whose refusal may be about itself or about its line. `paused_for`: the
/// rest of the line's pause.
///
/// The message is not the first to be tried again. A message that expires before that waits for its end: the
/// line may be repaired before.
pub fn decide_suspect(
    judgement: &Judgement,
    history: RetryHistory,
    policy: &RetryPolicy,
    paused_for: Duration,
) -> Next {
    if history.tries.saturating_add(1) >= policy.line_trials {
        return Next::Fail { kind: ErrorKind::Refused, ambiguous: false };
    }
    let after = paused_for.saturating_add(SUSPECT_SLACK).min(history.valid_for);
    let ambiguous = judgement.error.http_status.is_some_and(|status| status >= 500);
    Next::Suspected { after, ambiguous }
}

/// Decide the next state of a message whose worker died inside its call, or froze past its lease; whether
/// Graph took it is not known. `crashes`: workers that died in a call of this message, this one included.
///
/// Held, it is UNKNOWN and takes no further worker with it. Tried again, it is bounded like any unknown
/// outcome, and ends as poison before it has stopped all other sending for good.
pub fn decide_orphan(history: RetryHistory, crashes: u32, policy: &RetryPolicy, jitter: f64) -> Next {
    if policy.retry_ambiguous && crashes >= POISON_AFTER {
        return Next::Fail { kind: ErrorKind::Poison, ambiguous: true };
    }
    let orphaned = Judgement {
        verdict: Verdict::Ambiguous,
        error: ErrorDetail::default(),
        pause: None,
        by_graph: false,
    };
    decide(&orphaned, history, policy, jitter)
}

/// Return a retry, unless the message will have expired by then.
fn retry(after: Duration, valid_for: Duration, counted: bool, ambiguous: bool) -> Next {
    if after >= valid_for {
        return Next::Fail { kind: ErrorKind::Expired, ambiguous };
    }
    Next::Retry { after, counted, ambiguous }
}

/// Return `base` doubled `doublings` times, spread by the jitter, at most `cap`.
///
/// The middle of the spread is a little below the cap, so that delays at the cap are spread as well.
fn delay(base: Duration, cap: Duration, doublings: u32, jitter: f64) -> Duration {
    let middle = Backoff { base, cap }.delay(doublings).min(cap.div_f64(1.0 + SPREAD));
    spread(middle, 1.0 - SPREAD..=1.0 + SPREAD, jitter).min(cap)
}

#[cfg(test)]
mod tests;

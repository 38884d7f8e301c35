//! Whether and when a message is tried again.

use std::time::Duration;

use super::classify::Judgement;
use crate::message::ErrorKind;

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
    let _ = (judgement, tried, policy, jitter);
    Next::Unknown
}

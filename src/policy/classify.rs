//! What came back from a Graph call, and what it means.

use crate::message::ErrorDetail;
use std::time::Duration;

/// What came back from one call.
#[derive(Debug, Clone)]
pub enum CallResult {
    /// A complete HTTP answer.
    Answer(Answer),
    /// Nothing of the request was written: refused, no route, DNS, TLS, connect timeout.
    NotSent { reason: String },
    /// The request was written, at least in part, and no complete answer arrived.
    Cut { reason: String },
}

/// A complete HTTP answer of Graph. Bodies are read up to 64 KiB; a longer one is a `Cut`.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub http_status: u16,
    pub body: Vec<u8>,
    /// `X-Business-Use-Case-Usage`, as received.
    pub business_usage: Option<String>,
    /// `X-App-Usage`, as received.
    pub app_usage: Option<String>,
}

/// What an answer means for the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Graph took it.
    Sent { message_id: String },
    /// Final: ERROR `refused`.
    Refused,
    /// Not taken; try again, for ever (until it expires). Not counted against `dispatch.max_attempts`: the call
    /// was not written, or the limit is the line's.
    TryAgain,
    /// Not taken; try again, counted. `at_most` bounds these tries below `dispatch.max_attempts`.
    RetryCounted { at_most: Option<u32> },
    /// A complete answer that says the server failed (5xx, code 1 or 2): Graph may have taken it. `dispatch.on_5xx`.
    ServerFailed,
    /// Not known. `dispatch.on_ambiguous`.
    Ambiguous,
    /// Not known, and never to be repeated: UNKNOWN whatever the settings say (1/1357046).
    Hold,
    /// The line may not send: the message waits with it, as PENDING.
    WaitForLine,
}

/// Whose sending has to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PauseTarget {
    Line,
    App,
}

/// A pause that an answer demands: `first`, doubling on each further demand of the same kind up to `cap`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PauseDemand {
    pub target: PauseTarget,
    pub first: Duration,
    pub cap: Duration,
    /// The time Graph itself names in a usage header; it stands instead of the ladder.
    pub named: Option<Duration>,
    /// For `v8l_pause_reason`: short, with code and subcode.
    pub reason: String,
}

/// An answer, judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    pub verdict: Verdict,
    /// For the row's `error_*` columns; default (empty) when `verdict` is `Sent`.
    pub error: ErrorDetail,
    pub pause: Option<PauseDemand>,
}

/// Judges what came back from a call.
pub fn classify(result: &CallResult) -> Judgement {
    let _ = result;
    Judgement { verdict: Verdict::Ambiguous, error: ErrorDetail::default(), pause: None }
}

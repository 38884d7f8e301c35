//! A judged result: its meaning for the message, the error of the row, and the pause that it demands.

use std::time::Duration;

use crate::domain::ErrorDetail;

/// The meaning of an answer for the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Graph took it.
    Sent { graph_id: String },
    /// Final: ERROR `refused`.
    Refused,
    /// Not taken; try again until the message expires. Not counted against `dispatch.max_attempts`: the call
    /// was not written, or the limit is the line's.
    TryAgain,
    /// Not taken; try again, counted. `at_most` bounds the calls so answered, the first included, below
    /// `dispatch.max_attempts`; `not_before` is the least delay, also above `retry.cap`.
    RetryCounted { at_most: Option<u32>, not_before: Option<Duration> },
    /// A complete answer that reports a failure of the server (5xx, code 1 or 2): Graph may have taken the
    /// message. `dispatch.on_5xx`.
    ServerFailed,
    /// Not known. `dispatch.on_ambiguous`.
    Ambiguous,
    /// Not known, and never to be repeated: UNKNOWN whatever the settings say (1/1357046).
    Hold,
    /// The line may not send: the message waits with it, as PENDING.
    WaitForLine,
    /// Refused; only the line's next message shows whether the refusal is about this message or the line. The
    /// message is not tried again before another. `dispatch.line_trials`.
    Suspect,
    /// Refused under a code that is not in the table: as `Refused`, but after `dispatch.unknown_refusals` in
    /// a row as `Suspect`.
    Unlisted,
}

/// The lines that have to stop sending.
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
    /// The time that Graph names for this line in a header; it replaces the doubling.
    pub named: Option<Duration>,
    /// Whether the line cannot send, or Graph was not reached; a demand that only slows the line down is
    /// neither. After such a pause a single call is tried, and one recipient alone does not lengthen it.
    pub ends_with_trial: bool,
    /// For `v8l_pause_reason`: short, with code and subcode.
    pub reason: String,
}

/// An answer, judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    pub verdict: Verdict,
    /// The row's `error_*` columns; empty when `verdict` is `Sent`.
    pub error: ErrorDetail,
    /// A pause that the answer demands; for an `Unlisted` refusal, only after too many in a row.
    pub pause: Option<PauseDemand>,
    /// Whether Graph answered, and no other server in its place.
    pub by_graph: bool,
}

//! The states of a log row.
//!
//! ```text
//! PENDING ─► (claim) ─► OK
//!    ▲          ├─────► ERROR
//!    ├──────────┤         (released before a byte was written, or waiting with its paused line)
//!    │          ├─────► RETRY           (claimed again when its time has come)
//!    │          └─────► UNKNOWN ─► OK | ERROR | RETRY
//! PENDING | RETRY | UNKNOWN ─► OK (a late success of the call before)
//! PENDING | RETRY ─► CANCELLED | ERROR (expired)
//! ```
//! OK, ERROR and CANCELLED never change. Every change is one guarded UPDATE; matching no row is a normal answer. SENDING is
//! never stored in the log: it is shown while a claim of the row is open.

use super::words;

/// State of a log row (contract: "SQL: for dashboards").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    Pending,
    Sending,
    Retry,
    Ok,
    Error,
    Unknown,
    Cancelled,
}
words!(Status, "status", {
    Pending => "PENDING", Sending => "SENDING", Retry => "RETRY", Ok => "OK", Error => "ERROR",
    Unknown => "UNKNOWN", Cancelled => "CANCELLED",
});

impl Status {
    /// Whether a row in this state never changes again.
    pub fn is_final(self) -> bool {
        matches!(self, Status::Ok | Status::Error | Status::Cancelled)
    }

    /// Whether somebody who waits for the outcome is answered now: a final state, or one that only an operator
    /// or a webhook settles.
    pub fn is_outcome(self) -> bool {
        self.is_final() || self == Status::Unknown
    }
}

/// Why a row ended as `ERROR`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Graph refused the message.
    Refused,
    /// Its tries are used up.
    Exhausted,
    /// Its `valid_for` has passed.
    Expired,
    /// Its line cannot send.
    Line,
    /// It crashed a worker again and again.
    Poison,
    /// An operator settled it.
    Resolved,
}
words!(ErrorKind, "error_kind", {
    Refused => "refused", Exhausted => "exhausted", Expired => "expired", Line => "line", Poison => "poison",
    Resolved => "resolved",
});

impl ErrorKind {
    /// Whether such a row ended without an answer from Graph to its last call: `status_code` is told as 0.
    pub fn is_without_answer(self) -> bool {
        matches!(self, ErrorKind::Expired | ErrorKind::Line | ErrorKind::Resolved)
    }
}

/// State of a campaign; a campaign without a row is running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CampaignState {
    Running,
    Paused,
    Cancelled,
}
words!(CampaignState, "campaign state", {
    Running => "running", Paused => "paused", Cancelled => "cancelled",
});

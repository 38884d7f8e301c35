//! The states of a log row.
//!
//! ```text
//! PENDING ─► (claim) ─► OK
//!    ▲          ├─────► ERROR
//!    ├──────────┤         (released before a byte was written, or waiting with its paused line)
//!    │          ├─────► RETRY           (claimed again when it is due)
//!    │          └─────► UNKNOWN ─► OK | ERROR | RETRY
//! PENDING | RETRY | UNKNOWN ─► OK (a late success of the call before)
//! PENDING | RETRY ─► CANCELLED | ERROR (expired)
//! ```
//! OK, ERROR and CANCELLED never change. Every change is one guarded UPDATE; matching no row is a normal
//! answer. SENDING is never stored in the log: it is shown while a claim of the row is open.

use crate::text::words;

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

    /// Whether a waiter receives the outcome now: a final state, or one that only an operator or a webhook
    /// settles.
    pub fn is_outcome(self) -> bool {
        self.is_final() || self == Status::Unknown
    }
}

/// The reason why a row ended as `ERROR`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Graph refused the message.
    Refused,
    /// The row's tries are used up.
    Exhausted,
    /// The row's `valid_for` has passed.
    Expired,
    /// The row's line cannot send.
    Line,
    /// The row crashed a worker again and again.
    Poison,
    /// An operator settled the row.
    Resolved,
    /// The recipient's window was known to be closed.
    Window,
    /// Graph has said that the recipient cannot be reached, and the recipient has not written since.
    Unreachable,
}
words!(ErrorKind, "error_kind", {
    Refused => "refused", Exhausted => "exhausted", Expired => "expired", Line => "line", Poison => "poison",
    Resolved => "resolved", Window => "window", Unreachable => "unreachable",
});

impl ErrorKind {
    /// Return cause and remedy, for the caller.
    pub const fn sentence(self) -> &'static str {
        match self {
            ErrorKind::Refused => "Graph refused the message: error_code and error_message say why.",
            ErrorKind::Exhausted => "Every try of the message failed: send it again later.",
            ErrorKind::Expired => {
                "The message was not sent while it was valid: send it again if it still matters."
            }
            ErrorKind::Line => {
                "The line of the message belongs to another account: send from a line of this one."
            }
            ErrorKind::Poison => {
                "Workers failed inside the calls of this message: ask the operator before it is sent again."
            }
            ErrorKind::Resolved => "An operator settled the message as not sent.",
            ErrorKind::Window => {
                "The recipient's window is closed: send the message again after the recipient has written."
            }
            ErrorKind::Unreachable => {
                "The recipient cannot be reached: send the message again after the recipient has written."
            }
        }
    }

    /// Whether such a row ended because of the facts that are kept of its recipient.
    pub fn is_of_recipient(self) -> bool {
        matches!(self, ErrorKind::Window | ErrorKind::Unreachable)
    }

    /// Whether such a row ended without an answer from Graph to its last call: its `status_code` is given as
    /// 0.
    pub fn is_without_answer(self) -> bool {
        matches!(self, ErrorKind::Expired | ErrorKind::Line | ErrorKind::Resolved) || self.is_of_recipient()
    }
}

/// The state of a recipient's window, as far as inbound events have told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WindowState {
    Open,
    Closed,
    Unknown,
}
words!(WindowState, "window state", {
    Open => "open", Closed => "closed", Unknown => "unknown",
});

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

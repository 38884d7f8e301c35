//! What senders ask the log afterwards: their messages by filter, and how a campaign stands. Plain data.

use time::OffsetDateTime;

use crate::message::{LineId, Medium, MessageId, Status};

/// Which of an account's rows are listed; what is `None` matches any. The rarest filter given finds the rows, the
/// others are looked at row by row.
#[derive(Debug, Clone, Default)]
pub struct MessageFilter {
    pub status: Option<Status>,
    pub line: Option<LineId>,
    pub cp_id: Option<String>,
    pub msg_id: Option<String>,
    pub dest: Option<String>,
}

/// How the rows of a filter are found: each way has an index of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    MsgId,
    Dest,
    Campaign,
    /// Every row of the account; by line and status.
    Account,
}

impl MessageFilter {
    pub fn way(&self) -> Way {
        match self {
            MessageFilter { msg_id: Some(_), .. } => Way::MsgId,
            MessageFilter { dest: Some(_), .. } => Way::Dest,
            MessageFilter { cp_id: Some(_), .. } => Way::Campaign,
            _ => Way::Account,
        }
    }
}

/// Rows of a campaign that are of one line, medium and status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CampaignCount {
    pub line: LineId,
    pub medium: Medium,
    pub status: Status,
    pub rows: i64,
    /// When the newest of them is sent at the earliest, if they are PENDING and it is scheduled.
    pub not_before: Option<OffsetDateTime>,
}

/// A row that was cancelled, and where its outcome is awaited.
pub type CancelledRow = (MessageId, Option<String>);

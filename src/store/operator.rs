//! What an operator does to rows: settles those whose outcome is not known, and sends ended ones again.
//!
//! Both work on ranges of ids, a transaction each, so that a run over millions of rows locks few of them at a time
//! and can be cut and repeated. Never here: which rows an operator may name; that is the command's business.

use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;
use crate::message::{LineId, MessageId, Outcome, Status};

/// Rows that match all that is given.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    pub line: Option<LineId>,
    pub cp_id: Option<String>,
    /// Graph's code, as in `cdls.error_code`.
    pub error_code: Option<i32>,
    /// Created this recently, by the database's clock.
    pub since: Option<Duration>,
}

/// Ids above `after`, up to and with `last`.
#[derive(Debug, Clone, Copy)]
pub struct IdRange {
    pub after: MessageId,
    pub last: MessageId,
}

impl IdRange {
    pub const ALL: IdRange = IdRange { after: MessageId(0), last: MessageId(i64::MAX) };

    pub fn one(id: MessageId) -> IdRange {
        IdRange { after: MessageId(id.0 - 1), last: id }
    }
}

/// What an UNKNOWN row becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// Graph took the message. Its id there is often not known.
    Ok { message_id: Option<String> },
    /// It is not to be sent: ERROR `resolved`.
    Error,
    /// It is tried again at once, with all its tries. Not for a row that has expired.
    Retry,
}

impl Resolution {
    pub fn status(&self) -> Status {
        match self {
            Resolution::Ok { .. } => Status::Ok,
            Resolution::Error => Status::Error,
            Resolution::Retry => Status::Retry,
        }
    }
}

/// A row that was settled, as those are told who wait for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettledRow {
    /// The status is RETRY where it is tried again.
    pub outcome: Outcome,
    pub waiter: Option<String>,
}

/// How copies of ended rows are logged.
#[derive(Debug, Clone)]
pub struct Resend {
    /// Rows in this state are copied; a final one.
    pub status: Status,
    /// From now on.
    pub valid_for: Duration,
    /// The copies' campaign, instead of that of their rows.
    pub cp_id: Option<String>,
}

/// What is to be done to rows.
#[derive(Debug, Clone, Copy)]
pub enum Operation<'a> {
    Resolve(&'a Resolution),
    Resend(&'a Resend),
}

/// Rows that an operation would touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Matching {
    pub rows: i64,
    /// The highest of their ids; rows logged later are not meant.
    pub last: MessageId,
    /// Rows that are selected and left alone. To be tried again: those that have expired. To be sent again: those whose
    /// campaign is cancelled, or whose line is not there any more. Rows that were sent again before are not counted.
    pub left_out: i64,
}

/// A row that was sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resent {
    pub id: MessageId,
    pub copy: MessageId,
}

/// The commands of operators on rows.
#[async_trait]
pub trait OperatorStore: Send + Sync {
    /// How many rows of the range and the selection an operation would touch.
    async fn matching(
        &self,
        range: IdRange,
        selection: &Selection,
        operation: Operation<'_>,
    ) -> Result<Matching, StoreError>;

    /// Settles at most `limit` UNKNOWN rows, lowest ids first; which they were, in order of id. None: there are no
    /// more. A row that is not UNKNOWN at that moment is left alone. They are noted for `take_settled`.
    async fn resolve(
        &self,
        range: IdRange,
        selection: &Selection,
        resolution: &Resolution,
        limit: u32,
    ) -> Result<Vec<MessageId>, StoreError>;

    /// At most `limit` rows that `resolve` settled, lowest ids first. Each is handed out once.
    async fn take_settled(&self, limit: u32) -> Result<Vec<SettledRow>, StoreError>;

    /// Logs copies of at most `limit` ended rows, lowest ids first, as new PENDING rows without a waiter; in order of
    /// id. None: there are no more. A row is copied once, however often and by how many this is asked.
    async fn resend(
        &self,
        range: IdRange,
        selection: &Selection,
        resend: &Resend,
        limit: u32,
    ) -> Result<Vec<Resent>, StoreError>;

    /// The copy of a row that was sent again.
    async fn copy_of(&self, id: MessageId) -> Result<Option<MessageId>, StoreError>;
}

//! The operator's changes of rows: settling UNKNOWN rows, and sending ended ones again.
//!
//! Both work on ranges of ids, a transaction each, so that a run over millions of rows locks few of them at a
//! time and can be cut and repeated. Never here: which rows an operator may name; the command decides that.

use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;
use crate::domain::{LineId, Outcome, RowId, Status};

/// A selection of rows; a row matches every given field.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    pub line: Option<LineId>,
    pub cp_id: Option<String>,
    pub dest: Option<String>,
    pub msg_id: Option<String>,
    /// Graph's code, as in `cdls.error_code`.
    pub error_code: Option<i32>,
    /// The age of the oldest rows, by the database's clock.
    pub since: Option<Duration>,
}

/// Ids above `after` and up to `last`, inclusive.
#[derive(Debug, Clone, Copy)]
pub struct IdRange {
    pub after: RowId,
    pub last: RowId,
}

impl IdRange {
    pub const ALL: IdRange = IdRange { after: RowId(0), last: RowId(i64::MAX) };

    pub fn one(id: RowId) -> IdRange {
        IdRange { after: RowId(id.0 - 1), last: id }
    }
}

/// The state that an UNKNOWN row is settled as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// Graph took the message. Its id there is often not known.
    Ok { message_id: Option<String> },
    /// The message is not to be sent: ERROR `resolved`.
    Error,
    /// The message is tried again at once, with all its tries. Not for a row that has expired.
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

/// A settled row, with the outcome for its waiter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettledRow {
    /// The outcome; its status is RETRY where the row is tried again.
    pub outcome: Outcome,
    pub waiter: Option<String>,
}

/// The form in which copies of ended rows are logged.
#[derive(Debug, Clone)]
pub struct Resend {
    /// The final status of the rows to be copied.
    pub status: Status,
    /// How long the copies are valid, from now.
    pub valid_for: Duration,
    /// The copies' campaign, instead of that of their rows.
    pub cp_id: Option<String>,
}

/// An operation on rows.
#[derive(Debug, Clone, Copy)]
pub enum Operation<'a> {
    Resolve(&'a Resolution),
    Resend(&'a Resend),
}

/// A count of the rows that an operation would touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Matching {
    pub rows: i64,
    /// The highest of their ids; rows logged later are left out.
    pub last: RowId,
    /// Selected rows that are left alone. For a retry: those that have expired. For another sending: those
    /// whose campaign is cancelled, or whose line no longer exists. Rows that were sent again before are not
    /// counted.
    pub left_out: i64,
}

/// A row that was sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resent {
    pub id: RowId,
    pub copy: RowId,
}

/// The statements of operators about rows.
#[async_trait]
pub trait OperatorStore: Send + Sync {
    /// Count the rows of the range and the selection that an operation would touch.
    async fn matching(
        &self,
        range: IdRange,
        selection: &Selection,
        operation: Operation<'_>,
    ) -> Result<Matching, StoreError>;

    /// Settle at most `limit` UNKNOWN rows, lowest ids first; return them in order of id. None: there are no
    /// more. A row that is not UNKNOWN at that moment is left alone. The rows are noted for `take_settled`.
    async fn resolve(
        &self,
        range: IdRange,
        selection: &Selection,
        resolution: &Resolution,
        limit: u32,
    ) -> Result<Vec<RowId>, StoreError>;

    /// Hand out at most `limit` rows that `resolve` settled, lowest ids first. Each is handed out once.
    async fn take_settled(&self, limit: u32) -> Result<Vec<SettledRow>, StoreError>;

    /// Log copies of at most `limit` ended rows, lowest ids first, as new PENDING rows without a waiter;
    /// return them in order of id. None: there are no more. A row is copied once, however many calls ask for
    /// it.
    async fn resend(
        &self,
        range: IdRange,
        selection: &Selection,
        resend: &Resend,
        limit: u32,
    ) -> Result<Vec<Resent>, StoreError>;

    /// Return the copy of a row that was sent again.
    async fn copy_of(&self, id: RowId) -> Result<Option<RowId>, StoreError>;
}

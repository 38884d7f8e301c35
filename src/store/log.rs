//! The log for people and dashboards: rows by id, the newest rows, statistics.
//!
//! A claim is kept beside the log: rows shown here are SENDING while a worker calls Graph for them, with that
//! call counted in `attempts` and its time as `sent_at`.

use std::time::Duration;

use async_trait::async_trait;
use time::OffsetDateTime;

use super::{MessageFilter, StoreError};
use crate::channel::{Class, MessageKind};
use crate::domain::{AccountId, ErrorKind, Lane, LineId, Outcome, RowId, Status};

/// A row of the log, with the columns of the contract ("SQL: for dashboards") in their order
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
#[schema(as = Message)]
pub struct LogRow {
    #[schema(value_type = i64)]
    pub cdls_id: RowId,
    #[schema(value_type = i64)]
    pub cdcs_id: AccountId,
    #[schema(value_type = i64)]
    pub v8l_id: LineId,
    #[schema(inline)]
    pub class: Class,
    pub dest: String,
    #[schema(inline)]
    pub mtype: MessageKind,
    pub mdata: String,
    #[schema(required)]
    pub mcaption: Option<String>,
    #[schema(required)]
    pub msg_id: Option<String>,
    #[schema(required)]
    pub cp_id: Option<String>,
    #[schema(inline)]
    pub priority: Lane,
    #[schema(inline)]
    pub status: Status,
    /// Graph's HTTP code
    pub status_code: i32,
    /// Graph's id of the message
    #[schema(required)]
    pub message_id: Option<String>,
    /// Graph's error code
    #[schema(required)]
    pub error_code: Option<i32>,
    /// Graph's error subcode
    #[schema(required)]
    pub error_subcode: Option<i32>,
    /// Reason of an `ERROR`
    #[schema(inline, required)]
    pub error_kind: Option<ErrorKind>,
    #[schema(required)]
    pub error_message: Option<String>,
    #[schema(required)]
    pub fbtrace_id: Option<String>,
    /// Number of calls begun
    pub attempts: i32,
    /// Number of calls that Graph may have taken without confirming
    pub ambiguous_attempts: i32,
    /// Time of the next try of a `RETRY` row
    #[serde(serialize_with = "crate::text::time_or_null")]
    #[schema(required)]
    pub next_at: Option<OffsetDateTime>,
    /// Time after which the message is not sent
    #[serde(serialize_with = "crate::text::time")]
    pub expires_at: OffsetDateTime,
    #[serde(serialize_with = "crate::text::time")]
    pub created_at: OffsetDateTime,
    /// Start of the last call
    #[serde(serialize_with = "crate::text::time_or_null")]
    #[schema(required)]
    pub sent_at: Option<OffsetDateTime>,
    #[serde(serialize_with = "crate::text::time_or_null")]
    #[schema(required)]
    pub done_at: Option<OffsetDateTime>,
    #[serde(serialize_with = "crate::text::time_or_null")]
    #[schema(required)]
    pub delivered_at: Option<OffsetDateTime>,
    #[serde(serialize_with = "crate::text::time_or_null")]
    #[schema(required)]
    pub read_at: Option<OffsetDateTime>,
}

impl LogRow {
    /// The names of the columns, in their order.
    pub const COLUMNS: [&str; 28] = [
        "cdls_id",
        "cdcs_id",
        "v8l_id",
        "class",
        "dest",
        "mtype",
        "mdata",
        "mcaption",
        "msg_id",
        "cp_id",
        "priority",
        "status",
        "status_code",
        "message_id",
        "error_code",
        "error_subcode",
        "error_kind",
        "error_message",
        "fbtrace_id",
        "attempts",
        "ambiguous_attempts",
        "next_at",
        "expires_at",
        "created_at",
        "sent_at",
        "done_at",
        "delivered_at",
        "read_at",
    ];

    /// Return the row's state, as its callers receive it. A row that expired, whose line cannot send it, or
    /// which an operator settled was not ended by the answer it had before.
    pub fn into_outcome(self) -> Outcome {
        let without_answer = self.error_kind.is_some_and(ErrorKind::is_without_answer);
        Outcome {
            status: self.status,
            status_code: if without_answer { 0 } else { self.status_code },
            message_id: self.message_id.unwrap_or_default(),
            error_code: self.error_code,
            error_subcode: self.error_subcode,
            error_kind: self.error_kind,
            error_message: self.error_message,
            ..Outcome::queued(self.cdls_id)
        }
    }
}

/// The owner of the rows that a look-up may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The rows of one account: everything a token can reach.
    Account(AccountId),
    /// All rows, for operators at the command line.
    Operator,
}

/// A filter for `log tail`; `None` matches any.
#[derive(Debug, Clone, Default)]
pub struct LogFilter {
    pub line: Option<LineId>,
    pub status: Option<Status>,
    pub cp_id: Option<String>,
    pub msg_id: Option<String>,
    pub dest: Option<String>,
    /// Graph's code, as in `cdls.error_code`.
    pub error_code: Option<i32>,
    /// The age of the oldest row.
    pub since: Option<Duration>,
}

impl LogFilter {
    /// Return the same as a filter of messages.
    pub fn messages(&self) -> MessageFilter {
        let since =
            self.since.and_then(|since| OffsetDateTime::now_utc().checked_sub(since.try_into().ok()?));
        MessageFilter {
            statuses: self.status.into_iter().collect(),
            line: self.line,
            cp_id: self.cp_id.clone(),
            msg_ids: self.msg_id.iter().cloned().collect(),
            dest: self.dest.clone(),
            error_code: self.error_code,
            since,
            ..MessageFilter::default()
        }
    }
}

/// Rows of one line in one state: a cell of `log stats`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct StatusCount {
    pub v8l_id: LineId,
    pub class: Class,
    pub status: Status,
    pub rows: i64,
}

/// Rows that are not final, by status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenRows {
    pub pending: i64,
    pub sending: i64,
    pub retry: i64,
    pub unknown: i64,
    /// The time since the last call of the UNKNOWN row that has waited longest.
    pub oldest_unknown: Option<Duration>,
}

impl OpenRows {
    /// Count rows of a status that is not final.
    pub fn add(&mut self, status: Status, rows: i64) {
        match status {
            Status::Pending => self.pending += rows,
            Status::Sending => self.sending += rows,
            Status::Retry => self.retry += rows,
            Status::Unknown => self.unknown += rows,
            Status::Ok | Status::Error | Status::Cancelled => {}
        }
    }
}

/// The reads of the log.
#[async_trait]
pub trait LogStore: Send + Sync {
    /// Return one row, if the scope may see it.
    async fn log_row(&self, scope: Scope, id: RowId) -> Result<Option<LogRow>, StoreError>;

    /// Return rows by id, of any account; missing ids are left out. For events, which carry their account.
    async fn log_rows(&self, ids: &[RowId]) -> Result<Vec<LogRow>, StoreError>;

    /// Return rows with ids above `after`, lowest first, at most `limit`.
    async fn log_after(
        &self,
        filter: &LogFilter,
        after: RowId,
        limit: u32,
    ) -> Result<Vec<LogRow>, StoreError>;

    /// Return the newest rows, newest first, at most `limit`.
    async fn log_newest(&self, filter: &LogFilter, limit: u32) -> Result<Vec<LogRow>, StoreError>;

    /// Count rows by line and status; `since` counts only rows created that recently.
    async fn log_stats(&self, since: Option<Duration>) -> Result<Vec<StatusCount>, StoreError>;

    /// Count rows that are not final, in the queue: the cost is bounded by the open rows, not by the log.
    async fn open_rows(&self) -> Result<OpenRows, StoreError>;
}

//! The log as people and dashboards read it: rows by id, the newest rows, statistics.
//!
//! A claim is kept beside the log: rows shown here are SENDING while a worker calls Graph for them, with that call counted in
//! `attempts` and its time as `sent_at`.

use std::time::Duration;

use async_trait::async_trait;
use time::OffsetDateTime;

use super::StoreError;
use crate::message::{AccountId, Class, ErrorKind, Lane, LineId, MessageId, MessageKind, Status};

/// A row of the log, with the columns of the contract ("SQL: for dashboards") in their order
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
#[schema(as = Message)]
pub struct LogRow {
    #[schema(value_type = i64)]
    pub cdls_id: MessageId,
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
    #[serde(serialize_with = "crate::message::time_or_null")]
    #[schema(required)]
    pub next_at: Option<OffsetDateTime>,
    /// Time after which the message is not sent
    #[serde(serialize_with = "crate::message::time")]
    pub expires_at: OffsetDateTime,
    #[serde(serialize_with = "crate::message::time")]
    pub created_at: OffsetDateTime,
    /// Start of the last call
    #[serde(serialize_with = "crate::message::time_or_null")]
    #[schema(required)]
    pub sent_at: Option<OffsetDateTime>,
    #[serde(serialize_with = "crate::message::time_or_null")]
    #[schema(required)]
    pub done_at: Option<OffsetDateTime>,
    #[serde(serialize_with = "crate::message::time_or_null")]
    #[schema(required)]
    pub delivered_at: Option<OffsetDateTime>,
    #[serde(serialize_with = "crate::message::time_or_null")]
    #[schema(required)]
    pub read_at: Option<OffsetDateTime>,
}

/// Whose rows a look-up may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One account's: everything a token can reach.
    Account(AccountId),
    /// All: operators at the command line.
    Operator,
}

/// Which rows `log tail` shows.
#[derive(Debug, Clone, Default)]
pub struct LogFilter {
    pub line: Option<LineId>,
    pub status: Option<Status>,
    pub cp_id: Option<String>,
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
    /// Since the last call of the UNKNOWN row that has waited longest.
    pub oldest_unknown: Option<Duration>,
}

impl OpenRows {
    /// Counts rows of a status that is not final.
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
    /// One row, if the scope may see it.
    async fn log_row(&self, scope: Scope, id: MessageId) -> Result<Option<LogRow>, StoreError>;

    /// Rows by id, whoever owns them; missing ids are left out. For events, which carry their account.
    async fn log_rows(&self, ids: &[MessageId]) -> Result<Vec<LogRow>, StoreError>;

    /// Rows with ids above `after`, lowest first, at most `limit`.
    async fn log_after(
        &self,
        filter: &LogFilter,
        after: MessageId,
        limit: u32,
    ) -> Result<Vec<LogRow>, StoreError>;

    /// The newest rows, newest first, at most `limit`.
    async fn log_newest(&self, filter: &LogFilter, limit: u32) -> Result<Vec<LogRow>, StoreError>;

    /// Rows by line and status; `since` counts only rows created that recently.
    async fn log_stats(&self, since: Option<Duration>) -> Result<Vec<StatusCount>, StoreError>;

    /// Rows that are not final, counted in the queue: the cost is bounded by what is open, not by the log.
    async fn open_rows(&self) -> Result<OpenRows, StoreError>;
}

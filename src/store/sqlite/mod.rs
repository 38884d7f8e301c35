//! The log on SQLite: for `serve` on a machine with nothing installed.
//!
//! One writer connection, a few readers, WAL, and a full sync at each commit: group commits make it affordable.
//! Commands and other programs may write beside a running `serve`; a second `serve` is refused.

mod dispatch;
mod ingest;
mod lease;
mod lines;
mod log;
mod open;
mod record;
mod rows;

use std::fs::File;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use sqlx::{Sqlite, SqlitePool, Transaction};

use super::{
    AccountRow, Change, Claim, ClaimedRow, Flow, FlowRead, HeldRecipient, Lease, LeaseReport, LineRecord,
    LogFilter, LogRow, NewLine, PauseScope, RangeRead, ReadyRow, Recorded, SchemaState, Scope, StatusCount,
    Store, StoreError, TokenRecord, TokenRow,
};
use crate::message::{AccountId, CampaignState, Lane, LineId, MessageId, Partition, Submission};

/// The store of `database.url = "sqlite:PATH"`.
pub struct SqliteStore {
    writer: SqlitePool,
    readers: SqlitePool,
    /// Held by the one `serve` of a file for as long as the store lives.
    _lock: Option<File>,
}

impl SqliteStore {
    /// A write transaction. It takes the lock at its start: one that begins by reading may not be able to write.
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(failed)
    }
}

/// What a database error means to a caller.
fn failed(error: sqlx::Error) -> StoreError {
    use sqlx::error::ErrorKind;
    match &error {
        sqlx::Error::Database(database) => match database.kind() {
            ErrorKind::UniqueViolation
            | ErrorKind::ForeignKeyViolation
            | ErrorKind::NotNullViolation
            | ErrorKind::CheckViolation => StoreError::Rejected(database.message().to_owned()),
            _ => StoreError::Unavailable(database.message().to_owned()),
        },
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => StoreError::Rejected(error.to_string()),
        _ => StoreError::Unavailable(error.to_string()),
    }
}

/// `+1.234 seconds`, as SQLite's date functions take it.
fn after(length: Duration) -> String {
    format!("+{}.{:03} seconds", length.as_secs(), length.subsec_millis())
}

#[async_trait]
impl Store for SqliteStore {
    async fn migrate(&self) -> Result<usize, StoreError> {
        open::migrate(&self.writer).await
    }

    async fn schema(&self) -> Result<SchemaState, StoreError> {
        open::state(&self.readers).await
    }

    async fn ensure_room(&self) -> Result<usize, StoreError> {
        Ok(0)
    }

    async fn insert(&self, submissions: &[Submission]) -> Result<Vec<MessageId>, StoreError> {
        ingest::insert(self.begin().await?, submissions).await
    }

    async fn token(&self, token_id: &str) -> Result<Option<TokenRecord>, StoreError> {
        ingest::token(&self.readers, token_id).await
    }

    async fn lines(&self, ids: &[LineId]) -> Result<Vec<LineRecord>, StoreError> {
        lines::lines(&self.readers, Some(ids)).await
    }

    async fn campaign_state(&self, account: AccountId, cp_id: &str) -> Result<CampaignState, StoreError> {
        ingest::campaign_state(&self.readers, account, cp_id).await
    }

    async fn backlog(&self, at_most: i64) -> Result<i64, StoreError> {
        ingest::backlog(&self.readers, at_most).await
    }

    async fn read_ranges(&self, ranges: &[RangeRead]) -> Result<Vec<ReadyRow>, StoreError> {
        dispatch::read_ranges(&self.readers, ranges).await
    }

    async fn read_flows(&self, reads: &[FlowRead]) -> Result<Vec<ReadyRow>, StoreError> {
        dispatch::read_flows(&self.readers, reads).await
    }

    async fn ready_flows(&self, partitions: &[Partition]) -> Result<Vec<(Flow, MessageId)>, StoreError> {
        dispatch::ready_flows(&self.readers, partitions).await
    }

    async fn promote_due(
        &self,
        partitions: &[Partition],
        limit: u32,
    ) -> Result<Vec<(LineId, Lane, MessageId)>, StoreError> {
        // Most scans find nothing: they do not take the writer's lock.
        if !dispatch::has_due(&self.readers, partitions).await? {
            return Ok(Vec::new());
        }
        dispatch::promote_due(self.begin().await?, partitions, limit).await
    }

    async fn held_recipients(&self, partitions: &[Partition]) -> Result<Vec<HeldRecipient>, StoreError> {
        dispatch::held_recipients(&self.readers, partitions).await
    }

    async fn still_held(&self, ids: &[MessageId]) -> Result<Vec<MessageId>, StoreError> {
        dispatch::still_held(&self.readers, ids).await
    }

    async fn record(
        &self,
        worker: &str,
        changes: &[Change],
        claims: &[Claim],
    ) -> Result<Recorded, StoreError> {
        record::record(self.begin().await?, worker, changes, claims).await
    }

    async fn claimed_rows(&self, partitions: &[Partition]) -> Result<Vec<ClaimedRow>, StoreError> {
        dispatch::claimed_rows(&self.readers, partitions).await
    }

    async fn expire_waiting(
        &self,
        line: LineId,
        limit: u32,
    ) -> Result<Vec<(MessageId, Option<String>)>, StoreError> {
        dispatch::expire_waiting(&self.writer, line, limit).await
    }

    async fn pause(&self, scope: PauseScope, length: Duration, reason: &str) -> Result<(), StoreError> {
        lines::pause(&self.writer, scope, length, reason).await
    }

    async fn renew_leases(&self, worker: &str, ttl: Duration) -> Result<LeaseReport, StoreError> {
        lease::renew(self.begin().await?, worker, ttl).await
    }

    async fn acquire_leases(
        &self,
        worker: &str,
        ttl: Duration,
        at_most: usize,
    ) -> Result<Vec<Lease>, StoreError> {
        lease::acquire(&self.writer, worker, ttl, at_most).await
    }

    async fn release_leases(&self, worker: &str, partitions: &[Partition]) -> Result<(), StoreError> {
        lease::release(self.begin().await?, worker, partitions).await
    }

    async fn withdraw_worker(&self, worker: &str) -> Result<(), StoreError> {
        lease::withdraw(self.begin().await?, worker).await
    }

    async fn log_row(&self, scope: Scope, id: MessageId) -> Result<Option<LogRow>, StoreError> {
        log::row(&self.readers, scope, id).await
    }

    async fn log_after(
        &self,
        filter: &LogFilter,
        after: MessageId,
        limit: u32,
    ) -> Result<Vec<LogRow>, StoreError> {
        log::after(&self.readers, filter, after, limit).await
    }

    async fn log_newest(&self, filter: &LogFilter, limit: u32) -> Result<Vec<LogRow>, StoreError> {
        log::newest(&self.readers, filter, limit).await
    }

    async fn log_stats(&self, since: Option<Duration>) -> Result<Vec<StatusCount>, StoreError> {
        log::stats(&self.readers, since).await
    }

    async fn add_account(&self, name: &str) -> Result<AccountId, StoreError> {
        lines::add_account(&self.writer, name).await
    }

    async fn accounts(&self) -> Result<Vec<AccountRow>, StoreError> {
        lines::accounts(&self.readers).await
    }

    async fn add_token(&self, account: AccountId, token_id: &str, hash: &[u8]) -> Result<(), StoreError> {
        lines::add_token(&self.writer, account, token_id, hash).await
    }

    async fn tokens(&self) -> Result<Vec<TokenRow>, StoreError> {
        lines::tokens(&self.readers).await
    }

    async fn revoke_token(&self, token_id: &str) -> Result<bool, StoreError> {
        lines::revoke_token(&self.writer, token_id).await
    }

    async fn add_line(&self, line: &NewLine) -> Result<LineId, StoreError> {
        lines::add_line(&self.writer, line).await
    }

    async fn all_lines(&self) -> Result<Vec<LineRecord>, StoreError> {
        lines::lines(&self.readers, None).await
    }

    async fn set_page_token(&self, line: LineId, page_token: &SecretString) -> Result<bool, StoreError> {
        lines::set_page_token(&self.writer, line, page_token).await
    }

    async fn pause_line(
        &self,
        line: LineId,
        length: Option<Duration>,
        reason: &str,
    ) -> Result<bool, StoreError> {
        lines::pause_line(&self.writer, line, length, reason).await
    }

    async fn resume_line(&self, line: LineId) -> Result<bool, StoreError> {
        lines::resume_line(&self.writer, line).await
    }

    async fn close(&self) {
        tokio::join!(self.readers.close(), self.writer.close());
    }
}

//! The built-in database: one SQLite file, nothing to install. The only place that knows SQLite.
//!
//! One connection writes and four read (WAL), so that reads never wait for a commit. Other programs may write beside
//! it: every write transaction begins IMMEDIATE and waits its turn for five seconds. Times are text and come from this
//! machine's clock, which every program that opens the file shares.
//!
//! Never here: policy, and a second `serve` on the same file ([`SqliteStore::open_exclusive`] refuses it).

mod accept;
mod broker_user;
mod campaign;
mod clock;
mod directory;
mod dispatch;
mod due;
mod enquiry;
mod error;
mod expiry;
mod ingest;
mod lease;
mod line;
mod log;
mod once;
mod open;
mod record;
mod row;
mod schema;
mod settle;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use sqlx::SqlitePool;

use super::*;

/// The log in an SQLite file.
pub struct SqliteStore {
    /// One connection.
    writer: SqlitePool,
    /// Four connections that cannot write.
    reader: SqlitePool,
    /// The lock that keeps a second `serve` out; released when the store is dropped.
    _exclusive: Option<File>,
}

#[async_trait]
impl Store for SqliteStore {
    async fn migrate(&self) -> Result<usize, StoreError> {
        schema::migrate(&self.writer).await
    }

    async fn schema(&self) -> Result<SchemaState, StoreError> {
        schema::state(&self.reader).await
    }

    async fn ensure_room(&self) -> Result<usize, StoreError> {
        // One table holds every id.
        Ok(0)
    }

    async fn accept(&self, messages: &[NewMessage]) -> Result<Vec<Inserted>, StoreError> {
        accept::accept(&self.writer, messages).await
    }

    async fn remembered_key(
        &self,
        account: AccountId,
        key: &str,
    ) -> Result<Option<RememberedKey>, StoreError> {
        once::remembered_key(&self.reader, account, key).await
    }

    async fn open_batch(
        &self,
        account: AccountId,
        batch_id: &str,
        kept: Duration,
    ) -> Result<i64, StoreError> {
        once::open_batch(&self.writer, account, batch_id, kept).await
    }

    async fn batch_lines(
        &self,
        batch: i64,
        first: i64,
        last: i64,
    ) -> Result<Vec<(i64, MessageId)>, StoreError> {
        once::batch_lines(&self.reader, batch, first, last).await
    }

    async fn forget_expired(&self, limit: u32) -> Result<u64, StoreError> {
        once::forget_expired(&self.writer, limit).await
    }

    async fn token(&self, token_id: &str) -> Result<Option<TokenRecord>, StoreError> {
        ingest::token(&self.reader, token_id).await
    }

    async fn lines(&self, ids: &[LineId]) -> Result<Vec<LineRecord>, StoreError> {
        line::by_id(&self.reader, ids).await
    }

    async fn campaign_state(&self, account: AccountId, cp_id: &str) -> Result<CampaignState, StoreError> {
        ingest::campaign_state(&self.reader, account, cp_id).await
    }

    async fn backlog(&self, at_most: i64) -> Result<i64, StoreError> {
        ingest::backlog(&self.reader, at_most).await
    }

    async fn read_ranges(&self, ranges: &[RangeRead]) -> Result<Vec<ReadyRow>, StoreError> {
        dispatch::read_ranges(&self.reader, ranges).await
    }

    async fn read_flows(&self, reads: &[FlowRead]) -> Result<Vec<ReadyRow>, StoreError> {
        dispatch::read_flows(&self.reader, reads).await
    }

    async fn ready_flows(&self, partitions: &[Partition]) -> Result<Vec<(Flow, MessageId)>, StoreError> {
        dispatch::ready_flows(&self.reader, partitions).await
    }

    async fn promote_due(
        &self,
        partitions: &[Partition],
        limit: u32,
    ) -> Result<Vec<(LineId, Lane, MessageId)>, StoreError> {
        due::promote(&self.reader, &self.writer, partitions, limit).await
    }

    async fn held_recipients(
        &self,
        partitions: &[Partition],
        within: Duration,
    ) -> Result<Vec<HeldRecipient>, StoreError> {
        due::held_recipients(&self.reader, partitions, within).await
    }

    async fn still_held(&self, ids: &[MessageId]) -> Result<Vec<MessageId>, StoreError> {
        due::still_held(&self.reader, ids).await
    }

    async fn record(
        &self,
        worker: &str,
        changes: &[Change],
        claims: &[Claim],
    ) -> Result<Recorded, StoreError> {
        record::record(&self.writer, worker, changes, claims).await
    }

    async fn claimed_rows(
        &self,
        partitions: &[Partition],
        within: Duration,
    ) -> Result<Vec<ClaimedRow>, StoreError> {
        due::claimed_rows(&self.reader, partitions, within).await
    }

    async fn waiting_flows(&self, partitions: &[Partition]) -> Result<Vec<Flow>, StoreError> {
        dispatch::waiting_flows(&self.reader, partitions).await
    }

    async fn walk_waiting(&self, flows: &[(Flow, MessageId)], limit: u32) -> Result<Vec<Walked>, StoreError> {
        expiry::walk(&self.reader, flows, limit).await
    }

    async fn expire(&self, ids: &[MessageId]) -> Result<Vec<(MessageId, Option<String>)>, StoreError> {
        expiry::expire(&self.writer, ids).await
    }

    async fn pause(&self, scope: PauseScope, length: Duration, reason: &str) -> Result<(), StoreError> {
        line::pause(&self.writer, scope, length, reason).await
    }

    async fn renew_leases(&self, worker: &str, ttl: Duration) -> Result<LeaseReport, StoreError> {
        lease::renew(&self.writer, worker, ttl).await
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
        lease::release(&self.writer, worker, partitions).await
    }

    async fn withdraw_worker(&self, worker: &str) -> Result<(), StoreError> {
        lease::withdraw(&self.writer, worker).await
    }

    async fn log_row(&self, scope: Scope, id: MessageId) -> Result<Option<LogRow>, StoreError> {
        log::row(&self.reader, scope, id).await
    }

    async fn log_after(
        &self,
        filter: &LogFilter,
        after: MessageId,
        limit: u32,
    ) -> Result<Vec<LogRow>, StoreError> {
        log::after(&self.reader, filter, after, limit).await
    }

    async fn log_newest(&self, filter: &LogFilter, limit: u32) -> Result<Vec<LogRow>, StoreError> {
        log::newest(&self.reader, filter, limit).await
    }

    async fn log_stats(&self, since: Option<Duration>) -> Result<Vec<StatusCount>, StoreError> {
        log::stats(&self.reader, since).await
    }

    async fn open_rows(&self) -> Result<OpenRows, StoreError> {
        settle::open_rows(&self.reader).await
    }

    async fn matching(
        &self,
        range: IdRange,
        selection: &Selection,
        operation: Operation<'_>,
    ) -> Result<Matching, StoreError> {
        settle::matching(&self.reader, range, selection, operation).await
    }

    async fn resolve(
        &self,
        range: IdRange,
        selection: &Selection,
        resolution: &Resolution,
        limit: u32,
    ) -> Result<Vec<MessageId>, StoreError> {
        settle::resolve(&self.writer, range, selection, resolution, limit).await
    }

    async fn take_settled(&self, limit: u32) -> Result<Vec<SettledRow>, StoreError> {
        settle::take_settled(&self.reader, &self.writer, limit).await
    }

    async fn resend(
        &self,
        range: IdRange,
        selection: &Selection,
        resend: &Resend,
        limit: u32,
    ) -> Result<Vec<Resent>, StoreError> {
        settle::resend(&self.writer, range, selection, resend, limit).await
    }

    async fn copy_of(&self, id: MessageId) -> Result<Option<MessageId>, StoreError> {
        settle::copy_of(&self.reader, id).await
    }

    async fn messages(
        &self,
        account: AccountId,
        filter: &MessageFilter,
        before: MessageId,
        limit: u32,
    ) -> Result<Vec<LogRow>, StoreError> {
        enquiry::messages(&self.reader, account, filter, before, limit).await
    }

    async fn campaign_counts(
        &self,
        account: AccountId,
        cp_id: &str,
    ) -> Result<Vec<CampaignCount>, StoreError> {
        campaign::counts(&self.reader, account, cp_id).await
    }

    async fn campaign_rate(
        &self,
        account: AccountId,
        cp_id: &str,
        window: Duration,
    ) -> Result<f64, StoreError> {
        campaign::rate(&self.reader, account, cp_id, window).await
    }

    async fn set_campaign(
        &self,
        account: AccountId,
        cp_id: &str,
        state: CampaignState,
    ) -> Result<CampaignState, StoreError> {
        campaign::set(&self.writer, account, cp_id, state).await
    }

    async fn campaigns(
        &self,
        state: CampaignState,
        within: Option<Duration>,
    ) -> Result<Vec<(AccountId, String)>, StoreError> {
        campaign::in_state(&self.reader, state, within).await
    }

    async fn cancel_waiting(
        &self,
        account: AccountId,
        cp_id: &str,
        after: MessageId,
        limit: u32,
    ) -> Result<Vec<CancelledRow>, StoreError> {
        campaign::cancel_waiting(&self.reader, &self.writer, account, cp_id, after, limit).await
    }

    async fn add_account(&self, name: &str) -> Result<AccountId, StoreError> {
        directory::add_account(&self.writer, name).await
    }

    async fn accounts(&self) -> Result<Vec<AccountRow>, StoreError> {
        directory::accounts(&self.reader).await
    }

    async fn add_token(&self, account: AccountId, token_id: &str, hash: &[u8]) -> Result<(), StoreError> {
        directory::add_token(&self.writer, account, token_id, hash).await
    }

    async fn tokens(&self) -> Result<Vec<TokenRow>, StoreError> {
        directory::tokens(&self.reader).await
    }

    async fn revoke_token(&self, token_id: &str) -> Result<bool, StoreError> {
        directory::revoke_token(&self.writer, token_id).await
    }

    async fn add_line(&self, line: &NewLine) -> Result<LineId, StoreError> {
        directory::add_line(&self.writer, line).await
    }

    async fn all_lines(&self) -> Result<Vec<LineRecord>, StoreError> {
        line::all(&self.reader).await
    }

    async fn set_page_token(&self, line: LineId, page_token: &SecretString) -> Result<bool, StoreError> {
        line::set_page_token(&self.writer, line, page_token).await
    }

    async fn pause_line(
        &self,
        line: LineId,
        length: Option<Duration>,
        reason: &str,
    ) -> Result<bool, StoreError> {
        line::pause_one(&self.writer, line, length, reason).await
    }

    async fn resume_line(&self, line: LineId) -> Result<bool, StoreError> {
        line::resume(&self.writer, line).await
    }

    async fn broker_user(&self, user: &str) -> Result<Option<BrokerUser>, StoreError> {
        broker_user::find(&self.reader, user).await
    }

    async fn map_broker_user(&self, account: AccountId, user: &str) -> Result<(), StoreError> {
        broker_user::map(&self.writer, account, user).await
    }

    async fn unmap_broker_user(&self, user: &str) -> Result<bool, StoreError> {
        broker_user::unmap(&self.writer, user).await
    }

    async fn broker_users(&self) -> Result<Vec<BrokerUserRow>, StoreError> {
        broker_user::all(&self.reader).await
    }

    async fn log_rows(&self, ids: &[MessageId]) -> Result<Vec<LogRow>, StoreError> {
        log::rows(&self.reader, ids).await
    }

    async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

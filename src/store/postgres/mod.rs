//! The log on PostgreSQL: for production, shared by any number of processes.
//!
//! Every hot statement takes arrays and is one round trip. Connections are told not to scan whole tables: on a fresh
//! table without statistics the planner would, at ten times the cost a row.

mod accept;
mod broker_user;
mod campaign;
mod dispatch;
mod enquiry;
mod error;
mod expiry;
mod ingest;
mod lease;
mod lines;
mod log;
mod once;
mod open;
mod parameters;
mod pool;
mod record;
mod rows;
mod schema;
mod settle;

use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;

use self::pool::Pool;
use super::*;

/// The store of `database.url = "postgres://…"`.
pub struct PostgresStore {
    /// Inserts of ingest, and its look-ups.
    ingest: Pool,
    /// The recorder and dispatch's reads.
    dispatch: Pool,
    /// Commands, health, statistics, migrations: statements that may take long, and nobody asks for often.
    calm: Pool,
    /// What senders ask about their messages and campaigns, as often as they like.
    questions: Pool,
}

#[async_trait]
impl Store for PostgresStore {
    async fn migrate(&self) -> Result<usize, StoreError> {
        schema::migrate(&self.calm).await
    }

    async fn schema(&self) -> Result<SchemaState, StoreError> {
        schema::state(&self.calm).await
    }

    async fn ensure_room(&self) -> Result<usize, StoreError> {
        schema::ensure_room(&self.calm).await
    }

    async fn accept(&self, messages: &[NewMessage]) -> Result<Vec<Inserted>, StoreError> {
        accept::accept(&self.ingest, messages).await
    }

    async fn remembered_key(
        &self,
        account: AccountId,
        key: &str,
    ) -> Result<Option<RememberedKey>, StoreError> {
        once::remembered_key(&self.ingest, account, key).await
    }

    async fn open_batch(
        &self,
        account: AccountId,
        batch_id: &str,
        kept: Duration,
    ) -> Result<i64, StoreError> {
        once::open_batch(&self.ingest, account, batch_id, kept).await
    }

    async fn batch_lines(
        &self,
        batch: i64,
        first: i64,
        last: i64,
    ) -> Result<Vec<(i64, MessageId)>, StoreError> {
        once::batch_lines(&self.ingest, batch, first, last).await
    }

    async fn forget_expired(&self, limit: u32) -> Result<u64, StoreError> {
        once::forget_expired(&self.calm, limit).await
    }

    async fn token(&self, token_id: &str) -> Result<Option<TokenRecord>, StoreError> {
        ingest::token(&self.ingest, token_id).await
    }

    async fn lines(&self, ids: &[LineId]) -> Result<Vec<LineRecord>, StoreError> {
        lines::lines(&self.dispatch, Some(ids)).await
    }

    async fn campaign_state(&self, account: AccountId, cp_id: &str) -> Result<CampaignState, StoreError> {
        ingest::campaign_state(&self.ingest, account, cp_id).await
    }

    async fn backlog(&self, at_most: i64) -> Result<i64, StoreError> {
        ingest::backlog(&self.calm, at_most).await
    }

    async fn read_ranges(&self, ranges: &[RangeRead]) -> Result<Vec<ReadyRow>, StoreError> {
        dispatch::read_ranges(&self.dispatch, ranges).await
    }

    async fn read_flows(&self, reads: &[FlowRead]) -> Result<Vec<ReadyRow>, StoreError> {
        dispatch::read_flows(&self.dispatch, reads).await
    }

    async fn ready_flows(&self, partitions: &[Partition]) -> Result<Vec<(Flow, MessageId)>, StoreError> {
        dispatch::ready_flows(&self.dispatch, partitions).await
    }

    async fn promote_due(
        &self,
        partitions: &[Partition],
        limit: u32,
    ) -> Result<Vec<(LineId, Lane, MessageId)>, StoreError> {
        dispatch::promote_due(&self.dispatch, partitions, limit).await
    }

    async fn held_recipients(
        &self,
        partitions: &[Partition],
        within: Duration,
    ) -> Result<Vec<HeldRecipient>, StoreError> {
        dispatch::held_recipients(&self.dispatch, partitions, within).await
    }

    async fn still_held(&self, ids: &[MessageId]) -> Result<Vec<MessageId>, StoreError> {
        dispatch::still_held(&self.dispatch, ids).await
    }

    async fn record(
        &self,
        worker: &str,
        changes: &[Change],
        claims: &[Claim],
    ) -> Result<Recorded, StoreError> {
        record::record(&self.dispatch, worker, changes, claims).await
    }

    async fn claimed_rows(
        &self,
        partitions: &[Partition],
        within: Duration,
    ) -> Result<Vec<ClaimedRow>, StoreError> {
        dispatch::claimed_rows(&self.dispatch, partitions, within).await
    }

    async fn waiting_flows(&self, partitions: &[Partition]) -> Result<Vec<Flow>, StoreError> {
        dispatch::waiting_flows(&self.dispatch, partitions).await
    }

    async fn walk_waiting(&self, flows: &[(Flow, MessageId)], limit: u32) -> Result<Vec<Walked>, StoreError> {
        expiry::walk(&self.dispatch, flows, limit).await
    }

    async fn expire(&self, ids: &[MessageId]) -> Result<Vec<(MessageId, Option<String>)>, StoreError> {
        expiry::expire(&self.dispatch, ids).await
    }

    async fn pause(&self, scope: PauseScope, length: Duration, reason: &str) -> Result<(), StoreError> {
        lines::pause(&self.dispatch, scope, length, reason).await
    }

    async fn renew_leases(&self, worker: &str, ttl: Duration) -> Result<LeaseReport, StoreError> {
        lease::renew(&self.dispatch, worker, ttl).await
    }

    async fn acquire_leases(
        &self,
        worker: &str,
        ttl: Duration,
        at_most: usize,
    ) -> Result<Vec<Lease>, StoreError> {
        lease::acquire(&self.dispatch, worker, ttl, at_most).await
    }

    async fn release_leases(&self, worker: &str, partitions: &[Partition]) -> Result<(), StoreError> {
        lease::release(&self.dispatch, worker, partitions).await
    }

    async fn withdraw_worker(&self, worker: &str) -> Result<(), StoreError> {
        lease::withdraw(&self.dispatch, worker).await
    }

    async fn log_row(&self, scope: Scope, id: MessageId) -> Result<Option<LogRow>, StoreError> {
        log::row(&self.ingest, scope, id).await
    }

    async fn log_after(
        &self,
        filter: &LogFilter,
        after: MessageId,
        limit: u32,
    ) -> Result<Vec<LogRow>, StoreError> {
        log::after(&self.calm, filter, after, limit).await
    }

    async fn log_newest(&self, filter: &LogFilter, limit: u32) -> Result<Vec<LogRow>, StoreError> {
        log::newest(&self.calm, filter, limit).await
    }

    async fn log_stats(&self, since: Option<Duration>) -> Result<Vec<StatusCount>, StoreError> {
        log::stats(&self.calm, since).await
    }

    async fn open_rows(&self) -> Result<OpenRows, StoreError> {
        settle::open_rows(&self.calm).await
    }

    async fn matching(
        &self,
        range: IdRange,
        selection: &Selection,
        operation: Operation<'_>,
    ) -> Result<Matching, StoreError> {
        settle::matching(&self.calm, range, selection, operation).await
    }

    async fn resolve(
        &self,
        range: IdRange,
        selection: &Selection,
        resolution: &Resolution,
        limit: u32,
    ) -> Result<Vec<MessageId>, StoreError> {
        settle::resolve(&self.calm, range, selection, resolution, limit).await
    }

    async fn take_settled(&self, limit: u32) -> Result<Vec<SettledRow>, StoreError> {
        settle::take_settled(&self.dispatch, limit).await
    }

    async fn resend(
        &self,
        range: IdRange,
        selection: &Selection,
        resend: &Resend,
        limit: u32,
    ) -> Result<Vec<Resent>, StoreError> {
        settle::resend(&self.calm, range, selection, resend, limit).await
    }

    async fn copy_of(&self, id: MessageId) -> Result<Option<MessageId>, StoreError> {
        settle::copy_of(&self.calm, id).await
    }

    async fn messages(
        &self,
        account: AccountId,
        filter: &MessageFilter,
        before: MessageId,
        limit: u32,
    ) -> Result<Vec<LogRow>, StoreError> {
        enquiry::messages(&self.questions, account, filter, before, limit).await
    }

    async fn campaign_counts(
        &self,
        account: AccountId,
        cp_id: &str,
    ) -> Result<Vec<CampaignCount>, StoreError> {
        campaign::counts(&self.questions, account, cp_id).await
    }

    async fn campaign_rate(
        &self,
        account: AccountId,
        cp_id: &str,
        window: Duration,
    ) -> Result<f64, StoreError> {
        campaign::rate(&self.questions, account, cp_id, window).await
    }

    async fn set_campaign(
        &self,
        account: AccountId,
        cp_id: &str,
        state: CampaignState,
    ) -> Result<CampaignState, StoreError> {
        campaign::set(&self.calm, account, cp_id, state).await
    }

    async fn campaigns(
        &self,
        state: CampaignState,
        within: Option<Duration>,
    ) -> Result<Vec<(AccountId, String)>, StoreError> {
        campaign::in_state(&self.calm, state, within).await
    }

    async fn cancel_waiting(
        &self,
        account: AccountId,
        cp_id: &str,
        after: MessageId,
        limit: u32,
    ) -> Result<Vec<CancelledRow>, StoreError> {
        campaign::cancel_waiting(&self.calm, account, cp_id, after, limit).await
    }

    async fn add_account(&self, name: &str) -> Result<AccountId, StoreError> {
        lines::add_account(&self.calm, name).await
    }

    async fn accounts(&self) -> Result<Vec<AccountRow>, StoreError> {
        lines::accounts(&self.calm).await
    }

    async fn add_token(&self, account: AccountId, token_id: &str, hash: &[u8]) -> Result<(), StoreError> {
        lines::add_token(&self.calm, account, token_id, hash).await
    }

    async fn tokens(&self) -> Result<Vec<TokenRow>, StoreError> {
        lines::tokens(&self.calm).await
    }

    async fn revoke_token(&self, token_id: &str) -> Result<bool, StoreError> {
        lines::revoke_token(&self.calm, token_id).await
    }

    async fn add_line(&self, line: &NewLine) -> Result<LineId, StoreError> {
        lines::add_line(&self.calm, line).await
    }

    async fn all_lines(&self) -> Result<Vec<LineRecord>, StoreError> {
        lines::lines(&self.calm, None).await
    }

    async fn set_page_token(&self, line: LineId, page_token: &SecretString) -> Result<bool, StoreError> {
        lines::set_page_token(&self.calm, line, page_token).await
    }

    async fn pause_line(
        &self,
        line: LineId,
        length: Option<Duration>,
        reason: &str,
    ) -> Result<bool, StoreError> {
        lines::pause_line(&self.calm, line, length, reason).await
    }

    async fn resume_line(&self, line: LineId) -> Result<bool, StoreError> {
        lines::resume_line(&self.calm, line).await
    }

    async fn broker_user(&self, user: &str) -> Result<Option<BrokerUser>, StoreError> {
        broker_user::find(&self.ingest, user).await
    }

    async fn map_broker_user(&self, account: AccountId, user: &str) -> Result<(), StoreError> {
        broker_user::map(&self.calm, account, user).await
    }

    async fn unmap_broker_user(&self, user: &str) -> Result<bool, StoreError> {
        broker_user::unmap(&self.calm, user).await
    }

    async fn broker_users(&self) -> Result<Vec<BrokerUserRow>, StoreError> {
        broker_user::all(&self.calm).await
    }

    async fn log_rows(&self, ids: &[MessageId]) -> Result<Vec<LogRow>, StoreError> {
        log::rows(&self.calm, ids).await
    }

    async fn close(&self) {
        let pools = [&self.ingest, &self.dispatch, &self.calm, &self.questions];
        futures::future::join_all(pools.map(|pool| pool.connections.close())).await;
    }
}

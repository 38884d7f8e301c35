//! The statements of senders: an account's messages by filter, and its campaigns.

use std::time::Duration;

use async_trait::async_trait;

use super::log::filter::Order;
use super::log::listing::listed_in_parts;
use super::{PostgresStore, backlog, campaign};
use crate::domain::{AccountId, CampaignState, LineId, RowId};
use crate::store::{
    CampaignCount, CampaignFilter, CampaignLabel, EnquiryStore, ErrorCount, LineBacklog, LogRow,
    MessageFilter, Receipts, StoreError,
};

#[async_trait]
impl EnquiryStore for PostgresStore {
    async fn messages(
        &self,
        account: AccountId,
        filter: &MessageFilter,
        before: RowId,
        limit: u32,
    ) -> Result<Vec<LogRow>, StoreError> {
        let (pool, bounds) = (&self.enquiries, (-1, before.0.saturating_sub(1)));
        listed_in_parts(pool, Some(account.0), filter, Order::NewestFirst, bounds, limit).await
    }

    async fn messages_after(
        &self,
        account: AccountId,
        filter: &MessageFilter,
        after: RowId,
        limit: u32,
    ) -> Result<Vec<LogRow>, StoreError> {
        let (pool, bounds) = (&self.enquiries, (after.0, i64::MAX));
        listed_in_parts(pool, Some(account.0), filter, Order::OldestFirst, bounds, limit).await
    }

    async fn campaign_counts(
        &self,
        account: AccountId,
        cp_id: &str,
    ) -> Result<Vec<CampaignCount>, StoreError> {
        campaign::counts(&self.enquiries, account, cp_id).await
    }

    async fn campaign_rate(
        &self,
        account: AccountId,
        cp_id: &str,
        window: Duration,
    ) -> Result<f64, StoreError> {
        campaign::rate(&self.enquiries, account, cp_id, window).await
    }

    async fn campaign_errors(&self, account: AccountId, cp_id: &str) -> Result<Vec<ErrorCount>, StoreError> {
        campaign::errors(&self.enquiries, account, cp_id).await
    }

    async fn campaign_receipts(&self, account: AccountId, cp_id: &str) -> Result<Receipts, StoreError> {
        campaign::receipts(&self.enquiries, account, cp_id).await
    }

    async fn campaigns(
        &self,
        account: AccountId,
        filter: &CampaignFilter,
        limit: u32,
    ) -> Result<Vec<CampaignLabel>, StoreError> {
        campaign::list(&self.enquiries, account, filter, limit).await
    }

    async fn line_backlog(&self, lines: &[LineId]) -> Result<Vec<LineBacklog>, StoreError> {
        backlog::of_lines(&self.enquiries, lines).await
    }

    async fn fold_counts(&self, age: Duration, limit: u32) -> Result<u64, StoreError> {
        campaign::fold(&self.background, age, limit).await
    }

    async fn campaign_state(&self, account: AccountId, cp_id: &str) -> Result<CampaignState, StoreError> {
        campaign::state(&self.ingest, account, cp_id).await
    }

    async fn set_campaign(
        &self,
        account: AccountId,
        cp_id: &str,
        state: CampaignState,
    ) -> Result<CampaignState, StoreError> {
        campaign::set(&self.background, account, cp_id, state).await
    }
}

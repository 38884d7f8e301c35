//! The questions of senders: an account's messages by filter, and its campaigns.

use std::time::Duration;

use async_trait::async_trait;

use super::PostgresStore;
use super::campaign;
use super::log::listing::{Order, Wanted, listed};
use crate::message::{AccountId, CampaignState, MessageId};
use crate::store::{CampaignCount, EnquiryStore, LogRow, MessageFilter, StoreError};

#[async_trait]
impl EnquiryStore for PostgresStore {
    async fn messages(
        &self,
        account: AccountId,
        filter: &MessageFilter,
        before: MessageId,
        limit: u32,
    ) -> Result<Vec<LogRow>, StoreError> {
        let wanted = Wanted {
            account: Some(account.0),
            line: filter.line.map(|line| line.0),
            status: filter.status,
            cp_id: filter.cp_id.as_deref(),
            msg_id: filter.msg_id.as_deref(),
            dest: filter.dest.as_deref(),
        };
        let bounds = (-1, before.0.saturating_sub(1));
        listed(&self.questions, &wanted, Order::NewestFirst, bounds, limit).await
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

    async fn fold_counts(&self, age: Duration, limit: u32) -> Result<u64, StoreError> {
        campaign::fold(&self.calm, age, limit).await
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
        campaign::set(&self.calm, account, cp_id, state).await
    }
}

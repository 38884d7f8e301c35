//! The questions of senders to the log: their messages by filter, and the progress of a campaign. Plain data.

use std::time::Duration;

use async_trait::async_trait;
use time::OffsetDateTime;

use super::{LogRow, MessageFilter, StoreError};
use crate::channel::Medium;
use crate::domain::{AccountId, CampaignState, ErrorKind, LineId, RowId, Status};

/// Rows of a campaign that are of one line, medium and status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CampaignCount {
    pub line: LineId,
    pub medium: Medium,
    pub status: Status,
    pub rows: i64,
    /// The earliest time at which the newest of the rows is sent, if they are PENDING and it is scheduled.
    pub not_before: Option<OffsetDateTime>,
}

/// Rows of a campaign that ended with one error
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[schema(as = CampaignError)]
pub struct ErrorCount {
    #[schema(required)]
    pub error_code: Option<i32>,
    #[schema(required)]
    pub error_subcode: Option<i32>,
    #[schema(inline, required)]
    pub error_kind: Option<ErrorKind>,
    pub rows: i64,
}

/// Rows of a campaign of which Meta has told more: the counters' words for it are `DELIVERED` and `READ`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Receipts {
    pub delivered: i64,
    pub read: i64,
}

/// The campaigns that are listed; `None` matches any.
#[derive(Debug, Clone, Default)]
pub struct CampaignFilter {
    pub state: Option<CampaignState>,
    /// Whether rows of it wait, or are in a call.
    pub is_open: Option<bool>,
    /// The place behind which the list goes on.
    pub before: Option<CampaignPlace>,
}

/// A campaign's place among an account's: by the time of its first message, then by its label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CampaignPlace {
    pub first_at: OffsetDateTime,
    pub cp_id: String,
}

/// A campaign as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CampaignLabel {
    pub place: CampaignPlace,
    pub state: CampaignState,
}

/// The waiting rows of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineBacklog {
    pub line: LineId,
    pub waiting: i64,
    /// The time at which the oldest waiting row was created.
    pub oldest: Option<OffsetDateTime>,
}

/// The statements of senders.
#[async_trait]
pub trait EnquiryStore: Send + Sync {
    /// Return the account's matching rows, newest first, with ids below `before`; at most `limit`. A row
    /// appears once, whatever is written meanwhile.
    async fn messages(
        &self,
        account: AccountId,
        filter: &MessageFilter,
        before: RowId,
        limit: u32,
    ) -> Result<Vec<LogRow>, StoreError>;

    /// Return the account's matching rows, oldest first, with ids above `after`; at most `limit`.
    async fn messages_after(
        &self,
        account: AccountId,
        filter: &MessageFilter,
        after: RowId,
        limit: u32,
    ) -> Result<Vec<LogRow>, StoreError>;

    /// Return counts of the account's rows of the campaign by line, medium and status, from the counters;
    /// empty if there are none.
    async fn campaign_counts(
        &self,
        account: AccountId,
        cp_id: &str,
    ) -> Result<Vec<CampaignCount>, StoreError>;

    /// Return the messages of the campaign a second that Graph took or refused within the last `window`.
    async fn campaign_rate(
        &self,
        account: AccountId,
        cp_id: &str,
        window: Duration,
    ) -> Result<f64, StoreError>;

    /// Return counts of the campaign's ERROR rows by error, from counters; the most frequent first.
    async fn campaign_errors(&self, account: AccountId, cp_id: &str) -> Result<Vec<ErrorCount>, StoreError>;

    /// Return counts of the campaign's rows that were delivered and read, from counters.
    async fn campaign_receipts(&self, account: AccountId, cp_id: &str) -> Result<Receipts, StoreError>;

    /// Return the account's campaigns, newest first, at most `limit`.
    async fn campaigns(
        &self,
        account: AccountId,
        filter: &CampaignFilter,
        limit: u32,
    ) -> Result<Vec<CampaignLabel>, StoreError>;

    /// Return the waiting rows of these lines; a line without any is left out.
    async fn line_backlog(&self, lines: &[LineId]) -> Result<Vec<LineBacklog>, StoreError>;

    /// Add counters that are older than `age` to the totals, at most `limit` rows; return their number.
    async fn fold_counts(&self, age: Duration, limit: u32) -> Result<u64, StoreError>;

    /// Return the state of one account's campaign.
    async fn campaign_state(&self, account: AccountId, cp_id: &str) -> Result<CampaignState, StoreError>;

    /// Put the campaign into a state and return its state after that: a cancelled campaign stays cancelled.
    /// From the answer on, no claim of its rows is made unless it runs.
    async fn set_campaign(
        &self,
        account: AccountId,
        cp_id: &str,
        state: CampaignState,
    ) -> Result<CampaignState, StoreError>;
}

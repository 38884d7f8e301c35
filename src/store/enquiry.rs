//! What senders ask the log afterwards: their messages by filter, and how a campaign stands. Plain data.

use std::time::Duration;

use async_trait::async_trait;
use time::OffsetDateTime;

use super::{LogRow, StoreError};
use crate::message::{AccountId, CampaignState, LineId, Medium, MessageId, Status};

/// Which of an account's rows are listed; what is `None` matches any. The rarest filter given finds the rows, the
/// others are looked at row by row.
#[derive(Debug, Clone, Default)]
pub struct MessageFilter {
    pub status: Option<Status>,
    pub line: Option<LineId>,
    pub cp_id: Option<String>,
    pub msg_id: Option<String>,
    pub dest: Option<String>,
}

/// How the rows of a filter are found: each way has an index of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    MsgId,
    Dest,
    Campaign,
    /// Every row of the account; by line and status.
    Account,
}

impl MessageFilter {
    pub fn way(&self) -> Way {
        match self {
            MessageFilter { msg_id: Some(_), .. } => Way::MsgId,
            MessageFilter { dest: Some(_), .. } => Way::Dest,
            MessageFilter { cp_id: Some(_), .. } => Way::Campaign,
            _ => Way::Account,
        }
    }
}

/// Rows of a campaign that are of one line, medium and status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CampaignCount {
    pub line: LineId,
    pub medium: Medium,
    pub status: Status,
    pub rows: i64,
    /// When the newest of them is sent at the earliest, if they are PENDING and it is scheduled.
    pub not_before: Option<OffsetDateTime>,
}

/// The questions of senders.
#[async_trait]
pub trait EnquiryStore: Send + Sync {
    /// The account's rows that match, newest first, with ids below `before`; at most `limit`. A row appears once,
    /// whatever is written meanwhile.
    async fn messages(
        &self,
        account: AccountId,
        filter: &MessageFilter,
        before: MessageId,
        limit: u32,
    ) -> Result<Vec<LogRow>, StoreError>;

    /// The account's rows of the campaign by line, medium and status, from the counters; empty if there are none.
    async fn campaign_counts(
        &self,
        account: AccountId,
        cp_id: &str,
    ) -> Result<Vec<CampaignCount>, StoreError>;

    /// Messages of the campaign a second that Graph took or refused within the last `window`.
    async fn campaign_rate(
        &self,
        account: AccountId,
        cp_id: &str,
        window: Duration,
    ) -> Result<f64, StoreError>;

    /// Adds counters that are older than `age` to the totals, at most `limit` rows; how many they were.
    async fn fold_counts(&self, age: Duration, limit: u32) -> Result<u64, StoreError>;

    /// State of one account's campaign.
    async fn campaign_state(&self, account: AccountId, cp_id: &str) -> Result<CampaignState, StoreError>;

    /// Puts the campaign into a state and says which one it has now: a cancelled campaign stays cancelled. From the
    /// answer on, no claim of its rows is made unless it runs.
    async fn set_campaign(
        &self,
        account: AccountId,
        cp_id: &str,
        state: CampaignState,
    ) -> Result<CampaignState, StoreError>;
}

//! The inbox of Meta's webhooks, where no broker keeps them: bodies as they came, each until it is applied.
//!
//! A body is claimed for a while, so that two processes do not apply it at the same time. Never here: the meaning of a
//! body.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use time::OffsetDateTime;

use super::StoreError;

/// A body to be kept.
#[derive(Debug, Clone)]
pub struct NewWebhook {
    pub body: Bytes,
    /// The app whose secret has signed it; `None`: that of the settings.
    pub app: Option<String>,
}

/// A claimed body.
#[derive(Debug, Clone)]
pub struct InboxWebhook {
    pub id: i64,
    pub body: Vec<u8>,
    pub app: Option<String>,
    pub received_at: OffsetDateTime,
    /// How often it was claimed, this time included.
    pub tries: i32,
}

/// The limits of one claim.
#[derive(Debug, Clone, Copy)]
pub struct InboxClaim {
    pub rows: u32,
    /// The first body is claimed whatever its length.
    pub bytes: u32,
    /// The time after which others may claim the bodies.
    pub length: Duration,
}

/// The state of the inbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InboxState {
    pub waiting: i64,
    /// The age of the oldest waiting body.
    pub oldest: Option<Duration>,
    pub aside: i64,
}

/// The statements about the inbox.
#[async_trait]
pub trait InboxStore: Send + Sync {
    /// Keep bodies, all in one commit.
    async fn keep_webhooks(&self, webhooks: &[NewWebhook]) -> Result<(), StoreError>;

    /// Claim the oldest bodies that no process has claimed; return them by age.
    async fn claim_webhooks(&self, claim: InboxClaim) -> Result<Vec<InboxWebhook>, StoreError>;

    /// Delete bodies that were applied.
    async fn delete_webhooks(&self, ids: &[i64]) -> Result<(), StoreError>;

    /// End the claims of bodies that were not applied for a reason that is not theirs: the try does not count.
    async fn release_webhooks(&self, ids: &[i64]) -> Result<(), StoreError>;

    /// Set a body aside: it is not claimed again.
    async fn set_webhook_aside(&self, id: i64, reason: &str) -> Result<(), StoreError>;

    /// Delete bodies that were set aside longer ago; return how many.
    async fn drop_aside_webhooks(&self, longer_ago: Duration) -> Result<u64, StoreError>;

    async fn inbox_state(&self) -> Result<InboxState, StoreError>;
}

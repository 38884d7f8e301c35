//! Accounts, their tokens and broker users, and the lines they send from.
//!
//! Never here: whether a token is good, and what a line may do; that is the caller's to decide.

use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use time::OffsetDateTime;

use super::StoreError;
use crate::message::{AccountId, Class, LineId};

/// A token as stored: looked up by its first ten characters, compared by the SHA-256 of the whole.
#[derive(Debug, Clone)]
pub struct TokenRecord {
    pub account: AccountId,
    pub account_active: bool,
    pub hash: Vec<u8>,
}

/// The account that a user of the broker sends for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokerUser {
    pub account: AccountId,
    pub account_active: bool,
}

/// A line as the worker and the ingest need it, with its account's state.
#[derive(Debug, Clone)]
pub struct LineRecord {
    pub id: LineId,
    pub account: AccountId,
    pub name: Option<String>,
    pub class: Class,
    pub active: bool,
    pub account_active: bool,
    /// Plain or sealed, as stored; empty counts as none.
    pub page_token: Option<SecretString>,
    pub page_id: Option<String>,
    pub instagram_account_id: Option<String>,
    /// Messages a second; `None` is the class's default.
    pub rate_text: Option<u32>,
    pub rate_media: Option<u32>,
    pub paused_until: Option<OffsetDateTime>,
    /// How long its pause still lasts by the database's clock.
    pub pause_left: Option<Duration>,
    pub pause_reason: Option<String>,
}

/// An account as listed.
#[derive(Debug, Clone, serde::Serialize)]
pub struct AccountRow {
    pub cdcs_id: AccountId,
    pub cdcs_name: String,
    pub cdcs_active: bool,
    #[serde(serialize_with = "crate::message::time")]
    pub created_at: OffsetDateTime,
}

/// A mapped user of the broker as listed.
#[derive(Debug, Clone, serde::Serialize)]
pub struct BrokerUserRow {
    pub broker_user: String,
    pub cdcs_id: AccountId,
    #[serde(serialize_with = "crate::message::time")]
    pub created_at: OffsetDateTime,
}

/// A token as listed: its identifier, never the token.
#[derive(Debug, Clone, serde::Serialize)]
pub struct TokenRow {
    pub token_id: String,
    pub cdcs_id: AccountId,
    #[serde(serialize_with = "crate::message::time")]
    pub created_at: OffsetDateTime,
    #[serde(serialize_with = "crate::message::time_or_null")]
    pub revoked_at: Option<OffsetDateTime>,
}

/// A line to be added.
#[derive(Debug, Clone)]
pub struct NewLine {
    /// Chosen by the operator, or the next free id.
    pub id: Option<LineId>,
    pub account: AccountId,
    pub name: Option<String>,
    pub class: Class,
    pub page_token: SecretString,
    pub page_id: Option<String>,
    pub instagram_account_id: Option<String>,
    pub rate_text: Option<u32>,
    pub rate_media: Option<u32>,
}

/// Which lines a pause concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PauseScope {
    Line(LineId),
    /// Every line: Graph limited the app they all share.
    App,
}

/// Accounts and lines: questions and changes.
#[async_trait]
pub trait DirectoryStore: Send + Sync {
    /// The token with this identifier (first ten characters), unless it is revoked.
    async fn token(&self, token_id: &str) -> Result<Option<TokenRecord>, StoreError>;

    /// The account that a user of the broker sends for, if one is mapped.
    async fn broker_user(&self, user: &str) -> Result<Option<BrokerUser>, StoreError>;

    /// Lines by id, whoever owns them; the caller compares accounts. Missing ids are left out, and so is a line that
    /// this version cannot read.
    async fn lines(&self, ids: &[LineId]) -> Result<Vec<LineRecord>, StoreError>;

    /// All lines, by id.
    async fn all_lines(&self) -> Result<Vec<LineRecord>, StoreError>;

    /// Pauses until now + `length`; never shortens a pause.
    async fn pause(&self, scope: PauseScope, length: Duration, reason: &str) -> Result<(), StoreError>;

    async fn add_account(&self, name: &str) -> Result<AccountId, StoreError>;
    async fn accounts(&self) -> Result<Vec<AccountRow>, StoreError>;

    /// Stores a token's identifier and hash; `Invalid` if the account does not exist.
    async fn add_token(&self, account: AccountId, token_id: &str, hash: &[u8]) -> Result<(), StoreError>;
    async fn tokens(&self) -> Result<Vec<TokenRow>, StoreError>;

    /// Whether there was such a token that was not revoked yet.
    async fn revoke_token(&self, token_id: &str) -> Result<bool, StoreError>;

    /// Lets a user of the broker send for an account; `Invalid` if the account does not exist or the user is mapped.
    async fn map_broker_user(&self, account: AccountId, user: &str) -> Result<(), StoreError>;

    /// Whether the user was mapped.
    async fn unmap_broker_user(&self, user: &str) -> Result<bool, StoreError>;

    /// All mapped users, by name.
    async fn broker_users(&self) -> Result<Vec<BrokerUserRow>, StoreError>;

    /// Adds a line; `Invalid` if the account does not exist or the id is taken.
    async fn add_line(&self, line: &NewLine) -> Result<LineId, StoreError>;

    /// Replaces the page token and ends a pause that its predecessor caused. Whether there is such a line.
    async fn set_page_token(&self, line: LineId, page_token: &SecretString) -> Result<bool, StoreError>;

    /// An operator's pause, replacing any other; `None` lasts until `resume_line`. Whether there is such a line.
    async fn pause_line(
        &self,
        line: LineId,
        length: Option<Duration>,
        reason: &str,
    ) -> Result<bool, StoreError>;

    /// Ends the line's pause. Whether there is such a line.
    async fn resume_line(&self, line: LineId) -> Result<bool, StoreError>;
}

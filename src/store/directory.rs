//! Accounts, their tokens and broker users, and the lines they send from.
//!
//! Never here: the check of a token, and the permissions of a line; both are the caller's decision.

use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use time::OffsetDateTime;

use super::StoreError;
use crate::channel::Class;
use crate::domain::{AccountId, LineId};

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
    /// The token, plain or sealed, as stored, without white space around it: SQL of other programs leaves
    /// line ends. A blank one is none.
    pub page_token: Option<SecretString>,
    pub page_id: Option<String>,
    pub instagram_account_id: Option<String>,
    /// The rate in messages a second; `None` is the class's default.
    pub rate_text: Option<u32>,
    pub rate_media: Option<u32>,
    pub paused_until: Option<OffsetDateTime>,
    /// The time left of the line's pause, by the database's clock.
    pub pause_left: Option<Duration>,
    pub pause_reason: Option<String>,
}

/// How the reason of a pause begins that lasts until somebody acts: Graph refuses the line.
pub const REFUSED_PAUSE: &str = "Graph: cannot send";

/// A pause longer than any that ends by itself: an operator's, until it is ended.
const ENDLESS: Duration = Duration::from_secs(365 * 86_400);

impl LineRecord {
    /// Why the line cannot send before somebody acts, as one sentence for its account; nothing if it sends, or will by itself.
    pub fn held_up(&self) -> Option<String> {
        let left = self.pause_left.filter(|left| !left.is_zero())?;
        let reason = self.pause_reason.as_deref().unwrap_or("no reason is given");
        if !reason.starts_with(REFUSED_PAUSE) && left < ENDLESS {
            return None;
        }
        Some(format!(
            "The line is paused ({reason}): the message waits until somebody ends that, or expires."
        ))
    }
}

/// An account as listed.
#[derive(Debug, Clone, serde::Serialize)]
pub struct AccountRow {
    pub cdcs_id: AccountId,
    pub cdcs_name: String,
    pub cdcs_active: bool,
    #[serde(serialize_with = "crate::text::time")]
    pub created_at: OffsetDateTime,
}

/// A mapped user of the broker as listed.
#[derive(Debug, Clone, serde::Serialize)]
pub struct BrokerUserRow {
    pub broker_user: String,
    pub cdcs_id: AccountId,
    #[serde(serialize_with = "crate::text::time")]
    pub created_at: OffsetDateTime,
}

/// A token as listed: its identifier, never the token.
#[derive(Debug, Clone, serde::Serialize)]
pub struct TokenRow {
    pub token_id: String,
    pub cdcs_id: AccountId,
    #[serde(serialize_with = "crate::text::time")]
    pub created_at: OffsetDateTime,
    #[serde(serialize_with = "crate::text::time_or_null")]
    pub revoked_at: Option<OffsetDateTime>,
}

/// A line to be added.
#[derive(Debug, Clone)]
pub struct NewLine {
    /// The id that the operator chose; `None` for the next free one.
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

/// A change of a line; `None` keeps a column as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LineChange {
    pub name: Option<String>,
    pub active: Option<bool>,
    /// The rate in messages a second; `Some(None)` is the class's default.
    pub rate_text: Option<Option<u32>>,
    pub rate_media: Option<Option<u32>>,
}

/// The lines that a pause concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PauseScope {
    Line(LineId),
    /// Every line: Graph limited the app they all share.
    App,
}

/// The statements about accounts and lines.
#[async_trait]
pub trait DirectoryStore: Send + Sync {
    /// Return the token with this identifier (first ten characters), unless it is revoked.
    async fn token(&self, token_id: &str) -> Result<Option<TokenRecord>, StoreError>;

    /// Return the account that a user of the broker sends for, if one is mapped.
    async fn broker_user(&self, user: &str) -> Result<Option<BrokerUser>, StoreError>;

    /// Return lines by id, of any account; the caller compares accounts. Missing ids are left out, and so is
    /// a line that this version cannot read.
    async fn lines(&self, ids: &[LineId]) -> Result<Vec<LineRecord>, StoreError>;

    /// Return the lines of an account, by id.
    async fn account_lines(&self, account: AccountId) -> Result<Vec<LineRecord>, StoreError>;

    /// Change a line; return whether it exists.
    async fn update_line(&self, line: LineId, change: &LineChange) -> Result<bool, StoreError>;

    /// Remove a line; return whether it existed. Its rows stay in the log.
    async fn remove_line(&self, line: LineId) -> Result<bool, StoreError>;

    /// Enable or disable an account; return whether it exists.
    async fn set_account_active(&self, account: AccountId, active: bool) -> Result<bool, StoreError>;

    /// Return all lines, by id.
    async fn all_lines(&self) -> Result<Vec<LineRecord>, StoreError>;

    /// Pause until now + `length`; an existing pause is never shortened.
    async fn pause(&self, scope: PauseScope, length: Duration, reason: &str) -> Result<(), StoreError>;

    async fn add_account(&self, name: &str) -> Result<AccountId, StoreError>;
    async fn accounts(&self) -> Result<Vec<AccountRow>, StoreError>;

    /// Store a token's identifier and hash; `Invalid` if the account does not exist.
    async fn add_token(&self, account: AccountId, token_id: &str, hash: &[u8]) -> Result<(), StoreError>;
    async fn tokens(&self) -> Result<Vec<TokenRow>, StoreError>;

    /// Revoke a token; return whether there was one that was not revoked yet.
    async fn revoke_token(&self, token_id: &str) -> Result<bool, StoreError>;

    /// Map a user of the broker to an account; `Invalid` if the account does not exist or the user is mapped.
    async fn map_broker_user(&self, account: AccountId, user: &str) -> Result<(), StoreError>;

    /// End the mapping; return whether the user was mapped.
    async fn unmap_broker_user(&self, user: &str) -> Result<bool, StoreError>;

    /// Return all mapped users, by name.
    async fn broker_users(&self) -> Result<Vec<BrokerUserRow>, StoreError>;

    /// Add a line; `Invalid` if the account does not exist or the id is taken.
    async fn add_line(&self, line: &NewLine) -> Result<LineId, StoreError>;

    /// Replace the page token and end a pause that its predecessor caused; return whether the line exists.
    async fn set_page_token(&self, line: LineId, page_token: &SecretString) -> Result<bool, StoreError>;

    /// Set an operator's pause, which replaces any other; `None` lasts until `resume_line`. Return whether
    /// the line exists.
    async fn pause_line(
        &self,
        line: LineId,
        length: Option<Duration>,
        reason: &str,
    ) -> Result<bool, StoreError>;

    /// End the line's pause; return whether the line exists.
    async fn resume_line(&self, line: LineId) -> Result<bool, StoreError>;
}

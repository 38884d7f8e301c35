//! API tokens as stored: found by an identifier, compared by a hash.
//!
//! Never here: a token in clear, its hashing, and the check of one; all are the caller's.

use async_trait::async_trait;
use ipnet::IpNet;
use time::OffsetDateTime;

use super::StoreError;
use crate::domain::{AccountId, TokenScopes};

/// A token in force, with the account that it belongs to.
#[derive(Debug, Clone)]
pub struct TokenRecord {
    pub token_id: String,
    pub account: AccountId,
    pub account_active: bool,
    pub hash: Vec<u8>,
    /// The key of the hash; `None`: it has none.
    pub key_id: Option<String>,
    pub scopes: TokenScopes,
    /// The networks from which the account may be used; `None`: from any.
    pub networks: Option<Vec<IpNet>>,
}

/// A token to be stored.
#[derive(Debug, Clone)]
pub struct NewToken {
    pub account: AccountId,
    pub token_id: String,
    pub hash: Vec<u8>,
    pub key_id: Option<String>,
    pub name: Option<String>,
    pub scopes: TokenScopes,
    pub expires_at: Option<OffsetDateTime>,
}

/// A token as listed: its identifier, never the token.
#[derive(Debug, Clone, serde::Serialize)]
pub struct TokenRow {
    pub token_id: String,
    pub cdcs_id: AccountId,
    pub name: Option<String>,
    pub scopes: TokenScopes,
    /// The key of its hash; null without one.
    pub key_id: Option<String>,
    #[serde(serialize_with = "crate::text::time")]
    pub created_at: OffsetDateTime,
    #[serde(serialize_with = "crate::text::time_or_null")]
    pub expires_at: Option<OffsetDateTime>,
    #[serde(serialize_with = "crate::text::time_or_null")]
    pub last_used_at: Option<OffsetDateTime>,
    #[serde(serialize_with = "crate::text::time_or_null")]
    pub revoked_at: Option<OffsetDateTime>,
}

/// The statements about API tokens.
#[async_trait]
pub trait TokenStore: Send + Sync {
    /// Return the tokens with these identifiers that are neither revoked nor expired.
    async fn tokens_by_id(&self, ids: &[String]) -> Result<Vec<TokenRecord>, StoreError>;

    /// Store a token; `Invalid` if the account does not exist or the identifier is taken.
    async fn insert_token(&self, token: &NewToken) -> Result<(), StoreError>;

    /// Store a token without a name and an end, for every use; `hash` is the SHA-256.
    async fn add_token(&self, account: AccountId, token_id: &str, hash: &[u8]) -> Result<(), StoreError> {
        self.insert_token(&NewToken {
            account,
            token_id: token_id.to_owned(),
            hash: hash.to_vec(),
            key_id: None,
            name: None,
            scopes: TokenScopes::ALL,
            expires_at: None,
        })
        .await
    }

    async fn tokens(&self) -> Result<Vec<TokenRow>, StoreError>;

    /// Revoke a token; return whether there was one that was not revoked yet.
    async fn revoke_token(&self, token_id: &str) -> Result<bool, StoreError>;

    /// Note that these tokens are used now. A time that is less than a minute old stays.
    async fn note_token_uses(&self, ids: &[String]) -> Result<(), StoreError>;
}

//! API tokens.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::error::ErrorKind;
use sqlx::sqlite::SqliteRow;

use super::SqliteStore;
use super::clock::{self, Now};
use super::directory::{kind, no_account};
use super::error::failed;
use super::row::{get, readable, time, time_or_null};
use crate::domain::{AccountId, TokenScopes, network};
use crate::store::{NewToken, StoreError, TokenRecord, TokenRow, TokenStore};
use crate::text::timestamp;

/// A use is noted again after this time.
const NOTED_FOR: Duration = Duration::from_secs(60);

#[async_trait]
impl TokenStore for SqliteStore {
    async fn tokens_by_id(&self, ids: &[String]) -> Result<Vec<TokenRecord>, StoreError> {
        let found = sqlx::query(
            "select t.token_id, t.cdcs_id, t.token_hash, t.key_id, t.scopes, cast(t.expires_at as text) as expires_at,
                    coalesce(a.cdcs_active, 0) <> 0 as active,
                    (select group_concat(n.network) from account_network n where n.cdcs_id = t.cdcs_id) as networks
             from account_token t left join account a on a.cdcs_id = t.cdcs_id
             where t.token_id in (select value from json_each(?1)) and t.revoked_at is null",
        )
        .bind(texts(ids))
        .fetch_all(&self.reader)
        .await
        .map_err(failed)?;
        let now = Now::read();
        let is_in_force = |row: &&SqliteRow| {
            // Compared as times: another program may have written them in another notation.
            let end: Result<Option<&str>, StoreError> = get(row, "expires_at");
            end.is_ok_and(|end| end.is_none_or(|end| clock::parse(end).is_some_and(|end| now.is_before(end))))
        };
        found.iter().filter(is_in_force).map(record).collect()
    }

    async fn insert_token(&self, token: &NewToken) -> Result<(), StoreError> {
        sqlx::query(
            "insert into account_token (token_id, cdcs_id, token_hash, key_id, name, scopes, expires_at, created_at)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )
        .bind(&token.token_id)
        .bind(token.account.0)
        .bind(&token.hash)
        .bind(token.key_id.as_deref())
        .bind(token.name.as_deref())
        .bind(token.scopes.to_stored())
        .bind(token.expires_at.map(timestamp))
        .bind(Now::read().text())
        .execute(&self.writer)
        .await
        .map(drop)
        .map_err(|error| match kind(&error) {
            Some(ErrorKind::ForeignKeyViolation) => no_account(token.account),
            Some(ErrorKind::UniqueViolation) => {
                StoreError::Invalid(format!("token {} exists already", token.token_id))
            }
            _ => failed(error),
        })
    }

    /// Return the tokens, oldest first.
    async fn tokens(&self) -> Result<Vec<TokenRow>, StoreError> {
        let found = sqlx::query(
            "select token_id, cdcs_id, name, scopes, key_id, created_at, expires_at, last_used_at, revoked_at
             from account_token order by created_at, token_id",
        )
        .fetch_all(&self.reader)
        .await
        .map_err(failed)?;
        Ok(readable(&found, |row| {
            Ok(TokenRow {
                token_id: get(row, "token_id")?,
                cdcs_id: AccountId(get(row, "cdcs_id")?),
                name: get(row, "name")?,
                scopes: TokenScopes::stored(get(row, "scopes")?),
                key_id: get(row, "key_id")?,
                created_at: time(row, "created_at")?,
                expires_at: time_or_null(row, "expires_at")?,
                last_used_at: time_or_null(row, "last_used_at")?,
                revoked_at: time_or_null(row, "revoked_at")?,
            })
        }))
    }

    async fn revoke_token(&self, token_id: &str) -> Result<bool, StoreError> {
        sqlx::query("update account_token set revoked_at = ?2 where token_id = ?1 and revoked_at is null")
            .bind(token_id)
            .bind(Now::read().text())
            .execute(&self.writer)
            .await
            .map(|done| done.rows_affected() == 1)
            .map_err(failed)
    }

    async fn note_token_uses(&self, ids: &[String]) -> Result<(), StoreError> {
        let now = Now::read();
        // Looked for first: a statement that may write waits for its turn.
        let due: Vec<String> = sqlx::query_scalar(
            "select token_id from account_token where token_id in (select value from json_each(?1))
             and (last_used_at is null or last_used_at < ?2)",
        )
        .bind(texts(ids))
        .bind(now.before(NOTED_FOR))
        .fetch_all(&self.reader)
        .await
        .map_err(failed)?;
        if due.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "update account_token set last_used_at = ?2 where token_id in (select value from json_each(?1))",
        )
        .bind(texts(&due))
        .bind(now.text())
        .execute(&self.writer)
        .await
        .map(drop)
        .map_err(failed)
    }
}

/// Return texts as a JSON array, the form in which a list is bound.
pub fn texts(given: &[String]) -> String {
    serde_json::Value::from_iter(given.iter().map(String::as_str)).to_string()
}

fn record(row: &SqliteRow) -> Result<TokenRecord, StoreError> {
    let networks: Option<&str> = get(row, "networks")?;
    Ok(TokenRecord {
        token_id: get(row, "token_id")?,
        account: AccountId(get(row, "cdcs_id")?),
        account_active: get(row, "active")?,
        hash: get(row, "token_hash")?,
        key_id: get(row, "key_id")?,
        scopes: TokenScopes::stored(get(row, "scopes")?),
        // An entry that is no network opens nothing.
        networks: networks.map(|networks| networks.split(',').filter_map(network).collect()),
    })
}

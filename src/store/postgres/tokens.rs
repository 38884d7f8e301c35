//! API tokens.

use async_trait::async_trait;
use sqlx::postgres::PgRow;

use super::PostgresStore;
use super::directory::violated;
use super::error::failed;
use super::rows;
use crate::domain::{AccountId, TokenScopes, network};
use crate::store::{NewToken, StoreError, TokenRecord, TokenRow, TokenStore};

#[async_trait]
impl TokenStore for PostgresStore {
    async fn tokens_by_id(&self, ids: &[String]) -> Result<Vec<TokenRecord>, StoreError> {
        let found = sqlx::query(
            "select t.token_id, t.cdcs_id, t.token_hash, t.key_id, t.scopes, a.cdcs_active,
                    (select array_agg(n.network) from account_network n where n.cdcs_id = t.cdcs_id) as networks
             from account_token t join account a on a.cdcs_id = t.cdcs_id
             where t.token_id = any ($1) and t.revoked_at is null and (t.expires_at is null or t.expires_at > now())",
        )
        .bind(ids)
        .fetch_all(&self.ingest)
        .await
        .map_err(failed)?;
        found.iter().map(record).collect()
    }

    async fn insert_token(&self, token: &NewToken) -> Result<(), StoreError> {
        sqlx::query(
            "insert into account_token (token_id, cdcs_id, token_hash, key_id, name, scopes, expires_at)
             values ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(&token.token_id)
        .bind(token.account.0)
        .bind(&token.hash)
        .bind(token.key_id.as_deref())
        .bind(token.name.as_deref())
        .bind(token.scopes.to_stored())
        .bind(token.expires_at)
        .execute(&self.background)
        .await
        .map(drop)
        .map_err(|error| {
            let NewToken { account, token_id, .. } = token;
            violated(
                error,
                &format!("there is no account {account}"),
                &format!("token {token_id} exists already"),
            )
        })
    }

    async fn tokens(&self) -> Result<Vec<TokenRow>, StoreError> {
        let found = sqlx::query(
            "select token_id, cdcs_id, name, scopes, key_id, created_at, expires_at, last_used_at, revoked_at
             from account_token order by cdcs_id, created_at, token_id",
        )
        .fetch_all(&self.background)
        .await
        .map_err(failed)?;
        found.iter().map(listed).collect()
    }

    async fn revoke_token(&self, token_id: &str) -> Result<bool, StoreError> {
        sqlx::query("update account_token set revoked_at = now() where token_id = $1 and revoked_at is null")
            .bind(token_id)
            .execute(&self.background)
            .await
            .map(|done| done.rows_affected() > 0)
            .map_err(failed)
    }

    async fn note_token_uses(&self, ids: &[String]) -> Result<(), StoreError> {
        // A locked row is being noted by another process.
        sqlx::query(
            "update account_token set last_used_at = now()
             where token_id in (
                 select t.token_id from account_token t
                 where t.token_id = any ($1)
                   and (t.last_used_at is null or t.last_used_at < now() - interval '1 minute')
                 for update skip locked)",
        )
        .bind(ids)
        .execute(&self.background)
        .await
        .map(drop)
        .map_err(failed)
    }
}

fn record(row: &PgRow) -> Result<TokenRecord, StoreError> {
    let networks: Option<Vec<String>> = rows::get(row, "networks")?;
    Ok(TokenRecord {
        token_id: rows::get(row, "token_id")?,
        account: AccountId(rows::get(row, "cdcs_id")?),
        account_active: rows::get(row, "cdcs_active")?,
        hash: rows::get(row, "token_hash")?,
        key_id: rows::get(row, "key_id")?,
        scopes: TokenScopes::stored(rows::get(row, "scopes")?),
        // An entry that is no network opens nothing.
        networks: networks.map(|networks| networks.iter().filter_map(|text| network(text)).collect()),
    })
}

fn listed(row: &PgRow) -> Result<TokenRow, StoreError> {
    Ok(TokenRow {
        token_id: rows::get(row, "token_id")?,
        cdcs_id: AccountId(rows::get(row, "cdcs_id")?),
        name: rows::get(row, "name")?,
        scopes: TokenScopes::stored(rows::get(row, "scopes")?),
        key_id: rows::get(row, "key_id")?,
        created_at: rows::get(row, "created_at")?,
        expires_at: rows::get(row, "expires_at")?,
        last_used_at: rows::get(row, "last_used_at")?,
        revoked_at: rows::get(row, "revoked_at")?,
    })
}

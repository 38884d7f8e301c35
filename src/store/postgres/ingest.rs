//! What ingest looks up: tokens, campaigns, the backlog.

use sqlx::Row;

use super::error::failed;
use super::pool::Pool;
use super::rows;
use crate::message::{AccountId, CampaignState};
use crate::store::{StoreError, TokenRecord};

pub async fn token(pool: &Pool, token_id: &str) -> Result<Option<TokenRecord>, StoreError> {
    let found = sqlx::query(
        "select t.cdcs_id, t.token_hash, a.cdcs_active from account_token t join account a using (cdcs_id)
         where t.token_id = $1 and t.revoked_at is null",
    )
    .bind(token_id)
    .fetch_optional(pool)
    .await
    .map_err(failed)?;
    found
        .map(|row| {
            Ok(TokenRecord {
                account: AccountId(rows::get(&row, "cdcs_id")?),
                account_active: rows::get(&row, "cdcs_active")?,
                hash: rows::get(&row, "token_hash")?,
            })
        })
        .transpose()
}

pub async fn campaign_state(
    pool: &Pool,
    account: AccountId,
    cp_id: &str,
) -> Result<CampaignState, StoreError> {
    let found = sqlx::query("select state from campaign where cdcs_id = $1 and cp_id = $2")
        .bind(account.0)
        .bind(cp_id)
        .fetch_optional(pool)
        .await
        .map_err(failed)?;
    found.map_or(Ok(CampaignState::Running), |row| rows::word(&row, "state"))
}

/// Counted over the two partial indexes, so that the cost is bounded by what waits.
pub async fn backlog(pool: &Pool, at_most: i64) -> Result<i64, StoreError> {
    let row = sqlx::query(
        "select count(*) as waiting from (
             select from cdls where status in ('PENDING', 'RETRY') and next_at is null
             union all
             select from cdls where status in ('PENDING', 'RETRY') and next_at is not null
             limit $1) as w",
    )
    .bind(at_most)
    .fetch_one(pool)
    .await
    .map_err(failed)?;
    row.try_get("waiting").map_err(failed)
}

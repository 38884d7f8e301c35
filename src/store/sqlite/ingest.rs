//! The look-ups before a message is accepted.

use sqlx::{Row, SqlitePool};

use super::error::failed;
use super::row::word;
use crate::message::{AccountId, CampaignState};
use crate::store::{StoreError, TokenRecord};

/// The token with this identifier, unless it is revoked.
pub async fn token(reader: &SqlitePool, token_id: &str) -> Result<Option<TokenRecord>, StoreError> {
    let found = sqlx::query(
        "select t.cdcs_id, t.token_hash, coalesce(a.cdcs_active, 0) <> 0 as active
         from account_token t left join account a on a.cdcs_id = t.cdcs_id
         where t.token_id = ?1 and t.revoked_at is null",
    )
    .bind(token_id)
    .fetch_optional(reader)
    .await
    .map_err(failed)?;
    found
        .map(|row| {
            Ok(TokenRecord {
                account: AccountId(row.try_get("cdcs_id").map_err(failed)?),
                account_active: row.try_get("active").map_err(failed)?,
                hash: row.try_get("token_hash").map_err(failed)?,
            })
        })
        .transpose()
}

/// A campaign without a row is running.
pub async fn campaign_state(
    reader: &SqlitePool,
    account: AccountId,
    cp_id: &str,
) -> Result<CampaignState, StoreError> {
    sqlx::query("select state from campaign where cdcs_id = ?1 and cp_id = ?2")
        .bind(account.0)
        .bind(cp_id)
        .fetch_optional(reader)
        .await
        .map_err(failed)?
        .map_or(Ok(CampaignState::Running), |row| word(&row, "state"))
}

/// Rows that may be claimed now, then those that wait for their time. Each part is one partial index, whose condition
/// has to stand here word for word.
pub(super) const BACKLOG: &str = "
select count(*) from (
    select 1 from cdls where status in ('PENDING', 'RETRY') and next_at is null
    union all
    select 1 from cdls
    where status in ('PENDING', 'RETRY', 'SENDING') and (next_at is not null or call_deadline is not null)
      and status <> 'SENDING'
    limit ?1)";

/// How many rows wait, counted up to `at_most`.
pub async fn backlog(reader: &SqlitePool, at_most: i64) -> Result<i64, StoreError> {
    sqlx::query_scalar(BACKLOG).bind(at_most.max(0)).fetch_one(reader).await.map_err(failed)
}

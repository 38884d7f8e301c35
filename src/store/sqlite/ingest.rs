//! What ingest needs: the group commit of new rows, tokens, campaigns, the backlog.

use sqlx::{Sqlite, SqlitePool, Transaction};

use super::rows::now;
use super::{after, failed, rows};
use crate::message::{AccountId, CampaignState, MessageId, Submission, timestamp};
use crate::store::{StoreError, TokenRecord};

const INSERT: &str = concat!(
    "insert into cdls (cdcs_id, v8l_id, class, dest, mtype, mdata, mcaption, msg_id, cp_id, priority, next_at, expires_at, waiter)
     values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, case when ?11 > ",
    now!(),
    " then ?11 end, strftime('%Y-%m-%dT%H:%M:%fZ', max(coalesce(?11, ''), ",
    now!(),
    "), ?12), ?13) returning cdls_id"
);

pub async fn insert(
    mut transaction: Transaction<'static, Sqlite>,
    submissions: &[Submission],
) -> Result<Vec<MessageId>, StoreError> {
    let mut ids = Vec::with_capacity(submissions.len());
    for submission in submissions {
        let id: i64 = sqlx::query_scalar(INSERT)
            .bind(submission.account.0)
            .bind(submission.line.0)
            .bind(submission.class.as_str())
            .bind(&submission.dest)
            .bind(submission.kind.as_str())
            .bind(&submission.mdata)
            .bind(submission.mcaption.as_deref())
            .bind(submission.msg_id.as_deref())
            .bind(submission.cp_id.as_deref())
            .bind(submission.lane.as_str())
            .bind(submission.send_at.map(timestamp))
            .bind(after(submission.valid_for))
            .bind(submission.waiter.as_deref())
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed)?;
        ids.push(MessageId(id));
    }
    transaction.commit().await.map_err(failed)?;
    Ok(ids)
}

pub async fn token(pool: &SqlitePool, token_id: &str) -> Result<Option<TokenRecord>, StoreError> {
    let found = sqlx::query(
        "select t.cdcs_id, t.token_hash, a.cdcs_active from account_token t join account a using (cdcs_id)
         where t.token_id = ?1 and t.revoked_at is null",
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
    pool: &SqlitePool,
    account: AccountId,
    cp_id: &str,
) -> Result<CampaignState, StoreError> {
    let found = sqlx::query("select state from campaign where cdcs_id = ?1 and cp_id = ?2")
        .bind(account.0)
        .bind(cp_id)
        .fetch_optional(pool)
        .await
        .map_err(failed)?;
    found.map_or(Ok(CampaignState::Running), |row| rows::word(&row, "state"))
}

/// Counted over the two partial indexes, so that the cost is bounded by what waits.
pub async fn backlog(pool: &SqlitePool, at_most: i64) -> Result<i64, StoreError> {
    sqlx::query_scalar(
        "select count(*) from (
             select 1 from cdls where status in ('PENDING', 'RETRY') and next_at is null
             union all
             select 1 from cdls where status in ('PENDING', 'RETRY') and next_at is not null
             limit ?1)",
    )
    .bind(at_most)
    .fetch_one(pool)
    .await
    .map_err(failed)
}

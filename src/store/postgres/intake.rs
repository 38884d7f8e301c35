//! The way into the log, apart from the commit itself.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Connection, PgConnection};

use super::error::failed;
use super::parameters::milliseconds;
use super::pool::Pool;
use super::{PostgresStore, accept, rows};
use crate::domain::{AccountId, RowId};
use crate::store::{Accepted, IntakeStore, LONGEST_HTTPDUP, NewMessage, RememberedKey, StoreError};

#[async_trait]
impl IntakeStore for PostgresStore {
    async fn accept(&self, messages: &[NewMessage]) -> Result<Accepted, StoreError> {
        accept::accept(&self.ingest, messages).await
    }

    async fn remembered_key(
        &self,
        account: AccountId,
        key: &str,
    ) -> Result<Option<RememberedKey>, StoreError> {
        remembered_key(&self.ingest, account, key).await
    }

    async fn open_batch(
        &self,
        account: AccountId,
        batch_id: &str,
        kept: Duration,
    ) -> Result<i64, StoreError> {
        open_batch(&self.ingest, account, batch_id, kept).await
    }

    async fn batch_items(&self, batch: i64, first: i64, last: i64) -> Result<Vec<(i64, RowId)>, StoreError> {
        batch_items(&self.ingest, batch, first, last).await
    }

    async fn forget_expired(&self, limit: u32) -> Result<u64, StoreError> {
        forget_expired(&self.background, limit).await
    }

    async fn backlog(&self, at_most: i64) -> Result<i64, StoreError> {
        sqlx::query_scalar(BACKLOG).bind(at_most).fetch_one(&self.scans).await.map_err(failed)
    }

    async fn account_backlog(&self, account: AccountId, at_most: i64) -> Result<i64, StoreError> {
        sqlx::query_scalar(ACCOUNT_BACKLOG)
            .bind(account.0)
            .bind(at_most)
            .fetch_one(&self.enquiries)
            .await
            .map_err(failed)
    }
}

/// Each row of `work` holds at least one message.
const BACKLOG: &str = "
    select least(coalesce(sum(w.rows), 0), $1)::bigint
    from (select cardinality(ids) as rows from work limit $1) as w";

/// The same of the lines of account $1, each found by its own index of `work`.
const ACCOUNT_BACKLOG: &str = "
    select least(coalesce(sum(w.rows), 0), $2)::bigint
    from (select q.rows from cd_v8_line l
          cross join lateral (
              select cardinality(w.ids) as rows from work w
              where w.partition_no = (l.v8l_id % 64)::smallint and w.v8l_id = l.v8l_id limit $2) as q
          where l.cdcs_id = $1 limit $2) as w";

async fn remembered_key(
    pool: &Pool,
    account: AccountId,
    key: &str,
) -> Result<Option<RememberedKey>, StoreError> {
    let found = sqlx::query(
        "select request_hash, cdls_id from idempotency_key where cdcs_id = $1 and key = $2 and expires_at > now()",
    )
    .bind(account.0)
    .bind(key)
    .fetch_optional(pool)
    .await
    .map_err(failed)?;
    found
        .map(|row| {
            let id = RowId(rows::get(&row, "cdls_id")?);
            Ok(RememberedKey { request_hash: rows::get(&row, "request_hash")?, id })
        })
        .transpose()
}

async fn open_batch(
    pool: &Pool,
    account: AccountId,
    batch_id: &str,
    kept: Duration,
) -> Result<i64, StoreError> {
    let mut lent = pool.lend().await.map_err(failed)?;
    let number = pool.wait_for(opened(&mut lent, account, batch_id, kept)).await?;
    lent.give_back();
    Ok(number)
}

async fn opened(
    connection: &mut PgConnection,
    account: AccountId,
    batch_id: &str,
    kept: Duration,
) -> Result<i64, StoreError> {
    let mut transaction = connection.begin().await.map_err(failed)?;
    sqlx::query(
        "update batch set batch_id = null where cdcs_id = $1 and batch_id = $2 and expires_at <= now()",
    )
    .bind(account.0)
    .bind(batch_id)
    .execute(&mut *transaction)
    .await
    .map_err(failed)?;
    let number = sqlx::query_scalar(
        "insert into batch as b (cdcs_id, batch_id, expires_at)
         values ($1, $2, now() + $3 * interval '1 millisecond')
         on conflict (cdcs_id, batch_id) do update set expires_at = greatest(b.expires_at, excluded.expires_at)
         returning batch_no",
    )
    .bind(account.0)
    .bind(batch_id)
    .bind(milliseconds(kept))
    .fetch_one(&mut *transaction)
    .await
    .map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    Ok(number)
}

async fn batch_items(
    pool: &Pool,
    batch: i64,
    first: i64,
    last: i64,
) -> Result<Vec<(i64, RowId)>, StoreError> {
    let found: Vec<(i64, i64)> = sqlx::query_as(
        "select line, cdls_id from batch_line where batch_no = $1 and line between $2 and $3 order by line",
    )
    .bind(batch)
    .bind(first)
    .bind(last)
    .fetch_all(pool)
    .await
    .map_err(failed)?;
    Ok(found.into_iter().map(|(line, id)| (line, RowId(id))).collect())
}

async fn forget_expired(pool: &Pool, limit: u32) -> Result<u64, StoreError> {
    let keys = sqlx::query(
        "delete from idempotency_key where ctid = any(array(
             select ctid from idempotency_key where expires_at <= now()
             order by expires_at limit $1 for update skip locked))",
    )
    .bind(i64::from(limit))
    .execute(pool)
    .await
    .map_err(failed)?;
    let windows = sqlx::query(
        "delete from http_duplicate where ctid = any(array(
             select ctid from http_duplicate where accepted_at <= now() - $2 * interval '1 millisecond'
             order by accepted_at limit $1 for update skip locked))",
    )
    .bind(i64::from(limit))
    .bind(milliseconds(LONGEST_HTTPDUP))
    .execute(pool)
    .await
    .map_err(failed)?;
    let items = forget_batch(pool, limit).await?;
    Ok(keys.rows_affected().max(windows.rows_affected()).max(items))
}

/// Forget items of the batch that expired first, and then the batch. The result counts as full until the
/// batch is gone.
async fn forget_batch(pool: &Pool, limit: u32) -> Result<u64, StoreError> {
    let expired: Option<i64> = sqlx::query_scalar(
        "update batch set batch_id = null where batch_no =
             (select batch_no from batch where expires_at <= now() order by expires_at limit 1)
             and expires_at <= now()
         returning batch_no",
    )
    .fetch_optional(pool)
    .await
    .map_err(failed)?;
    let Some(expired) = expired else { return Ok(0) };
    let items = sqlx::query(
        "delete from batch_line where ctid = any(array(
             select ctid from batch_line where batch_no = $1 limit $2))",
    )
    .bind(expired)
    .bind(i64::from(limit))
    .execute(pool)
    .await
    .map_err(failed)?
    .rows_affected();
    if items < u64::from(limit) {
        sqlx::query("delete from batch where batch_no = $1")
            .bind(expired)
            .execute(pool)
            .await
            .map_err(failed)?;
    }
    Ok(u64::from(limit))
}

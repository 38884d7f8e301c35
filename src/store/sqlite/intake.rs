//! The way into the log: earlier messages, batches, the backlog. The commit itself is in `accept`.

use std::time::Duration;

use async_trait::async_trait;

use super::clock::Now;
use super::error::{begin, commit, failed};
use super::row::get;
use super::{SqliteStore, accept, idempotency};
use crate::domain::{AccountId, RowId};
use crate::store::{Accepted, IntakeStore, NewMessage, RememberedKey, StoreError};

/// Whole rows of `work`, up to ?1 messages; each holds at least one.
pub(super) const BACKLOG: &str = "
select min(?1, coalesce(sum(w.rows), 0))
from (select json_array_length(ids) as rows from work limit ?1) w";

/// The same of the lines of account ?1, up to ?2 messages.
pub(super) const ACCOUNT_BACKLOG: &str = "
select min(?2, coalesce(sum(q.rows), 0))
from (select json_array_length(w.ids) as rows from cd_v8_line l cross join work w indexed by work_flow
      where l.cdcs_id = ?1 and w.partition_no = l.v8l_id % 64 and w.v8l_id = l.v8l_id limit ?2) q";

#[async_trait]
impl IntakeStore for SqliteStore {
    async fn accept(&self, messages: &[NewMessage]) -> Result<Accepted, StoreError> {
        accept::accept(&self.writer, messages).await
    }

    async fn remembered_key(
        &self,
        account: AccountId,
        key: &str,
    ) -> Result<Option<RememberedKey>, StoreError> {
        let found = sqlx::query(
            "select request_hash, cdls_id from idempotency_key
             where cdcs_id = ?1 and key = ?2 and expires_at > ?3",
        )
        .bind(account.0)
        .bind(key)
        .bind(Now::read().text())
        .fetch_optional(&self.reader)
        .await
        .map_err(failed)?;
        let remembered = |row| {
            let id = RowId(get(&row, "cdls_id")?);
            Ok(RememberedKey { request_hash: get(&row, "request_hash")?, id })
        };
        found.map(remembered).transpose()
    }

    async fn open_batch(
        &self,
        account: AccountId,
        batch_id: &str,
        kept: Duration,
    ) -> Result<i64, StoreError> {
        let (mut transaction, now) = begin(&self.writer).await?;
        sqlx::query(
            "update batch set batch_id = null where cdcs_id = ?1 and batch_id = ?2 and expires_at <= ?3",
        )
        .bind(account.0)
        .bind(batch_id)
        .bind(now.text())
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
        let number = sqlx::query_scalar(
            "insert into batch (cdcs_id, batch_id, expires_at) values (?1, ?2, ?3)
             on conflict (cdcs_id, batch_id) do update set expires_at = max(expires_at, excluded.expires_at)
             returning batch_no",
        )
        .bind(account.0)
        .bind(batch_id)
        .bind(now.after(kept))
        .fetch_one(&mut *transaction)
        .await
        .map_err(failed)?;
        commit(transaction).await?;
        Ok(number)
    }

    async fn batch_items(&self, batch: i64, first: i64, last: i64) -> Result<Vec<(i64, RowId)>, StoreError> {
        let found: Vec<(i64, i64)> = sqlx::query_as(
            "select line, cdls_id from batch_line where batch_no = ?1 and line between ?2 and ?3 order by line",
        )
        .bind(batch)
        .bind(first)
        .bind(last)
        .fetch_all(&self.reader)
        .await
        .map_err(failed)?;
        Ok(found.into_iter().map(|(line, id)| (line, RowId(id))).collect())
    }

    async fn forget_expired(&self, limit: u32) -> Result<u64, StoreError> {
        idempotency::forget_expired(&self.reader, &self.writer, limit).await
    }

    async fn backlog(&self, at_most: i64) -> Result<i64, StoreError> {
        sqlx::query_scalar(BACKLOG).bind(at_most.max(0)).fetch_one(&self.reader).await.map_err(failed)
    }

    async fn account_backlog(&self, account: AccountId, at_most: i64) -> Result<i64, StoreError> {
        sqlx::query_scalar(ACCOUNT_BACKLOG)
            .bind(account.0)
            .bind(at_most.max(0))
            .fetch_one(&self.reader)
            .await
            .map_err(failed)
    }
}

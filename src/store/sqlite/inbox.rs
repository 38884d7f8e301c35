//! The inbox of Meta's webhooks.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;

use super::SqliteStore;
use super::clock::Now;
use super::error::{begin, commit, failed};
use super::row::{get, list, time, time_or_null};
use crate::store::{InboxClaim, InboxState, InboxStore, InboxWebhook, NewWebhook, StoreError};

/// At most ?2 rows that are free at ?1, and rows behind ?3 bytes are left.
const FREE: &str = "
    select inbox_id from (
        select inbox_id, sum(bytes) over (order by inbox_id) - bytes as before from (
            select inbox_id, length(body) as bytes from webhook_inbox
            where aside_at is null and (claimed_until is null or claimed_until <= ?1) order by inbox_id limit ?2))
    where before < ?3";

#[async_trait]
impl InboxStore for SqliteStore {
    async fn keep_webhooks(&self, webhooks: &[NewWebhook]) -> Result<(), StoreError> {
        let (mut transaction, now) = begin(&self.writer).await?;
        for webhook in webhooks {
            sqlx::query("insert into webhook_inbox (body, meta_app_id, received_at) values (?1, ?2, ?3)")
                .bind(&*webhook.body)
                .bind(webhook.app.as_deref())
                .bind(now.text())
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
        }
        commit(transaction).await
    }

    async fn claim_webhooks(&self, claim: InboxClaim) -> Result<Vec<InboxWebhook>, StoreError> {
        // An idle process writes nothing.
        let free = sqlx::query_scalar::<_, i64>(FREE)
            .bind(Now::read().text())
            .bind(claim.rows)
            .bind(claim.bytes)
            .fetch_optional(&self.reader)
            .await
            .map_err(failed)?;
        if free.is_none() {
            return Ok(Vec::new());
        }
        let (mut transaction, now) = begin(&self.writer).await?;
        let ids: Vec<i64> = sqlx::query_scalar(FREE)
            .bind(now.text())
            .bind(claim.rows)
            .bind(claim.bytes)
            .fetch_all(&mut *transaction)
            .await
            .map_err(failed)?;
        let ids = list(ids);
        sqlx::query(
            "update webhook_inbox set claimed_until = ?2, tries = tries + 1
             where inbox_id in (select value from json_each(?1))",
        )
        .bind(&ids)
        .bind(now.after(claim.length))
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
        let found = sqlx::query(
            "select inbox_id, body, meta_app_id, received_at, tries from webhook_inbox
             where inbox_id in (select value from json_each(?1)) order by inbox_id",
        )
        .bind(&ids)
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed)?;
        let claimed = found.iter().map(claimed).collect::<Result<Vec<InboxWebhook>, StoreError>>()?;
        commit(transaction).await?;
        Ok(claimed)
    }

    async fn delete_webhooks(&self, ids: &[i64]) -> Result<(), StoreError> {
        sqlx::query("delete from webhook_inbox where inbox_id in (select value from json_each(?1))")
            .bind(list(ids.iter().copied()))
            .execute(&self.writer)
            .await
            .map(drop)
            .map_err(failed)
    }

    async fn release_webhooks(&self, ids: &[i64]) -> Result<(), StoreError> {
        sqlx::query(
            "update webhook_inbox set claimed_until = null, tries = max(tries - 1, 0)
             where inbox_id in (select value from json_each(?1))",
        )
        .bind(list(ids.iter().copied()))
        .execute(&self.writer)
        .await
        .map(drop)
        .map_err(failed)
    }

    async fn set_webhook_aside(&self, id: i64, reason: &str) -> Result<(), StoreError> {
        sqlx::query(
            "update webhook_inbox set claimed_until = null, aside_at = ?2, aside_reason = ?3
             where inbox_id = ?1",
        )
        .bind(id)
        .bind(Now::read().text())
        .bind(reason)
        .execute(&self.writer)
        .await
        .map(drop)
        .map_err(failed)
    }

    async fn drop_aside_webhooks(&self, longer_ago: Duration) -> Result<u64, StoreError> {
        let before = Now::read().before(longer_ago);
        let found: i64 = sqlx::query_scalar("select count(*) from webhook_inbox where aside_at < ?1")
            .bind(&before)
            .fetch_one(&self.reader)
            .await
            .map_err(failed)?;
        if found == 0 {
            return Ok(0);
        }
        sqlx::query("delete from webhook_inbox where aside_at < ?1")
            .bind(&before)
            .execute(&self.writer)
            .await
            .map(|done| done.rows_affected())
            .map_err(failed)
    }

    async fn inbox_state(&self) -> Result<InboxState, StoreError> {
        let row = sqlx::query(
            "select count(*) filter (where aside_at is null) as waiting,
                    count(*) filter (where aside_at is not null) as aside,
                    min(received_at) filter (where aside_at is null) as oldest_at
             from webhook_inbox",
        )
        .fetch_one(&self.reader)
        .await
        .map_err(failed)?;
        let oldest = time_or_null(&row, "oldest_at")?;
        let now = Now::read();
        Ok(InboxState {
            waiting: get(&row, "waiting")?,
            // The clock may have been set back.
            oldest: oldest.map(|at| (now.time() - at).try_into().unwrap_or_default()),
            aside: get(&row, "aside")?,
        })
    }
}

fn claimed(row: &SqliteRow) -> Result<InboxWebhook, StoreError> {
    Ok(InboxWebhook {
        id: get(row, "inbox_id")?,
        body: get(row, "body")?,
        app: get(row, "meta_app_id")?,
        received_at: time(row, "received_at")?,
        tries: get(row, "tries")?,
    })
}

//! The inbox of Meta's webhooks.

use std::time::Duration;

use async_trait::async_trait;

use super::PostgresStore;
use super::error::failed;
use super::parameters::{length, milliseconds};
use super::rows;
use crate::store::{InboxClaim, InboxState, InboxStore, InboxWebhook, NewWebhook, StoreError};

/// At most $1 rows, and rows behind $2 bytes are left, for $3 milliseconds. Rows that another process claims at this moment
/// are passed over.
const CLAIM: &str = "
    with free as materialized (
        select inbox_id, octet_length(body) as bytes from webhook_inbox
        where aside_at is null and (claimed_until is null or claimed_until <= now())
        order by inbox_id limit $1 for update skip locked),
    chosen as (
        select inbox_id from (
            select inbox_id, sum(bytes) over (order by inbox_id) - bytes as before from free) f
        where before < $2)
    update webhook_inbox w set claimed_until = now() + $3 * interval '1 millisecond', tries = w.tries + 1
    from chosen c where c.inbox_id = w.inbox_id
    returning w.inbox_id, w.body, w.meta_app_id, w.received_at, w.tries";

#[async_trait]
impl InboxStore for PostgresStore {
    async fn keep_webhooks(&self, webhooks: &[NewWebhook]) -> Result<(), StoreError> {
        let bodies: Vec<&[u8]> = webhooks.iter().map(|webhook| &*webhook.body).collect();
        let apps: Vec<Option<&str>> = webhooks.iter().map(|webhook| webhook.app.as_deref()).collect();
        sqlx::query(
            "insert into webhook_inbox (body, meta_app_id) select * from unnest($1::bytea[], $2::text[])",
        )
        .bind(bodies)
        .bind(apps)
        .execute(&self.ingest)
        .await
        .map(drop)
        .map_err(failed)
    }

    async fn claim_webhooks(&self, claim: InboxClaim) -> Result<Vec<InboxWebhook>, StoreError> {
        let found = sqlx::query(CLAIM)
            .bind(i64::from(claim.rows))
            .bind(i64::from(claim.bytes))
            .bind(milliseconds(claim.length))
            .fetch_all(&self.background)
            .await
            .map_err(failed)?;
        let mut claimed = found
            .iter()
            .map(|row| {
                Ok(InboxWebhook {
                    id: rows::get(row, "inbox_id")?,
                    body: rows::get(row, "body")?,
                    app: rows::get(row, "meta_app_id")?,
                    received_at: rows::get(row, "received_at")?,
                    tries: rows::get(row, "tries")?,
                })
            })
            .collect::<Result<Vec<InboxWebhook>, StoreError>>()?;
        claimed.sort_by_key(|webhook| webhook.id);
        Ok(claimed)
    }

    async fn delete_webhooks(&self, ids: &[i64]) -> Result<(), StoreError> {
        sqlx::query("delete from webhook_inbox where inbox_id = any ($1::bigint[])")
            .bind(ids)
            .execute(&self.background)
            .await
            .map(drop)
            .map_err(failed)
    }

    async fn release_webhooks(&self, ids: &[i64]) -> Result<(), StoreError> {
        sqlx::query(
            "update webhook_inbox set claimed_until = null, tries = greatest(tries - 1, 0)
             where inbox_id = any ($1::bigint[])",
        )
        .bind(ids)
        .execute(&self.background)
        .await
        .map(drop)
        .map_err(failed)
    }

    async fn set_webhook_aside(&self, id: i64, reason: &str) -> Result<(), StoreError> {
        sqlx::query(
            "update webhook_inbox set claimed_until = null, aside_at = now(), aside_reason = $2
             where inbox_id = $1",
        )
        .bind(id)
        .bind(reason)
        .execute(&self.background)
        .await
        .map(drop)
        .map_err(failed)
    }

    async fn drop_aside_webhooks(&self, longer_ago: Duration) -> Result<u64, StoreError> {
        sqlx::query("delete from webhook_inbox where aside_at < now() - $1 * interval '1 millisecond'")
            .bind(milliseconds(longer_ago))
            .execute(&self.background)
            .await
            .map(|done| done.rows_affected())
            .map_err(failed)
    }

    async fn inbox_state(&self) -> Result<InboxState, StoreError> {
        let row = sqlx::query(
            "select count(*) filter (where aside_at is null) as waiting,
                    count(*) filter (where aside_at is not null) as aside,
                    (extract(epoch from now() - min(received_at) filter (where aside_at is null)) * 1000)::bigint
                        as oldest_ms
             from webhook_inbox",
        )
        .fetch_one(&self.background)
        .await
        .map_err(failed)?;
        Ok(InboxState {
            waiting: rows::get(&row, "waiting")?,
            oldest: rows::get::<Option<i64>>(&row, "oldest_ms")?.map(length),
            aside: rows::get(&row, "aside")?,
        })
    }
}

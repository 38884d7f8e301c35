//! Old rows of the log: deleted, some at a time. Never a row that has not ended.

use std::time::Duration;

use sqlx::SqlitePool;

use super::clock::Now;
use super::error::{begin, commit, failed};
use crate::store::StoreError;

const AT_ONCE: i64 = 1_000;

/// The first row that is not older than ?1. Ids mostly grow with time.
const FIRST_KEPT: &str = "select cdls_id from cdls where created_at >= ?1 order by cdls_id limit 1";

const DELETE: &str = "
    delete from cdls where cdls_id in (
        select cdls_id from cdls where cdls_id < ?1 and status in ('OK', 'ERROR', 'CANCELLED')
        order by cdls_id limit ?2)";

/// Delete rows older than `keep`; return their number. Their place in the file is used again.
pub async fn drop_old(reader: &SqlitePool, writer: &SqlitePool, keep: Duration) -> Result<u64, StoreError> {
    let first_kept: Option<i64> = sqlx::query_scalar(FIRST_KEPT)
        .bind(Now::read().before(keep))
        .fetch_optional(reader)
        .await
        .map_err(failed)?;
    // The newest row stays, so that its id is not given out again.
    let first_kept = match first_kept {
        Some(id) => id,
        None => sqlx::query_scalar("select coalesce(max(cdls_id), 0) from cdls")
            .fetch_one(reader)
            .await
            .map_err(failed)?,
    };
    let mut count = 0;
    loop {
        let (mut transaction, _) = begin(writer).await?;
        let deleted = sqlx::query(DELETE)
            .bind(first_kept)
            .bind(AT_ONCE)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?
            .rows_affected();
        commit(transaction).await?;
        count += deleted;
        if deleted < AT_ONCE as u64 {
            return Ok(count);
        }
    }
}

//! Waiting rows whose time has passed: looked for along the index `cdls_ready`, and ended.

use serde_json::{Value, json};
use sqlx::{Row, SqlitePool};

use super::clock::Now;
use super::error::{begin, commit, failed};
use super::row::list;
use crate::message::{ErrorKind, Medium, MessageId};
use crate::store::{Flow, StoreError, Walked};

/// Flows ?1 (arrays: line, lane, media, campaign, the id before the first), at most ?2 rows of each, now ?3.
pub(super) const WALK: &str = "
select (
    select json_array(count(*), coalesce(max(r.cdls_id), 0),
                      json(json_group_array(r.cdls_id) filter (where r.expires_at <= ?3)))
    from (
        select n.cdls_id, n.expires_at from cdls n indexed by cdls_ready
        where n.v8l_id = j.value->>0 and n.priority = j.value->>1 and n.media = j.value->>2
          and n.campaign = j.value->>3 and n.cdls_id > j.value->>4
          and n.status in ('PENDING', 'RETRY') and n.next_at is null
        order by n.cdls_id limit ?2) r) as walked
from json_each(?1) j";

pub async fn walk(
    reader: &SqlitePool,
    flows: &[(Flow, MessageId)],
    limit: u32,
) -> Result<Vec<Walked>, StoreError> {
    let reads = flows.iter().map(|(flow, after)| {
        json!([flow.line, flow.lane, i32::from(flow.medium == Medium::Media), flow.campaign, after])
    });
    let found = sqlx::query(WALK)
        .bind(Value::from_iter(reads).to_string())
        .bind(limit)
        .bind(Now::read().text())
        .fetch_all(reader)
        .await
        .map_err(failed)?;
    found
        .iter()
        .map(|row| {
            let walked: &str = row.try_get("walked").map_err(failed)?;
            let (rows, last, expired) = serde_json::from_str(walked)
                .map_err(|error| StoreError::Schema(format!("a walk that cannot be read: {error}")))?;
            Ok(Walked { rows, last, expired })
        })
        .collect()
}

/// Ends those of the rows that still wait and have expired; their ids and waiters, in id order.
pub async fn expire(
    writer: &SqlitePool,
    ids: &[MessageId],
) -> Result<Vec<(MessageId, Option<String>)>, StoreError> {
    let (mut transaction, now) = begin(writer).await?;
    let mut ended: Vec<(i64, Option<String>)> = sqlx::query_as(
        "update cdls set status = 'ERROR', error_kind = ?3, done_at = ?2
         where cdls_id in (select value from json_each(?1)) and status in ('PENDING', 'RETRY') and next_at is null
           and expires_at <= ?2
         returning cdls_id, waiter",
    )
    .bind(list(ids.iter().map(|id| id.0)))
    .bind(now.text())
    .bind(ErrorKind::Expired.as_str())
    .fetch_all(&mut *transaction)
    .await
    .map_err(failed)?;
    commit(transaction).await?;
    ended.sort();
    Ok(ended.into_iter().map(|(id, waiter)| (MessageId(id), waiter)).collect())
}

//! What dispatch reads: ready rows by announcement and by flow, rows that are due, and who holds a recipient.
//!
//! Statements run in this process, so a loop of small ones takes the place of PostgreSQL's arrays. The predicates of
//! the partial indexes are repeated word for word: SQLite uses an index only then.

use std::time::Duration;

use sqlx::{Sqlite, SqlitePool, Transaction};

use super::failed;
use super::rows::{self, now, ready_columns};
use crate::message::{Lane, LineId, Medium, MessageId, Partition};
use crate::store::{ClaimedRow, Flow, FlowRead, HeldRecipient, RangeRead, ReadyRow, StoreError};

/// Rows of paused and cancelled campaigns wait; most rows have no campaign and cost no look-up.
macro_rules! campaign_runs {
    () => {
        "(c.cp_id is null or not exists (select 1 from campaign p where p.cdcs_id = c.cdcs_id and p.cp_id = c.cp_id \
          and p.state <> 'running'))"
    };
}

/// The predicate of the due index.
macro_rules! is_due_later {
    () => {
        "status in ('PENDING', 'RETRY', 'SENDING') and (next_at is not null or call_deadline is not null)"
    };
}

const READ_RANGE: &str = concat!(
    "select ",
    ready_columns!(),
    " from cdls c where c.cdls_id between ?1 and ?2 and c.v8l_id = ?3 and c.priority = ?4
      and c.status in ('PENDING', 'RETRY') and c.next_at is null and ",
    campaign_runs!(),
    " order by c.cdls_id limit ?5"
);

pub async fn read_ranges(pool: &SqlitePool, ranges: &[RangeRead]) -> Result<Vec<ReadyRow>, StoreError> {
    let mut connection = pool.acquire().await.map_err(failed)?;
    let mut ready = Vec::new();
    for range in ranges {
        let found = sqlx::query(READ_RANGE)
            .bind(range.first.0)
            .bind(range.last.0)
            .bind(range.line.0)
            .bind(range.lane.as_str())
            .bind(range.limit)
            .fetch_all(&mut *connection)
            .await
            .map_err(failed)?;
        for row in &found {
            ready.push(rows::ready(row)?);
        }
    }
    Ok(ready)
}

const READ_FLOW: &str = concat!(
    "select ",
    ready_columns!(),
    " from cdls c where c.v8l_id = ?1 and c.priority = ?2 and c.media = ?3 and c.campaign = ?4 and c.cdls_id > ?5
      and c.status in ('PENDING', 'RETRY') and c.next_at is null and ",
    campaign_runs!(),
    " order by c.cdls_id limit ?6"
);

pub async fn read_flows(pool: &SqlitePool, reads: &[FlowRead]) -> Result<Vec<ReadyRow>, StoreError> {
    let mut connection = pool.acquire().await.map_err(failed)?;
    let mut ready = Vec::new();
    for read in reads {
        let found = sqlx::query(READ_FLOW)
            .bind(read.flow.line.0)
            .bind(read.flow.lane.as_str())
            .bind(read.flow.medium == Medium::Media)
            .bind(&read.flow.campaign)
            .bind(read.after.0)
            .bind(read.limit)
            .fetch_all(&mut *connection)
            .await
            .map_err(failed)?;
        for row in &found {
            ready.push(rows::ready(row)?);
        }
    }
    Ok(ready)
}

/// The first flow behind the one given, by the ready index.
const NEXT_FLOW: &str = "
    select v8l_id, priority, media, campaign, cdls_id,
           campaign <> '' and exists (select 1 from campaign p where p.cdcs_id = cdls.cdcs_id
               and p.cp_id = cdls.campaign and p.state <> 'running') as stopped
    from cdls
    where (v8l_id, priority, media, campaign) > (?1, ?2, ?3, ?4)
      and status in ('PENDING', 'RETRY') and next_at is null
    order by v8l_id, priority, media, campaign, cdls_id limit 1";

/// A loose scan of the ready index: one probe a flow, however many rows it has.
pub async fn ready_flows(
    pool: &SqlitePool,
    partitions: &[Partition],
) -> Result<Vec<(Flow, MessageId)>, StoreError> {
    let mut connection = pool.acquire().await.map_err(failed)?;
    let mut flows = Vec::new();
    let (mut line, mut priority, mut media, mut campaign) = (0_i64, String::new(), false, String::new());
    while let Some(row) = sqlx::query(NEXT_FLOW)
        .bind(line)
        .bind(&priority)
        .bind(media)
        .bind(&campaign)
        .fetch_optional(&mut *connection)
        .await
        .map_err(failed)?
    {
        line = rows::get(&row, "v8l_id")?;
        priority = rows::get(&row, "priority")?;
        media = rows::get(&row, "media")?;
        campaign = rows::get(&row, "campaign")?;
        if !rows::get::<bool>(&row, "stopped")? && partitions.contains(&LineId(line).partition()) {
            let medium = if media { Medium::Media } else { Medium::Text };
            let flow = Flow {
                line: LineId(line),
                lane: rows::word(&row, "priority")?,
                medium,
                campaign: campaign.clone(),
            };
            flows.push((flow, MessageId(rows::get(&row, "cdls_id")?)));
        }
    }
    Ok(flows)
}

/// Whether [`promote_due`] would find rows.
pub async fn has_due(pool: &SqlitePool, partitions: &[Partition]) -> Result<bool, StoreError> {
    sqlx::query_scalar(concat!(
        "select exists (select 1 from cdls where partition_no in (select value from json_each(?1))
             and coalesce(call_deadline, next_at) <= ",
        now!(),
        " and ",
        is_due_later!(),
        " and status in ('PENDING', 'RETRY'))"
    ))
    .bind(numbers(partitions))
    .fetch_one(pool)
    .await
    .map_err(failed)
}

const PROMOTE_DUE: &str = concat!(
    "update cdls set next_at = null where cdls_id in (
         select cdls_id from cdls where partition_no in (select value from json_each(?1))
             and coalesce(call_deadline, next_at) <= ",
    now!(),
    " and ",
    is_due_later!(),
    " and status in ('PENDING', 'RETRY') order by coalesce(call_deadline, next_at), cdls_id limit ?2)
     returning v8l_id, priority, cdls_id"
);

pub async fn promote_due(
    mut transaction: Transaction<'static, Sqlite>,
    partitions: &[Partition],
    limit: u32,
) -> Result<Vec<(LineId, Lane, MessageId)>, StoreError> {
    let promoted = sqlx::query(PROMOTE_DUE)
        .bind(numbers(partitions))
        .bind(limit)
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    promoted
        .iter()
        .map(|row| {
            Ok((
                LineId(rows::get(row, "v8l_id")?),
                rows::word(row, "priority")?,
                MessageId(rows::get(row, "cdls_id")?),
            ))
        })
        .collect()
}

const HELD: &str = concat!(
    "select v8l_id, priority, dest, cdls_id, status,
            cast(max(0, (julianday(coalesce(call_deadline, next_at)) - julianday('now')) * 86400000) as integer) as wait_ms
     from cdls where partition_no in (select value from json_each(?1)) and ",
    is_due_later!(),
    " and status in ('RETRY', 'SENDING')"
);

pub async fn held_recipients(
    pool: &SqlitePool,
    partitions: &[Partition],
) -> Result<Vec<HeldRecipient>, StoreError> {
    let held = sqlx::query(HELD).bind(numbers(partitions)).fetch_all(pool).await.map_err(failed)?;
    held.iter()
        .map(|row| {
            let wait_ms: i64 = rows::get(row, "wait_ms")?;
            Ok(HeldRecipient {
                line: LineId(rows::get(row, "v8l_id")?),
                lane: rows::word(row, "priority")?,
                dest: rows::get(row, "dest")?,
                by: MessageId(rows::get(row, "cdls_id")?),
                status: rows::word(row, "status")?,
                wait: Duration::from_millis(wait_ms as u64),
            })
        })
        .collect()
}

pub async fn still_held(pool: &SqlitePool, ids: &[MessageId]) -> Result<Vec<MessageId>, StoreError> {
    let ids = serde_json::to_string(ids).unwrap_or_default();
    let held: Vec<i64> = sqlx::query_scalar(concat!(
        "select cdls_id from cdls where cdls_id in (select value from json_each(?1))
         and (status = 'SENDING' or (status = 'RETRY' and next_at > ",
        now!(),
        "))"
    ))
    .bind(ids)
    .fetch_all(pool)
    .await
    .map_err(failed)?;
    Ok(held.into_iter().map(MessageId).collect())
}

const CLAIMED: &str = concat!(
    "select cdls_id, v8l_id, fence, worker, waiter, call_deadline < ",
    now!(),
    " as overdue from cdls where partition_no in (select value from json_each(?1)) and ",
    is_due_later!(),
    " and status = 'SENDING'"
);

pub async fn claimed_rows(
    pool: &SqlitePool,
    partitions: &[Partition],
) -> Result<Vec<ClaimedRow>, StoreError> {
    let claimed = sqlx::query(CLAIMED).bind(numbers(partitions)).fetch_all(pool).await.map_err(failed)?;
    claimed
        .iter()
        .map(|row| {
            Ok(ClaimedRow {
                id: MessageId(rows::get(row, "cdls_id")?),
                line: LineId(rows::get(row, "v8l_id")?),
                fence: rows::get(row, "fence")?,
                worker: rows::get::<Option<String>>(row, "worker")?.unwrap_or_default(),
                overdue: rows::get::<Option<bool>>(row, "overdue")?.unwrap_or(true),
                waiter: rows::get(row, "waiter")?,
            })
        })
        .collect()
}

const EXPIRE: &str = concat!(
    "update cdls set status = 'ERROR', error_kind = 'expired', done_at = ",
    now!(),
    " where cdls_id in (select cdls_id from cdls where v8l_id = ?1 and status in ('PENDING', 'RETRY')
         and next_at is null and expires_at <= ",
    now!(),
    " order by cdls_id limit ?2) returning cdls_id, waiter"
);

pub async fn expire_waiting(
    writer: &SqlitePool,
    line: LineId,
    limit: u32,
) -> Result<Vec<(MessageId, Option<String>)>, StoreError> {
    let expired = sqlx::query(EXPIRE).bind(line.0).bind(limit).fetch_all(writer).await.map_err(failed)?;
    expired.iter().map(|row| Ok((MessageId(rows::get(row, "cdls_id")?), rows::get(row, "waiter")?))).collect()
}

/// Partitions as a JSON array, for `json_each`.
fn numbers(partitions: &[Partition]) -> String {
    format!("[{}]", partitions.iter().map(|partition| partition.0.to_string()).collect::<Vec<_>>().join(","))
}

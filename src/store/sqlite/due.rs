//! Rows that somebody must look at when a time comes: due schedules and retries, and claims.
//!
//! Candidates are read first, on a reading connection; the writing one is taken only when there is something to
//! change, and each change repeats the condition. Statements repeat the condition of the index `cdls_due` word for
//! word: SQLite uses a partial index only then.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqlitePool};

use super::clock::Now;
use super::error::{begin, commit, failed};
use super::row::{list, time, time_or_null, word};
use crate::message::{Lane, LineId, MessageId, Partition, Status};
use crate::store::{ClaimedRow, HeldRecipient, StoreError};

macro_rules! timed {
    () => {
        "n.status in ('PENDING', 'RETRY', 'SENDING') and (n.next_at is not null or n.call_deadline is not null)"
    };
}

/// Partitions ?1, now ?2, at most ?3 rows of each; partitions take turns. One partition at a time, so that the index gives the order and a
/// million due rows are not sorted for the first thousand.
pub(super) const DUE: &str = concat!(
    "select c.cdls_id, c.v8l_id, c.priority, c.next_at from json_each(?1) p cross join cdls c
    where c.cdls_id in (
        select n.cdls_id from cdls n indexed by cdls_due
        where n.partition_no = p.value and coalesce(n.call_deadline, n.next_at) <= ?2 and n.status <> 'SENDING' and ",
    timed!(),
    " order by coalesce(n.call_deadline, n.next_at), n.cdls_id limit ?3)"
);

/// The due index holds schedules too, a campaign of millions perhaps: only what its time makes a retry or a claim is read.
pub(super) const HELD: &str = concat!(
    "select v8l_id, priority, dest, cdls_id, status, coalesce(call_deadline, next_at) as until
    from cdls n indexed by cdls_due
    where n.partition_no in (select value from json_each(?1)) and n.status in ('SENDING', 'RETRY')
      and coalesce(n.call_deadline, n.next_at) <= ?2 and ",
    timed!()
);

pub(super) const CLAIMED: &str = concat!(
    "select cdls_id, v8l_id, fence, coalesce(worker, '') as worker, call_deadline, waiter,
           attempts, tries, crashes, expires_at
    from cdls n indexed by cdls_due
    where n.partition_no in (select value from json_each(?1)) and n.status = 'SENDING'
      and coalesce(n.call_deadline, n.next_at) <= ?2 and ",
    timed!()
);

/// Makes due rows ready; which they were, lowest due time and id first.
pub async fn promote(
    reader: &SqlitePool,
    writer: &SqlitePool,
    partitions: &[Partition],
    limit: u32,
) -> Result<Vec<(LineId, Lane, MessageId)>, StoreError> {
    let due = due_rows(reader, partitions, limit).await?;
    if due.is_empty() {
        return Ok(Vec::new());
    }
    let (mut transaction, now) = begin(writer).await?;
    let promoted: Vec<i64> = sqlx::query_scalar(
        "update cdls set status = 'PENDING', next_at = null
         where cdls_id in (select value from json_each(?1)) and status in ('PENDING', 'RETRY') and next_at <= ?2
         returning cdls_id",
    )
    .bind(list(due.iter().map(|(_, _, id)| id.0)))
    .bind(now.text())
    .fetch_all(&mut *transaction)
    .await
    .map_err(failed)?;
    commit(transaction).await?;
    let promoted: BTreeSet<i64> = promoted.into_iter().collect();
    Ok(due.into_iter().filter(|(_, _, id)| promoted.contains(&id.0)).collect())
}

async fn due_rows(
    reader: &SqlitePool,
    partitions: &[Partition],
    limit: u32,
) -> Result<Vec<(LineId, Lane, MessageId)>, StoreError> {
    let rows = sqlx::query(DUE)
        .bind(list(partitions.iter().map(|partition| i64::from(partition.0))))
        .bind(Now::read().text())
        .bind(limit)
        .fetch_all(reader)
        .await
        .map_err(failed)?;
    let mut due = Vec::with_capacity(rows.len());
    for row in &rows {
        let at: String = row.try_get("next_at").map_err(failed)?;
        due.push((at, id(row)?, line(row)?, word(row, "priority")?));
    }
    due.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    let mut places: HashMap<Partition, u32> = HashMap::new();
    let mut in_turn: Vec<(u32, (LineId, Lane, MessageId))> = due
        .into_iter()
        .map(|(_, id, line, lane)| {
            let place = places.entry(line.partition()).or_default();
            *place += 1;
            (*place, (line, lane, id))
        })
        .collect();
    in_turn.sort_by_key(|(place, _)| *place);
    Ok(in_turn.into_iter().map(|(_, row)| row).take(limit as usize).collect())
}

/// Rows of the due index whose time comes `within` so long.
async fn timed_rows(
    statement: &'static str,
    reader: &SqlitePool,
    partitions: &[Partition],
    within: Duration,
) -> Result<Vec<SqliteRow>, StoreError> {
    sqlx::query(statement)
        .bind(list(partitions.iter().map(|partition| i64::from(partition.0))))
        .bind(Now::read().after(within))
        .fetch_all(reader)
        .await
        .map_err(failed)
}

/// Recipients with a claimed row or one that waits for its next try.
pub async fn held_recipients(
    reader: &SqlitePool,
    partitions: &[Partition],
    within: Duration,
) -> Result<Vec<HeldRecipient>, StoreError> {
    let rows = timed_rows(HELD, reader, partitions, within).await?;
    let now = Now::read();
    rows.iter()
        .map(|row| {
            Ok(HeldRecipient {
                line: line(row)?,
                lane: word(row, "priority")?,
                dest: row.try_get("dest").map_err(failed)?,
                by: id(row)?,
                status: word::<Status>(row, "status")?,
                // What has passed is no wait.
                wait: now.until(time(row, "until")?).try_into().unwrap_or_default(),
            })
        })
        .collect()
}

/// Of these rows, those that are still claimed, or wait for their next try.
pub async fn still_held(reader: &SqlitePool, ids: &[MessageId]) -> Result<Vec<MessageId>, StoreError> {
    let held: Vec<i64> = sqlx::query_scalar(
        "select cdls_id from cdls
         where cdls_id in (select value from json_each(?1))
           and (status = 'SENDING' or (status = 'RETRY' and next_at is not null))
         order by cdls_id",
    )
    .bind(list(ids.iter().map(|id| id.0)))
    .fetch_all(reader)
    .await
    .map_err(failed)?;
    Ok(held.into_iter().map(MessageId).collect())
}

/// Claimed rows, whoever holds them.
pub async fn claimed_rows(
    reader: &SqlitePool,
    partitions: &[Partition],
    within: Duration,
) -> Result<Vec<ClaimedRow>, StoreError> {
    let rows = timed_rows(CLAIMED, reader, partitions, within).await?;
    let now = Now::read();
    rows.iter()
        .map(|row| {
            Ok(ClaimedRow {
                id: id(row)?,
                line: line(row)?,
                fence: row.try_get("fence").map_err(failed)?,
                worker: row.try_get("worker").map_err(failed)?,
                overdue: time_or_null(row, "call_deadline")?.is_none_or(|deadline| !now.is_before(deadline)),
                waiter: row.try_get("waiter").map_err(failed)?,
                attempts: row.try_get("attempts").map_err(failed)?,
                tries: row.try_get("tries").map_err(failed)?,
                crashes: row.try_get("crashes").map_err(failed)?,
                valid_for: now.until(time(row, "expires_at")?),
            })
        })
        .collect()
}

fn id(row: &SqliteRow) -> Result<MessageId, StoreError> {
    row.try_get("cdls_id").map(MessageId).map_err(failed)
}

fn line(row: &SqliteRow) -> Result<LineId, StoreError> {
    row.try_get("v8l_id").map(LineId).map_err(failed)
}

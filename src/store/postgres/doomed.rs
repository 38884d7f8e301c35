//! Waiting rows that are to be ended without a call, found through the queue: expired ones, and those of
//! cancelled campaigns. Work in which no row waits any more is removed. Never here: ending a row.

use std::collections::{BTreeMap, HashMap, HashSet};

use sqlx::postgres::PgRow;
use time::OffsetDateTime;

use super::error::failed;
use super::log::ranges::{Range, range_of, unless_missing};
use super::parameters::numbers;
use super::pool::Pool;
use super::rows;
use crate::channel::MessageKind;
use crate::domain::{LineId, Partition, RowId, WorkId};
use crate::store::{DoomedRow, StoreError};

/// Work that was picked.
struct DoomedWork {
    id: i64,
    again: bool,
    ids: Vec<i64>,
}

/// A waiting row of that work.
struct WaitingEntry {
    work: Option<i64>,
    expires_at: OffsetDateTime,
    is_expired: bool,
    /// `None` for a row that this version cannot read.
    row: Option<DoomedRow>,
}

async fn picked(
    pool: &Pool,
    statement: &str,
    partitions: &[Partition],
    limit: u32,
) -> Result<Vec<DoomedWork>, StoreError> {
    let found = sqlx::query(statement)
        .bind(numbers(partitions))
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await
        .map_err(failed)?;
    found
        .iter()
        .map(|row| {
            Ok(DoomedWork {
                id: rows::get(row, "work_id")?,
                again: rows::get(row, "again")?,
                ids: rows::get(row, "ids")?,
            })
        })
        .collect()
}

/// Return the waiting rows of the work, and those of `others` that have not ended.
async fn waiting(pool: &Pool, work: &[DoomedWork], others: &[i64]) -> Result<Vec<WaitingEntry>, StoreError> {
    type LookupRow = (i64, Option<bool>, Option<i64>);
    let of_work =
        work.iter().flat_map(|work| work.ids.iter().map(|id| (*id, Some(work.again), Some(work.id))));
    let mut wanted: BTreeMap<Range, Vec<LookupRow>> = BTreeMap::new();
    for (id, again, work) in of_work.chain(others.iter().map(|id| (*id, None, None))) {
        if let Some(range) = range_of(id) {
            wanted.entry(range).or_default().push((id, again, work));
        }
    }
    let mut waiting = Vec::new();
    for (range, wanted) in wanted {
        let statement = include_str!("sql/doomed.sql").replace("{range}", &range.to_string());
        let found = sqlx::query(&statement)
            .bind(wanted.iter().map(|(id, ..)| *id).collect::<Vec<_>>())
            .bind(wanted.iter().map(|(_, again, _)| *again).collect::<Vec<_>>())
            .bind(wanted.iter().map(|(.., work)| *work).collect::<Vec<_>>())
            .fetch_all(pool)
            .await;
        for row in &unless_missing(found)? {
            waiting.push(WaitingEntry {
                work: rows::get(row, "work_id")?,
                expires_at: rows::get(row, "expires_at")?,
                is_expired: rows::get(row, "is_expired")?,
                row: doomed(row).inspect_err(rows::skipped).ok(),
            });
        }
    }
    Ok(waiting)
}

fn doomed(row: &PgRow) -> Result<DoomedRow, StoreError> {
    let kind: MessageKind = rows::word(row, "mtype")?;
    Ok(DoomedRow {
        id: RowId(rows::get(row, "cdls_id")?),
        line: LineId(rows::get(row, "v8l_id")?),
        lane: rows::word(row, "priority")?,
        medium: kind.medium(),
        dest: rows::get(row, "dest")?,
        fence: rows::get(row, "fence")?,
        waiter: rows::get(row, "waiter")?,
    })
}

/// Return each row once.
fn distinct(rows: impl Iterator<Item = DoomedRow>) -> Vec<DoomedRow> {
    let mut seen = HashSet::new();
    rows.filter(|row| seen.insert(row.id)).collect()
}

pub async fn expired(
    pool: &Pool,
    partitions: &[Partition],
    limit: u32,
) -> Result<Vec<DoomedRow>, StoreError> {
    // Work that is postponed or removed here may come before work with expired rows: the look goes on behind it.
    loop {
        let work = picked(pool, include_str!("sql/expired_work.sql"), partitions, limit).await?;
        if work.is_empty() {
            return Ok(Vec::new());
        }
        let waiting = waiting(pool, &work, &[]).await?;
        put_off(pool, &work, &waiting).await?;
        let expired = waiting.into_iter().filter(|row| row.is_expired);
        let rows = distinct(expired.filter_map(|row| row.row));
        if !rows.is_empty() {
            return Ok(rows);
        }
    }
}

/// Postpone work whose next row expires later, and remove work in which no row waits. An expired row that
/// this version cannot read is left to a later version; its work does not delay others.
async fn put_off(pool: &Pool, work: &[DoomedWork], waiting: &[WaitingEntry]) -> Result<(), StoreError> {
    let mut next: HashMap<i64, OffsetDateTime> = HashMap::new();
    let mut in_hand: HashSet<i64> = HashSet::new();
    let mut unreadable: HashSet<i64> = HashSet::new();
    for row in waiting {
        let Some(work) = row.work else { continue };
        if row.is_expired && row.row.is_some() {
            in_hand.insert(work);
        } else if row.is_expired {
            unreadable.insert(work);
        } else {
            let at = next.entry(work).or_insert(row.expires_at);
            *at = (*at).min(row.expires_at);
        }
    }
    let (mut later, mut times, mut ended) = (Vec::new(), Vec::new(), Vec::new());
    for work in work.iter().filter(|work| !in_hand.contains(&work.id)) {
        if unreadable.contains(&work.id) {
            later.push(work.id);
            times.push(None);
        } else if let Some(at) = next.get(&work.id) {
            later.push(work.id);
            times.push(Some(*at));
        } else {
            ended.push(WorkId(work.id));
        }
    }
    if !later.is_empty() {
        sqlx::query(
            "update work w set expires_at = coalesce(u.at, now() + interval '1 minute')
             from unnest($1::bigint[], $2::timestamptz[]) as u(work_id, at) where w.work_id = u.work_id",
        )
        .bind(&later)
        .bind(&times)
        .execute(pool)
        .await
        .map_err(failed)?;
    }
    remove(pool, &ended).await
}

async fn remove(pool: &Pool, work: &[WorkId]) -> Result<(), StoreError> {
    if work.is_empty() {
        return Ok(());
    }
    sqlx::query("delete from work where work_id = any($1::bigint[])")
        .bind(work.iter().map(|work| work.0).collect::<Vec<_>>())
        .execute(pool)
        .await
        .map(drop)
        .map_err(failed)
}

/// A campaign is not looked at again if it was cancelled before the longest call began and no row of it waits
/// in any partition.
const SWEEP: &str = "
    with unswept as materialized (
        select ctid as place, cdcs_id, cp_id, changed_at from campaign
        where state = 'cancelled' and not swept order by cdcs_id, cp_id)
    update campaign set swept = true
    where ctid = any(array(
        select u.place from unswept u
        where u.changed_at < now() - interval '15 minutes'
          and not exists (select from work w
                          where w.cdcs_id = u.cdcs_id and w.campaign = u.cp_id and w.campaign <> '')
          and not exists (select from cdls_open o where o.cdcs_id = u.cdcs_id and o.campaign = u.cp_id
                          and o.campaign <> '' and o.kind <> 'unknown')))";

pub async fn cancelled(
    pool: &Pool,
    partitions: &[Partition],
    limit: u32,
) -> Result<Vec<DoomedRow>, StoreError> {
    // Work whose rows have ended may come before work with waiting rows: the look goes on behind it.
    loop {
        let work = picked(pool, include_str!("sql/cancelled_work.sql"), partitions, limit).await?;
        let open: Vec<i64> = sqlx::query_scalar(include_str!("sql/cancelled_open.sql"))
            .bind(numbers(partitions))
            .bind(i64::from(limit))
            .fetch_all(pool)
            .await
            .map_err(failed)?;
        if work.is_empty() && open.is_empty() {
            sqlx::query(SWEEP).execute(pool).await.map_err(failed)?;
            return Ok(Vec::new());
        }
        let waiting = waiting(pool, &work, &open).await?;
        let busy: HashSet<i64> = waiting.iter().filter_map(|row| row.work).collect();
        let ended: Vec<WorkId> =
            work.iter().filter(|work| !busy.contains(&work.id)).map(|work| WorkId(work.id)).collect();
        remove(pool, &ended).await?;
        let rows = distinct(waiting.into_iter().filter_map(|row| row.row));
        if !rows.is_empty() || ended.is_empty() {
            return Ok(rows);
        }
    }
}

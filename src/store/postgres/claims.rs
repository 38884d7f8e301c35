//! Claims as seen by parts other than the recorder: the open ones, and those that may be forgotten.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sqlx::postgres::PgRow;

use super::error::failed;
use super::log::ranges::{Range, range_of, unless_missing};
use super::parameters::{length, milliseconds, numbers};
use super::pool::Pool;
use super::rows;
use crate::domain::{LineId, Partition, RowId, Status};
use crate::store::{ClaimedRow, HeldRecipient, StoreError};

/// How often all batches are looked at, whatever was seen before.
const FULL_EVERY: Duration = Duration::from_secs(60);

/// How many workers are remembered; each start of a process is another worker.
const MAX_WORKERS: usize = 1_000;

/// The number from which each worker's batches are looked at: earlier ones were gone at the last look. An old
/// snapshot keeps all batches ever made, and a look from the beginning would walk over them.
#[derive(Default)]
pub struct ClaimCursors(Mutex<CursorState>);

#[derive(Default)]
struct CursorState {
    workers: HashMap<String, i64>,
    partitions: HashSet<Partition>,
    full_at: Option<Instant>,
}

impl ClaimCursors {
    /// Return the cursors; `None`: begin at the beginning.
    pub fn begin(&self, partitions: &[Partition]) -> Option<Numbers> {
        let seen = self.0.lock();
        let is_recent = seen.full_at.is_some_and(|at| at.elapsed() < FULL_EVERY);
        let is_known = partitions.iter().all(|partition| seen.partitions.contains(partition));
        (is_recent && is_known).then(|| seen.workers.clone().into_iter().unzip())
    }

    fn note(&self, partitions: &[Partition], is_full: bool, batches: &[ClaimBatch]) {
        let mut seen = self.0.lock();
        if is_full {
            seen.full_at = Some(Instant::now());
        }
        seen.partitions = partitions.iter().copied().collect();
        if seen.workers.len() > MAX_WORKERS {
            seen.workers.clear();
        }
        // In descending order of number: the last one noted for a worker is its lowest.
        for batch in batches.iter().rev() {
            seen.workers.insert(batch.worker.clone(), batch.claim_no);
        }
    }
}

/// Workers, and for each the number from which its batches are looked at.
pub type Numbers = (Vec<String>, Vec<i64>);

/// A row of `claim`.
struct ClaimBatch {
    worker: String,
    claim_no: i64,
    claims: Vec<RowClaim>,
    age: Duration,
}

struct RowClaim {
    id: i64,
    fence: i32,
    partition: i16,
    /// After `made_at`.
    deadline: Duration,
}

fn batch(row: &PgRow) -> Result<ClaimBatch, StoreError> {
    let ids: Vec<i64> = rows::get(row, "ids")?;
    let fences: Vec<i32> = rows::get(row, "fences")?;
    let partitions: Vec<i16> = rows::get(row, "partitions")?;
    let deadlines: Vec<i64> = rows::get(row, "deadline_ms")?;
    let claims = ids.into_iter().zip(fences).zip(partitions).zip(deadlines);
    Ok(ClaimBatch {
        worker: rows::get(row, "worker")?,
        claim_no: rows::get(row, "claim_no")?,
        claims: claims
            .map(|(((id, fence), partition), deadline)| RowClaim {
                id,
                fence,
                partition,
                deadline: length(deadline),
            })
            .collect(),
        age: length(rows::get(row, "age_ms")?),
    })
}

/// Return all batches, or those from the cursors.
async fn batches(pool: &Pool, from: Option<Numbers>) -> Result<Vec<ClaimBatch>, StoreError> {
    let found = match from {
        None => sqlx::query(ALL).fetch_all(pool).await,
        Some((workers, numbers)) => {
            sqlx::query(include_str!("sql/claims.sql")).bind(workers).bind(numbers).fetch_all(pool).await
        }
    };
    found.map_err(failed)?.iter().map(batch).collect()
}

const ALL: &str = "
    select worker, claim_no, ids, fences, partitions, deadline_ms,
           (extract(epoch from now() - made_at) * 1000)::bigint as age_ms
    from claim order by worker, claim_no";

/// Return the open claims in these partitions, of the batches `from` these numbers, or of all.
pub async fn open(
    pool: &Pool,
    claim_cursors: &ClaimCursors,
    partitions: &[Partition],
    from: Option<Numbers>,
) -> Result<Vec<ClaimedRow>, StoreError> {
    let is_full = from.is_none();
    let batches = batches(pool, from).await?;
    claim_cursors.note(partitions, is_full, &batches);
    let claimed = claimed(pool, &batches, partitions).await?;
    Ok(claimed.into_iter().map(|(row, _)| row).collect())
}

/// Return the open claims in these partitions, one for each row, with the time in which no one else may
/// settle it.
async fn claimed(
    pool: &Pool,
    batches: &[ClaimBatch],
    partitions: &[Partition],
) -> Result<Vec<(ClaimedRow, Duration)>, StoreError> {
    // A row that was claimed twice has one call; the claim made last counts.
    let mut last: BTreeMap<i64, (&ClaimBatch, &RowClaim)> = BTreeMap::new();
    for batch in batches {
        for claim in batch.claims.iter().filter(|claim| partitions.contains(&Partition(claim.partition))) {
            let known = last.entry(claim.id).or_insert((batch, claim));
            if (claim.fence, known.0.age) > (known.1.fence, batch.age) {
                *known = (batch, claim);
            }
        }
    }
    let mut ranges: BTreeMap<Range, Vec<(&ClaimBatch, &RowClaim)>> = BTreeMap::new();
    for (id, claim) in last {
        if let Some(range) = range_of(id) {
            ranges.entry(range).or_default().push(claim);
        }
    }
    let mut open = Vec::new();
    for (range, claims) in ranges {
        let statement = include_str!("sql/claimed.sql").replace("{range}", &range.to_string());
        let found = sqlx::query(&statement)
            .bind(claims.iter().map(|(_, claim)| claim.id).collect::<Vec<_>>())
            .bind(claims.iter().map(|(_, claim)| claim.fence).collect::<Vec<_>>())
            .bind((0..claims.len() as i64).collect::<Vec<_>>())
            .fetch_all(pool)
            .await;
        open.extend(
            rows::readable(&unless_missing(found)?, |row| row_of(row, &claims)).into_iter().flatten(),
        );
    }
    Ok(open)
}

fn row_of(
    row: &PgRow,
    claims: &[(&ClaimBatch, &RowClaim)],
) -> Result<Option<(ClaimedRow, Duration)>, StoreError> {
    let n: i64 = rows::get(row, "n")?;
    let Some((batch, claim)) = claims.get(n as usize) else { return Ok(None) };
    let claimed = ClaimedRow {
        id: RowId(claim.id),
        line: LineId(rows::get(row, "v8l_id")?),
        lane: rows::word(row, "priority")?,
        dest: rows::get(row, "dest")?,
        fence: claim.fence,
        worker: batch.worker.clone(),
        attempts: rows::get::<i32>(row, "attempts")? + 1,
        tries: rows::get(row, "tries")?,
        crashes: rows::get(row, "crashes")?,
        valid_for: time::Duration::milliseconds(rows::get(row, "valid_ms")?),
        age: batch.age,
        overdue: batch.age > claim.deadline,
        waiter: rows::get(row, "waiter")?,
    };
    Ok(Some((claimed, claim.deadline.saturating_sub(batch.age))))
}

const RETRIES: &str = "
    select o.* from unnest($1::smallint[]) as p(partition_no) cross join lateral (
        select o.v8l_id, o.priority, o.dest, o.cdls_id, o.due_at,
               (extract(epoch from o.due_at - now()) * 1000)::bigint as wait_ms
        from cdls_open o
        where o.partition_no = p.partition_no and o.kind = 'retry'
          and o.due_at <= now() + $2 * interval '1 millisecond'
        order by o.due_at limit $3) as o
    order by o.due_at limit $3";

pub async fn held(
    pool: &Pool,
    partitions: &[Partition],
    within: Duration,
    limit: u32,
) -> Result<Vec<HeldRecipient>, StoreError> {
    let retries = sqlx::query(RETRIES)
        .bind(numbers(partitions))
        .bind(milliseconds(within))
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await
        .map_err(failed)?;
    let mut held = rows::readable(&retries, |row| {
        Ok(HeldRecipient {
            line: LineId(rows::get(row, "v8l_id")?),
            lane: rows::word(row, "priority")?,
            dest: rows::get(row, "dest")?,
            by: RowId(rows::get(row, "cdls_id")?),
            status: Status::Retry,
            wait: length(rows::get(row, "wait_ms")?),
        })
    });
    let open = claimed(pool, &batches(pool, None).await?, partitions).await?;
    held.extend(open.into_iter().map(|(row, wait)| HeldRecipient {
        line: row.line,
        lane: row.lane,
        dest: row.dest,
        by: row.id,
        status: Status::Sending,
        wait,
    }));
    Ok(held)
}

/// Claims of a living worker count too, once they are old: the answer to making one may have been lost.
const FORGETTABLE: &str = "
    select worker, claim_no, ids, fences, partitions, deadline_ms, 0::bigint as age_ms from claim c
    where c.made_at < now() - interval '1 hour'
       or not exists (select from worker_lease l where l.worker = c.worker and l.expires_at > now())
    order by worker, claim_no limit 1000";

/// Forget settled claims. A settled claim stays settled: no fence of a row is ever lowered.
pub async fn forget(pool: &Pool) -> Result<u64, StoreError> {
    let found = sqlx::query(FORGETTABLE).fetch_all(pool).await.map_err(failed)?;
    let batches = found.iter().map(batch).collect::<Result<Vec<_>, _>>()?;
    /// Rows, fences, and the places of their batches.
    type ClaimArrays = (Vec<i64>, Vec<i32>, Vec<i64>);
    let mut ranges: BTreeMap<Range, ClaimArrays> = BTreeMap::new();
    for (n, batch) in batches.iter().enumerate() {
        for claim in &batch.claims {
            if let Some(range) = range_of(claim.id) {
                let (ids, fences, numbers) = ranges.entry(range).or_default();
                ids.push(claim.id);
                fences.push(claim.fence);
                numbers.push(n as i64);
            }
        }
    }
    let mut open: HashSet<i64> = HashSet::new();
    for (range, (ids, fences, numbers)) in ranges {
        let statement = include_str!("sql/claimed.sql").replace("{range}", &range.to_string());
        let query = sqlx::query(&statement).bind(ids).bind(fences).bind(numbers);
        for row in unless_missing(query.fetch_all(pool).await)? {
            open.insert(rows::get(&row, "n")?);
        }
    }
    let settled = batches.iter().enumerate().filter(|(n, _)| !open.contains(&(*n as i64)));
    let (workers, numbers): (Vec<&str>, Vec<i64>) =
        settled.map(|(_, batch)| (batch.worker.as_str(), batch.claim_no)).unzip();
    if workers.is_empty() {
        return Ok(0);
    }
    let forgotten = sqlx::query(
        "delete from claim c using unnest($1::text[], $2::bigint[]) as w(worker, claim_no)
         where c.worker = w.worker and c.claim_no = w.claim_no",
    )
    .bind(workers)
    .bind(numbers)
    .execute(pool)
    .await
    .map_err(failed)?;
    Ok(forgotten.rows_affected())
}

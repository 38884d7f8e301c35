//! Claims in the queue: the open ones, and those of workers that are gone.

use sqlx::SqlitePool;
use sqlx::sqlite::SqliteRow;

use super::clock::Now;
use super::error::{begin, commit, failed};
use super::leases::Leases;
use super::row::{get, held_recipient, list, numbers, readable, time, word};
use crate::domain::{LineId, Partition, RowId};
use crate::store::{ClaimedRow, HeldRecipient, StoreError};

pub(super) const OPEN: &str = include_str!("sql/open_claims.sql");

/// The open claims, as holders of their recipients.
pub(super) const HELD: &str = concat!(
    "select cdls_id, v8l_id, priority, dest, 'SENDING' as status, call_deadline as until from (",
    include_str!("sql/open_claims.sql"),
    ")"
);

/// Claims none of whose rows is open.
pub(super) const CLOSED: &str = "
select k.claim_id, k.worker from claim k
where not exists (
    select 1 from claim_row r cross join cdls c
    where r.claim_id = k.claim_id and c.cdls_id = r.cdls_id and r.fence > c.fence
      and c.status in ('PENDING', 'RETRY'))";

pub async fn open(reader: &SqlitePool, partitions: &[Partition]) -> Result<Vec<ClaimedRow>, StoreError> {
    let found = sqlx::query(OPEN).bind(numbers(partitions)).fetch_all(reader).await.map_err(failed)?;
    let now = Now::read();
    Ok(readable(&found, |row| claimed_row(row, now)))
}

fn claimed_row(row: &SqliteRow, now: Now) -> Result<ClaimedRow, StoreError> {
    let attempts: i32 = get(row, "attempts")?;
    Ok(ClaimedRow {
        id: RowId(get(row, "cdls_id")?),
        line: LineId(get(row, "v8l_id")?),
        lane: word(row, "priority")?,
        dest: get(row, "dest")?,
        fence: get(row, "fence")?,
        worker: get(row, "worker")?,
        attempts: attempts + 1,
        tries: get(row, "tries")?,
        crashes: get(row, "crashes")?,
        valid_for: now.until(time(row, "expires_at")?),
        age: (-now.until(time(row, "made_at")?)).try_into().unwrap_or_default(),
        overdue: !now.is_before(time(row, "call_deadline")?),
        waiter: get(row, "waiter")?,
    })
}

/// Return the recipients of claimed rows, until the claims' deadlines.
pub async fn held(
    reader: &SqlitePool,
    partitions: &[Partition],
    now: Now,
) -> Result<Vec<HeldRecipient>, StoreError> {
    let found = sqlx::query(HELD).bind(numbers(partitions)).fetch_all(reader).await.map_err(failed)?;
    Ok(readable(&found, |row| held_recipient(row, now)))
}

/// Remove closed claims of workers that are not alive: a worker removes its own with their results.
pub async fn forget(reader: &SqlitePool, writer: &SqlitePool, leases: &Leases) -> Result<u64, StoreError> {
    let closed: Vec<(i64, String)> = sqlx::query_as(CLOSED).fetch_all(reader).await.map_err(failed)?;
    let gone: Vec<i64> =
        closed.into_iter().filter(|(_, worker)| !leases.is_alive(worker)).map(|(claim, _)| claim).collect();
    if gone.is_empty() {
        return Ok(0);
    }
    let (mut transaction, _) = begin(writer).await?;
    let claims = list(gone);
    sqlx::query("delete from claim_row where claim_id in (select value from json_each(?1))")
        .bind(&claims)
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    let forgotten = sqlx::query("delete from claim where claim_id in (select value from json_each(?1))")
        .bind(claims)
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    commit(transaction).await?;
    Ok(forgotten.rows_affected())
}

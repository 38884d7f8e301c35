//! Rows that wait for a time: due ones become work, and retries hold their recipients.
//!
//! Candidates are read first, on a reading connection; the writing one is taken only when there is something
//! to change, and each change repeats the condition.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use sqlx::sqlite::SqliteRow;
use sqlx::{SqliteConnection, SqlitePool};
use time::OffsetDateTime;

use super::clock::{self, Now};
use super::error::{begin, commit, failed};
use super::row::{flow, get, held_recipient, list, numbers, readable, time_or_null};
use super::{claims, work};
use crate::domain::{AccountId, Partition, RowId};
use crate::store::{HeldRecipient, Position, Promoted, StoreError, Work, WorkHead};

pub(super) const DUE: &str = include_str!("sql/due.sql");
pub(super) const HELD: &str = include_str!("sql/held.sql");

/// The time at which the next row of partitions ?1 is due after ?2.
pub(super) const NEXT: &str = "
select (
    select min(o.due_at) from cdls_open o indexed by cdls_open_due
    where o.partition_no = p.value and o.due_at > ?2) as due_at
from json_each(?1) p";

/// The rows of ?1 that are due by ?2, and whether they have not ended.
const CANDIDATES: &str = "
select o.cdls_id, o.cdcs_id, o.v8l_id, o.priority, o.media, o.campaign, cast(c.expires_at as text) as expires_at,
       coalesce(c.status in ('PENDING', 'RETRY'), 0) as waits
from json_each(?1) j cross join cdls_open o left join cdls c on c.cdls_id = o.cdls_id
where o.cdls_id = j.value and o.kind in ('schedule', 'retry') and o.due_at <= ?2";

/// Make due rows ready.
pub async fn promote(
    reader: &SqlitePool,
    writer: &SqlitePool,
    partitions: &[Partition],
    from: Option<OffsetDateTime>,
    limit: u32,
) -> Result<Promoted, StoreError> {
    let looked_at = Now::read();
    let mut connection = reader.acquire().await.map_err(failed)?;
    let (due, more) = due_rows(&mut connection, partitions, from, looked_at, limit).await?;
    let next = next_due(&mut connection, partitions, looked_at).await?;
    drop(connection);
    let work = if due.is_empty() { Vec::new() } else { make_ready(writer, &due).await? };
    let reached = (!more).then(|| looked_at.time());
    // Unreadable rows stay due: without a rest they would be looked at again and again.
    let more = more && !work.is_empty();
    Ok(Promoted { work: work.iter().map(head).collect(), more, reached, next })
}

async fn next_due(
    connection: &mut SqliteConnection,
    partitions: &[Partition],
    now: Now,
) -> Result<Option<Duration>, StoreError> {
    let found = sqlx::query(NEXT)
        .bind(numbers(partitions))
        .bind(now.text())
        .fetch_all(connection)
        .await
        .map_err(failed)?;
    let next = readable(&found, |row| time_or_null(row, "due_at")).into_iter().flatten().min();
    Ok(next.map(|next| now.until(next).try_into().unwrap_or_default()))
}

/// Return at most `limit` due rows, the earliest of each partition first, partitions in turn; and whether
/// there are more.
async fn due_rows(
    connection: &mut SqliteConnection,
    partitions: &[Partition],
    from: Option<OffsetDateTime>,
    now: Now,
    limit: u32,
) -> Result<(Vec<i64>, bool), StoreError> {
    let found = sqlx::query(DUE)
        .bind(numbers(partitions))
        .bind(now.text())
        .bind(from.map(|from| clock::later(from, Duration::ZERO)).unwrap_or_default())
        .bind(i64::from(limit) + 1)
        .fetch_all(connection)
        .await
        .map_err(failed)?;
    let mut due: Vec<(String, i64, i64)> =
        readable(&found, |row| Ok((get(row, "due_at")?, get(row, "cdls_id")?, get(row, "partition_no")?)));
    due.sort_unstable();
    let mut places: HashMap<i64, u32> = HashMap::new();
    let mut in_turn: Vec<(u32, i64)> = due
        .into_iter()
        .map(|(_, id, partition)| {
            let place = places.entry(partition).or_default();
            *place += 1;
            (*place, id)
        })
        .collect();
    in_turn.sort_by_key(|(place, _)| *place);
    let more = in_turn.len() > limit as usize;
    Ok((in_turn.into_iter().map(|(_, id)| id).take(limit as usize).collect(), more))
}

/// Make rows ready. Rows that have ended meanwhile are left out; a row that this version cannot read stays
/// where it is.
async fn make_ready(writer: &SqlitePool, due: &[i64]) -> Result<Vec<Work>, StoreError> {
    let (mut transaction, now) = begin(writer).await?;
    let found = sqlx::query(CANDIDATES)
        .bind(list(due.iter().copied()))
        .bind(now.text())
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed)?;
    let (taken, ready): (Vec<i64>, Vec<Option<work::QueuedRow>>) =
        readable(&found, candidate).into_iter().unzip();
    sqlx::query("delete from cdls_open where cdls_id in (select value from json_each(?1))")
        .bind(list(taken))
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    let work = work::add(&mut transaction, ready.into_iter().flatten().collect(), true).await?;
    commit(transaction).await?;
    Ok(work)
}

/// Decode the row, and its place in work unless it has ended.
fn candidate(row: &SqliteRow) -> Result<(i64, Option<work::QueuedRow>), StoreError> {
    let id = get(row, "cdls_id")?;
    let waits: bool = get(row, "waits")?;
    if !waits {
        return Ok((id, None));
    }
    let (account, expires_at) = (AccountId(get(row, "cdcs_id")?), get(row, "expires_at")?);
    Ok((id, Some(work::QueuedRow { id: RowId(id), account, flow: flow(row)?, expires_at })))
}

fn head(work: &Work) -> WorkHead {
    let first = work.ids.first().copied().unwrap_or_default();
    let rows = work.ids.len() as u32;
    WorkHead { position: Position { first, work: work.id }, flow: work.flow.clone(), rows }
}

/// Return recipients with a row that waits for a retry, the earliest `limit`, or with an open claim.
pub async fn held_recipients(
    reader: &SqlitePool,
    partitions: &[Partition],
    within: Duration,
    limit: u32,
) -> Result<Vec<HeldRecipient>, StoreError> {
    let now = Now::read();
    let found = sqlx::query(HELD)
        .bind(numbers(partitions))
        .bind(now.after(within))
        .bind(limit)
        .fetch_all(reader)
        .await
        .map_err(failed)?;
    let mut held = readable(&found, |row| held_recipient(row, now));
    held.sort_by_key(|held| (held.wait, held.by));
    held.truncate(limit as usize);
    let retries: HashSet<RowId> = held.iter().map(|held| held.by).collect();
    let claimed = claims::held(reader, partitions, now).await?;
    held.extend(claimed.into_iter().filter(|held| !retries.contains(&held.by)));
    Ok(held)
}

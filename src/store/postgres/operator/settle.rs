//! Settles UNKNOWN rows, and hands them out to be announced.

use sqlx::postgres::PgRow;

use super::selection::{LOOKED_AT, add, narrowed, on_range, select, selected};
use crate::domain::{Outcome, RowId};
use crate::store::postgres::error::failed;
use crate::store::postgres::log::ranges::{Range, is_missing, range_of, split, unless_missing};
use crate::store::postgres::pool::Pool;
use crate::store::postgres::rows;
use crate::store::{IdRange, Matching, Resolution, Selection, SettledRow, StoreError};

/// Whether a retried row would be sent: a row of a cancelled campaign would not, and would read CANCELLED
/// although Graph may have taken it.
macro_rules! may_be_tried {
    () => {
        "(c.expires_at > now() and (c.cp_id is null or not exists (
              select from campaign k where k.cdcs_id = c.cdcs_id and k.cp_id = c.cp_id and k.state = 'cancelled')))"
    };
}

const UNKNOWN_IDS: &str = "
    select cdls_id from cdls_open where kind = 'unknown' and cdls_id > $1 and cdls_id <= $2 order by cdls_id limit $3";

/// Return the lowest ids of UNKNOWN rows, of one range of the log.
async fn unknown_ids(pool: &Pool, after: i64, last: i64) -> Result<Vec<i64>, StoreError> {
    let mut ids: Vec<i64> = sqlx::query_scalar(UNKNOWN_IDS)
        .bind(after)
        .bind(last)
        .bind(LOOKED_AT)
        .fetch_all(pool)
        .await
        .map_err(failed)?;
    let of_one_range = split(&ids).next().map_or(0, |(_, part)| part.len());
    ids.truncate(of_one_range);
    Ok(ids)
}

const COUNT_UNKNOWN: &str = concat!(
    "select count(*) filter (where fits) as rows, max(cdls_id) as last, count(*) filter (where not fits) as left_out
     from (select c.cdls_id, not $6 or ",
    may_be_tried!(),
    " as fits from cdls_{range} c where c.status = 'UNKNOWN' and ",
    selected!(),
    ") as c"
);

pub async fn unknown_matching(
    pool: &Pool,
    range: IdRange,
    selection: &Selection,
    again: bool,
) -> Result<Matching, StoreError> {
    let mut matching = Matching { rows: 0, last: RowId(0), left_out: 0 };
    let mut after = range.after.0;
    loop {
        let ids = unknown_ids(pool, after, range.last.0).await?;
        let Some(last) = ids.last() else { return Ok(matching) };
        after = *last;
        let ids = narrowed(pool, ids, selection).await?;
        if ids.is_empty() {
            continue;
        }
        let statement = on_range(COUNT_UNKNOWN, &ids);
        let query = select(&statement, &ids, selection).bind(again);
        add(&mut matching, unless_missing(query.fetch_all(pool).await)?)?;
    }
}

pub async fn resolve(
    pool: &Pool,
    range: IdRange,
    selection: &Selection,
    resolution: &Resolution,
    limit: u32,
) -> Result<Vec<RowId>, StoreError> {
    let graph_id = match resolution {
        Resolution::Ok { message_id } => message_id.as_deref(),
        Resolution::Error | Resolution::Retry => None,
    };
    let mut after = range.after.0;
    loop {
        let ids = unknown_ids(pool, after, range.last.0).await?;
        let Some(last) = ids.last() else { return Ok(Vec::new()) };
        after = *last;
        let ids = narrowed(pool, ids, selection).await?;
        if ids.is_empty() {
            continue;
        }
        let statement = on_range(include_str!("../sql/resolve.sql"), &ids);
        let query = select(&statement, &ids, selection)
            .bind(resolution.status().as_str())
            .bind(i64::from(limit))
            .bind(graph_id);
        let resolved = unless_missing(query.fetch_all(pool).await)?;
        if !resolved.is_empty() {
            let ids = resolved.iter().map(|row| Ok(RowId(rows::get(row, "cdls_id")?)));
            let mut ids = ids.collect::<Result<Vec<_>, StoreError>>()?;
            ids.sort_unstable();
            return Ok(ids);
        }
    }
}

/// Each of two processes takes the rows that the other has not locked.
const TAKE_SETTLED: &str = "
    with picked as materialized (
        select cdls_id from settled where cdls_id between $1 and $2 order by cdls_id limit $3 for update skip locked),
    taken as (
        delete from settled s using picked p where s.cdls_id = p.cdls_id returning s.cdls_id, s.status)
    select t.cdls_id, t.status, case when t.status in ('ERROR', 'CANCELLED') then 0 else c.status_code end as status_code,
           coalesce(c.message_id, '') as message_id, c.waiter
    from taken t join cdls_{range} c on c.cdls_id = t.cdls_id order by t.cdls_id";

/// Hand out settled rows. Most looks find nothing, and read no more than one index.
pub async fn take_settled(pool: &Pool, limit: u32) -> Result<Vec<SettledRow>, StoreError> {
    let first: Option<i64> = sqlx::query_scalar("select cdls_id from settled order by cdls_id limit 1")
        .fetch_optional(pool)
        .await
        .map_err(failed)?;
    let Some(range) = first.and_then(range_of) else { return Ok(Vec::new()) };
    let statement = TAKE_SETTLED.replace("{range}", &range.to_string());
    let query = sqlx::query(&statement).bind(range.first()).bind(range.last()).bind(i64::from(limit));
    let taken = match query.fetch_all(pool).await {
        Err(error) if is_missing(&error) => return forget_settled(pool, range).await,
        taken => taken.map_err(failed)?,
    };
    Ok(taken.iter().filter_map(settled_row).collect())
}

/// Forget settled rows of a range that was taken out of the log: their outcome can no longer be read.
async fn forget_settled(pool: &Pool, range: Range) -> Result<Vec<SettledRow>, StoreError> {
    sqlx::query("delete from settled where cdls_id between $1 and $2")
        .bind(range.first())
        .bind(range.last())
        .execute(pool)
        .await
        .map_err(failed)?;
    Ok(Vec::new())
}

fn settled_row(row: &PgRow) -> Option<SettledRow> {
    let read = || {
        let outcome = Outcome::settled(
            RowId(rows::get(row, "cdls_id")?),
            rows::word(row, "status")?,
            rows::get(row, "status_code")?,
            rows::get(row, "message_id")?,
        );
        Ok(SettledRow { outcome, waiter: rows::get(row, "waiter")? })
    };
    let unreadable = |error: StoreError| tracing::warn!(%error, "skipped unreadable settled row");
    read().map_err(unreadable).ok()
}

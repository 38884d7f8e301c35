//! The ranges of the log: their names, and the range of a row. A range is a table, `cdls_` and its number.
//!
//! A range may be taken out during a walk over the ranges; its rows are gone then, and that is no failure.

use std::fmt;
use std::time::Duration;

use crate::store::StoreError;
use crate::store::postgres::error::failed;
use crate::store::postgres::parameters::milliseconds;
use crate::store::postgres::pool::Pool;

/// The ids of one range; fixed by `cdls_ensure_partitions()`.
pub const IDS: i64 = 10_000_000;

/// A row may be logged this much later than rows with higher ids: its transaction began earlier, or took
/// longer.
const OUT_OF_ORDER: Duration = Duration::from_secs(3_600);

/// The number of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range(i64);

impl Range {
    pub fn number(self) -> i64 {
        self.0
    }

    pub fn first(self) -> i64 {
        self.0.saturating_mul(IDS)
    }

    pub fn last(self) -> i64 {
        self.first().saturating_add(IDS - 1)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Return the range of an id; `None` for a negative id, which no row has.
pub fn range_of(id: i64) -> Option<Range> {
    (id >= 0).then_some(Range(id / IDS))
}

/// Split ids in order by range.
pub fn split(ids: &[i64]) -> impl Iterator<Item = (Range, &[i64])> {
    ids.chunk_by(|one, next| range_of(*one) == range_of(*next))
        .filter_map(|part| Some((range_of(*part.first()?)?, part)))
}

/// Whether a statement failed because the range it names does not exist.
pub fn is_missing(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|database| database.code()).is_some_and(|code| code == "42P01")
}

/// Return the rows that a statement on one range found; no rows, if the range does not exist.
pub fn unless_missing<T>(found: Result<Vec<T>, sqlx::Error>) -> Result<Vec<T>, StoreError> {
    match found {
        Err(error) if is_missing(&error) => Ok(Vec::new()),
        found => found.map_err(failed),
    }
}

const ALL: &str = "
    select substring(r.relname from 6)::bigint from pg_inherits i join pg_class r on r.oid = i.inhrelid
    where i.inhparent = 'cdls'::regclass and r.relname ~ '^cdls_[0-9]{1,12}$' order by 1 desc";

/// Return every range, the newest first.
pub async fn all(pool: &Pool) -> Result<Vec<Range>, StoreError> {
    let numbers: Vec<i64> = sqlx::query_scalar(ALL).fetch_all(pool).await.map_err(failed)?;
    Ok(numbers.into_iter().map(Range).collect())
}

/// Return an id at or below which no row was logged within that time, found by halving: ids mostly grow with
/// time.
pub async fn before(pool: &Pool, since: Duration) -> Result<i64, StoreError> {
    let cutoff = since.saturating_add(OUT_OF_ORDER);
    for range in all(pool).await? {
        let before_range = range.first() - 1;
        let found = halved(pool, range, cutoff).await?;
        if let Some((low, _)) = found.filter(|(low, _)| *low > before_range) {
            return Ok(low);
        }
    }
    Ok(-1)
}

/// Return an id above which every row was logged within that time, found in the same way.
pub async fn up_to(pool: &Pool, until: Duration) -> Result<i64, StoreError> {
    let Some(cutoff) = until.checked_sub(OUT_OF_ORDER) else { return Ok(i64::MAX) };
    for range in all(pool).await? {
        let statement = format!(
            "select c.created_at < now() - $1 * interval '1 millisecond' from cdls_{range} c
             order by c.cdls_id limit 1"
        );
        let first =
            sqlx::query_scalar::<_, bool>(&statement).bind(milliseconds(cutoff)).fetch_all(pool).await;
        // A range whose first row is younger holds no older one.
        if unless_missing(first)? == [true]
            && let Some((_, high)) = halved(pool, range, cutoff).await?
        {
            return Ok(high);
        }
    }
    Ok(-1)
}

/// Return two ids of a range, a thousand apart at most: no row up to the first is younger than `cutoff`, and
/// none above the second is older.
async fn halved(pool: &Pool, range: Range, cutoff: Duration) -> Result<Option<(i64, i64)>, StoreError> {
    let statement = format!(
        "with recursive search as (
             select $1::bigint as low, coalesce((select max(cdls_id) from cdls_{range}), $1) as high
             union all
             select case when t.old then t.mid else t.low end, case when t.old then t.high else t.mid end
             from (select h.low, h.high, h.mid, coalesce((
                       select c.created_at < now() - $2 * interval '1 millisecond' from cdls_{range} c
                       where c.cdls_id > h.mid order by c.cdls_id limit 1), false) as old
                   from (select s.low, s.high, (s.low + s.high) / 2 as mid from search s
                         where s.high - s.low > 1000) as h) as t)
         select low, high from search order by high - low limit 1"
    );
    let found = sqlx::query_as::<_, (i64, i64)>(&statement)
        .bind(range.first() - 1)
        .bind(milliseconds(cutoff))
        .fetch_all(pool)
        .await;
    Ok(unless_missing(found)?.into_iter().next())
}

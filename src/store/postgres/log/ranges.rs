//! The ranges of the log: which there are, and which one a row is in. A range is a table, `cdls_` and its number.
//!
//! A range may be taken out while somebody walks over them; its rows are gone then, and that is no failure.

use std::fmt;
use std::time::Duration;

use crate::store::StoreError;
use crate::store::postgres::error::failed;
use crate::store::postgres::parameters::milliseconds;
use crate::store::postgres::pool::Pool;

/// Ids of one range; fixed by `cdls_ensure_partitions()`.
pub const IDS: i64 = 10_000_000;

/// A row may be logged later than rows with higher ids by so much: its transaction began earlier, or took longer.
const OUT_OF_ORDER: Duration = Duration::from_secs(3_600);

/// The number of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range(i64);

impl Range {
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

/// The range of an id; no row has a negative one.
pub fn range_of(id: i64) -> Option<Range> {
    (id >= 0).then_some(Range(id / IDS))
}

/// Ids in order, by range.
pub fn split(ids: &[i64]) -> impl Iterator<Item = (Range, &[i64])> {
    ids.chunk_by(|one, next| range_of(*one) == range_of(*next))
        .filter_map(|part| Some((range_of(*part.first()?)?, part)))
}

/// Whether a statement failed because the range it names is not there.
pub fn is_missing(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|database| database.code()).is_some_and(|code| code == "42P01")
}

/// The rows that a statement on one range found: nothing, if the range is not there.
pub fn unless_missing<T>(found: Result<Vec<T>, sqlx::Error>) -> Result<Vec<T>, StoreError> {
    match found {
        Err(error) if is_missing(&error) => Ok(Vec::new()),
        found => found.map_err(failed),
    }
}

const ALL: &str = "
    select substring(r.relname from 6)::bigint from pg_inherits i join pg_class r on r.oid = i.inhrelid
    where i.inhparent = 'cdls'::regclass and r.relname ~ '^cdls_[0-9]{1,12}$' order by 1 desc";

/// Every range there is, the newest first.
pub async fn all(pool: &Pool) -> Result<Vec<Range>, StoreError> {
    let numbers: Vec<i64> = sqlx::query_scalar(ALL).fetch_all(pool).await.map_err(failed)?;
    Ok(numbers.into_iter().map(Range).collect())
}

/// An id at or below which no row was logged within that time, found by halving: ids grow with time, by and large.
pub async fn before(pool: &Pool, since: Duration) -> Result<i64, StoreError> {
    let cutoff = milliseconds(since.saturating_add(OUT_OF_ORDER));
    for range in all(pool).await? {
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
             select low from search order by high - low limit 1"
        );
        let before_range = range.first() - 1;
        let found = sqlx::query_scalar(&statement).bind(before_range).bind(cutoff).fetch_all(pool).await;
        let low: Option<i64> = unless_missing(found)?.into_iter().next();
        if let Some(low) = low.filter(|low| *low > before_range) {
            return Ok(low);
        }
    }
    Ok(-1)
}

//! Pages of the log by filter, in order of id.
//!
//! First the ids of candidates are read, until there are enough; then the rows. A row is listed once, whatever
//! is written meanwhile, as its id is in one batch only.

use sqlx::postgres::PgRow;

use super::candidates::Candidates;
use super::filter::{ListFilter, Order};
use super::matching::{matching, within};
use super::{log_columns, readable};
use crate::store::postgres::pool::Pool;
use crate::store::postgres::rows as columns;
use crate::store::{LogRow, MessageFilter, StoreError};

/// Return the matching rows of all parts of a filter, in order of id, at most `limit`; each once, also one
/// that changes its state between the looks.
pub async fn listed_in_parts(
    pool: &Pool,
    account: Option<i64>,
    filter: &MessageFilter,
    order: Order,
    bounds: (i64, i64),
    limit: u32,
) -> Result<Vec<LogRow>, StoreError> {
    let bounds = within(pool, filter, bounds).await?;
    let mut page = Vec::new();
    for part in filter.parts() {
        page.extend(listed(pool, &ListFilter::of(account, &part), order, bounds, limit).await?);
    }
    match order {
        Order::NewestFirst => page.sort_by_key(|row: &LogRow| std::cmp::Reverse(row.cdls_id)),
        Order::OldestFirst => page.sort_by_key(|row: &LogRow| row.cdls_id),
    }
    page.dedup_by_key(|row| row.cdls_id);
    page.truncate(limit as usize);
    Ok(page)
}

/// Return the matching rows between `bounds`, in order of id, at most `limit`.
pub async fn listed(
    pool: &Pool,
    wanted: &ListFilter<'_>,
    order: Order,
    bounds: (i64, i64),
    limit: u32,
) -> Result<Vec<LogRow>, StoreError> {
    let limit = limit as usize;
    let mut candidates = Candidates::find(pool, wanted, order, bounds).await?;
    let mut page = Vec::new();
    let mut at_most = limit as i64;
    while page.len() < limit {
        let ids = candidates.next(at_most).await?;
        if ids.is_empty() {
            break;
        }
        at_most = at_most.saturating_mul(4);
        let mut left = ids.as_slice();
        while !left.is_empty() && page.len() < limit {
            let asked = limit - page.len();
            let found = rows(pool, left, wanted, order, asked as i64).await?;
            page.extend(found.iter().filter_map(readable));
            left = match found.last() {
                Some(last) if found.len() == asked => behind(left, columns::get(last, "cdls_id")?),
                _ => &[],
            };
        }
    }
    Ok(page)
}

fn behind(ids: &[i64], id: i64) -> &[i64] {
    let passed = ids.iter().position(|other| *other == id).map_or(ids.len(), |place| place + 1);
    &ids[passed..]
}

/// Return the matching rows of these ids, which are of one range; in order of id, at most `limit`.
pub async fn rows(
    pool: &Pool,
    ids: &[i64],
    wanted: &ListFilter<'_>,
    order: Order,
    limit: i64,
) -> Result<Vec<PgRow>, StoreError> {
    matching(pool, log_columns!(), ids, wanted, order, limit).await
}

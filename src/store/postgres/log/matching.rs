//! The rows among candidates that match the whole filter, as they are at this moment.

use std::time::Duration;

use sqlx::postgres::PgRow;
use time::OffsetDateTime;

use super::candidates::{BATCH, Candidates};
use super::filter::{ListFilter, Order};
use super::ranges::{self, range_of, unless_missing};
use super::{claims, with_claims};
use crate::domain::ErrorKind;
use crate::store::postgres::pool::Pool;
use crate::store::postgres::rows as columns;
use crate::store::{MessageFilter, StoreError};

/// Return the ids of matching rows, lowest first, above the first of `bounds` and up to the second,
/// inclusive; at most `limit`.
pub async fn matching_ids(
    pool: &Pool,
    account: Option<i64>,
    filter: &MessageFilter,
    bounds: (i64, i64),
    limit: u32,
) -> Result<Vec<i64>, StoreError> {
    let bounds = within(pool, filter, bounds).await?;
    let limit = limit as usize;
    let mut all = Vec::new();
    for part in filter.parts() {
        let wanted = ListFilter::of(account, &part);
        let mut candidates = Candidates::find(pool, &wanted, Order::OldestFirst, bounds).await?;
        let mut found: Vec<i64> = Vec::new();
        while found.len() < limit {
            let ids = candidates.next(BATCH).await?;
            if ids.is_empty() {
                break;
            }
            let asked = (limit - found.len()) as i64;
            for row in &matching(pool, "c.cdls_id", &ids, &wanted, Order::OldestFirst, asked).await? {
                found.push(columns::get(row, "cdls_id")?);
            }
        }
        all.extend(found);
    }
    all.sort_unstable();
    all.dedup();
    all.truncate(limit);
    Ok(all)
}

/// Narrow the bounds of ids to those that rows of the filter's time may have.
pub async fn within(
    pool: &Pool,
    filter: &MessageFilter,
    (mut after, mut last): (i64, i64),
) -> Result<(i64, i64), StoreError> {
    let ago = |at: OffsetDateTime| Duration::try_from(OffsetDateTime::now_utc() - at).ok();
    if let Some(since) = filter.since {
        // Only another clock logs in the future.
        after = after.max(ranges::before(pool, ago(since).unwrap_or_default()).await?);
    }
    if let Some(age) = filter.until.and_then(ago) {
        last = last.min(ranges::up_to(pool, age).await?);
    }
    Ok((after, last))
}

/// Return some columns of the matching rows.
///
/// Planned each time with the ids given: a plan for any ids joins the claims row by row.
pub async fn matching(
    pool: &Pool,
    selected: &str,
    ids: &[i64],
    wanted: &ListFilter<'_>,
    order: Order,
    limit: i64,
) -> Result<Vec<PgRow>, StoreError> {
    let Some(range) = ids.first().and_then(|id| range_of(*id)) else { return Ok(Vec::new()) };
    let statement = format!(
        concat!(
            "with ",
            claims!(),
            " select {selected} from cdls_{range} c ",
            with_claims!(),
            " where c.cdls_id = any($1::bigint[]) and ($2::bigint is null or c.cdcs_id = $2)
                and ($3::bigint is null or c.v8l_id = $3) and ($4::text is null or c.cp_id = $4)
                and ($5::text[] = '{{}}' or c.msg_id = any($5)) and ($6::text is null or c.dest = $6)
                and ($7::text[] = '{{}}' or case when s.cdls_id is null then c.status else 'SENDING' end = any($7))
                and ($9::integer is null or c.error_code = $9) and ($10::text is null or c.error_kind = $10)
                and ($11::timestamptz is null or c.created_at >= $11)
                and ($12::timestamptz is null or c.created_at < $12)
              order by c.cdls_id {order} limit $8"
        ),
        selected = selected,
        range = range,
        order = order.as_sql()
    );
    let found = sqlx::query(&statement)
        .persistent(false)
        .bind(ids)
        .bind(wanted.account)
        .bind(wanted.line)
        .bind(wanted.cp_id)
        .bind(wanted.msg_ids)
        .bind(wanted.dest)
        .bind(wanted.statuses.iter().map(|status| status.as_str()).collect::<Vec<_>>())
        .bind(limit)
        .bind(wanted.error_code)
        .bind(wanted.error_kind.map(ErrorKind::as_str))
        .bind(wanted.since)
        .bind(wanted.until)
        .fetch_all(pool)
        .await;
    unless_missing(found)
}

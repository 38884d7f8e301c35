//! The backlog of a line: how many messages wait, and since when. Exact as long as few wait; beyond that, `work` counts with those of
//! its rows that have ended a moment ago.

use sqlx::postgres::PgRow;
use time::OffsetDateTime;

use super::error::failed;
use super::log::filter::{ListFilter, Order};
use super::log::matching::matching;
use super::log::ranges::split;
use super::pool::Pool;
use super::rows;
use crate::domain::{LineId, Status};
use crate::store::{LineBacklog, StoreError};

/// Rows of a line that are looked up in the log.
const LOOKED_UP: i64 = 1_000;

const TOTALS: &str = "
    select l.v8l_id, w.rows + o.rows as rows
    from unnest($1::bigint[]) as l(v8l_id)
    cross join lateral (
        select coalesce(sum(cardinality(w.ids)), 0)::bigint as rows from work w
        where w.partition_no = (l.v8l_id % 64)::smallint and w.v8l_id = l.v8l_id) as w
    cross join lateral (
        select count(*) as rows from cdls_open o
        where o.partition_no = (l.v8l_id % 64)::smallint and o.due_at is not null and o.v8l_id = l.v8l_id) as o
    where w.rows + o.rows > 0";

/// The oldest rows of line $1, at most $2.
const OLDEST: &str = "
    select q.cdls_id from (
        (select u.cdls_id from (
             select ids from work w where w.partition_no = ($1 % 64)::smallint and w.v8l_id = $1
             order by w.first_id limit $2) as w cross join lateral unnest(w.ids) as u(cdls_id))
        union
        (select o.cdls_id from cdls_open o
         where o.partition_no = ($1 % 64)::smallint and o.due_at is not null and o.v8l_id = $1
         order by o.cdls_id limit $2)) as q
    order by q.cdls_id limit $2";

/// Return what waits for each of these lines; a line for which nothing waits is left out.
pub async fn of_lines(pool: &Pool, lines: &[LineId]) -> Result<Vec<LineBacklog>, StoreError> {
    let ids: Vec<i64> = lines.iter().map(|line| line.0).collect();
    let totals: Vec<(i64, i64)> = sqlx::query_as(TOTALS).bind(ids).fetch_all(pool).await.map_err(failed)?;
    let mut backlog = Vec::with_capacity(totals.len());
    for (line, total) in totals {
        let (waiting, oldest) = looked_up(pool, line).await?;
        let waiting = if total <= LOOKED_UP { waiting } else { total };
        if waiting > 0 {
            backlog.push(LineBacklog { line: LineId(line), waiting, oldest });
        }
    }
    Ok(backlog)
}

/// Return how many of the line's oldest rows wait, and since when the first of them does.
async fn looked_up(pool: &Pool, line: i64) -> Result<(i64, Option<OffsetDateTime>), StoreError> {
    let ids: Vec<i64> =
        sqlx::query_scalar(OLDEST).bind(line).bind(LOOKED_UP).fetch_all(pool).await.map_err(failed)?;
    let waiting = ListFilter { statuses: &[Status::Pending, Status::Retry], ..ListFilter::default() };
    let (mut count, mut oldest) = (0, None);
    for (_, part) in split(&ids) {
        let all = part.len() as i64;
        let found =
            matching(pool, "c.cdls_id, c.created_at", part, &waiting, Order::OldestFirst, all).await?;
        count += found.len() as i64;
        let times = found.iter().map(|row: &PgRow| rows::get::<OffsetDateTime>(row, "created_at"));
        for at in times {
            let at = at?;
            oldest = Some(oldest.map_or(at, |oldest: OffsetDateTime| oldest.min(at)));
        }
    }
    Ok((count, oldest))
}

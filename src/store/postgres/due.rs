//! Due rows become work again: scheduled ones, and retries.

use sqlx::postgres::PgRow;
use time::OffsetDateTime;

use super::error::failed;
use super::log::ranges::{Range, is_missing, split};
use super::parameters::{length, numbers};
use super::pool::Pool;
use super::rows;
use crate::domain::Partition;
use crate::store::{Promoted, StoreError};

/// Turn due rows into work. Mostly no row is due, and one statement shows that. A second statement, which
/// names the ranges of its rows, makes due rows ready.
pub async fn promote(
    pool: &Pool,
    partitions: &[Partition],
    from: Option<OffsetDateTime>,
    limit: u32,
) -> Result<Promoted, StoreError> {
    let due = sqlx::query(include_str!("sql/due.sql"))
        .bind(numbers(partitions))
        .bind(from)
        .bind(i64::from(limit))
        .fetch_one(pool)
        .await
        .map_err(failed)?;
    let ids: Vec<i64> = rows::get(&due, "ids")?;
    let mut promoted = Promoted {
        work: Vec::new(),
        more: ids.len() >= limit as usize,
        reached: rows::get(&due, "reached")?,
        next: rows::get::<Option<i64>>(&due, "next_ms")?.map(length),
    };
    if !ids.is_empty() {
        let made = made_ready(pool, &ids).await?;
        promoted.work = rows::readable(&made, rows::head);
        let ready: i64 = promoted.work.iter().map(|head| i64::from(head.rows)).sum();
        if ready < ids.len() as i64 {
            // Some rows are locked, or have ended meanwhile: the next look begins where this one did.
            promoted.reached = None;
            promoted.more &= ready > 0;
        }
    }
    Ok(promoted)
}

async fn made_ready(pool: &Pool, ids: &[i64]) -> Result<Vec<PgRow>, StoreError> {
    let ranges: Vec<Range> = split(ids).map(|(range, _)| range).collect();
    match sqlx::query(&statement(&ranges)).bind(ids).fetch_all(pool).await {
        // Rows of a range that is gone leave the queue.
        Err(error) if is_missing(&error) => one_by_one(pool, ids).await,
        made => made.map_err(failed),
    }
}

async fn one_by_one(pool: &Pool, ids: &[i64]) -> Result<Vec<PgRow>, StoreError> {
    let mut made = Vec::new();
    for (range, part) in split(ids) {
        match sqlx::query(&statement(&[range])).bind(part).fetch_all(pool).await {
            Err(error) if is_missing(&error) => forget(pool, part).await?,
            rows => made.extend(rows.map_err(failed)?),
        }
    }
    Ok(made)
}

async fn forget(pool: &Pool, ids: &[i64]) -> Result<(), StoreError> {
    sqlx::query("delete from cdls_open where cdls_id = any($1::bigint[])")
        .bind(ids)
        .execute(pool)
        .await
        .map(drop)
        .map_err(failed)
}

fn statement(ranges: &[Range]) -> String {
    let waiting: Vec<String> = ranges
        .iter()
        .map(|range| include_str!("sql/promote_waiting.sql").replace("{range}", &range.to_string()))
        .collect();
    include_str!("sql/promote.sql").replace("{waiting}", &waiting.join("    union all\n"))
}

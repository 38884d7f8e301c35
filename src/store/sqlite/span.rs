//! Ids of rows that were created within a time, found by halving: ids mostly grow with time, and no index holds it.

use std::time::Duration;

use sqlx::SqliteConnection;
use time::OffsetDateTime;

use super::clock::later;
use super::error::failed;
use crate::store::StoreError;
use crate::text::timestamp;

/// A row may have been logged later than rows with higher ids by so much, as a clock may be set back.
const OUT_OF_ORDER: time::Duration = time::Duration::HOUR;
/// The search ends when so few ids are left.
const CLOSE: i64 = 1_000;

const FIRST_AFTER: &str = "select created_at from cdls where cdls_id > ?1 order by cdls_id limit 1";

/// Return an id at or below which no row was created since the first time, and one above which none was created before the
/// second.
pub async fn ids(
    connection: &mut SqliteConnection,
    since: Option<OffsetDateTime>,
    until: Option<OffsetDateTime>,
) -> Result<(i64, i64), StoreError> {
    let (mut after, mut last) = (-1, i64::MAX - 1);
    if let Some(since) = since.and_then(|at| at.checked_sub(OUT_OF_ORDER)).filter(|at| at.year() > 0) {
        after = halved(connection, &timestamp(since)).await?.0;
    }
    if let Some(until) = until.and_then(|at| at.checked_add(OUT_OF_ORDER)) {
        last = halved(connection, &later(until, Duration::ZERO)).await?.1;
    }
    Ok((after, last))
}

/// Return two ids, close to each other: no row up to the first is younger than `cutoff`, and none above the second is older.
async fn halved(connection: &mut SqliteConnection, cutoff: &str) -> Result<(i64, i64), StoreError> {
    let highest: Option<i64> = sqlx::query_scalar("select max(cdls_id) from cdls")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    let (mut low, mut high) = (-1, highest.unwrap_or(-1));
    while high - low > CLOSE {
        let middle = low + (high - low) / 2;
        let created_at: Option<String> = sqlx::query_scalar(FIRST_AFTER)
            .bind(middle)
            .fetch_optional(&mut *connection)
            .await
            .map_err(failed)?;
        match created_at.is_some_and(|at| at.as_str() < cutoff) {
            true => low = middle,
            false => high = middle,
        }
    }
    Ok((low, high))
}

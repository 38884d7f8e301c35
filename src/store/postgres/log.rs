//! The log for people and dashboards: rows, newest rows, statistics.

use std::time::Duration;

use super::error::failed;
use super::parameters::milliseconds;
use super::pool::Pool;
use super::rows::{self, log_columns};
use crate::message::{LineId, MessageId, Status};
use crate::store::{LogFilter, LogRow, Scope, StatusCount, StoreError};

pub async fn row(pool: &Pool, scope: Scope, id: MessageId) -> Result<Option<LogRow>, StoreError> {
    let account = match scope {
        Scope::Account(account) => Some(account.0),
        Scope::Operator => None,
    };
    let found = sqlx::query(concat!(
        "select ",
        log_columns!(),
        " from cdls where cdls_id = $1 and ($2::bigint is null or cdcs_id = $2)"
    ))
    .bind(id.0)
    .bind(account)
    .fetch_optional(pool)
    .await
    .map_err(failed)?;
    found.as_ref().map(rows::log).transpose()
}

pub async fn rows(pool: &Pool, ids: &[MessageId]) -> Result<Vec<LogRow>, StoreError> {
    let found = sqlx::query(concat!("select ", log_columns!(), " from cdls where cdls_id = any($1)"))
        .bind(ids.iter().map(|id| id.0).collect::<Vec<_>>())
        .fetch_all(pool)
        .await
        .map_err(failed)?;
    found.iter().map(rows::log).collect()
}

const AFTER: &str = concat!(
    "select ",
    log_columns!(),
    " from cdls where cdls_id > $1 and ($2::bigint is null or v8l_id = $2) and ($3::text is null or status = $3)
      and ($4::text is null or cp_id = $4) order by cdls_id limit $5"
);

pub async fn after(
    pool: &Pool,
    filter: &LogFilter,
    after: MessageId,
    limit: u32,
) -> Result<Vec<LogRow>, StoreError> {
    let found = sqlx::query(AFTER)
        .bind(after.0)
        .bind(filter.line.map(|line| line.0))
        .bind(filter.status.map(Status::as_str))
        .bind(filter.cp_id.as_deref())
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await
        .map_err(failed)?;
    found.iter().map(rows::log).collect()
}

const NEWEST: &str = concat!(
    "select ",
    log_columns!(),
    " from cdls where ($1::bigint is null or v8l_id = $1) and ($2::text is null or status = $2)
      and ($3::text is null or cp_id = $3) order by cdls_id desc limit $4"
);

pub async fn newest(pool: &Pool, filter: &LogFilter, limit: u32) -> Result<Vec<LogRow>, StoreError> {
    let found = sqlx::query(NEWEST)
        .bind(filter.line.map(|line| line.0))
        .bind(filter.status.map(Status::as_str))
        .bind(filter.cp_id.as_deref())
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await
        .map_err(failed)?;
    found.iter().map(rows::log).collect()
}

pub async fn stats(pool: &Pool, since: Option<Duration>) -> Result<Vec<StatusCount>, StoreError> {
    let counted = sqlx::query(
        "select v8l_id, class, status, count(*) as rows from cdls
         where $1::bigint is null or created_at >= now() - $1 * interval '1 millisecond'
         group by v8l_id, class, status order by v8l_id, class, status",
    )
    .bind(since.map(milliseconds))
    .fetch_all(pool)
    .await
    .map_err(failed)?;
    counted
        .iter()
        .map(|row| {
            Ok(StatusCount {
                v8l_id: LineId(rows::get(row, "v8l_id")?),
                class: rows::word(row, "class")?,
                status: rows::word(row, "status")?,
                rows: rows::get(row, "rows")?,
            })
        })
        .collect()
}

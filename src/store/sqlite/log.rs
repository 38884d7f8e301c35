//! The log as callers and operators read it.

use std::time::Duration;

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqlitePool};

use super::clock::Now;
use super::error::failed;
use super::row::{time, time_or_null, word, word_or_null};
use crate::message::{AccountId, LineId, MessageId};
use crate::store::{LogFilter, LogRow, Scope, StatusCount, StoreError};

macro_rules! log_select {
    () => {
        "select cdls_id, cdcs_id, v8l_id, class, dest, mtype, mdata, mcaption, msg_id, cp_id, priority, status, \
                status_code, message_id, error_code, error_subcode, error_kind, error_message, fbtrace_id, attempts, \
                ambiguous_attempts, next_at, expires_at, created_at, sent_at, done_at, delivered_at, read_at \
         from cdls "
    };
}
pub(super) use log_select;

/// Filter: line ?1, status ?2, campaign ?3; NULL is any.
macro_rules! matching {
    () => {
        "where (?1 is null or v8l_id = ?1) and (?2 is null or status = ?2) and (?3 is null or cp_id = ?3) "
    };
}

/// One row, if the scope may see it.
pub async fn row(reader: &SqlitePool, scope: Scope, id: MessageId) -> Result<Option<LogRow>, StoreError> {
    let account = match scope {
        Scope::Account(account) => Some(account.0),
        Scope::Operator => None,
    };
    let found = sqlx::query(concat!(log_select!(), "where cdls_id = ?1 and (?2 is null or cdcs_id = ?2)"))
        .bind(id.0)
        .bind(account)
        .fetch_optional(reader)
        .await
        .map_err(failed)?;
    found.as_ref().map(log_row).transpose()
}

/// Rows by id; missing ids are left out.
pub async fn rows(reader: &SqlitePool, ids: &[MessageId]) -> Result<Vec<LogRow>, StoreError> {
    let found = sqlx::query(concat!(log_select!(), "where cdls_id in (select value from json_each(?1))"))
        .bind(serde_json::json!(ids).to_string())
        .fetch_all(reader)
        .await
        .map_err(failed)?;
    found.iter().map(log_row).collect()
}

/// Rows with ids above `after`, lowest first.
pub async fn after(
    reader: &SqlitePool,
    filter: &LogFilter,
    after: MessageId,
    limit: u32,
) -> Result<Vec<LogRow>, StoreError> {
    let rows = sqlx::query(concat!(log_select!(), matching!(), "and cdls_id > ?4 order by cdls_id limit ?5"))
        .bind(filter.line.map(|line| line.0))
        .bind(filter.status.map(|status| status.as_str()))
        .bind(&filter.cp_id)
        .bind(after.0)
        .bind(limit)
        .fetch_all(reader)
        .await
        .map_err(failed)?;
    rows.iter().map(log_row).collect()
}

/// The newest rows, newest first.
pub async fn newest(reader: &SqlitePool, filter: &LogFilter, limit: u32) -> Result<Vec<LogRow>, StoreError> {
    let rows = sqlx::query(concat!(log_select!(), matching!(), "order by cdls_id desc limit ?4"))
        .bind(filter.line.map(|line| line.0))
        .bind(filter.status.map(|status| status.as_str()))
        .bind(&filter.cp_id)
        .bind(limit)
        .fetch_all(reader)
        .await
        .map_err(failed)?;
    rows.iter().map(log_row).collect()
}

/// Rows by line and status.
pub async fn stats(reader: &SqlitePool, since: Option<Duration>) -> Result<Vec<StatusCount>, StoreError> {
    let rows = sqlx::query(
        "select v8l_id, class, status, count(*) as rows from cdls
         where ?1 is null or created_at >= ?1
         group by v8l_id, class, status order by v8l_id, class, status",
    )
    .bind(since.map(|since| Now::read().before(since)))
    .fetch_all(reader)
    .await
    .map_err(failed)?;
    rows.iter()
        .map(|row| {
            Ok(StatusCount {
                v8l_id: LineId(row.try_get("v8l_id").map_err(failed)?),
                class: word(row, "class")?,
                status: word(row, "status")?,
                rows: row.try_get("rows").map_err(failed)?,
            })
        })
        .collect()
}

pub(super) fn log_row(row: &SqliteRow) -> Result<LogRow, StoreError> {
    Ok(LogRow {
        cdls_id: MessageId(row.try_get("cdls_id").map_err(failed)?),
        cdcs_id: AccountId(row.try_get("cdcs_id").map_err(failed)?),
        v8l_id: LineId(row.try_get("v8l_id").map_err(failed)?),
        class: word(row, "class")?,
        dest: row.try_get("dest").map_err(failed)?,
        mtype: word(row, "mtype")?,
        mdata: row.try_get("mdata").map_err(failed)?,
        mcaption: row.try_get("mcaption").map_err(failed)?,
        msg_id: row.try_get("msg_id").map_err(failed)?,
        cp_id: row.try_get("cp_id").map_err(failed)?,
        priority: word(row, "priority")?,
        status: word(row, "status")?,
        status_code: row.try_get("status_code").map_err(failed)?,
        message_id: row.try_get("message_id").map_err(failed)?,
        error_code: row.try_get("error_code").map_err(failed)?,
        error_subcode: row.try_get("error_subcode").map_err(failed)?,
        error_kind: word_or_null(row, "error_kind")?,
        error_message: row.try_get("error_message").map_err(failed)?,
        fbtrace_id: row.try_get("fbtrace_id").map_err(failed)?,
        attempts: row.try_get("attempts").map_err(failed)?,
        ambiguous_attempts: row.try_get("ambiguous_attempts").map_err(failed)?,
        next_at: time_or_null(row, "next_at")?,
        expires_at: time(row, "expires_at")?,
        created_at: time(row, "created_at")?,
        sent_at: time_or_null(row, "sent_at")?,
        done_at: time_or_null(row, "done_at")?,
        delivered_at: time_or_null(row, "delivered_at")?,
        read_at: time_or_null(row, "read_at")?,
    })
}

//! Rows of the database as the program's types. Times are text; rows that other programs wrote are read leniently.

use std::str::FromStr;

use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::failed;
use crate::message::{AccountId, LineId, MessageId, UnknownWord};
use crate::store::{LogRow, ReadyRow, StoreError};

/// The columns of a [`ReadyRow`], for rows named `c`.
macro_rules! ready_columns {
    () => {
        "c.cdls_id, c.v8l_id, c.cdcs_id, c.priority, c.mtype, c.cp_id, c.dest, c.mdata, c.fence, c.attempts, c.tries, \
         cast((julianday(c.expires_at) - julianday('now')) * 86400000 as integer) as valid_ms, c.waiter"
    };
}
pub(super) use ready_columns;

/// The columns of a [`LogRow`].
macro_rules! log_columns {
    () => {
        "cdls_id, cdcs_id, v8l_id, class, dest, mtype, mdata, mcaption, msg_id, cp_id, priority, status, status_code, \
         message_id, error_code, error_subcode, error_kind, error_message, fbtrace_id, attempts, ambiguous_attempts, \
         next_at, expires_at, created_at, sent_at, done_at, delivered_at, read_at"
    };
}
pub(super) use log_columns;

/// This moment, as it is stored.
macro_rules! now {
    () => {
        "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"
    };
}
pub(super) use now;

/// A column of any type sqlx decodes.
pub fn get<'r, T>(row: &'r SqliteRow, column: &str) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    row.try_get(column).map_err(failed)
}

/// A stored word as its type.
pub fn word<T: FromStr<Err = UnknownWord>>(row: &SqliteRow, column: &str) -> Result<T, StoreError> {
    get::<&str>(row, column)?.parse().map_err(|error: UnknownWord| StoreError::Rejected(error.to_string()))
}

/// A stored time; an error names the column.
pub fn time(row: &SqliteRow, column: &str) -> Result<Option<OffsetDateTime>, StoreError> {
    get::<Option<&str>>(row, column)?
        .map(|text| {
            OffsetDateTime::parse(text, &Rfc3339).map_err(|error| {
                StoreError::Rejected(format!("column {column} is no RFC 3339 time: {error}"))
            })
        })
        .transpose()
}

/// A stored time that is never null.
pub fn required_time(row: &SqliteRow, column: &str) -> Result<OffsetDateTime, StoreError> {
    time(row, column)?.ok_or_else(|| StoreError::Rejected(format!("column {column} is null")))
}

pub fn ready(row: &SqliteRow) -> Result<ReadyRow, StoreError> {
    Ok(ReadyRow {
        id: MessageId(get(row, "cdls_id")?),
        line: LineId(get(row, "v8l_id")?),
        account: AccountId(get(row, "cdcs_id")?),
        lane: word(row, "priority")?,
        kind: word(row, "mtype")?,
        cp_id: get(row, "cp_id")?,
        dest: get(row, "dest")?,
        mdata: get(row, "mdata")?,
        fence: get(row, "fence")?,
        attempts: get(row, "attempts")?,
        tries: get(row, "tries")?,
        valid_for: time::Duration::milliseconds(get(row, "valid_ms")?),
        waiter: get(row, "waiter")?,
    })
}

pub fn log(row: &SqliteRow) -> Result<LogRow, StoreError> {
    let kind: Option<&str> = get(row, "error_kind")?;
    Ok(LogRow {
        cdls_id: MessageId(get(row, "cdls_id")?),
        cdcs_id: AccountId(get(row, "cdcs_id")?),
        v8l_id: LineId(get(row, "v8l_id")?),
        class: word(row, "class")?,
        dest: get(row, "dest")?,
        mtype: word(row, "mtype")?,
        mdata: get(row, "mdata")?,
        mcaption: get(row, "mcaption")?,
        msg_id: get(row, "msg_id")?,
        cp_id: get(row, "cp_id")?,
        priority: word(row, "priority")?,
        status: word(row, "status")?,
        status_code: get(row, "status_code")?,
        message_id: get(row, "message_id")?,
        error_code: get(row, "error_code")?,
        error_subcode: get(row, "error_subcode")?,
        error_kind: kind
            .map(str::parse)
            .transpose()
            .map_err(|error: UnknownWord| StoreError::Rejected(error.to_string()))?,
        error_message: get(row, "error_message")?,
        fbtrace_id: get(row, "fbtrace_id")?,
        attempts: get(row, "attempts")?,
        ambiguous_attempts: get(row, "ambiguous_attempts")?,
        next_at: time(row, "next_at")?,
        expires_at: required_time(row, "expires_at")?,
        created_at: required_time(row, "created_at")?,
        sent_at: time(row, "sent_at")?,
        done_at: time(row, "done_at")?,
        delivered_at: time(row, "delivered_at")?,
        read_at: time(row, "read_at")?,
    })
}

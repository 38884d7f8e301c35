//! Rows of the database as the program's types.

use std::str::FromStr;

use sqlx::Row;
use sqlx::postgres::PgRow;

use super::error::failed;
use crate::channel::Medium;
use crate::domain::{AccountId, LineId, RowId, WorkId};
use crate::store::{Contact, Flow, LogRow, Position, ReadyRow, StoreError, WorkHead};
use crate::text::UnknownWord;

/// The columns of a [`ReadyRow`], for rows named `c`.
macro_rules! ready_columns {
    () => {
        "c.cdls_id, c.v8l_id, c.cdcs_id, c.priority, c.mtype, c.cp_id, c.dest, c.mdata, c.fence, c.attempts, c.tries, \
         (extract(epoch from c.expires_at - now()) * 1000)::bigint as valid_ms, c.waiter"
    };
}
pub(super) use ready_columns;

/// Decode a stored word.
pub fn word<T: FromStr<Err = UnknownWord>>(row: &PgRow, column: &str) -> Result<T, StoreError> {
    let text: &str = row.try_get(column).map_err(failed)?;
    text.parse().map_err(|error: UnknownWord| StoreError::Rejected(error.to_string()))
}

pub fn optional_word<T: FromStr<Err = UnknownWord>>(
    row: &PgRow,
    column: &str,
) -> Result<Option<T>, StoreError> {
    let text: Option<&str> = row.try_get(column).map_err(failed)?;
    text.map(str::parse).transpose().map_err(|error: UnknownWord| StoreError::Rejected(error.to_string()))
}

/// Decode a column of any type that sqlx decodes.
pub fn get<'r, T>(row: &'r PgRow, column: &str) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(column).map_err(failed)
}

/// Return the rows that this version can read. A later version may have written a word unknown to this one.
pub fn readable<T>(rows: &[PgRow], decode: impl Fn(&PgRow) -> Result<T, StoreError>) -> Vec<T> {
    rows.iter().filter_map(|row| decode(row).inspect_err(skipped).ok()).collect()
}

/// Log that a row is left out.
pub fn skipped(error: &StoreError) {
    tracing::warn!("skipped unreadable row: {error}");
}

pub fn medium(media: bool) -> Medium {
    if media { Medium::Media } else { Medium::Text }
}

/// Decode the flow of a row of `work`, or of a statement that returns its columns.
pub fn flow(row: &PgRow) -> Result<Flow, StoreError> {
    Ok(Flow {
        line: LineId(get(row, "v8l_id")?),
        lane: word(row, "priority")?,
        medium: medium(get(row, "media")?),
        campaign: get(row, "campaign")?,
    })
}

pub fn position(row: &PgRow) -> Result<Position, StoreError> {
    Ok(Position { first: RowId(get(row, "first_id")?), work: WorkId(get(row, "work_id")?) })
}

pub fn ready(row: &PgRow, work: WorkId) -> Result<ReadyRow, StoreError> {
    Ok(ReadyRow {
        id: RowId(get(row, "cdls_id")?),
        work,
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
        contact: Contact::default(),
    })
}

pub fn log(row: &PgRow) -> Result<LogRow, StoreError> {
    Ok(LogRow {
        cdls_id: RowId(get(row, "cdls_id")?),
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
        error_kind: optional_word(row, "error_kind")?,
        error_message: get(row, "error_message")?,
        fbtrace_id: get(row, "fbtrace_id")?,
        attempts: get(row, "attempts")?,
        ambiguous_attempts: get(row, "ambiguous_attempts")?,
        next_at: get(row, "next_at")?,
        expires_at: get(row, "expires_at")?,
        created_at: get(row, "created_at")?,
        sent_at: get(row, "sent_at")?,
        done_at: get(row, "done_at")?,
        delivered_at: get(row, "delivered_at")?,
        read_at: get(row, "read_at")?,
    })
}

/// Decode work whose rows were not read.
pub fn head(row: &PgRow) -> Result<WorkHead, StoreError> {
    Ok(WorkHead { position: position(row)?, flow: flow(row)?, rows: get::<i32>(row, "rows")?.unsigned_abs() })
}

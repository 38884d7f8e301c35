//! Columns that the driver does not decode by itself: the domain's words, times, lists of ids. Also lists of
//! rows of which some cannot be read.

use std::str::FromStr;

use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Row, Sqlite, Type};
use time::OffsetDateTime;

use super::clock::{self, Now};
use super::error::failed;
use crate::channel::Medium;
use crate::domain::{LineId, Partition, RowId};
use crate::store::{Flow, HeldRecipient, StoreError};
use crate::text::UnknownWord;

/// Decode a column of a type that the driver knows.
pub fn get<'r, T>(row: &'r SqliteRow, column: &str) -> Result<T, StoreError>
where
    T: Decode<'r, Sqlite> + Type<Sqlite>,
{
    row.try_get(column).map_err(failed)
}

/// Decode a column that holds one of the domain's words.
pub fn word<T: FromStr<Err = UnknownWord>>(row: &SqliteRow, column: &str) -> Result<T, StoreError> {
    let word: &str = get(row, column)?;
    word.parse().map_err(|error| unreadable(column, error))
}

/// Decode a word, or NULL.
pub fn word_or_null<T: FromStr<Err = UnknownWord>>(
    row: &SqliteRow,
    column: &str,
) -> Result<Option<T>, StoreError> {
    let word: Option<&str> = get(row, column)?;
    word.map(|word| word.parse().map_err(|error| unreadable(column, error))).transpose()
}

/// Decode a column that holds a time.
pub fn time(row: &SqliteRow, column: &str) -> Result<OffsetDateTime, StoreError> {
    time_or_null(row, column)?.ok_or_else(|| unreadable(column, "no time"))
}

/// Decode a time, or NULL.
pub fn time_or_null(row: &SqliteRow, column: &str) -> Result<Option<OffsetDateTime>, StoreError> {
    let text: Option<&str> = get(row, column)?;
    text.map(|text| clock::parse(text).ok_or_else(|| unreadable(column, format!("{text:?} is no time"))))
        .transpose()
}

/// Decode the column `media`.
pub fn medium(row: &SqliteRow) -> Result<Medium, StoreError> {
    let media: bool = get(row, "media")?;
    Ok(if media { Medium::Media } else { Medium::Text })
}

/// Decode the columns `v8l_id`, `priority`, `media` and `campaign`.
pub fn flow(row: &SqliteRow) -> Result<Flow, StoreError> {
    Ok(Flow {
        line: LineId(get(row, "v8l_id")?),
        lane: word(row, "priority")?,
        medium: medium(row)?,
        campaign: get(row, "campaign")?,
    })
}

fn unreadable(column: &str, why: impl std::fmt::Display) -> StoreError {
    StoreError::Schema(format!("a row that this version cannot read: column {column}: {why}"))
}

/// Return the readable rows of a list. An unreadable row, such as one with a word of a later version, stops
/// none of the others.
pub fn readable<T>(rows: &[SqliteRow], read: impl Fn(&SqliteRow) -> Result<T, StoreError>) -> Vec<T> {
    rows.iter().filter_map(|row| read_or_skip(row, &read)).collect()
}

/// Return one row of a list; `None` with a warning if it cannot be read.
pub fn read_or_skip<T>(row: &SqliteRow, read: impl Fn(&SqliteRow) -> Result<T, StoreError>) -> Option<T> {
    match read(row) {
        Ok(read) => Some(read),
        Err(error) => {
            let id: Option<i64> = row.try_get("cdls_id").ok();
            tracing::warn!(cdls_id = id, "skipped unreadable row: {error}");
            None
        }
    }
}

/// Return numbers as a JSON array, the form in which a list is bound (`in (select value from json_each(?))`).
pub fn list(numbers: impl IntoIterator<Item = i64>) -> String {
    serde_json::Value::from_iter(numbers).to_string()
}

/// Return partitions as a parameter of statements.
pub fn numbers(partitions: &[Partition]) -> String {
    list(partitions.iter().map(|partition| i64::from(partition.0)))
}

/// Decode a row of `cdls_id`, `v8l_id`, `priority`, `dest`, `status` and `until`.
pub fn held_recipient(row: &SqliteRow, now: Now) -> Result<HeldRecipient, StoreError> {
    Ok(HeldRecipient {
        line: LineId(get(row, "v8l_id")?),
        lane: word(row, "priority")?,
        dest: get(row, "dest")?,
        by: RowId(get(row, "cdls_id")?),
        status: word(row, "status")?,
        // A time that has passed is no wait.
        wait: now.until(time(row, "until")?).try_into().unwrap_or_default(),
    })
}

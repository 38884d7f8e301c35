//! Columns that the driver does not decode by itself: the domain's words, times, lists of ids.

use std::str::FromStr;

use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use time::OffsetDateTime;

use super::clock;
use super::error::failed;
use crate::message::UnknownWord;
use crate::store::StoreError;

/// A column that holds one of the domain's words.
pub fn word<T: FromStr<Err = UnknownWord>>(row: &SqliteRow, column: &str) -> Result<T, StoreError> {
    let word: &str = row.try_get(column).map_err(failed)?;
    word.parse().map_err(|error| unreadable(column, error))
}

/// The same where NULL is allowed.
pub fn word_or_null<T: FromStr<Err = UnknownWord>>(
    row: &SqliteRow,
    column: &str,
) -> Result<Option<T>, StoreError> {
    let word: Option<&str> = row.try_get(column).map_err(failed)?;
    word.map(|word| word.parse().map_err(|error| unreadable(column, error))).transpose()
}

/// A column that holds a time.
pub fn time(row: &SqliteRow, column: &str) -> Result<OffsetDateTime, StoreError> {
    time_or_null(row, column)?.ok_or_else(|| unreadable(column, "no time"))
}

/// The same where NULL is allowed.
pub fn time_or_null(row: &SqliteRow, column: &str) -> Result<Option<OffsetDateTime>, StoreError> {
    let text: Option<&str> = row.try_get(column).map_err(failed)?;
    text.map(|text| clock::parse(text).ok_or_else(|| unreadable(column, format!("{text:?} is no time"))))
        .transpose()
}

fn unreadable(column: &str, why: impl std::fmt::Display) -> StoreError {
    StoreError::Schema(format!("a row that this version cannot read: column {column}: {why}"))
}

/// Numbers as a JSON array: how a list is bound (`in (select value from json_each(?))`).
pub fn list(numbers: impl IntoIterator<Item = i64>) -> String {
    serde_json::Value::from_iter(numbers).to_string()
}

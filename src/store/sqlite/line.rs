//! Lines as rows of the database.
//!
//! Other programs insert and change these rows with SQL, and SQLite takes any value in any column. A
//! malformed row never stops the program: an unreadable value counts as not set, with a warning that names
//! the line.

use std::time::Duration;

use secrecy::SecretString;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use time::OffsetDateTime;

use super::clock::{self, Now};
use super::error::failed;
use crate::domain::{AccountId, LineId};
use crate::store::{LineRecord, StoreError};
use crate::text::seen;

/// The casts let every row be read, whatever its columns hold: a text that is no UTF-8, a word in place of a
/// number.
macro_rules! line_select {
    () => {
        "select l.v8l_id, cast(l.cdcs_id as integer) as cdcs_id, cast(l.v8l_name as blob) as name,
                cast(l.v8l_class as blob) as class, cast(l.v8l_active as integer) <> 0 as active,
                coalesce(cast(a.cdcs_active as integer), 0) <> 0 as account_active,
                cast(l.v8l_wa_api_key as blob) as page_token, cast(l.v8l_fb_page_id as blob) as page_id,
                cast(l.v8l_ig_account_id as blob) as instagram_account_id,
                cast(l.v8l_rate_text as integer) as rate_text, cast(l.v8l_rate_media as integer) as rate_media,
                cast(l.v8l_paused_until as blob) as paused_until, cast(l.v8l_pause_reason as blob) as pause_reason
         from cd_v8_line l left join account a on a.cdcs_id = l.cdcs_id "
    };
}
pub(super) use line_select;

/// Decode lines. A line of a class unknown to this version is left out.
pub fn records(rows: &[SqliteRow]) -> Result<Vec<LineRecord>, StoreError> {
    let now = Now::read();
    rows.iter().filter_map(|row| record(row, now).map_err(failed).transpose()).collect()
}

fn record(row: &SqliteRow, now: Now) -> Result<Option<LineRecord>, sqlx::Error> {
    let id = LineId(row.try_get("v8l_id")?);
    let class = match text(row, "class")?.unwrap_or_default().parse() {
        Ok(class) => class,
        Err(error) => {
            tracing::warn!(v8l_id = id.0, "skipped unreadable row: {error}");
            return Ok(None);
        }
    };
    let paused_until = pause_end(row, id)?;
    Ok(Some(LineRecord {
        id,
        account: AccountId(row.try_get("cdcs_id")?),
        name: text(row, "name")?,
        class,
        active: row.try_get("active")?,
        account_active: row.try_get("account_active")?,
        page_token: seen(text(row, "page_token")?).map(SecretString::from),
        page_id: seen(text(row, "page_id")?),
        instagram_account_id: seen(text(row, "instagram_account_id")?),
        rate_text: rate(row, id, "rate_text")?,
        rate_media: rate(row, id, "rate_media")?,
        paused_until,
        pause_left: paused_until
            .and_then(|until| Duration::try_from(now.until(until)).ok())
            .filter(|left| !left.is_zero()),
        pause_reason: text(row, "pause_reason")?,
    }))
}

fn text(row: &SqliteRow, column: &str) -> Result<Option<String>, sqlx::Error> {
    let bytes: Option<&[u8]> = row.try_get(column)?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
}

fn rate(row: &SqliteRow, line: LineId, column: &str) -> Result<Option<u32>, sqlx::Error> {
    let Some(rate) = row.try_get::<Option<i64>, _>(column)? else { return Ok(None) };
    if rate <= 0 {
        tracing::warn!(
            v8l_id = line.0,
            "v8l_{column} is not a positive number: the default of the class applies"
        );
        return Ok(None);
    }
    Ok(Some(u32::try_from(rate).unwrap_or(u32::MAX)))
}

fn pause_end(row: &SqliteRow, line: LineId) -> Result<Option<OffsetDateTime>, sqlx::Error> {
    let Some(text) = text(row, "paused_until")? else { return Ok(None) };
    let end = clock::parse(&text);
    if end.is_none() {
        tracing::warn!(
            v8l_id = line.0,
            "v8l_paused_until is not an RFC 3339 time: the line counts as not paused"
        );
    }
    Ok(end)
}

//! Lines as the worker and the ingest read them, and their pauses.
//!
//! Other programs insert and change these rows with SQL, and SQLite takes any value in any column. A row that makes
//! no sense never stops the program: what cannot be read counts as not set, with a warning that names the line.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqlitePool};
use time::OffsetDateTime;

use super::clock::{self, Now};
use super::error::{begin, commit, failed};
use super::row::list;
use crate::message::{AccountId, LineId};
use crate::store::{LineRecord, PauseScope, StoreError};

/// The casts let every row be read, whatever its columns hold: a text that is no UTF-8, a word where a number is due.
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

/// Lines by id; missing ids are left out.
pub async fn by_id(reader: &SqlitePool, ids: &[LineId]) -> Result<Vec<LineRecord>, StoreError> {
    let rows = sqlx::query(concat!(
        line_select!(),
        "where l.v8l_id in (select value from json_each(?1)) order by l.v8l_id"
    ))
    .bind(list(ids.iter().map(|id| id.0)))
    .fetch_all(reader)
    .await
    .map_err(failed)?;
    records(&rows)
}

/// All lines, by id.
pub async fn all(reader: &SqlitePool) -> Result<Vec<LineRecord>, StoreError> {
    let rows =
        sqlx::query(concat!(line_select!(), "order by l.v8l_id")).fetch_all(reader).await.map_err(failed)?;
    records(&rows)
}

/// Pauses until now + `length` whatever is not paused for longer.
pub async fn pause(
    writer: &SqlitePool,
    scope: PauseScope,
    length: Duration,
    reason: &str,
) -> Result<(), StoreError> {
    let only = match scope {
        PauseScope::Line(line) => Some(line.0),
        PauseScope::App => None,
    };
    let (mut transaction, now) = begin(writer).await?;
    let until = now.after(length);
    let lines: Vec<(i64, Option<Vec<u8>>)> = sqlx::query_as(
        "select v8l_id, cast(v8l_paused_until as blob) from cd_v8_line where ?1 is null or v8l_id = ?1",
    )
    .bind(only)
    .fetch_all(&mut *transaction)
    .await
    .map_err(failed)?;
    // Compared as times: another program may have written them in another way.
    let end = clock::parse(&until);
    let sooner = lines.into_iter().filter(|(_, paused_until)| {
        paused_until.as_deref().and_then(|text| clock::parse(&String::from_utf8_lossy(text))) < end
    });
    sqlx::query(
        "update cd_v8_line set v8l_paused_until = ?2, v8l_pause_reason = ?3
         where v8l_id in (select value from json_each(?1))",
    )
    .bind(list(sooner.map(|(id, _)| id)))
    .bind(&until)
    .bind(reason)
    .execute(&mut *transaction)
    .await
    .map_err(failed)?;
    commit(transaction).await
}

/// An operator's pause, replacing any other.
pub async fn pause_one(
    writer: &SqlitePool,
    line: LineId,
    length: Option<Duration>,
    reason: &str,
) -> Result<bool, StoreError> {
    let until = length.map_or_else(|| clock::FOREVER.to_owned(), |length| Now::read().after(length));
    sqlx::query("update cd_v8_line set v8l_paused_until = ?2, v8l_pause_reason = ?3 where v8l_id = ?1")
        .bind(line.0)
        .bind(until)
        .bind(reason)
        .execute(writer)
        .await
        .map(|done| done.rows_affected() == 1)
        .map_err(failed)
}

/// Ends the line's pause.
pub async fn resume(writer: &SqlitePool, line: LineId) -> Result<bool, StoreError> {
    sqlx::query("update cd_v8_line set v8l_paused_until = null, v8l_pause_reason = null where v8l_id = ?1")
        .bind(line.0)
        .execute(writer)
        .await
        .map(|done| done.rows_affected() == 1)
        .map_err(failed)
}

/// Replaces the page token and ends the line's pause.
pub async fn set_page_token(
    writer: &SqlitePool,
    line: LineId,
    page_token: &SecretString,
) -> Result<bool, StoreError> {
    sqlx::query(
        "update cd_v8_line set v8l_wa_api_key = ?2, v8l_paused_until = null, v8l_pause_reason = null
         where v8l_id = ?1",
    )
    .bind(line.0)
    .bind(page_token.expose_secret())
    .execute(writer)
    .await
    .map(|done| done.rows_affected() == 1)
    .map_err(failed)
}

/// A line of a class that this version does not know is left out.
fn records(rows: &[SqliteRow]) -> Result<Vec<LineRecord>, StoreError> {
    let now = Now::read();
    rows.iter().filter_map(|row| record(row, now).map_err(failed).transpose()).collect()
}

fn record(row: &SqliteRow, now: Now) -> Result<Option<LineRecord>, sqlx::Error> {
    let id = LineId(row.try_get("v8l_id")?);
    let class = match text(row, "class")?.unwrap_or_default().parse() {
        Ok(class) => class,
        Err(error) => {
            tracing::warn!(v8l_id = id.0, %error, "line left out");
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
        page_token: text(row, "page_token")?.filter(|token| !token.is_empty()).map(SecretString::from),
        page_id: text(row, "page_id")?,
        instagram_account_id: text(row, "instagram_account_id")?,
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
        tracing::warn!(v8l_id = line.0, "v8l_{column} is no positive number; the class's default holds");
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
            "v8l_paused_until is no RFC 3339 time; the line counts as not paused"
        );
    }
    Ok(end)
}

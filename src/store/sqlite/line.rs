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
use crate::channel::Login;
use crate::domain::{AccountId, LineId};
use crate::store::{LineRecord, LineSummary, StoreError};
use crate::text::seen;

/// The columns of a line but its token. The casts let every row be read, whatever its columns hold: a text that
/// is no UTF-8, a word in place of a number. The numbers are the characters of `text::is_unseen`.
macro_rules! summary_columns {
    () => {
        "l.v8l_id, cast(l.cdcs_id as integer) as cdcs_id, cast(l.v8l_name as blob) as name,
         cast(l.v8l_class as blob) as class, cast(l.v8l_active as integer) <> 0 as active,
         coalesce(cast(a.cdcs_active as integer), 0) <> 0 as account_active,
         coalesce(trim(cast(l.v8l_wa_api_key as text),
                       char(9, 10, 11, 12, 13, 32, 133, 160, 173, 847, 1564, 4447, 4448, 5760, 6068, 6069, 6158, 8192, 8193,
                            8194, 8195, 8196, 8197, 8198, 8199, 8200, 8201, 8202, 8203, 8204, 8205, 8206, 8207, 8232, 8233,
                            8234, 8235, 8236, 8237, 8238, 8239, 8287, 8288, 8289, 8290, 8291, 8292, 8293, 8294, 8295, 8296,
                            8297, 8298, 8299, 8300, 8301, 8302, 8303, 10240, 12288, 12644, 65279, 65440)) <> '', 0)
             as has_token,
         cast(l.v8l_fb_page_id as blob) as page_id, cast(l.v8l_ig_account_id as blob) as instagram_account_id,
         cast(l.v8l_graph as blob) as graph, cast(l.v8l_pat_expires_at as blob) as token_expires_at,
         cast(l.v8l_rate_text as integer) as rate_text, cast(l.v8l_rate_media as integer) as rate_media,
         cast(l.v8l_paused_until as blob) as paused_until, cast(l.v8l_pause_reason as blob) as pause_reason"
    };
}
pub(super) use summary_columns;

/// Lines without their tokens.
macro_rules! summary_select {
    () => {
        concat!(
            "select ",
            $crate::store::sqlite::line::summary_columns!(),
            " from cd_v8_line l left join account a on a.cdcs_id = l.cdcs_id "
        )
    };
}
pub(super) use summary_select;

/// Lines with their tokens.
macro_rules! line_select {
    () => {
        concat!(
            "select ",
            $crate::store::sqlite::line::summary_columns!(),
            ", cast(l.v8l_wa_api_key as blob) as page_token, cast(l.v8l_pat_version as integer) as token_version,
             cast(l.v8l_pat_error as blob) as token_error, cast(l.v8l_meta_app as blob) as meta_app,
             (select cast(m.secret as blob) from meta_app m where m.meta_app_id = l.v8l_meta_app) as app_secret
             from cd_v8_line l left join account a on a.cdcs_id = l.cdcs_id "
        )
    };
}
pub(super) use line_select;

/// Decode lines without their tokens. A line of a class unknown to this version is left out.
pub fn summaries(rows: &[SqliteRow]) -> Result<Vec<LineSummary>, StoreError> {
    let now = Now::read();
    rows.iter().filter_map(|row| summary(row, now).map_err(failed).transpose()).collect()
}

/// Decode lines with their tokens.
pub fn records(rows: &[SqliteRow]) -> Result<Vec<LineRecord>, StoreError> {
    let now = Now::read();
    rows.iter().filter_map(|row| record(row, now).map_err(failed).transpose()).collect()
}

fn summary(row: &SqliteRow, now: Now) -> Result<Option<LineSummary>, sqlx::Error> {
    let id = LineId(row.try_get("v8l_id")?);
    let class = match text(row, "class")?.unwrap_or_default().parse() {
        Ok(class) => class,
        Err(error) => {
            tracing::warn!(v8l_id = id.0, "skipped unreadable row: {error}");
            return Ok(None);
        }
    };
    let paused_until = pause_end(row, id)?;
    Ok(Some(LineSummary {
        id,
        account: AccountId(row.try_get("cdcs_id")?),
        name: text(row, "name")?,
        class,
        active: row.try_get("active")?,
        account_active: row.try_get("account_active")?,
        has_token: row.try_get("has_token")?,
        page_id: seen(text(row, "page_id")?),
        instagram_account_id: seen(text(row, "instagram_account_id")?),
        login: login(row, id)?,
        token_expires_at: token_end(row, id)?,
        rate_text: rate(row, id, "rate_text")?,
        rate_media: rate(row, id, "rate_media")?,
        paused_until,
        pause_left: paused_until
            .and_then(|until| Duration::try_from(now.until(until)).ok())
            .filter(|left| !left.is_zero()),
        pause_reason: text(row, "pause_reason")?,
    }))
}

fn record(row: &SqliteRow, now: Now) -> Result<Option<LineRecord>, sqlx::Error> {
    let Some(line) = summary(row, now)? else { return Ok(None) };
    Ok(Some(LineRecord {
        id: line.id,
        account: line.account,
        name: line.name,
        class: line.class,
        active: line.active,
        account_active: line.account_active,
        page_token: seen(text(row, "page_token")?).map(SecretString::from),
        page_id: line.page_id,
        instagram_account_id: line.instagram_account_id,
        login: line.login,
        token_expires_at: line.token_expires_at,
        token_version: row.try_get("token_version")?,
        token_error: text(row, "token_error")?,
        meta_app: seen(text(row, "meta_app")?),
        app_secret: seen(text(row, "app_secret")?).map(SecretString::from),
        rate_text: line.rate_text,
        rate_media: line.rate_media,
        paused_until: line.paused_until,
        pause_left: line.pause_left,
        pause_reason: line.pause_reason,
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

fn login(row: &SqliteRow, line: LineId) -> Result<Option<Login>, sqlx::Error> {
    let Some(word) = text(row, "graph")? else { return Ok(None) };
    let login = word.parse().ok();
    if login.is_none() {
        tracing::warn!(
            v8l_id = line.0,
            "v8l_graph is no known way to connect: the token of the line decides"
        );
    }
    Ok(login)
}

fn token_end(row: &SqliteRow, line: LineId) -> Result<Option<OffsetDateTime>, sqlx::Error> {
    let Some(text) = text(row, "token_expires_at")? else { return Ok(None) };
    let end = clock::parse(&text);
    if end.is_none() {
        tracing::warn!(
            v8l_id = line.0,
            "v8l_pat_expires_at is not an RFC 3339 time: the end of the token counts as not known"
        );
    }
    Ok(end)
}

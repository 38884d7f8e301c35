//! The life of tokens.
//!
//! Times are compared as times, not as texts: another program may have written them in another notation.

use std::time::Duration;

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use sqlx::sqlite::SqliteRow;
use time::OffsetDateTime;

use super::SqliteStore;
use super::clock::{self, Now};
use super::error::{begin, commit, failed};
use super::row::{get, numbers, readable};
use crate::channel::Class;
use crate::domain::{LineId, PARTITIONS, Partition};
use crate::store::{AgeingToken, EndingToken, RefreshStore, RefreshedToken, StoreError};
use crate::text::{is_blank, timestamp, trimmed};

#[async_trait]
impl RefreshStore for SqliteStore {
    async fn ageing_tokens(
        &self,
        partitions: &[Partition],
        within: Duration,
        limit: u32,
    ) -> Result<Vec<AgeingToken>, StoreError> {
        let found = sqlx::query(
            "select l.v8l_id, l.v8l_graph, cast(l.v8l_wa_api_key as blob) as page_token,
                    cast(l.v8l_pat_version as integer) as version, cast(l.v8l_pat_expires_at as blob) as expires_at,
                    cast(l.v8l_pat_refreshed_at as blob) as refreshed_at,
                    cast(l.v8l_pat_next_try_at as blob) as next_try_at
             from cd_v8_line l join account a using (cdcs_id)
             where l.v8l_active <> 0 and a.cdcs_active <> 0 and l.v8l_wa_api_key <> '' and l.v8l_class = ?1
               and (l.v8l_graph is null or l.v8l_graph = 'instagram')
               and l.v8l_id % ?2 in (select value from json_each(?3))
             order by l.v8l_id",
        )
        .bind(Class::INSTAGRAM.as_str())
        .bind(i64::from(PARTITIONS))
        .bind(numbers(partitions))
        .fetch_all(&self.reader)
        .await
        .map_err(failed)?;
        let now = Now::read();
        let mut tokens: Vec<AgeingToken> =
            readable(&found, |row| ageing(row, now)).into_iter().flatten().collect();
        tokens.retain(|token| token.left.is_none_or(|left| left <= within));
        tokens.sort_by_key(|token| (token.left.is_none(), token.left));
        tokens.truncate(limit as usize);
        Ok(tokens)
    }

    async fn put_off_refresh(
        &self,
        line: LineId,
        version: i64,
        next_try: Duration,
        error: Option<&str>,
    ) -> Result<bool, StoreError> {
        let (mut transaction, now) = begin(&self.writer).await?;
        let found: Option<Option<Vec<u8>>> = sqlx::query_scalar(
            "select cast(v8l_pat_next_try_at as blob) from cd_v8_line where v8l_id = ?1 and v8l_pat_version = ?2",
        )
        .bind(line.0)
        .bind(version)
        .fetch_optional(&mut *transaction)
        .await
        .map_err(failed)?;
        let is_due =
            found.is_some_and(|next| next.as_deref().and_then(time_of).is_none_or(|at| !now.is_before(at)));
        if !is_due {
            return Ok(false);
        }
        sqlx::query("update cd_v8_line set v8l_pat_next_try_at = ?2, v8l_pat_error = ?3 where v8l_id = ?1")
            .bind(line.0)
            .bind(now.after(next_try))
            .bind(error)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        commit(transaction).await?;
        Ok(true)
    }

    async fn note_refresh_failure(
        &self,
        line: LineId,
        version: i64,
        next_try: Duration,
        error: Option<&str>,
    ) -> Result<bool, StoreError> {
        sqlx::query(
            "update cd_v8_line set v8l_pat_next_try_at = ?3, v8l_pat_error = ?4
             where v8l_id = ?1 and v8l_pat_version = ?2",
        )
        .bind(line.0)
        .bind(version)
        .bind(Now::read().after(next_try))
        .bind(error)
        .execute(&self.writer)
        .await
        .map(|done| done.rows_affected() == 1)
        .map_err(failed)
    }

    async fn renew_token(
        &self,
        line: LineId,
        version: i64,
        token: &RefreshedToken,
    ) -> Result<bool, StoreError> {
        let now = Now::read();
        sqlx::query(
            "update cd_v8_line set v8l_wa_api_key = ?3, v8l_pat_version = v8l_pat_version + 1,
                 v8l_pat_expires_at = ?4, v8l_pat_refreshed_at = ?5, v8l_pat_next_try_at = ?6, v8l_pat_error = null
             where v8l_id = ?1 and v8l_pat_version = ?2",
        )
        .bind(line.0)
        .bind(version)
        .bind(token.text.expose_secret())
        .bind(token.valid_for.map(|valid_for| now.after(valid_for)))
        .bind(now.text())
        .bind(now.after(token.next_try))
        .execute(&self.writer)
        .await
        .map(|done| done.rows_affected() == 1)
        .map_err(failed)
    }

    async fn note_token_end(
        &self,
        line: LineId,
        version: i64,
        expires_at: Option<OffsetDateTime>,
    ) -> Result<bool, StoreError> {
        sqlx::query(
            "update cd_v8_line set v8l_pat_expires_at = ?3, v8l_pat_next_try_at = null
             where v8l_id = ?1 and v8l_pat_version = ?2",
        )
        .bind(line.0)
        .bind(version)
        .bind(expires_at.map(timestamp))
        .execute(&self.writer)
        .await
        .map(|done| done.rows_affected() == 1)
        .map_err(failed)
    }

    async fn ending_tokens(&self, within: Duration, limit: u32) -> Result<Vec<EndingToken>, StoreError> {
        let found = sqlx::query(
            "select l.v8l_id, cast(l.v8l_pat_expires_at as blob) as expires_at,
                    cast(l.v8l_pat_error as blob) as error
             from cd_v8_line l join account a using (cdcs_id)
             where l.v8l_active <> 0 and a.cdcs_active <> 0 and l.v8l_wa_api_key <> ''
               and l.v8l_pat_expires_at is not null
             order by l.v8l_id",
        )
        .fetch_all(&self.reader)
        .await
        .map_err(failed)?;
        let now = Now::read();
        let mut tokens: Vec<EndingToken> =
            readable(&found, |row| ending(row, now)).into_iter().flatten().collect();
        tokens.retain(|token| token.left <= within);
        tokens.sort_by_key(|token| (token.expires_at, token.line));
        tokens.truncate(limit as usize);
        Ok(tokens)
    }
}

fn time_of(bytes: &[u8]) -> Option<OffsetDateTime> {
    clock::parse(&String::from_utf8_lossy(bytes))
}

/// Return the time of a column; a text that is no time counts as none.
fn time_in(row: &SqliteRow, column: &str) -> Result<Option<OffsetDateTime>, StoreError> {
    let bytes: Option<&[u8]> = get(row, column)?;
    Ok(bytes.and_then(time_of))
}

/// Return the token of a row, if its next try is due.
fn ageing(row: &SqliteRow, now: Now) -> Result<Option<AgeingToken>, StoreError> {
    let bytes: &[u8] = get(row, "page_token")?;
    let text = String::from_utf8_lossy(bytes);
    let is_due = time_in(row, "next_try_at")?.is_none_or(|at| !now.is_before(at));
    if is_blank(&text) || !is_due {
        return Ok(None);
    }
    let login: Option<&str> = get(row, "v8l_graph")?;
    Ok(Some(AgeingToken {
        line: LineId(get(row, "v8l_id")?),
        login: login.and_then(|word| word.parse().ok()),
        text: SecretString::from(trimmed(&text)),
        version: get(row, "version")?,
        left: time_in(row, "expires_at")?.map(|at| now.until(at).try_into().unwrap_or_default()),
        held: time_in(row, "refreshed_at")?.map(|at| (now.time() - at).try_into().unwrap_or_default()),
    }))
}

fn ending(row: &SqliteRow, now: Now) -> Result<Option<EndingToken>, StoreError> {
    let Some(expires_at) = time_in(row, "expires_at")? else { return Ok(None) };
    let error: Option<&[u8]> = get(row, "error")?;
    Ok(Some(EndingToken {
        line: LineId(get(row, "v8l_id")?),
        expires_at,
        left: now.until(expires_at).try_into().unwrap_or_default(),
        error: error.map(|bytes| String::from_utf8_lossy(bytes).into_owned()),
    }))
}

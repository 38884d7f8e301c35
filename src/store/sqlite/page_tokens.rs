//! Page tokens as stored, and the pauses of lines whose token cannot be opened.
//!
//! Other programs may have written a token as a blob: the bytes are read and compared.

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};

use super::SqliteStore;
use super::error::failed;
use super::row::{get, readable};
use crate::domain::LineId;
use crate::store::{PageTokenStore, StoreError, StoredPageToken};
use crate::text::is_blank;

#[async_trait]
impl PageTokenStore for SqliteStore {
    async fn page_tokens(&self, after: LineId, limit: u32) -> Result<Vec<StoredPageToken>, StoreError> {
        let mut after = after;
        loop {
            let found = sqlx::query(
                "select v8l_id, cast(v8l_wa_api_key as blob) as page_token from cd_v8_line
                 where v8l_id > ?1 and v8l_wa_api_key <> '' order by v8l_id limit ?2",
            )
            .bind(after.0)
            .bind(limit)
            .fetch_all(&self.reader)
            .await
            .map_err(failed)?;
            let stored = readable(&found, |row| {
                let bytes: &[u8] = get(row, "page_token")?;
                let text = String::from_utf8_lossy(bytes).into_owned();
                Ok(StoredPageToken { line: LineId(get(row, "v8l_id")?), text: text.into() })
            });
            let Some(last) = stored.last().map(|token| token.line) else { return Ok(Vec::new()) };
            let seen: Vec<StoredPageToken> =
                stored.into_iter().filter(|token| !is_blank(token.text.expose_secret())).collect();
            // None at all means to the caller that no line is left.
            if !seen.is_empty() {
                return Ok(seen);
            }
            after = last;
        }
    }

    async fn swap_page_token(
        &self,
        line: LineId,
        old: &SecretString,
        new: &SecretString,
    ) -> Result<bool, StoreError> {
        // The same token in another form: the known facts about it stay.
        sqlx::query(
            "update cd_v8_line set v8l_wa_api_key = ?3, v8l_pat_version = v8l_pat_version + 1
             where v8l_id = ?1 and cast(v8l_wa_api_key as blob) = cast(?2 as blob)",
        )
        .bind(line.0)
        .bind(old.expose_secret())
        .bind(new.expose_secret())
        .execute(&self.writer)
        .await
        .map(|done| done.rows_affected() == 1)
        .map_err(failed)
    }

    async fn lines_paused_for(&self, reason: &str) -> Result<Vec<LineId>, StoreError> {
        let ids: Vec<i64> = sqlx::query_scalar(
            "select v8l_id from cd_v8_line
             where v8l_paused_until is not null and substr(v8l_pause_reason, 1, length(?1)) = ?1",
        )
        .bind(reason)
        .fetch_all(&self.reader)
        .await
        .map_err(failed)?;
        Ok(ids.into_iter().map(LineId).collect())
    }

    async fn end_pause(&self, line: LineId, reason: &str) -> Result<bool, StoreError> {
        sqlx::query(
            "update cd_v8_line set v8l_paused_until = null, v8l_pause_reason = null
             where v8l_id = ?1 and v8l_pause_reason = ?2",
        )
        .bind(line.0)
        .bind(reason)
        .execute(&self.writer)
        .await
        .map(|done| done.rows_affected() == 1)
        .map_err(failed)
    }
}

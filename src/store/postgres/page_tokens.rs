//! Page tokens as stored, and the pauses of lines whose token cannot be opened.

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::PgRow;

use super::PostgresStore;
use super::error::failed;
use super::rows;
use crate::domain::LineId;
use crate::store::{PageTokenStore, StoreError, StoredPageToken};

#[async_trait]
impl PageTokenStore for PostgresStore {
    async fn page_tokens(&self, after: LineId, limit: u32) -> Result<Vec<StoredPageToken>, StoreError> {
        let found = sqlx::query(
            "select v8l_id, v8l_wa_api_key from cd_v8_line where v8l_id > $1 and v8l_has_token
             order by v8l_id limit $2",
        )
        .bind(after.0)
        .bind(i64::from(limit))
        .fetch_all(&self.background)
        .await
        .map_err(failed)?;
        found.iter().map(stored).collect()
    }

    async fn swap_page_token(
        &self,
        line: LineId,
        old: &SecretString,
        new: &SecretString,
    ) -> Result<bool, StoreError> {
        // The same token in another form: the known facts about it stay.
        sqlx::query(
            "update cd_v8_line set v8l_wa_api_key = $3, v8l_pat_version = v8l_pat_version + 1
             where v8l_id = $1 and v8l_wa_api_key = $2",
        )
        .bind(line.0)
        .bind(old.expose_secret())
        .bind(new.expose_secret())
        .execute(&self.background)
        .await
        .map(|done| done.rows_affected() == 1)
        .map_err(failed)
    }

    async fn lines_paused_for(&self, reason: &str) -> Result<Vec<LineId>, StoreError> {
        let ids: Vec<i64> = sqlx::query_scalar(
            "select v8l_id from cd_v8_line
             where v8l_paused_until > now() and left(v8l_pause_reason, length($1::text)) = $1::text",
        )
        .bind(reason)
        .fetch_all(&self.background)
        .await
        .map_err(failed)?;
        Ok(ids.into_iter().map(LineId).collect())
    }

    async fn end_pause(&self, line: LineId, reason: &str) -> Result<bool, StoreError> {
        sqlx::query(
            "update cd_v8_line set v8l_paused_until = null, v8l_pause_reason = null
             where v8l_id = $1 and v8l_pause_reason = $2",
        )
        .bind(line.0)
        .bind(reason)
        .execute(&self.dispatch)
        .await
        .map(|done| done.rows_affected() == 1)
        .map_err(failed)
    }
}

fn stored(row: &PgRow) -> Result<StoredPageToken, StoreError> {
    let text: String = rows::get(row, "v8l_wa_api_key")?;
    Ok(StoredPageToken { line: LineId(rows::get(row, "v8l_id")?), text: text.into() })
}

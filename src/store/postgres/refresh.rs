//! The life of tokens.

use std::time::Duration;

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::PgRow;
use time::OffsetDateTime;

use super::PostgresStore;
use super::error::failed;
use super::parameters::{length, milliseconds, numbers};
use super::rows::{self, readable};
use crate::channel::Class;
use crate::domain::{LineId, PARTITIONS, Partition};
use crate::store::{AgeingToken, EndingToken, RefreshStore, RefreshedToken, StoreError};
use crate::text::trimmed;

#[async_trait]
impl RefreshStore for PostgresStore {
    async fn ageing_tokens(
        &self,
        partitions: &[Partition],
        within: Duration,
        limit: u32,
    ) -> Result<Vec<AgeingToken>, StoreError> {
        let found = sqlx::query(
            "select l.v8l_id, l.v8l_graph, l.v8l_wa_api_key, l.v8l_pat_version,
                    case when isfinite(l.v8l_pat_expires_at)
                         then (extract(epoch from l.v8l_pat_expires_at - now()) * 1000)::bigint end as left_ms,
                    case when isfinite(l.v8l_pat_refreshed_at)
                         then (extract(epoch from now() - l.v8l_pat_refreshed_at) * 1000)::bigint end as held_ms
             from cd_v8_line l join account a using (cdcs_id)
             where l.v8l_active and a.cdcs_active and l.v8l_has_token and l.v8l_class = $1
               and (l.v8l_graph is null or l.v8l_graph = 'instagram')
               and (l.v8l_id % $2)::smallint = any ($3)
               and (l.v8l_pat_next_try_at is null or l.v8l_pat_next_try_at <= now())
               and (l.v8l_pat_expires_at is null or l.v8l_pat_expires_at <= now() + $4 * interval '1 millisecond')
             order by l.v8l_pat_expires_at nulls last, l.v8l_id limit $5",
        )
        .bind(Class::INSTAGRAM.as_str())
        .bind(i64::from(PARTITIONS))
        .bind(numbers(partitions))
        .bind(milliseconds(within))
        .bind(i64::from(limit))
        .fetch_all(&self.background)
        .await
        .map_err(failed)?;
        Ok(readable(&found, ageing))
    }

    async fn put_off_refresh(
        &self,
        line: LineId,
        version: i64,
        next_try: Duration,
        error: Option<&str>,
    ) -> Result<bool, StoreError> {
        sqlx::query(
            "update cd_v8_line set v8l_pat_next_try_at = now() + $3 * interval '1 millisecond', v8l_pat_error = $4
             where v8l_id = $1 and v8l_pat_version = $2
               and (v8l_pat_next_try_at is null or v8l_pat_next_try_at <= now())",
        )
        .bind(line.0)
        .bind(version)
        .bind(milliseconds(next_try))
        .bind(error)
        .execute(&self.background)
        .await
        .map(|done| done.rows_affected() == 1)
        .map_err(failed)
    }

    async fn note_refresh_failure(
        &self,
        line: LineId,
        version: i64,
        next_try: Duration,
        error: Option<&str>,
    ) -> Result<bool, StoreError> {
        sqlx::query(
            "update cd_v8_line set v8l_pat_next_try_at = now() + $3 * interval '1 millisecond', v8l_pat_error = $4
             where v8l_id = $1 and v8l_pat_version = $2",
        )
        .bind(line.0)
        .bind(version)
        .bind(milliseconds(next_try))
        .bind(error)
        .execute(&self.background)
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
        sqlx::query(
            "update cd_v8_line set v8l_wa_api_key = $3, v8l_pat_version = v8l_pat_version + 1,
                 v8l_pat_expires_at = now() + $4 * interval '1 millisecond', v8l_pat_refreshed_at = now(),
                 v8l_pat_next_try_at = now() + $5 * interval '1 millisecond', v8l_pat_error = null
             where v8l_id = $1 and v8l_pat_version = $2",
        )
        .bind(line.0)
        .bind(version)
        .bind(token.text.expose_secret())
        .bind(token.valid_for.map(milliseconds))
        .bind(milliseconds(token.next_try))
        .execute(&self.background)
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
            "update cd_v8_line set v8l_pat_expires_at = $3, v8l_pat_next_try_at = null
             where v8l_id = $1 and v8l_pat_version = $2",
        )
        .bind(line.0)
        .bind(version)
        .bind(expires_at)
        .execute(&self.background)
        .await
        .map(|done| done.rows_affected() == 1)
        .map_err(failed)
    }

    async fn ending_tokens(&self, within: Duration, limit: u32) -> Result<Vec<EndingToken>, StoreError> {
        let found = sqlx::query(
            "select l.v8l_id, l.v8l_pat_expires_at, l.v8l_pat_error,
                    (extract(epoch from l.v8l_pat_expires_at - now()) * 1000)::bigint as left_ms
             from cd_v8_line l join account a using (cdcs_id)
             where l.v8l_active and a.cdcs_active and l.v8l_has_token and isfinite(l.v8l_pat_expires_at)
               and l.v8l_pat_expires_at <= now() + $1 * interval '1 millisecond'
             order by l.v8l_pat_expires_at, l.v8l_id limit $2",
        )
        .bind(milliseconds(within))
        .bind(i64::from(limit))
        .fetch_all(&self.background)
        .await
        .map_err(failed)?;
        Ok(readable(&found, ending))
    }
}

fn ageing(row: &PgRow) -> Result<AgeingToken, StoreError> {
    let text: String = rows::get(row, "v8l_wa_api_key")?;
    Ok(AgeingToken {
        line: LineId(rows::get(row, "v8l_id")?),
        login: rows::optional_word(row, "v8l_graph")?,
        text: SecretString::from(trimmed(&text)),
        version: rows::get(row, "v8l_pat_version")?,
        left: rows::get::<Option<i64>>(row, "left_ms")?.map(length),
        held: rows::get::<Option<i64>>(row, "held_ms")?.map(length),
    })
}

fn ending(row: &PgRow) -> Result<EndingToken, StoreError> {
    Ok(EndingToken {
        line: LineId(rows::get(row, "v8l_id")?),
        expires_at: rows::get(row, "v8l_pat_expires_at")?,
        left: length(rows::get(row, "left_ms")?),
        error: rows::get(row, "v8l_pat_error")?,
    })
}

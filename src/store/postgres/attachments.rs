//! The assets that lines have uploaded to Meta.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::PgRow;

use super::PostgresStore;
use super::error::failed;
use super::parameters::{length, milliseconds};
use super::pool::Pool;
use super::rows;
use crate::domain::{ErrorDetail, LineId};
use crate::store::{
    AttachmentFilter, AttachmentKey, AttachmentRow, AttachmentState, AttachmentStore, MAX_ATTACHMENTS,
    StoreError, UploadClaim, UploadEnd, UploadTurn, url_hash,
};

/// The row of an asset, unless its time has passed or its id is $4. Without a lock: lines look often.
const LOOK: &str = "
    select state, attachment_id, status_code, error_code, error_subcode, error_message, fbtrace_id,
           (extract(epoch from until - now()) * 1000)::bigint as left_ms
    from attachment
    where v8l_id = $1 and kind = $2 and url_hash = $3 and until > now()
      and (attachment_id is null or $4::text is null or attachment_id <> $4)";

/// Give the upload to holder $5 for $6 milliseconds, unless the asset has a row that [`LOOK`] finds.
const CLAIM: &str = "
    insert into attachment as a (v8l_id, kind, url_hash, url, state, holder, until)
    values ($1, $2, $3, $7, 'uploading', $5, now() + $6 * interval '1 millisecond')
    on conflict (v8l_id, kind, url_hash) do update set
        state = 'uploading', holder = excluded.holder, until = excluded.until, attachment_id = null, status_code = null,
        error_code = null, error_subcode = null, error_message = null, fbtrace_id = null, changed_at = now()
    where a.until <= now() or a.attachment_id = $4
    returning true";

/// Forms of a filter: line $1, hash $2 and URL $3; each may be null.
const FILTER: &str =
    "($1::bigint is null or v8l_id = $1) and ($3::text is null or url_hash = $2 or url = $3)";

#[async_trait]
impl AttachmentStore for PostgresStore {
    async fn begin_upload(&self, claim: &UploadClaim<'_>) -> Result<UploadTurn, StoreError> {
        if let Some(turn) = look(&self.dispatch, claim).await? {
            return Ok(turn);
        }
        let claimed: Option<bool> = sqlx::query_scalar(CLAIM)
            .bind(claim.key.line.0)
            .bind(claim.key.kind.as_str())
            .bind(claim.key.url_hash())
            .bind(claim.refused_id)
            .bind(claim.holder)
            .bind(milliseconds(claim.lease))
            .bind(claim.key.shown_url())
            .fetch_optional(&self.dispatch)
            .await
            .map_err(failed)?;
        // Another holder was faster: the caller asks again.
        Ok(claimed.map_or(UploadTurn::Elsewhere, |_| UploadTurn::Ours))
    }

    async fn renew_upload(
        &self,
        key: &AttachmentKey,
        holder: &str,
        lease: Duration,
    ) -> Result<bool, StoreError> {
        sqlx::query(
            "update attachment set until = now() + $5 * interval '1 millisecond'
             where v8l_id = $1 and kind = $2 and url_hash = $3 and holder = $4 and state = 'uploading'",
        )
        .bind(key.line.0)
        .bind(key.kind.as_str())
        .bind(key.url_hash())
        .bind(holder)
        .bind(milliseconds(lease))
        .execute(&self.dispatch)
        .await
        .map(|done| done.rows_affected() == 1)
        .map_err(failed)
    }

    async fn end_upload(
        &self,
        key: &AttachmentKey,
        holder: &str,
        end: &UploadEnd,
    ) -> Result<bool, StoreError> {
        let Some((state, valid_for, attachment_id, error)) = end.values() else {
            return drop_claim(&self.dispatch, key, holder).await;
        };
        sqlx::query(
            "update attachment set
                 state = $5, until = now() + $6 * interval '1 millisecond', holder = null, attachment_id = $7,
                 status_code = $8, error_code = $9, error_subcode = $10, error_message = $11, fbtrace_id = $12,
                 changed_at = now()
             where v8l_id = $1 and kind = $2 and url_hash = $3 and holder = $4 and state = 'uploading'",
        )
        .bind(key.line.0)
        .bind(key.kind.as_str())
        .bind(key.url_hash())
        .bind(holder)
        .bind(state.as_str())
        .bind(milliseconds(valid_for))
        .bind(attachment_id)
        .bind(error.and_then(|error| error.http_status))
        .bind(error.and_then(|error| error.code))
        .bind(error.and_then(|error| error.subcode))
        .bind(error.map(|error| error.message.replace('\0', "")))
        .bind(error.and_then(|error| error.fbtrace_id.as_ref()).map(|id| id.replace('\0', "")))
        .execute(&self.dispatch)
        .await
        .map(|done| done.rows_affected() == 1)
        .map_err(failed)
    }

    async fn attachments(&self, filter: &AttachmentFilter) -> Result<Vec<AttachmentRow>, StoreError> {
        let statement = format!(
            "select v8l_id, kind, url, state, attachment_id, changed_at, until, error_code, error_subcode, error_message
             from attachment where until > now() and {FILTER} order by changed_at desc, v8l_id, url limit $4"
        );
        let found = sqlx::query(&statement)
            .bind(filter.line.map(|line| line.0))
            .bind(filter.url.as_deref().map(url_hash))
            .bind(filter.url.as_deref())
            .bind(i64::from(MAX_ATTACHMENTS))
            .fetch_all(&self.background)
            .await
            .map_err(failed)?;
        Ok(rows::readable(&found, listed))
    }

    async fn forget_attachments(&self, filter: &AttachmentFilter) -> Result<u64, StoreError> {
        sqlx::query(&format!("delete from attachment where {FILTER}"))
            .bind(filter.line.map(|line| line.0))
            .bind(filter.url.as_deref().map(url_hash))
            .bind(filter.url.as_deref())
            .execute(&self.background)
            .await
            .map(|done| done.rows_affected())
            .map_err(failed)
    }

    async fn drop_ended_attachments(&self) -> Result<u64, StoreError> {
        sqlx::query("delete from attachment where until <= now()")
            .execute(&self.background)
            .await
            .map(|done| done.rows_affected())
            .map_err(failed)
    }
}

async fn look(pool: &Pool, claim: &UploadClaim<'_>) -> Result<Option<UploadTurn>, StoreError> {
    let found = sqlx::query(LOOK)
        .bind(claim.key.line.0)
        .bind(claim.key.kind.as_str())
        .bind(claim.key.url_hash())
        .bind(claim.refused_id)
        .fetch_optional(pool)
        .await
        .map_err(failed)?;
    found.as_ref().map(turn).transpose()
}

fn turn(row: &PgRow) -> Result<UploadTurn, StoreError> {
    let left = length(rows::get(row, "left_ms")?);
    Ok(match rows::word::<AttachmentState>(row, "state")? {
        AttachmentState::Uploading => UploadTurn::Elsewhere,
        AttachmentState::Ready => {
            let id: Option<String> = rows::get(row, "attachment_id")?;
            UploadTurn::Ready { attachment_id: id.unwrap_or_default(), left }
        }
        AttachmentState::Unfetchable => {
            let message: Option<String> = rows::get(row, "error_message")?;
            let error = ErrorDetail {
                http_status: rows::get(row, "status_code")?,
                code: rows::get(row, "error_code")?,
                subcode: rows::get(row, "error_subcode")?,
                message: message.unwrap_or_default(),
                fbtrace_id: rows::get(row, "fbtrace_id")?,
            };
            UploadTurn::Unfetchable { error, left }
        }
    })
}

fn listed(row: &PgRow) -> Result<AttachmentRow, StoreError> {
    Ok(AttachmentRow {
        v8l_id: LineId(rows::get(row, "v8l_id")?),
        kind: rows::word(row, "kind")?,
        url: rows::get(row, "url")?,
        state: rows::word(row, "state")?,
        attachment_id: rows::get(row, "attachment_id")?,
        changed_at: rows::get(row, "changed_at")?,
        until: rows::get(row, "until")?,
        error_code: rows::get(row, "error_code")?,
        error_subcode: rows::get(row, "error_subcode")?,
        error_message: rows::get(row, "error_message")?,
    })
}

async fn drop_claim(pool: &Pool, key: &AttachmentKey, holder: &str) -> Result<bool, StoreError> {
    sqlx::query(
        "delete from attachment
         where v8l_id = $1 and kind = $2 and url_hash = $3 and holder = $4 and state = 'uploading'",
    )
    .bind(key.line.0)
    .bind(key.kind.as_str())
    .bind(key.url_hash())
    .bind(holder)
    .execute(pool)
    .await
    .map(|done| done.rows_affected() == 1)
    .map_err(failed)
}

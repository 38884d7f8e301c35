//! The assets that lines have uploaded to Meta.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::SqlitePool;
use sqlx::sqlite::SqliteRow;

use super::SqliteStore;
use super::clock::Now;
use super::error::failed;
use super::row::{get, readable, time, word};
use crate::domain::{ErrorDetail, LineId};
use crate::store::{
    AttachmentFilter, AttachmentKey, AttachmentRow, AttachmentState, AttachmentStore, MAX_ATTACHMENTS,
    StoreError, UploadClaim, UploadEnd, UploadTurn, url_hash,
};

/// The row of an asset, unless its time has passed or its id is ?4.
const LOOK: &str = "
    select state, attachment_id, status_code, error_code, error_subcode, error_message, fbtrace_id, until
    from attachment
    where v8l_id = ?1 and kind = ?2 and url_hash = ?3 and until > ?5
      and (attachment_id is null or ?4 is null or attachment_id <> ?4)";

/// Give the upload to holder ?5 until ?6, unless the asset has a row that [`LOOK`] finds.
const CLAIM: &str = "
    insert into attachment (v8l_id, kind, url_hash, url, state, holder, until, changed_at)
    values (?1, ?2, ?3, ?7, 'uploading', ?5, ?6, ?8)
    on conflict (v8l_id, kind, url_hash) do update set
        state = 'uploading', holder = excluded.holder, until = excluded.until, attachment_id = null, status_code = null,
        error_code = null, error_subcode = null, error_message = null, fbtrace_id = null, changed_at = excluded.changed_at
    where attachment.until <= ?8 or attachment.attachment_id = ?4";

/// Forms of a filter: line ?1, hash ?2 and URL ?3; each may be null.
const FILTER: &str = "(?1 is null or v8l_id = ?1) and (?3 is null or url_hash = ?2 or url = ?3)";

#[async_trait]
impl AttachmentStore for SqliteStore {
    async fn begin_upload(&self, claim: &UploadClaim<'_>) -> Result<UploadTurn, StoreError> {
        if let Some(turn) = look(&self.reader, claim).await? {
            return Ok(turn);
        }
        let now = Now::read();
        let claimed = sqlx::query(CLAIM)
            .bind(claim.key.line.0)
            .bind(claim.key.kind.as_str())
            .bind(claim.key.url_hash())
            .bind(claim.refused_id)
            .bind(claim.holder)
            .bind(now.after(claim.lease))
            .bind(claim.key.shown_url())
            .bind(now.text())
            .execute(&self.writer)
            .await
            .map_err(failed)?;
        // Without a row another holder was faster: the caller asks again.
        Ok(if claimed.rows_affected() == 1 { UploadTurn::Ours } else { UploadTurn::Elsewhere })
    }

    async fn renew_upload(
        &self,
        key: &AttachmentKey,
        holder: &str,
        lease: Duration,
    ) -> Result<bool, StoreError> {
        sqlx::query(
            "update attachment set until = ?5
             where v8l_id = ?1 and kind = ?2 and url_hash = ?3 and holder = ?4 and state = 'uploading'",
        )
        .bind(key.line.0)
        .bind(key.kind.as_str())
        .bind(key.url_hash())
        .bind(holder)
        .bind(Now::read().after(lease))
        .execute(&self.writer)
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
            return drop_claim(&self.writer, key, holder).await;
        };
        let now = Now::read();
        sqlx::query(
            "update attachment set
                 state = ?5, until = ?6, holder = null, attachment_id = ?7, status_code = ?8, error_code = ?9,
                 error_subcode = ?10, error_message = ?11, fbtrace_id = ?12, changed_at = ?13
             where v8l_id = ?1 and kind = ?2 and url_hash = ?3 and holder = ?4 and state = 'uploading'",
        )
        .bind(key.line.0)
        .bind(key.kind.as_str())
        .bind(key.url_hash())
        .bind(holder)
        .bind(state.as_str())
        .bind(now.after(valid_for))
        .bind(attachment_id)
        .bind(error.and_then(|error| error.http_status))
        .bind(error.and_then(|error| error.code))
        .bind(error.and_then(|error| error.subcode))
        .bind(error.map(|error| error.message.as_str()))
        .bind(error.and_then(|error| error.fbtrace_id.as_deref()))
        .bind(now.text())
        .execute(&self.writer)
        .await
        .map(|done| done.rows_affected() == 1)
        .map_err(failed)
    }

    async fn attachments(&self, filter: &AttachmentFilter) -> Result<Vec<AttachmentRow>, StoreError> {
        let statement = format!(
            "select v8l_id, kind, url, state, attachment_id, changed_at, until, error_code, error_subcode, error_message
             from attachment where until > ?4 and {FILTER} order by changed_at desc, v8l_id, url limit ?5"
        );
        let found = sqlx::query(&statement)
            .bind(filter.line.map(|line| line.0))
            .bind(filter.url.as_deref().map(url_hash))
            .bind(filter.url.as_deref())
            .bind(Now::read().text())
            .bind(MAX_ATTACHMENTS)
            .fetch_all(&self.reader)
            .await
            .map_err(failed)?;
        Ok(readable(&found, listed))
    }

    async fn forget_attachments(&self, filter: &AttachmentFilter) -> Result<u64, StoreError> {
        sqlx::query(&format!("delete from attachment where {FILTER}"))
            .bind(filter.line.map(|line| line.0))
            .bind(filter.url.as_deref().map(url_hash))
            .bind(filter.url.as_deref())
            .execute(&self.writer)
            .await
            .map(|done| done.rows_affected())
            .map_err(failed)
    }

    async fn drop_ended_attachments(&self) -> Result<u64, StoreError> {
        sqlx::query("delete from attachment where until <= ?1")
            .bind(Now::read().text())
            .execute(&self.writer)
            .await
            .map(|done| done.rows_affected())
            .map_err(failed)
    }
}

async fn look(reader: &SqlitePool, claim: &UploadClaim<'_>) -> Result<Option<UploadTurn>, StoreError> {
    let now = Now::read();
    let found = sqlx::query(LOOK)
        .bind(claim.key.line.0)
        .bind(claim.key.kind.as_str())
        .bind(claim.key.url_hash())
        .bind(claim.refused_id)
        .bind(now.text())
        .fetch_optional(reader)
        .await
        .map_err(failed)?;
    found.as_ref().map(|row| turn(row, now)).transpose()
}

fn turn(row: &SqliteRow, now: Now) -> Result<UploadTurn, StoreError> {
    let left: Duration = now.until(time(row, "until")?).try_into().unwrap_or_default();
    Ok(match word::<AttachmentState>(row, "state")? {
        AttachmentState::Uploading => UploadTurn::Elsewhere,
        AttachmentState::Ready => {
            let id: Option<String> = get(row, "attachment_id")?;
            UploadTurn::Ready { attachment_id: id.unwrap_or_default(), left }
        }
        AttachmentState::Unfetchable => {
            let message: Option<String> = get(row, "error_message")?;
            let error = ErrorDetail {
                http_status: get(row, "status_code")?,
                code: get(row, "error_code")?,
                subcode: get(row, "error_subcode")?,
                message: message.unwrap_or_default(),
                fbtrace_id: get(row, "fbtrace_id")?,
            };
            UploadTurn::Unfetchable { error, left }
        }
    })
}

fn listed(row: &SqliteRow) -> Result<AttachmentRow, StoreError> {
    Ok(AttachmentRow {
        v8l_id: LineId(get(row, "v8l_id")?),
        kind: word(row, "kind")?,
        url: get(row, "url")?,
        state: word(row, "state")?,
        attachment_id: get(row, "attachment_id")?,
        changed_at: time(row, "changed_at")?,
        until: time(row, "until")?,
        error_code: get(row, "error_code")?,
        error_subcode: get(row, "error_subcode")?,
        error_message: get(row, "error_message")?,
    })
}

async fn drop_claim(writer: &SqlitePool, key: &AttachmentKey, holder: &str) -> Result<bool, StoreError> {
    sqlx::query(
        "delete from attachment
         where v8l_id = ?1 and kind = ?2 and url_hash = ?3 and holder = ?4 and state = 'uploading'",
    )
    .bind(key.line.0)
    .bind(key.kind.as_str())
    .bind(key.url_hash())
    .bind(holder)
    .execute(writer)
    .await
    .map(|done| done.rows_affected() == 1)
    .map_err(failed)
}

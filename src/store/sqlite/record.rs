//! The recorder's transaction: changes first, then claims.

use sqlx::{Sqlite, Transaction};

use super::rows::now;
use super::{after, failed};
use crate::message::Status;
use crate::store::{Change, Claim, Recorded, StoreError};

/// `?17` is the list of statuses the change may leave; no status is part of another's name.
const CHANGE: &str = concat!(
    "update cdls set
        status = coalesce(?3, status),
        status_code = coalesce(?4, status_code),
        message_id = coalesce(?5, message_id),
        error_code = case when ?6 then ?7 else error_code end,
        error_subcode = case when ?6 then ?8 else error_subcode end,
        error_message = case when ?6 then ?9 else error_message end,
        fbtrace_id = case when ?6 then ?10 else fbtrace_id end,
        error_kind = coalesce(?11, error_kind),
        attempts = attempts + ?12,
        tries = tries + ?13,
        ambiguous_attempts = ambiguous_attempts + ?14,
        next_at = case when ?15 is not null then strftime('%Y-%m-%dT%H:%M:%fZ', 'now', ?15) end,
        done_at = case when ?16 then ",
    now!(),
    " else done_at end,
        call_deadline = null,
        worker = null
     where cdls_id = ?1 and fence = ?2 and instr(?17, status) > 0"
);

/// A claim needs the lease of the row's partition at this moment.
const CLAIM: &str = concat!(
    "update cdls set status = 'SENDING', fence = fence + 1, attempts = attempts + 1, sent_at = ",
    now!(),
    ", worker = ?3, call_deadline = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', ?4)
     where cdls_id = ?1 and fence = ?2 and status in ('PENDING', 'RETRY') and next_at is null and expires_at > ",
    now!(),
    " and exists (select 1 from partition_lease l where l.partition_no = cdls.partition_no and l.owner = ?3
                  and l.expires_at > ",
    now!(),
    ")"
);

pub async fn record(
    mut transaction: Transaction<'static, Sqlite>,
    worker: &str,
    changes: &[Change],
    claims: &[Claim],
) -> Result<Recorded, StoreError> {
    let mut recorded = Recorded::default();
    for change in changes {
        let row = change.row();
        let leaves = row.from.iter().map(|status| status.as_str()).collect::<Vec<_>>().join(" ");
        let done = sqlx::query(CHANGE)
            .bind(row.id)
            .bind(row.fence)
            .bind(row.to.map(Status::as_str))
            .bind(row.status_code)
            .bind(row.message_id)
            .bind(row.writes_error)
            .bind(row.error_code)
            .bind(row.error_subcode)
            .bind(row.error_message)
            .bind(row.fbtrace_id)
            .bind(row.error_kind)
            .bind(row.add_attempts)
            .bind(row.add_tries)
            .bind(row.add_ambiguous)
            .bind(row.next_after_ms.map(|ms| after(std::time::Duration::from_millis(ms.max(0) as u64))))
            .bind(row.done)
            .bind(leaves)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        recorded.changed.push(done.rows_affected() > 0);
    }
    for claim in claims {
        let done = sqlx::query(CLAIM)
            .bind(claim.id.0)
            .bind(claim.fence)
            .bind(worker)
            .bind(after(claim.call_deadline))
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        recorded.claimed.push(done.rows_affected() > 0);
    }
    transaction.commit().await.map_err(failed)?;
    Ok(recorded)
}

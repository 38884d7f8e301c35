//! The recorder's transaction: results first, then claims, all or none.
//!
//! A row in the wrong state, with another fence or under a lost lease matches nothing; that is an answer, not an error.

use std::time::Duration;

use sqlx::{SqliteConnection, SqlitePool};

use super::clock::Now;
use super::error::{begin, commit, failed};
use crate::store::{Change, Claim, Recorded, RowChange, StoreError};

/// No change leaves a row claimed, so each one ends the claim. ?3 holds the allowed states, each between commas.
const CHANGE: &str = "
update cdls set
    status = coalesce(?4, status),
    status_code = coalesce(?5, status_code),
    message_id = coalesce(?6, message_id),
    error_code = iif(?7, ?8, error_code),
    error_subcode = iif(?7, ?9, error_subcode),
    error_kind = iif(?7, ?10, coalesce(?10, error_kind)),
    error_message = iif(?7, ?11, error_message),
    fbtrace_id = iif(?7, ?12, fbtrace_id),
    attempts = attempts + ?13,
    tries = tries + ?14,
    ambiguous_attempts = ambiguous_attempts + ?15,
    next_at = ?16,
    done_at = coalesce(?17, done_at),
    worker = null,
    call_deadline = null
where cdls_id = ?1 and fence = ?2 and instr(?3, ',' || status || ',') > 0";

const CLAIM: &str = "
update cdls set
    status = 'SENDING', fence = fence + 1, attempts = attempts + 1, sent_at = ?4, worker = ?3, call_deadline = ?5
where cdls_id = ?1 and fence = ?2 and status in ('PENDING', 'RETRY') and next_at is null and expires_at > ?4
  and exists (
    select 1 from partition_lease l
    where l.partition_no = cdls.partition_no and l.owner = ?3 and l.expires_at > ?4)";

/// Writes changes, then makes claims; for each whether it took place.
pub async fn record(
    writer: &SqlitePool,
    worker: &str,
    changes: &[Change],
    claims: &[Claim],
) -> Result<Recorded, StoreError> {
    let mut recorded = Recorded::default();
    if changes.is_empty() && claims.is_empty() {
        return Ok(recorded);
    }
    let (mut transaction, now) = begin(writer).await?;
    for change in changes {
        recorded.changed.push(apply(&mut transaction, change.row(), now).await?);
    }
    for claim in claims {
        recorded.claimed.push(make(&mut transaction, worker, claim, now).await?);
    }
    commit(transaction).await?;
    Ok(recorded)
}

async fn apply(connection: &mut SqliteConnection, row: RowChange, now: Now) -> Result<bool, StoreError> {
    let from = row.from.iter().fold(String::from(","), |from, status| from + status.as_str() + ",");
    let next_at =
        row.next_after_ms.map(|ms| now.after(Duration::from_millis(u64::try_from(ms).unwrap_or_default())));
    let result = sqlx::query(CHANGE)
        .bind(row.id)
        .bind(row.fence)
        .bind(from)
        .bind(row.to.map(|status| status.as_str()))
        .bind(row.status_code)
        .bind(row.message_id)
        .bind(row.writes_error)
        .bind(row.error_code)
        .bind(row.error_subcode)
        .bind(row.error_kind)
        .bind(row.error_message)
        .bind(row.fbtrace_id)
        .bind(row.add_attempts)
        .bind(row.add_tries)
        .bind(row.add_ambiguous)
        .bind(next_at)
        .bind(row.done.then(|| now.text()))
        .execute(connection)
        .await
        .map_err(failed)?;
    Ok(result.rows_affected() == 1)
}

async fn make(
    connection: &mut SqliteConnection,
    worker: &str,
    claim: &Claim,
    now: Now,
) -> Result<bool, StoreError> {
    let result = sqlx::query(CLAIM)
        .bind(claim.id.0)
        .bind(claim.fence)
        .bind(worker)
        .bind(now.text())
        .bind(now.after(claim.call_deadline))
        .execute(connection)
        .await
        .map_err(failed)?;
    Ok(result.rows_affected() == 1)
}

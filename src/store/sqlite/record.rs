//! The recorder's transaction: results first, then claims, all or none.
//!
//! A row in the wrong state, with another fence or under a lost lease matches nothing; that is an answer, not an error.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{SqliteConnection, SqlitePool};

use super::clock::Now;
use super::error::{begin, commit, failed};
use crate::store::{Change, Claim, Recorded, StoreError};

/// An array for each change: id, fence, and what [`change_values`] lists. No change leaves a row claimed, so each one
/// ends the claim. That a line cannot send a row because it is another account's is asked of the line itself.
pub(super) const CHANGE: &str = "
update cdls set
    status = j.value->>3,
    status_code = coalesce(j.value->>4, status_code),
    message_id = coalesce(j.value->>5, message_id),
    error_code = iif(j.value->>6, j.value->>7, error_code),
    error_subcode = iif(j.value->>6, j.value->>8, error_subcode),
    error_kind = iif(j.value->>6, j.value->>9, coalesce(j.value->>9, error_kind)),
    error_message = iif(j.value->>6, j.value->>10, error_message),
    fbtrace_id = iif(j.value->>6, j.value->>11, fbtrace_id),
    attempts = attempts + (j.value->>12),
    tries = tries + (j.value->>13),
    ambiguous_attempts = ambiguous_attempts + (j.value->>14),
    crashes = crashes + (j.value->>17),
    next_at = j.value->>15,
    done_at = coalesce(j.value->>16, done_at),
    worker = null,
    call_deadline = null
from json_each(?1) j
where cdls_id = j.value->>0 and fence = j.value->>1 and instr(j.value->>2, ',' || status || ',') > 0
  and (j.value->>9 is not 'line' or not exists (
    select 1 from cd_v8_line l where l.v8l_id = cdls.v8l_id and l.cdcs_id = cdls.cdcs_id))
returning cdls_id";

/// An array for each success: id, fence.
pub(super) const LATE: &str = "
select count(*) from json_each(?1) j cross join cdls c
where c.cdls_id = j.value->>0 and c.fence = j.value->>1 and c.status in ('PENDING', 'RETRY', 'UNKNOWN')";

/// An array for each claim: id, fence, call deadline. Worker ?2, now ?3.
pub(super) const CLAIM: &str = "
update cdls set
    status = 'SENDING', fence = fence + 1, attempts = attempts + 1, sent_at = ?3, worker = ?2,
    call_deadline = j.value->>2
from json_each(?1) j
where cdls_id = j.value->>0 and fence = j.value->>1
  and status in ('PENDING', 'RETRY') and next_at is null and expires_at > ?3
  and exists (
    select 1 from partition_lease l
    where l.partition_no = cdls.partition_no and l.owner = ?2 and l.expires_at > ?3)
  and (cp_id is null or not exists (
    select 1 from campaign k where k.cdcs_id = cdls.cdcs_id and k.cp_id = cdls.cp_id and k.state <> 'running'))
returning cdls_id";

/// Writes changes, then makes claims; for each whether it took place.
pub async fn record(
    writer: &SqlitePool,
    worker: &str,
    changes: &[Change],
    claims: &[Claim],
) -> Result<Recorded, StoreError> {
    if changes.is_empty() && claims.is_empty() {
        return Ok(Recorded::default());
    }
    let (mut transaction, now) = begin(writer).await?;
    let late = late_successes(&mut transaction, changes).await?;
    let changes = changes.iter().map(|change| change_values(change, now)).collect();
    let claims = claims.iter().map(|claim| claim_values(claim, now)).collect();
    let recorded = Recorded {
        late,
        changed: apply(&mut transaction, CHANGE, changes, worker, now).await?,
        claimed: apply(&mut transaction, CLAIM, claims, worker, now).await?,
    };
    commit(transaction).await?;
    Ok(recorded)
}

/// Successes of rows that are not claimed any more, in a statement before the update, which cannot name what it finds.
async fn late_successes(connection: &mut SqliteConnection, changes: &[Change]) -> Result<usize, StoreError> {
    let sent: Vec<(i64, i32)> = changes
        .iter()
        .filter_map(|change| match change {
            Change::Sent { id, fence, .. } => Some((id.0, *fence)),
            _ => None,
        })
        .collect();
    if sent.is_empty() {
        return Ok(0);
    }
    let late: i64 =
        sqlx::query_scalar(LATE).bind(json!(sent).to_string()).fetch_one(connection).await.map_err(failed)?;
    Ok(late as usize)
}

/// One update: the row's id, and what the statement reads.
type Update = (i64, Value);

fn change_values(change: &Change, now: Now) -> Update {
    let row = change.row();
    // The allowed states, each between commas.
    let from = row.from.iter().fold(String::from(","), |from, status| from + status.as_str() + ",");
    let next_at =
        row.next_after_ms.map(|ms| now.after(Duration::from_millis(u64::try_from(ms).unwrap_or_default())));
    let values = json!([
        row.id,
        row.fence,
        from,
        row.to,
        row.status_code,
        row.message_id,
        row.writes_error,
        row.error_code,
        row.error_subcode,
        row.error_kind,
        row.error_message,
        row.fbtrace_id,
        row.add_attempts,
        row.add_tries,
        row.add_ambiguous,
        next_at,
        row.done.then(|| now.text()),
        row.add_crashes,
    ]);
    (row.id, values)
}

fn claim_values(claim: &Claim, now: Now) -> Update {
    (claim.id.0, json!([claim.id, claim.fence, now.after(claim.call_deadline)]))
}

/// Runs the statement over all updates; for each, in the order given, whether it took place.
///
/// One UPDATE changes a row once, so several updates of one row go one after another.
async fn apply(
    connection: &mut SqliteConnection,
    sql: &'static str,
    mut updates: Vec<Update>,
    worker: &str,
    now: Now,
) -> Result<Vec<bool>, StoreError> {
    let mut done = vec![false; updates.len()];
    let mut left: Vec<usize> = (0..updates.len()).collect();
    while !left.is_empty() {
        let mut rows = HashSet::new();
        let (batch, later): (Vec<usize>, Vec<usize>) =
            left.into_iter().partition(|index| rows.insert(updates[*index].0));
        let values = batch.iter().map(|index| updates[*index].1.take()).collect();
        let changed: Vec<i64> = sqlx::query_scalar(sql)
            .bind(Value::Array(values).to_string())
            .bind(worker)
            .bind(now.text())
            .fetch_all(&mut *connection)
            .await
            .map_err(failed)?;
        let changed: HashSet<i64> = changed.into_iter().collect();
        for index in batch {
            done[index] = changed.contains(&updates[index].0);
        }
        left = later;
    }
    Ok(done)
}

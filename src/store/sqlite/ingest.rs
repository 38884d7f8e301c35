//! What accepting a message needs: the insert, and the look-ups before it.

use std::time::Duration;

use serde_json::json;
use sqlx::{Row, SqlitePool};

use super::clock::{self, Now};
use super::error::{begin, commit, failed};
use super::row::word;
use crate::message::{AccountId, CampaignState, MessageId, Submission};
use crate::store::{StoreError, TokenRecord};

/// One statement for the whole batch, an array for each row: a statement of its own for each row would cost three times
/// as much, most of it on the way to the connection's thread and back.
const INSERT: &str = "
insert into cdls (cdcs_id, v8l_id, class, dest, mtype, mdata, mcaption, msg_id, cp_id, priority,
                  next_at, expires_at, waiter, created_at)
select value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, value->>7, value->>8, value->>9,
       value->>10, value->>11, value->>12, ?2
from json_each(?1) order by key
returning cdls_id";

/// Logs all or none.
pub async fn insert(writer: &SqlitePool, submissions: &[Submission]) -> Result<Vec<MessageId>, StoreError> {
    if submissions.is_empty() {
        return Ok(Vec::new());
    }
    let (mut transaction, now) = begin(writer).await?;
    let rows = submissions.iter().map(|submission| values(submission, now)).collect();
    let mut ids: Vec<i64> = sqlx::query_scalar(INSERT)
        .bind(serde_json::Value::Array(rows).to_string())
        .bind(now.text())
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed)?;
    commit(transaction).await?;
    // Rows are inserted in the order given, each with an id above every id there ever was (AUTOINCREMENT); only the
    // order in which RETURNING names them is not promised.
    ids.sort_unstable();
    Ok(ids.into_iter().map(MessageId).collect())
}

fn values(submission: &Submission, now: Now) -> serde_json::Value {
    let scheduled = submission.send_at.filter(|at| now.is_before(*at));
    let expires_at = match submission.send_at {
        Some(at) => clock::later(at, submission.valid_for),
        None => now.after(submission.valid_for),
    };
    json!([
        submission.account,
        submission.line,
        submission.class,
        submission.dest,
        submission.kind,
        submission.mdata,
        submission.mcaption,
        submission.msg_id,
        submission.cp_id,
        submission.lane,
        scheduled.map(|at| clock::later(at, Duration::ZERO)),
        expires_at,
        submission.waiter,
    ])
}

/// The token with this identifier, unless it is revoked.
pub async fn token(reader: &SqlitePool, token_id: &str) -> Result<Option<TokenRecord>, StoreError> {
    let found = sqlx::query(
        "select t.cdcs_id, t.token_hash, coalesce(a.cdcs_active, 0) <> 0 as active
         from account_token t left join account a on a.cdcs_id = t.cdcs_id
         where t.token_id = ?1 and t.revoked_at is null",
    )
    .bind(token_id)
    .fetch_optional(reader)
    .await
    .map_err(failed)?;
    found
        .map(|row| {
            Ok(TokenRecord {
                account: AccountId(row.try_get("cdcs_id").map_err(failed)?),
                account_active: row.try_get("active").map_err(failed)?,
                hash: row.try_get("token_hash").map_err(failed)?,
            })
        })
        .transpose()
}

/// A campaign without a row is running.
pub async fn campaign_state(
    reader: &SqlitePool,
    account: AccountId,
    cp_id: &str,
) -> Result<CampaignState, StoreError> {
    sqlx::query("select state from campaign where cdcs_id = ?1 and cp_id = ?2")
        .bind(account.0)
        .bind(cp_id)
        .fetch_optional(reader)
        .await
        .map_err(failed)?
        .map_or(Ok(CampaignState::Running), |row| word(&row, "state"))
}

/// Rows that may be claimed now, then those that wait for their time. Each part is one partial index, whose condition
/// has to stand here word for word.
pub(super) const BACKLOG: &str = "
select count(*) from (
    select 1 from cdls where status in ('PENDING', 'RETRY') and next_at is null
    union all
    select 1 from cdls
    where status in ('PENDING', 'RETRY', 'SENDING') and (next_at is not null or call_deadline is not null)
      and status <> 'SENDING'
    limit ?1)";

/// How many rows wait, counted up to `at_most`.
pub async fn backlog(reader: &SqlitePool, at_most: i64) -> Result<i64, StoreError> {
    sqlx::query_scalar(BACKLOG).bind(at_most.max(0)).fetch_one(reader).await.map_err(failed)
}

//! What accepting a message needs: the insert, and the look-ups before it.

use sqlx::{Row, SqlitePool};

use super::clock;
use super::error::{begin, commit, failed};
use super::row::word;
use crate::message::{AccountId, CampaignState, MessageId, Submission};
use crate::store::{StoreError, TokenRecord};

const INSERT: &str = "
insert into cdls (cdcs_id, v8l_id, class, dest, mtype, mdata, mcaption, msg_id, cp_id, priority,
                  next_at, expires_at, created_at, waiter)
values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";

/// Logs all or none.
pub async fn insert(writer: &SqlitePool, submissions: &[Submission]) -> Result<Vec<MessageId>, StoreError> {
    if submissions.is_empty() {
        return Ok(Vec::new());
    }
    let (mut transaction, now) = begin(writer).await?;
    let created_at = now.text();
    let mut ids = Vec::with_capacity(submissions.len());
    for submission in submissions {
        let scheduled = submission.send_at.filter(|at| now.is_before(*at));
        let expires_at = match submission.send_at {
            Some(at) => clock::later(at, submission.valid_for),
            None => now.after(submission.valid_for),
        };
        let inserted = sqlx::query(INSERT)
            .bind(submission.account.0)
            .bind(submission.line.0)
            .bind(submission.class.as_str())
            .bind(&submission.dest)
            .bind(submission.kind.as_str())
            .bind(&submission.mdata)
            .bind(&submission.mcaption)
            .bind(&submission.msg_id)
            .bind(&submission.cp_id)
            .bind(submission.lane.as_str())
            .bind(scheduled.map(|at| clock::later(at, std::time::Duration::ZERO)))
            .bind(expires_at)
            .bind(&created_at)
            .bind(&submission.waiter)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        // AUTOINCREMENT: above every id there ever was, so ascending in the order given.
        ids.push(MessageId(inserted.last_insert_rowid()));
    }
    commit(transaction).await?;
    Ok(ids)
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

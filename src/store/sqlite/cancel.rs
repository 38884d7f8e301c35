//! Waiting rows that are cancelled one by one, or by a filter.
//!
//! One transaction writes at a time, and claims are made by such transactions: a row without a claim gets none while it is
//! cancelled. Waiting rows stand in the queue, so that the cost follows what waits, and not the log.

use async_trait::async_trait;
use serde_json::json;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::SqliteStore;
use super::clock::{self, Now};
use super::counts::CampaignDeltas;
use super::error::{begin, commit, failed};
use super::operator::selection::group;
use super::operator::settle::NOTE;
use super::row::{get, list};
use crate::domain::{AccountId, ErrorKind, RowId, Status};
use crate::store::{CancelStore, FilterIndex, MessageFilter, Scope, StoreError};

/// The conditions behind the clause that finds rows `c`: account ?1, ids above ?2, at most ?3, line ?4, campaign ?5, references ?6
/// (a JSON array), recipient ?7, code ?8, kind ?9, created from ?10 and before ?11, statuses ?12 (a JSON array), batch ?13.
macro_rules! waiting {
    ($found:literal) => {
        concat!(
            "select distinct c.cdls_id from ",
            $found,
            " and +c.cdls_id > ?2 and (?1 is null or c.cdcs_id = ?1) and (?4 is null or c.v8l_id = ?4)
              and (?5 is null or c.cp_id = ?5) and (?6 = '[]' or c.msg_id in (select value from json_each(?6)))
              and (?7 is null or c.dest = ?7) and (?8 is null or c.error_code = ?8)
              and (?9 is null or c.error_kind = ?9) and (?10 is null or c.created_at >= ?10)
              and (?11 is null or c.created_at < ?11) and c.status in (select value from json_each(?12))
              and (?13 is null or exists (
                  select 1 from batch b cross join batch_line l
                  where b.cdcs_id = c.cdcs_id and b.batch_id = ?13 and l.batch_no = b.batch_no and l.cdls_id = c.cdls_id))
             order by c.cdls_id limit ?3"
        )
    };
}

const BY_QUEUE: &str = waiting!(
    "(select i.value as id from work w cross join json_each(w.ids) i
      where (?1 is null or w.cdcs_id = ?1) and (?4 is null or w.v8l_id = ?4) and (?5 is null or w.campaign = ?5)
      union all
      select o.cdls_id from cdls_open o
      where o.kind <> 'unknown' and (?1 is null or o.cdcs_id = ?1) and (?4 is null or o.v8l_id = ?4)
        and (?5 is null or o.campaign = ?5)) q
     cross join cdls c where c.cdls_id = q.id"
);
const BY_MSG_ID: &str = waiting!(
    "json_each(?6) m cross join cdls c indexed by cdls_msg_id
     where c.cdcs_id = ?1 and c.msg_id is not null and c.msg_id = m.value"
);
const BY_DEST: &str = waiting!("cdls c indexed by cdls_dest where c.cdcs_id = ?1 and c.dest = ?7");
const BY_BATCH: &str = waiting!(
    "batch k cross join batch_line r cross join cdls c
     where k.batch_id = ?13 and (?1 is null or k.cdcs_id = ?1) and r.batch_no = k.batch_no and c.cdls_id = r.cdls_id"
);

/// Rows ?1 that wait and are not on their way, of account ?2.
const PICKED: &str = "
select c.cdls_id, c.status, c.cdcs_id, c.v8l_id, c.cp_id, c.mtype <> 'text' as media
from json_each(?1) j cross join cdls c
where c.cdls_id = j.value and c.status in ('PENDING', 'RETRY') and (?2 is null or c.cdcs_id = ?2)
  and not exists (select 1 from claim_row r where r.cdls_id = c.cdls_id and r.fence > c.fence)";

const CANCEL: &str = "
update cdls set status = 'CANCELLED', next_at = null, done_at = ?2
where cdls_id in (select value from json_each(?1))";

const BATCH_OF: &str = "
select b.batch_id from batch b
where b.cdcs_id = ?1 and b.batch_id is not null
  and exists (select 1 from batch_line l where l.batch_no = b.batch_no and l.cdls_id = ?2)
limit 1";

#[async_trait]
impl CancelStore for SqliteStore {
    async fn waiting(
        &self,
        scope: Scope,
        filter: &MessageFilter,
        after: RowId,
        limit: u32,
    ) -> Result<Vec<RowId>, StoreError> {
        let Some(filter) = filter.waiting() else { return Ok(Vec::new()) };
        let account = account_of(scope);
        // The indexes begin with the account.
        let statement = match filter.index() {
            FilterIndex::Batch => BY_BATCH,
            FilterIndex::MsgId if account.is_some() => BY_MSG_ID,
            FilterIndex::Dest if account.is_some() => BY_DEST,
            _ => BY_QUEUE,
        };
        let time =
            |at: Option<time::OffsetDateTime>| at.map(|at| clock::later(at, std::time::Duration::ZERO));
        let ids: Vec<i64> = sqlx::query_scalar(statement)
            .bind(account)
            .bind(after.0)
            .bind(limit)
            .bind(filter.line.map(|line| line.0))
            .bind(filter.cp_id.as_deref())
            .bind(json!(filter.msg_ids).to_string())
            .bind(filter.dest.as_deref())
            .bind(filter.error_code)
            .bind(filter.error_kind.map(ErrorKind::as_str))
            .bind(time(filter.since))
            .bind(time(filter.until))
            .bind(json!(filter.statuses).to_string())
            .bind(filter.batch_id.as_deref())
            .fetch_all(&self.reader)
            .await
            .map_err(failed)?;
        Ok(ids.into_iter().map(RowId).collect())
    }

    async fn cancel(&self, scope: Scope, ids: &[RowId]) -> Result<Vec<RowId>, StoreError> {
        let (mut transaction, now) = begin(&self.writer).await?;
        let picked = sqlx::query(PICKED)
            .bind(list(ids.iter().map(|id| id.0)))
            .bind(account_of(scope))
            .fetch_all(&mut *transaction)
            .await
            .map_err(failed)?;
        let mut cancelled = end(&mut transaction, &picked, now).await?;
        commit(transaction).await?;
        cancelled.sort_unstable();
        Ok(cancelled.into_iter().map(RowId).collect())
    }

    async fn batch_of(&self, account: AccountId, id: RowId) -> Result<Option<String>, StoreError> {
        sqlx::query_scalar(BATCH_OF)
            .bind(account.0)
            .bind(id.0)
            .fetch_optional(&self.reader)
            .await
            .map_err(failed)
    }
}

fn account_of(scope: Scope) -> Option<i64> {
    match scope {
        Scope::Account(account) => Some(account.0),
        Scope::Operator => None,
    }
}

/// End the rows, note them for those who wait, take them out of the queue, and count them.
async fn end(
    connection: &mut SqliteConnection,
    picked: &[SqliteRow],
    now: Now,
) -> Result<Vec<i64>, StoreError> {
    let ids = picked.iter().map(|row| get(row, "cdls_id")).collect::<Result<Vec<i64>, _>>()?;
    if ids.is_empty() {
        return Ok(ids);
    }
    let status = Status::Cancelled.as_str();
    let mut counts = CampaignDeltas::default();
    for row in picked {
        if let Some(group) = group(row)? {
            counts.changed(group, get(row, "status")?, status, false);
        }
    }
    let rows = list(ids.iter().copied());
    let ended = sqlx::query(CANCEL).bind(&rows).bind(now.text());
    ended.execute(&mut *connection).await.map_err(failed)?;
    sqlx::query(NOTE).bind(&rows).bind(status).execute(&mut *connection).await.map_err(failed)?;
    sqlx::query("delete from cdls_open where cdls_id in (select value from json_each(?1))")
        .bind(&rows)
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
    counts.write(connection, now).await?;
    Ok(ids)
}

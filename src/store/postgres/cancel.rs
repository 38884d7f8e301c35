//! Waiting rows that are cancelled one by one, or by a filter.
//!
//! A claim locks no row of the log, so that an update alone could meet a claim that has not seen it. The transaction that
//! cancels therefore locks the table of leases, from which each claim reads its worker's row: it waits for the claims that
//! are being committed, finds them, and later ones wait for it and see what it has written. PostgreSQL takes a statement's
//! snapshot after the locks of its tables.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use sqlx::{Connection, PgConnection};

use super::PostgresStore;
use super::error::failed;
use super::log::account_of;
use super::log::matching::matching_ids;
use super::log::ranges::{split, unless_missing};
use super::pool::Pool;
use crate::domain::{AccountId, RowId};
use crate::store::{CancelStore, MessageFilter, Scope, StoreError};

/// Claims and leases wait behind a lock that is waited for: it is given up soon, and tried again after a rest.
const LOCK_TIMEOUT: &str = "set local lock_timeout = '50ms'";
const NO_CLAIMS: &str = "lock table worker_lease in exclusive mode";
const REST: Duration = Duration::from_millis(50);
const TRIED_FOR: Duration = Duration::from_secs(3);

#[async_trait]
impl CancelStore for PostgresStore {
    async fn waiting(
        &self,
        scope: Scope,
        filter: &MessageFilter,
        after: RowId,
        limit: u32,
    ) -> Result<Vec<RowId>, StoreError> {
        let Some(filter) = filter.waiting() else { return Ok(Vec::new()) };
        let pool = &self.background;
        let account = match scope {
            Scope::Account(account) => Some(account.0),
            Scope::Operator => account_of(pool, filter.line.map(|line| line.0)).await?,
        };
        let ids = matching_ids(pool, account, &filter, (after.0, i64::MAX), limit).await?;
        Ok(ids.into_iter().map(RowId).collect())
    }

    async fn cancel(&self, scope: Scope, ids: &[RowId]) -> Result<Vec<RowId>, StoreError> {
        let account = match scope {
            Scope::Account(account) => Some(account.0),
            Scope::Operator => None,
        };
        let mut ids: Vec<i64> = ids.iter().map(|id| id.0).collect();
        ids.sort_unstable();
        let mut cancelled = Vec::new();
        for (range, part) in split(&ids) {
            let statement = include_str!("sql/cancel.sql").replace("{range}", &range.to_string());
            cancelled.extend(patiently(&self.background, &statement, account, part).await?);
        }
        cancelled.sort_unstable();
        Ok(cancelled.into_iter().map(RowId).collect())
    }

    async fn batch_of(&self, account: AccountId, id: RowId) -> Result<Option<String>, StoreError> {
        sqlx::query_scalar(BATCH_OF)
            .bind(account.0)
            .bind(id.0)
            .fetch_optional(&self.background)
            .await
            .map_err(failed)
    }
}

/// No index leads from a row to its batch: an operator asks this once in a while, a batch writes a million lines.
const BATCH_OF: &str = "
    select b.batch_id from batch b
    where b.cdcs_id = $1 and b.batch_id is not null
      and exists (select from batch_line l where l.batch_no = b.batch_no and l.cdls_id = $2)
    limit 1";

/// Cancel rows of one range; try again while something else holds a lock.
async fn patiently(
    pool: &Pool,
    statement: &str,
    account: Option<i64>,
    ids: &[i64],
) -> Result<Vec<i64>, StoreError> {
    let until = Instant::now() + TRIED_FOR;
    loop {
        let mut lent = pool.lend().await.map_err(failed)?;
        let done = pool.wait_for(without_claims(&mut lent, statement, account, ids)).await;
        match done {
            Ok(cancelled) => {
                lent.give_back();
                return Ok(cancelled);
            }
            // The connection is closed, and its transaction with it.
            Err(StoreError::Locked(_) | StoreError::Undone(_)) if Instant::now() < until => {
                drop(lent);
                tokio::time::sleep(REST).await;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn without_claims(
    connection: &mut PgConnection,
    statement: &str,
    account: Option<i64>,
    ids: &[i64],
) -> Result<Vec<i64>, StoreError> {
    let mut transaction = connection.begin().await.map_err(failed)?;
    sqlx::query(LOCK_TIMEOUT).execute(&mut *transaction).await.map_err(failed)?;
    sqlx::query(NO_CLAIMS).execute(&mut *transaction).await.map_err(failed)?;
    let found = sqlx::query_scalar(statement).bind(ids).bind(account).fetch_all(&mut *transaction).await;
    let cancelled = unless_missing(found)?;
    transaction.commit().await.map_err(|error| StoreError::CommitUnknown(error.to_string()))?;
    Ok(cancelled)
}

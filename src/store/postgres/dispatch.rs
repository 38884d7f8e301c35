//! The statements of dispatch.

use std::time::Duration;

use async_trait::async_trait;
use time::OffsetDateTime;

use super::error::failed;
use super::log::ranges::{split, unless_missing};
use super::parameters::numbers;
use super::pool::Pool;
use super::{PostgresStore, claims, doomed, due, record, rows, work};
use crate::domain::{Partition, RowId, WorkId};
use crate::store::{
    ClaimedRow, DispatchStore, DoomedRow, Flow, FlowPage, FlowRead, HeldRecipient, NewWork, Position,
    Promoted, Record, Recorded, StoreError, WorkRead,
};

#[async_trait]
impl DispatchStore for PostgresStore {
    async fn read_work(&self, work: &[WorkId]) -> Result<Vec<WorkRead>, StoreError> {
        work::read_work(&self.dispatch, &self.read_state, work).await
    }

    async fn read_flows(&self, reads: &[FlowRead]) -> Result<Vec<FlowPage>, StoreError> {
        work::read_flows(&self.dispatch, &self.read_state, reads).await
    }

    async fn ready_flows(
        &self,
        partitions: &[Partition],
        sendable: bool,
    ) -> Result<Vec<(Flow, Position)>, StoreError> {
        let found = sqlx::query(include_str!("sql/ready_flows.sql"))
            .bind(numbers(partitions))
            .bind(sendable)
            .fetch_all(&self.scans)
            .await
            .map_err(failed)?;
        Ok(rows::readable(&found, |row| Ok((rows::flow(row)?, rows::position(row)?))))
    }

    async fn new_work(
        &self,
        partitions: &[Partition],
        after: Option<WorkId>,
        limit: u32,
    ) -> Result<NewWork, StoreError> {
        new_work(&self.scans, partitions, after, limit).await
    }

    async fn promote_due(
        &self,
        partitions: &[Partition],
        from: Option<OffsetDateTime>,
        limit: u32,
    ) -> Result<Promoted, StoreError> {
        due::promote(&self.scans, partitions, from, limit).await
    }

    async fn held_recipients(
        &self,
        partitions: &[Partition],
        within: Duration,
        limit: u32,
    ) -> Result<Vec<HeldRecipient>, StoreError> {
        claims::held(&self.scans, partitions, within, limit).await
    }

    async fn still_held(&self, ids: &[RowId]) -> Result<Vec<RowId>, StoreError> {
        still_held(&self.dispatch, ids).await
    }

    async fn locked(&self, ids: &[RowId]) -> Result<Vec<RowId>, StoreError> {
        locked(&self.dispatch, ids).await
    }

    async fn record(&self, record: Record<'_>) -> Result<Recorded, StoreError> {
        let ended_work = self.read_state.removable(record.ended_work);
        record::record(&self.recorder, &self.plain_rows, Record { ended_work: &ended_work, ..record }).await
    }

    async fn open_claims(&self, partitions: &[Partition]) -> Result<Vec<ClaimedRow>, StoreError> {
        claims::open(&self.scans, &self.claim_cursors, partitions, None).await
    }

    async fn open_claims_since(&self, partitions: &[Partition]) -> Result<Vec<ClaimedRow>, StoreError> {
        let from = self.claim_cursors.begin(partitions);
        claims::open(&self.scans, &self.claim_cursors, partitions, from).await
    }

    async fn forget_claims(&self) -> Result<u64, StoreError> {
        claims::forget(&self.scans).await
    }

    async fn expired_rows(&self, partitions: &[Partition], limit: u32) -> Result<Vec<DoomedRow>, StoreError> {
        doomed::expired(&self.scans, partitions, limit).await
    }

    async fn cancelled_rows(
        &self,
        partitions: &[Partition],
        limit: u32,
    ) -> Result<Vec<DoomedRow>, StoreError> {
        doomed::cancelled(&self.scans, partitions, limit).await
    }
}

async fn new_work(
    pool: &Pool,
    partitions: &[Partition],
    after: Option<WorkId>,
    limit: u32,
) -> Result<NewWork, StoreError> {
    // Without a place to begin at, no work is looked at.
    let found = sqlx::query(include_str!("sql/new_work.sql"))
        .bind(numbers(partitions))
        .bind(after.map(|work| work.0))
        .bind(i64::from(limit.max(1)))
        .fetch_all(pool)
        .await
        .map_err(failed)?;
    let mut new = NewWork::default();
    for row in &found {
        new.reached = WorkId(rows::get(row, "reached")?);
        new.is_full = rows::get(row, "is_full")?;
        new.campaign_resumed = rows::get(row, "resumed")?;
        if rows::get::<Option<i64>>(row, "work_id")?.is_some() {
            new.work.extend(rows::head(row).inspect_err(rows::skipped).ok());
        }
    }
    Ok(new)
}

async fn locked(pool: &Pool, ids: &[RowId]) -> Result<Vec<RowId>, StoreError> {
    let mut ids: Vec<i64> = ids.iter().map(|id| id.0).collect();
    ids.sort_unstable();
    let mut locked = Vec::new();
    for (range, part) in split(&ids) {
        let statement = format!(
            "with free as materialized (
                 select cdls_id from cdls_{range} where cdls_id = any($1::bigint[]) for update skip locked)
             select cdls_id from cdls_{range} where cdls_id = any($1::bigint[])
             except select cdls_id from free"
        );
        let found: Vec<i64> =
            unless_missing(sqlx::query_scalar(&statement).bind(part).fetch_all(pool).await)?;
        locked.extend(found.into_iter().map(RowId));
    }
    Ok(locked)
}

async fn still_held(pool: &Pool, ids: &[RowId]) -> Result<Vec<RowId>, StoreError> {
    let mut ids: Vec<i64> = ids.iter().map(|id| id.0).collect();
    ids.sort_unstable();
    let mut held = Vec::new();
    for (range, part) in split(&ids) {
        let statement = format!(
            "select cdls_id from cdls_{range} where cdls_id = any($1::bigint[]) and status in ('PENDING', 'RETRY')"
        );
        let found: Vec<i64> =
            unless_missing(sqlx::query_scalar(&statement).bind(part).fetch_all(pool).await)?;
        held.extend(found.into_iter().map(RowId));
    }
    Ok(held)
}

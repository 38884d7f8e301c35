//! Leases: one row a worker, by the database's clock.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use sqlx::postgres::PgRow;
use sqlx::{Connection, PgConnection};

use super::PostgresStore;
use super::error::failed;
use super::parameters::{length, milliseconds, numbers};
use super::pool::Pool;
use super::rows;
use crate::domain::{PARTITIONS, Partition};
use crate::store::{LeaseReport, LeaseStore, StoreError};

#[async_trait]
impl LeaseStore for PostgresStore {
    async fn renew_leases(
        &self,
        worker: &str,
        ttl: Duration,
        unable: bool,
    ) -> Result<LeaseReport, StoreError> {
        let found = sqlx::query(RENEW)
            .bind(worker)
            .bind(milliseconds(ttl))
            .bind(unable)
            .fetch_all(&self.leases)
            .await
            .map_err(failed)?;
        let workers = found.iter().map(alive).collect::<Result<Vec<_>, _>>()?;
        Ok(LeaseReport { oldest_snapshot: self.snapshots.oldest(&self.leases).await, ..report(&workers) })
    }

    async fn acquire_leases(
        &self,
        worker: &str,
        ttl: Duration,
        at_most: usize,
    ) -> Result<Vec<Partition>, StoreError> {
        let mut lent = self.leases.lend().await.map_err(failed)?;
        let taken = self.leases.wait_for(acquire(&mut lent, worker, ttl, at_most)).await?;
        lent.give_back();
        Ok(taken)
    }

    async fn release_leases(&self, worker: &str, partitions: &[Partition]) -> Result<(), StoreError> {
        sqlx::query(
            "update worker_lease
             set partitions = array(select p from unnest(partitions) as p where p <> all ($2::smallint[]) order by p)
             where worker = $1",
        )
        .bind(worker)
        .bind(numbers(partitions))
        .execute(&self.leases)
        .await
        .map(drop)
        .map_err(failed)
    }

    async fn withdraw_worker(&self, worker: &str) -> Result<(), StoreError> {
        sqlx::query("delete from worker_lease where worker = $1")
            .bind(worker)
            .execute(&self.leases)
            .await
            .map(drop)
            .map_err(failed)
    }
}

/// A lease that has run out is begun anew, without its partitions: they may have new owners. The answer holds
/// all living workers, this one first.
const RENEW: &str = "
    with renewed as (
        insert into worker_lease as l (worker, expires_at, unable)
        values ($1, now() + $2 * interval '1 millisecond', $3)
        on conflict (worker) do update set
            partitions = case when l.expires_at > now() then l.partitions else '{}' end,
            expires_at = excluded.expires_at, unable = excluded.unable
        returning partitions, unable)
    select true as is_this, partitions, unable from renewed
    union all
    select false, partitions, unable from worker_lease where worker <> $1 and expires_at > now()";

/// A living worker.
struct LivingWorker {
    is_this: bool,
    partitions: Vec<i16>,
    unable: bool,
}

fn alive(row: &PgRow) -> Result<LivingWorker, StoreError> {
    Ok(LivingWorker {
        is_this: rows::get(row, "is_this")?,
        partitions: rows::get(row, "partitions")?,
        unable: rows::get(row, "unable")?,
    })
}

fn report(workers: &[LivingWorker]) -> LeaseReport {
    let held: BTreeSet<i16> =
        workers.iter().filter(|w| w.is_this).flat_map(|w| w.partitions.iter().copied()).collect();
    let taken: BTreeSet<i16> = workers.iter().flat_map(|w| w.partitions.iter().copied()).collect();
    let able = workers.iter().filter(|w| !w.unable).count();
    let share = PARTITIONS as usize / able.max(1);
    let is_below = |w: &&LivingWorker| !w.is_this && !w.unable && w.partitions.len() < share;
    LeaseReport {
        held: held.into_iter().map(Partition).collect(),
        workers: workers.len(),
        able,
        free: (PARTITIONS as usize).saturating_sub(taken.len()),
        below_share: workers.iter().filter(is_below).count(),
        oldest_snapshot: None,
    }
}

/// Two workers that acquire at once do so one after the other, so that each sees the partitions that the
/// other took.
const ONE_AT_A_TIME: &str = "select pg_advisory_xact_lock(hashtext('worker_lease'))";

/// Removing a worker's row waits for its claims that are being committed, and finds the row prolonged if it
/// was meanwhile.
const REMOVE_DEAD: &str = "delete from worker_lease where expires_at <= now()";

const TAKE: &str = "
    with free as materialized (
        select p::smallint as partition_no from generate_series(0, 63) as p
        where not exists (select from worker_lease l where p::smallint = any (l.partitions))
        order by p limit $3)
    update worker_lease l set
        expires_at = now() + $2 * interval '1 millisecond',
        partitions = array(select p from (select unnest(l.partitions) as p union select partition_no from free) as u order by p)
    where l.worker = $1
    returning array(select partition_no from free order by partition_no) as taken";

async fn acquire(
    connection: &mut PgConnection,
    worker: &str,
    ttl: Duration,
    at_most: usize,
) -> Result<Vec<Partition>, StoreError> {
    let mut transaction = connection.begin().await.map_err(failed)?;
    sqlx::query(ONE_AT_A_TIME).execute(&mut *transaction).await.map_err(failed)?;
    sqlx::query(REMOVE_DEAD).execute(&mut *transaction).await.map_err(failed)?;
    let taken: Option<Vec<i16>> = sqlx::query_scalar(TAKE)
        .bind(worker)
        .bind(milliseconds(ttl))
        .bind(i64::try_from(at_most).unwrap_or(i64::MAX))
        .fetch_optional(&mut *transaction)
        .await
        .map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    Ok(taken.unwrap_or_default().into_iter().map(Partition).collect())
}

/// How often the oldest snapshot is asked for.
const SNAPSHOTS_EVERY: Duration = Duration::from_secs(10);

/// The age of the oldest snapshot, as of the last question.
#[derive(Default)]
pub struct Snapshots(Mutex<SnapshotState>);

#[derive(Default, Clone)]
struct SnapshotState {
    asked: Option<Instant>,
    /// The age of the oldest open transaction.
    open: Duration,
    /// The transaction that replication holds, and since when.
    held: Option<(String, Instant)>,
}

impl Snapshots {
    /// Return the age of the oldest snapshot. A failed question is no failure of the lease.
    async fn oldest(&self, pool: &Pool) -> Option<Duration> {
        let mut known = self.0.lock().clone();
        if known.asked.is_none_or(|asked| asked.elapsed() >= SNAPSHOTS_EVERY) {
            match ask(pool).await {
                Ok((open, held)) => {
                    known.open = open;
                    known.held = held.map(|xmin| match known.held {
                        Some((before, since)) if before == xmin => (before, since),
                        _ => (xmin, Instant::now()),
                    });
                }
                Err(error) => tracing::debug!(%error, "age of the oldest snapshot: not known"),
            }
            known.asked = Some(Instant::now());
            *self.0.lock() = known.clone();
        }
        let held = known.held.map_or(Duration::ZERO, |(_, since)| since.elapsed());
        Some(known.open.max(held))
    }
}

async fn ask(pool: &Pool) -> Result<(Duration, Option<String>), StoreError> {
    let row = sqlx::query(include_str!("sql/snapshots.sql")).fetch_one(pool).await.map_err(failed)?;
    let open: Option<i64> = rows::get(&row, "open_ms")?;
    Ok((length(open.unwrap_or(0)), rows::get(&row, "held_xmin")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(is_this: bool, partitions: std::ops::Range<i16>, unable: bool) -> LivingWorker {
        LivingWorker { is_this, partitions: partitions.collect(), unable }
    }

    #[test]
    fn reports_the_other_workers() {
        let workers = [worker(true, 0..32, false), worker(false, 32..40, false), worker(false, 40..41, true)];
        let report = report(&workers);
        assert_eq!((report.held.len(), report.workers, report.free), (32, 3, 23));
        assert_eq!((report.able, report.below_share), (2, 1));
    }
}

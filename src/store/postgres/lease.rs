//! Partition leases, by the database's clock.

use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{Connection, PgConnection};

use super::error::failed;
use super::parameters::{milliseconds, numbers};
use super::pool::Pool;
use super::rows;
use crate::message::Partition;
use crate::store::{Lease, LeaseReport, StoreError};

fn lease(row: &PgRow) -> Result<Lease, StoreError> {
    Ok(Lease { partition: Partition(rows::get(row, "partition_no")?), epoch: rows::get(row, "epoch")? })
}

/// Prolongs leases that have not run out; one that has may have a new owner, or nobody: it is acquired again.
pub async fn renew(pool: &Pool, worker: &str, ttl: Duration) -> Result<LeaseReport, StoreError> {
    let mut lent = pool.lend().await.map_err(failed)?;
    let report = pool.wait_for(renewed(&mut lent, worker, ttl)).await?;
    lent.give_back();
    Ok(report)
}

async fn renewed(
    connection: &mut PgConnection,
    worker: &str,
    ttl: Duration,
) -> Result<LeaseReport, StoreError> {
    let mut transaction = connection.begin().await.map_err(failed)?;
    sqlx::query(
        "insert into worker_presence (worker, expires_at) values ($1, now() + $2 * interval '1 millisecond')
         on conflict (worker) do update set expires_at = excluded.expires_at",
    )
    .bind(worker)
    .bind(milliseconds(ttl))
    .execute(&mut *transaction)
    .await
    .map_err(failed)?;
    let held = sqlx::query(
        "with mine as materialized (
             select partition_no from partition_lease where owner = $1 and expires_at > now()
             order by partition_no for update)
         update partition_lease l set expires_at = now() + $2 * interval '1 millisecond'
         from mine where l.partition_no = mine.partition_no
         returning l.partition_no, l.epoch",
    )
    .bind(worker)
    .bind(milliseconds(ttl))
    .fetch_all(&mut *transaction)
    .await
    .map_err(failed)?;
    let workers: i64 = sqlx::query_scalar("select count(*) from worker_presence where expires_at > now()")
        .fetch_one(&mut *transaction)
        .await
        .map_err(failed)?;
    sqlx::query(
        "delete from worker_presence where worker in (
             select worker from worker_presence where expires_at < now() - interval '1 hour' for update skip locked)",
    )
    .execute(&mut *transaction)
    .await
    .map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    Ok(LeaseReport { held: held.iter().map(lease).collect::<Result<_, _>>()?, workers: workers as usize })
}

pub async fn acquire(
    pool: &Pool,
    worker: &str,
    ttl: Duration,
    at_most: usize,
) -> Result<Vec<Lease>, StoreError> {
    let taken = sqlx::query(
        "with free as materialized (
             select partition_no from partition_lease where owner is null or expires_at <= now()
             order by partition_no limit $3 for update skip locked)
         update partition_lease l
         set owner = $1, epoch = l.epoch + 1, expires_at = now() + $2 * interval '1 millisecond'
         from free where l.partition_no = free.partition_no
         returning l.partition_no, l.epoch",
    )
    .bind(worker)
    .bind(milliseconds(ttl))
    .bind(at_most as i64)
    .fetch_all(pool)
    .await
    .map_err(failed)?;
    taken.iter().map(lease).collect()
}

pub async fn release(pool: &Pool, worker: &str, partitions: &[Partition]) -> Result<(), StoreError> {
    sqlx::query(
        "update partition_lease set owner = null, expires_at = now()
         where owner = $1 and partition_no = any($2::smallint[])",
    )
    .bind(worker)
    .bind(numbers(partitions))
    .execute(pool)
    .await
    .map_err(failed)?;
    Ok(())
}

pub async fn withdraw(pool: &Pool, worker: &str) -> Result<(), StoreError> {
    sqlx::query(
        "with gone as (delete from worker_presence where worker = $1)
         update partition_lease set owner = null, expires_at = now() where owner = $1",
    )
    .bind(worker)
    .execute(pool)
    .await
    .map_err(failed)?;
    Ok(())
}

//! Which worker process owns which partition, and which are alive.

use std::time::Duration;

use sqlx::SqlitePool;

use super::error::{begin, commit, failed};
use super::row::list;
use crate::message::Partition;
use crate::store::{Lease, LeaseReport, StoreError};

/// Prolongs what `worker` holds. A lease that has ended is not held: it has to be acquired anew, with a new epoch.
pub async fn renew(writer: &SqlitePool, worker: &str, ttl: Duration) -> Result<LeaseReport, StoreError> {
    let (mut transaction, now) = begin(writer).await?;
    sqlx::query("delete from worker_presence where expires_at <= ?1")
        .bind(now.text())
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    sqlx::query("insert or replace into worker_presence (worker, expires_at) values (?1, ?2)")
        .bind(worker)
        .bind(now.after(ttl))
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    let held: Vec<(i16, i64)> = sqlx::query_as(
        "update partition_lease set expires_at = ?3 where owner = ?1 and expires_at > ?2
         returning partition_no, epoch",
    )
    .bind(worker)
    .bind(now.text())
    .bind(now.after(ttl))
    .fetch_all(&mut *transaction)
    .await
    .map_err(failed)?;
    let workers: i64 = sqlx::query_scalar("select count(*) from worker_presence")
        .fetch_one(&mut *transaction)
        .await
        .map_err(failed)?;
    commit(transaction).await?;
    Ok(LeaseReport { held: leases(held), workers: workers as usize })
}

/// Takes partitions that nobody holds.
pub async fn acquire(
    writer: &SqlitePool,
    worker: &str,
    ttl: Duration,
    at_most: usize,
) -> Result<Vec<Lease>, StoreError> {
    let (mut transaction, now) = begin(writer).await?;
    let taken: Vec<(i16, i64)> = sqlx::query_as(
        "update partition_lease set owner = ?1, epoch = epoch + 1, expires_at = ?3
         where partition_no in (
             select partition_no from partition_lease where owner is null or expires_at <= ?2
             order by partition_no limit ?4)
         returning partition_no, epoch",
    )
    .bind(worker)
    .bind(now.text())
    .bind(now.after(ttl))
    .bind(i64::try_from(at_most).unwrap_or(i64::MAX))
    .fetch_all(&mut *transaction)
    .await
    .map_err(failed)?;
    commit(transaction).await?;
    Ok(leases(taken))
}

/// Gives partitions back at once; those that another worker holds stay as they are.
pub async fn release(writer: &SqlitePool, worker: &str, partitions: &[Partition]) -> Result<(), StoreError> {
    let (mut transaction, now) = begin(writer).await?;
    sqlx::query(
        "update partition_lease set owner = null, expires_at = ?3
         where owner = ?1 and partition_no in (select value from json_each(?2))",
    )
    .bind(worker)
    .bind(list(partitions.iter().map(|partition| i64::from(partition.0))))
    .bind(now.text())
    .execute(&mut *transaction)
    .await
    .map_err(failed)?;
    commit(transaction).await
}

/// Gives back whatever `worker` holds and forgets it.
pub async fn withdraw(writer: &SqlitePool, worker: &str) -> Result<(), StoreError> {
    let (mut transaction, now) = begin(writer).await?;
    sqlx::query("update partition_lease set owner = null, expires_at = ?2 where owner = ?1")
        .bind(worker)
        .bind(now.text())
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    sqlx::query("delete from worker_presence where worker = ?1")
        .bind(worker)
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    commit(transaction).await
}

/// Frees every partition and forgets every worker. Only for the one process that holds the file's lock.
pub async fn reset(writer: &SqlitePool) -> Result<(), StoreError> {
    let (mut transaction, now) = begin(writer).await?;
    sqlx::query("update partition_lease set owner = null, expires_at = ?1")
        .bind(now.text())
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    sqlx::query("delete from worker_presence").execute(&mut *transaction).await.map_err(failed)?;
    commit(transaction).await
}

fn leases(rows: Vec<(i16, i64)>) -> Vec<Lease> {
    let mut leases: Vec<Lease> =
        rows.into_iter().map(|(partition, epoch)| Lease { partition: Partition(partition), epoch }).collect();
    leases.sort_by_key(|lease| lease.partition);
    leases
}

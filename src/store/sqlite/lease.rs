//! Partition leases. One process serves a file, so they are never contended; the rules are the same as everywhere.

use std::time::Duration;

use sqlx::sqlite::SqliteRow;
use sqlx::{Sqlite, SqlitePool, Transaction};

use super::rows::{self, now};
use super::{after, failed};
use crate::message::Partition;
use crate::store::{Lease, LeaseReport, StoreError};

fn lease(row: &SqliteRow) -> Result<Lease, StoreError> {
    Ok(Lease { partition: Partition(rows::get(row, "partition_no")?), epoch: rows::get(row, "epoch")? })
}

pub async fn renew(
    mut transaction: Transaction<'static, Sqlite>,
    worker: &str,
    ttl: Duration,
) -> Result<LeaseReport, StoreError> {
    sqlx::query(
        "insert into worker_presence (worker, expires_at) values (?1, strftime('%Y-%m-%dT%H:%M:%fZ', 'now', ?2))
         on conflict (worker) do update set expires_at = excluded.expires_at",
    )
    .bind(worker)
    .bind(after(ttl))
    .execute(&mut *transaction)
    .await
    .map_err(failed)?;
    let held = sqlx::query(concat!(
        "update partition_lease set expires_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', ?2)
         where owner = ?1 and expires_at > ",
        now!(),
        " returning partition_no, epoch"
    ))
    .bind(worker)
    .bind(after(ttl))
    .fetch_all(&mut *transaction)
    .await
    .map_err(failed)?;
    let workers: i64 =
        sqlx::query_scalar(concat!("select count(*) from worker_presence where expires_at > ", now!()))
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed)?;
    sqlx::query(
        "delete from worker_presence where expires_at < strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-1 hour')",
    )
    .execute(&mut *transaction)
    .await
    .map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    Ok(LeaseReport { held: held.iter().map(lease).collect::<Result<_, _>>()?, workers: workers as usize })
}

pub async fn acquire(
    writer: &SqlitePool,
    worker: &str,
    ttl: Duration,
    at_most: usize,
) -> Result<Vec<Lease>, StoreError> {
    let taken = sqlx::query(concat!(
        "update partition_lease
         set owner = ?1, epoch = epoch + 1, expires_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', ?2)
         where partition_no in (
             select partition_no from partition_lease where owner is null or expires_at <= ",
        now!(),
        " order by partition_no limit ?3)
         returning partition_no, epoch"
    ))
    .bind(worker)
    .bind(after(ttl))
    .bind(at_most as i64)
    .fetch_all(writer)
    .await
    .map_err(failed)?;
    taken.iter().map(lease).collect()
}

pub async fn release(
    mut transaction: Transaction<'static, Sqlite>,
    worker: &str,
    partitions: &[Partition],
) -> Result<(), StoreError> {
    for partition in partitions {
        sqlx::query(concat!(
            "update partition_lease set owner = null, expires_at = ",
            now!(),
            " where owner = ?1 and partition_no = ?2"
        ))
        .bind(worker)
        .bind(partition.0)
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)
}

pub async fn withdraw(mut transaction: Transaction<'static, Sqlite>, worker: &str) -> Result<(), StoreError> {
    sqlx::query("delete from worker_presence where worker = ?1")
        .bind(worker)
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    sqlx::query(concat!(
        "update partition_lease set owner = null, expires_at = ",
        now!(),
        " where owner = ?1"
    ))
    .bind(worker)
    .execute(&mut *transaction)
    .await
    .map_err(failed)?;
    transaction.commit().await.map_err(failed)
}

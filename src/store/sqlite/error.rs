//! The meaning of an SQLite failure to the caller, and the two ends of a write transaction.

use sqlx::{Sqlite, SqlitePool, Transaction};

use super::clock::Now;
use crate::store::StoreError;

// Primary result codes (https://www.sqlite.org/rescode.html).
const ERROR: i32 = 1;
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const TOO_BIG: i32 = 18;
const CONSTRAINT: i32 = 19;
const MISMATCH: i32 = 20;
const RANGE: i32 = 25;

/// Return the kind of an error: refused data, a schema that does not fit, or a database that cannot be used
/// for now (busy, disk full, I/O). SQLite's texts name columns, never values.
pub fn failed(error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::Database(_) => match primary_code(&error) {
            Some(TOO_BIG | CONSTRAINT | MISMATCH | RANGE) => StoreError::Rejected(error.to_string()),
            Some(ERROR) => StoreError::Schema(error.to_string()),
            _ => StoreError::Unavailable(error.to_string()),
        },
        sqlx::Error::Encode(_) => StoreError::Rejected(error.to_string()),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) | sqlx::Error::Decode(_) => {
            StoreError::Schema(format!("a row that this version cannot read: {error}"))
        }
        _ => StoreError::Unavailable(error.to_string()),
    }
}

/// Whether another connection holds the lock, after the wait for it.
pub fn is_busy(error: &sqlx::Error) -> bool {
    matches!(primary_code(error), Some(BUSY | LOCKED))
}

fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let extended: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(extended & 0xff)
}

/// Begin a write transaction. The lock is taken at once, since a transaction that first reads cannot wait for
/// it.
pub async fn begin(writer: &SqlitePool) -> Result<(Transaction<'static, Sqlite>, Now), StoreError> {
    let transaction = writer.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
    Ok((transaction, Now::read()))
}

/// Commit. SQLite's COMMIT answers in this process, so an error means that nothing was written; only where
/// the connection's thread died in between is the outcome unknown.
pub async fn commit(transaction: Transaction<'static, Sqlite>) -> Result<(), StoreError> {
    transaction.commit().await.map_err(|error| match error {
        sqlx::Error::WorkerCrashed => StoreError::CommitUnknown(error.to_string()),
        _ => failed(error),
    })
}

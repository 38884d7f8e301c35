//! The schema of the database: made, upgraded, and compared with what this program was built for.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::migrate::Migrator;

use super::StoreError;

/// The schema of the database, compared with that of this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaState {
    Current,
    /// Written by a later version; additive, so this one works with it.
    Newer,
    /// `migrate` has to be run before this process is ready.
    Older,
}

/// The versions of migrations that were applied. An error where one of them was another migration: the database was made
/// before the log was parted from the queue, and nothing leads from there to here.
pub(super) fn versions(applied: Vec<(i64, Vec<u8>)>, ours: &Migrator) -> Result<BTreeSet<i64>, StoreError> {
    for migration in ours.iter() {
        if applied.iter().any(|(version, sum)| *version == migration.version && *sum != *migration.checksum) {
            return Err(StoreError::Schema(
                "the database was made by an early version of this program and cannot be upgraded: use a new one".into(),
            ));
        }
    }
    Ok(applied.into_iter().map(|(version, _)| version).collect())
}

/// The questions about the database itself.
#[async_trait]
pub trait SchemaStore: Send + Sync {
    /// Creates or upgrades the schema; returns how many migrations were applied.
    async fn migrate(&self) -> Result<usize, StoreError>;

    /// Compares the schema with this program's. A database without any schema is `Older`.
    async fn schema(&self) -> Result<SchemaState, StoreError>;

    /// Why messages cannot be logged although the database answers; `None`: they can.
    async fn not_writable(&self) -> Result<Option<String>, StoreError>;

    /// Makes room for the ids to come (PostgreSQL: ranges of `cdls`). Returns how many ranges were made.
    async fn ensure_room(&self) -> Result<usize, StoreError>;

    /// Drops rows of the log that are older than `keep` and have ended (PostgreSQL: whole ranges of ids without an open row).
    /// Returns how many ranges, or rows, were dropped.
    async fn drop_old(&self, keep: Duration) -> Result<u64, StoreError>;

    /// Closes the pools; later calls fail.
    async fn close(&self);
}

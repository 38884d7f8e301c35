//! The store: its connections, and the leases of this process.

use std::fs::File;

use sqlx::SqlitePool;

use super::leases::Leases;

/// The log and the queue in an SQLite file.
pub struct SqliteStore {
    /// One connection.
    pub(super) writer: SqlitePool,
    /// Four connections that cannot write.
    pub(super) reader: SqlitePool,
    /// The leases of this process's workers.
    pub(super) leases: Leases,
    /// The lock that keeps a second `serve` out; released when the store is dropped.
    pub(super) _exclusive: Option<File>,
}

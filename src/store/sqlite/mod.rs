//! The built-in database: one SQLite file, nothing to install. The only place that knows SQLite.
//!
//! One connection writes and four read (WAL), so that reads never wait for a commit. Other programs may write beside
//! it: every write transaction begins IMMEDIATE and waits its turn for five seconds. Times are text and come from this
//! machine's clock, which every program that opens the file shares. An idle process writes nothing: leases are kept in its
//! memory, and every task that may find nothing to do looks first on a reading connection.
//!
//! Never here: policy, and a second `serve` on the same file ([`SqliteStore::open_exclusive`] refuses it).

mod accept;
mod campaign;
mod claims;
mod clock;
mod counts;
mod directory;
mod dispatch;
mod doomed;
mod due;
mod enquiry;
mod error;
mod intake;
mod keep;
mod leases;
mod line;
mod log;
mod once;
mod open;
mod operator;
mod record;
mod row;
mod schema;
#[cfg(test)]
mod tests;
mod work;

use std::fs::File;

use sqlx::SqlitePool;

use leases::Leases;

/// The log and the queue in an SQLite file.
pub struct SqliteStore {
    /// One connection.
    writer: SqlitePool,
    /// Four connections that cannot write.
    reader: SqlitePool,
    /// Of the workers of this process.
    leases: Leases,
    /// The lock that keeps a second `serve` out; released when the store is dropped.
    _exclusive: Option<File>,
}

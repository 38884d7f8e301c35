//! The built-in database: one SQLite file, nothing to install. The only place that knows SQLite.
//!
//! One connection writes and four read (WAL), so that reads never wait for a commit. Other programs may write
//! as well: every write transaction begins IMMEDIATE and waits its turn for five seconds. Times are text and
//! come from this machine's clock, which every program that opens the file shares. An idle process writes
//! nothing: leases are kept in its memory, and every task that may find no work looks first on a reading
//! connection.
//!
//! Never here: policy, and a second `serve` on the same file ([`SqliteStore::open_exclusive`] refuses it).

mod accept;
mod backlog;
mod campaign;
mod cancel;
mod claims;
mod clock;
mod counts;
mod directory;
mod dispatch;
mod doomed;
mod due;
mod enquiry;
mod error;
mod idempotency;
mod intake;
mod keep;
mod leases;
mod line;
mod log;
mod open;
mod operator;
mod record;
mod row;
mod schema;
mod span;
#[cfg(test)]
mod tests;
mod work;

#[cfg(test)]
pub(super) use schema::MIGRATIONS;

use std::fs::File;

use sqlx::SqlitePool;

use leases::Leases;

/// The log and the queue in an SQLite file.
pub struct SqliteStore {
    /// One connection.
    writer: SqlitePool,
    /// Four connections that cannot write.
    reader: SqlitePool,
    /// The leases of this process's workers.
    leases: Leases,
    /// The lock that keeps a second `serve` out; released when the store is dropped.
    _exclusive: Option<File>,
}

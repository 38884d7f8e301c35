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
mod addresses;
mod apps;
mod attachments;
mod backlog;
mod budgets;
mod campaign;
mod cancel;
mod claims;
mod clock;
mod counts;
mod directory;
mod dispatch;
mod doomed;
mod due;
mod echoes;
mod enquiry;
mod error;
mod idempotency;
mod inbox;
mod intake;
mod keep;
mod leases;
mod line;
mod log;
mod open;
mod operator;
mod page_tokens;
mod receipts;
mod recipients;
mod record;
mod refresh;
mod row;
mod schema;
mod span;
mod store;
#[cfg(test)]
mod tests;
mod tokens;
mod work;

#[cfg(test)]
pub(super) use schema::MIGRATIONS;

pub use store::SqliteStore;

//! The log and its queue on PostgreSQL: for production, shared by any number of processes.
//!
//! Every hot statement takes arrays and is one round trip, and one that finds rows of the log by id names
//! their range. The connections of dispatch and ingest are set not to scan whole tables: on a fresh table
//! without statistics the planner would, at ten times the cost a row.
//!
//! Never here: policy.

mod accept;
mod addresses;
mod apps;
mod attachments;
mod backlog;
mod budgets;
mod campaign;
mod cancel;
mod claims;
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
mod log;
mod lost;
mod open;
mod operator;
mod page_tokens;
mod parameters;
mod plaintext;
mod pool;
mod pooler;
mod receipts;
mod recipients;
mod record;
mod record_one;
mod refresh;
mod roles;
mod rows;
mod schema;
mod session;
mod store;
mod tokens;
mod work;

#[cfg(test)]
pub(super) use schema::MIGRATIONS;

pub use self::store::PostgresStore;

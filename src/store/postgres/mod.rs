//! The log and its queue on PostgreSQL: for production, shared by any number of processes.
//!
//! Every hot statement takes arrays and is one round trip, and one that finds rows of the log by id names
//! their range. The connections of dispatch and ingest are set not to scan whole tables: on a fresh table
//! without statistics the planner would, at ten times the cost a row.
//!
//! Never here: policy.

mod accept;
mod backlog;
mod campaign;
mod cancel;
mod claims;
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
mod log;
mod lost;
mod open;
mod operator;
mod parameters;
mod pool;
mod pooler;
mod record;
mod record_one;
mod rows;
mod schema;
mod session;
mod work;

#[cfg(test)]
pub(super) use schema::MIGRATIONS;

use std::sync::atomic::AtomicBool;

use self::claims::ClaimCursors;
use self::leases::Snapshots;
use self::pool::Pool;
use self::record::PlainRows;
use self::session::Sessions;
use self::work::ReadState;

/// The store of `database.url = "postgres://…"`.
pub struct PostgresStore {
    sessions: Sessions,
    /// Known once it was asked: see `pooler`.
    are_sessions_kept: AtomicBool,
    /// Inserts of ingest, and its look-ups.
    ingest: Pool,
    /// Reads of dispatch, and its writes about lines.
    dispatch: Pool,
    /// The recorder alone: results and claims wait for no other work.
    recorder: Pool,
    /// Leases alone: they would run out while other work holds the connection.
    leases: Pool,
    /// Scans of the queue. They may take long where an old snapshot keeps dead rows.
    scans: Pool,
    /// Commands, health, statistics, migrations: rare statements that may take long.
    background: Pool,
    /// The questions of senders about their messages and campaigns, at any rate.
    enquiries: Pool,
    read_state: ReadState,
    plain_rows: PlainRows,
    claim_cursors: ClaimCursors,
    snapshots: Snapshots,
}

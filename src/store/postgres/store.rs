//! The store: its connections, a pool for each kind of work, and what it remembers between statements.

use std::sync::atomic::AtomicBool;

use super::claims::ClaimCursors;
use super::leases::Snapshots;
use super::pool::Pool;
use super::record::PlainRows;
use super::session::Sessions;
use super::work::ReadState;

/// The store of `database.url = "postgres://…"`.
pub struct PostgresStore {
    pub(super) sessions: Sessions,
    /// Known once it was asked: see `pooler`.
    pub(super) are_sessions_kept: AtomicBool,
    /// Inserts of ingest, and its look-ups.
    pub(super) ingest: Pool,
    /// Reads of dispatch, and its writes about lines.
    pub(super) dispatch: Pool,
    /// The recorder alone: results and claims wait for no other work.
    pub(super) recorder: Pool,
    /// Leases alone: they would run out while other work holds the connection.
    pub(super) leases: Pool,
    /// Scans of the queue. They may take long where an old snapshot keeps dead rows.
    pub(super) scans: Pool,
    /// Commands, health, statistics, migrations: rare statements that may take long.
    pub(super) background: Pool,
    /// The questions of senders about their messages and campaigns, at any rate.
    pub(super) enquiries: Pool,
    pub(super) read_state: ReadState,
    pub(super) plain_rows: PlainRows,
    pub(super) claim_cursors: ClaimCursors,
    pub(super) snapshots: Snapshots,
}

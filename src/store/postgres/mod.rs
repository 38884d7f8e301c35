//! The log and its queue on PostgreSQL: for production, shared by any number of processes.
//!
//! Every hot statement takes arrays and is one round trip, and one that finds rows of the log by id names their range. The
//! connections of dispatch and ingest are told not to scan whole tables: on a fresh table without statistics the planner
//! would, at ten times the cost a row.

mod accept;
mod campaign;
mod claims;
mod directory;
mod dispatch;
mod doomed;
mod due;
mod enquiry;
mod error;
mod intake;
mod keep;
mod leases;
mod log;
mod lost;
mod once;
mod open;
mod operator;
mod parameters;
mod pool;
mod record;
mod record_one;
mod rows;
mod schema;
mod session;
mod work;

use self::claims::Places;
use self::leases::Snapshots;
use self::pool::Pool;
use self::record::PlainRows;
use self::session::Sessions;
use self::work::Reading;

/// The store of `database.url = "postgres://…"`.
pub struct PostgresStore {
    sessions: Sessions,
    /// Inserts of ingest, and its look-ups.
    ingest: Pool,
    /// Reads of dispatch, and its writes about lines.
    dispatch: Pool,
    /// The recorder alone: results and claims wait for nothing else.
    recorder: Pool,
    /// Leases alone: they run out while something else holds the connection.
    leases: Pool,
    /// Looks through the queue. They may take long where an old snapshot keeps dead rows.
    scans: Pool,
    /// Commands, health, statistics, migrations: statements that may take long, and nobody asks for often.
    calm: Pool,
    /// What senders ask about their messages and campaigns, as often as they like.
    questions: Pool,
    reading: Reading,
    plain_rows: PlainRows,
    places: Places,
    snapshots: Snapshots,
}

//! The connections: pools by role, so that no kind of work waits for another's, each with the settings its statements need.

use std::str::FromStr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::PgConnectOptions;

use super::PostgresStore;
use super::pool::Pool;
use super::session::Sessions;
use crate::store::StoreError;

/// Statements of requests and dispatch take milliseconds; one that takes this long is stuck.
const HOT_STATEMENT_TIMEOUT: &str = "5s";
/// A full look at the queue under an old snapshot walks over millions of dead rows.
const SCAN_TIMEOUT: &str = "30s";
/// A question that takes longer has nobody who waits for its answer any more.
const QUESTION_TIMEOUT: &str = "15s";

/// How long a statement waits for somebody's lock. The recorder waits less: a batch that meets a lock is halved until the
/// row that is locked stands alone, and waits each time.
const LOCK_TIMEOUT: &str = "2s";
const RECORDER_LOCK_TIMEOUT: &str = "200ms";

/// How long is waited for an answer, above what the server is told: longer, it has vanished. Commands may take long.
const HOT_PATIENCE: Duration = Duration::from_secs(15);
const SCAN_PATIENCE: Duration = Duration::from_secs(45);
const QUESTION_PATIENCE: Duration = Duration::from_secs(20);
const CALM_PATIENCE: Duration = Duration::from_secs(5 * 60);

/// With fewer connections than this, roles share pools.
const ENOUGH: u32 = 10;

/// How many connections each role may have; together `database.max_connections`.
#[derive(Debug, PartialEq, Eq)]
struct Shares {
    ingest: u32,
    dispatch: u32,
    scans: u32,
    calm: u32,
    questions: u32,
}

impl Shares {
    /// One is the recorder's and one that of the leases.
    fn of(max_connections: u32) -> Shares {
        let (scans, calm) = (2, (max_connections / 8).max(1));
        let questions = (max_connections / 5).clamp(1, 4);
        let left = max_connections.saturating_sub(2 + scans + calm + questions).max(2);
        Shares { ingest: left - left / 2, dispatch: left / 2, scans, calm, questions }
    }
}

impl PostgresStore {
    /// Connects when first used. Only a malformed URL is an error here.
    pub fn open(url: &SecretString, max_connections: u32) -> Result<PostgresStore, StoreError> {
        let options = PgConnectOptions::from_str(url.expose_secret())
            .map_err(|_| StoreError::Invalid("setting database.url: not a PostgreSQL URL".into()))?;
        let sessions = Sessions::default();
        let pool = |name, options, size, patience| Pool::new(&sessions, name, options, size, patience);
        let hot = hot(options.clone());
        // The indexes are made for what senders and operators ask; a planner with old statistics reads whole tables.
        let indexed =
            options.options([("enable_seqscan", "off"), ("enable_bitmapscan", "off"), ("jit", "off")]);
        let asked = indexed.clone().options([("statement_timeout", QUESTION_TIMEOUT)]);
        let scanning = hot.clone().options([("statement_timeout", SCAN_TIMEOUT)]);
        let shares = Shares::of(max_connections);
        let are_few = max_connections < ENOUGH;
        let calm = pool("calm", indexed, if are_few { 1 } else { shares.calm }, CALM_PATIENCE);
        let recording = hot.clone().options([("lock_timeout", RECORDER_LOCK_TIMEOUT)]);
        let recorder = pool("recorder", recording, 1, HOT_PATIENCE);
        let leases = pool("leases", hot.clone(), 1, HOT_PATIENCE);
        let (ingest, dispatch, scans, questions);
        if are_few {
            let left = max_connections.saturating_sub(3).max(1);
            ingest = pool("hot", hot, left, HOT_PATIENCE);
            (dispatch, scans) = (ingest.clone(), ingest.clone());
            questions = calm.clone();
        } else {
            ingest = pool("ingest", hot.clone(), shares.ingest, HOT_PATIENCE);
            dispatch = pool("dispatch", hot, shares.dispatch, HOT_PATIENCE);
            scans = pool("scans", scanning, shares.scans, SCAN_PATIENCE);
            questions = pool("questions", asked, shares.questions, QUESTION_PATIENCE);
        }
        Ok(PostgresStore {
            sessions,
            ingest,
            dispatch,
            recorder,
            leases,
            scans,
            calm,
            questions,
            reading: Default::default(),
            plain_rows: Default::default(),
            places: Default::default(),
            snapshots: Default::default(),
        })
    }

    pub(super) fn pools(&self) -> [&Pool; 7] {
        [&self.ingest, &self.dispatch, &self.recorder, &self.leases, &self.scans, &self.calm, &self.questions]
    }
}

/// Settings of statements that look rows up by index, thousands of times a second.
fn hot(options: PgConnectOptions) -> PgConnectOptions {
    options.options([
        ("statement_timeout", HOT_STATEMENT_TIMEOUT),
        ("lock_timeout", LOCK_TIMEOUT),
        ("idle_in_transaction_session_timeout", "10s"),
        ("enable_seqscan", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
        ("enable_bitmapscan", "off"),
        ("enable_material", "off"),
        // Batches differ in size only: planning each anew costs more than it finds.
        ("plan_cache_mode", "force_generic_plan"),
        ("jit", "off"),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_are_all_connections_but_two() {
        for all in ENOUGH..200 {
            let Shares { ingest, dispatch, scans, calm, questions } = Shares::of(all);
            assert_eq!(ingest + dispatch + scans + calm + questions + 2, all);
            assert!(ingest > 0 && dispatch > 0 && calm > 0);
        }
    }
}

//! The connections: pools by role, so that no kind of work waits for another's, each with the settings its
//! statements need. Never here: the statements.

use std::str::FromStr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::PgConnectOptions;

use super::PostgresStore;
use super::plaintext;
use super::pool::Pool;
use super::session::{SessionSetting, Sessions};
use crate::settings::Plaintext;
use crate::store::StoreError;

/// Statements of requests and dispatch take milliseconds; one that takes this long is stuck.
const HOT_STATEMENT_TIMEOUT: &str = "5s";
/// A full scan of the queue under an old snapshot walks over millions of dead rows.
const SCAN_TIMEOUT: &str = "30s";
/// No sender waits for the answer of an enquiry any longer than this.
const ENQUIRY_TIMEOUT: &str = "15s";

/// How long a statement waits for a lock of another session. The recorder waits less: a batch that meets a
/// lock is halved until the locked row is alone, and waits each time.
const LOCK_TIMEOUT: &str = "2s";
const RECORDER_LOCK_TIMEOUT: &str = "200ms";

/// How long the client waits for an answer, longer than the server's own limit: after that the server has
/// vanished. Commands may take long.
const HOT_CLIENT_TIMEOUT: Duration = Duration::from_secs(15);
const SCAN_CLIENT_TIMEOUT: Duration = Duration::from_secs(45);
const ENQUIRY_CLIENT_TIMEOUT: Duration = Duration::from_secs(20);
const BACKGROUND_CLIENT_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// With fewer connections than this, roles share pools.
const MIN_SEPARATE_POOLS: u32 = 10;

/// The number of connections of each role; together `database.max_connections`.
#[derive(Debug, PartialEq, Eq)]
struct PoolSizes {
    ingest: u32,
    dispatch: u32,
    scans: u32,
    background: u32,
    enquiries: u32,
}

impl PoolSizes {
    /// Divide the connections: one is the recorder's, and one is that of the leases.
    fn of(max_connections: u32) -> PoolSizes {
        let (scans, background) = (2, (max_connections / 8).max(1));
        let enquiries = (max_connections / 5).clamp(1, 4);
        let left = max_connections.saturating_sub(2 + scans + background + enquiries).max(2);
        PoolSizes { ingest: left - left / 2, dispatch: left / 2, scans, background, enquiries }
    }
}

impl PostgresStore {
    /// Return a store that connects at its first use. Only a URL that cannot be used is an error here.
    pub fn open(
        url: &SecretString,
        max_connections: u32,
        plaintext: Plaintext,
    ) -> Result<PostgresStore, StoreError> {
        let options = PgConnectOptions::from_str(url.expose_secret())
            .map_err(|_| StoreError::Invalid("setting database.url: not a PostgreSQL URL".into()))?;
        plaintext::check(&options, plaintext)?;
        let sessions = Sessions::new(plaintext);
        let pool = |name, settings, size, patience| {
            Pool::new(&sessions, name, options.clone(), settings, size, patience)
        };
        let hot = HOT.to_vec();
        let indexed = INDEXED.to_vec();
        let asked = with(&INDEXED, ("statement_timeout", ENQUIRY_TIMEOUT));
        let scanning = with(&HOT, ("statement_timeout", SCAN_TIMEOUT));
        let sizes = PoolSizes::of(max_connections);
        let are_few = max_connections < MIN_SEPARATE_POOLS;
        let background = pool(
            "background",
            indexed,
            if are_few { 1 } else { sizes.background },
            BACKGROUND_CLIENT_TIMEOUT,
        );
        let recording = with(&HOT, ("lock_timeout", RECORDER_LOCK_TIMEOUT));
        let recorder = pool("recorder", recording, 1, HOT_CLIENT_TIMEOUT);
        let leases = pool("leases", hot.clone(), 1, HOT_CLIENT_TIMEOUT);
        let (ingest, dispatch, scans, enquiries);
        if are_few {
            let left = max_connections.saturating_sub(3).max(1);
            ingest = pool("hot", hot, left, HOT_CLIENT_TIMEOUT);
            (dispatch, scans) = (ingest.clone(), ingest.clone());
            enquiries = background.clone();
        } else {
            ingest = pool("ingest", hot.clone(), sizes.ingest, HOT_CLIENT_TIMEOUT);
            dispatch = pool("dispatch", hot, sizes.dispatch, HOT_CLIENT_TIMEOUT);
            scans = pool("scans", scanning, sizes.scans, SCAN_CLIENT_TIMEOUT);
            enquiries = pool("enquiries", asked, sizes.enquiries, ENQUIRY_CLIENT_TIMEOUT);
        }
        Ok(PostgresStore {
            are_sessions_kept: Default::default(),
            sessions,
            ingest,
            dispatch,
            recorder,
            leases,
            scans,
            background,
            enquiries,
            read_state: Default::default(),
            plain_rows: Default::default(),
            claim_cursors: Default::default(),
            snapshots: Default::default(),
        })
    }

    pub(super) fn pools(&self) -> [&Pool; 7] {
        [
            &self.ingest,
            &self.dispatch,
            &self.recorder,
            &self.leases,
            &self.scans,
            &self.background,
            &self.enquiries,
        ]
    }
}

/// Return the settings of statements that look rows up by index, thousands of times a second.
const HOT: [SessionSetting; 10] = [
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
];

/// The indexes fit the queries of senders and operators; a planner with old statistics reads whole tables.
const INDEXED: [SessionSetting; 3] =
    [("enable_seqscan", "off"), ("enable_bitmapscan", "off"), ("jit", "off")];

/// Return the settings with one of them changed, or one more.
fn with(settings: &[SessionSetting], changed: SessionSetting) -> Vec<SessionSetting> {
    let others = settings.iter().copied().filter(|(name, _)| *name != changed.0);
    others.chain([changed]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_one_value_for_a_changed_setting() {
        let settings = with(&HOT, ("lock_timeout", RECORDER_LOCK_TIMEOUT));
        let locks: Vec<_> = settings.iter().filter(|(name, _)| *name == "lock_timeout").collect();
        assert_eq!(locks, [&("lock_timeout", RECORDER_LOCK_TIMEOUT)]);
        assert_eq!(settings.len(), HOT.len());
    }

    #[test]
    fn shares_all_connections_but_two() {
        for all in MIN_SEPARATE_POOLS..200 {
            let PoolSizes { ingest, dispatch, scans, background, enquiries } = PoolSizes::of(all);
            assert_eq!(ingest + dispatch + scans + background + enquiries + 2, all);
            assert!(ingest > 0 && dispatch > 0 && background > 0);
        }
    }
}

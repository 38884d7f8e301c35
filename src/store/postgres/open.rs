//! The connections: four pools, so that no kind of work waits for another's, each with the settings its statements need.

use std::str::FromStr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::PostgresStore;
use super::pool::Pool;
use crate::store::StoreError;

const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// Statements of requests and dispatch take milliseconds; one that takes this long is stuck.
const HOT_STATEMENT_TIMEOUT: &str = "5s";
/// A question that takes longer has nobody who waits for its answer any more.
const QUESTION_TIMEOUT: &str = "15s";

/// How long is waited for an answer, above what the server is told: longer, it has vanished. Commands may take long.
const HOT_PATIENCE: Duration = Duration::from_secs(15);
const QUESTION_PATIENCE: Duration = Duration::from_secs(20);
const CALM_PATIENCE: Duration = Duration::from_secs(5 * 60);

impl PostgresStore {
    /// Connects when first used. Only a malformed URL is an error here.
    pub fn open(url: &SecretString, max_connections: u32) -> Result<PostgresStore, StoreError> {
        let options = PgConnectOptions::from_str(url.expose_secret())
            .map_err(|_| StoreError::Invalid("setting database.url: not a PostgreSQL URL".into()))?
            .application_name("meta-dispatch");
        let hot = options.clone().options([
            ("statement_timeout", HOT_STATEMENT_TIMEOUT),
            ("lock_timeout", "2s"),
            ("idle_in_transaction_session_timeout", "10s"),
            ("enable_seqscan", "off"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
            ("enable_bitmapscan", "off"),
            ("enable_material", "off"),
            // Batches differ in size only: planning each anew costs more than it finds.
            ("plan_cache_mode", "force_generic_plan"),
            ("jit", "off"),
        ]);
        // The indexes are made for what senders and operators ask; a planner with old statistics counts a campaign by
        // reading the whole table once for each of its groups.
        let indexed =
            options.options([("enable_seqscan", "off"), ("enable_bitmapscan", "off"), ("jit", "off")]);
        let asked = indexed.clone().options([("statement_timeout", QUESTION_TIMEOUT)]);
        let (questions, calm) = ((max_connections / 4).clamp(1, 4), (max_connections / 6).max(1));
        let hot_connections = max_connections - questions - calm;
        Ok(PostgresStore {
            ingest: pool(hot.clone(), hot_connections / 2, HOT_PATIENCE),
            dispatch: pool(hot, hot_connections - hot_connections / 2, HOT_PATIENCE),
            calm: pool(indexed, calm, CALM_PATIENCE),
            questions: pool(asked, questions, QUESTION_PATIENCE),
        })
    }
}

fn pool(options: PgConnectOptions, connections: u32, patience: Duration) -> Pool {
    let connections = PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .max_lifetime(Duration::from_secs(30 * 60))
        .test_before_acquire(false)
        .after_connect(|connection, _| {
            // A commit that is answered is on disk, however the server is or will be set up; stricter settings stay.
            let sync = "select set_config('synchronous_commit', 'on', false)
                        where current_setting('synchronous_commit') in ('off', 'on')";
            Box::pin(async move { sqlx::query(sync).execute(connection).await.map(drop) })
        })
        .connect_lazy_with(options);
    Pool { connections, patience }
}

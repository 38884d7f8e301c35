//! The sessions behind the pooled connections: how each is set up, and when one is used no more.
//!
//! A session outlives the state of its server: after a fail-over it may lead to a server that only reads, and its socket may
//! have been closed while it was idle. A statement that this side has given up may still run on the server. No statements of
//! the program's own work here.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::pool::PoolConnectionMetadata;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, Error, PgConnection, PgPool};

/// A connection idle for longer is asked whether it is still open before it is used.
const TRUSTED_FOR: Duration = Duration::from_secs(1);
/// How long that may take.
const PING_PATIENCE: Duration = Duration::from_secs(1);
/// Connections are renewed at most this often: a server that only reads for long is asked now and then.
const RENEWED_EVERY: Duration = Duration::from_secs(5);

/// `read_only_sql_transaction`.
const READ_ONLY: &str = "25006";

/// A commit that is answered is on disk, however the server is or will be set up; stricter settings stay. Names mean the
/// tables of the schema in which this installation was made, also when another schema appears before it on the path.
const SET_UP: &str = "
    select (select set_config('synchronous_commit', 'on', false)
            where current_setting('synchronous_commit') in ('off', 'on')),
           (select set_config('search_path', quote_ident(n.nspname), false)
            from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = to_regclass('cdls'))";

/// The statements of a process's pool are told from those of others by the name of its sessions.
const CANCEL: &str = "
    select count(pg_cancel_backend(pid)) from pg_stat_activity
    where application_name = $1 and datname = current_database() and state <> 'idle' and pid <> pg_backend_pid()
      and xact_start < now() - $2 * interval '1 millisecond'";

/// The knowledge that all pools of a process share about their sessions. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sessions(Arc<State>);

#[derive(Debug)]
struct State {
    /// Tells this process's sessions from those of others.
    process: String,
    /// Sessions begun before are not used any more.
    renewed: Mutex<Option<Instant>>,
    turn: AtomicUsize,
}

impl Default for Sessions {
    fn default() -> Sessions {
        Sessions(Arc::new(State {
            process: format!("{:08x}", rand::random::<u32>()),
            renewed: Mutex::default(),
            turn: AtomicUsize::new(0),
        }))
    }
}

impl Sessions {
    /// The `application_name` of a pool's sessions.
    pub fn name(&self, pool: &str) -> String {
        format!("meta-dispatch {pool} {}", self.0.process)
    }

    /// Settings that the program relies on, whatever the database or the role sets.
    pub fn options(&self, options: PgConnectOptions, pool: &str) -> PgConnectOptions {
        options
            .application_name(&self.name(pool))
            .options([("default_transaction_isolation", r"read\ committed")])
    }

    /// Counts up.
    pub fn turn(&self) -> usize {
        self.0.turn.fetch_add(1, Ordering::Relaxed)
    }

    pub async fn set_up(connection: &mut PgConnection) -> Result<(), Error> {
        sqlx::query(SET_UP).execute(connection).await.map(drop)
    }

    /// Whether a connection from the pool may be used.
    pub async fn is_usable(&self, connection: &mut PgConnection, about: PoolConnectionMetadata) -> bool {
        let renewed = *self.0.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        if renewed.is_some_and(|renewed| about.age >= renewed.elapsed()) {
            return false;
        }
        about.idle_for < TRUSTED_FOR
            || matches!(tokio::time::timeout(PING_PATIENCE, connection.ping()).await, Ok(Ok(())))
    }

    /// The server behind a connection only reads: it may be the old one, and the new one has taken its address.
    pub fn renew(&self) {
        let mut renewed = self.0.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        if renewed.is_none_or(|renewed| renewed.elapsed() >= RENEWED_EVERY) {
            tracing::warn!("database server only reads: all connections are made anew");
            *renewed = Some(Instant::now());
        }
    }
}

/// Whether a connection may be given back after this answer of its server: not to one that only reads, or that is ending the
/// session.
pub fn may_go_on(error: &Error) -> bool {
    match error {
        Error::Database(database) => {
            database.code().is_none_or(|code| code != READ_ONLY && !code.starts_with("57P"))
        }
        _ => false,
    }
}

pub fn is_read_only(error: &Error) -> bool {
    matches!(error, Error::Database(database) if database.code().is_some_and(|code| code == READ_ONLY))
}

/// Ends statements of the sessions named so that have taken longer than their pool waits: their connections were given up, and
/// their server has not noticed. Commits that wait for a standby would add up without bound.
pub fn cancel(connections: &PgPool, name: String, patience: Duration) {
    let connections = connections.clone();
    tokio::spawn(async move {
        let cancelled = sqlx::query_scalar::<_, i64>(CANCEL)
            .bind(&name)
            .bind(i64::try_from(patience.as_millis()).unwrap_or(i64::MAX))
            .fetch_one(&connections)
            .await;
        match cancelled {
            Ok(0) => {}
            Ok(cancelled) => {
                tracing::warn!(
                    cancelled,
                    sessions = name,
                    "statements were given up: the server was asked to end them"
                );
            }
            Err(error) => {
                tracing::debug!(%error, "statements that were given up may still run on the server")
            }
        }
    });
}

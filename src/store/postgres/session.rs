//! The sessions behind the pooled connections: how each is set up, and when one is used no more.
//!
//! A session outlives the state of its server: after a fail-over it may lead to a server that only reads, and its socket may
//! have been closed while it was idle. No statements of the program's own work here.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, Error, PgConnection};

/// A connection idle for longer is asked whether it is still open before it is used.
const TRUSTED_FOR: Duration = Duration::from_secs(1);
/// How long that may take.
const PING_PATIENCE: Duration = Duration::from_secs(1);
/// Connections are renewed at most this often: a server that only reads for long is asked now and then.
const RENEWED_EVERY: Duration = Duration::from_secs(5);

/// Sessions older than this are not used again: their backends keep what they have read of the schema.
const MAX_AGE: Duration = Duration::from_secs(30 * 60);
/// A server that is starting, or full, is asked again this often.
const CONNECT_AGAIN: Duration = Duration::from_millis(100);

/// `read_only_sql_transaction`.
const READ_ONLY: &str = "25006";

/// A commit that is answered is on disk, however the server is or will be set up; stricter settings stay. Names mean the
/// tables of the schema in which this installation was made, also when another schema appears before it on the path.
const SET_UP: &str = "
    select (select set_config('synchronous_commit', 'on', false)
            where current_setting('synchronous_commit') in ('off', 'on')),
           (select set_config('search_path', quote_ident(n.nspname), false)
            from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = to_regclass('cdls'))";

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

    /// Whether a session of this age may be used, which was lent last so long ago.
    async fn is_usable(&self, connection: &mut PgConnection, age: Duration, idle: Duration) -> bool {
        let renewed = *self.0.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        if age >= MAX_AGE || renewed.is_some_and(|renewed| age >= renewed.elapsed()) {
            return false;
        }
        idle < TRUSTED_FOR
            || matches!(tokio::time::timeout(PING_PATIENCE, connection.ping()).await, Ok(Ok(())))
    }

    /// The server behind a connection only reads: it may be the old one, and the new one has taken its address.
    pub fn renew(&self) {
        let mut renewed = self.0.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        if renewed.is_none_or(|renewed| renewed.elapsed() >= RENEWED_EVERY) {
            tracing::warn!("database server is read-only: renewing all connections");
            *renewed = Some(Instant::now());
        }
    }
}

/// Makes the sessions of one pool.
#[derive(Debug)]
pub struct Opener {
    sessions: Sessions,
    options: PgConnectOptions,
    /// How long a server that is starting, or full, is asked.
    patience: Duration,
}

impl Opener {
    pub fn new(sessions: Sessions, options: PgConnectOptions, patience: Duration) -> Opener {
        Opener { sessions, options, patience }
    }

    async fn open(&self) -> Result<PgConnection, Error> {
        let mut connection = PgConnection::connect_with(&self.options).await?;
        sqlx::query(SET_UP).execute(&mut connection).await?;
        Ok(connection)
    }
}

impl Manager for Opener {
    type Type = PgConnection;
    type Error = Error;

    async fn create(&self) -> Result<PgConnection, Error> {
        let begun = Instant::now();
        loop {
            match self.open().await {
                Err(error) if is_starting(&error) && begun.elapsed() + CONNECT_AGAIN * 2 < self.patience => {
                    tokio::time::sleep(CONNECT_AGAIN).await;
                }
                done => return done,
            }
        }
    }

    async fn recycle(&self, connection: &mut PgConnection, metrics: &Metrics) -> RecycleResult<Error> {
        match self.sessions.is_usable(connection, metrics.age(), metrics.last_used()).await {
            true => Ok(()),
            false => Err(RecycleError::message("the session is old, or its server is gone")),
        }
    }
}

/// Whether a server refuses connections for a moment: it is starting (57P03), has no connection left (53300), or is not there.
fn is_starting(error: &Error) -> bool {
    match error {
        Error::Io(error) => error.kind() == io::ErrorKind::ConnectionRefused,
        Error::Database(database) => database.code().is_some_and(|code| matches!(&*code, "57P03" | "53300")),
        _ => false,
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

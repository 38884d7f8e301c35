//! The sessions behind the pooled connections: their set-up, and the moment from which one is no longer used.
//!
//! A session outlives the state of its server: after a fail-over it may lead to a server that only reads, and
//! its socket may have been closed while it was idle. Never here: statements of the program's own work.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use parking_lot::Mutex;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, Error, PgConnection};

use super::plaintext;
use crate::settings::Plaintext;

/// A connection idle for longer is tested before it is used.
const TRUSTED_FOR: Duration = Duration::from_secs(1);
/// How long the test may take.
const PING_TIMEOUT: Duration = Duration::from_secs(1);
/// Connections are renewed at most this often: a server that stays read-only is tried now and then.
const RENEWED_EVERY: Duration = Duration::from_secs(5);

/// Sessions older than this are not used again: their backends keep a cache of the schema.
const MAX_AGE: Duration = Duration::from_secs(30 * 60);
/// How often a server that is starting, or full, is tried again.
const CONNECT_AGAIN: Duration = Duration::from_millis(100);

/// `read_only_sql_transaction`.
const READ_ONLY: &str = "25006";

/// The name and value of a setting that the program relies on.
pub type SessionSetting = (&'static str, &'static str);

/// For all sessions, whatever the database or the role sets.
const ISOLATION: SessionSetting = ("default_transaction_isolation", "read committed");

/// The settings of a session, set after connecting: a pooler between refuses or ignores them as parameters of
/// the start.
///
/// A commit that is answered is on disk, whatever the server's settings are or become; stricter settings
/// stay. Names mean the tables of the schema in which this installation was made, also when another schema
/// appears before it on the path.
const SET_UP: &str = "
    select set_config(name, value, false) from unnest($1::text[], $2::text[]) as wanted (name, value)
    union all
    select set_config('synchronous_commit', 'on', false)
    where current_setting('synchronous_commit') in ('off', 'on')
    union all
    select set_config('search_path', quote_ident(n.nspname), false)
    from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = to_regclass('cdls')";

/// The knowledge about sessions that all pools of a process share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sessions(Arc<SessionsState>);

#[derive(Debug)]
struct SessionsState {
    /// The mark of this process's sessions.
    process: String,
    /// Where a session may be plain text.
    plaintext: Plaintext,
    /// Sessions begun before this time are no longer used.
    renewed: Mutex<Option<Instant>>,
    /// Why the last attempt to connect failed, if it did.
    refusal: Mutex<Option<String>>,
    turn: AtomicUsize,
}

impl Sessions {
    pub fn new(plaintext: Plaintext) -> Sessions {
        Sessions(Arc::new(SessionsState {
            process: format!("{:08x}", rand::random::<u32>()),
            plaintext,
            renewed: Mutex::default(),
            refusal: Mutex::default(),
            turn: AtomicUsize::new(0),
        }))
    }

    /// Return the `application_name` of a pool's sessions.
    pub fn name(&self, pool: &str) -> String {
        format!("meta-dispatch {pool} {}", self.0.process)
    }

    /// Return the options of a pool's sessions: as few parameters as a pooler lets through.
    pub fn options(&self, options: PgConnectOptions, pool: &str) -> PgConnectOptions {
        options.application_name(&self.name(pool)).extra_float_digits(None)
    }

    /// Return the reason why the last attempt to connect failed, if it did.
    pub fn refusal(&self) -> Option<String> {
        self.0.refusal.lock().clone()
    }

    /// Count up.
    pub fn turn(&self) -> usize {
        self.0.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether a session of this age, lent last so long ago, may be used.
    async fn is_usable(&self, connection: &mut PgConnection, age: Duration, idle: Duration) -> bool {
        let renewed = *self.0.renewed.lock();
        if age >= MAX_AGE || renewed.is_some_and(|renewed| age >= renewed.elapsed()) {
            return false;
        }
        idle < TRUSTED_FOR
            || matches!(tokio::time::timeout(PING_TIMEOUT, connection.ping()).await, Ok(Ok(())))
    }

    /// Renew all sessions. The server behind a connection only reads: it may be the old one, and the new one
    /// has taken its address.
    pub fn renew(&self) {
        let mut renewed = self.0.renewed.lock();
        if renewed.is_none_or(|renewed| renewed.elapsed() >= RENEWED_EVERY) {
            tracing::warn!("database server is read-only: renewing all connections");
            *renewed = Some(Instant::now());
        }
    }
}

/// The maker of one pool's sessions.
#[derive(Debug)]
pub struct SessionManager {
    sessions: Sessions,
    options: PgConnectOptions,
    /// Names and values of its settings.
    names: Vec<&'static str>,
    values: Vec<&'static str>,
    /// How long a server that is starting, or full, is tried.
    patience: Duration,
}

impl SessionManager {
    pub fn new(
        sessions: Sessions,
        options: PgConnectOptions,
        settings: Vec<SessionSetting>,
        patience: Duration,
    ) -> SessionManager {
        let (names, values) = settings.into_iter().chain([ISOLATION]).unzip();
        SessionManager { sessions, options, names, values, patience }
    }

    async fn open(&self) -> Result<PgConnection, Error> {
        let opened = self.set_up().await;
        *self.sessions.0.refusal.lock() = opened.as_ref().err().map(ToString::to_string);
        opened
    }

    async fn set_up(&self) -> Result<PgConnection, Error> {
        let mut connection = plaintext::connect(&self.options, self.sessions.0.plaintext).await?;
        sqlx::query(SET_UP).bind(&self.names).bind(&self.values).execute(&mut connection).await?;
        Ok(connection)
    }
}

impl Manager for SessionManager {
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

/// Whether a server refuses connections for a moment: it is starting (57P03), has no connection left (53300),
/// or does not exist.
fn is_starting(error: &Error) -> bool {
    match error {
        Error::Io(error) => error.kind() == io::ErrorKind::ConnectionRefused,
        Error::Database(database) => database.code().is_some_and(|code| matches!(&*code, "57P03" | "53300")),
        _ => false,
    }
}

/// Whether a connection may be given back after this answer: not if its server only reads or is ending the
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

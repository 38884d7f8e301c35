//! Connections with a limit to every wait: one whose server does not answer in time is closed.
//!
//! A server that vanishes silently (its host lost power, a firewall forgot the connection) answers nothing,
//! and sqlx sets no limit to a read, nor to the ping of a connection that comes back into its pool. Never
//! here: statements.

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool::managed::{Object, PoolError, QueueMode, TimeoutType};
use deadpool::{Runtime, managed};
use futures::future::{BoxFuture, join_all};
use futures::stream::{BoxStream, StreamExt, TryStreamExt, iter};
use parking_lot::Mutex;
use sqlx::postgres::{PgConnectOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Connection, Describe, Either, Error, Execute, Executor, PgConnection, Postgres};

use super::error::failed;
use super::session::{self, SessionManager, SessionSetting, Sessions};
use crate::store::StoreError;

/// How long a caller waits for a connection that others use, and for a new one to be made.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// Connections unused for this long are closed.
const IDLE_FOR: Duration = Duration::from_secs(10 * 60);
/// How often such connections are looked for.
const REAP_EVERY: Duration = Duration::from_secs(60);
/// How long a server may take to hear of the end of a session.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The name of its sessions distinguishes the statements of a process's pool from those of others.
const CANCEL: &str = "
    select count(pg_cancel_backend(pid)) from pg_stat_activity
    where application_name = $1 and datname = current_database() and state <> 'idle' and pid <> pg_backend_pid()
      and xact_start < now() - $2 * interval '1 millisecond'";

/// Connections for one kind of work. As an executor it runs each statement on a connection of its own.
///
/// The connection used last is lent first, so that a light load stays on one. A returned connection is not
/// tested, as sqlx's pool would: the test costs a round trip for each statement. A connection returns only
/// after an answer.
#[derive(Debug, Clone)]
pub struct Pool {
    connections: managed::Pool<SessionManager>,
    /// The name of the pool's sessions.
    pub name: String,
    pub sessions: Sessions,
    /// How long this side waits for a statement or a transaction.
    pub patience: Duration,
    reaped: Arc<Mutex<Instant>>,
}

/// A connection on loan. Unless given back, the connection is closed: its server may still work for it.
pub struct PooledConnection(Option<Object<SessionManager>>);

impl Pool {
    /// Return a pool that connects at its first use.
    pub fn new(
        sessions: &Sessions,
        name: &str,
        options: PgConnectOptions,
        settings: Vec<SessionSetting>,
        size: u32,
        patience: Duration,
    ) -> Pool {
        let options = sessions.options(options, name);
        let opener = SessionManager::new(sessions.clone(), options, settings, ACQUIRE_TIMEOUT);
        let connections = managed::Pool::builder(opener)
            .max_size(size as usize)
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(ACQUIRE_TIMEOUT))
            .create_timeout(Some(ACQUIRE_TIMEOUT))
            .build()
            .expect("a runtime is named, which timeouts need");
        let reaped = Arc::new(Mutex::new(Instant::now()));
        Pool { connections, name: sessions.name(name), sessions: sessions.clone(), patience, reaped }
    }

    pub async fn lend(&self) -> Result<PooledConnection, Error> {
        self.reap();
        self.connections.get().await.map(|object| PooledConnection(Some(object))).map_err(|error| match error
        {
            PoolError::Backend(error) => error,
            PoolError::Closed => Error::PoolClosed,
            PoolError::Timeout(TimeoutType::Create) => self.too_late("no connection"),
            _ => self.too_late("no free connection"),
        })
    }

    /// Return an error that names its cause, as far as the last attempt to connect shows it.
    fn too_late(&self, missing: &str) -> Error {
        let waited = humantime::format_duration(ACQUIRE_TIMEOUT);
        let cause = self.sessions.refusal().map_or_else(String::new, |cause| format!(": {cause}"));
        Error::Io(io::Error::new(io::ErrorKind::TimedOut, format!("{missing} within {waited}{cause}")))
    }

    fn reap(&self) {
        let mut reaped = self.reaped.lock();
        if reaped.elapsed() >= REAP_EVERY {
            *reaped = Instant::now();
            self.connections.retain(|_, metrics| metrics.last_used() < IDLE_FOR);
        }
    }

    /// Close the connections of the pool; no more are lent.
    pub async fn close(&self) {
        let idle = self.connections.retain(|_, _| false).removed;
        self.connections.close();
        // A server that misses the message finds the socket closed.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, join_all(idle.into_iter().map(Connection::close))).await;
    }

    /// Wait for work on lent connections, such as a transaction, whose statements share one limit.
    pub async fn wait_for<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let done =
            tokio::time::timeout(self.patience, work).await.unwrap_or_else(|_| Err(failed(self.no_answer())));
        if let Err(StoreError::ReadOnly(_)) = &done {
            self.sessions.renew();
        }
        done
    }

    /// Wait for one statement on a lent connection.
    pub async fn answer<T>(&self, statement: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let answer =
            tokio::time::timeout(self.patience, statement).await.unwrap_or_else(|_| Err(self.no_answer()));
        if answer.as_ref().is_err_and(session::is_read_only) {
            self.sessions.renew();
        }
        answer
    }

    fn no_answer(&self) -> Error {
        tokio::spawn(self.clone().cancel());
        let waited = humantime::format_duration(self.patience);
        Error::Io(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {waited}")))
    }

    /// End statements of this pool's sessions that have taken longer than the pool waits: their connections
    /// were given up, and their server has not noticed. Commits that wait for a standby would add up without
    /// bound.
    async fn cancel(self) {
        let asked = async {
            let mut lent = self.lend().await?;
            let cancelled: Result<i64, Error> = sqlx::query_scalar(CANCEL)
                .bind(&self.name)
                .bind(i64::try_from(self.patience.as_millis()).unwrap_or(i64::MAX))
                .fetch_one(&mut *lent)
                .await;
            lent.give_back_after(&cancelled);
            cancelled
        };
        match tokio::time::timeout(self.patience, asked).await {
            Ok(Ok(0)) => {}
            Ok(Ok(cancelled)) => tracing::warn!(
                cancelled,
                sessions = self.name,
                "statements timed out: cancelled on the server"
            ),
            Ok(Err(error)) => {
                tracing::debug!(%error, "statements that were given up may still run on the server");
            }
            Err(_) => tracing::debug!("statements that were given up may still run on the server"),
        }
    }
}

impl PooledConnection {
    /// Give the connection back. A connection with a rollback that is not sent yet is closed, or its
    /// transaction would stay open.
    pub fn give_back(mut self) {
        if !self.should_flush() {
            self.0 = None;
        }
    }

    /// Give the connection back if the statement was answered, even with a refusal, and its server goes on.
    pub fn give_back_after<T>(self, answer: &Result<T, Error>) {
        if answer.as_ref().err().is_none_or(session::may_go_on) {
            self.give_back();
        }
    }

    fn connection(&self) -> &Object<SessionManager> {
        self.0.as_ref().expect("it is taken out when the loan ends")
    }
}

impl Deref for PooledConnection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.connection()
    }
}

impl DerefMut for PooledConnection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.0.as_mut().expect("it is taken out when the loan ends")
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        // Outside the pool the socket is closed at once.
        drop(self.0.take().map(Object::take));
    }
}

impl<'p> Executor<'p> for &'p Pool {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let all = async move {
            let mut lent = self.lend().await?;
            let rows = lent.fetch_many(query).try_collect::<Vec<_>>();
            let answer = self.answer(rows).await;
            lent.give_back_after(&answer);
            answer.map(|rows| iter(rows.into_iter().map(Ok)))
        };
        futures::stream::once(all).try_flatten().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        Box::pin(async move {
            let mut lent = self.lend().await?;
            let row = lent.fetch_optional(query);
            let answer = self.answer(row).await;
            lent.give_back_after(&answer);
            answer
        })
    }

    fn prepare_with<'e, 'q: 'e>(
        self,
        sql: &'q str,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement<'q>, Error>>
    where
        'p: 'e,
    {
        Box::pin(async move {
            let mut lent = self.lend().await?;
            let prepared = lent.prepare_with(sql, parameters).await;
            lent.give_back_after(&prepared);
            prepared
        })
    }

    fn describe<'e, 'q: 'e>(self, sql: &'q str) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'p: 'e,
    {
        Box::pin(async move {
            let mut lent = self.lend().await?;
            let described = lent.describe(sql).await;
            lent.give_back_after(&described);
            described
        })
    }
}

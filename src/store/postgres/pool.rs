//! Connections that nobody waits for for ever: one whose server does not answer in time is closed.
//!
//! A server that vanishes without a word (its host lost power, a firewall forgot the connection) answers nothing, and sqlx
//! sets no limit to a read, nor to the ping of a connection that comes back into its pool. No statements here.

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use deadpool::managed::{Object, PoolError, QueueMode, TimeoutType};
use deadpool::{Runtime, managed};
use futures::future::{BoxFuture, join_all};
use futures::stream::{BoxStream, StreamExt, TryStreamExt, iter};
use sqlx::postgres::{PgConnectOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Connection, Describe, Either, Error, Execute, Executor, PgConnection, Postgres};

use super::error::failed;
use super::session::{self, Opener, Sessions};
use crate::store::StoreError;

/// How long a caller waits for a connection that others have, and for a new one to be made.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// Connections that no one has used for this long are closed.
const IDLE_FOR: Duration = Duration::from_secs(10 * 60);
/// How often such connections are looked for.
const REAP_EVERY: Duration = Duration::from_secs(60);
/// How long a server may take to hear of the end of a session.
const GOODBYE: Duration = Duration::from_secs(1);

/// The statements of a process's pool are told from those of others by the name of its sessions.
const CANCEL: &str = "
    select count(pg_cancel_backend(pid)) from pg_stat_activity
    where application_name = $1 and datname = current_database() and state <> 'idle' and pid <> pg_backend_pid()
      and xact_start < now() - $2 * interval '1 millisecond'";

/// Connections for one kind of work. As an executor it runs each statement on a connection of its own.
///
/// The connection used last is lent first, so that a light load stays on one. A connection that comes back is not asked
/// whether it is whole, as sqlx's pool does: that is a round trip for each statement. It comes back only after an answer.
#[derive(Debug, Clone)]
pub struct Pool {
    connections: managed::Pool<Opener>,
    /// As its sessions are named.
    pub name: String,
    pub sessions: Sessions,
    /// How long a statement or a transaction may take, as seen from here.
    pub patience: Duration,
    reaped: Arc<Mutex<Instant>>,
}

/// A connection on loan. It is closed, unless it is given back: no one knows whether its server still works for it.
pub struct Lent(Option<Object<Opener>>);

impl Pool {
    /// Connects when first used.
    pub fn new(
        sessions: &Sessions,
        name: &str,
        options: PgConnectOptions,
        size: u32,
        patience: Duration,
    ) -> Pool {
        let opener = Opener::new(sessions.clone(), sessions.options(options, name), ACQUIRE_TIMEOUT);
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

    pub async fn lend(&self) -> Result<Lent, Error> {
        self.reap();
        self.connections.get().await.map(|object| Lent(Some(object))).map_err(|error| match error {
            PoolError::Backend(error) => error,
            PoolError::Closed => Error::PoolClosed,
            PoolError::Timeout(TimeoutType::Create) => too_late("no connection"),
            _ => Error::PoolTimedOut,
        })
    }

    fn reap(&self) {
        let mut reaped = self.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        if reaped.elapsed() >= REAP_EVERY {
            *reaped = Instant::now();
            self.connections.retain(|_, metrics| metrics.last_used() < IDLE_FOR);
        }
    }

    /// Closes the connections that are there; no more are lent.
    pub async fn close(&self) {
        let idle = self.connections.retain(|_, _| false).removed;
        self.connections.close();
        // A server that does not hear it finds the socket closed.
        let _ = tokio::time::timeout(GOODBYE, join_all(idle.into_iter().map(Connection::close))).await;
    }

    /// Waits for what is done on lent connections, such as a transaction, whose statements share one limit.
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

    /// Waits for one statement on a lent connection.
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

    /// Ends statements of this pool's sessions that have taken longer than the pool waits: their connections were given up, and
    /// their server has not noticed. Commits that wait for a standby would add up without bound.
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

fn too_late(missing: &str) -> Error {
    let waited = humantime::format_duration(ACQUIRE_TIMEOUT);
    Error::Io(io::Error::new(io::ErrorKind::TimedOut, format!("{missing} within {waited}")))
}

impl Lent {
    /// A connection with a rollback that is not sent yet is closed, or its transaction would stay open.
    pub fn give_back(mut self) {
        if !self.should_flush() {
            self.0 = None;
        }
    }

    /// Gives the connection back if the statement was answered, though with a refusal, and its server goes on.
    pub fn give_back_after<T>(self, answer: &Result<T, Error>) {
        if answer.as_ref().err().is_none_or(session::may_go_on) {
            self.give_back();
        }
    }

    fn connection(&self) -> &Object<Opener> {
        self.0.as_ref().expect("it is taken out when the loan ends")
    }
}

impl Deref for Lent {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.connection()
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.0.as_mut().expect("it is taken out when the loan ends")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // Out of the pool its socket is closed at once.
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

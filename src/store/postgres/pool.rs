//! Connections that nobody waits for for ever: one whose server does not answer in time is closed.
//!
//! A server that vanishes without a word (its host lost power, a firewall forgot the connection) answers nothing, and sqlx
//! sets no limit to a read, nor to the ping of a connection that comes back into its pool. No statements here.

use std::io;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt, TryStreamExt, iter};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Describe, Either, Error, Execute, Executor, PgConnection, PgPool, Postgres};

use super::error::failed;
use super::session::{self, Sessions};
use crate::store::StoreError;

/// Connections for one kind of work. As an executor it runs each statement on a connection of its own.
#[derive(Debug, Clone)]
pub struct Pool {
    pub connections: PgPool,
    /// As its sessions are named.
    pub name: String,
    pub sessions: Sessions,
    /// How long a statement or a transaction may take, as seen from here.
    pub patience: Duration,
}

/// A connection on loan. It is closed, unless it is given back: nobody knows what its server still does.
pub struct Lent(Option<PoolConnection<Postgres>>);

impl Pool {
    pub async fn lend(&self) -> Result<Lent, Error> {
        Ok(Lent(Some(self.connections.acquire().await?)))
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
        session::cancel(&self.connections, self.name.clone(), self.patience);
        let waited = humantime::format_duration(self.patience);
        Error::Io(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {waited}")))
    }
}

impl Lent {
    pub fn give_back(mut self) {
        self.0 = None;
    }

    /// Gives the connection back if the statement was answered, though with a refusal, and its server goes on.
    pub fn give_back_after<T>(self, answer: &Result<T, Error>) {
        if answer.as_ref().err().is_none_or(session::may_go_on) {
            self.give_back();
        }
    }

    fn connection(&self) -> &PoolConnection<Postgres> {
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
        if let Some(connection) = self.0.take() {
            // Out of the pool its socket is closed at once.
            drop(connection.detach());
        }
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
        self.connections.prepare_with(sql, parameters)
    }

    fn describe<'e, 'q: 'e>(self, sql: &'q str) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'p: 'e,
    {
        self.connections.describe(sql)
    }
}

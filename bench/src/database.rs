//! PostgreSQL's own counters, a message: records and bytes of its write-ahead log (pg_walinspect), and
//! statements (pg_stat_statements). The records do not vary; they are the same on any machine.

use serde::{Deserialize, Serialize};
use sqlx::{Connection, PgConnection, PgPool};

/// Whether PostgreSQL counts the statements of a run. Only the scenarios that ask for it pay for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statements {
    Counted,
    Uncounted,
}

/// The cost of a message to PostgreSQL in a run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DatabaseCosts {
    /// Bytes without the images of pages that are changed for the first time after a checkpoint.
    pub wal_bytes: f64,
    /// Bytes of such images.
    pub image_bytes: f64,
    /// Entries that were added to indexes.
    pub index_entries: f64,
    /// Commits of transactions that wrote.
    pub commits: f64,
    /// Share of the log's updates that were heap-only.
    pub hot_share: f64,
    /// The most frequent statements first, where they are counted.
    pub statements: Vec<Statement>,
}

/// A statement of pg_stat_statements, its beginning.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Statement {
    pub text: String,
    pub calls: f64,
    /// Planning and execution of one call.
    pub ms: f64,
}

pub fn calls(statements: &[Statement]) -> f64 {
    statements.iter().map(|statement| statement.calls).sum()
}

/// Return the time of planning and execution of all statements.
pub fn milliseconds(statements: &[Statement]) -> f64 {
    statements.iter().map(|statement| statement.calls * statement.ms).sum()
}

/// Make a database's counters readable, and count its statements if asked to.
pub async fn prepare(url: &str, name: &str, statements: Statements) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::raw_sql("create extension if not exists pg_walinspect").execute(&mut connection).await?;
    if statements == Statements::Counted {
        let counted = format!(
            "create extension if not exists pg_stat_statements; \
             alter database {name} set pg_stat_statements.track = 'top'; \
             alter database {name} set pg_stat_statements.track_planning = on; \
             select count(*) from pg_stat_statements"
        );
        sqlx::raw_sql(&counted).execute(&mut connection).await?;
    }
    connection.close().await?;
    Ok(())
}

/// The state of the counters when counting began.
pub struct Counters {
    from: String,
    /// Updates of the log, and the heap-only ones among them.
    updates: (i64, i64),
    table: &'static str,
    statements: Statements,
}

impl Counters {
    /// Start counting; `table` is the log.
    pub async fn start(
        database: &PgPool,
        table: &'static str,
        statements: Statements,
    ) -> anyhow::Result<Counters> {
        if statements == Statements::Counted {
            let reset = "select pg_stat_statements_reset(0, oid, 0) from pg_database where datname = current_database()";
            sqlx::query(reset).execute(database).await?;
        }
        let from = sqlx::query_scalar("select pg_current_wal_insert_lsn()::text").fetch_one(database).await?;
        let updates = sqlx::query_as(UPDATES).bind(table).fetch_one(database).await?;
        Ok(Counters { from, updates, table, statements })
    }

    /// Return the counters since the start, for each of so many messages.
    pub async fn read(&self, database: &PgPool, messages: u64) -> anyhow::Result<DatabaseCosts> {
        let (bytes, images, entries, commits): (f64, f64, f64, f64) =
            sqlx::query_as(RECORDS).bind(&self.from).fetch_one(database).await?;
        let (updates, hot): (i64, i64) = sqlx::query_as(UPDATES).bind(self.table).fetch_one(database).await?;
        let (updates, hot) = (updates - self.updates.0, hot - self.updates.1);
        let messages = messages as f64;
        let statements = self.statements(database, messages).await?.unwrap_or_default();
        Ok(DatabaseCosts {
            wal_bytes: bytes / messages,
            image_bytes: images / messages,
            index_entries: entries / messages,
            commits: commits / messages,
            hot_share: if updates > 0 { hot as f64 / updates as f64 } else { 1.0 },
            statements,
        })
    }

    /// Return the statements since the start, a message or a second; `None` if they are not counted.
    pub async fn statements(&self, database: &PgPool, share: f64) -> anyhow::Result<Option<Vec<Statement>>> {
        if self.statements == Statements::Uncounted {
            return Ok(None);
        }
        let counted: Vec<(String, i64, f64)> = sqlx::query_as(STATEMENTS).fetch_all(database).await?;
        let statement = |(text, calls, ms): (String, i64, f64)| Statement {
            text,
            calls: calls as f64 / share,
            ms: ms / calls as f64,
        };
        Ok(Some(counted.into_iter().map(statement).collect()))
    }
}

/// Each entry of an index is one of these records; a split of a leaf brings the entry that did not fit.
const RECORDS: &str = "
    with reached as (select pg_current_wal_flush_lsn() as lsn)
    select (min(lsn) - $1::pg_lsn - sum(fpi_size))::float8, sum(fpi_size)::float8,
           coalesce(sum(count) filter (where kind in
               ('Btree/INSERT_LEAF', 'Btree/INSERT_POST', 'Btree/SPLIT_L', 'Btree/SPLIT_R')), 0)::float8,
           coalesce(sum(count) filter (where kind = 'Transaction/COMMIT'), 0)::float8
    from reached cross join lateral pg_get_wal_stats($1::pg_lsn, lsn, true)
        as s(kind, count, count_share, record_size, record_share, fpi_size, fpi_share, combined_size, combined_share)";

/// A backend reports its counts with a delay of up to a second, which does not change the share.
const UPDATES: &str = "
    select coalesce(sum(n_tup_upd), 0)::int8, coalesce(sum(n_tup_hot_upd), 0)::int8
    from pg_stat_user_tables where relname ~ ('^' || $1 || '(_[0-9]+)?$')";

/// Without comments.
const STATEMENTS: &str = "
    select left(ltrim(regexp_replace(regexp_replace(query, '--[^\\n]*', '', 'g'), '[[:space:]]+', ' ', 'g')), 100),
           calls, total_plan_time + total_exec_time
    from pg_stat_statements
    where dbid = (select oid from pg_database where datname = current_database()) and calls > 0
    order by calls desc";

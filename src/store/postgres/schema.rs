//! The schema: migrations, and whether this program's is the database's.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::migrate::Migrator;
use sqlx::{Connection, PgConnection};

use super::error::failed;
use super::log::ranges::IDS as RANGE_IDS;
use super::pool::Pool;
use super::rows;
use super::{PostgresStore, keep};
use crate::store::schema::versions;
use crate::store::{SchemaState, SchemaStore, StoreError};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

#[async_trait]
impl SchemaStore for PostgresStore {
    async fn migrate(&self) -> Result<usize, StoreError> {
        migrate(&self.calm).await
    }

    async fn schema(&self) -> Result<SchemaState, StoreError> {
        state(&self.calm).await
    }

    async fn not_writable(&self) -> Result<Option<String>, StoreError> {
        // Each pool in turn: after a fail-over some may lead to the old server.
        let pools = self.pools();
        let pool = pools[self.sessions.turn() % pools.len()];
        let reason: Option<String> = sqlx::query_scalar(include_str!("sql/not_writable.sql"))
            .bind(RANGE_IDS)
            .bind(self.sessions.name("%"))
            .fetch_one(pool)
            .await
            .map_err(failed)?;
        if reason.as_ref().is_some_and(|reason| reason.starts_with("the server only reads")) {
            self.sessions.renew();
        }
        Ok(reason)
    }

    async fn ensure_room(&self) -> Result<usize, StoreError> {
        ensure_room(&self.scans).await
    }

    async fn drop_old(&self, keep: Duration) -> Result<u64, StoreError> {
        keep::drop_old(&self.calm, keep).await
    }

    async fn close(&self) {
        futures::future::join_all(self.pools().map(Pool::close)).await;
    }
}

async fn migrate(pool: &Pool) -> Result<usize, StoreError> {
    check_place(pool).await?;
    let before = applied(pool).await?.len();
    let mut migrations = Migrator { ..sqlx::migrate!("migrations/postgres") };
    migrations.set_ignore_missing(true);
    let mut lent = pool.lend().await.map_err(failed)?;
    // Functions keep the path they are made with: by name, as `"$user"` may mean another schema later.
    sqlx::query("select set_config('search_path', quote_ident(current_schema()), false)")
        .execute(&mut *lent)
        .await
        .map_err(failed)?;
    // `run` by another name: that one's future is not general enough for a `Send` trait method.
    migrations.run_direct(&mut *lent).await.map_err(|error| StoreError::Schema(error.to_string()))?;
    lent.give_back();
    let after = applied(pool).await?.len();
    ensure_room(pool).await?;
    Ok(after - before)
}

/// Refuses a database in which texts cannot be stored, and one where new tables would be made beside those that are there.
async fn check_place(pool: &Pool) -> Result<(), StoreError> {
    let mut lent = pool.lend().await.map_err(failed)?;
    let place = pool.wait_for(place(&mut lent)).await?;
    lent.give_back();
    let Place { encoding, there, new } = place;
    if encoding != "UTF8" {
        return Err(StoreError::Schema(format!(
            "the encoding of the database is {encoding}: make one with `createdb --encoding UTF8 --template template0`"
        )));
    }
    match (there, new) {
        (Some(there), Some(new)) if there != new => Err(StoreError::Schema(format!(
            "its tables are in the schema {there}, and new ones would be made in {new}: name the schema that is meant in \
             database.url, as `?options=-csearch_path%3D{there}`"
        ))),
        _ => Ok(()),
    }
}

/// Where the tables of this program are, and where new ones would be.
struct Place {
    encoding: String,
    there: Option<String>,
    new: Option<String>,
}

async fn place(connection: &mut PgConnection) -> Result<Place, StoreError> {
    let mut transaction = connection.begin().await.map_err(failed)?;
    // The path that the URL, the role and the database set, without what this session found.
    sqlx::query("set local search_path to default").execute(&mut *transaction).await.map_err(failed)?;
    let row = sqlx::query(
        "select pg_encoding_to_char(d.encoding)::text as encoding, current_schema()::text as new,
                (select n.nspname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
                 where c.oid = to_regclass('cdls')) as there
         from pg_database d where d.datname = current_database()",
    )
    .fetch_one(&mut *transaction)
    .await
    .map_err(failed)?;
    transaction.rollback().await.map_err(failed)?;
    Ok(Place {
        encoding: rows::get(&row, "encoding")?,
        there: rows::get(&row, "there")?,
        new: rows::get(&row, "new")?,
    })
}

async fn state(pool: &Pool) -> Result<SchemaState, StoreError> {
    let applied = applied(pool).await?;
    let known: BTreeSet<i64> = MIGRATIONS.iter().map(|migration| migration.version).collect();
    Ok(if !known.is_subset(&applied) {
        SchemaState::Older
    } else if applied.len() > known.len() {
        SchemaState::Newer
    } else {
        SchemaState::Current
    })
}

/// Versions applied with success; none where there is no schema yet.
async fn applied(pool: &Pool) -> Result<BTreeSet<i64>, StoreError> {
    let exists: bool = sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null")
        .fetch_one(pool)
        .await
        .map_err(failed)?;
    if !exists {
        return Ok(BTreeSet::new());
    }
    let applied: Vec<(i64, Vec<u8>)> =
        sqlx::query_as("select version, checksum from _sqlx_migrations where success")
            .fetch_all(pool)
            .await
            .map_err(failed)?;
    versions(applied, &MIGRATIONS)
}

async fn ensure_room(pool: &Pool) -> Result<usize, StoreError> {
    let made: i32 =
        sqlx::query_scalar("select cdls_ensure_partitions()").fetch_one(pool).await.map_err(failed)?;
    Ok(made as usize)
}

//! The schema: migrations, and whether this program's is the database's.

use std::collections::HashSet;

use sqlx::migrate::Migrator;

use super::error::failed;
use super::pool::Pool;
use crate::store::{SchemaState, StoreError};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

pub async fn migrate(pool: &Pool) -> Result<usize, StoreError> {
    let before = applied(pool).await?.len();
    let mut migrations = Migrator { ..sqlx::migrate!("migrations/postgres") };
    migrations.set_ignore_missing(true);
    migrations.run(&pool.connections).await.map_err(|error| StoreError::Schema(error.to_string()))?;
    let after = applied(pool).await?.len();
    ensure_room(pool).await?;
    Ok(after - before)
}

pub async fn state(pool: &Pool) -> Result<SchemaState, StoreError> {
    let applied = applied(pool).await?;
    let known: HashSet<i64> = MIGRATIONS.iter().map(|migration| migration.version).collect();
    Ok(if !known.is_subset(&applied) {
        SchemaState::Older
    } else if applied.len() > known.len() {
        SchemaState::Newer
    } else {
        SchemaState::Current
    })
}

/// Versions applied with success; none where there is no schema yet.
async fn applied(pool: &Pool) -> Result<HashSet<i64>, StoreError> {
    let exists: bool = sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null")
        .fetch_one(pool)
        .await
        .map_err(failed)?;
    if !exists {
        return Ok(HashSet::new());
    }
    let versions: Vec<i64> = sqlx::query_scalar("select version from _sqlx_migrations where success")
        .fetch_all(pool)
        .await
        .map_err(failed)?;
    Ok(versions.into_iter().collect())
}

pub async fn ensure_room(pool: &Pool) -> Result<usize, StoreError> {
    let made: i32 =
        sqlx::query_scalar("select cdls_ensure_partitions()").fetch_one(pool).await.map_err(failed)?;
    Ok(made as usize)
}

//! The schema: migrations, and whether this program's is the database's.

use std::collections::HashSet;

use async_trait::async_trait;
use sqlx::migrate::Migrator;

use super::PostgresStore;
use super::error::failed;
use super::pool::Pool;
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

    async fn ensure_room(&self) -> Result<usize, StoreError> {
        ensure_room(&self.scans).await
    }

    async fn close(&self) {
        futures::future::join_all(self.pools().map(|pool| pool.connections.close())).await;
    }
}

async fn migrate(pool: &Pool) -> Result<usize, StoreError> {
    let before = applied(pool).await?.len();
    let mut migrations = Migrator { ..sqlx::migrate!("migrations/postgres") };
    migrations.set_ignore_missing(true);
    migrations.run(&pool.connections).await.map_err(|error| StoreError::Schema(error.to_string()))?;
    let after = applied(pool).await?.len();
    ensure_room(pool).await?;
    Ok(after - before)
}

async fn state(pool: &Pool) -> Result<SchemaState, StoreError> {
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

async fn ensure_room(pool: &Pool) -> Result<usize, StoreError> {
    let made: i32 =
        sqlx::query_scalar("select cdls_ensure_partitions()").fetch_one(pool).await.map_err(failed)?;
    Ok(made as usize)
}

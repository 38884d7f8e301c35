//! The schema's version: that of this program, and that of the file.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::migrate::MigrateError;
use sqlx::{SqliteConnection, SqlitePool};

use super::error::{begin, commit, failed};
use super::{SqliteStore, keep};
use crate::store::schema::{migrations, migrator, versions};
use crate::store::{SchemaState, SchemaStore, StoreError};

#[async_trait]
impl SchemaStore for SqliteStore {
    async fn migrate(&self) -> Result<usize, StoreError> {
        migrate(&self.writer).await
    }

    async fn schema(&self) -> Result<SchemaState, StoreError> {
        state(&self.reader).await
    }

    async fn not_writable(&self) -> Result<Option<String>, StoreError> {
        // The file was opened for writing.
        Ok(None)
    }

    async fn ensure_room(&self) -> Result<usize, StoreError> {
        // One table holds every id.
        Ok(0)
    }

    async fn drop_old(&self, keep: Duration) -> Result<u64, StoreError> {
        keep::drop_old(&self.reader, &self.writer, keep).await
    }

    async fn role_statements(&self) -> Result<Vec<String>, StoreError> {
        Err(without_roles())
    }

    async fn make_roles(&self) -> Result<Vec<String>, StoreError> {
        Err(without_roles())
    }

    async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

fn without_roles() -> StoreError {
    StoreError::Invalid(
        "database.url: SQLite has no roles; the modes of the file and its folder say who may read it".into(),
    )
}

/// The migrations, in their order.
pub(in crate::store) const MIGRATIONS: &[(&str, &str)] = &migrations!(
    "sqlite": "0001_accounts" "0002_log" "0003_queue" "0004_once" "0005_campaigns" "0006_views"
        "0007_campaign_errors" "0008_tokens_and_bans" "0010_submit_queues" "0011_webhooks"
        "0012_instagram_login" "0013_recipients" "0014_budgets" "0015_attachments" "0016_echoes"
);

/// Apply the missing migrations, in one transaction: two programs that open a new file at once do not both
/// create it. Return how many migrations were applied.
pub async fn migrate(writer: &SqlitePool) -> Result<usize, StoreError> {
    if state(writer).await? != SchemaState::Older {
        return Ok(0);
    }
    let (mut transaction, _) = begin(writer).await?;
    let before = applied(&mut transaction).await?.len();
    // `run` under another name, as the future of `run` is not general enough for a `Send` trait method.
    migrator(MIGRATIONS).run_direct(&mut *transaction).await.map_err(not_migrated)?;
    let after = applied(&mut transaction).await?.len();
    commit(transaction).await?;
    Ok(after - before)
}

/// Compare the file's migrations with this program's.
async fn state(pool: &SqlitePool) -> Result<SchemaState, StoreError> {
    let mut connection = pool.acquire().await.map_err(failed)?;
    let applied = applied(&mut connection).await?;
    let known: BTreeSet<i64> = migrator(MIGRATIONS).iter().map(|migration| migration.version).collect();
    Ok(if !known.is_subset(&applied) {
        SchemaState::Older
    } else if applied.len() > known.len() {
        SchemaState::Newer
    } else {
        SchemaState::Current
    })
}

async fn applied(connection: &mut SqliteConnection) -> Result<BTreeSet<i64>, StoreError> {
    let tables: i64 =
        sqlx::query_scalar("select count(*) from sqlite_schema where name = '_sqlx_migrations'")
            .fetch_one(&mut *connection)
            .await
            .map_err(failed)?;
    if tables == 0 {
        return Ok(BTreeSet::new());
    }
    let applied: Vec<(i64, Vec<u8>)> =
        sqlx::query_as("select version, checksum from _sqlx_migrations where success")
            .fetch_all(connection)
            .await
            .map_err(failed)?;
    versions(applied, &migrator(MIGRATIONS))
}

fn not_migrated(error: MigrateError) -> StoreError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => failed(error),
        error => StoreError::Schema(error.to_string()),
    }
}

//! Opening the file: pools, migrations, and the lock that admits one `serve`.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use fs2::FileExt;
use sqlx::SqlitePool;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use super::{SqliteStore, failed};
use crate::store::{SchemaState, StoreError};

const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const READERS: u32 = 4;

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

impl SqliteStore {
    /// Opens, and if need be creates and upgrades, `sqlite:PATH`. Works beside a running `serve`.
    pub async fn open(url: &str) -> Result<SqliteStore, StoreError> {
        SqliteStore::open_file(url, None).await
    }

    /// The same for `serve`: refused while another one has the file. Nobody else can hold leases then, so those
    /// that an earlier process left are given back.
    pub async fn open_exclusive(url: &str) -> Result<SqliteStore, StoreError> {
        let path = path_of(url)?;
        let lock = lock(&path)?;
        let store = SqliteStore::open_file(url, Some(lock)).await?;
        sqlx::query(
            "update partition_lease set owner = null, expires_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')",
        )
        .execute(&store.writer)
        .await
        .map_err(failed)?;
        sqlx::query("delete from worker_presence").execute(&store.writer).await.map_err(failed)?;
        Ok(store)
    }

    async fn open_file(url: &str, lock: Option<File>) -> Result<SqliteStore, StoreError> {
        let path = path_of(url)?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true);
        let unavailable = |error: sqlx::Error| {
            StoreError::Unavailable(format!("database.url: cannot open {}: {error}", path.display()))
        };
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options.clone())
            .await
            .map_err(unavailable)?;
        migrate(&writer).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_with(options.read_only(true).create_if_missing(false))
            .await
            .map_err(unavailable)?;
        Ok(SqliteStore { writer, readers, _lock: lock })
    }
}

fn path_of(url: &str) -> Result<PathBuf, StoreError> {
    let invalid = || StoreError::Invalid("setting database.url: must be sqlite:PATH of a file".into());
    let path = url.strip_prefix("sqlite:").ok_or_else(invalid)?;
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() || path.starts_with(":memory:") {
        return Err(invalid());
    }
    PathBuf::from_str(path).map_err(|_| invalid())
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = File::options().create(true).truncate(false).write(true).open(&name).map_err(|error| {
        StoreError::Unavailable(format!(
            "database.url: cannot create {}: {error}",
            Path::new(&name).display()
        ))
    })?;
    file.try_lock_exclusive().map_err(|_| {
        StoreError::Invalid(format!("database.url: a `serve` runs on {} already", path.display()))
    })?;
    Ok(file)
}

pub async fn migrate(writer: &SqlitePool) -> Result<usize, StoreError> {
    let before = applied(writer).await?.len();
    let mut migrations = Migrator { ..sqlx::migrate!("migrations/sqlite") };
    migrations.set_ignore_missing(true);
    migrations.run(writer).await.map_err(|error| StoreError::Schema(error.to_string()))?;
    Ok(applied(writer).await?.len() - before)
}

pub async fn state(readers: &SqlitePool) -> Result<SchemaState, StoreError> {
    let applied = applied(readers).await?;
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
async fn applied(pool: &SqlitePool) -> Result<HashSet<i64>, StoreError> {
    let exists: bool =
        sqlx::query_scalar("select exists (select 1 from sqlite_master where name = '_sqlx_migrations')")
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

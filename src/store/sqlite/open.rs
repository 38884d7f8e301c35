//! Opens the file: the connections and the lock that keeps a second `serve` out.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fs2::FileExt;
use sqlx::Connection as _;
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use super::error::{failed, is_busy};
use super::leases::Leases;
use super::{SqliteStore, schema};
use crate::store::StoreError;

const READERS: u32 = 4;

/// How long a write waits while another program writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The write-ahead log is cut back to this size after a burst; it would keep its largest size otherwise.
const WAL_BYTES: &str = "67108864";

impl SqliteStore {
    /// Opens `sqlite:PATH`; creates the file and upgrades the schema. Works beside a running `serve`.
    pub async fn open(url: &str) -> Result<SqliteStore, StoreError> {
        SqliteStore::open_file(&path_of(url)?).await
    }

    /// The same for `serve`: refuses a second one on the same file. Claims that a predecessor left are found by the worker
    /// that acquires their partitions.
    pub async fn open_exclusive(url: &str) -> Result<SqliteStore, StoreError> {
        let path = path_of(url)?;
        let lock = lock(&path)?;
        Ok(SqliteStore { _exclusive: Some(lock), ..SqliteStore::open_file(&path).await? })
    }

    async fn open_file(path: &Path) -> Result<SqliteStore, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true)
            .synchronous(SqliteSynchronous::Full);
        let writer = open_writer(path, options.clone()).await?;
        schema::migrate(&writer).await?;
        let reader = pool(READERS).connect_with(options.pragma("query_only", "on")).await.map_err(failed)?;
        Ok(SqliteStore { writer, reader, leases: Leases::default(), _exclusive: None })
    }
}

/// Local connections neither break nor age: they are made once and not tested before each use. After a failed write
/// (no room, an I/O error) SQLite has ended the transaction by itself, and the driver counts it as open for ever: such
/// a connection is replaced.
fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .min_connections(connections)
        .test_before_acquire(false)
        .after_release(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
        .idle_timeout(None)
        .max_lifetime(None)
}

/// Switching a new file to WAL cannot wait for a lock (SQLite answers BUSY at once), so this waits here while another
/// program opens the same new file.
async fn open_writer(path: &Path, options: SqliteConnectOptions) -> Result<SqlitePool, StoreError> {
    let options = options
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .pragma("journal_size_limit", WAL_BYTES);
    let deadline = Instant::now() + BUSY_TIMEOUT;
    loop {
        match pool(1).connect_with(options.clone()).await {
            Ok(writer) => return Ok(writer),
            Err(error) if is_busy(&error) && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => {
                return Err(StoreError::Unavailable(format!("cannot open {}: {error}", path.display())));
            }
        }
    }
}

/// The file that a URL names. Taken as it stands: no parameters, no escapes.
fn path_of(url: &str) -> Result<PathBuf, StoreError> {
    url.strip_prefix("sqlite:")
        .map(|rest| rest.strip_prefix("//").unwrap_or(rest))
        .filter(|path| !path.is_empty() && !path.starts_with([':', '?']) && !path.contains('?'))
        .map(PathBuf::from)
        .ok_or_else(|| {
            StoreError::Invalid("database.url: must be sqlite:PATH, a file, without parameters".into())
        })
}

/// Locks `PATH.lock` for as long as the returned file is open.
fn lock(path: &Path) -> Result<File, StoreError> {
    // Two names of one file are one lock.
    let mut lock_path = OsString::from(std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()));
    lock_path.push(".lock");
    let lock_path = Path::new(&lock_path);
    let cannot = |error: std::io::Error| {
        StoreError::Invalid(format!("database.url: cannot lock {}: {error}", lock_path.display()))
    };
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(lock_path).map_err(cannot)?;
    match file.try_lock_exclusive() {
        Ok(()) => Ok(file),
        Err(error) if error.kind() == fs2::lock_contended_error().kind() => {
            Err(StoreError::Invalid(format!(
                "a serve runs on {} already (it holds {}); stop it first, or use PostgreSQL for several processes",
                path.display(),
                lock_path.display()
            )))
        }
        Err(error) => Err(cannot(error)),
    }
}

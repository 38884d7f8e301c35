//! The opening of the file: its connections, and the lock that keeps a second `serve` out.

use std::ffi::OsString;
use std::fmt::Display;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sqlx::Connection as _;
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use super::error::{failed, is_busy};
use super::leases::Leases;
use super::{SqliteStore, schema};
use crate::settings::exposed_mode;
use crate::store::StoreError;

const READERS: u32 = 4;

/// How long a write waits while another program writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The mode of a new file: it holds page tokens. SQLite gives the files beside it the same.
const OWN_MODE: u32 = 0o600;

/// The size to which the write-ahead log is cut back after a burst; it would keep its largest size otherwise.
const WAL_BYTES: &str = "67108864";

impl SqliteStore {
    /// Open `sqlite:PATH`; create the file and upgrade the schema. Works beside a running `serve`.
    pub async fn open(url: &str) -> Result<SqliteStore, StoreError> {
        SqliteStore::open_file(&path_of(url)?).await
    }

    /// Open an existing file; none is made.
    pub async fn open_existing(url: &str) -> Result<SqliteStore, StoreError> {
        let path = path_of(url)?;
        check_file(&path)?;
        if !path.exists() {
            return Err(StoreError::Invalid(format!(
                "database.url: there is no database {}; name the one that is meant, or make it with `meta-dispatch migrate`",
                whole(&path).display()
            )));
        }
        SqliteStore::open_file(&path).await
    }

    /// Open the file for `serve`; a second `serve` on the same file is refused. Claims that a predecessor
    /// left are found by the worker that acquires their partitions.
    pub async fn open_exclusive(url: &str) -> Result<SqliteStore, StoreError> {
        let path = path_of(url)?;
        check_file(&path)?;
        let lock = lock(&path)?;
        Ok(SqliteStore { _exclusive: Some(lock), ..SqliteStore::open_file(&path).await? })
    }

    async fn open_file(path: &Path) -> Result<SqliteStore, StoreError> {
        check_file(path)?;
        make_file(path)?;
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

/// Return the options of a pool. Local connections neither break nor age: they are made once and not tested
/// before each use. After a failed write (no room, an I/O error) SQLite has ended the transaction by itself,
/// and the driver counts it as open for ever: such a connection is replaced.
fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .min_connections(connections)
        .test_before_acquire(false)
        .after_release(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
        .idle_timeout(None)
        .max_lifetime(None)
}

/// Open the writing connection. Switching a new file to WAL cannot wait for a lock (SQLite answers BUSY at
/// once), so this function waits while another program opens the same new file.
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
                return Err(cannot_open(path, &error));
            }
        }
    }
}

/// Return the file that a URL names, taken literally: no parameters, no escapes.
fn path_of(url: &str) -> Result<PathBuf, StoreError> {
    url.strip_prefix("sqlite:")
        .map(|rest| rest.strip_prefix("//").unwrap_or(rest))
        .filter(|path| !path.is_empty() && !path.starts_with([':', '?']) && !path.contains('?'))
        .map(PathBuf::from)
        .ok_or_else(|| {
            StoreError::Invalid("database.url: must be sqlite:PATH, a file, without parameters".into())
        })
}

/// Refuse a file whose messages would be lost (https://www.sqlite.org/howtocorrupt.html, 2.4 and 2.5): one
/// with several names, each of which has a write-ahead log of its own; and a log whose file was moved away.
fn check_file(path: &Path) -> Result<(), StoreError> {
    let mut log = OsString::from(path);
    log.push("-wal");
    let log = Path::new(&log);
    // Looked at first: a program that makes both makes the file first.
    let has_log = log.exists();
    let refused = match std::fs::metadata(path) {
        Ok(file) if file.is_file() && file.nlink() > 1 => format!(
            "{} is one of {} names of a file (hard links), and SQLite keeps a log for each name: keep one name",
            whole(path).display(),
            file.nlink()
        ),
        Err(error) if error.kind() == ErrorKind::NotFound && has_log => format!(
            "{} is gone, and its write-ahead log {} is there: move the file back, or the log away with its file",
            whole(path).display(),
            log.display()
        ),
        _ => return Ok(()),
    };
    Err(StoreError::Invalid(format!("database.url: {refused}")))
}

/// Make a missing file, which SQLite would make with the mode of the umask; warn of one that others may open.
fn make_file(path: &Path) -> Result<(), StoreError> {
    match std::fs::metadata(path) {
        Ok(file) => {
            if let Some(mode) = exposed_mode(&file) {
                let (mode, path) = (format!("{mode:04o}"), path.display());
                tracing::warn!(
                    mode,
                    "database open to other users: they can read page tokens; chmod 600 {path} {path}-wal {path}-shm"
                );
            }
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            // Not `create_new`: another program may make it at this moment.
            let made = OpenOptions::new().create(true).truncate(false).write(true).mode(OWN_MODE).open(path);
            made.map(drop).map_err(|error| cannot_open(path, &error))
        }
        // SQLite names the fault.
        Err(_) => Ok(()),
    }
}

fn cannot_open(path: &Path, error: &dyn Display) -> StoreError {
    StoreError::Unavailable(format!("cannot open {}: {error}", path.display()))
}

/// Return the path from the root, as far as it is known.
fn whole(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Lock `PATH.lock` for as long as the returned file is open.
fn lock(path: &Path) -> Result<File, StoreError> {
    // Two names of one file are one lock.
    let mut lock_path = OsString::from(std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()));
    lock_path.push(".lock");
    let lock_path = Path::new(&lock_path);
    let cannot = |error: std::io::Error| {
        StoreError::Invalid(format!("database.url: cannot lock {}: {error}", lock_path.display()))
    };
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(OWN_MODE);
    let file = options.open(lock_path).map_err(cannot)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Invalid(format!(
            "a serve runs on {} already (it holds {}); stop it first, or use PostgreSQL for several processes",
            path.display(),
            lock_path.display()
        ))),
        Err(TryLockError::Error(error)) => Err(cannot(error)),
    }
}

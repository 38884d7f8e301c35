//! The choice of a database by its URL.

use std::sync::Arc;

use secrecy::ExposeSecret;

use super::postgres::PostgresStore;
use super::sqlite::SqliteStore;
use super::{SharedStore, StoreError};
use crate::settings::DatabaseSettings;

/// Open the store that `database.url` names. PostgreSQL is connected at the first use, so a server that is
/// down is no error here; a malformed URL is.
///
/// SQLite: create the file and upgrade the schema.
pub async fn open(settings: &DatabaseSettings) -> Result<SharedStore, StoreError> {
    let url = settings.url.expose_secret();
    if url.starts_with("sqlite:") {
        return Ok(Arc::new(SqliteStore::open(url).await?));
    }
    let DatabaseSettings { url, max_connections, plaintext, .. } = settings;
    Ok(Arc::new(PostgresStore::open(url, *max_connections, *plaintext)?))
}

/// Open an existing store. A missing SQLite file is an error.
pub async fn open_existing(settings: &DatabaseSettings) -> Result<SharedStore, StoreError> {
    let url = settings.url.expose_secret();
    if url.starts_with("sqlite:") {
        return Ok(Arc::new(SqliteStore::open_existing(url).await?));
    }
    open(settings).await
}

/// Open the store of a process that sends. A SQLite file admits one such process; a second one is refused.
pub async fn open_for_serving(settings: &DatabaseSettings) -> Result<SharedStore, StoreError> {
    let url = settings.url.expose_secret();
    if url.starts_with("sqlite:") {
        return Ok(Arc::new(SqliteStore::open_exclusive(url).await?));
    }
    open(settings).await
}

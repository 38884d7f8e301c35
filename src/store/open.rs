//! Picks the database by its URL.

use std::sync::Arc;

use secrecy::ExposeSecret;

use super::postgres::PostgresStore;
use super::sqlite::SqliteStore;
use super::{SharedStore, StoreError};
use crate::settings::DatabaseSettings;

/// Opens the store that `database.url` names. PostgreSQL is connected to when needed, so that a server that is down
/// is not an error here; a malformed URL is.
///
/// SQLite: creates the file and upgrades the schema.
pub async fn open(settings: &DatabaseSettings) -> Result<SharedStore, StoreError> {
    let url = settings.url.expose_secret();
    if url.starts_with("sqlite:") {
        return Ok(Arc::new(SqliteStore::open(url).await?));
    }
    Ok(Arc::new(PostgresStore::open(&settings.url, settings.max_connections)?))
}

/// The same for a process that sends: a SQLite file has one at a time, and a second one is refused.
pub async fn open_for_serving(settings: &DatabaseSettings) -> Result<SharedStore, StoreError> {
    let url = settings.url.expose_secret();
    if url.starts_with("sqlite:") {
        return Ok(Arc::new(SqliteStore::open_exclusive(url).await?));
    }
    open(settings).await
}

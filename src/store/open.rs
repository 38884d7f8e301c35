//! Picks the database by its URL.

use super::{SharedStore, StoreError};
use crate::settings::DatabaseSettings;

/// Opens the store that `database.url` names. Connections are made when needed, so a database that is down is not
/// an error here; a malformed URL is.
///
/// SQLite: creates the file and upgrades the schema.
pub async fn open(settings: &DatabaseSettings) -> Result<SharedStore, StoreError> {
    let _ = settings;
    Err(StoreError::Invalid("no database is built in yet".into()))
}

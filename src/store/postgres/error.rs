//! What a PostgreSQL failure means to the caller.

use crate::store::StoreError;

/// What a database error means to a caller. Values never appear: PostgreSQL puts them into the detail, which is
/// left out.
pub fn failed(error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::Database(database) => {
            let code = database.code().unwrap_or_default();
            match code.get(..2) {
                // No partition has room for the row: the next one is not made yet. What a trigger raises names no table.
                Some("23")
                    if code == "23514" && database.constraint().is_none() && database.table().is_some() =>
                {
                    StoreError::Unavailable(format!("{} ({code})", database.message()))
                }
                // Data exception, integrity constraint violation.
                Some("22" | "23") => StoreError::Rejected(format!("{} ({code})", database.message())),
                // Undefined table or column.
                Some("42") => StoreError::Schema(format!(
                    "{} ({code}); run `meta-dispatch migrate`",
                    database.message()
                )),
                _ => StoreError::Unavailable(format!("{} ({code})", database.message())),
            }
        }
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => StoreError::Rejected(error.to_string()),
        _ => StoreError::Unavailable(error.to_string()),
    }
}

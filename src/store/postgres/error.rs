//! The meaning of a PostgreSQL failure to the caller.

use super::plaintext;
use super::session::is_read_only;
use crate::store::StoreError;

/// The advice for a pooler's operator.
pub const SHARED_SESSIONS: &str = "a pooler (PgBouncer) gives sessions away between transactions; set its pool_mode to \
     session, or connect to PostgreSQL itself";

/// Return the meaning of a database error to a caller. Values never appear: PostgreSQL puts them into the
/// detail, which is left out.
pub fn failed(error: sqlx::Error) -> StoreError {
    if let Some(refusal) = plaintext::refusal(&error) {
        return refusal;
    }
    match &error {
        sqlx::Error::Database(database) => {
            let code = database.code().unwrap_or_default();
            let reason = format!("{} ({code})", database.message());
            match code.get(..2) {
                // Lock not available.
                Some("55") if code == "55P03" => StoreError::Locked(reason),
                // Serialization failure, deadlock.
                Some("40") if matches!(&*code, "40001" | "40P01") => StoreError::Undone(reason),
                Some("25") if is_read_only(&error) => StoreError::ReadOnly(reason),
                Some("23") if is_ours(database.as_ref(), &code) => StoreError::Unavailable(reason),
                // Data exception, integrity constraint violation.
                Some("22" | "23") => StoreError::Rejected(reason),
                _ if shares_sessions(&error) => {
                    StoreError::Unavailable(format!("{reason}: {SHARED_SESSIONS}"))
                }
                // Insufficient privilege.
                Some("42") if code == "42501" => StoreError::denied(&reason),
                // Undefined table or column.
                Some("42") => StoreError::Schema(format!("{reason}; run `meta-dispatch migrate`")),
                _ => StoreError::Unavailable(reason),
            }
        }
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => StoreError::Rejected(error.to_string()),
        _ => StoreError::Unavailable(error.to_string()),
    }
}

/// Whether a prepared statement was there already, or not at all: the session is not this program's alone.
pub fn shares_sessions(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|database| database.code());
    code.is_some_and(|code| matches!(&*code, "42P05" | "26000"))
}

/// Whether a constraint was violated through no fault of the data.
fn is_ours(database: &dyn sqlx::error::DatabaseError, code: &str) -> bool {
    match code {
        // No range has room for the row: the next one is not made yet. An error raised by a trigger names no
        // table.
        "23514" => database.constraint().is_none() && database.table().is_some(),
        // The id exists already: the sequence is behind the table, after a restore for example.
        "23505" => database.table().is_some_and(|table| table.starts_with("cdls") || table == "work"),
        _ => false,
    }
}

/// Whether the server has answered that a statement was not carried out. The end of a connection is no answer
/// about the statement.
pub fn was_refused(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(database) => !database.code().is_some_and(|code| code.starts_with("57P")),
        // The statement was not sent.
        sqlx::Error::Encode(_) => true,
        _ => false,
    }
}

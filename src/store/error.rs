//! The failures of the store, as its callers tell them apart. Never here: secrets, such as the password of a
//! database URL.

/// The reason why a use case of the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, or the connection broke. Nothing was written, or (for idempotent
    /// calls) repeating the call is safe.
    #[error("database unavailable: {0}")]
    Unavailable(String),
    /// The server only reads: it is a standby, or was the primary of one. Nothing was written.
    #[error("database is not writable: {0}")]
    ReadOnly(String),
    /// Another transaction holds a lock that these rows need. Nothing was written; a smaller batch, or the
    /// same a moment later, may pass.
    #[error("rows are locked: {0}")]
    Locked(String),
    /// The database undid this transaction for another's sake. Nothing was written; the same may pass at
    /// once.
    #[error("the transaction was undone for another's sake: {0}")]
    Undone(String),
    /// A commit was sent and its outcome could not be found out.
    #[error("outcome of the commit unknown: {0}")]
    CommitUnknown(String),
    /// The database refuses a value of this batch; smaller batches may pass.
    #[error("the database refuses the data: {0}")]
    Rejected(String),
    /// The schema is missing or too old.
    #[error("database schema: {0}")]
    Schema(String),
    /// The role of the database user has no right to do this.
    #[error("database right missing: {0}")]
    Denied(String),
    /// A wrong command of an operator, such as a line for an account that does not exist.
    #[error("{0}")]
    Invalid(String),
}

impl StoreError {
    /// Create the error of a missing right, with its remedy.
    pub(super) fn denied(reason: &str) -> StoreError {
        StoreError::Denied(format!("{reason}; `meta-dispatch migrate --roles` grants each role its rights"))
    }
}

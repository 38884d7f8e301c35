//! The log, the queue beside it, and the directory of lines: the only module that knows SQL.
//!
//! One trait a use case, each method one statement or one transaction, so that no transaction leaks and each
//! database can do it its own way. `postgres` is for production, `sqlite` is built in; both have a file of
//! the same name for each trait, and one contract suite (`tests/it/store`) runs on both. Durations are
//! relative to the database's clock, so that processes need not agree on the time.
//!
//! Never here: policy (the meaning of a Graph answer, the length of a wait), and secrets in error texts.

mod cancel;
mod change;
mod directory;
mod dispatch;
mod enquiry;
mod filter;
mod intake;
mod leases;
mod log;
mod open;
mod operator;
pub mod postgres;
mod schema;
pub mod sqlite;

use std::sync::Arc;

pub use cancel::*;
pub use change::{Change, ChangeKind, RowChange};
pub use directory::*;
pub use dispatch::*;
pub use enquiry::*;
pub use filter::*;
pub use intake::*;
pub use leases::*;
pub use log::*;
pub use open::{open, open_existing, open_for_serving};
pub use operator::*;
pub use schema::*;

/// A whole store. Cheap to clone; a part of the program takes only the trait it needs.
pub type SharedStore = Arc<dyn Store>;

/// The statements of the program, all traits together.
pub trait Store:
    SchemaStore
    + IntakeStore
    + DispatchStore
    + LeaseStore
    + LogStore
    + OperatorStore
    + EnquiryStore
    + CancelStore
    + DirectoryStore
    + 'static
{
}

impl<S> Store for S where
    S: SchemaStore
        + IntakeStore
        + DispatchStore
        + LeaseStore
        + LogStore
        + OperatorStore
        + EnquiryStore
        + CancelStore
        + DirectoryStore
        + 'static
{
}

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
    /// A wrong command of an operator, such as a line for an account that does not exist.
    #[error("{0}")]
    Invalid(String),
}

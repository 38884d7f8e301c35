//! The recorder: one task per process that commits, in one transaction, the results just finished and the
//! claims about to start.
//!
//! Claims therefore cost no commit of their own, and no call is made without a committed claim. Results wait
//! while the database is away and are written when it is back; claims do not wait: their work is read again.
//! A result that the database refuses is written without its texts, or as UNKNOWN; a result whose row another
//! transaction has locked is put aside, and the others go on.
//!
//! Never here: decisions about a row.

mod batch;
mod claims;
mod commit;
mod entry;
mod progress;
mod run;
mod state;

pub use entry::{Barrier, Entry};
pub use progress::WriteProgress;
pub use run::Recorder;

//! Many messages in one request (contract: "HTTP: everything else"): items are read, checked and handed to
//! the acceptor in chunks, and answered in order. The memory in use does not grow with the batch.
//!
//! Each item is logged once however often its batch is sent: the row is committed together with the item's
//! number.

mod answers;
mod columns;
mod csv;
mod frame;
mod items;
mod lookups;
pub(crate) mod read;
mod request;
mod running;
mod spool;

pub use answers::{body_cut, logged_line, no_message, refused_line};
pub use columns::IgnoredColumns;
pub use csv::CsvOptions;
pub use request::{BatchCounts, BatchRequest, BodyCut};
pub use running::Batch;
pub use spool::{Spool, SpoolError, SpoolRoom, try_temporary_folder};

//! The log, the queue beside it, and the directory of lines: the only module that knows SQL.
//!
//! One trait a use case, each method one statement or one transaction, so that no transaction leaks and each
//! database can do it its own way. `postgres` is for production, `sqlite` is built in; both have a file of
//! the same name for each trait, and one contract suite (`tests/it/store`) runs on both. Durations are
//! relative to the database's clock, so that processes need not agree on the time.
//!
//! Never here: policy (the meaning of a Graph answer, the length of a wait), and secrets in error texts.

mod addresses;
mod apps;
mod attachments;
mod budgets;
mod cancel;
mod change;
mod directory;
mod dispatch;
mod echoes;
mod enquiry;
mod error;
mod filter;
mod inbox;
mod intake;
mod leases;
mod log;
mod open;
mod operator;
mod page_tokens;
pub mod postgres;
mod receipts;
mod recipients;
mod refresh;
mod schema;
mod shared;
pub mod sqlite;
mod tokens;

pub use addresses::*;
pub use apps::*;
pub use attachments::*;
pub use budgets::*;
pub use cancel::*;
pub use change::{Change, ChangeKind, RowChange};
pub use directory::*;
pub use dispatch::*;
pub use echoes::*;
pub use enquiry::*;
pub use error::StoreError;
pub use filter::*;
pub use inbox::*;
pub use intake::*;
pub use leases::*;
pub use log::*;
pub use open::{open, open_existing, open_for_serving};
pub use operator::*;
pub use page_tokens::*;
pub use receipts::*;
pub use recipients::*;
pub use refresh::*;
pub use schema::*;
pub use shared::{SharedStore, Store};
pub use tokens::*;

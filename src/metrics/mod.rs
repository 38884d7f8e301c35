//! The counters of this process: every name, and the handle that counts it. `ops` serves the text.
//!
//! A handle is made once and counting with it is an atomic addition, so any layer may count where it works.
//! No label has a value for each line, account or campaign: there are thousands. Never here: decisions, and
//! reads of the log.

mod broker;
mod dispatch;
mod ingest;
mod listeners;
mod names;
mod registry;
mod rows;
mod series;

pub use dispatch::CallOutcome;
pub use registry::METRICS;

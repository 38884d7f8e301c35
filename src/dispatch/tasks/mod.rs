//! The tasks around the dispatcher. Each has its own timer and failure, and informs the dispatcher by events
//! alone.

pub mod budgets;
pub mod doomed;
pub mod echoes;
pub mod lease;
pub mod reader;
pub mod recipients;
pub mod reconcile;
pub mod recorder;
pub mod refresh;
pub mod scan;
pub mod settled;
mod share;
pub mod upkeep;
pub mod uploads;

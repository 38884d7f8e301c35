//! The tasks around the dispatcher. Each has its own timer and failure, and informs the dispatcher by events
//! alone.

pub mod doomed;
pub mod lease;
pub mod reader;
pub mod recorder;
pub mod scan;
pub mod settled;
mod share;
pub mod upkeep;

//! The budgets that Meta keeps for a line and for an app, and the rate at which calls may go without being refused.
//!
//! Meta tells the use of a budget in percent, and neither its size nor its window. [`Budget`] learns both from the calls
//! of this process and the percents that come back, and admits calls up to just below the limit (docs/limits.md,
//! docs/decisions, 59). Times are seconds since a moment of the caller's choice.
//!
//! Never here: a clock, I/O, or which line is next.

mod admission;
mod after_refusals;
mod budget;
mod fit;
mod growth;
mod headers;
mod history;
mod learned;
#[cfg(test)]
mod tests;
mod window;

pub use admission::Admission;
pub use budget::Budget;
pub use headers::{Reading, Usage, read};
pub use learned::{Learned, RECENT_PARTS};
